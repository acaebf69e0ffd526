"""Split virtqueues: a table of descriptors, a ring of what is available, a ring of what was used.

VIRTIO 1.2, section 2.7.
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
"""Address, length, flags, next (section 2.7.5)."""
MOST = 32768
"""Descriptors (section 2.7)."""
NO_INTERRUPT = 1
"""Flag of the available ring (section 2.7.6)."""
NO_NOTIFY = 1
"""Flag of the used ring (section 2.7.8)."""

_NEXT, _WRITE, _INDIRECT = (int(flag) for flag in (
    DescriptorFlag.NEXT, DescriptorFlag.WRITE, DescriptorFlag.INDIRECT,
))  # fmt: skip


class SplitRing(Virtqueue):
    """See the module."""

    def __init__(
        self, memory: DirectMemory, settings: QueueSettings, *, indirect: bool, event_index: bool
    ) -> None:
        """Raises QueueError or BusError."""
        super().__init__(memory, settings)
        size = settings.size
        if not 0 < size <= MOST or size & size - 1:
            raise QueueError(f"a split virtqueue of {size} descriptors, which is no power of two")
        self._indirect, self._event_index = indirect, event_index
        self._table = area(memory, settings.descriptors, 16 * size, 16, writable=False)
        self._available = area(memory, settings.driver, 6 + 2 * size, 2, writable=False)
        self._used_address, self._used_length = settings.device, 6 + 8 * size
        self._used = area(memory, settings.device, self._used_length, 4, writable=True)
        self._next = self._limit = 0
        self._used_index = self._told_index = 0
        self._pending: list[int] = []

    def pop(self) -> Chain | None:
        """See Virtqueue.pop."""
        position = self._next
        if position == self._limit and not self._look():
            return None
        chain = self._chain(U16.unpack_from(self._available, 4 + 2 * (position & self.size - 1))[0])
        self._next = (position + 1) & 0xFFFF
        return chain

    def put_back(self, chain: Chain) -> None:
        """See Virtqueue.put_back."""
        self._next = (self._next - 1) & 0xFFFF

    def _look(self) -> bool:
        """Whether the driver has made more available (section 2.7.13)."""
        self._limit = U16.unpack_from(self._available, 2)[0]
        count = (self._limit - self._next) & 0xFFFF
        if count > self.size:
            raise QueueError(f"{count} chains are available in a virtqueue of {self.size} descriptors")
        self.fence()
        return count > 0

    def _chain(self, head: int) -> Chain:
        chain = Chain(head)
        memory, table, count, index = self._memory, self._table, self.size, head
        for _ in range(MOST_DESCRIPTORS + 1):
            if index >= count:
                raise QueueError(f"descriptor {index} of a table of {count}")
            address, length, flags, following = DESCRIPTOR.unpack_from(table, 16 * index)
            if flags & _INDIRECT:
                if table is not self._table:
                    raise QueueError("a table of descriptors within another")
                table = self._indirect_table(address, length, flags)
                count, index = length // 16, 0
                continue
            chain.add(memory, address, length, flags & _WRITE)
            if not flags & _NEXT:
                return chain
            index = following
        raise QueueError(f"a loop, or a chain of more than {MOST_DESCRIPTORS} descriptors")

    def _indirect_table(self, address: int, length: int, flags: int) -> memoryview:
        """Section 2.7.5.3."""
        if not self._indirect or flags & _NEXT or not length or length % 16:
            raise QueueError(f"an indirect descriptor with flags {flags:#x} and a length of {length}")
        return self._memory.view(address, length)

    def push(self, chain: Chain, written: int) -> None:
        """See Virtqueue.push."""
        self._note_writes(chain)
        self._pending += (chain.head, written)
        if len(self._pending) >= 2 * self.size:
            self._flush()

    def _flush(self) -> None:
        """Store the pending elements, then the index (section 2.7.8.2)."""
        pending, first = self._pending, self._used_index & self.size - 1
        if not pending:
            return
        count = len(pending) // 2
        part = min(count, self.size - first)
        struct.pack_into(f"<{2 * part}I", self._used, 4 + 8 * first, *pending[: 2 * part])
        if part < count:
            struct.pack_into(f"<{2 * (count - part)}I", self._used, 4, *pending[2 * part :])
        self._used_index = (self._used_index + count) & 0xFFFF
        pending.clear()
        self.fence()
        U16.pack_into(self._used, 2, self._used_index)
        self._memory.wrote(self._used_address, self._used_length)

    def publish(self) -> bool:
        """See Virtqueue.publish; sections 2.7.7 and 2.7.10."""
        self._flush()
        new, old = self._used_index, self._told_index
        if new == old:
            return False
        self._told_index = new
        self.fence()
        if self._event_index:
            return wants_interrupt(U16.unpack_from(self._available, 4 + 2 * self.size)[0], new, old)
        return not U16.unpack_from(self._available, 0)[0] & NO_INTERRUPT

    def enable_notifications(self) -> bool:
        """See Virtqueue.enable_notifications."""
        if self._event_index:
            self._store(4 + 8 * self.size, self._next)
        else:
            self._store(0, 0)
        self.fence()
        return self._next != self._limit or self._look()

    def disable_notifications(self) -> None:
        """See Virtqueue.disable_notifications. With event indices nothing is to be done."""
        if not self._event_index:
            self._store(0, NO_NOTIFY)

    def _store(self, offset: int, value: int) -> None:
        if U16.unpack_from(self._used, offset)[0] != value:
            U16.pack_into(self._used, offset, value)
            self._memory.wrote(self._used_address + offset, 2)

    def save_state(self) -> State:
        """See Virtqueue.save_state."""
        return {"next": self._next, "used": self._used_index, "told": self._told_index}

    def load_state(self, state: State, /) -> None:
        """See Virtqueue.load_state."""
        self._next = self._limit = int(state["next"]) & 0xFFFF
        self._used_index = int(state["used"]) & 0xFFFF
        self._told_index = int(state["told"]) & 0xFFFF
