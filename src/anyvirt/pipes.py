"""The host's ends of a guest's standard streams: one thread feeds and collects, blocking on none."""

from __future__ import annotations

import fcntl
import os
import selectors
import struct
import termios
import time
from typing import TYPE_CHECKING

from anyvirt.instance import Streams

if TYPE_CHECKING:
    from contextlib import ExitStack

_CHUNK = 1 << 16


class GuestPipes:
    """Pipes for a guest's standard streams, where the caller wants any; closed with `stack`.

    `guest_ends` is what the guest is started with.
    """

    def __init__(self, stack: ExitStack, *, feed: bytes | None, capture: bool, limit: int | None) -> None:
        """Feed the guest `feed` (None: leave its input alone); if `capture`, keep `limit` bytes an output."""
        self.stdout, self.stderr = bytearray(), bytearray()
        self.discarded = 0
        self._limit = limit
        self._feed = memoryview(feed or b"")
        self._sinks: dict[int, bytearray] = {}
        self._feeder: int | None = None
        self._guest_fds: list[int] = []
        self._selector = stack.enter_context(selectors.DefaultSelector())
        stack.callback(self._close)
        stdin = self._make_feeder() if feed is not None else 0
        stdout = self._make_sink(self.stdout) if capture else 1
        stderr = self._make_sink(self.stderr) if capture else 2
        self.guest_ends = Streams(stdin, stdout, stderr)

    def _make_feeder(self) -> int:
        reader, self._feeder = os.pipe()
        self._guest_fds.append(reader)
        os.set_blocking(self._feeder, False)
        self._selector.register(self._feeder, selectors.EVENT_WRITE)
        return reader

    def _make_sink(self, sink: bytearray) -> int:
        reader, writer = os.pipe()
        self._guest_fds.append(writer)
        self._sinks[reader] = sink
        self._selector.register(reader, selectors.EVENT_READ)
        return writer

    def started(self, end_fd: int | None) -> None:
        """The guest now holds its ends; `end_fd` becomes readable when it has ended (see Process.end_fd)."""
        self._close_guest_ends()
        if end_fd is not None:
            self._selector.register(end_fd, selectors.EVENT_READ)

    def carry(self, deadline: float | None) -> None:
        """Carry until all pipes are closed or the guest has ended, even if others still hold them.

        TimeoutError when time.monotonic() reaches `deadline`.
        """
        while self._sinks or self._feeder is not None:
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                raise TimeoutError
            ended = False
            for key, _ in self._selector.select(remaining):
                if key.fd == self._feeder:
                    self._write(key.fd)
                elif key.fd in self._sinks:
                    self._read(key.fd, _CHUNK)
                else:
                    ended = True
            if ended:
                self._drain()
                return

    def _drain(self) -> None:
        """Read what was in the pipes when the guest ended, and not what others write from now on."""
        for fd in list(self._sinks):
            (left,) = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))
            while left > 0:
                left -= self._read(fd, min(left, _CHUNK))

    def _write(self, fd: int) -> None:
        try:
            self._feed = self._feed[os.write(fd, self._feed[:_CHUNK]) :]
        except BrokenPipeError:
            self._feed = self._feed[len(self._feed) :]
        if not self._feed:
            self._finish(fd)

    def _read(self, fd: int, size: int) -> int:
        data = os.read(fd, size)
        if not data:
            self._finish(fd)
            return 0
        sink = self._sinks[fd]
        room = len(data) if self._limit is None else max(0, self._limit - len(sink))
        sink += data[:room]
        self.discarded += max(0, len(data) - room)
        return len(data)

    def _finish(self, fd: int) -> None:
        self._selector.unregister(fd)
        os.close(fd)
        if self._sinks.pop(fd, None) is None:
            self._feeder = None

    def _close_guest_ends(self) -> None:
        while self._guest_fds:
            os.close(self._guest_fds.pop())

    def _close(self) -> None:
        self._close_guest_ends()
        for fd in list(self._sinks):
            self._finish(fd)
        if self._feeder is not None:
            self._finish(self._feeder)
