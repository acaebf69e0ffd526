"""The translation of addresses where an instruction set has none of its own: none, or a one-level table."""

from __future__ import annotations

from anyvirt.jit.layout import PAGE_SIZE, Slot
from anyvirt.jit.machine_layout import PAGE_BITS
from anyvirt.typed import load64, u64

_EVERYTHING = 7


def translate_one_level(state: u64, address: u64, access: u64) -> tuple[u64, u64]:
    """Physical address, and a bit for each `Access` that is allowed.

    The slot TRANSLATION is 0 (every address is physical) or the address of a table: the number of its
    entries, then for each page from address 0 its physical address, with the rights in the lowest bits.
    """
    table = load64(state + Slot.TRANSLATION)
    if table == 0:
        return address, u64(_EVERYTHING)
    number = address >> PAGE_BITS
    if number >= load64(table):
        return address, u64(0)
    entry = load64(table + 8 + number * 8)
    return entry & ~(PAGE_SIZE - 1) | address & (PAGE_SIZE - 1), entry & _EVERYTHING
