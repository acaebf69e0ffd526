"""Addition with carries, comparison, multiplication, division, logic, shifts, traps."""

# Pattern and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103, TC001

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.isa.ppc.core import MASK, PROGRAM, Core, base, compared, isa, record, set_overflow
from anyvirt.isa.processor import Immediate, Register, Small
from anyvirt.typed import count_leading_zeros, s8, s16, s32, s64, u8, u32, u64

if TYPE_CHECKING:
    from collections.abc import Callable

isa.extension("integer", "Fixed-point arithmetic, logic and shifts")


@isa.instruction("001110 rt ra si", "addi {rt}, {ra}, {imm}")
@isa.instruction("001111 rt ra high[31:16]", "addis {rt}, {ra}, {imm}")
def addi(cpu: Core, rt: Register, ra: Register, imm: Immediate) -> None:
    cpu.r[rt] = base(cpu, ra) + imm


@isa.instruction("001100 rt ra si", "addic {rt}, {ra}, {imm}")
def addic(cpu: Core, rt: Register, ra: Register, imm: Immediate) -> None:
    total = cpu.r[ra] + (imm & MASK)
    cpu.ca = total >> 32
    cpu.r[rt] = total


@isa.instruction("001101 rt ra si", "addic. {rt}, {ra}, {imm}")
def addic_record(cpu: Core, rt: Register, ra: Register, imm: Immediate) -> None:
    total = cpu.r[ra] + (imm & MASK)
    cpu.ca = total >> 32
    cpu.r[rt] = total
    record(cpu, total)


@isa.instruction("001000 rt ra si", "subfic {rt}, {ra}, {imm}")
def subfic(cpu: Core, rt: Register, ra: Register, imm: Immediate) -> None:
    total = (~cpu.r[ra] & MASK) + (imm & MASK) + 1
    cpu.ca = total >> 32
    cpu.r[rt] = total


@isa.instruction("000111 rt ra si", "mulli {rt}, {ra}, {imm}")
def mulli(cpu: Core, rt: Register, ra: Register, imm: Immediate) -> None:
    cpu.r[rt] = cpu.r[ra] * imm


# Additions and subtractions are `a + b + carry` with `a` complemented for subtractions ----------------------


def _sum(
    name: str,
    code: str,
    pattern: str,
    assembly: str,
    first: Callable[[Core, u8], u64],
    second: Callable[[Core, u8], u64],
    carry: Callable[[Core], u64],
    sets_carry: bool,
) -> None:
    """One form with its three variants that record the result and overflow."""
    for oe in (0, 1):
        for rc in (0, 1):
            _one_sum(
                f"011111 rt ra {pattern} {oe} {code} {rc}",
                f"{name}{'o' * oe}{'.' * rc} {assembly}",
                (first, second, carry),
                (sets_carry, oe == 1, rc == 1),
            )


def _one_sum(
    bits: str,
    assembly: str,
    terms: tuple[Callable[[Core, u8], u64], Callable[[Core, u8], u64], Callable[[Core], u64]],
    effects: tuple[bool, bool, bool],
) -> None:
    first, second, carry = terms
    sets_carry, sets_overflow, records = effects

    def add(cpu: Core, rt: u8, ra: u8, rb: u8) -> None:
        a, b = first(cpu, ra), second(cpu, rb)
        total = a + b + carry(cpu)
        if sets_carry:
            cpu.ca = total >> 32
        cpu.r[rt] = total
        if sets_overflow:
            set_overflow(cpu, ((a ^ total) & (b ^ total)) >> 31 & 1)
        if records:
            record(cpu, total)

    if "rb" in bits:

        @isa.instruction(bits, assembly)
        def with_register(cpu: Core, rt: Register, ra: Register, rb: Register) -> None:
            add(cpu, rt, ra, rb)
    else:

        @isa.instruction(bits, assembly)
        def without(cpu: Core, rt: Register, ra: Register) -> None:
            add(cpu, rt, ra, ra)


def register(cpu: Core, number: u8) -> u64:
    return cpu.r[number]


def complement(cpu: Core, number: u8) -> u64:
    return ~cpu.r[number] & MASK


def zero(cpu: Core, number: u8) -> u64:
    return u64(0)


def all_ones(cpu: Core, number: u8) -> u64:
    return u64(MASK)


def no_carry(cpu: Core) -> u64:
    return u64(0)


def one(cpu: Core) -> u64:
    return u64(1)


def carry_in(cpu: Core) -> u64:
    return cpu.ca


_sum("add", "100001010", "rb", "{rt}, {ra}, {rb}", register, register, no_carry, False)
_sum("subf", "000101000", "rb", "{rt}, {ra}, {rb}", complement, register, one, False)
_sum("addc", "000001010", "rb", "{rt}, {ra}, {rb}", register, register, no_carry, True)
_sum("subfc", "000001000", "rb", "{rt}, {ra}, {rb}", complement, register, one, True)
_sum("adde", "010001010", "rb", "{rt}, {ra}, {rb}", register, register, carry_in, True)
_sum("subfe", "010001000", "rb", "{rt}, {ra}, {rb}", complement, register, carry_in, True)
_sum("addze", "011001010", "00000", "{rt}, {ra}", register, zero, carry_in, True)
_sum("subfze", "011001000", "00000", "{rt}, {ra}", complement, zero, carry_in, True)
_sum("addme", "011101010", "00000", "{rt}, {ra}", register, all_ones, carry_in, True)
_sum("subfme", "011101000", "00000", "{rt}, {ra}", complement, all_ones, carry_in, True)
_sum("neg", "001101000", "00000", "{rt}, {ra}", complement, zero, one, False)


# Multiplication and division --------------------------------------------------------------------------------


def _product(oe: int, rc: int) -> None:
    sets_overflow, records = oe == 1, rc == 1

    @isa.instruction(
        f"011111 rt ra rb {oe} 011101011 {rc}", f"mullw{'o' * oe}{'.' * rc} {{rt}}, {{ra}}, {{rb}}"
    )
    def mullw(cpu: Core, rt: Register, ra: Register, rb: Register) -> None:
        product = s64(s32(cpu.r[ra])) * s64(s32(cpu.r[rb]))
        cpu.r[rt] = u64(product)
        if sets_overflow:
            set_overflow(cpu, u64(product != s64(s32(product))))
        if records:
            record(cpu, u64(product))

    @isa.instruction(
        f"011111 rt ra rb {oe} 111101011 {rc}", f"divw{'o' * oe}{'.' * rc} {{rt}}, {{ra}}, {{rb}}"
    )
    def divw(cpu: Core, rt: Register, ra: Register, rb: Register) -> None:
        dividend, divisor = s32(cpu.r[ra]), s32(cpu.r[rb])
        impossible = divisor == 0 or (divisor == -1 and u32(dividend) == 0x80000000)
        # The result is undefined then.
        quotient = u64(0) if impossible else u64(u32(dividend // divisor))
        cpu.r[rt] = quotient
        if sets_overflow:
            set_overflow(cpu, u64(impossible))
        if records:
            record(cpu, quotient)

    @isa.instruction(
        f"011111 rt ra rb {oe} 111001011 {rc}", f"divwu{'o' * oe}{'.' * rc} {{rt}}, {{ra}}, {{rb}}"
    )
    def divwu(cpu: Core, rt: Register, ra: Register, rb: Register) -> None:
        dividend, divisor = u32(cpu.r[ra]), u32(cpu.r[rb])
        quotient = u64(0) if divisor == 0 else u64(dividend // divisor)
        cpu.r[rt] = quotient
        if sets_overflow:
            set_overflow(cpu, u64(divisor == 0))
        if records:
            record(cpu, quotient)


def _high_product(rc: int) -> None:
    records = rc == 1

    @isa.instruction(f"011111 rt ra rb 0 001001011 {rc}", f"mulhw{'.' * rc} {{rt}}, {{ra}}, {{rb}}")
    def mulhw(cpu: Core, rt: Register, ra: Register, rb: Register) -> None:
        high = u64(s64(s32(cpu.r[ra])) * s64(s32(cpu.r[rb])) >> 32)
        cpu.r[rt] = high
        if records:
            record(cpu, high)

    @isa.instruction(f"011111 rt ra rb 0 000001011 {rc}", f"mulhwu{'.' * rc} {{rt}}, {{ra}}, {{rb}}")
    def mulhwu(cpu: Core, rt: Register, ra: Register, rb: Register) -> None:
        high = cpu.r[ra] * cpu.r[rb] >> 32
        cpu.r[rt] = high
        if records:
            record(cpu, high)


for _rc in (0, 1):
    _high_product(_rc)
    for _oe in (0, 1):
        _product(_oe, _rc)


# Comparison and traps ---------------------------------------------------------------------------------------


@isa.instruction("001011 bf 0 0 ra si", "cmpwi {bf}, {ra}, {imm}")
def cmpwi(cpu: Core, bf: Register, ra: Register, imm: Immediate) -> None:
    a, b = s32(cpu.r[ra]), s32(imm)
    cpu.cr[bf] = compared(cpu, a < b, a > b)


@isa.instruction("001010 bf 0 0 ra ui", "cmplwi {bf}, {ra}, {imm}")
def cmplwi(cpu: Core, bf: Register, ra: Register, imm: Immediate) -> None:
    a = cpu.r[ra]
    cpu.cr[bf] = compared(cpu, a < imm, a > imm)


@isa.instruction("011111 bf 0 0 ra rb 0000000000 0", "cmpw {bf}, {ra}, {rb}")
def cmpw(cpu: Core, bf: Register, ra: Register, rb: Register) -> None:
    a, b = s32(cpu.r[ra]), s32(cpu.r[rb])
    cpu.cr[bf] = compared(cpu, a < b, a > b)


@isa.instruction("011111 bf 0 0 ra rb 0000100000 0", "cmplw {bf}, {ra}, {rb}")
def cmplw(cpu: Core, bf: Register, ra: Register, rb: Register) -> None:
    a, b = cpu.r[ra], cpu.r[rb]
    cpu.cr[bf] = compared(cpu, a < b, a > b)


def traps(to: u8, a: u64, b: u64) -> bool:
    """Whether one of the comparisons selected by TO holds."""
    x, y = s32(a), s32(b)
    found = u8(16) if x < y else u8(8) if x > y else u8(4)
    if u32(a) < u32(b):
        found |= 2
    elif u32(a) > u32(b):
        found |= 1
    return found & to != 0


@isa.instruction("000011 to ra si", "twi {to}, {ra}, {imm}")
def twi(cpu: Core, to: Small, ra: Register, imm: Immediate) -> None:
    if traps(to, cpu.r[ra], imm):
        cpu.trap(PROGRAM)


@isa.instruction("011111 to ra rb 0000000100 0", "tw {to}, {ra}, {rb}")
def tw(cpu: Core, to: Small, ra: Register, rb: Register) -> None:
    if traps(to, cpu.r[ra], cpu.r[rb]):
        cpu.trap(PROGRAM)


# Logic ------------------------------------------------------------------------------------------------------


@isa.instruction("011000 rs ra ui", "ori {ra}, {rs}, {imm}")
@isa.instruction("011001 rs ra uhigh[31:16]", "oris {ra}, {rs}, {imm}")
def ori(cpu: Core, ra: Register, rs: Register, imm: Immediate) -> None:
    cpu.r[ra] = cpu.r[rs] | imm


@isa.instruction("011010 rs ra ui", "xori {ra}, {rs}, {imm}")
@isa.instruction("011011 rs ra uhigh[31:16]", "xoris {ra}, {rs}, {imm}")
def xori(cpu: Core, ra: Register, rs: Register, imm: Immediate) -> None:
    cpu.r[ra] = cpu.r[rs] ^ imm


@isa.instruction("011100 rs ra ui", "andi. {ra}, {rs}, {imm}")
@isa.instruction("011101 rs ra uhigh[31:16]", "andis. {ra}, {rs}, {imm}")
def andi(cpu: Core, ra: Register, rs: Register, imm: Immediate) -> None:
    value = cpu.r[rs] & imm
    cpu.r[ra] = value
    record(cpu, value)


def _logic(name: str, code: str, combine: Callable[[u64, u64], u64], rc: int) -> None:
    records = rc == 1

    @isa.instruction(f"011111 rs ra rb {code} {rc}", f"{name}{'.' * rc} {{ra}}, {{rs}}, {{rb}}")
    def logic(cpu: Core, ra: Register, rs: Register, rb: Register) -> None:
        value = combine(cpu.r[rs], cpu.r[rb])
        cpu.r[ra] = value
        if records:
            record(cpu, value)


def conjunction(a: u64, b: u64) -> u64:
    return a & b


def conjunction_with_complement(a: u64, b: u64) -> u64:
    return a & ~b


def disjunction(a: u64, b: u64) -> u64:
    return a | b


def disjunction_with_complement(a: u64, b: u64) -> u64:
    return a | ~b


def exclusion(a: u64, b: u64) -> u64:
    return a ^ b


def not_and(a: u64, b: u64) -> u64:
    return ~(a & b)


def not_or(a: u64, b: u64) -> u64:
    return ~(a | b)


def equivalence(a: u64, b: u64) -> u64:
    return ~(a ^ b)


def shifted_left(a: u64, b: u64) -> u64:
    return a << (b & 63) if b & 32 == 0 else u64(0)


def shifted_right(a: u64, b: u64) -> u64:
    return a >> (b & 63)


def _unary(name: str, code: str, compute: Callable[[u64], u64], rc: int) -> None:
    records = rc == 1

    @isa.instruction(f"011111 rs ra 00000 {code} {rc}", f"{name}{'.' * rc} {{ra}}, {{rs}}")
    def unary(cpu: Core, ra: Register, rs: Register) -> None:
        value = compute(cpu.r[rs])
        cpu.r[ra] = value
        if records:
            record(cpu, value)


def extended_byte(a: u64) -> u64:
    return u64(s8(a))


def extended_half(a: u64) -> u64:
    return u64(s16(a))


def leading_zeros(a: u64) -> u64:
    return u64(count_leading_zeros(u32(a)))


def _arithmetic_shifts(rc: int) -> None:
    """Shifts that set CA if the number is negative and ones were shifted out of it."""
    records = rc == 1

    @isa.instruction(f"011111 rs ra rb 1100011000 {rc}", f"sraw{'.' * rc} {{ra}}, {{rs}}, {{rb}}")
    def sraw(cpu: Core, ra: Register, rs: Register, rb: Register) -> None:
        shift(cpu, ra, rs, u8(cpu.r[rb]) & 63)

    @isa.instruction(f"011111 rs ra sh 1100111000 {rc}", f"srawi{'.' * rc} {{ra}}, {{rs}}, {{sh}}")
    def srawi(cpu: Core, ra: Register, rs: Register, sh: Small) -> None:
        shift(cpu, ra, rs, sh)

    def shift(cpu: Core, ra: u8, rs: u8, amount: u8) -> None:
        value = s64(s32(cpu.r[rs]))
        result = value >> amount
        cpu.ca = u64(value < 0 and result << amount != value)
        cpu.r[ra] = u64(result)
        if records:
            record(cpu, u64(result))


for _rc in (0, 1):
    _logic("and", "0000011100", conjunction, _rc)
    _logic("andc", "0000111100", conjunction_with_complement, _rc)
    _logic("or", "0110111100", disjunction, _rc)
    _logic("orc", "0110011100", disjunction_with_complement, _rc)
    _logic("xor", "0100111100", exclusion, _rc)
    _logic("nand", "0111011100", not_and, _rc)
    _logic("nor", "0001111100", not_or, _rc)
    _logic("eqv", "0100011100", equivalence, _rc)
    _logic("slw", "0000011000", shifted_left, _rc)
    _logic("srw", "1000011000", shifted_right, _rc)
    _unary("extsb", "1110111010", extended_byte, _rc)
    _unary("extsh", "1110011010", extended_half, _rc)
    _unary("cntlzw", "0000011010", leading_zeros, _rc)
    _arithmetic_shifts(_rc)
