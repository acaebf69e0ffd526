"""Zba, Zbb, Zbs: bit manipulation, and Zicond. Chapters "B" and "Zicond"."""

# Pattern and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103, TC001

from __future__ import annotations

from anyvirt.isa.processor import Register, Small
from anyvirt.isa.riscv64.hart import Hart, rv
from anyvirt.typed import (
    byte_swap,
    count_leading_zeros,
    count_ones,
    count_trailing_zeros,
    rotate_left,
    rotate_right,
    s8,
    s16,
    s32,
    s64,
    u16,
    u32,
    u64,
)

LOW_BITS = 0x0101010101010101
"""The lowest bit of every byte."""


# Zba: address generation ------------------------------------------------------------------------------------


def _describe_shift_and_add(code: str, shift: int) -> None:
    rv.begin("Zba")

    @rv.instruction(f"0010000 rs2 rs1 {code} rd 0110011", f"sh{shift}add {{rd}}, {{rs1}}, {{rs2}}")
    def shift_and_add(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
        cpu.x[rd] = cpu.x[rs2] + (cpu.x[rs1] << shift)

    rv.begin("RV64Zba")

    @rv.instruction(f"0010000 rs2 rs1 {code} rd 0111011", f"sh{shift}add.uw {{rd}}, {{rs1}}, {{rs2}}")
    def shift_and_add_word(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
        cpu.x[rd] = cpu.x[rs2] + (u64(u32(cpu.x[rs1])) << shift)


for _code, _shift in (("010", 1), ("100", 2), ("110", 3)):
    _describe_shift_and_add(_code, _shift)


@rv.instruction("0000100 rs2 rs1 000 rd 0111011", "add.uw {rd}, {rs1}, {rs2}")
def add_uw(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = cpu.x[rs2] + u64(u32(cpu.x[rs1]))


@rv.instruction("000010 shamt rs1 001 rd 0011011", "slli.uw {rd}, {rs1}, {shamt}")
def slli_uw(cpu: Hart, rd: Register, rs1: Register, shamt: Small) -> None:
    cpu.x[rd] = u64(u32(cpu.x[rs1])) << shamt


# Zbb: logic with a complement, counts, extremes, extensions -------------------------------------------------

rv.begin("Zbb")


@rv.instruction("0100000 rs2 rs1 111 rd 0110011", "andn {rd}, {rs1}, {rs2}")
def andn(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = cpu.x[rs1] & ~cpu.x[rs2]


@rv.instruction("0100000 rs2 rs1 110 rd 0110011", "orn {rd}, {rs1}, {rs2}")
def orn(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = cpu.x[rs1] | ~cpu.x[rs2]


@rv.instruction("0100000 rs2 rs1 100 rd 0110011", "xnor {rd}, {rs1}, {rs2}")
def xnor(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = ~(cpu.x[rs1] ^ cpu.x[rs2])


@rv.instruction("0110000 00000 rs1 001 rd 0010011", "clz {rd}, {rs1}")
def clz(cpu: Hart, rd: Register, rs1: Register) -> None:
    cpu.x[rd] = count_leading_zeros(cpu.x[rs1])


@rv.instruction("0110000 00001 rs1 001 rd 0010011", "ctz {rd}, {rs1}")
def ctz(cpu: Hart, rd: Register, rs1: Register) -> None:
    cpu.x[rd] = count_trailing_zeros(cpu.x[rs1])


@rv.instruction("0110000 00010 rs1 001 rd 0010011", "cpop {rd}, {rs1}")
def cpop(cpu: Hart, rd: Register, rs1: Register) -> None:
    cpu.x[rd] = count_ones(cpu.x[rs1])


@rv.instruction("0000101 rs2 rs1 110 rd 0110011", "max {rd}, {rs1}, {rs2}")
def max_(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = u64(max(s64(cpu.x[rs1]), s64(cpu.x[rs2])))


@rv.instruction("0000101 rs2 rs1 111 rd 0110011", "maxu {rd}, {rs1}, {rs2}")
def maxu(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = max(cpu.x[rs1], cpu.x[rs2])


@rv.instruction("0000101 rs2 rs1 100 rd 0110011", "min {rd}, {rs1}, {rs2}")
def min_(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = u64(min(s64(cpu.x[rs1]), s64(cpu.x[rs2])))


@rv.instruction("0000101 rs2 rs1 101 rd 0110011", "minu {rd}, {rs1}, {rs2}")
def minu(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = min(cpu.x[rs1], cpu.x[rs2])


@rv.instruction("0110000 00100 rs1 001 rd 0010011", "sext.b {rd}, {rs1}")
def sext_b(cpu: Hart, rd: Register, rs1: Register) -> None:
    cpu.x[rd] = u64(s8(cpu.x[rs1]))


@rv.instruction("0110000 00101 rs1 001 rd 0010011", "sext.h {rd}, {rs1}")
def sext_h(cpu: Hart, rd: Register, rs1: Register) -> None:
    cpu.x[rd] = u64(s16(cpu.x[rs1]))


@rv.instruction("0000100 00000 rs1 100 rd 0111011", "zext.h {rd}, {rs1}")
def zext_h(cpu: Hart, rd: Register, rs1: Register) -> None:
    cpu.x[rd] = u64(u16(cpu.x[rs1]))


@rv.instruction("001010000111 rs1 101 rd 0010011", "orc.b {rd}, {rs1}")
def orc_b(cpu: Hart, rd: Register, rs1: Register) -> None:
    # Gather every byte in its lowest bit, then spread that over the byte.
    value = cpu.x[rs1]
    value = value | value >> 4 & 0x0F0F0F0F0F0F0F0F
    value = value | value >> 2 & 0x0303030303030303
    value = (value | value >> 1) & LOW_BITS
    cpu.x[rd] = value * 0xFF


@rv.instruction("011010111000 rs1 101 rd 0010011", "rev8 {rd}, {rs1}")
def rev8(cpu: Hart, rd: Register, rs1: Register) -> None:
    cpu.x[rd] = byte_swap(cpu.x[rs1])


# Zbb: rotations ---------------------------------------------------------------------------------------------


@rv.instruction("0110000 rs2 rs1 001 rd 0110011", "rol {rd}, {rs1}, {rs2}")
def rol(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = rotate_left(cpu.x[rs1], cpu.x[rs2])


@rv.instruction("0110000 rs2 rs1 101 rd 0110011", "ror {rd}, {rs1}, {rs2}")
def ror(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = rotate_right(cpu.x[rs1], cpu.x[rs2])


@rv.instruction("011000 shamt rs1 101 rd 0010011", "rori {rd}, {rs1}, {shamt}")
def rori(cpu: Hart, rd: Register, rs1: Register, shamt: Small) -> None:
    cpu.x[rd] = rotate_right(cpu.x[rs1], u64(shamt))


# Zbb: words -------------------------------------------------------------------------------------------------

rv.begin("RV64Zbb")


@rv.instruction("0110000 00000 rs1 001 rd 0011011", "clzw {rd}, {rs1}")
def clzw(cpu: Hart, rd: Register, rs1: Register) -> None:
    cpu.x[rd] = u64(count_leading_zeros(u32(cpu.x[rs1])))


@rv.instruction("0110000 00001 rs1 001 rd 0011011", "ctzw {rd}, {rs1}")
def ctzw(cpu: Hart, rd: Register, rs1: Register) -> None:
    cpu.x[rd] = u64(count_trailing_zeros(u32(cpu.x[rs1])))


@rv.instruction("0110000 00010 rs1 001 rd 0011011", "cpopw {rd}, {rs1}")
def cpopw(cpu: Hart, rd: Register, rs1: Register) -> None:
    cpu.x[rd] = u64(count_ones(u32(cpu.x[rs1])))


@rv.instruction("0110000 rs2 rs1 001 rd 0111011", "rolw {rd}, {rs1}, {rs2}")
def rolw(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = u64(s32(rotate_left(u32(cpu.x[rs1]), u32(cpu.x[rs2]))))


@rv.instruction("0110000 rs2 rs1 101 rd 0111011", "rorw {rd}, {rs1}, {rs2}")
def rorw(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = u64(s32(rotate_right(u32(cpu.x[rs1]), u32(cpu.x[rs2]))))


@rv.instruction("0110000 shamtw rs1 101 rd 0011011", "roriw {rd}, {rs1}, {shamt}")
def roriw(cpu: Hart, rd: Register, rs1: Register, shamt: Small) -> None:
    cpu.x[rd] = u64(s32(rotate_right(u32(cpu.x[rs1]), u32(shamt))))


# Zbs: single bits -------------------------------------------------------------------------------------------

rv.begin("Zbs")


@rv.instruction("0100100 rs2 rs1 001 rd 0110011", "bclr {rd}, {rs1}, {rs2}")
def bclr(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = cpu.x[rs1] & ~(u64(1) << cpu.x[rs2])


@rv.instruction("010010 shamt rs1 001 rd 0010011", "bclri {rd}, {rs1}, {shamt}")
def bclri(cpu: Hart, rd: Register, rs1: Register, shamt: Small) -> None:
    cpu.x[rd] = cpu.x[rs1] & ~(u64(1) << shamt)


@rv.instruction("0100100 rs2 rs1 101 rd 0110011", "bext {rd}, {rs1}, {rs2}")
def bext(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = cpu.x[rs1] >> cpu.x[rs2] & 1


@rv.instruction("010010 shamt rs1 101 rd 0010011", "bexti {rd}, {rs1}, {shamt}")
def bexti(cpu: Hart, rd: Register, rs1: Register, shamt: Small) -> None:
    cpu.x[rd] = cpu.x[rs1] >> shamt & 1


@rv.instruction("0110100 rs2 rs1 001 rd 0110011", "binv {rd}, {rs1}, {rs2}")
def binv(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = cpu.x[rs1] ^ u64(1) << cpu.x[rs2]


@rv.instruction("011010 shamt rs1 001 rd 0010011", "binvi {rd}, {rs1}, {shamt}")
def binvi(cpu: Hart, rd: Register, rs1: Register, shamt: Small) -> None:
    cpu.x[rd] = cpu.x[rs1] ^ u64(1) << shamt


@rv.instruction("0010100 rs2 rs1 001 rd 0110011", "bset {rd}, {rs1}, {rs2}")
def bset(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = cpu.x[rs1] | u64(1) << cpu.x[rs2]


@rv.instruction("001010 shamt rs1 001 rd 0010011", "bseti {rd}, {rs1}, {shamt}")
def bseti(cpu: Hart, rd: Register, rs1: Register, shamt: Small) -> None:
    cpu.x[rd] = cpu.x[rs1] | u64(1) << shamt


# Zicond -----------------------------------------------------------------------------------------------------

rv.begin("Zicond")


@rv.instruction("0000111 rs2 rs1 101 rd 0110011", "czero.eqz {rd}, {rs1}, {rs2}")
def czero_eqz(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = u64(0) if cpu.x[rs2] == 0 else cpu.x[rs1]


@rv.instruction("0000111 rs2 rs1 111 rd 0110011", "czero.nez {rd}, {rs1}, {rs2}")
def czero_nez(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = u64(0) if cpu.x[rs2] != 0 else cpu.x[rs1]
