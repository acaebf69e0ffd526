"""The arena: where translations lie in memory, executable and never writable at the same time.

One reservation for each process. An image gets pages of its own, is written while they are writable, and is
executable from then on. Its pages come back once no virtual CPU can be executing it any more.
"""

from __future__ import annotations

import bisect
import ctypes
import mmap
import threading
from collections import deque
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from anyvirt.cpu.host import host
from anyvirt.cpu.memory import PAGE_SIZE, host_discard, host_protect, inner_locks, page_ceiling, reserve
from anyvirt.jit.host_layout import Data
from anyvirt.jit.image_layout import Header

if TYPE_CHECKING:
    from collections.abc import Iterable

ARENA_SIZE = 64 << 20
"""Bytes of address space for translations, and the most memory they can take."""
_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
_READ_EXECUTE = mmap.PROT_READ | mmap.PROT_EXEC


class ArenaFullError(Exception):
    """There is no room for another translation until older ones are given up."""


@dataclass
class Placement:
    """An image in the arena."""

    address: int
    size: int
    """Bytes, a multiple of the page size."""
    busy: set[int] = field(default_factory=set)
    """State blocks that may still be executing it, once it has been given up."""


class Arena:
    """The one instance per process: `arena()`."""

    def __init__(self) -> None:
        self.address = reserve(ARENA_SIZE)
        pages = reserve(ARENA_SIZE // PAGE_SIZE * 4, _READ_WRITE)
        self._starts = (ctypes.c_uint32 * (ARENA_SIZE // PAGE_SIZE)).from_address(pages)
        self._free: list[tuple[int, int]] = [(self.address, ARENA_SIZE)]
        self._retired: list[Placement] = []
        self._abandoned: deque[Placement] = deque()
        self._lock = threading.Lock()
        inner_locks.append(self._lock)
        self._exit_code = host().translation_exit
        self.used = 0
        """Bytes taken by translations, those given up but not free yet included."""
        host().set(Data.ARENA_PAGES, pages)
        host().set(Data.ARENA, self.address)
        host().set(Data.ARENA_SIZE, ARENA_SIZE)
        host().add_code_range(self.address, self.address + ARENA_SIZE)

    def place(self, image: bytes) -> Placement:
        """Make an image executable. Raises ArenaFullError."""
        with self._lock:
            self._reclaim()
            address, size = self._take(page_ceiling(len(image)))
            first = (address - self.address) // PAGE_SIZE
            for page in range(size // PAGE_SIZE):
                self._starts[first + page] = page
            host_protect(address, size, _READ_WRITE)
            ctypes.memmove(address, image, len(image))
            ctypes.c_uint64.from_address(address + Header.EXIT_CODE).value = self._exit_code
            host_protect(address, size, _READ_EXECUTE)
            self.used += size
            return Placement(address, size)

    def contains(self, address: int) -> bool:
        """Whether a host address lies in the arena."""
        return self.address <= address < self.address + ARENA_SIZE

    def retire(self, placement: Placement) -> None:
        """Give an image up: nothing leads to it any more, but a CPU may be in it."""
        with self._lock:
            placement.busy = set(host().running_states())
            self._retired.append(placement)
            self._reclaim()

    def abandon(self, placements: Iterable[Placement]) -> None:
        """Give up images that no CPU can be in. Takes no lock: garbage may be collected anywhere."""
        self._abandoned.extend(placements)

    def _take(self, size: int) -> tuple[int, int]:
        for position, (start, length) in enumerate(self._free):
            if length >= size:
                if length == size:
                    del self._free[position]
                else:
                    self._free[position] = (start + size, length - size)
                return start, size
        raise ArenaFullError(f"no {size} bytes are free of {ARENA_SIZE}")

    def _reclaim(self) -> None:
        """Free what no CPU can be executing: each has been seen outside of compiled code since."""
        while self._abandoned:
            self._release(self._abandoned.popleft())
        if not self._retired:
            return
        running = set(host().running_states())
        waiting = []
        for placement in self._retired:
            placement.busy &= running
            if placement.busy:
                waiting.append(placement)
            else:
                self._release(placement)
        self._retired = waiting

    def _release(self, placement: Placement) -> None:
        host_protect(placement.address, placement.size, 0)
        host_discard(placement.address, placement.size)
        self.used -= placement.size
        bisect.insort(self._free, (placement.address, placement.size))
        merged: list[tuple[int, int]] = []
        for start, length in self._free:
            if merged and sum(merged[-1]) == start:
                merged[-1] = (merged[-1][0], merged[-1][1] + length)
            else:
                merged.append((start, length))
        self._free = merged


@cache
def arena() -> Arena:
    """The arena of this process. Raises UnsupportedError where compiled code cannot run."""
    return Arena()
