"""The processes in the keeper's charge: a container's first process, and programs that joined later.

Each has a channel to the caller, a packet socket on which the process reports its set-up, and a pidfd that
tells its end. Whichever of them speaks first, the other ends follow.
"""

from __future__ import annotations

import _socket
import os
import signal as signals
from typing import TYPE_CHECKING, Any, Protocol

from anyvirt.linux import kernel
from anyvirt.linux.cgroups import ControllerError, plan_control_group
from anyvirt.linux.container import init, joining, records, stages
from anyvirt.linux.container.channel import receive_with_fds
from anyvirt.linux.container.identities import Identities, write_maps
from anyvirt.linux.container.layers import open_layer, plan_layers, read_mount_points
from anyvirt.linux.container.stages import Fault, Stage, StartError

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.linux.cgroups import ControlGroup
    from anyvirt.linux.container.channel import Channel
    from anyvirt.linux.container.specification import ContainerSpecification, ProgramSpecification

_NAMESPACES = (
    kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWNET
)
_PACKET = 4096
_MAPPING_STAGES = frozenset(
    {Stage.IDENTITIES, Stage.LAYERS, Stage.PIVOT, Stage.DEVICES, Stage.KERNEL_FILESYSTEMS, Stage.MOUNTS}
)


class Loop(Protocol):
    """What a charge needs of the keeper."""

    identities: Identities
    unmappable: set[frozenset[int]]
    """Sets of file systems, by device number, of which at least one cannot map file owners."""
    containers: dict[str, ContainerCharge]

    def watch(self, fd: int, handler: Callable[[], None]) -> None:
        """Call `handler` whenever `fd` can be read or its other end is gone."""

    def forget(self, fd: int) -> None:
        """Watch `fd` no longer."""


class Charge:
    """One process that the caller asked for."""

    def __init__(
        self, loop: Loop, channel: Channel, program: ProgramSpecification, streams: tuple[int, ...]
    ) -> None:
        self._loop = loop
        self._channel = channel
        self._program = program
        self._streams = streams
        self._reports: _socket.socket | None = None
        self._pid = 0
        self.pidfd = -1
        self._failure: StartError | None = None
        self._started = False
        self._abandoned = False
        loop.watch(channel.fileno(), self._caller_gone)

    def _open_reports(self, opened: list[int]) -> int:
        """Follow a new packet socket; returns the process's end of it, which is added to `opened`."""
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        opened.append(theirs.detach())
        self._reports = ours
        self._loop.watch(ours.fileno(), self._take_report)
        return opened[-1]

    def _take_report(self) -> None:
        """Read one packet. Its text is the container's word: it is believed about the container only."""
        assert self._reports is not None
        packet, fds = receive_with_fds(self._reports, _PACKET)
        if packet[:1] == b"E":
            self._failure = stages.decode(packet[1:])
        elif packet:
            self._take(packet[:1], packet[1:], fds)
        else:
            self._close_reports()
            self._reports_ended()

    def _take(self, kind: bytes, content: bytes, fds: tuple[int, ...]) -> None:
        raise NotImplementedError

    def _reports_ended(self) -> None:
        """The process will report nothing more."""

    def _close_reports(self) -> None:
        if self._reports is not None:
            self._loop.forget(self._reports.fileno())
            self._reports.close()
            self._reports = None

    def _caller_gone(self) -> None:
        """The caller sends nothing after its request but the connection's end: nobody wants the process."""
        self._loop.forget(self._channel.fileno())
        self._abandoned = True
        self._kill()

    def _kill(self) -> None:
        if self.pidfd >= 0:
            try:
                signals.pidfd_send_signal(self.pidfd, signals.SIGKILL)
            except ProcessLookupError:
                return

    def _answer(self, message: tuple[Any, ...], fds: tuple[int, ...] = ()) -> None:
        try:
            self._channel.send(message, fds)
        except (BrokenPipeError, ConnectionResetError):
            # The caller is gone; `_caller_gone` follows.
            return

    def _fail(self, failure: StartError) -> None:
        self._answer(("failed", failure.fault.name, str(failure)))

    def _close(self) -> None:
        """Give back every file descriptor; the process has been waited for."""
        self._close_reports()
        self._close_streams()
        if self.pidfd >= 0:
            self._loop.forget(self.pidfd)
            os.close(self.pidfd)
            self.pidfd = -1
        self._loop.forget(self._channel.fileno())
        self._channel.close()

    def _close_streams(self) -> None:
        close_all(self._streams)
        self._streams = ()


class ContainerCharge(Charge):
    """A container, from its record on disk to its removal."""

    def __init__(
        self,
        loop: Loop,
        channel: Channel,
        specification: ContainerSpecification,
        program: ProgramSpecification,
        streams: tuple[int, ...],
    ) -> None:
        super().__init__(loop, channel, program, streams)
        self._specification = specification
        self._devices = _devices_of(specification)
        self.identities = loop.identities
        if self.identities is Identities.MAPPED and self._devices in loop.unmappable:
            self.identities = Identities.PLAIN
        self.group: ControlGroup | None = None
        self.namespaces: tuple[tuple[int, int], ...] = ()
        """See joining.Visit."""
        self._record = -1
        self._exit_report = b""
        loop.containers[specification.identifier] = self

    def start(self) -> None:
        """Bring the container's first process into being; its reports tell how it went."""
        try:
            if self.group is None:
                self._prepare()
            self._bear()
        except ControllerError as error:
            self._failure = StartError(Fault.LIMITS, str(error))
        except OSError as error:
            self._failure = stages.describe(error)
        if self._failure is None:
            return
        if self.pidfd >= 0:
            self._kill()
        else:
            self._finish(0)

    def _prepare(self) -> None:
        specification = self._specification
        stages.enter(Stage.RECORD)
        group = plan_control_group(f"anyvirt-{specification.identifier}", specification.controllers)
        self._record = records.write_record(specification.directory, group)
        stages.enter(Stage.CONTROL_GROUP)
        self.group = group
        group.make()
        if specification.memory is not None:
            group.limit_memory(specification.memory)
        if specification.cpus is not None:
            group.limit_cpus(specification.cpus)
        if specification.pids is not None:
            # The container's first process is ours and does not count.
            group.limit_pids(specification.pids + 1)

    def _bear(self) -> None:
        """Clone the first process and tell it to go on once its ids are mapped."""
        opened: list[int] = []
        try:
            wait, go = os.pipe()
            opened += [wait, go]
            birth = self._birth(wait, opened)
            into = self._open_group(opened)
            stages.enter(Stage.CLONE)
            user = kernel.CLONE_NEWUSER if self.identities.user_namespace else 0
            os.chdir(self._specification.directory)
            self._pid, self.pidfd = kernel.clone3(_NAMESPACES | user, cgroup=into)
            if self._pid == 0:
                init.run(birth)
            os.chdir("/")
            self._loop.watch(self.pidfd, self._ended)
            stages.enter(Stage.IDENTITIES)
            self._map_identities(birth)
            os.write(go, b"g")
        finally:
            close_all(opened)

    def _birth(self, wait: int, opened: list[int]) -> init.Birth:
        """What the new process is to find; all file descriptors made for it are added to `opened`."""
        stages.enter(Stage.SOURCES)
        specification, privileged = self._specification, self.identities.privileged
        plan = plan_layers(
            specification.rootfs,
            read_mount_points(),
            privileged=privileged,
            owned=(self._program.workdir, dict(self._program.environment).get("HOME", "/")),
        )
        trees: list[int | None] = []
        shared: list[int] = []
        if privileged:
            trees = [open_layer(layer) for layer in plan]
            opened += [tree for tree in trees if tree is not None]
            shared = init.open_mounts(specification.mounts)
            opened += shared
        assert self.group is not None
        group_files = self.group.open_for_joining()
        opened += group_files
        return init.Birth(
            specification=specification,
            program=self._program,
            identities=self.identities,
            go=wait,
            reports=self._open_reports(opened),
            streams=self._streams,
            layers=plan,
            layer_trees=trees,
            mount_trees=shared,
            group_files=group_files,
            group_views=self.group.views(),
        )

    def _open_group(self, opened: list[int]) -> int | None:
        assert self.group is not None
        into = self.group.open_for_clone()
        if into is not None:
            opened.append(into)
        return into

    def _map_identities(self, birth: init.Birth) -> None:
        if self.identities.privileged:
            self.namespaces = joining.all_namespaces(self.pidfd, self.identities)
        else:
            self.namespaces = joining.open_namespaces(self._pid)
        if not self.identities.user_namespace:
            return
        write_maps(self._pid, self.identities, self._specification.identifier)
        if self.identities is not Identities.MAPPED:
            return
        namespace = os.open(f"/proc/{self._pid}/ns/user", os.O_RDONLY)
        try:
            for layer, tree in zip(birth.layers, birth.layer_trees, strict=True):
                if tree is not None:
                    self._map_owners(tree, namespace, optional=layer.target != "/")
            for tree in birth.mount_trees:
                kernel.set_mount_attributes(tree, 0, recursive=True, user_namespace=namespace)
        finally:
            os.close(namespace)

    def _map_owners(self, tree: int, namespace: int, *, optional: bool) -> None:
        try:
            kernel.set_mount_attributes(tree, 0, user_namespace=namespace)
        except OSError:
            # Files of such a filesystem belong to nobody; the container still reads the public ones.
            if not optional:
                raise

    def _take(self, kind: bytes, content: bytes, fds: tuple[int, ...]) -> None:
        if kind == b"S" and not self._started:
            self._started = True
            self._close_streams()
            self._announce(fds)
        elif kind == b"X" and len(content) == init.EXIT_REPORT.size:
            self._exit_report = content
        close_all(fds)

    def _announce(self, fds: tuple[int, ...]) -> None:
        """Tell the caller that the container runs; fds are the command's pidfd and terminal."""
        command = fds[:1] if self._program.command else (self.pidfd,)
        terminal = fds[-1:] if self._program.terminal and fds else ()
        group = self.group.description if self.group is not None else ("", ())
        facts = (pid_of(command[0]), group, self._pid_namespace(), str(self.identities))
        self._answer(("started", *facts), (*command, *terminal))

    def _pid_namespace(self) -> int:
        """The number by which the kernel knows the container's PID namespace."""
        for fd, kinds in self.namespaces:
            if kinds == kernel.CLONE_NEWPID:
                return os.fstat(fd).st_ino
        return os.stat(f"/proc/{self._pid}/ns/pid").st_ino

    def _ended(self) -> None:
        _, status, _ = os.wait4(self._pid, 0)
        while self._reports is not None:
            self._take_report()
        if not self.identities.privileged:
            close_all([fd for fd, _ in self.namespaces])
        self.namespaces = ()
        self._loop.forget(self.pidfd)
        os.close(self.pidfd)
        self.pidfd = -1
        if self._may_retry():
            self._loop.unmappable.add(self._devices)
            self.identities = Identities.PLAIN
            self._failure = None
            self.start()
            return
        self._finish(status)

    def _may_retry(self) -> bool:
        """Whether the start failed in a way that mapping ids explains: not every filesystem can do that."""
        return (
            not self._started
            and not self._abandoned
            and self.identities is Identities.MAPPED
            and self._failure is not None
            and self._failure.fault is Fault.HOST
            and self._failure.stage in _MAPPING_STAGES
        )

    def _finish(self, status: int) -> None:
        """Remove what the container held on the host, and tell the caller."""
        self._loop.containers.pop(self._specification.identifier, None)
        kills = self.group.out_of_memory_kills() if self.group and self._specification.memory else 0
        self._remove()
        if self._started:
            report = (status, 0.0, 0.0, 0)
            if self._exit_report:
                report = init.EXIT_REPORT.unpack(self._exit_report)
            self._answer(("ended", *report, kills))
        else:
            self._fail(self._failure or self._unexplained(kills))
        self._close()

    def _unexplained(self, kills: int) -> StartError:
        if kills:
            return StartError(
                Fault.HOST,
                f"the container ran out of memory while it was starting: a limit of "
                f"{self._specification.memory} bytes is too small",
            )
        return StartError(Fault.HOST, "the container's first process was killed while it was starting")

    def _remove(self) -> None:
        stages.enter(Stage.REMOVAL)
        try:
            if self.group is not None:
                self.group.remove()
            records.erase_record(self._specification.directory)
        except OSError:
            # The record, no longer locked, makes the next start of a container try again.
            return
        finally:
            if self._record >= 0:
                os.close(self._record)
                self._record = -1

    def _kill(self) -> None:
        super()._kill()
        if self.group is not None and self.group.freezes and self._started:
            # What is frozen by cgroup v1 dies only when it is thawed.
            self.group.freeze(False)


class VisitorCharge(Charge):
    """A program that joins a running container."""

    def __init__(
        self,
        loop: Loop,
        channel: Channel,
        container: ContainerCharge,
        program: ProgramSpecification,
        streams: tuple[int, ...],
    ) -> None:
        super().__init__(loop, channel, program, streams)
        self._container = container
        self._joiner = 0
        self._terminal: tuple[int, ...] = ()

    def start(self) -> None:
        """Bring the joiner into being that makes the program's process."""
        opened: list[int] = []
        try:
            stages.enter(Stage.JOIN)
            group = self._container.group
            assert group is not None
            group_files = group.open_for_joining()
            opened += group_files
            into = group.open_for_clone()
            if into is not None:
                opened.append(into)
            visit = joining.Visit(
                program=self._program,
                identities=self._container.identities,
                namespaces=self._container.namespaces,
                reports=self._open_reports(opened),
                streams=self._streams,
                group_files=group_files,
            )
            self._joiner, joiner_pidfd = kernel.clone3(0, cgroup=into)
            if self._joiner == 0:
                joining.run(visit)
            os.close(joiner_pidfd)
        except OSError as error:
            self._fail(stages.describe(error))
            self._close()
        finally:
            close_all(opened)

    def _take(self, kind: bytes, content: bytes, fds: tuple[int, ...]) -> None:
        if kind == b"P" and not self._pid:
            (self._pid,) = joining.PROCESS_REPORT.unpack(content)
            self.pidfd = os.pidfd_open(self._pid)
            self._terminal = fds
            if self._abandoned:
                self._kill()

    def _reports_ended(self) -> None:
        os.waitpid(self._joiner, 0)
        self._close_streams()
        if self._failure is not None or not self._pid:
            if self._pid:
                os.waitpid(self._pid, 0)
            self._fail(
                self._failure or StartError(Fault.HOST, "the command was killed while it was starting")
            )
            self._close()
            return
        self._started = True
        self._loop.watch(self.pidfd, self._ended)
        facts = (self._pid, ("", ()), 0, str(self._container.identities))
        self._answer(("started", *facts), (self.pidfd, *self._terminal))
        close_all(self._terminal)

    def _ended(self) -> None:
        _, status, usage = os.wait4(self._pid, 0)
        self._answer(("ended", status, usage.ru_utime, usage.ru_stime, usage.ru_maxrss * 1024, 0))
        self._close()


def _devices_of(specification: ContainerSpecification) -> frozenset[int]:
    """The file systems whose files the container is to show."""
    found = set()
    for path in (specification.rootfs, *(mount.source for mount in specification.mounts)):
        try:
            found.add(os.stat(path).st_dev)
        except OSError:
            # The start will say what is wrong with it.
            continue
    return frozenset(found)


def pid_of(pidfd: int) -> int:
    """The process of `pidfd`, by its number here (proc(5), fdinfo)."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        for line in file:
            if line.startswith("Pid:"):
                return int(line[4:])
    return -1


def close_all(fds: list[int] | tuple[int, ...]) -> None:
    """Close file descriptors."""
    for fd in fds:
        os.close(fd)
