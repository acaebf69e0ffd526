"""Packed virtqueues: one ring of descriptors that driver and device overwrite in turn.

VIRTIO 1.2, section 2.8. Which round a descriptor belongs to is told by two of its flags and by a wrap
counter on each side.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from anyvirt.devices.virtio.queue import (
    MOST_DESCRIPTORS,
    U16,
    Chain,
    DescriptorFlag,
    QueueError,
    Virtqueue,
    area,
    wants_interrupt,
)

if TYPE_CHECKING:
    from anyvirt.devices.bus import DirectMemory, State
    from anyvirt.devices.virtio.queue import QueueSettings

DESCRIPTOR = struct.Struct("<QIHH")
"""Address, length, buffer ID, flags (section 2.8.13)."""
MOST = 32768
"""Descriptors (section 2.8.10.1)."""
EVENTS_ENABLE, EVENTS_DISABLE, EVENTS_DESCRIPTOR = 0, 1, 2
"""Flags of the areas that suppress events (section 2.8.14)."""

_USED_PART = struct.Struct("<IH")
_NEXT, _WRITE, _INDIRECT, _AVAIL, _USED = (int(flag) for flag in (
    DescriptorFlag.NEXT, DescriptorFlag.WRITE, DescriptorFlag.INDIRECT, DescriptorFlag.AVAIL,
    DescriptorFlag.USED,
))  # fmt: skip


class PackedRing(Virtqueue):
    """See the module."""

    def __init__(
        self, memory: DirectMemory, settings: QueueSettings, *, indirect: bool, event_index: bool
    ) -> None:
        """Raises QueueError or BusError."""
        super().__init__(memory, settings)
        if not 0 < settings.size <= MOST:
            raise QueueError(f"a packed virtqueue of {settings.size} descriptors")
        self._indirect, self._event_index = indirect, event_index
        self._address, self._device_address = settings.descriptors, settings.device
        self._ring = area(memory, settings.descriptors, 16 * self.size, 16, writable=True)
        self._driver = area(memory, settings.driver, 4, 4, writable=False)
        self._device = area(memory, settings.device, 4, 4, writable=True)
        self._next, self._wrap = 0, True
        self._used, self._used_wrap = 0, True
        self._taken = 0
        self._untold = 0
        self._pending: list[tuple[int, int, int, int]] = []

    def _is_available(self) -> bool:
        """Section 2.8.1."""
        flags = U16.unpack_from(self._ring, 16 * self._next + 14)[0]
        return bool(flags & _AVAIL) is self._wrap and bool(flags & _USED) is not self._wrap

    def pop(self) -> Chain | None:
        """See Virtqueue.pop; section 2.8.21."""
        if not self._is_available():
            return None
        self.fence()
        chain, memory, ring, position = Chain(), self._memory, self._ring, self._next
        for count in range(1, min(self.size - self._taken, MOST_DESCRIPTORS) + 1):
            address, length, identifier, flags = DESCRIPTOR.unpack_from(ring, 16 * position)
            if flags & _INDIRECT:
                self._add_indirect(chain, address, length, flags)
            else:
                chain.add(memory, address, length, flags & _WRITE)
            position = position + 1 if position + 1 < self.size else 0
            if not flags & _NEXT:
                chain.head, chain.count = identifier, count
                self._advance(count)
                return chain
        raise QueueError("a chain of more descriptors than are free, or than a device takes")

    def _add_indirect(self, chain: Chain, address: int, length: int, flags: int) -> None:
        """Section 2.8.7: all descriptors of the table, in their order."""
        if not self._indirect or flags & _NEXT or not 0 < length <= 16 * MOST_DESCRIPTORS or length % 16:
            raise QueueError(f"an indirect descriptor with flags {flags:#x} and a length of {length}")
        table = bytes(self._memory.view(address, length))
        for part, size, _, part_flags in DESCRIPTOR.iter_unpack(table):
            if part_flags & _INDIRECT:
                raise QueueError("a table of descriptors within another")
            chain.add(self._memory, part, size, part_flags & _WRITE)
        if len(chain.readable) + len(chain.writable) > MOST_DESCRIPTORS:
            raise QueueError(f"a chain of more than {MOST_DESCRIPTORS} descriptors")

    def _advance(self, count: int) -> None:
        self._taken += count
        self._next += count
        if self._next >= self.size:
            self._next -= self.size
            self._wrap = not self._wrap

    def put_back(self, chain: Chain) -> None:
        """See Virtqueue.put_back."""
        self._taken -= chain.count
        self._next -= chain.count
        if self._next < 0:
            self._next += self.size
            self._wrap = not self._wrap

    def push(self, chain: Chain, written: int) -> None:
        """See Virtqueue.push; section 2.8.6."""
        self._note_writes(chain)
        flags = (_WRITE if written else 0) | (_AVAIL | _USED if self._used_wrap else 0)
        self._pending.append((self._used, written, chain.head, flags))
        self._taken -= chain.count
        self._untold += chain.count
        self._used += chain.count
        if self._used >= self.size:
            self._used -= self.size
            self._used_wrap = not self._used_wrap
        if len(self._pending) >= self.size:
            self._flush()

    def _flush(self) -> None:
        """Store the pending elements, the flags of the first one last: the driver waits for that one."""
        pending, ring = self._pending, self._ring
        if not pending:
            return
        for position, written, identifier, flags in reversed(pending):
            offset = 16 * position
            _USED_PART.pack_into(ring, offset + 8, written, identifier)
            if position == pending[0][0]:
                self.fence()
            U16.pack_into(ring, offset + 14, flags)
        low, high = min(pending)[0], max(pending)[0]
        self._memory.wrote(self._address + 16 * low, 16 * (high - low + 1))
        pending.clear()

    def publish(self) -> bool:
        """See Virtqueue.publish; section 2.8.14."""
        self._flush()
        count, self._untold = self._untold, 0
        if not count:
            return False
        self.fence()
        event, flags = struct.unpack_from("<HH", self._driver)
        flags &= 3
        if flags != EVENTS_DESCRIPTOR or not self._event_index:
            return bool(flags != EVENTS_DISABLE)
        offset = event & 0x7FFF
        if bool(event >> 15) is not self._used_wrap:
            offset -= self.size
        return wants_interrupt(offset, self._used, self._used - count)

    def enable_notifications(self) -> bool:
        """See Virtqueue.enable_notifications."""
        if self._event_index:
            self._suppress(self._next | self._wrap << 15, EVENTS_DESCRIPTOR)
        else:
            self._suppress(0, EVENTS_ENABLE)
        self.fence()
        return self._is_available()

    def disable_notifications(self) -> None:
        """See Virtqueue.disable_notifications."""
        self._suppress(0, EVENTS_DISABLE)

    def _suppress(self, event: int, flags: int) -> None:
        wanted = struct.pack("<HH", event, flags)
        if self._device != wanted:
            self._device[:2] = wanted[:2]
            self.fence()
            self._device[2:] = wanted[2:]
            self._memory.wrote(self._device_address, 4)

    def save_state(self) -> State:
        """See Virtqueue.save_state."""
        return {"next": self._next, "wrap": self._wrap, "used": self._used, "used_wrap": self._used_wrap}

    def load_state(self, state: State, /) -> None:
        """See Virtqueue.load_state."""
        following, used = int(state["next"]), int(state["used"])
        if not (0 <= following < self.size and 0 <= used < self.size):
            raise ValueError("a position outside of the ring")
        if (
            not used
            <= following + self.size * (bool(state["wrap"]) is not bool(state["used_wrap"]))
            <= used + self.size
        ):
            raise ValueError("more chains are used than were available")
        self._next, self._wrap = following, bool(state["wrap"])
        self._used, self._used_wrap = used, bool(state["used_wrap"])
        self._taken = following - used if self._wrap is self._used_wrap else self.size + following - used
