"""Virtqueues: a driver makes chains of buffers available, the device uses them and gives them back.

VIRTIO 1.2, section 2.6. What both formats share is here; the formats are in `split_ring` and `packed_ring`.
Everything in a ring is the guest's and may change at any time, also while it is read: each value is read
once and then checked. What no driver may do raises `QueueError`, upon which the device needs a reset.
"""

from __future__ import annotations

import struct
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING

from anyvirt.errors import AnyvirtError

if TYPE_CHECKING:
    from anyvirt.devices.bus import DirectMemory, State
    from anyvirt.devices.virtio.views import Views

MOST_DESCRIPTORS = 1024
"""In a chain: as many buffers as preadv(2) takes (IOV_MAX). Linux's drivers stay below."""
MOST_BYTES = 1 << 32
"""In a chain (section 2.7.4.2)."""

U16 = struct.Struct("<H")


class QueueError(AnyvirtError):
    """A driver broke the rules of virtqueues."""


class DescriptorFlag(IntFlag):
    """Flags of a descriptor (sections 2.7.5 and 2.8.1)."""

    NEXT = 1
    WRITE = 2
    INDIRECT = 4
    AVAIL = 1 << 7
    USED = 1 << 15


@dataclass(slots=True)
class QueueSettings:
    """How a driver has set up a queue (section 4.1.4.3)."""

    maximum: int
    """Most descriptors that the device takes."""
    size: int
    """Descriptors."""
    descriptors: int = 0
    """Physical address of the descriptor area."""
    driver: int = 0
    """Physical address of the driver area: the available ring, or what says which interrupts are wanted."""
    device: int = 0
    """Physical address of the device area: the used ring, or what says which notifications are wanted."""

    def clear(self) -> None:
        """Be as after a reset."""
        self.size = self.maximum
        self.descriptors = self.driver = self.device = 0


class Chain:
    """The buffers of one request, in the guest's memory."""

    __slots__ = ("count", "head", "ranges", "readable", "size", "writable")

    def __init__(self, head: int = 0) -> None:
        self.head = head
        """How the driver knows it again: the index of its first descriptor, or its buffer ID."""
        self.count = 1
        """How many descriptors of the ring it takes."""
        self.readable: Views = []
        """What the driver has to say."""
        self.writable: Views = []
        """Where the device answers."""
        self.ranges: list[tuple[int, int]] = []
        """(address, length), physical, of what is writable; neighbours are one range."""
        self.size = 0
        """Bytes in all buffers."""

    def add(self, memory: DirectMemory, address: int, length: int, writable: int) -> None:
        """Append a buffer. Raises QueueError, and BusError if it is not in RAM."""
        if not length:
            return
        self.size += length
        if self.size > MOST_BYTES:
            raise QueueError("a chain of more than 4 GiB")
        if writable:
            self.writable.append(memory.view(address, length, writable=True))
            ranges = self.ranges
            if ranges and sum(ranges[-1]) == address:
                ranges[-1] = (ranges[-1][0], ranges[-1][1] + length)
            else:
                ranges.append((address, length))
        elif self.writable:
            raise QueueError("a buffer to read from behind one to write to")
        else:
            self.readable.append(memory.view(address, length))


class Virtqueue(ABC):
    """A queue that is in use: from when the driver enables it until a reset."""

    def __init__(self, memory: DirectMemory, settings: QueueSettings) -> None:
        self.size = settings.size
        """Descriptors."""
        self._memory = memory
        self._order = threading.Lock()

    @abstractmethod
    def pop(self) -> Chain | None:
        """The next chain that is available, if any. Raises QueueError or BusError."""

    @abstractmethod
    def put_back(self, chain: Chain) -> None:
        """Let the chain that was taken last be the next again."""

    @abstractmethod
    def push(self, chain: Chain, written: int) -> None:
        """Give a chain back into whose writable buffers `written` bytes were stored, from the beginning.

        The driver sees it after `publish`.
        """

    @abstractmethod
    def publish(self) -> bool:
        """Show what was pushed; whether the driver wants an interrupt now."""

    @abstractmethod
    def enable_notifications(self) -> bool:
        """Ask the driver to tell of the next chain; whether there is one already."""

    @abstractmethod
    def disable_notifications(self) -> None:
        """Tell the driver not to bother."""

    @abstractmethod
    def save_state(self) -> State:
        """Where the device is."""

    @abstractmethod
    def load_state(self, state: State, /) -> None:
        """Go on from there."""

    def fence(self) -> None:
        """Let no load or store of the guest's memory pass another one here.

        Other CPUs of the machine run meanwhile. Taking a lock is a full barrier.
        """
        with self._order:
            pass

    def _note_writes(self, chain: Chain) -> None:
        for address, length in chain.ranges:
            self._memory.wrote(address, length)


def area(memory: DirectMemory, address: int, length: int, alignment: int, *, writable: bool) -> memoryview:
    """A part of a ring. Raises QueueError, and BusError if it is not in RAM."""
    if address % alignment:
        raise QueueError(f"a part of a virtqueue is at {address:#x}, which is no multiple of {alignment}")
    return memory.view(address, length, writable=writable)


def wants_interrupt(event: int, new: int, old: int) -> bool:
    """Whether an index passed `event` on its way from `old` to `new` (section 2.7.7.2)."""
    return (new - event - 1) & 0xFFFF < (new - old) & 0xFFFF
