"""Arithmetic, comparison, logic, shifts, conditional moves, bytes within registers, multiplication."""

# Pattern and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103, TC001

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.isa.alpha.core import ARITHMETIC, Core, isa, operate
from anyvirt.isa.processor import Immediate, Register
from anyvirt.typed import (
    count_leading_zeros,
    count_ones,
    count_trailing_zeros,
    s8,
    s16,
    s32,
    s64,
    s128,
    u64,
    u128,
)

if TYPE_CHECKING:
    from collections.abc import Callable

isa.extension("integer", "Arithmetic, logic and shifts")

ARITHMETIC_OPCODE, LOGIC_OPCODE, SHIFT_OPCODE, MULTIPLY_OPCODE = "010000", "010001", "010010", "010011"
COUNT_OPCODE = "011100"


def longword(value: u64) -> u64:
    """The low 32 bits, sign-extended."""
    return u64(s32(value))


# Arithmetic: longwords are kept sign-extended ---------------------------------------------------------------


def addl(cpu: Core, a: u64, b: u64) -> u64:
    return longword(a + b)


def subl(cpu: Core, a: u64, b: u64) -> u64:
    return longword(a - b)


def addq(cpu: Core, a: u64, b: u64) -> u64:
    return a + b


def subq(cpu: Core, a: u64, b: u64) -> u64:
    return a - b


def s4addl(cpu: Core, a: u64, b: u64) -> u64:
    return longword(a * 4 + b)


def s4subl(cpu: Core, a: u64, b: u64) -> u64:
    return longword(a * 4 - b)


def s8addl(cpu: Core, a: u64, b: u64) -> u64:
    return longword(a * 8 + b)


def s8subl(cpu: Core, a: u64, b: u64) -> u64:
    return longword(a * 8 - b)


def s4addq(cpu: Core, a: u64, b: u64) -> u64:
    return a * 4 + b


def s4subq(cpu: Core, a: u64, b: u64) -> u64:
    return a * 4 - b


def s8addq(cpu: Core, a: u64, b: u64) -> u64:
    return a * 8 + b


def s8subq(cpu: Core, a: u64, b: u64) -> u64:
    return a * 8 - b


def checked(cpu: Core, exact: s128, result: u64) -> u64:
    """A result, or the arithmetic trap if it is not exact."""
    if s128(s64(result)) != exact:
        cpu.trap(ARITHMETIC)
    return result


def addl_checked(cpu: Core, a: u64, b: u64) -> u64:
    return checked(cpu, s128(s32(a)) + s128(s32(b)), longword(a + b))


def subl_checked(cpu: Core, a: u64, b: u64) -> u64:
    return checked(cpu, s128(s32(a)) - s128(s32(b)), longword(a - b))


def addq_checked(cpu: Core, a: u64, b: u64) -> u64:
    return checked(cpu, s128(s64(a)) + s128(s64(b)), a + b)


def subq_checked(cpu: Core, a: u64, b: u64) -> u64:
    return checked(cpu, s128(s64(a)) - s128(s64(b)), a - b)


def mull(cpu: Core, a: u64, b: u64) -> u64:
    return longword(a * b)


def mulq(cpu: Core, a: u64, b: u64) -> u64:
    return a * b


def umulh(cpu: Core, a: u64, b: u64) -> u64:
    return u64(u128(a) * u128(b) >> 64)


def mull_checked(cpu: Core, a: u64, b: u64) -> u64:
    return checked(cpu, s128(s32(a)) * s128(s32(b)), longword(a * b))


def mulq_checked(cpu: Core, a: u64, b: u64) -> u64:
    return checked(cpu, s128(s64(a)) * s128(s64(b)), a * b)


def cmpeq(cpu: Core, a: u64, b: u64) -> u64:
    return u64(a == b)


def cmplt(cpu: Core, a: u64, b: u64) -> u64:
    return u64(s64(a) < s64(b))


def cmple(cpu: Core, a: u64, b: u64) -> u64:
    return u64(s64(a) <= s64(b))


def cmpult(cpu: Core, a: u64, b: u64) -> u64:
    return u64(a < b)


def cmpule(cpu: Core, a: u64, b: u64) -> u64:
    return u64(a <= b)


def cmpbge(cpu: Core, a: u64, b: u64) -> u64:
    """A bit for each byte that is not less than the other's."""
    result = u64(0)
    for byte in range(8):
        result |= u64(a >> 8 * byte & 0xFF >= b >> 8 * byte & 0xFF) << byte
    return result


for _name, _code, _compute in (
    ("addl", 0x00, addl), ("s4addl", 0x02, s4addl), ("subl", 0x09, subl), ("s4subl", 0x0B, s4subl),
    ("s8addl", 0x12, s8addl), ("s8subl", 0x1B, s8subl), ("addq", 0x20, addq), ("s4addq", 0x22, s4addq),
    ("subq", 0x29, subq), ("s4subq", 0x2B, s4subq), ("s8addq", 0x32, s8addq), ("s8subq", 0x3B, s8subq),
    ("addl/v", 0x40, addl_checked), ("subl/v", 0x49, subl_checked), ("addq/v", 0x60, addq_checked),
    ("subq/v", 0x69, subq_checked), ("cmpeq", 0x2D, cmpeq), ("cmplt", 0x4D, cmplt), ("cmple", 0x6D, cmple),
    ("cmpult", 0x1D, cmpult), ("cmpule", 0x3D, cmpule), ("cmpbge", 0x0F, cmpbge),
):  # fmt: skip
    operate(_name, ARITHMETIC_OPCODE, f"{_code:07b}", _compute)

for _name, _code, _compute in (
    ("mull", 0x00, mull), ("mulq", 0x20, mulq), ("umulh", 0x30, umulh),
    ("mull/v", 0x40, mull_checked), ("mulq/v", 0x60, mulq_checked),
):  # fmt: skip
    operate(_name, MULTIPLY_OPCODE, f"{_code:07b}", _compute)


# Logic ------------------------------------------------------------------------------------------------------


def and_(cpu: Core, a: u64, b: u64) -> u64:
    return a & b


def bic(cpu: Core, a: u64, b: u64) -> u64:
    return a & ~b


def bis(cpu: Core, a: u64, b: u64) -> u64:
    return a | b


def ornot(cpu: Core, a: u64, b: u64) -> u64:
    return a | ~b


def xor(cpu: Core, a: u64, b: u64) -> u64:
    return a ^ b


def eqv(cpu: Core, a: u64, b: u64) -> u64:
    return a ^ ~b


for _name, _code, _compute in (
    ("and", 0x00, and_), ("bic", 0x08, bic), ("bis", 0x20, bis), ("ornot", 0x28, ornot),
    ("xor", 0x40, xor), ("eqv", 0x48, eqv),
):  # fmt: skip
    operate(_name, LOGIC_OPCODE, f"{_code:07b}", _compute)


def equal(a: u64) -> bool:
    return a == 0


def not_equal(a: u64) -> bool:
    return a != 0


def less(a: u64) -> bool:
    return s64(a) < 0


def greater_or_equal(a: u64) -> bool:
    return s64(a) >= 0


def less_or_equal(a: u64) -> bool:
    return s64(a) <= 0


def greater(a: u64) -> bool:
    return s64(a) > 0


def bit_set(a: u64) -> bool:
    return a & 1 != 0


def bit_clear(a: u64) -> bool:
    return a & 1 == 0


CONDITIONS = {
    "lbs": bit_set,
    "lbc": bit_clear,
    "eq": equal,
    "ne": not_equal,
    "lt": less,
    "ge": greater_or_equal,
    "le": less_or_equal,
    "gt": greater,
}


def _conditional_move(condition: str, code: int, holds: Callable[[u64], bool]) -> None:
    @isa.instruction(f"{LOGIC_OPCODE} ra rb 000 0 {code:07b} rc", f"cmov{condition} {{ra}}, {{rb}}, {{rc}}")
    def register(cpu: Core, ra: Register, rb: Register, rc: Register) -> None:
        if holds(cpu.r[ra]):
            cpu.r[rc] = cpu.r[rb]

    @isa.instruction(f"{LOGIC_OPCODE} ra literal 1 {code:07b} rc", f"cmov{condition} {{ra}}, {{imm}}, {{rc}}")
    def literal(cpu: Core, ra: Register, imm: Immediate, rc: Register) -> None:
        if holds(cpu.r[ra]):
            cpu.r[rc] = imm


for _condition, _code in zip(CONDITIONS, (0x14, 0x16, 0x24, 0x26, 0x44, 0x46, 0x64, 0x66), strict=True):
    _conditional_move(_condition, _code, CONDITIONS[_condition])


@isa.instruction(f"{LOGIC_OPCODE} 11111 rb 000 0 1100001 rc", "amask {rb}, {rc}")
def amask(cpu: Core, rb: Register, rc: Register) -> None:
    # Bits 0 (bytes and words) and 2 (counting) name extensions that are there.
    cpu.r[rc] = cpu.r[rb] & ~5


@isa.instruction(f"{LOGIC_OPCODE} 11111 literal 1 1100001 rc", "amask {imm}, {rc}")
def amask_literal(cpu: Core, imm: Immediate, rc: Register) -> None:
    cpu.r[rc] = imm & ~5


@isa.instruction(f"{LOGIC_OPCODE} 11111 00000001 1 1101100 rc", "implver {rc}")
def implver(cpu: Core, rc: Register) -> None:
    # 2: a 21264.
    cpu.r[rc] = u64(2)


# Shifts and bytes within registers --------------------------------------------------------------------------


def sll(cpu: Core, a: u64, b: u64) -> u64:
    return a << b


def srl(cpu: Core, a: u64, b: u64) -> u64:
    return a >> b


def sra(cpu: Core, a: u64, b: u64) -> u64:
    return u64(s64(a) >> b)


def byte_mask(bits: u64) -> u64:
    """All ones in each byte whose bit is set."""
    result = u64(0)
    for byte in range(8):
        result |= (bits >> byte & 1) * 0xFF << 8 * byte
    return result


def zap(cpu: Core, a: u64, b: u64) -> u64:
    return a & ~byte_mask(b)


def zapnot(cpu: Core, a: u64, b: u64) -> u64:
    return a & byte_mask(b)


for _name, _code, _compute in (
    ("sll", 0x39, sll), ("srl", 0x34, srl), ("sra", 0x3C, sra), ("zap", 0x30, zap), ("zapnot", 0x31, zapnot),
):  # fmt: skip
    operate(_name, SHIFT_OPCODE, f"{_code:07b}", _compute)


def _bytes(letter: str, size: int, code: int) -> None:
    """Extract, insert and mask a piece of some bytes; the high forms take what is beyond a quadword."""
    ones = (1 << 8 * size) - 1

    def extract_low(cpu: Core, a: u64, b: u64) -> u64:
        return a >> (b & 7) * 8 & ones

    def insert_low(cpu: Core, a: u64, b: u64) -> u64:
        return (a & ones) << (b & 7) * 8

    def mask_low(cpu: Core, a: u64, b: u64) -> u64:
        return a & ~(u64(ones) << (b & 7) * 8)

    def extract_high(cpu: Core, a: u64, b: u64) -> u64:
        # A shift by 64 - 8n; by 0 for n = 0.
        return a << (64 - (b & 7) * 8 & 63) & ones

    def insert_high(cpu: Core, a: u64, b: u64) -> u64:
        shift = (b & 7) * 8
        return (a & ones) >> 1 >> 63 - shift

    def mask_high(cpu: Core, a: u64, b: u64) -> u64:
        shift = (b & 7) * 8
        return a & ~(u64(ones) >> 1 >> 63 - shift)

    low = "l" if size > 1 else ""
    for name, function, compute in (
        ("msk", code + 0x02, mask_low),
        ("ext", code + 0x06, extract_low),
        ("ins", code + 0x0B, insert_low),
    ):
        operate(f"{name}{letter}{low}", SHIFT_OPCODE, f"{function:07b}", compute)
    if size > 1:
        for name, function, compute in (
            ("msk", code + 0x42, mask_high),
            ("ins", code + 0x47, insert_high),
            ("ext", code + 0x4A, extract_high),
        ):
            operate(f"{name}{letter}h", SHIFT_OPCODE, f"{function:07b}", compute)


for _letter, _size, _code in (("b", 1, 0x00), ("w", 2, 0x10), ("l", 4, 0x20), ("q", 8, 0x30)):
    _bytes(_letter, _size, _code)


# Extensions: signs and counts -------------------------------------------------------------------------------


def _unary(name: str, code: int, compute: Callable[[u64], u64]) -> None:
    @isa.instruction(f"{COUNT_OPCODE} 11111 rb 000 0 {code:07b} rc", f"{name} {{rb}}, {{rc}}")
    def unary(cpu: Core, rb: Register, rc: Register) -> None:
        cpu.r[rc] = compute(cpu.r[rb])


def sextb(b: u64) -> u64:
    return u64(s8(b))


def sextw(b: u64) -> u64:
    return u64(s16(b))


_unary("sextb", 0x00, sextb)
_unary("sextw", 0x01, sextw)
_unary("ctpop", 0x30, count_ones)
_unary("ctlz", 0x32, count_leading_zeros)
_unary("cttz", 0x33, count_trailing_zeros)


# Addresses --------------------------------------------------------------------------------------------------


@isa.instruction("001000 ra rb disp", "lda {ra}, {imm}({rb})")
@isa.instruction("001001 ra rb high[31:16]", "ldah {ra}, {imm}({rb})")
def lda(cpu: Core, ra: Register, rb: Register, imm: Immediate) -> None:
    cpu.r[ra] = cpu.r[rb] + imm
