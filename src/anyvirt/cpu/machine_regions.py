"""The physical address space of a machine as a list: which addresses are RAM, ROM or a device."""

from __future__ import annotations

import bisect
import struct
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from anyvirt.cpu.memory import PAGE_SIZE, Protection
from anyvirt.jit.machine_layout import PAGE_BITS, RegionFlag

if TYPE_CHECKING:
    from collections.abc import Iterator

ADDRESS_SPACE = 1 << 64
_ENTRY = struct.Struct("<6Q")
_WORD = ADDRESS_SPACE - 1


class Device(Protocol):
    """What is behind a region that is no memory. An exception ends `run` of the CPU that made the access."""

    def read(self, offset: int, size: int, /) -> int:
        """The value of `size` (1, 2, 4 or 8) bytes at `offset` bytes from the region's beginning.

        May raise GuestFault, which the CPU sees as an access fault.
        """

    def write(self, offset: int, size: int, value: int, /) -> None:
        """Store a value of `size` bytes; as `read`."""


class RegionKind(Enum):
    """What answers at an address."""

    RAM = "ram"
    ROM = "rom"
    """Memory that stores do not change."""
    DEVICE = "device"


@dataclass(frozen=True, slots=True)
class Bank:
    """A piece of the host's memory that is RAM or ROM of a machine."""

    host: int
    """Address in this process."""
    size: int
    first_page: int
    """Number of its first page."""


@dataclass(frozen=True, slots=True)
class MemoryRegion:
    """One range of physical addresses with the same meaning and permissions."""

    start: int
    end: int
    kind: RegionKind
    protection: Protection
    name: str = ""
    bank: Bank | None = None
    device: Device | None = None
    number: int = 0
    """Of the device."""
    offset: int = 0
    """Where `start` is in the bank or the device, in bytes."""

    @property
    def takes_atomics(self) -> bool:
        """Whether atomic operations are possible there, given the permission to write."""
        return self.kind is RegionKind.RAM

    def clip(self, start: int, end: int) -> MemoryRegion:
        """The part within [start, end)."""
        start, end = max(start, self.start), min(end, self.end)
        return replace(self, start=start, end=end, offset=self.offset + start - self.start)

    def host_address(self, address: int) -> int:
        """Where in this process the memory for a physical address is."""
        if self.bank is None:
            raise ValueError(f"{self.name or 'a device'} is no memory")
        return self.bank.host + self.offset + address - self.start

    def page_number(self, address: int) -> int:
        """The number of the page of RAM or ROM that a physical address is in."""
        if self.bank is None:
            raise ValueError(f"{self.name or 'a device'} is no memory")
        return self.bank.first_page + (self.offset + address - self.start) // PAGE_SIZE

    def entry(self) -> bytes:
        """The region in the list that compiled code reads (`anyvirt.jit.machine_layout.Region`)."""
        # The first bits of Protection and RegionFlag are the same.
        flags, addend, page = RegionFlag(int(self.protection)), self.offset - self.start, 0
        if self.kind is RegionKind.ROM and self.protection & Protection.WRITE:
            flags |= RegionFlag.DISCARD
        if self.kind is RegionKind.DEVICE:
            flags |= RegionFlag.DEVICE
        else:
            addend = self.host_address(0)
            page = self.page_number(self.start) - (self.start >> PAGE_BITS)
        return _ENTRY.pack(self.start, self.end - 1, int(flags), addend & _WORD, page & _WORD, self.number)


class RegionList:
    """Disjoint regions by ascending address."""

    def __init__(self) -> None:
        self._regions: list[MemoryRegion] = []
        self._ends: list[int] = []

    def __iter__(self) -> Iterator[MemoryRegion]:
        return iter(self._regions)

    def __len__(self) -> int:
        return len(self._regions)

    def at(self, address: int) -> MemoryRegion | None:
        """The region that contains an address."""
        index = self._first_ending_after(address)
        if index < len(self._regions) and self._regions[index].start <= address:
            return self._regions[index]
        return None

    def within(self, start: int, end: int) -> Iterator[MemoryRegion]:
        """The parts of regions in [start, end)."""
        for region in self._regions[self._first_ending_after(start) :]:
            if region.start >= end:
                break
            yield region.clip(start, end)

    def is_free(self, start: int, end: int) -> bool:
        """Whether nothing is there yet."""
        return next(self.within(start, end), None) is None

    def replace(self, start: int, end: int, new: list[MemoryRegion]) -> None:
        """Put `new` in place of whatever is in [start, end)."""
        before = list(self.within(0, start))
        after = list(self.within(end, ADDRESS_SPACE))
        self._regions = [*before, *sorted(new, key=lambda region: region.start), *after]
        self._ends = [region.end for region in self._regions]

    def entries(self) -> bytes:
        """The list that compiled code reads."""
        return b"".join(region.entry() for region in self._regions)

    def _first_ending_after(self, address: int) -> int:
        return bisect.bisect_right(self._ends, address)
