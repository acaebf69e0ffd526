"""Messages with file descriptors between the caller and the keeper, over a Unix stream socket.

A message is a tuple of values that marshal can carry, after its length. Both ends are the same interpreter
and trust each other; nothing from inside a container ever arrives on a channel.
"""

from __future__ import annotations

# The socket module would cost a cold start three milliseconds; its C half is all that is needed here.
import _socket
import array
import marshal
import struct
from typing import Any

_LENGTH = struct.Struct("=I")
_MAXIMUM_FDS = 16


class Channel:
    """One end of a connection."""

    def __init__(self, fd: int) -> None:
        """Own `fd`, a connected stream socket."""
        self._socket = _socket.socket(fileno=fd)

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two ends connected with each other."""
        first, second = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
        return cls(first.detach()), cls(second.detach())

    def fileno(self) -> int:
        """The socket's file descriptor; -1 once closed."""
        return self._socket.fileno()

    def send(self, message: tuple[Any, ...], fds: tuple[int, ...] = ()) -> None:
        """Send `message` and duplicates of `fds`. BrokenPipeError if the other end is gone."""
        data = marshal.dumps(message)
        header = _LENGTH.pack(len(data))
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = self._socket.sendmsg([header, data], rights, _socket.MSG_NOSIGNAL)
        if sent < len(header) + len(data):
            self._socket.sendall((header + data)[sent:], _socket.MSG_NOSIGNAL)

    def receive(self) -> tuple[tuple[Any, ...], tuple[int, ...]] | None:
        """The next message and its file descriptors; None when the other end is gone."""
        try:
            header, fds = receive_with_fds(self._socket, _LENGTH.size)
            if len(header) < _LENGTH.size:
                return None
            data = self._receive_exactly(_LENGTH.unpack(header)[0])
        except ConnectionResetError:
            return None
        return None if data is None else (marshal.loads(data), fds)

    def shut(self) -> None:
        """Tell the other end that nothing more will be sent."""
        try:
            self._socket.shutdown(_socket.SHUT_WR)
        except OSError:
            # The other end is gone already.
            return

    def close(self) -> None:
        """Give back the file descriptor. Idempotent."""
        self._socket.close()

    def _receive_exactly(self, length: int) -> bytes | None:
        parts = []
        while length:
            part = self._socket.recv(length)
            if not part:
                return None
            parts.append(part)
            length -= len(part)
        return b"".join(parts)


def receive_with_fds(connection: _socket.socket, length: int) -> tuple[bytes, tuple[int, ...]]:
    """At most `length` bytes, and the file descriptors that came with them, closed on exec."""
    space = _socket.CMSG_SPACE(_MAXIMUM_FDS * 4)
    data, ancillary, _, _ = connection.recvmsg(length, space, _socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return data, tuple(fds)
