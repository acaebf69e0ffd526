"""Access to control and status registers: who may, what reading gives, and what writing does.

Privileged, "Control and Status Registers (CSRs)"; the counters' chapters of both volumes.
"""

from __future__ import annotations

from enum import IntEnum

from anyvirt.isa.riscv64.hart import CYCLE, FCSR, FFLAGS, FRM, INSTRET, TIME
from anyvirt.isa.riscv64_system.hart import (
    INITIAL,
    MCOUNTEREN,
    MCYCLE_NUMBER,
    MENVCFG,
    MIDELEG,
    MIE,
    MINSTRET_NUMBER,
    MIP,
    MIP_NUMBER,
    MPP_SHIFT,
    MSTATUS,
    MTVEC,
    PLACE,
    PLACES,
    PMPADDR_NUMBER,
    PMPCFG,
    PMPCFG_NUMBER,
    SATP,
    SATP_NUMBER,
    SCOUNTEREN,
    SENVCFG,
    SIE_NUMBER,
    SIP_NUMBER,
    SPECIAL,
    SSTATUS_NUMBER,
    SSTATUS_READ,
    SSTATUS_WRITABLE,
    STIMECMP,
    STIMECMP_NUMBER,
    STVEC,
    WRITABLE,
    Environment,
    Interrupt,
    Privilege,
    Status,
    SystemHart,
)
from anyvirt.isa.riscv64_system.protection import (
    read_address,
    settle,
    write_address,
    write_configuration,
)
from anyvirt.isa.riscv64_system.translation import (
    BARE,
    MODE_SHIFT,
    SV39,
    SV57,
    forget_everything,
    select_area,
)
from anyvirt.isa.riscv64_system.traps import notice_interrupts, pending
from anyvirt.typed import range, u8, u64

WRITE, SET, CLEAR = 0, 1, 2
"""What an instruction does with the old value and its own."""
_SOFTWARE_LINES = (
    1 << Interrupt.SUPERVISOR_SOFTWARE | 1 << Interrupt.SUPERVISOR_TIMER | 1 << Interrupt.SUPERVISOR_EXTERNAL
)
_COUNTERS, _COUNTERS_END = 0xC00, 0xC20
_READ_ONLY = 3


class Outcome(IntEnum):
    """How an instruction that accessed a register goes on."""

    REFUSED = 0
    """It is illegal."""
    DONE = 1
    ATTEND = 2
    """Interrupts may have become possible, or rights have changed."""
    ENTER = 3
    """Even the next instruction may be another one."""
    ALARM = 4
    """The deadline has changed."""


def access(
    cpu: SystemHart, number: u64, operation: u64, value: u64, writes: bool, cycles: u64
) -> tuple[u64, u64]:
    """The old value of a register, and the Outcome. `cycles` is what the processor has counted."""
    if not is_allowed(cpu, number, writes):
        return u64(0), u64(Outcome.REFUSED)
    place = PLACE[number]
    if place != SPECIAL:
        old = cpu.csr[place]
        if place == MSTATUS and old & Status.FS == Status.FS:
            old |= Status.SD
    else:
        old = read_special(cpu, number, cycles)
    if not writes:
        return old, u64(Outcome.DONE)
    base = old
    if number == MIP_NUMBER:
        base = cpu.csr[MIP]
    new = combined(base, operation, value)
    if place != SPECIAL:
        return old, write_plain(cpu, place, new)
    return old, write_special(cpu, number, new, cycles)


def combined(old: u64, operation: u64, value: u64) -> u64:
    """What is written."""
    if operation == SET:
        return old | value
    if operation == CLEAR:
        return old & ~value
    return value


def is_allowed(cpu: SystemHart, number: u64, writes: bool) -> bool:  # noqa: PLR0911
    """Whether there is such a register, and it can be accessed now."""
    if PLACE[number] == 0 or (writes and number >> 10 == _READ_ONLY):
        return False
    if cpu.privilege < (number >> 8) & 3:
        return False
    if number <= FCSR:
        return cpu.csr[MSTATUS] & Status.FS != 0
    if cpu.privilege == Privilege.MACHINE:
        return True
    if number >= _COUNTERS and number < _COUNTERS_END:
        counter = u64(1) << (number & 31)
        if cpu.privilege == Privilege.USER and cpu.csr[SCOUNTEREN] & counter == 0:
            return False
        return cpu.csr[MCOUNTEREN] & counter != 0
    if number == SATP_NUMBER:
        return cpu.csr[MSTATUS] & Status.TVM == 0
    if number == STIMECMP_NUMBER:
        return cpu.csr[MENVCFG] & Environment.STCE != 0 and cpu.csr[MCOUNTEREN] & 2 != 0
    return True


# Registers that are plain values ----------------------------------------------------------------------------


def write_plain(cpu: SystemHart, place: u8, value: u64) -> u64:
    """Write what of a register can be written."""
    old = cpu.csr[place]
    new = old & ~WRITABLE[place] | value & WRITABLE[place]
    if place == MSTATUS:
        return write_status(cpu, new)
    if place in (MTVEC, STVEC) and value & 2 != 0:
        # A reserved mode.
        new = old
    if place in (MENVCFG, SENVCFG) and new & Environment.CBIE == 2 << 4:
        new = new & ~Environment.CBIE | old & Environment.CBIE
    cpu.csr[place] = new
    if place == MENVCFG:
        if (old ^ new) & (Environment.ADUE | Environment.PBMTE) != 0:
            forget_everything(cpu)
        return u64(Outcome.ALARM) if (old ^ new) & Environment.STCE != 0 else u64(Outcome.DONE)
    if place in (MIE, MIDELEG):
        notice_interrupts(cpu)
        return u64(Outcome.ATTEND)
    return u64(Outcome.DONE)


def write_status(cpu: SystemHart, value: u64) -> u64:
    """mstatus, by whatever name."""
    if (value & Status.MPP) >> MPP_SHIFT == 2:
        value = value & ~Status.MPP | cpu.csr[MSTATUS] & Status.MPP
    changed = cpu.csr[MSTATUS] ^ value
    cpu.csr[MSTATUS] = value
    if changed & (Status.MPRV | Status.SUM | Status.MXR) != 0 or (
        value & Status.MPRV != 0 and changed & Status.MPP != 0
    ):
        select_area(cpu)
    notice_interrupts(cpu)
    return u64(Outcome.ATTEND)


# Registers with functions of their own ----------------------------------------------------------------------


def read_special(cpu: SystemHart, number: u64, cycles: u64) -> u64:  # noqa: PLR0911, PLR0912
    """What of other state a register shows."""
    if number == SSTATUS_NUMBER:
        status = cpu.csr[MSTATUS]
        if status & Status.FS == Status.FS:
            status |= Status.SD
        return status & SSTATUS_READ
    if number == SATP_NUMBER:
        return cpu.csr[SATP]
    if number == TIME:
        return cpu.time_counter()
    if number == SIE_NUMBER:
        return cpu.csr[MIE] & cpu.csr[MIDELEG]
    if number == SIP_NUMBER:
        return pending(cpu) & cpu.csr[MIDELEG]
    if number == MIP_NUMBER:
        return pending(cpu)
    if number == STIMECMP_NUMBER:
        return cpu.csr[STIMECMP]
    if number in (CYCLE, MCYCLE_NUMBER):
        return cycles + cpu.cycle_base
    if number in (INSTRET, MINSTRET_NUMBER):
        return cycles + cpu.instret_base
    if number == FFLAGS:
        return u64(cpu.float_flags)
    if number == FRM:
        return u64(cpu.float_rounding)
    if number == FCSR:
        return u64(cpu.float_rounding) << 5 | u64(cpu.float_flags)
    if number >= PMPADDR_NUMBER:
        return read_address(cpu, number - PMPADDR_NUMBER)
    return cpu.csr[u8(PMPCFG + (number - PMPCFG_NUMBER) // 2)]


def write_special(cpu: SystemHart, number: u64, value: u64, cycles: u64) -> u64:  # noqa: PLR0911
    """Change the state that a register shows."""
    if number == SSTATUS_NUMBER:
        rest = cpu.csr[MSTATUS] & ~SSTATUS_WRITABLE
        return write_status(cpu, rest | value & SSTATUS_WRITABLE)
    if number == SATP_NUMBER:
        return write_translation(cpu, value)
    if number == SIE_NUMBER:
        delegated = cpu.csr[MIDELEG]
        cpu.csr[MIE] = cpu.csr[MIE] & ~delegated | value & delegated & WRITABLE[MIE]
        notice_interrupts(cpu)
        return u64(Outcome.ATTEND)
    if number == SIP_NUMBER:
        mask = cpu.csr[MIDELEG] & (1 << Interrupt.SUPERVISOR_SOFTWARE)
        return write_pending(cpu, value, mask)
    if number == MIP_NUMBER:
        mask = u64(_SOFTWARE_LINES)
        if cpu.csr[MENVCFG] & Environment.STCE != 0:
            mask &= ~(1 << Interrupt.SUPERVISOR_TIMER)
        return write_pending(cpu, value, mask)
    if number == STIMECMP_NUMBER:
        cpu.csr[STIMECMP] = value
        return u64(Outcome.ALARM)
    if number == MCYCLE_NUMBER:
        cpu.cycle_base = value - cycles
        return u64(Outcome.DONE)
    if number == MINSTRET_NUMBER:
        # The instruction itself is not counted.
        cpu.instret_base = value - (cycles + 1)
        return u64(Outcome.DONE)
    if number <= FCSR:
        write_float_control(cpu, number, value)
        return u64(Outcome.DONE)
    if number >= PMPADDR_NUMBER:
        write_address(cpu, number - PMPADDR_NUMBER, value)
    else:
        write_configuration(cpu, (number - PMPCFG_NUMBER) * 4, value)
    forget_everything(cpu)
    return u64(Outcome.ENTER)


def write_float_control(cpu: SystemHart, number: u64, value: u64) -> None:
    """fflags, frm and fcsr."""
    cpu.csr[MSTATUS] = cpu.csr[MSTATUS] | Status.FS
    if number == FFLAGS:
        cpu.float_flags = u8(value) & 0x1F
    elif number == FRM:
        cpu.float_rounding = u8(value) & 7
    else:
        cpu.float_flags = u8(value) & 0x1F
        cpu.float_rounding = u8(value) >> 5 & 7


def write_pending(cpu: SystemHart, value: u64, mask: u64) -> u64:
    """What software may set and clear of mip."""
    cpu.csr[MIP] = cpu.csr[MIP] & ~mask | value & mask
    notice_interrupts(cpu)
    return u64(Outcome.ATTEND)


def write_translation(cpu: SystemHart, value: u64) -> u64:
    """satp: a mode that does not exist leaves it as it is."""
    mode = value >> MODE_SHIFT
    if mode != BARE and (mode < SV39 or mode > SV57):
        return u64(Outcome.DONE)
    cpu.csr[SATP] = value
    select_area(cpu)
    return u64(Outcome.ENTER)


# The whole --------------------------------------------------------------------------------------------------


def reset(cpu: SystemHart) -> None:
    """See System.reset."""
    for place in range(u64(PLACES)):
        cpu.csr[u8(place)] = INITIAL[place]
    refresh(cpu)


def refresh(cpu: SystemHart) -> None:
    """See System.refresh."""
    settle(cpu)
    forget_everything(cpu)
    select_area(cpu)
    notice_interrupts(cpu)
