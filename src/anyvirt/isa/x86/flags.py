"""The status flags, kept as what they follow from: nothing is computed that nobody asks for.

State remembers a subtraction and a result. Carry, adjust and overflow are the borrows of `flag_left -
flag_right`; zero, sign and parity belong to `flag_result`. A subtraction `r = a - b` is remembered as it
is, an addition `r = a + b` as the subtraction `r - a`, which has the same carries. Bits of `flag_form` from
8 up invert flags, at their places in EFLAGS, for instructions that set them in another way; its low six
bits are 64 minus the size. All three numbers are sign-extended, which keeps every comparison as it is.

So what compares and jumps becomes a comparison and a jump of the host, and flags that the next instruction
overwrites are never computed. SDM Volume 1, section 3.4.3.1.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from anyvirt.isa.x86.operands import extend
from anyvirt.typed import count_ones, s64, u8, u64

if TYPE_CHECKING:
    from anyvirt.isa.x86.operands import X86


class Flag(IntEnum):
    """Bits of EFLAGS that instructions of user programs see."""

    CARRY = 0
    PARITY = 2
    ADJUST = 4
    ZERO = 6
    SIGN = 7
    TRAP = 8
    INTERRUPT = 9
    DIRECTION = 10
    OVERFLOW = 11
    NESTED = 14
    ALIGNMENT = 18
    IDENTIFICATION = 21


CARRY, PARITY, ADJUST, ZERO, SIGN, OVERFLOW = (
    int(flag) for flag in (Flag.CARRY, Flag.PARITY, Flag.ADJUST, Flag.ZERO, Flag.SIGN, Flag.OVERFLOW)
)
STATUS = 1 << CARRY | 1 << PARITY | 1 << ADJUST | 1 << ZERO | 1 << SIGN | 1 << OVERFLOW
"""The flags that arithmetic sets."""
MUTABLE = 1 << Flag.TRAP | 1 << Flag.NESTED | 1 << Flag.ALIGNMENT | 1 << Flag.IDENTIFICATION
"""The others that user programs can change, besides the direction."""
FORM = 8
"""Lowest bit of the inversions in `flag_form`."""
CONDITIONS = (
    "o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g",
)  # fmt: skip
"""Names of condition codes, SDM Volume 1, appendix B."""


def inverted(cpu: X86, flag: int) -> u64:
    """The bit of `flag_form` that inverts a flag."""
    return cpu.flag_form >> (FORM + flag) & 1


def plain_carry(cpu: X86) -> u64:
    """The borrow of the remembered subtraction."""
    return u64(cpu.flag_left < cpu.flag_right)


def plain_overflow(cpu: X86) -> u64:
    """Whether the remembered subtraction leaves the signed numbers of its size."""
    unused = cpu.flag_form & 63
    difference = s64((cpu.flag_left - cpu.flag_right) << unused) >> unused
    return u64(s64(cpu.flag_left) < s64(cpu.flag_right)) ^ u64(difference < 0)


def carry(cpu: X86) -> u64:
    """CF, 0 or 1."""
    return plain_carry(cpu) ^ inverted(cpu, CARRY)


def parity(cpu: X86) -> u64:
    """PF."""
    return u64(count_ones(u8(cpu.flag_result)) & 1) ^ 1 ^ inverted(cpu, PARITY)


def adjust(cpu: X86) -> u64:
    """AF."""
    difference = cpu.flag_left - cpu.flag_right
    return (cpu.flag_left ^ cpu.flag_right ^ difference) >> 4 & 1 ^ inverted(cpu, ADJUST)


def zero(cpu: X86) -> u64:
    """ZF."""
    return u64(cpu.flag_result == 0) ^ inverted(cpu, ZERO)


def sign(cpu: X86) -> u64:
    """SF."""
    return u64(s64(cpu.flag_result) < 0) ^ inverted(cpu, SIGN)


def overflow(cpu: X86) -> u64:
    """OF."""
    return plain_overflow(cpu) ^ inverted(cpu, OVERFLOW)


def condition(cpu: X86, code: int) -> bool:
    """Whether a condition code holds; odd ones are the opposite of those before."""
    if code & 1 != 0:
        return not condition_of(cpu, code >> 1)
    return condition_of(cpu, code >> 1)


def condition_of(cpu: X86, pair: int) -> bool:
    """Whether the even one of a pair of condition codes holds."""
    if pair < 4:
        return unsigned_condition(cpu, pair) != 0
    if pair < 6:
        return (sign(cpu) if pair == 4 else parity(cpu)) != 0
    less = sign(cpu) ^ overflow(cpu)
    return (less if pair == 6 else less | zero(cpu)) != 0


def unsigned_condition(cpu: X86, pair: int) -> u64:
    """Overflow, below, equal, below or equal."""
    if pair == 0:
        return overflow(cpu)
    if pair == 1:
        return carry(cpu)
    if pair == 2:
        return zero(cpu)
    return carry(cpu) | zero(cpu)


# Setting flags ----------------------------------------------------------------------------------------------


def remember(cpu: X86, size: int, left: u64, right: u64, result: u64) -> None:
    """All flags are those of `left - right` with this result."""
    cpu.flag_left = extend(size, left)
    cpu.flag_right = extend(size, right)
    cpu.flag_result = extend(size, result)
    cpu.flag_form = u64(64 - size)


def set_flags(cpu: X86, size: int, result: u64, carries: u64, adjusts: u64, overflows: u64) -> None:
    """Sign, zero and parity of a result, and the other flags as given, 0 or 1 each."""
    cpu.flag_left = u64(0)
    cpu.flag_right = u64(0)
    cpu.flag_result = extend(size, result)
    inversions = carries << CARRY | adjusts << ADJUST | overflows << OVERFLOW
    cpu.flag_form = u64(64 - size) | inversions << FORM


def set_carry(cpu: X86, value: u64) -> None:
    """CF alone, to 0 or 1."""
    others = cpu.flag_form & ~(1 << FORM + CARRY)
    cpu.flag_form = others | (plain_carry(cpu) ^ value) << (FORM + CARRY)


def set_overflow(cpu: X86, value: u64) -> None:
    """OF alone, to 0 or 1."""
    others = cpu.flag_form & ~(1 << FORM + OVERFLOW)
    cpu.flag_form = others | (plain_overflow(cpu) ^ value) << (FORM + OVERFLOW)


def status(cpu: X86) -> u64:
    """The six status flags at their places in EFLAGS."""
    low = carry(cpu) << CARRY | parity(cpu) << PARITY | adjust(cpu) << ADJUST
    return low | zero(cpu) << ZERO | sign(cpu) << SIGN | overflow(cpu) << OVERFLOW


def set_status(cpu: X86, value: u64) -> None:
    """The six status flags from their places in EFLAGS."""
    cpu.flag_left = u64(0)
    cpu.flag_right = u64(0)
    cpu.flag_result = u64(0)
    # A result of 0 means zero and an even number of bits.
    cpu.flag_form = (value & STATUS ^ (1 << ZERO | 1 << PARITY)) << FORM


def flags(cpu: X86) -> u64:
    """EFLAGS as a user program sees it; bit 1 is always 1."""
    return status(cpu) | cpu.direction << Flag.DIRECTION | cpu.system_flags | 2


def set_user_flags(cpu: X86, value: u64) -> None:
    """What user programs can change of EFLAGS: the others stay."""
    set_status(cpu, value)
    cpu.direction = value >> Flag.DIRECTION & 1
    cpu.system_flags = cpu.system_flags & ~MUTABLE | value & MUTABLE
