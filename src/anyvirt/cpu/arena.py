"""The arena: where translations lie in memory, executable and never writable at the same time.

One reservation for each process. Images lie side by side, for a program's hot code should take few pages and
cache lines. Pages without any are written while they are writable, and executable from then on. A page that
others lie in, where CPUs may be, is not touched: a copy with the new image takes its place. Space comes back
once no virtual CPU can be executing what was there.
"""

from __future__ import annotations

import bisect
import ctypes
import mmap
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anyvirt.cpu.host import host
from anyvirt.cpu.memory import (
    PAGE_SIZE,
    host_discard,
    host_move,
    host_munmap,
    host_protect,
    inner_locks,
    page_ceiling,
    reserve,
)
from anyvirt.jit.host_layout import ARENA_GRANULE, Data
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
    """Bytes, a multiple of ARENA_GRANULE."""
    busy: set[int] = field(default_factory=set)
    """State blocks that may still be executing it, once it has been given up."""

    @property
    def end(self) -> int:
        """Address behind it."""
        return self.address + self.size


class _Gaps:
    """What is free, as disjoint ranges (start, end) in ascending order, none touching the next."""

    def __init__(self, start: int, end: int) -> None:
        self._ranges = [(start, end)]

    def first_of(self, size: int) -> tuple[int, int] | None:
        """The first range of at least `size` bytes."""
        return next((gap for gap in self._ranges if gap[1] - gap[0] >= size), None)

    def take(self, gap: tuple[int, int], size: int) -> None:
        """Take so many bytes from the beginning of a range."""
        position = bisect.bisect_left(self._ranges, gap)
        self._ranges[position : position + 1] = [(gap[0] + size, gap[1])] if gap[0] + size < gap[1] else []

    def give(self, start: int, end: int) -> tuple[int, int]:
        """Add a range; returns the one that it is part of now."""
        first = last = bisect.bisect_left(self._ranges, (start, end))
        if first > 0 and self._ranges[first - 1][1] == start:
            first -= 1
            start = self._ranges[first][0]
        if last < len(self._ranges) and self._ranges[last][0] == end:
            end = self._ranges[last][1]
            last += 1
        self._ranges[first:last] = [(start, end)]
        return start, end


class Arena:
    """The one instance per process: `arena()`."""

    def __init__(self) -> None:
        self.address = reserve(ARENA_SIZE)
        starts = reserve(ARENA_SIZE // ARENA_GRANULE * 4, _READ_WRITE)
        self._starts = (ctypes.c_uint32 * (ARENA_SIZE // ARENA_GRANULE)).from_address(starts)
        self._gaps = _Gaps(self.address, self.address + ARENA_SIZE)
        self._retired: list[Placement] = []
        self._abandoned: deque[Placement] = deque()
        self._lock = threading.Lock()
        inner_locks.append(self._lock)
        self._exit_code = host().translation_exit.to_bytes(8, "little")
        self.used = 0
        """Bytes taken by translations, those given up but not free yet included."""
        host().set(Data.ARENA_STARTS, starts)
        host().set(Data.ARENA, self.address)
        host().set(Data.ARENA_SIZE, ARENA_SIZE)
        host().add_code_range(self.address, self.address + ARENA_SIZE)

    def place(self, image: bytes) -> Placement:
        """Make an image executable. Raises ArenaFullError."""
        image = image[: Header.EXIT_CODE] + self._exit_code + image[Header.EXIT_CODE + 8 :]
        size = -(-len(image) // ARENA_GRANULE) * ARENA_GRANULE
        with self._lock:
            self._reclaim()
            gap = self._gaps.first_of(size)
            if gap is None:
                raise ArenaFullError(f"no {size} bytes are free of {ARENA_SIZE}")
            self._gaps.take(gap, size)
            self.used += size
            placement = Placement(gap[0], size)
            first = (gap[0] - self.address) // ARENA_GRANULE
            self._starts[first : first + size // ARENA_GRANULE] = list(range(size // ARENA_GRANULE))
            try:
                self._write(placement.address, image, gap)
            except OSError as error:
                # The process has as many mappings as it may have.
                self._release(placement)
                raise ArenaFullError(str(error)) from error
            return placement

    def _write(self, address: int, image: bytes, gap: tuple[int, int]) -> None:
        """Write to what was a gap, of whose first and last page something else may have the rest."""
        end = address + len(image)
        start = min(page_ceiling(gap[0]), end)
        stop = min(max(gap[1] & -PAGE_SIZE, start), end)
        if start > address:
            _replace(address, image[: start - address])
        if stop > start:
            host_protect(start, page_ceiling(stop - start), _READ_WRITE)
            ctypes.memmove(start, image[start - address : stop - address], stop - start)
            host_protect(start, page_ceiling(stop - start), _READ_EXECUTE)
        if end > stop:
            _replace(stop, image[stop - address :])

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
        self.used -= placement.size
        gap = self._gaps.give(placement.address, placement.end)
        start = max(placement.address & -PAGE_SIZE, page_ceiling(gap[0]))
        end = min(page_ceiling(placement.end), gap[1] & -PAGE_SIZE)
        if start < end:
            host_protect(start, end - start, 0)
            host_discard(start, end - start)


def _replace(address: int, content: bytes) -> None:
    """Put something into a page of executable code by putting a page in its place."""
    page, offset = address & -PAGE_SIZE, address % PAGE_SIZE
    copy = reserve(PAGE_SIZE, _READ_WRITE)
    try:
        ctypes.memmove(copy, page, PAGE_SIZE)
        ctypes.memmove(copy + offset, content, len(content))
        host_protect(copy, PAGE_SIZE, _READ_EXECUTE)
        # Whoever executes the page waits for the kernel, if it comes to that, and goes on in the new one.
        host_move(copy, PAGE_SIZE, page)
    except OSError:
        host_munmap(copy, PAGE_SIZE)
        raise


_arenas: list[Arena] = []
_making = threading.Lock()
inner_locks.append(_making)


def arena() -> Arena:
    """The arena of this process. Raises UnsupportedError where compiled code cannot run."""
    if not _arenas:
        with _making:
            # Another thread may have wanted it first at the same time.
            if not _arenas:
                _arenas.append(Arena())
    return _arenas[0]
