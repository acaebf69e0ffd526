"""Channels to an agent, as bytes: over a socket, or over descriptors such as a terminal's or two pipes'."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import socket


class ByteStream(Protocol):
    """A channel. One thread reads while others write, one at a time."""

    def read(self, size: int, /) -> bytes:
        """At least one byte and at most `size`; none at the end. Waits."""

    def write(self, data: bytes, /) -> None:
        """Send all of `data`. Waits. Raises OSError when nobody takes it any more."""

    def close(self) -> None:
        """End it; whoever waits in `read` gets the end."""


class SocketStream:
    """A channel over a connected socket, which it closes."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def read(self, size: int, /) -> bytes:
        """See ByteStream."""
        try:
            return self._socket.recv(size)
        except ConnectionError:
            return b""

    def write(self, data: bytes, /) -> None:
        """See ByteStream."""
        self._socket.sendall(data)

    def close(self) -> None:
        """See ByteStream."""
        import socket

        with suppress(OSError):  # the other end was first
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class DescriptorStream:
    """A channel over file descriptors that block, which it closes; the same one twice for a terminal.

    `close` does not wake a reader: the channel's other end does, when it is closed.
    """

    def __init__(self, reader: int, writer: int) -> None:
        self._reader = reader
        self._writer = writer

    def read(self, size: int, /) -> bytes:
        """See ByteStream."""
        try:
            return os.read(self._reader, size)
        except OSError:
            return b""  # of a terminal whose other end is closed

    def write(self, data: bytes, /) -> None:
        """See ByteStream."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._writer, view) :]

    def close(self) -> None:
        """See ByteStream."""
        for descriptor in {self._reader, self._writer}:
            os.close(descriptor)
