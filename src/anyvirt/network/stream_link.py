"""Frames over a stream socket, each behind its length: the protocol of QEMU's `-netdev stream` and of passt.

The length has four bytes in network order and counts the frame alone.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

from anyvirt.devices.virtio.net import MOST_FRAME
from anyvirt.devices.virtio.views import total
from anyvirt.network.host_events import READABLE, WRITABLE
from anyvirt.network.link import JUMBO_MTU, Link

if TYPE_CHECKING:
    from anyvirt.devices.virtio.views import Views
    from anyvirt.network.assignment import Assignment

LENGTH = struct.Struct(">I")
_BUFFER = 1 << 18


class StreamLink(Link):
    """A cable that is a connected stream socket, which it owns."""

    def __init__(
        self, connection: socket.socket, *, mtu: int = JUMBO_MTU, assignment: Assignment | None = None
    ) -> None:
        super().__init__(connection.fileno(), mtu=mtu, assignment=assignment)
        connection.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            connection.setsockopt(socket.SOL_SOCKET, option, 4 * _BUFFER)
        self._socket = connection
        self._arrived = memoryview(bytearray(_BUFFER))
        self._start = self._end = 0
        self._unsent = b""
        """The rest of a frame that was sent in part."""

    def send(self, frame: Views, /) -> bool:
        """See NetBackend."""
        if self.failure:
            return True
        if self._unsent:
            self._await(WRITABLE)
            return False
        size = total(frame)
        try:
            sent = self._socket.sendmsg([LENGTH.pack(size), *frame])
        except BlockingIOError:
            self._await(WRITABLE)
            return False
        except OSError as error:
            self._lose(os.strerror(error.errno or 0))
            return True
        if sent < LENGTH.size + size:
            self._unsent = (LENGTH.pack(size) + b"".join(frame))[sent:]
            self._await(WRITABLE)
        return True

    def _room(self) -> None:
        if not self._unsent:
            return
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError as error:
            self._unsent = b""
            self._lose(os.strerror(error.errno or 0))
        if self._unsent:
            self._await(WRITABLE)

    def receive(self) -> bytes | None:
        """See NetBackend."""
        while not self.failure:
            held = self._end - self._start
            if held >= LENGTH.size:
                (size,) = LENGTH.unpack_from(self._arrived, self._start)
                if size > MOST_FRAME:
                    self._lose(f"it sent a frame of {size} bytes")
                    return None
                if held >= LENGTH.size + size:
                    first = self._start + LENGTH.size
                    self._start = first + size
                    return bytes(self._arrived[first : first + size])
            if not self._fill(held):
                return None
        return None

    def _fill(self, held: int) -> bool:
        """Read what there is behind the `held` bytes; whether there was anything."""
        if self._start:
            self._arrived[:held] = self._arrived[self._start : self._end]
            self._start, self._end = 0, held
        try:
            count = self._socket.recv_into(self._arrived[held:])
        except BlockingIOError:
            self._await(READABLE)
            return False
        except OSError as error:
            self._lose(os.strerror(error.errno or 0))
            return False
        if not count:
            self._lose("it has ended")
        self._end += count
        return count > 0

    def close(self) -> None:
        """See Link.close."""
        super().close()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
