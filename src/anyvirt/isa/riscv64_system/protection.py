"""Physical memory protection: what each mode may do at a physical address. "Physical Memory Protection".

The grain is a page (G is 10), so that a page has the same rights everywhere. Entries are kept as they were
written and, for the look-up, as first and last address.
"""

from __future__ import annotations

from anyvirt.isa.riscv64_system.hart import (
    PMP_ENTRIES,
    PMPADDR,
    PMPCFG,
    Privilege,
    SystemHart,
)
from anyvirt.typed import count_trailing_zeros, range, u8, u64

READ, WRITE, EXECUTE = 1, 2, 4
_EVERYTHING = 7
_MATCHING, _LOCKED = 0x18, 0x80
_OFF, _TOP_OF_RANGE, _FOUR_BYTES, _POWER_OF_TWO = 0x00, 0x08, 0x10, 0x18
_ADDRESS_BITS = 54
_GRAIN = 0x3FF
"""Bits of pmpaddr below a page."""


def configuration(cpu: SystemHart, entry: u64) -> u64:
    """The byte of pmpcfg for an entry."""
    return (cpu.csr[u8(PMPCFG + entry // 8)] >> 8 * (entry % 8)) & 0xFF


def is_within(address: u64, first: u64, last: u64) -> bool:
    """Whether an address is in [first, last]."""
    return address >= first and last >= address


def physical_rights(cpu: SystemHart, physical: u64, privilege: u64) -> u64:
    """A bit for each kind of access that a mode may make at a physical address."""
    for entry in range(cpu.pmp_count):
        if is_within(physical, cpu.pmp_first[u8(entry)], cpu.pmp_last[u8(entry)]):
            value = configuration(cpu, entry)
            if privilege == Privilege.MACHINE and value & _LOCKED == 0:
                return u64(_EVERYTHING)
            return value & _EVERYTHING
    if privilege == Privilege.MACHINE:
        return u64(_EVERYTHING)
    return u64(0)


def is_locked(cpu: SystemHart, entry: u64) -> bool:
    """Whether the address of an entry cannot be written: its own lock, or that of a range that ends there."""
    if configuration(cpu, entry) & _LOCKED != 0:
        return True
    if entry + 1 == PMP_ENTRIES:
        return False
    following = configuration(cpu, entry + 1)
    return following & _LOCKED != 0 and following & _MATCHING == _TOP_OF_RANGE


def write_address(cpu: SystemHart, entry: u64, value: u64) -> None:
    """pmpaddr."""
    if not is_locked(cpu, entry):
        cpu.csr[u8(PMPADDR + entry)] = value & ((1 << _ADDRESS_BITS) - 1)
        settle(cpu)


def read_address(cpu: SystemHart, entry: u64) -> u64:
    """pmpaddr, as the grain lets it be seen."""
    value = cpu.csr[u8(PMPADDR + entry)]
    if configuration(cpu, entry) & _MATCHING == _POWER_OF_TWO:
        return value | _GRAIN >> 1
    return value & ~_GRAIN


def write_configuration(cpu: SystemHart, first: u64, value: u64) -> None:
    """pmpcfg: eight entries from `first` on."""
    place = u8(PMPCFG + first // 8)
    result = u64(0)
    for position in range(u64(8)):
        old = configuration(cpu, first + position)
        new = (value >> 8 * position) & (_LOCKED | _MATCHING | _EVERYTHING)
        if new & _MATCHING == _FOUR_BYTES:
            # Smaller than the grain.
            new = new & ~_MATCHING | old & _MATCHING
        if new & (READ | WRITE) == WRITE:
            # Reserved.
            new &= ~WRITE
        if old & _LOCKED != 0:
            new = old
        result |= new << 8 * position
    cpu.csr[place] = result
    settle(cpu)


def settle(cpu: SystemHart) -> None:
    """Let the entries be found: as first and last address."""
    count = u64(0)
    below = u64(0)
    for entry in range(u64(PMP_ENTRIES)):
        address = cpu.csr[u8(PMPADDR + entry)]
        matching = configuration(cpu, entry) & _MATCHING
        first, last = u64(1), u64(0)
        if matching == _TOP_OF_RANGE:
            first, last = (below & ~_GRAIN) << 2, (address & ~_GRAIN) << 2
            if last > first:
                last -= 1
            else:
                first, last = u64(1), u64(0)
        elif matching == _POWER_OF_TWO:
            ones = u64(count_trailing_zeros(~(address | _GRAIN >> 1)))
            size = u64(8) << ones
            first = (address << 2) & ~(size - 1)
            last = first + (size - 1)
            if ones >= _ADDRESS_BITS:
                first, last = u64(0), ~u64(0)
        cpu.pmp_first[u8(entry)] = first
        cpu.pmp_last[u8(entry)] = last
        if matching != _OFF:
            count = entry + 1
        below = address
    cpu.pmp_count = count
