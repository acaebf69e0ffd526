"""Guests with a kernel of their own, from the host: an instance is a monitor process and channels to it."""

from __future__ import annotations

import os
import select
import signal as signals
import subprocess
import threading
import time
import tty
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyvirt.errors
from anyvirt.engines.waiting import await_end
from anyvirt.errors import AnyvirtError, GuestStartError, UsageError
from anyvirt.instance import (
    ExitStatus,
    Instance,
    Process,
    State,
    Streams,
    TerminalSize,
    Usage,
    own_peak_memory,
    signal_name,
)
from anyvirt.linux.container.channel import Channel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anyvirt.engines.machine_engine import MachineEngine
    from anyvirt.guest import Guest
    from anyvirt.monitor.orders import CommandOrder, MachineOrder, Message

_ENDED_SIZE = 5
"""Parts of what is said at a command's end: behind them the instructions, where they were counted."""
_ENDING_LIMIT = 10.0
"""Seconds that a monitor may take to end once it has said how."""


class MachineCommand(Process):
    """A command in a machine, through its own channel to the monitor."""

    def __init__(self, channel: Channel, terminal: int | None, monitor: int) -> None:
        self._channel = channel
        self._monitor = monitor
        self._lock = threading.Lock()
        self._status: ExitStatus | None = None
        self._failure: AnyvirtError | None = None
        self._usage = Usage()
        self.terminal = terminal
        self.end_fd = channel.fileno()

    @property
    def pid(self) -> int:
        """The monitor's number: on the host there is no other process."""
        return self._monitor

    @property
    def finished(self) -> bool:
        """Whether the command's end was waited for."""
        return self._status is not None or self._failure is not None

    def wait(self, timeout: float | None = None) -> ExitStatus:
        """See Process.wait. Raises what kept the command from starting, and GuestStartError for a machine
        that broke.
        """
        if not self.finished:
            self._await_end(timeout)
            with self._lock:
                if not self.finished:
                    self._take_end()
        if self._failure is not None:
            raise self._failure
        assert self._status is not None
        return self._status

    def signal(self, number: int) -> None:
        """See Process.signal."""
        self._tell(("signal", int(number)))

    def resize(self, size: TerminalSize) -> None:
        """See Process.resize."""
        super().resize(size)
        if self.terminal is not None:
            self._tell(("resize", size.rows, size.columns))

    def usage(self) -> Usage:
        """See Process.usage. Of a command of `exec` it is the account of the guest's kernel."""
        return self._usage

    def close(self) -> None:
        """Kill the command if it runs and give back its descriptors. Idempotent."""
        if not self.finished:
            self._channel.shut()
            with suppress(AnyvirtError):
                self.wait()
        self._let_go()

    def _let_go(self) -> None:
        self._channel.close()
        self.end_fd = None
        if self.terminal is not None:
            os.close(self.terminal)
            self.terminal = None

    def _tell(self, message: Message) -> None:
        if not self.finished:
            with suppress(OSError):
                self._channel.send(message)

    def _await_end(self, timeout: float | None) -> None:
        await_end(self._channel.fileno(), timeout)

    def _take_end(self) -> None:
        received = self._channel.receive()
        if received is None:
            self._status = ExitStatus(signal=signals.SIGKILL)
        else:
            self._take_message(received[0])

    def _take_message(self, message: Message) -> None:
        if message[0] == "failed":
            self._failure = _error(message[1], message[2])
            return
        _, status, user, system, peak, *_ = message
        self._status = ExitStatus.from_wait(os.waitstatus_to_exitcode(status))
        self._usage = Usage(user, system, peak)


class MachineInstance(MachineCommand, Instance):
    """A machine with its main command, or none. It is started before its kernel has booted.

    What goes wrong from then on is raised by `wait`.
    """

    def __init__(
        self,
        engine: MachineEngine,
        guest: Guest,
        machine: MachineOrder,
        command: CommandOrder | None,
        streams: Streams,
        terminal: TerminalSize | None,
    ) -> None:
        """Start the monitor. Raises what it says against the machine; then nothing is left behind."""
        began = time.monotonic()
        self.engine = engine.name
        self._engine = engine
        self.guest = guest
        self._paused = False
        self._others: list[MachineCommand] = []
        self._killed = False
        self._asking = threading.Lock()
        self._starter_peak = own_peak_memory()
        self._control, far_control = Channel.pair()
        near, far = Channel.pair()
        self._process = subprocess.Popen(
            [*engine.monitor, str(far_control.fileno())],
            pass_fds=[far_control.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        far_control.close()
        ends = _Ends(streams, terminal)
        super().__init__(near, ends.terminal, self._process.pid)
        order = command.message() if command is not None else None
        try:
            try:
                with suppress(BrokenPipeError):
                    self._control.send(("make", machine.message(), order, began), (far.fileno(), *ends.given))
            finally:
                far.close()
                ends.handed_over()
            self._expect_done()
        except BaseException:
            self.close()
            raise

    @property
    def state(self) -> State:
        """See Instance.state."""
        if not self.finished:
            try:
                self.wait(0)
            except TimeoutError:
                return State.PAUSED if self._paused else State.RUNNING
            except AnyvirtError:
                return State.STOPPED
        return State.STOPPED

    def signal(self, number: int) -> None:
        """See Process.signal; SIGKILL ends the whole machine. Before its command runs, so do others."""
        if number == signals.SIGKILL:
            if not self.finished:
                self._killed = True
                self._kill()
        else:
            super().signal(number)

    def exec(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        streams: Streams | None = None,
        terminal: TerminalSize | None = None,
    ) -> MachineCommand:
        """See Instance.exec. Waits until the machine has booted."""
        if self.guest.seed is not None:
            raise UsageError(
                "a deterministic guest runs its own command and, for the sake of that, no others"
            )
        if self.state is not State.RUNNING:
            raise GuestStartError(f"{command[0]} cannot be started: the machine is {self.state}")
        order = self._engine.command_order(
            self.guest,
            tuple(command),
            env={**self.guest.env, **(env or {})},
            workdir=workdir or self.guest.workdir,
            terminal=terminal,
        )
        near, far = Channel.pair()
        ends = _Ends(streams or Streams(), terminal)
        process = MachineCommand(near, ends.terminal, self.pid)
        try:
            try:
                self._ask(("run", order.message()), (far.fileno(), *ends.given))
            finally:
                far.close()
                ends.handed_over()
            self._await_start(near, command[0])
        except BaseException:
            process.close()
            raise
        self._others.append(process)
        return process

    def pause(self) -> None:
        """See Instance.pause. The guest's clock stands, too."""
        if self.state is State.RUNNING:
            if self.guest.seed is None:
                self._ask(("pause",))
            else:
                # It must not notice, wherever it is.
                os.kill(self.pid, signals.SIGSTOP)
            self._paused = True

    def resume(self) -> None:
        """See Instance.resume."""
        if self._paused and not self.finished:
            if self.guest.seed is None:
                self._ask(("resume",))
            else:
                os.kill(self.pid, signals.SIGCONT)
        self._paused = False

    def snapshot(self, directory: Path | str, *, compress: bool = False) -> None:
        """See Instance.snapshot. Waits until the machine has booted and its command has begun."""
        from anyvirt.engines.saved_guest import described

        if self.guest.seed is not None:
            raise UsageError("a deterministic guest cannot be saved: it is to notice nothing of the host")
        if self.state is State.STOPPED:
            raise GuestStartError("the guest cannot be saved: its machine has ended")
        guest = described(self.engine, self.guest, has_terminal=self.terminal is not None)
        self._ask(("snapshot", os.path.abspath(directory), compress, guest))

    def close(self) -> None:
        """See Instance.close."""
        if not self.finished:
            self.signal(signals.SIGKILL)
            with suppress(AnyvirtError):
                self.wait()
        for process in self._others:
            process.close()
        self._control.close()
        self._let_go()

    # ----------------------------------------------------------------------------------------------------

    def _ask(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        with self._asking:
            with suppress(BrokenPipeError):
                self._control.send(message, fds)
            self._expect_done()

    def _expect_done(self) -> None:
        """Take the answer to a request. Raises what it says."""
        received = self._control.receive()
        if received is None:
            self.wait()
            raise GuestStartError("the machine has ended")
        if received[0][0] == "failed":
            raise _error(*received[0][1:])

    @staticmethod
    def _await_start(channel: Channel, name: str) -> None:
        received = channel.receive()
        if received is None:
            raise GuestStartError(f"{name} cannot be started: the machine has ended")
        if received[0][0] == "failed":
            raise _error(*received[0][1:])

    def _take_end(self) -> None:
        received = self._channel.receive()
        status = self._reap()
        if received is not None:
            message, self.start_phases = received[0][:-1], received[0][-1]
            if message[0] == "ended" and len(message) > _ENDED_SIZE:
                self.instructions = message[_ENDED_SIZE]
            usage = self._usage
            self._take_message(message)
            self._usage = usage
        elif self._killed or status == -signals.SIGKILL:
            self._status = ExitStatus(signal=signals.SIGKILL)
        elif status < 0:
            self._failure = GuestStartError(f"the machine's monitor was killed by {signal_name(-status)}")
        else:
            self._failure = GuestStartError(f"the machine's monitor ended with status {status}")

    def _kill(self) -> None:
        """Kill the monitor; Popen's own kill would take its account if it has ended, and throw it away."""
        os.kill(self._process.pid, signals.SIGKILL)

    def _reap(self) -> int:
        """Wait for the monitor's end, and take its account; its return code."""
        deadline = time.monotonic() + _ENDING_LIMIT
        pidfd = os.pidfd_open(self._process.pid)
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                self._kill()
        finally:
            os.close(pidfd)
        _, status, rusage = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self._usage = Usage.accounted(
            rusage.ru_utime, rusage.ru_stime, rusage.ru_maxrss * 1024, starter_peak=self._starter_peak
        )
        return self._process.returncode


class _Ends:
    """The descriptors that a monitor is given for a command: three streams, or a terminal's line."""

    def __init__(self, streams: Streams, terminal: TerminalSize | None) -> None:
        self.terminal: int | None = None
        self._line: int | None = None
        self.given: tuple[int, ...] = (streams.stdin, streams.stdout, streams.stderr)
        if terminal is not None:
            import termios

            self.terminal, self._line = os.openpty()
            # What a terminal does with what is typed, the guest's own does.
            tty.setraw(self._line)
            termios.tcsetwinsize(self.terminal, (terminal.rows, terminal.columns))
            self.given = (self._line,)

    def handed_over(self) -> None:
        """The monitor has them."""
        if self._line is not None:
            os.close(self._line)
            self._line = None


def _error(kind: str, text: str) -> AnyvirtError:
    """The monitor's complaint as the error that it was."""
    found: Any = getattr(anyvirt.errors, kind, GuestStartError)
    if isinstance(found, type) and issubclass(found, AnyvirtError):
        with suppress(TypeError):
            return found(text)
    return GuestStartError(text)
