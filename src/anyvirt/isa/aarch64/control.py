"""Branches, calls of the system, hints, barriers and the few system registers of user mode."""

# Pattern and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103, TC001

from __future__ import annotations

from anyvirt.isa.aarch64.core import (
    CONDITIONS,
    LINK,
    NO_RESERVATION,
    WIDTHS,
    Core,
    Width,
    holds,
    isa,
)
from anyvirt.isa.processor import Immediate, Register, Small
from anyvirt.typed import u8, u64

isa.extension("control", "Branches and system")


@isa.instruction("000101 offset[27:2]", "b {pc+offset}")
def b(cpu: Core, offset: Immediate) -> None:
    cpu.branch(offset)


@isa.instruction("100101 offset[27:2]", "bl {pc+offset}")
def bl(cpu: Core, offset: Immediate) -> None:
    cpu.x[LINK] = cpu.next_pc
    cpu.branch(offset)


@isa.instruction("1101011 0000 11111 000000 xn 00000", "br {n}")
@isa.instruction("1101011 0010 11111 000000 xn 00000", "ret {n}")
def br(cpu: Core, n: Register) -> None:
    cpu.jump(cpu.x[n])


@isa.instruction("1101011 0001 11111 000000 xn 00000", "blr {n}")
def blr(cpu: Core, n: Register) -> None:
    target = cpu.x[n]
    cpu.x[LINK] = cpu.next_pc
    cpu.jump(target)


def _conditional(number: int, name: str) -> None:
    @isa.instruction(f"01010100 offset[20:2] 0 {number:04b}", f"b.{name} {{pc+offset}}")
    def branch(cpu: Core, offset: Immediate) -> None:
        if holds(cpu, u8(number)):
            cpu.branch(offset)


for _number, _name in enumerate(CONDITIONS):
    _conditional(_number, _name)


def _comparisons(width: Width) -> None:
    """CBZ and CBNZ."""
    sf, r, mask = width.sf, width.r, width.mask

    @isa.instruction(f"{sf} 0110100 offset[20:2] {r}t", "cbz {t}, {pc+offset}")
    def cbz(cpu: Core, t: Register, offset: Immediate) -> None:
        if cpu.x[t] & mask == 0:
            cpu.branch(offset)

    @isa.instruction(f"{sf} 0110101 offset[20:2] {r}t", "cbnz {t}, {pc+offset}")
    def cbnz(cpu: Core, t: Register, offset: Immediate) -> None:
        if cpu.x[t] & mask != 0:
            cpu.branch(offset)


for _width in WIDTHS:
    _comparisons(_width)


@isa.instruction("bit[5] 0110110 bit[4:0] offset[15:2] xt", "tbz {t}, #{bit}, {pc+offset}")
def tbz(cpu: Core, t: Register, bit: Small, offset: Immediate) -> None:
    if cpu.x[t] >> bit & 1 == 0:
        cpu.branch(offset)


@isa.instruction("bit[5] 0110111 bit[4:0] offset[15:2] xt", "tbnz {t}, #{bit}, {pc+offset}")
def tbnz(cpu: Core, t: Register, bit: Small, offset: Immediate) -> None:
    if cpu.x[t] >> bit & 1 != 0:
        cpu.branch(offset)


@isa.instruction("11010100 000 code 000 01", "svc #{code}")
def svc(cpu: Core) -> None:
    cpu.system_call()


@isa.instruction("11010100 001 code 000 00", "brk #{code}")
def brk(cpu: Core) -> None:
    cpu.breakpoint()


@isa.instruction("11010101000000110010 0000 000 11111", "nop")
@isa.instruction("11010101000000110010 0000 001 11111", "yield")
@isa.instruction("11010101000000110010 0100 flags[2:1] 0 11111", "bti {flags}")
def nop(cpu: Core) -> None:
    pass


@isa.instruction("11010101000000110011 flags 1 00 11111", "dsb {flags}")
@isa.instruction("11010101000000110011 flags 1 01 11111", "dmb {flags}")
def barrier(cpu: Core) -> None:
    cpu.fence()


@isa.instruction("11010101000000110011 flags 1 10 11111", "isb {flags}")
def isb(cpu: Core) -> None:
    cpu.synchronize_code()


@isa.instruction("11010101000000110011 flags 0 10 11111", "clrex {flags}")
def clrex(cpu: Core) -> None:
    cpu.exclusive_address = u64(NO_RESERVATION)


@isa.instruction("1101010100 1 11 011 1101 0000 010 xt", "mrs {t}, tpidr_el0")
def mrs_tpidr(cpu: Core, t: Register) -> None:
    cpu.x[t] = cpu.thread_pointer


@isa.instruction("1101010100 0 11 011 1101 0000 010 xt", "msr tpidr_el0, {t}")
def msr_tpidr(cpu: Core, t: Register) -> None:
    cpu.thread_pointer = cpu.x[t]


@isa.instruction("1101010100 1 11 011 0100 0010 000 xt", "mrs {t}, nzcv")
def mrs_nzcv(cpu: Core, t: Register) -> None:
    cpu.x[t] = cpu.n << 31 | cpu.z << 30 | cpu.c << 29 | cpu.v << 28


@isa.instruction("1101010100 0 11 011 0100 0010 000 xt", "msr nzcv, {t}")
def msr_nzcv(cpu: Core, t: Register) -> None:
    value = cpu.x[t]
    cpu.n = value >> 31 & 1
    cpu.z = value >> 30 & 1
    cpu.c = value >> 29 & 1
    cpu.v = value >> 28 & 1
