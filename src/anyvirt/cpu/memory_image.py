"""The content of a machine's RAM and ROM at one moment, in files that memories map privately.

An image never changes. Those of the same memory share what did not change between them, and memories that
were made from an image share its pages with each other until they write to them.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from anyvirt.cpu.memory import PAGE_SIZE, host_mmap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

MOST_PIECES = 2048
"""Of a bank: one that would have more is written anew as a whole."""
GAP = 8 * PAGE_SIZE
"""Bytes between two pieces that are rather kept as well than have them apart."""
_LEAST_MAPPED = 16 * PAGE_SIZE
"""A piece of fewer bytes is copied: a mapping costs more."""
_FIXED = 0x10
_NO_RESERVE = 0x4000
_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
_COPIED = 4 << 20
"""Bytes that one of several threads copies at once."""
_THREADS = 2
_ZERO = bytes(PAGE_SIZE)
_Job = TypeVar("_Job")


class ImageFile:
    """A file that nobody writes to any more; it is closed when no image needs it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes [start, end) of a bank, whole pages, and where in a file they are."""

    start: int
    end: int
    file: ImageFile
    place: int

    def clip(self, start: int, end: int) -> Piece:
        """The part within [start, end)."""
        start, end = max(start, self.start), min(end, self.end)
        return Piece(start, end, self.file, self.place + start - self.start)


@dataclass(frozen=True, slots=True)
class BankImage:
    """What is in one piece of RAM or ROM; what no piece covers is zero."""

    address: int
    """Physical: the lowest one at which it is seen."""
    size: int
    is_ram: bool
    pieces: tuple[Piece, ...] = ()

    def overlaid(self, new: Iterable[Piece]) -> tuple[Piece, ...]:
        """The pieces with others in their place; both ascend and are disjoint."""
        result: list[Piece] = []
        old = list(reversed(self.pieces))
        for piece in new:
            while old and old[-1].start < piece.end:
                under = old.pop()
                if under.start < piece.start:
                    result.append(under.clip(under.start, piece.start))
                if under.end > piece.end:
                    old.append(under.clip(piece.end, under.end))
            result.append(piece)
        return tuple(sorted((*result, *old), key=lambda piece: piece.start))

    def put(self, host: int) -> None:
        """Let host memory of the bank's size have this content; other addresses of it are not touched."""
        flags = mmap.MAP_PRIVATE | _FIXED
        host_mmap(host, self.size, _READ_WRITE, flags | mmap.MAP_ANONYMOUS | _NO_RESERVE)
        for piece in self.pieces:
            size = piece.end - piece.start
            if size < _LEAST_MAPPED:
                os.preadv(piece.file.descriptor, [host_bytes(host + piece.start, size)], piece.place)
            else:
                host_mmap(
                    host + piece.start,
                    size,
                    _READ_WRITE,
                    flags | _NO_RESERVE,
                    piece.file.descriptor,
                    piece.place,
                )


@dataclass(frozen=True, slots=True)
class MemoryImage:
    """What is in a memory's RAM and ROM, by ascending addresses."""

    banks: tuple[BankImage, ...]

    @property
    def shape(self) -> list[tuple[int, int, bool]]:
        """What a memory has to have to take it: addresses, sizes, and whether it is RAM."""
        return [(bank.address, bank.size, bank.is_ram) for bank in self.banks]


def copied(host: int, stretches: list[tuple[int, int]], name: str) -> list[Piece]:
    """Pieces with the present content of stretches (start, end) of a bank, in a file without a name."""
    if not stretches:
        return []
    file = ImageFile(os.memfd_create(name, os.MFD_CLOEXEC))
    pieces, jobs, place = [], [], 0
    for start, end in stretches:
        pieces.append(Piece(start, end, file, place))
        for position in range(start, end, _COPIED):
            length = min(_COPIED, end - position)
            jobs.append((host + position, length, place + position - start))
        place += end - start
    os.truncate(file.descriptor, place)

    def copy(job: tuple[int, int, int]) -> None:
        write_all(file.descriptor, host_bytes(job[0], job[1]), job[2])

    for_each(copy, jobs)
    return pieces


def write_all(descriptor: int, data: memoryview, offset: int) -> None:
    """pwrite(2) of all of it. Raises OSError."""
    while data:
        count = os.pwrite(descriptor, data, offset)
        data, offset = data[count:], offset + count


def for_each(function: Callable[[_Job], object], jobs: Sequence[_Job]) -> None:
    """Do jobs that leave the GIL to others, several at a time."""
    if len(jobs) <= 1:
        for job in jobs:
            function(job)
        return
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(function, jobs))


def joined(stretches: Iterable[tuple[int, int]], gap: int = GAP) -> Iterator[tuple[int, int]]:
    """The same ascending stretches, and what is between two of them where that is little."""
    start = end = -1
    for first, behind in stretches:
        if end >= 0 and first - end <= gap:
            end = behind
            continue
        if end >= 0:
            yield start, end
        start, end = first, behind
    if end >= 0:
        yield start, end


def not_zero(host: int, stretches: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Of stretches of pages at a host address, the pages that are not all zeros, as stretches."""
    first = behind = -1
    for start, end in stretches:
        for page in range(start, end, PAGE_SIZE):
            if ctypes.string_at(host + page, PAGE_SIZE) == _ZERO:
                continue
            if page != behind:
                if behind >= 0:
                    yield first, behind
                first = page
            behind = page + PAGE_SIZE
    if behind >= 0:
        yield first, behind


def host_bytes(host: int, size: int) -> memoryview:
    """The host's memory at an address."""
    return memoryview((ctypes.c_char * size).from_address(host)).cast("B")
