"""Shifts and rotations: SDM Volume 1, section 7.3.6.

A count is taken modulo 32, or 64 for operands of 64 bits; if nothing is left of it no flag changes. OF is
defined for counts of 1 and otherwise computed in the same way; AF, which is undefined, is 0.
"""

# Encoding and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.isa.x86.encoding import encoding
from anyvirt.isa.x86.flags import carry, set_carry, set_flags, set_overflow
from anyvirt.isa.x86.operands import X86, Count, General, Place, extend, low, read, write
from anyvirt.typed import s64, u64

if TYPE_CHECKING:
    from collections.abc import Callable


def amount_of(cpu: X86, size: int, count: Count) -> u64:
    """What an instruction takes of a count."""
    given = cpu.r[count.number] + u64(count.value)
    if size == 64:
        return given & 63
    return given & 31


def shift_left(cpu: X86, size: int, to: Place, value: u64, count: u64) -> None:
    # One less first: the bit that leaves last is then the highest, also if the size is 64.
    almost = value << (count - 1)
    result = almost << 1
    out = almost >> size - 1 & 1
    write(cpu, size, to, result)
    set_flags(cpu, size, result, out, u64(0), out ^ result >> size - 1 & 1)


def shift_right(cpu: X86, size: int, to: Place, value: u64, count: u64) -> None:
    almost = value >> (count - 1)
    write(cpu, size, to, almost >> 1)
    set_flags(cpu, size, almost >> 1, almost & 1, u64(0), almost >> size - 1 & 1)


def shift_right_signed(cpu: X86, size: int, to: Place, value: u64, count: u64) -> None:
    almost = u64(s64(extend(size, value)) >> (count - 1))
    result = u64(s64(almost) >> 1)
    write(cpu, size, to, result)
    set_flags(cpu, size, result, almost & 1, u64(0), u64(0))


def rotated_left(size: int, value: u64, count: u64) -> u64:
    """`value`, of `size` bits, rotated by any count."""
    within = count & size - 1
    return low(size, value << within | value >> 1 >> (size - 1 - within))


def rotate_left(cpu: X86, size: int, to: Place, value: u64, count: u64) -> None:
    result = rotated_left(size, value, count)
    write(cpu, size, to, result)
    set_carry(cpu, result & 1)
    set_overflow(cpu, (result ^ result >> size - 1) & 1)


def rotate_right(cpu: X86, size: int, to: Place, value: u64, count: u64) -> None:
    result = rotated_left(size, value, -count)
    write(cpu, size, to, result)
    set_carry(cpu, result >> size - 1 & 1)
    set_overflow(cpu, (result >> size - 1 ^ result >> size - 2) & 1)


def rotate_carry_left(cpu: X86, size: int, to: Place, value: u64, count: u64) -> None:
    turned = count % (size + 1)
    if turned != 0:
        upper = value >> 1 >> (size - turned)
        result = low(size, value << (turned - 1) << 1 | carry(cpu) << (turned - 1) | upper)
        out = value >> (size - turned) & 1
        write(cpu, size, to, result)
        set_carry(cpu, out)
        set_overflow(cpu, out ^ result >> size - 1)


def rotate_carry_right(cpu: X86, size: int, to: Place, value: u64, count: u64) -> None:
    turned = count % (size + 1)
    if turned != 0:
        lower = value << 1 << (size - turned)
        result = low(size, value >> (turned - 1) >> 1 | carry(cpu) << (size - turned) | lower)
        out = value >> (turned - 1) & 1
        write(cpu, size, to, result)
        set_carry(cpu, out)
        set_overflow(cpu, (result >> size - 1 ^ result >> size - 2) & 1)


def _describe(numbers: tuple[int, ...], mnemonic: str, turn: Callable[..., None]) -> None:
    """One of the operations that share their encodings, by its numbers."""

    def operation(cpu: X86, size: int, to: Place, count: Count) -> None:
        amount = amount_of(cpu, size, count)
        value = read(cpu, size, to)
        if amount != 0:
            turn(cpu, size, to, value, amount)
        else:
            write(cpu, size, to, value)

    for number in numbers:
        for opcode, count in (("c0", "count_literal"), ("d0", "1"), ("d2", "CL")):
            wide = f"{int(opcode, 16) + 1:02x}"
            encoding(f"{opcode} /{number}", mnemonic, to="Eb", count=count, form="A")(operation)
            encoding(f"{wide} /{number}", mnemonic, to="Ev", count=count, form="A")(operation)


for _numbers, _mnemonic, _turn in (
    ((0,), "rol", rotate_left),
    ((1,), "ror", rotate_right),
    ((2,), "rcl", rotate_carry_left),
    ((3,), "rcr", rotate_carry_right),
    ((4, 6), "shl", shift_left),
    ((5,), "shr", shift_right),
    ((7,), "sar", shift_right_signed),
):
    _describe(_numbers, _mnemonic, _turn)


# Double shifts. With 16 bits, counts beyond the size are undefined; what is done then is what QEMU does. ----


@encoding("0f a4 /r", "shld", to="Ev", source="Gv", count="count_literal", form="A")
@encoding("0f a5 /r", "shld", to="Ev", source="Gv", count="CL", form="A")
def shift_left_double(cpu: X86, size: int, to: Place, source: General, count: Count) -> None:
    amount = amount_of(cpu, size, count)
    value, filler = read(cpu, size, to), read(cpu, size, source)
    if amount == 0:
        write(cpu, size, to, value)
    else:
        if size == 16:
            both = value << 32 | filler << 16 | value
            almost = both << (amount - 1)
            result = low(16, almost >> 31)
            out = almost >> 47 & 1
        else:
            result = low(size, value << amount | filler >> 1 >> (size - 1 - amount))
            out = value >> (size - amount) & 1
        write(cpu, size, to, result)
        set_flags(cpu, size, result, out, u64(0), out ^ result >> size - 1)


@encoding("0f ac /r", "shrd", to="Ev", source="Gv", count="count_literal", form="A")
@encoding("0f ad /r", "shrd", to="Ev", source="Gv", count="CL", form="A")
def shift_right_double(cpu: X86, size: int, to: Place, source: General, count: Count) -> None:
    amount = amount_of(cpu, size, count)
    value, filler = read(cpu, size, to), read(cpu, size, source)
    if amount == 0:
        write(cpu, size, to, value)
    else:
        if size == 16:
            both = value << 32 | filler << 16 | value
            almost = both >> (amount - 1)
            result = low(16, almost >> 1)
            out = almost & 1
        else:
            result = low(size, value >> amount | filler << 1 << (size - 1 - amount))
            out = value >> (amount - 1) & 1
        write(cpu, size, to, result)
        set_flags(cpu, size, result, out, u64(0), (result >> size - 1 ^ result >> size - 2) & 1)
