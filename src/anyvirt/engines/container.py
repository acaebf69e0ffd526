"""The container engine: OS-level virtualization. One kernel, many isolated userlands.

The guest's command runs natively in namespaces of its own, over a writable layer that is thrown away; see
docs/engines/container.md.
"""

from __future__ import annotations

import os
import signal as signals
import threading
from functools import cache
from typing import TYPE_CHECKING

from anyvirt.engines.engine import Architecture, Availability, Capability, Engine, Execution, World
from anyvirt.engines.waiting import await_end
from anyvirt.errors import (
    AnyvirtError,
    CommandNotFoundError,
    GuestStartError,
    NotExecutableError,
    UnsupportedError,
    UsageError,
)
from anyvirt.instance import ExitStatus, Instance, Process, State, Streams, Usage, own_peak_memory
from anyvirt.linux.program import DEFAULT_PATH, host_refusal
from anyvirt.paths import instances_directory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyvirt.guest import Guest
    from anyvirt.instance import TerminalSize
    from anyvirt.linux.container.channel import Channel
    from anyvirt.linux.container.specification import ContainerSpecification, ProgramSpecification
    from anyvirt.linux.program import Program

_NAME = "container"


class ContainerEngine(Engine):
    """Runs guests in Linux namespaces and control groups, as root or as an ordinary user."""

    name = _NAME
    summary = "OS-level virtualization: the host's kernel, everything else of the guest's own"
    architecture = Architecture.OS_LEVEL
    world = World.PROCESS
    execution = Execution.NATIVE
    capabilities = frozenset(
        {
            Capability.TERMINAL,
            Capability.EXEC,
            Capability.PAUSE,
            Capability.ISOLATION,
            Capability.ROOTFS,
            Capability.SHARE,
            Capability.HOSTNAME,
            Capability.LIMITS,
            Capability.PIDS,
        }
    )
    weight = 10
    joins_terminal = False

    def probe(self) -> Availability:
        """Start an idle container, and say what it got; the answer is remembered."""
        return _probe()

    def refusal(self, program: Program) -> str | None:
        """The host's CPU runs its own instruction sets only."""
        return host_refusal(program)

    def start(self, guest: Guest, streams: Streams, terminal: TerminalSize | None = None) -> Instance:
        """See Engine.start. Starting is itself the test of what the host offers; nothing is probed before."""
        if guest.command:
            self.check_program(guest)
        try:
            return self.create(guest, streams, terminal)
        except GuestStartError:
            self.check(guest)
            raise

    def create(self, guest: Guest, streams: Streams, terminal: TerminalSize | None) -> ContainerInstance:
        """See Engine.create."""
        return ContainerInstance(guest, streams, terminal)


class ContainerProcess(Process):
    """A program in a container, through its channel to the keeper."""

    def __init__(self, channel: Channel, name: str, directory: str) -> None:
        """Wait until the program that was asked for on `channel` runs. Raises what kept it from starting.

        `directory` is that of the container, to clean up after a keeper that was killed.
        """
        self._channel = channel
        self._directory = directory
        self._lock = threading.Lock()
        self._status: ExitStatus | None = None
        self._usage = Usage()
        try:
            received = channel.receive()
        except BaseException:
            # Interrupted while waiting: the keeper takes the closed connection for an end.
            channel.close()
            raise
        if received is None:
            channel.close()
            _clean_up_after_keeper(directory)
            raise GuestStartError(
                f"{name} cannot be started: the process that keeps the container was killed"
            )
        (verdict, *facts), fds = received
        if verdict != "started":
            channel.close()
            raise _error(*facts)
        self._pid, self._group, self._namespace, self.identities = facts
        self._pidfd = fds[0]
        self.terminal = fds[1] if len(fds) > 1 else None
        self.end_fd = channel.fileno()

    @property
    def pid(self) -> int:
        """The process's number on the host."""
        return int(self._pid)

    @property
    def finished(self) -> bool:
        """Whether the process has been waited for."""
        return self._status is not None

    def wait(self, timeout: float | None = None) -> ExitStatus:
        """See Process.wait."""
        if self._status is None:
            self._await_end(timeout)
            with self._lock:
                if self._status is None:
                    self._take_end()
        assert self._status is not None
        return self._status

    def signal(self, number: int) -> None:
        """See Process.signal."""
        if self._status is not None:
            return
        try:
            signals.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return

    def usage(self) -> Usage:
        """See Process.usage."""
        return self._usage

    def close(self) -> None:
        """Kill the process if it runs and give back its file descriptors. Idempotent."""
        if self._status is None:
            self._channel.shut()
            self.wait()
        self._channel.close()
        self.end_fd = None
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        if self.terminal is not None:
            os.close(self.terminal)
            self.terminal = None

    def _await_end(self, timeout: float | None) -> None:
        await_end(self._channel.fileno(), timeout)

    def _take_end(self) -> None:
        """Read the keeper's last message; the kernel kills the process of a keeper that was killed."""
        received = self._channel.receive()
        if received is None:
            _clean_up_after_keeper(self._directory)
            self._status = ExitStatus(signal=signals.SIGKILL)
            return
        _, status, user, system, peak, self.out_of_memory_kills = received[0]
        self._usage = Usage.accounted(user, system, peak, starter_peak=own_peak_memory())
        self._status = ExitStatus.from_wait(os.waitstatus_to_exitcode(status))


class ContainerInstance(ContainerProcess, Instance):
    """A running container."""

    engine = _NAME

    def __init__(self, guest: Guest, streams: Streams, terminal: TerminalSize | None) -> None:
        """Start `guest`."""
        from anyvirt.linux.container.client import request_start

        self.guest = guest
        self._specification = _specify(guest)
        self._paused = False
        self._others: list[ContainerProcess] = []
        program = _program(guest, guest.command, guest.env, guest.workdir, terminal)
        channel = request_start(self._specification, program, _fds(streams, program))
        name = guest.command[0] if guest.command else "the container"
        super().__init__(channel, name, self._specification.directory)

    @property
    def identifier(self) -> str:
        """The name under which the container's control group and directory are found on the host."""
        return self._specification.identifier

    @property
    def state(self) -> State:
        """See Instance.state."""
        if not self.finished:
            try:
                self.wait(0)
            except TimeoutError:
                return State.PAUSED if self._paused else State.RUNNING
        return State.STOPPED

    def signal(self, number: int) -> None:
        """See Process.signal; a deadly signal reaches a paused container at once."""
        super().signal(number)
        if number == signals.SIGKILL and self._paused:
            self.resume()

    def exec(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        streams: Streams | None = None,
        terminal: TerminalSize | None = None,
    ) -> ContainerProcess:
        """See Instance.exec."""
        from anyvirt.linux.container.client import request_join

        if self.state is not State.RUNNING:
            raise GuestStartError(f"{command[0]} cannot be started: the container is {self.state}")
        program = _program(
            self.guest,
            tuple(command),
            {**self.guest.env, **(env or {})},
            workdir or self.guest.workdir,
            terminal,
        )
        fds = _fds(streams or Streams(), program)
        channel = request_join(self.identifier, program, fds)
        process = ContainerProcess(channel, command[0], self._directory)
        self._others.append(process)
        return process

    def pause(self) -> None:
        """See Instance.pause; done by the freezer, or by SIGSTOP where there is no control group."""
        from anyvirt.linux.container.freezing import freeze

        if self.state is State.RUNNING:
            freeze(self._group, self._namespace, frozen=True)
            self._paused = True

    def resume(self) -> None:
        """See Instance.resume."""
        from anyvirt.linux.container.freezing import freeze

        if self._paused:
            freeze(self._group, self._namespace, frozen=False)
            self._paused = False

    def close(self) -> None:
        """See Instance.close."""
        super().close()
        for process in self._others:
            process.close()


def _clean_up_after_keeper(directory: str) -> None:
    """Remove what a container held whose keeper was killed, once the kernel has killed its processes."""
    from anyvirt.linux.container.records import remove_abandoned

    remove_abandoned(directory)


@cache
def _probe() -> Availability:
    from anyvirt.guest import Guest
    from anyvirt.linux.container.obstacles import describe_host, find_remedy

    try:
        with ContainerInstance(Guest(), Streams(), None) as instance:
            identities = instance.identities
    except AnyvirtError as error:
        return Availability(False, reason=str(error), remedy=find_remedy())
    return Availability(True, details={"user ids": identities, **describe_host()})


def _specify(guest: Guest) -> ContainerSpecification:
    from anyvirt.linux.container.specification import BindMount, ContainerSpecification

    identifier = os.urandom(6).hex()
    return ContainerSpecification(
        identifier=identifier,
        directory=f"{instances_directory()}/{identifier}",
        rootfs=os.fspath(guest.rootfs) if guest.rootfs else "/",
        hostname=guest.hostname or identifier,
        mounts=tuple(BindMount(os.fspath(m.source), m.target, m.read_only) for m in guest.mounts),
        memory=guest.limits.memory,
        cpus=guest.limits.cpus,
        pids=guest.limits.pids,
    )


def _program(
    guest: Guest,
    command: Sequence[str],
    env: Mapping[str, str],
    workdir: str | None,
    terminal: TerminalSize | None,
) -> ProgramSpecification:
    """The program with a clean environment: only what every program expects, and what was asked for.

    On the host's own root, PATH, the home and the working directory are the caller's, as it knows them.
    """
    from anyvirt.linux.container.specification import ProgramSpecification

    on_host_root = guest.rootfs is None
    environment = {
        "PATH": (os.environ.get("PATH") if on_host_root else None) or DEFAULT_PATH,
        "HOME": os.path.expanduser("~") if on_host_root else "/root",
    }
    if terminal is not None:
        environment["TERM"] = os.environ.get("TERM") or "xterm"
    environment |= env
    return ProgramSpecification(
        command=tuple(command),
        environment=tuple(environment.items()),
        workdir=workdir or (os.getcwd() if on_host_root else "/"),
        workdir_required=workdir is not None,
        terminal=(terminal.rows, terminal.columns) if terminal is not None else None,
    )


def _fds(streams: Streams, program: ProgramSpecification) -> tuple[int, ...]:
    if program.terminal is not None:
        return ()
    return (streams.stdin, streams.stdout, streams.stderr)


def _error(fault: str, text: str) -> AnyvirtError:
    """The keeper's answer as the error that its kind stands for."""
    if fault == "LIMITS":
        return UnsupportedError(_NAME, Capability.LIMITS, text)
    kinds: dict[str, type[AnyvirtError]] = {
        "USAGE": UsageError,
        "NOT_FOUND": CommandNotFoundError,
        "NOT_EXECUTABLE": NotExecutableError,
    }
    return kinds.get(fault, GuestStartError)(text)
