"""Instructions that only machines have, or that mean more there: Zicsr, traps, fences, cache blocks."""

# Pattern and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103, TC001

from __future__ import annotations

from anyvirt.isa.processor import Register, Small
from anyvirt.isa.riscv64_system.hart import (
    MENVCFG,
    MEPC,
    MSTATUS,
    SENVCFG,
    SEPC,
    Environment,
    Privilege,
    Status,
    SystemHart,
    rv,
)
from anyvirt.isa.riscv64_system.registers import CLEAR, SET, WRITE, Outcome, access
from anyvirt.isa.riscv64_system.translation import forget
from anyvirt.isa.riscv64_system.traps import is_awake, return_from_machine, return_from_supervisor
from anyvirt.typed import u32, u64

BLOCK = 64
"""Bytes of a cache block."""

# Zicsr ------------------------------------------------------------------------------------------------------


def transfer(cpu: SystemHart, rd: Register, csr: u32, operation: u64, value: u64, writes: bool) -> None:
    """Access a register and go on as that demands."""
    old, outcome = access(cpu, u64(csr), operation, value, writes, cpu.cycle_counter())
    if outcome == Outcome.REFUSED:
        cpu.illegal()
    cpu.x[rd] = old
    if outcome == Outcome.ATTEND:
        cpu.attend()
    elif outcome == Outcome.ENTER:
        cpu.enter(cpu.next_pc)
    elif outcome == Outcome.ALARM:
        cpu.set_alarm()


rv.begin("Zicsr")


@rv.instruction("csr rs1 001 rd 1110011", "csrrw {rd}, {csr}, {rs1}")
def csrrw(cpu: SystemHart, rd: Register, rs1: Register, csr: u32) -> None:
    transfer(cpu, rd, csr, u64(WRITE), cpu.x[rs1], True)


@rv.instruction("csr rs1 010 rd 1110011", "csrrs {rd}, {csr}, {rs1}")
def csrrs(cpu: SystemHart, rd: Register, rs1: Register, csr: u32) -> None:
    transfer(cpu, rd, csr, u64(SET), cpu.x[rs1], rs1 != 0)


@rv.instruction("csr rs1 011 rd 1110011", "csrrc {rd}, {csr}, {rs1}")
def csrrc(cpu: SystemHart, rd: Register, rs1: Register, csr: u32) -> None:
    transfer(cpu, rd, csr, u64(CLEAR), cpu.x[rs1], rs1 != 0)


@rv.instruction("csr zimm 101 rd 1110011", "csrrwi {rd}, {csr}, {zimm}")
def csrrwi(cpu: SystemHart, rd: Register, zimm: Small, csr: u32) -> None:
    transfer(cpu, rd, csr, u64(WRITE), u64(zimm), True)


@rv.instruction("csr zimm 110 rd 1110011", "csrrsi {rd}, {csr}, {zimm}")
def csrrsi(cpu: SystemHart, rd: Register, zimm: Small, csr: u32) -> None:
    transfer(cpu, rd, csr, u64(SET), u64(zimm), zimm != 0)


@rv.instruction("csr zimm 111 rd 1110011", "csrrci {rd}, {csr}, {zimm}")
def csrrci(cpu: SystemHart, rd: Register, zimm: Small, csr: u32) -> None:
    transfer(cpu, rd, csr, u64(CLEAR), u64(zimm), zimm != 0)


# Traps and waiting ------------------------------------------------------------------------------------------


@rv.instruction("001100000010 00000 000 00000 1110011", "mret", extension="Machine")
def mret(cpu: SystemHart) -> None:
    if cpu.privilege != Privilege.MACHINE:
        cpu.illegal()
    return_from_machine(cpu)
    cpu.enter(cpu.csr[MEPC])


@rv.instruction("000100000010 00000 000 00000 1110011", "sret", extension="Supervisor")
def sret(cpu: SystemHart) -> None:
    if is_refused(cpu, Status.TSR):
        cpu.illegal()
    return_from_supervisor(cpu)
    cpu.enter(cpu.csr[SEPC])


@rv.instruction("000100000101 00000 000 00000 1110011", "wfi", extension="Machine")
def wfi(cpu: SystemHart) -> None:
    if is_refused(cpu, Status.TW):
        cpu.illegal()
    if is_awake(cpu):
        cpu.attend()
    else:
        cpu.wait()


@rv.instruction("000000001101 00000 000 00000 1110011", "wrs.nto", extension="Zawrs")
@rv.instruction("000000011101 00000 000 00000 1110011", "wrs.sto", extension="Zawrs")
def wrs(cpu: SystemHart) -> None:
    cpu.fence()


def is_refused(cpu: SystemHart, reserved: int) -> bool:
    """Whether an instruction of S-mode is illegal now: in U-mode, or reserved by a bit of mstatus."""
    if cpu.privilege == Privilege.SUPERVISOR:
        return cpu.csr[MSTATUS] & reserved != 0
    return cpu.privilege == Privilege.USER


# Fences -----------------------------------------------------------------------------------------------------


@rv.instruction("0001001 rs2 rs1 000 00000 1110011", "sfence.vma {rs1}, {rs2}", extension="Supervisor")
@rv.instruction("0001011 rs2 rs1 000 00000 1110011", "sinval.vma {rs1}, {rs2}", extension="Svinval")
def sfence_vma(cpu: SystemHart, rs1: Register, rs2: Register) -> None:
    if is_refused(cpu, Status.TVM):
        cpu.illegal()
    forget(cpu, cpu.x[rs1], rs1 != 0, cpu.x[rs2], rs2 != 0)
    cpu.enter(cpu.next_pc)


@rv.instruction("000110000000 00000 000 00000 1110011", "sfence.w.inval", extension="Svinval")
@rv.instruction("000110000001 00000 000 00000 1110011", "sfence.inval.ir", extension="Svinval")
def sfence_part(cpu: SystemHart) -> None:
    if cpu.privilege == Privilege.USER:
        cpu.illegal()


@rv.instruction("------------ ----- 001 ----- 0001111", "fence.i", extension="Zifencei")
def fence_i(cpu: SystemHart) -> None:
    """Stores to code are seen as they happen."""
    cpu.attend()


# Cache blocks -----------------------------------------------------------------------------------------------


def is_disabled(cpu: SystemHart, bits: int) -> bool:
    """Whether an instruction for cache blocks is illegal below M-mode."""
    if cpu.privilege == Privilege.MACHINE:
        return False
    if cpu.csr[MENVCFG] & bits == 0:
        return True
    return cpu.privilege == Privilege.USER and cpu.csr[SENVCFG] & bits == 0


@rv.instruction("000000000000 rs1 010 00000 0001111", "cbo.inval ({rs1})", extension="Zicbom")
def cbo_inval(cpu: SystemHart, rs1: Register) -> None:
    if is_disabled(cpu, Environment.CBIE):
        cpu.illegal()


@rv.instruction("000000000001 rs1 010 00000 0001111", "cbo.clean ({rs1})", extension="Zicbom")
@rv.instruction("000000000010 rs1 010 00000 0001111", "cbo.flush ({rs1})", extension="Zicbom")
def cbo_clean(cpu: SystemHart, rs1: Register) -> None:
    if is_disabled(cpu, Environment.CBCFE):
        cpu.illegal()


@rv.instruction("000000000100 rs1 010 00000 0001111", "cbo.zero ({rs1})", extension="Zicboz")
def cbo_zero(cpu: SystemHart, rs1: Register) -> None:
    if is_disabled(cpu, Environment.CBZE):
        cpu.illegal()
    block = cpu.x[rs1] & ~(BLOCK - 1)
    for offset in range(0, BLOCK, 8):
        cpu.store64(block + offset, u64(0))
