"""Instances that are ordinary processes of the host: what the native and the user engine start."""

from __future__ import annotations

import errno
import fcntl
import os
import signal as signals
import subprocess
import termios
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from anyvirt.engines.waiting import await_end
from anyvirt.errors import CommandNotFoundError, GuestStartError, NotExecutableError, UsageError
from anyvirt.instance import (
    ExitStatus,
    Instance,
    Process,
    State,
    Streams,
    TerminalSize,
    Usage,
    own_peak_memory,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyvirt.engines.engine import Engine
    from anyvirt.guest import Guest


_IDLE = ("sleep", "infinity")


class HostProcess(Process):
    """A child process of the host, in a process group of its own unless it shares the caller's terminal."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        workdir: str | None,
        streams: Streams,
        terminal: TerminalSize | None = None,
    ) -> None:
        """Start `command`. Raises CommandNotFoundError, NotExecutableError, UsageError or GuestStartError."""
        self.terminal, line = _open_terminal(terminal) if terminal else (None, None)
        self.in_foreground = line is None and any(
            os.isatty(fd) for fd in (streams.stdin, streams.stdout, streams.stderr)
        )
        if line is not None:
            streams = Streams(line, line, line)
        self._status: ExitStatus | None = None
        self._usage = Usage()
        self._starter_peak = own_peak_memory()
        try:
            self._popen = subprocess.Popen(
                command,
                stdin=streams.stdin,
                stdout=streams.stdout,
                stderr=streams.stderr,
                env=env,
                cwd=workdir,
                start_new_session=line is not None,
                process_group=None if self.in_foreground or line is not None else 0,
                preexec_fn=_take_terminal if line is not None else None,  # noqa: PLW1509 (no threads are needed after it)
            )
        except OSError as error:
            self._close_terminal()
            raise _start_error(error, command[0], workdir) from error
        finally:
            if line is not None:
                os.close(line)
        self._pidfd = os.pidfd_open(self._popen.pid)
        self.end_fd = self._pidfd

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._popen.pid

    @property
    def finished(self) -> bool:
        """Whether the process has been waited for."""
        return self._status is not None

    def wait(self, timeout: float | None = None) -> ExitStatus:
        """See Process.wait."""
        if self._status is None:
            await_end(self._pidfd, timeout)
            _, status, rusage = os.wait4(self._popen.pid, 0)
            self._popen.returncode = os.waitstatus_to_exitcode(status)
            self._status = ExitStatus.from_wait(self._popen.returncode)
            self._usage = Usage.accounted(
                rusage.ru_utime, rusage.ru_stime, rusage.ru_maxrss * 1024, starter_peak=self._starter_peak
            )
        return self._status

    def signal(self, number: int) -> None:
        """Send a signal to the process, and a deadly one to what it started in its own group too."""
        if self._status is not None:
            return
        with suppress(ProcessLookupError):
            if not self.in_foreground and number in (signals.SIGKILL, signals.SIGSTOP, signals.SIGCONT):
                os.killpg(self._popen.pid, number)
            else:
                signals.pidfd_send_signal(self._pidfd, number)

    def usage(self) -> Usage:
        """See Process.usage."""
        return self._usage

    def close(self) -> None:
        """Kill the process if it runs and give back its file descriptors."""
        if self._status is None:
            self.signal(signals.SIGKILL)
            self.wait()
        if self.end_fd is not None:
            os.close(self._pidfd)
            self.end_fd = None
        self._close_terminal()

    def _close_terminal(self) -> None:
        if self.terminal is not None:
            os.close(self.terminal)
            self.terminal = None


class HostProcessInstance(Instance):
    """A guest that is a tree of host processes, under one main process (or none, for an idle guest)."""

    def __init__(
        self,
        engine: Engine,
        guest: Guest,
        *,
        prefix: Sequence[str],
        env: Mapping[str, str],
        streams: Streams,
        terminal: TerminalSize | None,
        main_env: Mapping[str, str] | None = None,
        idle: Sequence[str] = _IDLE,
    ) -> None:
        """Start `guest` with the words of `prefix` before each of its commands.

        `main_env` are variables for its own command, and not for those of `exec`; `idle` is what an idle
        guest does.
        """
        self.engine = engine.name
        self._engine = engine
        self.guest = guest
        self._prefix = tuple(prefix)
        self._env = dict(env)
        self._paused = False
        self._others: list[HostProcess] = []
        command = (*self._prefix, *guest.command) if guest.command else idle
        env = {**self._env, **(main_env or {})}
        self._main = self._launch(command, env, guest.workdir, streams, terminal)
        self.terminal = self._main.terminal
        self.end_fd = self._main.end_fd
        self.in_foreground = self._main.in_foreground

    def _launch(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        workdir: str | None,
        streams: Streams,
        terminal: TerminalSize | None,
    ) -> HostProcess:
        """Start a process of the guest."""
        return HostProcess(command, env=env, workdir=workdir, streams=streams, terminal=terminal)

    def _check(self, guest: Guest) -> None:
        """Raise the error that tells why a further command cannot run, if it cannot."""
        self._engine.check_program(guest)

    @property
    def pid(self) -> int:
        """The main process's number."""
        return self._main.pid

    @property
    def state(self) -> State:
        """See Instance.state."""
        if not self._main.finished:
            try:
                self._main.wait(0)
            except TimeoutError:
                return State.PAUSED if self._paused else State.RUNNING
        return State.STOPPED

    def wait(self, timeout: float | None = None) -> ExitStatus:
        """See Process.wait."""
        return self._main.wait(timeout)

    def signal(self, number: int) -> None:
        """See Process.signal."""
        self._main.signal(number)

    def usage(self) -> Usage:
        """See Process.usage."""
        return self._main.usage()

    def exec(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        streams: Streams | None = None,
        terminal: TerminalSize | None = None,
    ) -> HostProcess:
        """See Instance.exec."""
        guest = replace(
            self.guest,
            command=command,
            env={**self.guest.env, **(env or {})},
            workdir=workdir or self.guest.workdir,
        )
        self._check(guest)
        command, env = (*self._prefix, *guest.command), {**self._env, **guest.env}
        process = self._launch(command, env, guest.workdir, streams or Streams(), terminal)
        self._others.append(process)
        return process

    def pause(self) -> None:
        """See Instance.pause; done with SIGSTOP."""
        self._signal_all(signals.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        """See Instance.resume; done with SIGCONT."""
        self._signal_all(signals.SIGCONT)
        self._paused = False

    def close(self) -> None:
        """See Instance.close."""
        for process in (*self._others, self._main):
            process.close()
        self.terminal = self.end_fd = None

    def _signal_all(self, number: int) -> None:
        for process in (self._main, *self._others):
            process.signal(number)


def _open_terminal(size: TerminalSize) -> tuple[int, int]:
    controller, line = os.openpty()
    termios.tcsetwinsize(controller, (size.rows, size.columns))
    return controller, line


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _start_error(error: OSError, name: str, workdir: str | None) -> Exception:
    if workdir is not None and error.filename == workdir:
        return UsageError(f"the command cannot start in {workdir}: {error.strerror}")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return CommandNotFoundError(f"{name}: command not found")
    if error.errno in (errno.EACCES, errno.ENOEXEC, errno.EISDIR, errno.ELIBBAD, errno.E2BIG):
        return NotExecutableError(f"{name} cannot be executed: {error.strerror}")
    return GuestStartError(f"{name} cannot be started: {error.strerror}")
