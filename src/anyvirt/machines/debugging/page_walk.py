"""Translations of addresses, explained: each level of the page table, and what is mapped at all.

RISC-V Privileged Architecture 20240411, "Supervisor" chapters on Sv39, Sv48 and Sv57.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyvirt.cpu.memory import GuestFault
from anyvirt.isa.riscv64_system.register_fields import MODES, PRIVILEGES
from anyvirt.machines.control_registers import allowed_accesses

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyvirt.machines.hart import Hart

_PAGE_BITS, _LEVEL_BITS = 12, 9
_ENTRIES, _ENTRY = 512, 8
_FLAGS = ("V", "R", "W", "X", "U", "G", "A", "D")
_MEANINGS = {
    "V": "valid", "R": "readable", "W": "writable", "X": "executable", "U": "for user mode", "G": "global",
    "A": "accessed", "D": "dirty",
}  # fmt: skip
_SHOWN = "DAGUXWRV"
_MEMORY_TYPES = {0: "", 1: " NC", 2: " IO", 3: " (reserved type)"}
_VALID, _LEAF = 1, 0xE
_NUMBER = (1 << 44) - 1
_BARE, _SV39 = 0, 8
_MOST_TABLES = 1 << 14
"""A guest may let tables point to each other as it likes."""


def flags_text(entry: int) -> str:
    """The flags of an entry as letters, the highest first, as kernels print them."""
    letters = "".join(letter if entry >> _FLAGS.index(letter) & 1 else "-" for letter in _SHOWN)
    return letters + _MEMORY_TYPES[entry >> 61 & 3]


@dataclass(frozen=True)
class Root:
    """Where a hart's translation begins."""

    levels: int
    table: int
    text: str


def root_of(hart: Hart) -> Root | None:
    """The root of a hart's page tables; None if satp says that there is none."""
    satp = hart.csr["satp"]
    mode = satp >> 60
    if mode == _BARE:
        return None
    table = (satp & _NUMBER) << _PAGE_BITS
    text = (
        f"satp {satp:#x}: {MODES.get(mode, 'a reserved mode')}, ASID {satp >> 44 & 0xFFFF}, root {table:#x}"
    )
    return Root(mode - _SV39 + 3, table, text)


def explain(hart: Hart, address: int) -> list[str]:
    """The walk for an address, a line for each level, and what comes out of it."""
    lines = [f"hart {hart.number} in {PRIVILEGES[hart.privilege]} mode"]
    root = root_of(hart)
    if root is None:
        lines.append("satp is 0: addresses are physical")
    else:
        lines += [root.text, *_levels(hart, root, address)]
    lines += allowed_accesses(hart, address)
    return lines


def _levels(hart: Hart, root: Root, address: int) -> Iterator[str]:
    unused = 64 - (_PAGE_BITS + _LEVEL_BITS * root.levels)
    extended = (address << unused & (1 << 64) - 1) >> unused
    if extended >> 63 - unused:
        extended |= (1 << 64) - (1 << 64 - unused)
    if extended != address:
        yield f"the upper {unused} bits are not copies of bit {63 - unused}: a page fault"
        return
    table = root.table
    for level in range(root.levels - 1, -1, -1):
        index = address >> _PAGE_BITS + _LEVEL_BITS * level & _ENTRIES - 1
        place = table + _ENTRY * index
        try:
            (entry,) = struct.unpack("<Q", hart.cpu.memory.view(place, _ENTRY))
        except GuestFault:
            yield f"level {level}: entry {index} would be at {place:#x}, where no RAM is: an access fault"
            return
        line = f"level {level}: entry {index} at {place:#x} is {entry:#018x} {flags_text(entry)}: "
        target = (entry >> 10 & _NUMBER) << _PAGE_BITS
        if not entry & _VALID:
            yield line + "not valid, a page fault"
            return
        if entry & _LEAF:
            size = 1 << _PAGE_BITS + _LEVEL_BITS * level
            if target & size - 1:
                yield line + f"a page of {_size(size)} at {target:#x}, which is not aligned: a page fault"
                return
            named = [_MEANINGS[letter] for letter in _FLAGS[1:] if entry >> _FLAGS.index(letter) & 1]
            physical = target | address & size - 1
            yield line + f"a page of {_size(size)} at {target:#x}, {', '.join(named)}; address {physical:#x}"
            return
        yield line + (
            f"the next table, at {target:#x}" if level else "a table at the last level, a page fault"
        )
        table = target


def mappings(hart: Hart) -> Iterator[str]:
    """What is mapped: ranges with the same flags that follow one another, at both kinds of addresses."""
    root = root_of(hart)
    if root is None:
        yield "satp is 0: addresses are physical"
        return
    yield root.text
    pending: tuple[int, int, int, str] | None = None
    for start, size, physical, flags in _leaves(hart, root):
        if pending is not None:
            first, length, at, before = pending
            if first + length == start and at + length == physical and flags == before:
                pending = first, length + size, at, before
                continue
            yield _mapping(*pending)
        pending = start, size, physical, flags
    if pending is not None:
        yield _mapping(*pending)


def _mapping(start: int, size: int, physical: int, flags: str) -> str:
    return f"{start:#018x}-{start + size - 1:#018x} -> {physical:#014x} {flags} {_size(size)}"


def _leaves(hart: Hart, root: Root) -> Iterator[tuple[int, int, int, str]]:
    """(start, size, physical address, flags) of each page, by ascending addresses."""
    left = [_MOST_TABLES]

    def visit(table: int, level: int, base: int) -> Iterator[tuple[int, int, int, str]]:
        left[0] -= 1
        try:
            content = bytes(hart.cpu.memory.view(table, _ENTRIES * _ENTRY))
        except GuestFault:
            return
        shift = _PAGE_BITS + _LEVEL_BITS * level
        for index, entry in enumerate(struct.unpack(f"<{_ENTRIES}Q", content)):
            if not entry & _VALID:
                continue
            start = base + (index << shift)
            if level == root.levels - 1 and index >= _ENTRIES // 2:
                start |= (1 << 64) - (1 << shift + _LEVEL_BITS)
            target = (entry >> 10 & _NUMBER) << _PAGE_BITS
            if entry & _LEAF:
                # Kernels set these two as pages are used.
                yield start, 1 << shift, target, flags_text(entry & ~0xC0).replace("-", "")
            elif level and left[0] > 0:
                yield from visit(target, level - 1, start)

    yield from visit(root.table, root.levels - 1, 0)


def _size(size: int) -> str:
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >> shift:
            return f"{size >> shift} {unit}"
    return f"{size} B"
