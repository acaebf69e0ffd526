"""RV64I: what registers of 64 bits add, double-words in memory and arithmetic on words.

Chapter "RV64I", and its compressed forms of chapter "C".
"""

# Pattern and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103, TC001

from __future__ import annotations

from anyvirt.isa.processor import Immediate, Register, Small
from anyvirt.isa.riscv64.hart import Hart, compressed, rv
from anyvirt.typed import s32, u32, u64

rv.begin("RV64I")


@rv.instruction("imm[11:0] rs1 011 rd 0000011", "ld {rd}, {imm}({rs1})")
@compressed("011 uimm[5:3] rs1' uimm[7:6] rd' 00", "c.ld {rd}, {imm}({rs1})", extension="RV64C")
@compressed(
    "011 uimm[5] rd uimm[4:3|8:6] 10",
    "c.ldsp {rd}, {imm}({rs1})",
    fixed={"rs1": 2},
    excluding={"rd": (0,)},
    extension="RV64C",
)
def ld(cpu: Hart, rd: Register, rs1: Register, imm: Immediate) -> None:
    cpu.x[rd] = cpu.load64(cpu.x[rs1] + imm)


@rv.instruction("imm[11:0] rs1 110 rd 0000011", "lwu {rd}, {imm}({rs1})")
def lwu(cpu: Hart, rd: Register, rs1: Register, imm: Immediate) -> None:
    cpu.x[rd] = u64(cpu.load32(cpu.x[rs1] + imm))


@rv.instruction("imm[11:5] rs2 rs1 011 imm[4:0] 0100011", "sd {rs2}, {imm}({rs1})")
@compressed("111 uimm[5:3] rs1' uimm[7:6] rs2' 00", "c.sd {rs2}, {imm}({rs1})", extension="RV64C")
@compressed("111 uimm[5:3|8:6] rs2 10", "c.sdsp {rs2}, {imm}({rs1})", fixed={"rs1": 2}, extension="RV64C")
def sd(cpu: Hart, rs1: Register, rs2: Register, imm: Immediate) -> None:
    cpu.store64(cpu.x[rs1] + imm, cpu.x[rs2])


@rv.instruction("imm[11:0] rs1 000 rd 0011011", "addiw {rd}, {rs1}, {imm}")
@compressed("001 imm[5] rd/rs1 imm[4:0] 01", "c.addiw {rd}, {imm}", excluding={"rd": (0,)}, extension="RV64C")
def addiw(cpu: Hart, rd: Register, rs1: Register, imm: Immediate) -> None:
    cpu.x[rd] = u64(s32(cpu.x[rs1] + imm))


@rv.instruction("0000000 shamtw rs1 001 rd 0011011", "slliw {rd}, {rs1}, {shamt}")
def slliw(cpu: Hart, rd: Register, rs1: Register, shamt: Small) -> None:
    cpu.x[rd] = u64(s32(cpu.x[rs1]) << shamt)


@rv.instruction("0000000 shamtw rs1 101 rd 0011011", "srliw {rd}, {rs1}, {shamt}")
def srliw(cpu: Hart, rd: Register, rs1: Register, shamt: Small) -> None:
    cpu.x[rd] = u64(s32(u32(cpu.x[rs1]) >> shamt))


@rv.instruction("0100000 shamtw rs1 101 rd 0011011", "sraiw {rd}, {rs1}, {shamt}")
def sraiw(cpu: Hart, rd: Register, rs1: Register, shamt: Small) -> None:
    cpu.x[rd] = u64(s32(cpu.x[rs1]) >> shamt)


@rv.instruction("0000000 rs2 rs1 000 rd 0111011", "addw {rd}, {rs1}, {rs2}")
@compressed("100111 rd'/rs1' 01 rs2' 01", "c.addw {rd}, {rs2}", extension="RV64C")
def addw(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = u64(s32(cpu.x[rs1]) + s32(cpu.x[rs2]))


@rv.instruction("0100000 rs2 rs1 000 rd 0111011", "subw {rd}, {rs1}, {rs2}")
@compressed("100111 rd'/rs1' 00 rs2' 01", "c.subw {rd}, {rs2}", extension="RV64C")
def subw(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = u64(s32(cpu.x[rs1]) - s32(cpu.x[rs2]))


@rv.instruction("0000000 rs2 rs1 001 rd 0111011", "sllw {rd}, {rs1}, {rs2}")
def sllw(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = u64(s32(cpu.x[rs1]) << cpu.x[rs2])


@rv.instruction("0000000 rs2 rs1 101 rd 0111011", "srlw {rd}, {rs1}, {rs2}")
def srlw(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = u64(s32(u32(cpu.x[rs1]) >> cpu.x[rs2]))


@rv.instruction("0100000 rs2 rs1 101 rd 0111011", "sraw {rd}, {rs1}, {rs2}")
def sraw(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = u64(s32(cpu.x[rs1]) >> cpu.x[rs2])
