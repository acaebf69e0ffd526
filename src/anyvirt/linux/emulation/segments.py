"""The segments of an ELF file in guest memory, as private mappings of the file (Linux' fs/binfmt_elf.c)."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from anyvirt.cpu.memory import PAGE_SIZE, Protection, page_ceiling
from anyvirt.linux.elf import ElfError, ElfType, SegmentFlags, SegmentType, parse_elf

if TYPE_CHECKING:
    from anyvirt.cpu.memory import FlatMemory
    from anyvirt.linux.elf import Elf, Segment
    from anyvirt.linux.emulation.abi import Abi

HEADER_BYTES = 1 << 16
"""How much of a program file is searched for its program header table."""
MINIMUM_ADDRESS = 1 << 16
"""Nothing is mapped below, as under the usual vm.mmap_min_addr, so that null pointers fault."""
_WORD = (1 << 64) - 1
STACK_GAP = 1 << 20
"""Bytes at the end of the address space, and below the stack, that are nobody else's."""


def read_elf(fd: int) -> Elf:
    """The headers of the program behind `fd`. Raises ElfError."""
    return parse_elf(os.pread(fd, HEADER_BYTES, 0), os.fstat(fd).st_size)


def check_elf(abi: Abi, elf: Elf) -> None:
    """Raises ElfError for a file whose segments cannot be mapped or are not of this ABI."""
    if elf.isa is not abi.isa:
        raise ElfError(f"a {elf.isa} program, not a {abi.isa} one")
    for segment in _loaded(elf):
        if (segment.address - segment.offset) % PAGE_SIZE:
            raise ElfError("a damaged ELF file: a segment's address does not agree with its file offset")


@dataclass(frozen=True)
class Loaded:
    """An ELF file whose segments are in guest memory, `bias` bytes above where its headers have them."""

    elf: Elf
    bias: int
    segments: tuple[Segment, ...]
    """Those that are in memory, with their true addresses."""

    @property
    def entry(self) -> int:
        """Where it begins."""
        return (self.elf.entry + self.bias) & _WORD

    @property
    def base(self) -> int:
        """The bias as an address: what its headers have at 0 is there, or would be."""
        return self.bias & _WORD

    @property
    def end(self) -> int:
        """The first address behind its highest segment, in whole pages."""
        return page_ceiling(max(segment.address + segment.memory_size for segment in self.segments))

    @property
    def header_address(self) -> int:
        """Where the program headers are in memory; 0 if no segment covers them."""
        offset = self.elf.header_offset
        for segment in self.segments:
            if segment.offset <= offset < segment.offset + segment.file_size:
                return segment.address + offset - segment.offset
        return 0


def load_segments(memory: FlatMemory, fd: int, elf: Elf, bias: int, name: str) -> Loaded:
    """Map the segments of the file behind `fd`, which is called `name`. Raises ElfError and OSError."""
    segments = tuple(replace(segment, address=segment.address + bias) for segment in _loaded(elf))
    for segment in segments:
        _load_segment(memory, fd, segment, name)
    return Loaded(elf, bias, segments)


def span(elf: Elf) -> tuple[int, int]:
    """Where the pages of all segments begin without a bias, and how many bytes to the end of the last."""
    segments = _loaded(elf)
    start = min(segment.address for segment in segments) // PAGE_SIZE * PAGE_SIZE
    return start, page_ceiling(max(segment.address + segment.memory_size for segment in segments)) - start


def alignment(elf: Elf) -> int:
    """What the bias of a position-independent file has to be a multiple of."""
    wishes = [segment.alignment for segment in _loaded(elf)]
    return max([PAGE_SIZE, *(wish for wish in wishes if wish.bit_count() == 1)])


def is_position_independent(elf: Elf) -> bool:
    """Whether the file can be anywhere in memory."""
    return elf.type == ElfType.DYN


def _loaded(elf: Elf) -> list[Segment]:
    return [segment for segment in elf.segments if segment.type == SegmentType.LOAD]


def _protection(flags: SegmentFlags) -> Protection:
    protection = Protection.NONE
    for flag, permission in (
        (SegmentFlags.READ, Protection.READ),
        (SegmentFlags.WRITE, Protection.WRITE),
        (SegmentFlags.EXECUTE, Protection.EXECUTE),
    ):
        if flags & flag:
            protection |= permission
    return protection


def _load_segment(memory: FlatMemory, fd: int, segment: Segment, name: str) -> None:
    if not segment.memory_size:
        return
    protection = _protection(segment.flags)
    start = segment.address // PAGE_SIZE * PAGE_SIZE
    file_end = segment.address + segment.file_size
    memory_end = page_ceiling(segment.address + segment.memory_size)
    if start < MINIMUM_ADDRESS or memory_end > memory.size - STACK_GAP:
        raise ElfError("a damaged ELF file: a segment's address is outside of what a process may have")
    mapped_end = page_ceiling(file_end) if segment.file_size else start
    if segment.file_size:
        offset = segment.offset - (segment.address - start)
        memory.map(start, mapped_end - start, protection, fd=fd, offset=offset, name=name)
    if mapped_end < memory_end:
        memory.map(mapped_end, memory_end - mapped_end, protection)
    if segment.memory_size > segment.file_size and file_end < mapped_end:
        _clear(memory, file_end, mapped_end, protection)


def _clear(memory: FlatMemory, start: int, end: int, protection: Protection) -> None:
    """Zero the rest of a segment's last page, which holds what follows in the file."""
    page = start // PAGE_SIZE * PAGE_SIZE
    if not protection & Protection.WRITE:
        memory.protect(page, PAGE_SIZE, protection | Protection.WRITE)
    memory.write(start, bytes(end - start))
    if not protection & Protection.WRITE:
        memory.protect(page, PAGE_SIZE, protection)
