"""Instance: one running guest, with the states and verbs that every engine shares."""

from __future__ import annotations

import signal as signals
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from anyvirt.errors import ExitCode, GuestTimeoutError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from anyvirt.guest import Guest


class State(StrEnum):
    """Where an instance is in its life."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


@dataclass(frozen=True)
class ExitStatus:
    """How a guest's command ended: by exiting with a code, or by a signal."""

    code: int | None = None
    signal: int | None = None

    @classmethod
    def from_wait(cls, returncode: int) -> ExitStatus:
        """From a return code in which a death by signal n is -n (os.waitstatus_to_exitcode)."""
        return cls(code=returncode) if returncode >= 0 else cls(signal=-returncode)

    @property
    def shell(self) -> int:
        """The status as a POSIX shell's `$?`: the exit code, or 128 plus the signal's number."""
        if self.signal is not None:
            return ExitCode.SIGNAL_BASE + self.signal
        return self.code or 0

    def __str__(self) -> str:
        if self.signal is not None:
            return f"killed by {signal_name(self.signal)}"
        return f"exit status {self.code}"


@dataclass(frozen=True)
class Usage:
    """What a finished guest consumed, as the host's kernel accounted it."""

    user_seconds: float = 0.0
    system_seconds: float = 0.0
    peak_memory: int | None = None
    """Largest resident set of any one process, in bytes; None where it was no larger than that of the
    process which started the guest, because the kernel counts that one too (a child's, before its exec)."""

    @classmethod
    def accounted(cls, user: float, system: float, peak: int, *, starter_peak: int) -> Usage:
        """From the kernel's figures: seconds, and bytes of the guest's and of the starting process's peak."""
        return cls(user, system, peak if peak > starter_peak else None)


def own_peak_memory() -> int:
    """The largest resident set that this process has had, in bytes (getrusage(2))."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass(frozen=True)
class TerminalSize:
    """Rows and columns of a terminal window, in characters."""

    rows: int = 24
    columns: int = 80


@dataclass(frozen=True)
class Streams:
    """The host file descriptors that become the guest's standard streams."""

    stdin: int = 0
    stdout: int = 1
    stderr: int = 2


def signal_name(number: int) -> str:
    """The name of signal `number`, such as SIGTERM, or `signal 40` for one without a name."""
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"


class Process(ABC):
    """A process of a guest, seen from the host: its main command, or one started by `Instance.exec`."""

    terminal: int | None = None
    """The host's end of the process's own pseudo-terminal, where it was given one."""
    end_fd: int | None = None
    """A file descriptor that becomes readable when the process has ended; None if there is none."""
    out_of_memory_kills: int = 0
    """Processes that the kernel killed because the guest's memory limit was reached, known after the end."""
    in_foreground: bool = False
    """Whether the keyboard signals of the caller's terminal reach the process by themselves."""

    @property
    @abstractmethod
    def pid(self) -> int:
        """The process's number on the host."""

    @abstractmethod
    def wait(self, timeout: float | None = None) -> ExitStatus:
        """Wait for the end; TimeoutError after `timeout` seconds. May be called again after it returned."""

    @abstractmethod
    def signal(self, number: int) -> None:
        """Send a signal; one sent after the end is ignored."""

    @abstractmethod
    def usage(self) -> Usage:
        """Resources used; complete once `wait` has returned."""

    def resize(self, size: TerminalSize) -> None:
        """Tell the process's terminal its new window size; without a terminal of its own nothing happens."""
        if self.terminal is not None:
            import fcntl
            import struct
            import termios

            fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("4H", size.rows, size.columns, 0, 0))


class Instance(Process):
    """One running guest. As a context manager it is closed, and so killed if it still runs, at the end.

    The verbs that not every engine has raise UnsupportedError; `Engine.capabilities` tells beforehand.
    """

    engine: str
    guest: Guest
    start_phases: Sequence[tuple[str, float]] = ()
    """What the start consisted of, and the seconds that each part took, where that is worth knowing: of a
    machine's boot, once `wait` has returned."""
    instructions: int | None = None
    """How many were executed, of a guest that was run by counting them, once `wait` has returned."""

    @property
    @abstractmethod
    def state(self) -> State:
        """The state now."""

    @abstractmethod
    def exec(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        streams: Streams | None = None,
        terminal: TerminalSize | None = None,
    ) -> Process:
        """Start another command in the running guest."""

    @abstractmethod
    def pause(self) -> None:
        """Stop the guest's execution until `resume`."""

    @abstractmethod
    def resume(self) -> None:
        """Continue a paused guest."""

    def snapshot(self, directory: Path | str, *, compress: bool = False) -> None:
        """Write all that the guest is to a directory that is not there yet, or is empty; the guest goes on.

        `anyvirt.restore` starts guests from there. Raises UnsupportedError where the engine cannot,
        UsageError and GuestStartError; nothing is left behind then.
        """
        raise UnsupportedError(self.engine, "snapshot", "its guests are processes of the host's kernel")

    @abstractmethod
    def close(self) -> None:
        """Kill whatever still runs and give back everything the instance holds on the host. Idempotent."""

    def kill(self) -> None:
        """End the guest at once."""
        self.signal(signals.SIGKILL)

    def stop(self, timeout: float = 10.0) -> ExitStatus:
        """Ask the guest to end (SIGTERM) and kill it if it has not after `timeout` seconds."""
        self.signal(signals.SIGTERM)
        try:
            return self.wait(timeout)
        except TimeoutError:
            self.kill()
            return self.wait()

    def kill_late(self, timeout: float) -> GuestTimeoutError:
        """Kill a guest that ran longer than `timeout` seconds, and return the error that says so."""
        self.kill()
        self.wait()
        return GuestTimeoutError(f"the guest was killed: it had not ended after {timeout:g} seconds")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
