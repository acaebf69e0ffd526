"""The agent's channel between a virtio-console port and the client's threads, without leaving the process.

Each direction holds a bounded number of bytes: the guest's output stays in the guest while nobody reads, and
who writes to a guest that does not read waits.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from anyvirt.errors import AnyvirtError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from anyvirt.devices.virtio.console import Port

_ROOM = 1 << 18
"""Bytes held in each direction."""
_DRAIN_LIMIT = 30.0
"""Seconds that whoever reads may take to take what is there."""


class AgentChannel:
    """The host's end. Satisfies `anyvirt.agent.streams.ByteStream`; `backend` is the port's."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._to_guest, self._from_guest = bytearray(), bytearray()
        self._is_closed = False
        self._is_awaited = False
        """Whether somebody waits for something to read."""
        self._port: Port | None = None
        self._lock: AbstractContextManager[object] | None = None
        self.backend = _PortBackend(self)

    def connect(self, port: Port, lock: AbstractContextManager[object]) -> None:
        """Say which port it is, and the lock of its machine."""
        self._port, self._lock = port, lock

    @property
    def has_data(self) -> bool:
        """Whether there is something to read."""
        return bool(self._from_guest)

    def read(self, size: int, /) -> bytes:
        """See ByteStream."""
        with self._changed:
            self._is_awaited = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._from_guest or self._is_closed)
            self._is_awaited = False
            was_full = len(self._from_guest) >= _ROOM
            data = bytes(self._from_guest[:size])
            del self._from_guest[:size]
        if was_full and self._port is not None and self._lock is not None:
            with self._lock:
                self._port.output_ready()
        return data

    def write(self, data: bytes, /) -> None:
        """See ByteStream."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._to_guest) < _ROOM or self._is_closed)
            if self._is_closed:
                raise BrokenPipeError("the channel is closed")
            self._to_guest += data
        if self._port is not None and self._lock is not None:
            with self._lock:
                self._port.input_ready()

    def drain(self) -> bytes:
        """Wait until whoever reads has all that came from the guest; what the guest is still to read.

        The guest stands, and nobody writes. Raises AnyvirtError if nobody reads.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._is_awaited and not self._from_guest, _DRAIN_LIMIT):
                raise AnyvirtError("nobody takes what the guest's agent says")
            return bytes(self._to_guest)

    def resume(self, to_guest: bytes) -> None:
        """Go on where another channel was drained, which had this left."""
        self._to_guest += to_guest

    def close(self) -> None:
        """See ByteStream."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    # The port's end, called with the machine's lock held --------------------------------------------------

    def take(self, limit: int) -> bytes:
        """What the guest is to read next."""
        with self._changed:
            data = bytes(self._to_guest[:limit])
            del self._to_guest[:limit]
            self._changed.notify_all()
        return data

    def give(self, data: memoryview) -> int:
        """Take what the guest has written; how much of it."""
        with self._changed:
            taken = data[: max(0, _ROOM - len(self._from_guest))]
            self._from_guest += taken
            self._changed.notify_all()
            return len(taken)


class _PortBackend:
    """Satisfies `anyvirt.devices.virtio.console.PortBackend`, whose methods have the names of a stream's."""

    def __init__(self, channel: AgentChannel) -> None:
        self._channel = channel

    def read(self, limit: int, /) -> bytes:
        return self._channel.take(limit)

    def write(self, data: memoryview, /) -> int:
        return self._channel.give(data)

    def guest_opened(self, is_open: bool, /) -> None:
        """The protocol has a greeting of its own."""
