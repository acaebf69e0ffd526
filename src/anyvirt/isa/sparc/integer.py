"""Addition, subtraction, logic, shifts, multiplication and division, Y and tagged arithmetic."""

# Pattern and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103, TC001

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.isa.processor import Immediate, Register, Small
from anyvirt.isa.sparc.core import (
    DIVISION_BY_ZERO,
    MASK,
    TAG_OVERFLOW,
    Core,
    both,
    isa,
    set_difference_flags,
    set_logical_flags,
    set_sum_flags,
)
from anyvirt.typed import s32, s64, u8, u32, u64

if TYPE_CHECKING:
    from collections.abc import Callable

isa.extension("integer", "Arithmetic, logic and shifts")


@isa.instruction("00 rd 100 high[31:10]", "sethi {imm}, {rd}")
def sethi(cpu: Core, rd: Register, imm: Immediate) -> None:
    cpu.r[rd] = imm


def _operation(name: str, code: str, compute: Callable[[Core, u64, u64], u64]) -> None:
    """An instruction with two operands and a result."""

    def register(cpu: Core, rd: Register, rs1: Register, rs2: Register) -> None:
        cpu.r[rd] = compute(cpu, cpu.r[rs1], cpu.r[rs2])

    def immediate(cpu: Core, rd: Register, rs1: Register, imm: Immediate) -> None:
        cpu.r[rd] = compute(cpu, cpu.r[rs1], imm)

    both(f"10 rd {code} rs1", f"{name} {{rs1}}, {{b}}, {{rd}}", register, immediate)


def add(cpu: Core, a: u64, b: u64) -> u64:
    return a + b


def addcc(cpu: Core, a: u64, b: u64) -> u64:
    total = a + b
    set_sum_flags(cpu, a, b, total)
    return total


def addx(cpu: Core, a: u64, b: u64) -> u64:
    return a + b + cpu.c


def addxcc(cpu: Core, a: u64, b: u64) -> u64:
    total = a + b + cpu.c
    set_sum_flags(cpu, a, b, total)
    return total


def sub(cpu: Core, a: u64, b: u64) -> u64:
    return a - b


def subcc(cpu: Core, a: u64, b: u64) -> u64:
    difference = a - b
    set_difference_flags(cpu, a, b, difference)
    return difference


def subx(cpu: Core, a: u64, b: u64) -> u64:
    return a - b - cpu.c


def subxcc(cpu: Core, a: u64, b: u64) -> u64:
    difference = a - b - cpu.c
    set_difference_flags(cpu, a, b, difference)
    return difference


def and_(cpu: Core, a: u64, b: u64) -> u64:
    return a & b


def andn(cpu: Core, a: u64, b: u64) -> u64:
    return a & ~b


def or_(cpu: Core, a: u64, b: u64) -> u64:
    return a | b


def orn(cpu: Core, a: u64, b: u64) -> u64:
    return a | ~b


def xor(cpu: Core, a: u64, b: u64) -> u64:
    return a ^ b


def xnor(cpu: Core, a: u64, b: u64) -> u64:
    return ~(a ^ b)


def _logic(name: str, code: str, compute: Callable[[Core, u64, u64], u64]) -> None:
    """A logical operation and its form that sets the condition codes."""

    def with_flags(cpu: Core, a: u64, b: u64) -> u64:
        value = compute(cpu, a, b)
        set_logical_flags(cpu, value)
        return value

    _operation(name, f"00{code}", compute)
    _operation(f"{name}cc", f"01{code}", with_flags)


_operation("add", "000000", add)
_operation("addcc", "010000", addcc)
_operation("addx", "001000", addx)
_operation("addxcc", "011000", addxcc)
_operation("sub", "000100", sub)
_operation("subcc", "010100", subcc)
_operation("subx", "001100", subx)
_operation("subxcc", "011100", subxcc)
_logic("and", "0001", and_)
_logic("or", "0010", or_)
_logic("xor", "0011", xor)
_logic("andn", "0101", andn)
_logic("orn", "0110", orn)
_logic("xnor", "0111", xnor)


# Tagged: the two low bits of each operand must be 0 ---------------------------------------------------------


def taddcc(cpu: Core, a: u64, b: u64) -> u64:
    total = addcc(cpu, a, b)
    cpu.v = cpu.v | u64((a | b) & 3 != 0)
    return total


def tsubcc(cpu: Core, a: u64, b: u64) -> u64:
    difference = subcc(cpu, a, b)
    cpu.v = cpu.v | u64((a | b) & 3 != 0)
    return difference


def taddcctv(cpu: Core, a: u64, b: u64) -> u64:
    total = a + b
    if (a | b) & 3 != 0 or ((a ^ total) & (b ^ total)) >> 31 & 1 != 0:
        cpu.trap(TAG_OVERFLOW)
    return addcc(cpu, a, b)


def tsubcctv(cpu: Core, a: u64, b: u64) -> u64:
    difference = a - b
    if (a | b) & 3 != 0 or ((a ^ b) & (a ^ difference)) >> 31 & 1 != 0:
        cpu.trap(TAG_OVERFLOW)
    return subcc(cpu, a, b)


_operation("taddcc", "100000", taddcc)
_operation("tsubcc", "100001", tsubcc)
_operation("taddcctv", "100010", taddcctv)
_operation("tsubcctv", "100011", tsubcctv)


# Multiplication and division --------------------------------------------------------------------------------


def umul(cpu: Core, a: u64, b: u64) -> u64:
    product = (a & MASK) * (b & MASK)
    cpu.y = product >> 32
    return product


def smul(cpu: Core, a: u64, b: u64) -> u64:
    product = u64(s64(s32(a)) * s64(s32(b)))
    cpu.y = product >> 32
    return product


def umulcc(cpu: Core, a: u64, b: u64) -> u64:
    product = umul(cpu, a, b)
    set_logical_flags(cpu, product)
    return product


def smulcc(cpu: Core, a: u64, b: u64) -> u64:
    product = smul(cpu, a, b)
    set_logical_flags(cpu, product)
    return product


def mulscc(cpu: Core, a: u64, b: u64) -> u64:
    """One step of a multiplication: Y is shifted through."""
    shifted = (a & MASK) >> 1 | (cpu.n ^ cpu.v) << 31
    term = b & MASK if cpu.y & 1 != 0 else u64(0)
    total = shifted + term
    cpu.y = cpu.y >> 1 | (a & 1) << 31
    set_sum_flags(cpu, shifted, term, total)
    return total


def unsigned_quotient(cpu: Core, a: u64, b: u64) -> u64:
    """Y and an operand divided by another, saturated; more than 32 bits mean overflow."""
    divisor = b & MASK
    if divisor == 0:
        cpu.trap(DIVISION_BY_ZERO)
    return (cpu.y << 32 | a & MASK) // divisor


def signed_quotient(cpu: Core, a: u64, b: u64) -> s64:
    divisor = s64(s32(b))
    if divisor == 0:
        cpu.trap(DIVISION_BY_ZERO)
    dividend = s64(cpu.y << 32 | a & MASK)
    # Of all quotients only this one does not fit 64 bits.
    if divisor == -1 and u64(dividend) == 0x8000000000000000:
        return s64(0x7FFFFFFFFFFFFFFF)
    return dividend // divisor


def saturated(quotient: s64) -> u64:
    if quotient > 0x7FFFFFFF:
        return u64(0x7FFFFFFF)
    if quotient < -0x80000000:
        return u64(0x80000000)
    return u64(quotient) & MASK


def udiv(cpu: Core, a: u64, b: u64) -> u64:
    return min(unsigned_quotient(cpu, a, b), u64(MASK))


def sdiv(cpu: Core, a: u64, b: u64) -> u64:
    return saturated(signed_quotient(cpu, a, b))


def udivcc(cpu: Core, a: u64, b: u64) -> u64:
    quotient = unsigned_quotient(cpu, a, b)
    result = min(quotient, u64(MASK))
    set_logical_flags(cpu, result)
    cpu.v = u64(quotient > MASK)
    return result


def sdivcc(cpu: Core, a: u64, b: u64) -> u64:
    quotient = signed_quotient(cpu, a, b)
    set_logical_flags(cpu, saturated(quotient))
    cpu.v = u64(quotient != s64(s32(quotient)))
    return saturated(quotient)


_operation("umul", "001010", umul)
_operation("smul", "001011", smul)
_operation("umulcc", "011010", umulcc)
_operation("smulcc", "011011", smulcc)
_operation("mulscc", "100100", mulscc)
_operation("udiv", "001110", udiv)
_operation("sdiv", "001111", sdiv)
_operation("udivcc", "011110", udivcc)
_operation("sdivcc", "011111", sdivcc)


@isa.instruction("10 rd 101000 00000 0 0000000000000", "rd %y, {rd}")
def read_y(cpu: Core, rd: Register) -> None:
    cpu.r[rd] = cpu.y


def write_y(cpu: Core, rs1: Register, rs2: Register) -> None:
    cpu.y = (cpu.r[rs1] ^ cpu.r[rs2]) & MASK


def write_y_immediate(cpu: Core, rs1: Register, imm: Immediate) -> None:
    cpu.y = (cpu.r[rs1] ^ imm) & MASK


both("10 00000 110000 rs1", "wr {rs1}, {b}, %y", write_y, write_y_immediate)


@isa.instruction("10 00000 101000 01111 0 0000000000000", "stbar")
def stbar(cpu: Core) -> None:
    cpu.fence()


# Shifts -----------------------------------------------------------------------------------------------------


def left(value: u64, amount: u8) -> u64:
    return u64(u32(value) << amount)


def right(value: u64, amount: u8) -> u64:
    return u64(u32(value) >> amount)


def right_arithmetic(value: u64, amount: u8) -> u64:
    return u64(s32(value) >> amount)


def _shift(name: str, code: str, compute: Callable[[u64, u8], u64]) -> None:
    """Five bits of the second operand count."""

    @isa.instruction(f"10 rd {code} rs1 0 -------- rs2", f"{name} {{rs1}}, {{rs2}}, {{rd}}")
    def register(cpu: Core, rd: Register, rs1: Register, rs2: Register) -> None:
        cpu.r[rd] = compute(cpu.r[rs1], u8(cpu.r[rs2]))

    @isa.instruction(f"10 rd {code} rs1 1 -------- shcnt", f"{name} {{rs1}}, {{imm}}, {{rd}}")
    def immediate(cpu: Core, rd: Register, rs1: Register, imm: Small) -> None:
        cpu.r[rd] = compute(cpu.r[rs1], imm)


_shift("sll", "100101", left)
_shift("srl", "100110", right)
_shift("sra", "100111", right_arithmetic)
