"""Running a guest to its end: start it, feed and collect its streams, wait for it, account for it."""

from __future__ import annotations

import os
import selectors
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyvirt.engines import get
from anyvirt.engines.selection import choose
from anyvirt.errors import AnyvirtError, GuestTimeoutError
from anyvirt.instance import ExitStatus, Streams, Usage

if TYPE_CHECKING:
    from anyvirt.engines.engine import Engine
    from anyvirt.guest import Guest
    from anyvirt.instance import Instance, TerminalSize

_CHUNK = 1 << 16


@dataclass(frozen=True)
class Completed:
    """A guest's run, finished."""

    engine: str
    status: ExitStatus
    seconds: float
    """Wall-clock time from the request to start until the guest's end was known."""
    usage: Usage
    stdout: bytes = b""
    stderr: bytes = b""
    discarded: int = 0
    """Bytes of output beyond the bound that the caller set; they were read and thrown away."""

    @property
    def returncode(self) -> int:
        """The status as a shell's `$?`."""
        return self.status.shell


class GuestFailedError(AnyvirtError):
    """A guest that was to be checked ended with another status than 0; `completed` holds its run."""

    def __init__(self, completed: Completed) -> None:
        super().__init__(f"the guest on engine {completed.engine} ended with {completed.status}")
        self.completed = completed
        self.exit_code = completed.returncode


def select_engine(on: str | None, guest: Guest) -> Engine:
    """The engine named `on`, or the lightest that can run `guest`."""
    return get(on) if on is not None else choose(guest).engine


def start_guest(
    guest: Guest,
    *,
    on: str | None = None,
    streams: Streams | None = None,
    terminal: TerminalSize | None = None,
) -> Instance:
    """Start `guest` on the engine named `on`, or on the lightest that can run it. See Engine.start."""
    return select_engine(on, guest).start(guest, streams or Streams(), terminal)


def run_guest(
    guest: Guest,
    *,
    on: str | None = None,
    input: bytes | None = None,
    capture_output: bool = False,
    output_limit: int | None = None,
    timeout: float | None = None,
    check: bool = False,
) -> Completed:
    """Run `guest` to its end.

    `input` is what its standard input gives it (None: the caller's own). With `capture_output` its standard
    output and error are collected, of each at most `output_limit` bytes. After `timeout` seconds it is killed
    and GuestTimeoutError raised. With `check`, any status but 0 raises GuestFailedError.
    """
    engine = select_engine(on, guest)
    with ExitStack() as stack:
        pipes = _Pipes(stack, feed=input, capture=capture_output, limit=output_limit)
        began = time.monotonic()
        instance = stack.enter_context(engine.start(guest, pipes.guest_ends))
        pipes.close_guest_ends()
        deadline = None if timeout is None else began + timeout
        try:
            pipes.carry(deadline)
            status = instance.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            instance.kill()
            instance.wait()
            raise GuestTimeoutError(
                f"the guest was killed: it had not ended after {timeout:g} seconds"
            ) from None
        completed = Completed(
            engine.name,
            status,
            time.monotonic() - began,
            instance.usage(),
            bytes(pipes.stdout),
            bytes(pipes.stderr),
            pipes.discarded,
        )
    if check and completed.returncode != 0:
        raise GuestFailedError(completed)
    return completed


class _Pipes:
    """The caller's side of a guest's standard streams: one thread carries all and blocks on none."""

    def __init__(self, stack: ExitStack, *, feed: bytes | None, capture: bool, limit: int | None) -> None:
        self.stdout, self.stderr = bytearray(), bytearray()
        self.discarded = 0
        self._limit = limit
        self._feed = memoryview(feed or b"")
        self._selector = stack.enter_context(selectors.DefaultSelector())
        self._closers: list[int] = []
        self._open: set[int] = set()
        stack.callback(self._close_all)
        stdin = self._pipe_in() if feed is not None else 0
        stdout = self._pipe_out(self.stdout) if capture else 1
        stderr = self._pipe_out(self.stderr) if capture else 2
        self.guest_ends = Streams(stdin, stdout, stderr)

    def _pipe_in(self) -> int:
        reader, writer = os.pipe()
        self._closers.append(reader)
        self._open.add(writer)
        os.set_blocking(writer, False)
        self._selector.register(writer, selectors.EVENT_WRITE, None)
        return reader

    def _pipe_out(self, sink: bytearray) -> int:
        reader, writer = os.pipe()
        self._closers.append(writer)
        self._open.add(reader)
        self._selector.register(reader, selectors.EVENT_READ, sink)
        return writer

    def close_guest_ends(self) -> None:
        """Once the guest holds its ends: without this the readers would never see the end of the output."""
        while self._closers:
            os.close(self._closers.pop())

    def carry(self, deadline: float | None) -> None:
        """Carry until all pipes are closed; TimeoutError at `deadline`."""
        while self._open:
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                raise TimeoutError
            for key, _ in self._selector.select(remaining):
                if key.data is None:
                    self._write(key.fd)
                else:
                    self._read(key.fd, key.data)

    def _write(self, fd: int) -> None:
        try:
            self._feed = self._feed[os.write(fd, self._feed[:_CHUNK]) :]
        except BrokenPipeError:
            self._feed = self._feed[len(self._feed) :]
        if not self._feed:
            self._finish(fd)

    def _read(self, fd: int, sink: bytearray) -> None:
        data = os.read(fd, _CHUNK)
        if not data:
            self._finish(fd)
            return
        room = len(data) if self._limit is None else max(0, self._limit - len(sink))
        sink += data[:room]
        self.discarded += len(data) - min(room, len(data))

    def _finish(self, fd: int) -> None:
        self._selector.unregister(fd)
        self._open.discard(fd)
        os.close(fd)

    def _close_all(self) -> None:
        self.close_guest_ends()
        for fd in list(self._open):
            self._finish(fd)
