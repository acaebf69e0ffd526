"""Zicsr: control and status registers. Chapters "Zicsr", "Zicntr" and "F".

RV32 reads counters in two halves; so the instructions are described once for each.
"""

# Pattern and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103, TC001

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.isa.processor import Register, Small
from anyvirt.isa.riscv64.hart import CYCLE, FCSR, FFLAGS, FRM, INSTRET, TIME, Hart, rv
from anyvirt.typed import u8, u32, u64

if TYPE_CHECKING:
    from anyvirt.isa.description import InstructionSet

HIGH = 0x80
"""Between the number of a counter and that of its upper half."""


def read_control(cpu: Hart, number: u32, halves: bool) -> u64:
    if number == FFLAGS:
        value = u64(cpu.float_flags)
    elif number == FRM:
        value = u64(cpu.float_rounding)
    elif number == FCSR:
        value = u64(cpu.float_rounding) << 5 | u64(cpu.float_flags)
    elif number in (CYCLE, INSTRET):
        value = cpu.cycle_counter()
    elif number == TIME:
        value = cpu.time_counter()
    elif halves and number in (CYCLE + HIGH, INSTRET + HIGH):
        value = cpu.cycle_counter() >> 32
    elif halves and number == TIME + HIGH:
        value = cpu.time_counter() >> 32
    else:
        cpu.illegal()
    return value


def write_control(cpu: Hart, number: u32, value: u64) -> None:
    if number == FFLAGS:
        cpu.float_flags = u8(value) & 0x1F
    elif number == FRM:
        cpu.float_rounding = u8(value) & 7
    elif number == FCSR:
        cpu.float_flags = u8(value) & 0x1F
        cpu.float_rounding = u8(value) >> 5
    else:
        cpu.illegal()


def describe(isa: InstructionSet, *, halves: bool) -> None:
    """Declare the instructions, for a machine that has `halves` of counters or not."""
    isa.begin("Zicsr")

    @isa.instruction("csr rs1 001 rd 1110011", "csrrw {rd}, {csr}, {rs1}")
    def csrrw(cpu: Hart, rd: Register, rs1: Register, csr: u32) -> None:
        old = read_control(cpu, csr, halves)
        write_control(cpu, csr, cpu.x[rs1])
        cpu.x[rd] = old

    @isa.instruction("csr rs1 010 rd 1110011", "csrrs {rd}, {csr}, {rs1}")
    def csrrs(cpu: Hart, rd: Register, rs1: Register, csr: u32) -> None:
        old = read_control(cpu, csr, halves)
        if rs1 != 0:
            write_control(cpu, csr, old | cpu.x[rs1])
        cpu.x[rd] = old

    @isa.instruction("csr rs1 011 rd 1110011", "csrrc {rd}, {csr}, {rs1}")
    def csrrc(cpu: Hart, rd: Register, rs1: Register, csr: u32) -> None:
        old = read_control(cpu, csr, halves)
        if rs1 != 0:
            write_control(cpu, csr, old & ~cpu.x[rs1])
        cpu.x[rd] = old

    @isa.instruction("csr zimm 101 rd 1110011", "csrrwi {rd}, {csr}, {zimm}")
    def csrrwi(cpu: Hart, rd: Register, zimm: Small, csr: u32) -> None:
        old = read_control(cpu, csr, halves)
        write_control(cpu, csr, u64(zimm))
        cpu.x[rd] = old

    @isa.instruction("csr zimm 110 rd 1110011", "csrrsi {rd}, {csr}, {zimm}")
    def csrrsi(cpu: Hart, rd: Register, zimm: Small, csr: u32) -> None:
        old = read_control(cpu, csr, halves)
        if zimm != 0:
            write_control(cpu, csr, old | u64(zimm))
        cpu.x[rd] = old

    @isa.instruction("csr zimm 111 rd 1110011", "csrrci {rd}, {csr}, {zimm}")
    def csrrci(cpu: Hart, rd: Register, zimm: Small, csr: u32) -> None:
        old = read_control(cpu, csr, halves)
        if zimm != 0:
            write_control(cpu, csr, old & ~u64(zimm))
        cpu.x[rd] = old


describe(rv, halves=False)
