"""The base integer instructions with their compressed forms, and Zifencei.

Chapters "RV32I", "Zifencei" and "C"; what only RV64I has is in `words.py`.
"""

# Pattern and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103, TC001

from __future__ import annotations

from anyvirt.isa.processor import Immediate, Register, Small
from anyvirt.isa.riscv64.hart import Hart, compressed, rv
from anyvirt.typed import s8, s16, s32, s64, u64

rv.begin("I")

# Constants and addresses ------------------------------------------------------------------------------------


@rv.instruction("upper[31:12] rd 0110111", "lui {rd}, {imm}")
@compressed("011 nzupper[17] rd nzupper[16:12] 01", "c.lui {rd}, {imm}", excluding={"rd": (2,)})
def lui(cpu: Hart, rd: Register, imm: Immediate) -> None:
    cpu.x[rd] = imm


@rv.instruction("upper[31:12] rd 0010111", "auipc {rd}, {imm}")
def auipc(cpu: Hart, rd: Register, imm: Immediate) -> None:
    cpu.x[rd] = cpu.pc + imm


# Jumps and branches -----------------------------------------------------------------------------------------


@rv.instruction("imm[20|10:1|11|19:12] rd 1101111", "jal {rd}, {pc+imm}")
@compressed("101 imm[11|4|9:8|10|6|7|3:1|5] 01", "c.j {pc+imm}", fixed={"rd": 0})
def jal(cpu: Hart, rd: Register, imm: Immediate) -> None:
    cpu.x[rd] = cpu.next_pc
    cpu.branch(imm)


@rv.instruction("imm[11:0] rs1 000 rd 1100111", "jalr {rd}, {imm}({rs1})")
def jalr(cpu: Hart, rd: Register, rs1: Register, imm: Immediate) -> None:
    target = (cpu.x[rs1] + imm) & ~1
    cpu.x[rd] = cpu.next_pc
    cpu.jump(target)


@compressed("1000 rs1 00000 10", "c.jr {rs1}", fixed={"rd": 0}, excluding={"rs1": (0,)})
@compressed("1001 rs1 00000 10", "c.jalr {rs1}", fixed={"rd": 1}, excluding={"rs1": (0,)})
def jump_register(cpu: Hart, rd: Register, rs1: Register) -> None:
    target = cpu.x[rs1] & ~1
    cpu.x[rd] = cpu.next_pc
    cpu.jump(target)


@rv.instruction("imm[12|10:5] rs2 rs1 000 imm[4:1|11] 1100011", "beq {rs1}, {rs2}, {pc+imm}")
@compressed("110 imm[8|4:3] rs1' imm[7:6|2:1|5] 01", "c.beqz {rs1}, {pc+imm}", fixed={"rs2": 0})
def beq(cpu: Hart, rs1: Register, rs2: Register, imm: Immediate) -> None:
    if cpu.x[rs1] == cpu.x[rs2]:
        cpu.branch(imm)


@rv.instruction("imm[12|10:5] rs2 rs1 001 imm[4:1|11] 1100011", "bne {rs1}, {rs2}, {pc+imm}")
@compressed("111 imm[8|4:3] rs1' imm[7:6|2:1|5] 01", "c.bnez {rs1}, {pc+imm}", fixed={"rs2": 0})
def bne(cpu: Hart, rs1: Register, rs2: Register, imm: Immediate) -> None:
    if cpu.x[rs1] != cpu.x[rs2]:
        cpu.branch(imm)


@rv.instruction("imm[12|10:5] rs2 rs1 100 imm[4:1|11] 1100011", "blt {rs1}, {rs2}, {pc+imm}")
def blt(cpu: Hart, rs1: Register, rs2: Register, imm: Immediate) -> None:
    if s64(cpu.x[rs1]) < s64(cpu.x[rs2]):
        cpu.branch(imm)


@rv.instruction("imm[12|10:5] rs2 rs1 101 imm[4:1|11] 1100011", "bge {rs1}, {rs2}, {pc+imm}")
def bge(cpu: Hart, rs1: Register, rs2: Register, imm: Immediate) -> None:
    if s64(cpu.x[rs1]) >= s64(cpu.x[rs2]):
        cpu.branch(imm)


@rv.instruction("imm[12|10:5] rs2 rs1 110 imm[4:1|11] 1100011", "bltu {rs1}, {rs2}, {pc+imm}")
def bltu(cpu: Hart, rs1: Register, rs2: Register, imm: Immediate) -> None:
    if cpu.x[rs1] < cpu.x[rs2]:
        cpu.branch(imm)


@rv.instruction("imm[12|10:5] rs2 rs1 111 imm[4:1|11] 1100011", "bgeu {rs1}, {rs2}, {pc+imm}")
def bgeu(cpu: Hart, rs1: Register, rs2: Register, imm: Immediate) -> None:
    if cpu.x[rs1] >= cpu.x[rs2]:
        cpu.branch(imm)


# Loads and stores -------------------------------------------------------------------------------------------


@rv.instruction("imm[11:0] rs1 000 rd 0000011", "lb {rd}, {imm}({rs1})")
def lb(cpu: Hart, rd: Register, rs1: Register, imm: Immediate) -> None:
    cpu.x[rd] = u64(s8(cpu.load8(cpu.x[rs1] + imm)))


@rv.instruction("imm[11:0] rs1 001 rd 0000011", "lh {rd}, {imm}({rs1})")
def lh(cpu: Hart, rd: Register, rs1: Register, imm: Immediate) -> None:
    cpu.x[rd] = u64(s16(cpu.load16(cpu.x[rs1] + imm)))


@rv.instruction("imm[11:0] rs1 010 rd 0000011", "lw {rd}, {imm}({rs1})")
@compressed("010 uimm[5:3] rs1' uimm[2|6] rd' 00", "c.lw {rd}, {imm}({rs1})")
@compressed(
    "010 uimm[5] rd uimm[4:2|7:6] 10", "c.lwsp {rd}, {imm}({rs1})", fixed={"rs1": 2}, excluding={"rd": (0,)}
)
def lw(cpu: Hart, rd: Register, rs1: Register, imm: Immediate) -> None:
    cpu.x[rd] = u64(s32(cpu.load32(cpu.x[rs1] + imm)))


@rv.instruction("imm[11:0] rs1 100 rd 0000011", "lbu {rd}, {imm}({rs1})")
def lbu(cpu: Hart, rd: Register, rs1: Register, imm: Immediate) -> None:
    cpu.x[rd] = u64(cpu.load8(cpu.x[rs1] + imm))


@rv.instruction("imm[11:0] rs1 101 rd 0000011", "lhu {rd}, {imm}({rs1})")
def lhu(cpu: Hart, rd: Register, rs1: Register, imm: Immediate) -> None:
    cpu.x[rd] = u64(cpu.load16(cpu.x[rs1] + imm))


@rv.instruction("imm[11:5] rs2 rs1 000 imm[4:0] 0100011", "sb {rs2}, {imm}({rs1})")
def sb(cpu: Hart, rs1: Register, rs2: Register, imm: Immediate) -> None:
    cpu.store8(cpu.x[rs1] + imm, cpu.x[rs2])


@rv.instruction("imm[11:5] rs2 rs1 001 imm[4:0] 0100011", "sh {rs2}, {imm}({rs1})")
def sh(cpu: Hart, rs1: Register, rs2: Register, imm: Immediate) -> None:
    cpu.store16(cpu.x[rs1] + imm, cpu.x[rs2])


@rv.instruction("imm[11:5] rs2 rs1 010 imm[4:0] 0100011", "sw {rs2}, {imm}({rs1})")
@compressed("110 uimm[5:3] rs1' uimm[2|6] rs2' 00", "c.sw {rs2}, {imm}({rs1})")
@compressed("110 uimm[5:2|7:6] rs2 10", "c.swsp {rs2}, {imm}({rs1})", fixed={"rs1": 2})
def sw(cpu: Hart, rs1: Register, rs2: Register, imm: Immediate) -> None:
    cpu.store32(cpu.x[rs1] + imm, cpu.x[rs2])


# Register and immediate -------------------------------------------------------------------------------------


@rv.instruction("imm[11:0] rs1 000 rd 0010011", "addi {rd}, {rs1}, {imm}")
@compressed("000 nzuimm[5:4|9:6|2|3] rd' 00", "c.addi4spn {rd}, {rs1}, {imm}", fixed={"rs1": 2})
@compressed("000 imm[5] rd/rs1 imm[4:0] 01", "c.addi {rd}, {imm}", excluding={"rd": (0,)})
@compressed("000 imm[5] 00000 imm[4:0] 01", "c.nop", fixed={"rd": 0, "rs1": 0})
@compressed("011 nzimm[9] 00010 nzimm[4|6|8:7|5] 01", "c.addi16sp {rd}, {imm}", fixed={"rd": 2, "rs1": 2})
def addi(cpu: Hart, rd: Register, rs1: Register, imm: Immediate) -> None:
    cpu.x[rd] = cpu.x[rs1] + imm


@compressed("010 imm[5] rd imm[4:0] 01", "c.li {rd}, {imm}")
def load_immediate(cpu: Hart, rd: Register, imm: Immediate) -> None:
    cpu.x[rd] = imm


@rv.instruction("imm[11:0] rs1 010 rd 0010011", "slti {rd}, {rs1}, {imm}")
def slti(cpu: Hart, rd: Register, rs1: Register, imm: Immediate) -> None:
    cpu.x[rd] = u64(s64(cpu.x[rs1]) < s64(imm))


@rv.instruction("imm[11:0] rs1 011 rd 0010011", "sltiu {rd}, {rs1}, {imm}")
def sltiu(cpu: Hart, rd: Register, rs1: Register, imm: Immediate) -> None:
    cpu.x[rd] = u64(cpu.x[rs1] < imm)


@rv.instruction("imm[11:0] rs1 100 rd 0010011", "xori {rd}, {rs1}, {imm}")
def xori(cpu: Hart, rd: Register, rs1: Register, imm: Immediate) -> None:
    cpu.x[rd] = cpu.x[rs1] ^ imm


@rv.instruction("imm[11:0] rs1 110 rd 0010011", "ori {rd}, {rs1}, {imm}")
def ori(cpu: Hart, rd: Register, rs1: Register, imm: Immediate) -> None:
    cpu.x[rd] = cpu.x[rs1] | imm


@rv.instruction("imm[11:0] rs1 111 rd 0010011", "andi {rd}, {rs1}, {imm}")
@compressed("100 imm[5] 10 rd'/rs1' imm[4:0] 01", "c.andi {rd}, {imm}")
def andi(cpu: Hart, rd: Register, rs1: Register, imm: Immediate) -> None:
    cpu.x[rd] = cpu.x[rs1] & imm


@rv.instruction("000000 shamt rs1 001 rd 0010011", "slli {rd}, {rs1}, {shamt}")
@compressed("000 shamt[5] rd/rs1 shamt[4:0] 10", "c.slli {rd}, {shamt}")
def slli(cpu: Hart, rd: Register, rs1: Register, shamt: Small) -> None:
    cpu.x[rd] = cpu.x[rs1] << shamt


@rv.instruction("000000 shamt rs1 101 rd 0010011", "srli {rd}, {rs1}, {shamt}")
@compressed("100 shamt[5] 00 rd'/rs1' shamt[4:0] 01", "c.srli {rd}, {shamt}")
def srli(cpu: Hart, rd: Register, rs1: Register, shamt: Small) -> None:
    cpu.x[rd] = cpu.x[rs1] >> shamt


@rv.instruction("010000 shamt rs1 101 rd 0010011", "srai {rd}, {rs1}, {shamt}")
@compressed("100 shamt[5] 01 rd'/rs1' shamt[4:0] 01", "c.srai {rd}, {shamt}")
def srai(cpu: Hart, rd: Register, rs1: Register, shamt: Small) -> None:
    cpu.x[rd] = u64(s64(cpu.x[rs1]) >> shamt)


# Register and register --------------------------------------------------------------------------------------


@rv.instruction("0000000 rs2 rs1 000 rd 0110011", "add {rd}, {rs1}, {rs2}")
@compressed("1001 rd/rs1 rs2 10", "c.add {rd}, {rs2}", excluding={"rs2": (0,)})
def add(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = cpu.x[rs1] + cpu.x[rs2]


@compressed("1000 rd rs2 10", "c.mv {rd}, {rs2}", excluding={"rs2": (0,)})
def move(cpu: Hart, rd: Register, rs2: Register) -> None:
    cpu.x[rd] = cpu.x[rs2]


@rv.instruction("0100000 rs2 rs1 000 rd 0110011", "sub {rd}, {rs1}, {rs2}")
@compressed("100011 rd'/rs1' 00 rs2' 01", "c.sub {rd}, {rs2}")
def sub(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = cpu.x[rs1] - cpu.x[rs2]


@rv.instruction("0000000 rs2 rs1 001 rd 0110011", "sll {rd}, {rs1}, {rs2}")
def sll(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = cpu.x[rs1] << cpu.x[rs2]


@rv.instruction("0000000 rs2 rs1 010 rd 0110011", "slt {rd}, {rs1}, {rs2}")
def slt(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = u64(s64(cpu.x[rs1]) < s64(cpu.x[rs2]))


@rv.instruction("0000000 rs2 rs1 011 rd 0110011", "sltu {rd}, {rs1}, {rs2}")
def sltu(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = u64(cpu.x[rs1] < cpu.x[rs2])


@rv.instruction("0000000 rs2 rs1 100 rd 0110011", "xor {rd}, {rs1}, {rs2}")
@compressed("100011 rd'/rs1' 01 rs2' 01", "c.xor {rd}, {rs2}")
def xor(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = cpu.x[rs1] ^ cpu.x[rs2]


@rv.instruction("0000000 rs2 rs1 101 rd 0110011", "srl {rd}, {rs1}, {rs2}")
def srl(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = cpu.x[rs1] >> cpu.x[rs2]


@rv.instruction("0100000 rs2 rs1 101 rd 0110011", "sra {rd}, {rs1}, {rs2}")
def sra(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = u64(s64(cpu.x[rs1]) >> cpu.x[rs2])


@rv.instruction("0000000 rs2 rs1 110 rd 0110011", "or {rd}, {rs1}, {rs2}")
@compressed("100011 rd'/rs1' 10 rs2' 01", "c.or {rd}, {rs2}")
def or_(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = cpu.x[rs1] | cpu.x[rs2]


@rv.instruction("0000000 rs2 rs1 111 rd 0110011", "and {rd}, {rs1}, {rs2}")
@compressed("100011 rd'/rs1' 11 rs2' 01", "c.and {rd}, {rs2}")
def and_(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = cpu.x[rs1] & cpu.x[rs2]


# Order, environment -----------------------------------------------------------------------------------------


@rv.instruction("---- pred succ ----- 000 ----- 0001111", "fence {pred}, {succ}")
def fence(cpu: Hart) -> None:
    cpu.fence()


@rv.instruction("------------ ----- 001 ----- 0001111", "fence.i", extension="Zifencei")
def fence_i(cpu: Hart) -> None:
    cpu.synchronize_code()


@rv.instruction("000000000000 00000 000 00000 1110011", "ecall")
def ecall(cpu: Hart) -> None:
    cpu.system_call()


@rv.instruction("000000000001 00000 000 00000 1110011", "ebreak")
@compressed("100 1 00000 00000 10", "c.ebreak")
def ebreak(cpu: Hart) -> None:
    cpu.breakpoint()
