"""Carrying a command's streams between the host's descriptors and the agent: a thread for each stream.

Descriptors are waited for by poll(2) together with one that says that the command is over, so that no thread
hangs on a descriptor that nobody serves; pipes take up to PIPE_BUF bytes without waiting when poll says so.
"""

from __future__ import annotations

import os
import select
import signal as signals
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from anyvirt.agent.client import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.agent.client import AgentCommand, OutputStream

_CHUNK = 1 << 16
_WRITE_CHUNK = select.PIPE_BUF
_READABLE = select.POLLIN | select.POLLHUP | select.POLLERR


class Carrier:
    """Carries from its making on. It owns the descriptors and closes them in `finish`."""

    def __init__(
        self, command: AgentCommand, stdin: int, stdout: int, stderr: int | None, *, is_terminal: bool
    ) -> None:
        """For a command on a terminal, `stdin` and `stdout` are one descriptor and `stderr` is None."""
        self._command = command
        self._is_terminal = is_terminal
        self._descriptors = {fd for fd in (stdin, stdout, stderr) if fd is not None}
        self._over, self._announce = os.pipe()
        self._lock = threading.Lock()
        outputs = [(command.stdout, stdout)]
        if stderr is not None:
            outputs.append((command.stderr, stderr))
        self._input = _thread(partial(self._feed, stdin))
        self._outputs = [_thread(partial(self._drain, stream, fd)) for stream, fd in outputs]

    def give_up(self) -> None:
        """Deliver nothing more: the command was killed, and perhaps nobody reads."""
        with self._lock:
            announce, self._announce = self._announce, -1
        if announce >= 0:
            os.close(announce)

    def finish(self) -> None:
        """Wait until all output is delivered, or given up, and close the descriptors."""
        for thread in self._outputs:
            thread.join()
        self.give_up()
        self._input.join()
        for fd in (*self._descriptors, self._over):
            os.close(fd)

    def _feed(self, fd: int) -> None:
        with suppress(AgentError):
            while self._wait(fd, _READABLE):
                try:
                    data = os.read(fd, _CHUNK)
                except BlockingIOError:
                    continue
                except OSError:  # of a terminal whose other end is closed
                    data = b""
                if not data:
                    self._end_input()
                    return
                self._command.write(data)

    def _end_input(self) -> None:
        if self._is_terminal:
            self._command.signal(signals.SIGHUP, group=True)
        else:
            self._command.close_input()

    def _lose_reader(self) -> None:
        """Nobody is at the other end of the output."""
        if self._is_terminal:
            self._command.signal(signals.SIGHUP, group=True)
        else:
            self._command.signal(signals.SIGPIPE)

    def _drain(self, stream: OutputStream, fd: int) -> None:
        with suppress(AgentError):
            is_wanted = True
            while data := stream.read():
                if is_wanted and not self._deliver(fd, data):
                    # As a pipe does to who writes when nobody reads; what is on its way is thrown away.
                    is_wanted = False
                    self._lose_reader()

    def _deliver(self, fd: int, data: bytes) -> bool:
        """Whether there is somebody to deliver to, or the command is over anyway."""
        rest = memoryview(data)
        while rest:
            if not self._wait(fd, select.POLLOUT):
                return True
            try:
                rest = rest[os.write(fd, rest[:_WRITE_CHUNK]) :]
            except BlockingIOError:
                continue
            except OSError:
                return False
        return True

    def _wait(self, fd: int, events: int) -> bool:
        """Wait for a descriptor; False when the command is over."""
        poll = select.poll()
        poll.register(fd, events)
        poll.register(self._over, select.POLLIN)
        return self._over not in dict(poll.poll())


def _thread(run: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread
