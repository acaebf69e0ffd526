"""Arithmetic, logic, shifts, bit fields, multiplication and division.

Registers hold 32 bits and read as their sign extension, in which both signed and unsigned comparisons of 64
bits are those of 32.
"""

# Pattern and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103, TC001

from __future__ import annotations

from anyvirt.isa.mips.core import OVERFLOW, Core, isa
from anyvirt.isa.processor import Immediate, Register, Small
from anyvirt.typed import byte_swap, count_leading_zeros, rotate_right, s8, s16, s32, s64, u32, u64

isa.extension("integer", "Arithmetic, logic, shifts and bit fields")


def low(value: u64) -> u64:
    """The low 32 bits, sign-extended, as HI and LO hold them."""
    return u64(s32(value))


@isa.instruction("001111 00000 rt upper[31:16]", "lui {rt}, {imm}")
def lui(cpu: Core, rt: Register, imm: Immediate) -> None:
    cpu.r[rt] = imm


# Addition and comparison; those that trap on overflow leave the register alone ------------------------------


@isa.instruction("000000 rs rt rd 00000 100000", "add {rd}, {rs}, {rt}")
def add(cpu: Core, rd: Register, rs: Register, rt: Register) -> None:
    total = cpu.r[rs] + cpu.r[rt]
    if total != low(total):
        cpu.trap(OVERFLOW)
    cpu.r[rd] = total


@isa.instruction("001000 rs rt imm", "addi {rt}, {rs}, {imm}")
def addi(cpu: Core, rt: Register, rs: Register, imm: Immediate) -> None:
    total = cpu.r[rs] + imm
    if total != low(total):
        cpu.trap(OVERFLOW)
    cpu.r[rt] = total


@isa.instruction("000000 rs rt rd 00000 100010", "sub {rd}, {rs}, {rt}")
def sub(cpu: Core, rd: Register, rs: Register, rt: Register) -> None:
    difference = cpu.r[rs] - cpu.r[rt]
    if difference != low(difference):
        cpu.trap(OVERFLOW)
    cpu.r[rd] = difference


@isa.instruction("000000 rs rt rd 00000 100001", "addu {rd}, {rs}, {rt}")
def addu(cpu: Core, rd: Register, rs: Register, rt: Register) -> None:
    cpu.r[rd] = cpu.r[rs] + cpu.r[rt]


@isa.instruction("001001 rs rt imm", "addiu {rt}, {rs}, {imm}")
def addiu(cpu: Core, rt: Register, rs: Register, imm: Immediate) -> None:
    cpu.r[rt] = cpu.r[rs] + imm


@isa.instruction("000000 rs rt rd 00000 100011", "subu {rd}, {rs}, {rt}")
def subu(cpu: Core, rd: Register, rs: Register, rt: Register) -> None:
    cpu.r[rd] = cpu.r[rs] - cpu.r[rt]


@isa.instruction("000000 rs rt rd 00000 101010", "slt {rd}, {rs}, {rt}")
def slt(cpu: Core, rd: Register, rs: Register, rt: Register) -> None:
    cpu.r[rd] = u64(s64(cpu.r[rs]) < s64(cpu.r[rt]))


@isa.instruction("001010 rs rt imm", "slti {rt}, {rs}, {imm}")
def slti(cpu: Core, rt: Register, rs: Register, imm: Immediate) -> None:
    cpu.r[rt] = u64(s64(cpu.r[rs]) < s64(imm))


@isa.instruction("000000 rs rt rd 00000 101011", "sltu {rd}, {rs}, {rt}")
def sltu(cpu: Core, rd: Register, rs: Register, rt: Register) -> None:
    cpu.r[rd] = u64(cpu.r[rs] < cpu.r[rt])


@isa.instruction("001011 rs rt imm", "sltiu {rt}, {rs}, {imm}")
def sltiu(cpu: Core, rt: Register, rs: Register, imm: Immediate) -> None:
    cpu.r[rt] = u64(cpu.r[rs] < imm)


# Logic and moves --------------------------------------------------------------------------------------------


@isa.instruction("000000 rs rt rd 00000 100100", "and {rd}, {rs}, {rt}")
def and_(cpu: Core, rd: Register, rs: Register, rt: Register) -> None:
    cpu.r[rd] = cpu.r[rs] & cpu.r[rt]


@isa.instruction("001100 rs rt uimm", "andi {rt}, {rs}, {imm}")
def andi(cpu: Core, rt: Register, rs: Register, imm: Immediate) -> None:
    cpu.r[rt] = cpu.r[rs] & imm


@isa.instruction("000000 rs rt rd 00000 100101", "or {rd}, {rs}, {rt}")
def or_(cpu: Core, rd: Register, rs: Register, rt: Register) -> None:
    cpu.r[rd] = cpu.r[rs] | cpu.r[rt]


@isa.instruction("001101 rs rt uimm", "ori {rt}, {rs}, {imm}")
def ori(cpu: Core, rt: Register, rs: Register, imm: Immediate) -> None:
    cpu.r[rt] = cpu.r[rs] | imm


@isa.instruction("000000 rs rt rd 00000 100110", "xor {rd}, {rs}, {rt}")
def xor(cpu: Core, rd: Register, rs: Register, rt: Register) -> None:
    cpu.r[rd] = cpu.r[rs] ^ cpu.r[rt]


@isa.instruction("001110 rs rt uimm", "xori {rt}, {rs}, {imm}")
def xori(cpu: Core, rt: Register, rs: Register, imm: Immediate) -> None:
    cpu.r[rt] = cpu.r[rs] ^ imm


@isa.instruction("000000 rs rt rd 00000 100111", "nor {rd}, {rs}, {rt}")
def nor(cpu: Core, rd: Register, rs: Register, rt: Register) -> None:
    cpu.r[rd] = ~(cpu.r[rs] | cpu.r[rt])


@isa.instruction("000000 rs rt rd 00000 001010", "movz {rd}, {rs}, {rt}")
def movz(cpu: Core, rd: Register, rs: Register, rt: Register) -> None:
    if cpu.r[rt] == 0:
        cpu.r[rd] = cpu.r[rs]


@isa.instruction("000000 rs rt rd 00000 001011", "movn {rd}, {rs}, {rt}")
def movn(cpu: Core, rd: Register, rs: Register, rt: Register) -> None:
    if cpu.r[rt] != 0:
        cpu.r[rd] = cpu.r[rs]


# Shifts -----------------------------------------------------------------------------------------------------


@isa.instruction("000000 00000 rt rd sa 000000", "sll {rd}, {rt}, {sa}")
def sll(cpu: Core, rd: Register, rt: Register, sa: Small) -> None:
    cpu.r[rd] = cpu.r[rt] << sa


@isa.instruction("000000 00000 rt rd sa 000010", "srl {rd}, {rt}, {sa}")
def srl(cpu: Core, rd: Register, rt: Register, sa: Small) -> None:
    cpu.r[rd] = u64(u32(cpu.r[rt]) >> sa)


@isa.instruction("000000 00001 rt rd sa 000010", "rotr {rd}, {rt}, {sa}")
def rotr(cpu: Core, rd: Register, rt: Register, sa: Small) -> None:
    cpu.r[rd] = u64(rotate_right(u32(cpu.r[rt]), u32(sa)))


@isa.instruction("000000 00000 rt rd sa 000011", "sra {rd}, {rt}, {sa}")
def sra(cpu: Core, rd: Register, rt: Register, sa: Small) -> None:
    cpu.r[rd] = u64(s64(cpu.r[rt]) >> sa)


@isa.instruction("000000 rs rt rd 00000 000100", "sllv {rd}, {rt}, {rs}")
def sllv(cpu: Core, rd: Register, rt: Register, rs: Register) -> None:
    cpu.r[rd] = u64(u32(cpu.r[rt]) << cpu.r[rs])


@isa.instruction("000000 rs rt rd 00000 000110", "srlv {rd}, {rt}, {rs}")
def srlv(cpu: Core, rd: Register, rt: Register, rs: Register) -> None:
    cpu.r[rd] = u64(u32(cpu.r[rt]) >> cpu.r[rs])


@isa.instruction("000000 rs rt rd 00001 000110", "rotrv {rd}, {rt}, {rs}")
def rotrv(cpu: Core, rd: Register, rt: Register, rs: Register) -> None:
    cpu.r[rd] = u64(rotate_right(u32(cpu.r[rt]), u32(cpu.r[rs])))


@isa.instruction("000000 rs rt rd 00000 000111", "srav {rd}, {rt}, {rs}")
def srav(cpu: Core, rd: Register, rt: Register, rs: Register) -> None:
    cpu.r[rd] = u64(s32(cpu.r[rt]) >> cpu.r[rs])


# Bit fields and counting ------------------------------------------------------------------------------------


@isa.instruction("011111 rs rt size pos 000000", "ext {rt}, {rs}, {pos}, {size}")
def ext(cpu: Core, rt: Register, rs: Register, pos: Small, size: Small) -> None:
    cpu.r[rt] = u64(u32(cpu.r[rs])) >> pos & (u64(1) << size) - 1


@isa.instruction("011111 rs rt msb pos 000100", "ins {rt}, {rs}, {pos}, {msb}")
def ins(cpu: Core, rt: Register, rs: Register, pos: Small, msb: Small) -> None:
    # From bit `pos` up to bit `msb`; what is above it is unpredictable if `msb` is less.
    mask = (u64(2) << msb) - (u64(1) << pos)
    cpu.r[rt] = cpu.r[rt] & ~mask | cpu.r[rs] << pos & mask


@isa.instruction("011111 00000 rt rd 10000 100000", "seb {rd}, {rt}")
def seb(cpu: Core, rd: Register, rt: Register) -> None:
    cpu.r[rd] = u64(s8(cpu.r[rt]))


@isa.instruction("011111 00000 rt rd 11000 100000", "seh {rd}, {rt}")
def seh(cpu: Core, rd: Register, rt: Register) -> None:
    cpu.r[rd] = u64(s16(cpu.r[rt]))


@isa.instruction("011111 00000 rt rd 00010 100000", "wsbh {rd}, {rt}")
def wsbh(cpu: Core, rd: Register, rt: Register) -> None:
    cpu.r[rd] = u64(rotate_right(byte_swap(u32(cpu.r[rt])), u32(16)))


@isa.instruction("011100 rs ----- rd 00000 100000", "clz {rd}, {rs}")
def clz(cpu: Core, rd: Register, rs: Register) -> None:
    cpu.r[rd] = u64(count_leading_zeros(u32(cpu.r[rs])))


@isa.instruction("011100 rs ----- rd 00000 100001", "clo {rd}, {rs}")
def clo(cpu: Core, rd: Register, rs: Register) -> None:
    cpu.r[rd] = u64(count_leading_zeros(~u32(cpu.r[rs])))


@isa.instruction("011111 00000 rt 11101 00000 111011", "rdhwr {rt}, $29")
def rdhwr(cpu: Core, rt: Register) -> None:
    cpu.r[rt] = cpu.user_local


# Multiplication and division --------------------------------------------------------------------------------


@isa.instruction("011100 rs rt rd 00000 000010", "mul {rd}, {rs}, {rt}")
def mul(cpu: Core, rd: Register, rs: Register, rt: Register) -> None:
    cpu.r[rd] = cpu.r[rs] * cpu.r[rt]


def set_accumulator(cpu: Core, value: u64) -> None:
    cpu.lo = low(value)
    cpu.hi = low(value >> 32)


def accumulator(cpu: Core) -> u64:
    return cpu.hi << 32 | cpu.lo & 0xFFFFFFFF


def unsigned_product(a: u64, b: u64) -> u64:
    return u64(u32(a)) * u64(u32(b))


@isa.instruction("000000 rs rt 00000 00000 011000", "mult {rs}, {rt}")
def mult(cpu: Core, rs: Register, rt: Register) -> None:
    set_accumulator(cpu, cpu.r[rs] * cpu.r[rt])


@isa.instruction("000000 rs rt 00000 00000 011001", "multu {rs}, {rt}")
def multu(cpu: Core, rs: Register, rt: Register) -> None:
    set_accumulator(cpu, unsigned_product(cpu.r[rs], cpu.r[rt]))


@isa.instruction("011100 rs rt 00000 00000 000000", "madd {rs}, {rt}")
def madd(cpu: Core, rs: Register, rt: Register) -> None:
    set_accumulator(cpu, accumulator(cpu) + cpu.r[rs] * cpu.r[rt])


@isa.instruction("011100 rs rt 00000 00000 000001", "maddu {rs}, {rt}")
def maddu(cpu: Core, rs: Register, rt: Register) -> None:
    set_accumulator(cpu, accumulator(cpu) + unsigned_product(cpu.r[rs], cpu.r[rt]))


@isa.instruction("011100 rs rt 00000 00000 000100", "msub {rs}, {rt}")
def msub(cpu: Core, rs: Register, rt: Register) -> None:
    set_accumulator(cpu, accumulator(cpu) - cpu.r[rs] * cpu.r[rt])


@isa.instruction("011100 rs rt 00000 00000 000101", "msubu {rs}, {rt}")
def msubu(cpu: Core, rs: Register, rt: Register) -> None:
    set_accumulator(cpu, accumulator(cpu) - unsigned_product(cpu.r[rs], cpu.r[rt]))


@isa.instruction("000000 rs rt 00000 00000 011010", "div $zero, {rs}, {rt}")
def div(cpu: Core, rs: Register, rt: Register) -> None:
    dividend, divisor = s32(cpu.r[rs]), s32(cpu.r[rt])
    cpu.lo = u64(dividend // divisor)
    cpu.hi = u64(dividend % divisor)


@isa.instruction("000000 rs rt 00000 00000 011011", "divu $zero, {rs}, {rt}")
def divu(cpu: Core, rs: Register, rt: Register) -> None:
    dividend, divisor = u32(cpu.r[rs]), u32(cpu.r[rt])
    cpu.lo = u64(s32(dividend // divisor))
    cpu.hi = u64(s32(dividend % divisor))


@isa.instruction("000000 0000000000 rd 00000 010000", "mfhi {rd}")
def mfhi(cpu: Core, rd: Register) -> None:
    cpu.r[rd] = cpu.hi


@isa.instruction("000000 0000000000 rd 00000 010010", "mflo {rd}")
def mflo(cpu: Core, rd: Register) -> None:
    cpu.r[rd] = cpu.lo


@isa.instruction("000000 rs 000000000000000 010001", "mthi {rs}")
def mthi(cpu: Core, rs: Register) -> None:
    cpu.hi = cpu.r[rs]


@isa.instruction("000000 rs 000000000000000 010011", "mtlo {rs}")
def mtlo(cpu: Core, rs: Register) -> None:
    cpu.lo = cpu.r[rs]
