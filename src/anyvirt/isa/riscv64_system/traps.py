"""Traps: exceptions and interrupts, delegation, and returning. Privileged, "Machine-Level CSRs"."""

from __future__ import annotations

from anyvirt.isa.riscv64_system.hart import (
    INTERRUPT,
    MCAUSE,
    MEDELEG,
    MENVCFG,
    MEPC,
    MIDELEG,
    MIE,
    MIP,
    MPP_SHIFT,
    MSTATUS,
    MTVAL,
    MTVEC,
    SCAUSE,
    SEPC,
    SPP_SHIFT,
    STIMECMP,
    STVAL,
    STVEC,
    Cause,
    Environment,
    Interrupt,
    Privilege,
    Status,
    SystemHart,
    WalkFault,
)
from anyvirt.isa.riscv64_system.translation import select_area
from anyvirt.isa.system import AccessType, Event
from anyvirt.typed import u64

_NEVER = (1 << 64) - 1
_LOAD_RESERVED_MASK, _LOAD_RESERVED = 0xF800007F, 0x1000002F


# Exceptions -------------------------------------------------------------------------------------------------


def take_exception(cpu: SystemHart, event: u64, pc: u64, address: u64, access: u64, instruction: u64) -> u64:
    """See System.take_exception."""
    value = address
    if event == Event.SYSTEM_CALL:
        cause = Cause.USER_CALL + cpu.privilege
        value = u64(0)
    elif event == Event.BREAKPOINT:
        cause = u64(Cause.BREAKPOINT)
        value = pc
    elif event == Event.ACCESS_FAULT:
        cause = fault_cause(cpu, access)
    elif event == Event.MISALIGNED:
        cause = u64(Cause.STORE_MISALIGNED)
        if instruction & _LOAD_RESERVED_MASK == _LOAD_RESERVED:
            cause = u64(Cause.LOAD_MISALIGNED)
    else:
        cause = u64(Cause.ILLEGAL_INSTRUCTION)
        value = instruction
    return enter_trap(cpu, cause, pc, value, (cpu.csr[MEDELEG] >> cause) & 1 != 0)


def fault_cause(cpu: SystemHart, access: u64) -> u64:
    """The exception of an access that is not possible."""
    page = cpu.walk_fault == WalkFault.PAGE
    if access == AccessType.READ:
        return u64(Cause.LOAD_PAGE) if page else u64(Cause.LOAD_ACCESS)
    if access == AccessType.WRITE:
        return u64(Cause.STORE_PAGE) if page else u64(Cause.STORE_ACCESS)
    return u64(Cause.FETCH_PAGE) if page else u64(Cause.FETCH_ACCESS)


def enter_trap(cpu: SystemHart, cause: u64, pc: u64, value: u64, delegated: bool) -> u64:
    """Go into the mode that handles a trap; returns the address of the handler."""
    status = cpu.csr[MSTATUS]
    if delegated and cpu.privilege != Privilege.MACHINE:
        cpu.csr[SCAUSE] = cause
        cpu.csr[SEPC] = pc
        cpu.csr[STVAL] = value
        enabled = (status & Status.SIE) << 4
        changed = status & ~(Status.SIE | Status.SPIE | Status.SPP)
        cpu.csr[MSTATUS] = changed | enabled | cpu.privilege << SPP_SHIFT
        cpu.privilege = u64(Privilege.SUPERVISOR)
        vector = cpu.csr[STVEC]
    else:
        cpu.csr[MCAUSE] = cause
        cpu.csr[MEPC] = pc
        cpu.csr[MTVAL] = value
        enabled = (status & Status.MIE) << 4
        changed = status & ~(Status.MIE | Status.MPIE | Status.MPP)
        cpu.csr[MSTATUS] = changed | enabled | cpu.privilege << MPP_SHIFT
        cpu.privilege = u64(Privilege.MACHINE)
        vector = cpu.csr[MTVEC]
    select_area(cpu)
    target = vector & ~1
    if vector & 1 != 0 and cause & INTERRUPT != 0:
        target += (cause & (INTERRUPT - 1)) * 4
    return target


# Interrupts -------------------------------------------------------------------------------------------------


def pending(cpu: SystemHart) -> u64:
    """mip: what software has set, and the lines from outside."""
    timer = u64(1 << Interrupt.SUPERVISOR_TIMER)
    if cpu.csr[MENVCFG] & Environment.STCE != 0:
        return cpu.csr[MIP] & ~timer | cpu.lines
    return cpu.csr[MIP] | cpu.lines & ~timer


def possible(cpu: SystemHart) -> tuple[u64, u64]:
    """Interrupts that would be taken now, to M-mode and to S-mode."""
    wanted = pending(cpu) & cpu.csr[MIE]
    status = cpu.csr[MSTATUS]
    to_machine = wanted & ~cpu.csr[MIDELEG]
    to_supervisor = wanted & cpu.csr[MIDELEG]
    if cpu.privilege == Privilege.MACHINE:
        to_supervisor = u64(0)
        if status & Status.MIE == 0:
            to_machine = u64(0)
    elif cpu.privilege == Privilege.SUPERVISOR and status & Status.SIE == 0:
        to_supervisor = u64(0)
    return to_machine, to_supervisor


def notice_interrupts(cpu: SystemHart) -> None:
    """Let an interrupt be taken soon if one can be."""
    to_machine, to_supervisor = possible(cpu)
    if to_machine | to_supervisor != 0:
        cpu.want_attention()


def take_interrupt(cpu: SystemHart, pc: u64) -> tuple[u64, bool]:
    """See System.take_interrupt."""
    to_machine, to_supervisor = possible(cpu)
    if to_machine != 0:
        return enter_trap(cpu, INTERRUPT | first_of(to_machine), pc, u64(0), False), True
    if to_supervisor != 0:
        return enter_trap(cpu, INTERRUPT | first_of(to_supervisor), pc, u64(0), True), True
    return pc, False


def first_of(interrupts: u64) -> u64:
    """The number of the one that comes first: external, software, timer; those of M-mode before S-mode."""
    if interrupts & (1 << Interrupt.MACHINE_EXTERNAL) != 0:
        return u64(Interrupt.MACHINE_EXTERNAL)
    if interrupts & (1 << Interrupt.MACHINE_SOFTWARE) != 0:
        return u64(Interrupt.MACHINE_SOFTWARE)
    if interrupts & (1 << Interrupt.MACHINE_TIMER) != 0:
        return u64(Interrupt.MACHINE_TIMER)
    if interrupts & (1 << Interrupt.SUPERVISOR_EXTERNAL) != 0:
        return u64(Interrupt.SUPERVISOR_EXTERNAL)
    if interrupts & (1 << Interrupt.SUPERVISOR_SOFTWARE) != 0:
        return u64(Interrupt.SUPERVISOR_SOFTWARE)
    return u64(Interrupt.SUPERVISOR_TIMER)


def is_awake(cpu: SystemHart) -> bool:
    """See System.is_awake: WFI heeds neither delegation nor the enabling bits of mstatus."""
    return pending(cpu) & cpu.csr[MIE] != 0


def deadline(cpu: SystemHart) -> u64:
    """See System.deadline."""
    if cpu.csr[MENVCFG] & Environment.STCE == 0:
        return u64(_NEVER)
    return cpu.csr[STIMECMP]


# Returning --------------------------------------------------------------------------------------------------


def return_from_machine(cpu: SystemHart) -> None:
    """The state after MRET."""
    status = cpu.csr[MSTATUS]
    previous = (status & Status.MPP) >> MPP_SHIFT
    enabled = (status & Status.MPIE) >> 4
    status = status & ~(Status.MIE | Status.MPP) | enabled | Status.MPIE
    if previous != Privilege.MACHINE:
        status &= ~Status.MPRV
    go_back(cpu, status, previous)


def return_from_supervisor(cpu: SystemHart) -> None:
    """The state after SRET."""
    status = cpu.csr[MSTATUS]
    previous = (status & Status.SPP) >> SPP_SHIFT
    enabled = (status & Status.SPIE) >> 4
    go_back(cpu, status & ~(Status.SIE | Status.SPP | Status.MPRV) | enabled | Status.SPIE, previous)


def go_back(cpu: SystemHart, status: u64, privilege: u64) -> None:
    """Be in another mode."""
    cpu.csr[MSTATUS] = status
    cpu.privilege = privilege
    select_area(cpu)
    notice_interrupts(cpu)
