"""M: multiplication and division. Chapter "M"; division is total there exactly as in typed Python."""

# Pattern and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103, TC001

from __future__ import annotations

from anyvirt.isa.processor import Register
from anyvirt.isa.riscv64.hart import Hart, rv
from anyvirt.typed import s32, s64, s128, u32, u64, u128

rv.begin("M")


@rv.instruction("0000001 rs2 rs1 000 rd 0110011", "mul {rd}, {rs1}, {rs2}")
def mul(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = cpu.x[rs1] * cpu.x[rs2]


@rv.instruction("0000001 rs2 rs1 001 rd 0110011", "mulh {rd}, {rs1}, {rs2}")
def mulh(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = u64((s128(s64(cpu.x[rs1])) * s128(s64(cpu.x[rs2]))) >> 64)


@rv.instruction("0000001 rs2 rs1 010 rd 0110011", "mulhsu {rd}, {rs1}, {rs2}")
def mulhsu(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = u64((s128(s64(cpu.x[rs1])) * s128(cpu.x[rs2])) >> 64)


@rv.instruction("0000001 rs2 rs1 011 rd 0110011", "mulhu {rd}, {rs1}, {rs2}")
def mulhu(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = u64((u128(cpu.x[rs1]) * u128(cpu.x[rs2])) >> 64)


@rv.instruction("0000001 rs2 rs1 100 rd 0110011", "div {rd}, {rs1}, {rs2}")
def div(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = u64(s64(cpu.x[rs1]) // s64(cpu.x[rs2]))


@rv.instruction("0000001 rs2 rs1 101 rd 0110011", "divu {rd}, {rs1}, {rs2}")
def divu(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = cpu.x[rs1] // cpu.x[rs2]


@rv.instruction("0000001 rs2 rs1 110 rd 0110011", "rem {rd}, {rs1}, {rs2}")
def rem(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = u64(s64(cpu.x[rs1]) % s64(cpu.x[rs2]))


@rv.instruction("0000001 rs2 rs1 111 rd 0110011", "remu {rd}, {rs1}, {rs2}")
def remu(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = cpu.x[rs1] % cpu.x[rs2]


rv.begin("RV64M")


@rv.instruction("0000001 rs2 rs1 000 rd 0111011", "mulw {rd}, {rs1}, {rs2}")
def mulw(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = u64(s32(cpu.x[rs1]) * s32(cpu.x[rs2]))


@rv.instruction("0000001 rs2 rs1 100 rd 0111011", "divw {rd}, {rs1}, {rs2}")
def divw(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = u64(s32(cpu.x[rs1]) // s32(cpu.x[rs2]))


@rv.instruction("0000001 rs2 rs1 101 rd 0111011", "divuw {rd}, {rs1}, {rs2}")
def divuw(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = u64(s32(u32(cpu.x[rs1]) // u32(cpu.x[rs2])))


@rv.instruction("0000001 rs2 rs1 110 rd 0111011", "remw {rd}, {rs1}, {rs2}")
def remw(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = u64(s32(cpu.x[rs1]) % s32(cpu.x[rs2]))


@rv.instruction("0000001 rs2 rs1 111 rd 0111011", "remuw {rd}, {rs1}, {rs2}")
def remuw(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = u64(s32(u32(cpu.x[rs1]) % u32(cpu.x[rs2])))
