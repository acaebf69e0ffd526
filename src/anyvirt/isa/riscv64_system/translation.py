"""Translation of addresses: Sv39, Sv48 and Sv57, and where translations are remembered.

Chapter "Supervisor-Level ISA", "Supervisor Address Translation and Protection (satp) Register" and after.

Accessed and dirty bits are set by the hardware as long as menvcfg.ADUE is set, which it is after a reset
(Svadu); otherwise their absence is a page fault (Svade).

There is an area for M-mode; three for each of `SPACES` address spaces, which are S-mode with and without SUM,
and U-mode; and one for everything unusual (MPRV, MXR), which is emptied each time that it is entered.
"""

from __future__ import annotations

from anyvirt.isa.riscv64_system.hart import (
    MENVCFG,
    MPP_SHIFT,
    MSTATUS,
    SATP,
    SPACES,
    Environment,
    Privilege,
    Status,
    SystemHart,
    WalkFault,
)
from anyvirt.isa.riscv64_system.protection import READ, WRITE, is_within, physical_rights
from anyvirt.isa.system import AccessType
from anyvirt.typed import range, s64, u8, u64

_PAGE_BITS, _LEVEL_BITS = 12, 9
_IN_PAGE = (1 << _PAGE_BITS) - 1
_VALID, _READ, _WRITE, _EXECUTE, _USER, _ACCESSED, _DIRTY = 1, 2, 4, 8, 16, 64, 128
_NUMBER = ((1 << 44) - 1) << 10
_BASED, _BASED_RESERVED = 3 << 61, 3 << 61
_RESERVED = 1 << 63 | 0x7F << 54
"""Svnapot is not there."""
MODE_SHIFT, SPACE_SHIFT = 60, 44
BARE, SV39, SV48, SV57 = 0, 8, 9, 10
ROOT = (1 << 44) - 1
SPACE = 0xFFFF

MACHINE_AREA = 0
_FIRST_SPACE = 1
SUPERVISOR, SUPERVISOR_WITH_USER, USER = 0, 1, 2
_KINDS = 3
UNUSUAL_AREA = _FIRST_SPACE + _KINDS * SPACES
AREAS = UNUSUAL_AREA + 1


def data_privilege(cpu: SystemHart) -> u64:
    """The mode with whose rights loads and stores are made."""
    status = cpu.csr[MSTATUS]
    if status & Status.MPRV != 0:
        return (status & Status.MPP) >> MPP_SHIFT
    return cpu.privilege


def translate(cpu: SystemHart, address: u64, access: u64) -> tuple[u64, u64]:
    """See System.translate."""
    privilege = cpu.privilege
    if access != AccessType.EXECUTE:
        privilege = data_privilege(cpu)
    cpu.walk_fault = u64(WalkFault.NONE)
    if privilege == Privilege.MACHINE or cpu.csr[SATP] >> MODE_SHIFT == BARE:
        return address, physical_rights(cpu, address, privilege)
    physical, rights = walk(cpu, address, access, privilege)
    if (rights >> access) & 1 == 0:
        if cpu.walk_fault == WalkFault.NONE:
            cpu.walk_fault = u64(WalkFault.PAGE)
        return address, u64(0)
    return physical, rights & physical_rights(cpu, physical, privilege)


def walk(  # noqa: PLR0911, PLR0912 - one for each reason that the manual lists
    cpu: SystemHart, address: u64, access: u64, privilege: u64
) -> tuple[u64, u64]:
    """Physical address and rights by the page table; no right to `access` is a page fault."""
    satp = cpu.csr[SATP]
    level = (satp >> MODE_SHIFT) - (SV39 - 3)
    unused = 64 - (_PAGE_BITS + _LEVEL_BITS * level)
    if u64(s64(address << unused) >> unused) != address:
        return address, u64(0)
    table = (satp & ROOT) << _PAGE_BITS
    while level > 0:
        level -= 1
        shift = _PAGE_BITS + _LEVEL_BITS * level
        place = table + ((address >> shift) & 0x1FF) * 8
        entry, exists = cpu.load_physical(place)
        if not exists or physical_rights(cpu, place, u64(Privilege.SUPERVISOR)) & READ == 0:
            cpu.walk_fault = u64(WalkFault.ACCESS)
            return address, u64(0)
        if not is_sound(cpu, entry):
            return address, u64(0)
        if entry & (_READ | _WRITE | _EXECUTE) == 0:
            if entry & (_USER | _ACCESSED | _DIRTY | _BASED) != 0:
                return address, u64(0)
            table = (entry & _NUMBER) << 2
            continue
        base = (entry & _NUMBER) << 2
        within = (u64(1) << shift) - 1
        rights = leaf_rights(cpu, entry, privilege)
        if base & within != 0 or (rights >> access) & 1 == 0:
            return address, u64(0)
        noted = noted_entry(entry, access)
        if noted != entry:
            if cpu.csr[MENVCFG] & Environment.ADUE == 0:
                return address, u64(0)
            if physical_rights(cpu, place, u64(Privilege.SUPERVISOR)) & WRITE == 0:
                cpu.walk_fault = u64(WalkFault.ACCESS)
                return address, u64(0)
            if not cpu.update_physical(place, entry, noted):
                again, still = cpu.load_physical(place)
                if not still or again == entry:
                    # It is not in RAM.
                    cpu.walk_fault = u64(WalkFault.ACCESS)
                    return address, u64(0)
                # Somebody else has changed it: look once more.
                level += 1
                continue
        if noted & _DIRTY == 0:
            rights &= ~(u64(1) << AccessType.WRITE)
        if level > 0:
            note_large(cpu, address & ~within, address | within)
        return base | address & within, rights
    return address, u64(0)


def is_sound(cpu: SystemHart, entry: u64) -> bool:
    """Whether an entry of a page table is valid and has no reserved value."""
    if entry & _VALID == 0 or entry & (_READ | _WRITE) == _WRITE or entry & _RESERVED != 0:
        return False
    if entry & _BASED == 0:
        return True
    # Svpbmt: what memory types mean for devices means nothing here.
    return cpu.csr[MENVCFG] & Environment.PBMTE != 0 and entry & _BASED != _BASED_RESERVED


def leaf_rights(cpu: SystemHart, entry: u64, privilege: u64) -> u64:
    """What a mode may do with the page of an entry: a bit for each kind of access."""
    status = cpu.csr[MSTATUS]
    rights = (entry >> 1) & 7
    if status & Status.MXR != 0:
        rights |= (entry >> 3) & 1
    if entry & _USER != 0:
        if privilege != Privilege.USER:
            if status & Status.SUM == 0:
                return u64(0)
            rights &= ~(u64(1) << AccessType.EXECUTE)
    elif privilege == Privilege.USER:
        return u64(0)
    return rights


def noted_entry(before: u64, access: u64) -> u64:
    """An entry after an access."""
    if access == AccessType.WRITE:
        return before | _ACCESSED | _DIRTY
    return before | _ACCESSED


# What is remembered -----------------------------------------------------------------------------------------


def note_large(cpu: SystemHart, first: u64, last: u64) -> None:
    """A large page is remembered as small ones: who wants it forgotten has to know where there are any."""
    half = u8(first >> 63) * 2
    if cpu.large[half + 1] == 0:
        cpu.large[half] = first
        cpu.large[half + 1] = last
    else:
        cpu.large[half] = min(cpu.large[half], first)
        cpu.large[half + 1] = max(cpu.large[half + 1], last)


def select_area(cpu: SystemHart) -> None:
    """Remember translations where they belong in the mode that the hart is in now."""
    status = cpu.csr[MSTATUS]
    data = data_privilege(cpu)
    if data != cpu.privilege or (status & Status.MXR != 0 and data != Privilege.MACHINE):
        cpu.forget_area(u64(UNUSUAL_AREA))
        cpu.use_area(u64(UNUSUAL_AREA))
    elif data == Privilege.MACHINE:
        cpu.use_area(u64(MACHINE_AREA))
    else:
        kind = u64(USER)
        if data == Privilege.SUPERVISOR:
            kind = u64(SUPERVISOR_WITH_USER) if status & Status.SUM != 0 else u64(SUPERVISOR)
        cpu.use_area(_FIRST_SPACE + find_space(cpu) * _KINDS + kind)


def find_space(cpu: SystemHart) -> u64:
    """The number of the address space of satp; another one is forgotten for it if it has none."""
    key = cpu.csr[SATP] + 1
    for number in range(u64(SPACES)):
        if cpu.spaces[u8(number)] == key:
            return number
    chosen = cpu.next_space
    cpu.next_space = (chosen + 1) % SPACES
    cpu.spaces[u8(chosen)] = key
    forget_space(cpu, chosen)
    return chosen


def forget_space(cpu: SystemHart, number: u64) -> None:
    """Forget what is remembered of an address space."""
    for kind in range(u64(_KINDS)):
        cpu.forget_area(_FIRST_SPACE + number * _KINDS + kind)


def forget_everything(cpu: SystemHart) -> None:
    """Forget all translations."""
    for area in range(u64(AREAS)):
        cpu.forget_area(area)
    for number in range(u64(4)):
        cpu.large[u8(number)] = u64(0)


def forget(cpu: SystemHart, address: u64, only_page: bool, space: u64, only_space: bool) -> None:
    """SFENCE.VMA: forget the page of an address, or all, in one address space or in all."""
    half = u8(address >> 63) * 2
    if is_within(address, cpu.large[half], cpu.large[half + 1]) and cpu.large[half + 1] != 0:
        # It may be part of a large page.
        only_page = False
    if not only_page and not only_space:
        forget_everything(cpu)
        return
    for number in range(u64(SPACES)):
        key = cpu.spaces[u8(number)]
        if key == 0 or (only_space and ((key - 1) >> SPACE_SHIFT) & SPACE != space & SPACE):
            continue
        if only_page:
            for kind in range(u64(_KINDS)):
                cpu.forget_page(_FIRST_SPACE + number * _KINDS + kind, address)
        else:
            forget_space(cpu, number)
    cpu.forget_area(u64(UNUSUAL_AREA))
