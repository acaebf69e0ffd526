"""IEEE 754 arithmetic on encodings, with every rounding mode and exact flags, in typed Python.

Written after IEEE 754-2019 and the RISC-V unprivileged ISA, chapter "F": tininess is detected after
rounding, NaN results are the canonical NaN. It is what the reference executor computes with; compiled tiers
use the host's instructions where those do the same, and this for the rest (other rounding modes).

Operands and results are encodings in the low `width` (32 or 64) bits of a u64. Each operation returns
the result and the exceptions it raised, a sum of `Flag`s.
"""

from __future__ import annotations

from enum import IntEnum

from anyvirt.typed import count_leading_zeros, range, s32, s64, u8, u32, u64, u128


class Flag(IntEnum):
    """Exceptions, in the bit positions of RISC-V's fflags."""

    INEXACT = 1
    UNDERFLOW = 2
    OVERFLOW = 4
    DIVIDE_BY_ZERO = 8
    INVALID = 16


class Rounding(IntEnum):
    """Rounding modes, numbered as RISC-V's frm."""

    NEAREST_EVEN = 0
    TOWARDS_ZERO = 1
    DOWN = 2
    UP = 3
    NEAREST_AWAY = 4


class Kind(IntEnum):
    """What an encoding stands for."""

    ZERO = 0
    FINITE = 1
    INFINITE = 2
    QUIET_NAN = 3
    SIGNALING_NAN = 4


def precision(width: u8) -> s32:
    """Bits of the significand, the hidden one included."""
    return s32(24) if width == 32 else s32(53)


def greatest_exponent(width: u8) -> s32:
    """Of the leading bit of a finite number; also the bias."""
    return s32(127) if width == 32 else s32(1023)


def infinity(width: u8, sign: u8) -> u64:
    """The encoding of an infinity."""
    if width == 32:
        return u64(sign) << 31 | 0x7F800000
    return u64(sign) << 63 | 0x7FF0000000000000


def zero(width: u8, sign: u8) -> u64:
    """The encoding of a zero."""
    return u64(sign) << (width - 1)


def canonical_nan(width: u8) -> u64:
    """The one NaN that operations produce."""
    return u64(0x7FC00000) if width == 32 else u64(0x7FF8000000000000)


def unpack(width: u8, a: u64) -> tuple[u8, u8, s32, u64]:
    """Kind, sign, exponent and significand: a finite number is significand * 2^exponent."""
    fraction_bits = precision(width) - 1
    sign = u8(a >> (width - 1)) & 1
    fraction = a & ((u64(1) << fraction_bits) - 1)
    field = s32(a >> fraction_bits) & (greatest_exponent(width) * 2 + 1)
    least = s32(1) - greatest_exponent(width) - fraction_bits
    if field == greatest_exponent(width) * 2 + 1:
        if fraction == 0:
            return u8(Kind.INFINITE), sign, s32(0), u64(0)
        if fraction >> (fraction_bits - 1) == 0:
            return u8(Kind.SIGNALING_NAN), sign, s32(0), u64(0)
        return u8(Kind.QUIET_NAN), sign, s32(0), u64(0)
    if field == 0:
        if fraction == 0:
            return u8(Kind.ZERO), sign, s32(0), u64(0)
        return u8(Kind.FINITE), sign, least, fraction
    return u8(Kind.FINITE), sign, least + field - 1, fraction | u64(1) << fraction_bits


def cut(significand: u128, count: s32, sticky: bool) -> tuple[u128, bool, bool]:
    """Drop `count` low bits: what is kept, the highest dropped bit, and whether any below it is one."""
    if count <= 0:
        return significand << -count, False, sticky
    if count > 128:
        return u128(0), False, True
    top = significand >> (count - 1)
    rest = sticky or (count > 1 and significand << (129 - count) != 0)
    return top >> 1 if count < 128 else u128(0), top & 1 != 0, rest


def rounds_up(kept: u128, half: bool, rest: bool, sign: u8, rounding: u8) -> bool:
    """Whether the kept part is to be increased by one."""
    if rounding == Rounding.NEAREST_EVEN:
        return half and (rest or kept & 1 != 0)
    if rounding == Rounding.NEAREST_AWAY:
        return half
    if rounding == Rounding.DOWN:
        return sign == 1 and (half or rest)
    if rounding == Rounding.UP:
        return sign == 0 and (half or rest)
    return False


def overflow(width: u8, sign: u8, rounding: u8) -> u64:
    """What a number too great becomes: an infinity, or the greatest number when rounding the other way."""
    to_greatest = (
        rounding == Rounding.TOWARDS_ZERO
        or (rounding == Rounding.DOWN and sign == 0)
        or (rounding == Rounding.UP and sign == 1)
    )
    return infinity(width, sign) - 1 if to_greatest else infinity(width, sign)


def round_and_pack(
    width: u8, sign: u8, exponent: s32, significand: u128, sticky: bool, rounding: u8
) -> tuple[u64, u8]:
    """Encode significand * 2^exponent (not 0, `sticky`: and a little more) rounded to the width."""
    digits = precision(width)
    lowest = s32(1) - greatest_exponent(width)
    leading = exponent + 127 - s32(count_leading_zeros(significand))
    quantum = max(leading, lowest) - digits + 1
    kept, half, rest = cut(significand, quantum - exponent, sticky)
    if rounds_up(kept, half, rest, sign, rounding):
        kept += 1
        if kept >> digits != 0:
            kept >>= 1
            quantum += 1
    flags = u8(Flag.INEXACT) if half or rest else u8(0)
    if quantum + digits - 1 > greatest_exponent(width):
        return overflow(width, sign, rounding), u8(Flag.OVERFLOW | Flag.INEXACT)
    if leading < lowest and flags != 0 and is_tiny(width, sign, exponent, significand, sticky, rounding):
        flags |= Flag.UNDERFLOW
    if kept >> (digits - 1) == 0:
        return zero(width, sign) | u64(kept), flags
    field = u64(quantum + digits - 1 - lowest)
    return zero(width, sign) + (field << (digits - 1)) + u64(kept), flags


def is_tiny(width: u8, sign: u8, exponent: s32, significand: u128, sticky: bool, rounding: u8) -> bool:
    """Whether a number below the normal ones stays there when rounded with an unbounded exponent."""
    digits = precision(width)
    leading = exponent + 127 - s32(count_leading_zeros(significand))
    if leading + greatest_exponent(width) < 0:
        return True
    kept, half, rest = cut(significand, leading - digits + 1 - exponent, sticky)
    return not (rounds_up(kept, half, rest, sign, rounding) and (kept + 1) >> digits != 0)


def nan_result(width: u8, a: u8, b: u8) -> tuple[u64, u8]:
    """The result of an operation on at least one NaN, from the kinds of its operands."""
    signaling = Kind.SIGNALING_NAN in (a, b)
    return canonical_nan(width), u8(Flag.INVALID) if signaling else u8(0)


def exact_zero(width: u8, rounding: u8) -> u64:
    """The zero that two opposite numbers add up to."""
    return zero(width, u8(1) if rounding == Rounding.DOWN else u8(0))


def add(width: u8, a: u64, b: u64, rounding: u8) -> tuple[u64, u8]:  # noqa: PLR0911
    """`a + b`."""
    kind_a, sign_a, exponent_a, significand_a = unpack(width, a)
    kind_b, sign_b, exponent_b, significand_b = unpack(width, b)
    if kind_a >= Kind.QUIET_NAN or kind_b >= Kind.QUIET_NAN:
        return nan_result(width, kind_a, kind_b)
    if kind_a == Kind.INFINITE:
        if kind_b == Kind.INFINITE and sign_a != sign_b:
            return canonical_nan(width), u8(Flag.INVALID)
        return a, u8(0)
    if kind_b == Kind.INFINITE:
        return b, u8(0)
    if kind_a == Kind.ZERO and kind_b == Kind.ZERO:
        return a if sign_a == sign_b else exact_zero(width, rounding), u8(0)
    if kind_a == Kind.ZERO:
        return b, u8(0)
    if kind_b == Kind.ZERO:
        return a, u8(0)
    return add_aligned(
        width,
        sign_a,
        exponent_a - 64,
        u128(significand_a) << 64,
        sign_b,
        exponent_b - 64,
        u128(significand_b) << 64,
        rounding,
    )


def add_aligned(
    width: u8, sign_a: u8, exponent_a: s32, a: u128, sign_b: u8, exponent_b: s32, b: u128, rounding: u8
) -> tuple[u64, u8]:
    """The sum of two finite numbers below 2^127 that have zero bits enough at the bottom to be shifted."""
    if exponent_a < exponent_b:
        a, b = b, a
        sign_a, sign_b = sign_b, sign_a
        exponent_a, exponent_b = exponent_b, exponent_a
    small, half, rest = cut(b, exponent_a - exponent_b, False)
    sticky = half or rest
    if sign_a == sign_b:
        return round_and_pack(width, sign_a, exponent_a, a + small, sticky, rounding)
    if a > small or (a == small and not sticky):
        difference = a - small - (u128(1) if sticky else u128(0))
        sign = sign_a
    else:
        difference = small - a
        sign = sign_b
    if difference == 0 and not sticky:
        return exact_zero(width, rounding), u8(0)
    return round_and_pack(width, sign, exponent_a, difference, sticky, rounding)


def subtract(width: u8, a: u64, b: u64, rounding: u8) -> tuple[u64, u8]:
    """`a - b`."""
    return add(width, a, b ^ zero(width, u8(1)), rounding)


def multiply(width: u8, a: u64, b: u64, rounding: u8) -> tuple[u64, u8]:
    """`a * b`."""
    kind_a, sign_a, exponent_a, significand_a = unpack(width, a)
    kind_b, sign_b, exponent_b, significand_b = unpack(width, b)
    sign = sign_a ^ sign_b
    if kind_a >= Kind.QUIET_NAN or kind_b >= Kind.QUIET_NAN:
        return nan_result(width, kind_a, kind_b)
    if Kind.INFINITE in (kind_a, kind_b):
        if Kind.ZERO in (kind_a, kind_b):
            return canonical_nan(width), u8(Flag.INVALID)
        return infinity(width, sign), u8(0)
    if Kind.ZERO in (kind_a, kind_b):
        return zero(width, sign), u8(0)
    product = u128(significand_a) * u128(significand_b)
    return round_and_pack(width, sign, exponent_a + exponent_b, product, False, rounding)


def divide(width: u8, a: u64, b: u64, rounding: u8) -> tuple[u64, u8]:
    """`a / b`."""
    kind_a, sign_a, exponent_a, significand_a = unpack(width, a)
    kind_b, sign_b, exponent_b, significand_b = unpack(width, b)
    sign = sign_a ^ sign_b
    if kind_a >= Kind.QUIET_NAN or kind_b >= Kind.QUIET_NAN:
        return nan_result(width, kind_a, kind_b)
    if kind_a == kind_b and kind_a != Kind.FINITE:
        return canonical_nan(width), u8(Flag.INVALID)
    if kind_a == Kind.INFINITE:
        return infinity(width, sign), u8(0)
    if kind_a == Kind.ZERO or kind_b == Kind.INFINITE:
        return zero(width, sign), u8(0)
    if kind_b == Kind.ZERO:
        return infinity(width, sign), u8(Flag.DIVIDE_BY_ZERO)
    shift_a = count_leading_zeros(significand_a)
    shift_b = count_leading_zeros(significand_b)
    rest = u128(significand_a << shift_a)
    divisor = u128(significand_b << shift_b)
    quotient = u128(0)
    for _ in range(u32(58)):
        quotient <<= 1
        if rest >= divisor:
            rest -= divisor
            quotient |= 1
        rest <<= 1
    exponent = exponent_a - s32(shift_a) - exponent_b + s32(shift_b) - 57
    return round_and_pack(width, sign, exponent, quotient, rest != 0, rounding)


def sqrt(width: u8, a: u64, rounding: u8) -> tuple[u64, u8]:
    """The square root of `a`."""
    kind, sign, exponent, significand = unpack(width, a)
    if kind >= Kind.QUIET_NAN:
        return nan_result(width, kind, kind)
    if kind == Kind.ZERO:
        return a, u8(0)
    if sign == 1:
        return canonical_nan(width), u8(Flag.INVALID)
    if kind == Kind.INFINITE:
        return a, u8(0)
    shift = s32(count_leading_zeros(significand)) + 62
    shift += (exponent - shift) & 1
    rest = u128(significand) << shift
    root = u128(0)
    bit = u128(1) << 126
    while bit != 0:
        if rest >= root + bit:
            rest -= root + bit
            root = (root >> 1) + bit
        else:
            root >>= 1
        bit >>= 2
    return round_and_pack(width, u8(0), (exponent - shift) >> 1, root, rest != 0, rounding)


def fma(width: u8, a: u64, b: u64, c: u64, rounding: u8) -> tuple[u64, u8]:  # noqa: PLR0911
    """`a * b + c`, rounded once."""
    kind_a, sign_a, exponent_a, significand_a = unpack(width, a)
    kind_b, sign_b, exponent_b, significand_b = unpack(width, b)
    kind_c, sign_c, exponent_c, significand_c = unpack(width, c)
    sign = sign_a ^ sign_b
    no_product = (kind_a == Kind.INFINITE and kind_b == Kind.ZERO) or (
        kind_a == Kind.ZERO and kind_b == Kind.INFINITE
    )
    if no_product:
        return canonical_nan(width), u8(Flag.INVALID)
    if kind_a >= Kind.QUIET_NAN or kind_b >= Kind.QUIET_NAN or kind_c >= Kind.QUIET_NAN:
        return nan_result(width, max(kind_a, kind_b), kind_c)
    if Kind.INFINITE in (kind_a, kind_b):
        if kind_c == Kind.INFINITE and sign_c != sign:
            return canonical_nan(width), u8(Flag.INVALID)
        return infinity(width, sign), u8(0)
    if kind_c == Kind.INFINITE:
        return c, u8(0)
    if Kind.ZERO in (kind_a, kind_b):
        if kind_c == Kind.ZERO and sign_c != sign:
            return exact_zero(width, rounding), u8(0)
        return c, u8(0)
    product = u128(significand_a) * u128(significand_b)
    if kind_c == Kind.ZERO:
        return round_and_pack(width, sign, exponent_a + exponent_b, product, False, rounding)
    # Leading bits to bit 126, so that what a shift loses is far below what rounding looks at.
    shift = count_leading_zeros(product) - 1
    shift_c = count_leading_zeros(u128(significand_c)) - 1
    return add_aligned(
        width,
        sign,
        exponent_a + exponent_b - s32(shift),
        product << shift,
        sign_c,
        exponent_c - s32(shift_c),
        u128(significand_c) << shift_c,
        rounding,
    )


def compare(width: u8, a: u64, b: u64, less: bool, equal: bool, quiet: bool) -> tuple[u64, u8]:
    """1 if `a < b` (where `less`) or `a == b` (where `equal`); NaNs compare false."""
    kind_a, sign_a, _, _ = unpack(width, a)
    kind_b, sign_b, _, _ = unpack(width, b)
    if kind_a >= Kind.QUIET_NAN or kind_b >= Kind.QUIET_NAN:
        signals = not quiet or Kind.SIGNALING_NAN in (kind_a, kind_b)
        return u64(0), u8(Flag.INVALID) if signals else u8(0)
    if a == b or (kind_a == Kind.ZERO and kind_b == Kind.ZERO):
        return u64(equal), u8(0)
    if sign_a != sign_b:
        return u64(less and sign_a == 1), u8(0)
    return u64(less and (a < b) == (sign_a == 0)), u8(0)


def convert(width: u8, target: u8, a: u64, rounding: u8) -> tuple[u64, u8]:
    """From one width to another."""
    kind, sign, exponent, significand = unpack(width, a)
    if kind >= Kind.QUIET_NAN:
        return nan_result(target, kind, kind)
    if kind == Kind.INFINITE:
        return infinity(target, sign), u8(0)
    if kind == Kind.ZERO:
        return zero(target, sign), u8(0)
    return round_and_pack(target, sign, exponent, u128(significand), False, rounding)


def to_integer(width: u8, bits: u8, signed: bool, a: u64, rounding: u8) -> tuple[u64, u8]:
    """To an integer of 32 or 64 bits, saturating; 32-bit results are sign-extended to 64."""
    kind, sign, exponent, significand = unpack(width, a)
    greatest = u64(0xFFFFFFFFFFFFFFFF) >> (u8(64) - bits + (u8(1) if signed else u8(0)))
    least = u64(1) << (bits - 1) if signed else u64(0)
    if kind >= Kind.QUIET_NAN:
        return extended(bits, greatest), u8(Flag.INVALID)
    limit = least if sign == 1 else greatest
    saturated = extended(bits, limit)
    if kind == Kind.INFINITE or exponent > 64:
        return saturated, u8(Flag.INVALID)
    if kind == Kind.ZERO:
        return u64(0), u8(0)
    kept, half, rest = cut(u128(significand), -exponent, False)
    if rounds_up(kept, half, rest, sign, rounding):
        kept += 1
    if kept > u128(limit):
        return saturated, u8(Flag.INVALID)
    magnitude = u64(kept)
    flags = u8(Flag.INEXACT) if half or rest else u8(0)
    return extended(bits, -magnitude if sign == 1 else magnitude), flags


def extended(bits: u8, value: u64) -> u64:
    """The low 32 bits sign-extended where `bits` is 32."""
    return u64(s32(value)) if bits == 32 else value


def from_integer(width: u8, bits: u8, signed: bool, a: u64, rounding: u8) -> tuple[u64, u8]:
    """From the integer in the low 32 or 64 bits of `a`."""
    value = a
    if bits == 32:
        value = u64(s32(a)) if signed else u64(u32(a))
    if value == 0:
        return u64(0), u8(0)
    negative = signed and s64(value) < 0
    magnitude = -value if negative else value
    return round_and_pack(width, u8(negative), s32(0), u128(magnitude), False, rounding)


def extreme(width: u8, a: u64, b: u64, greatest: bool) -> tuple[u64, u8]:
    """minimumNumber or maximumNumber: a number wins over a NaN, and -0 is less than +0."""
    kind_a, sign_a, _, _ = unpack(width, a)
    kind_b, sign_b, _, _ = unpack(width, b)
    flags = u8(Flag.INVALID) if Kind.SIGNALING_NAN in (kind_a, kind_b) else u8(0)
    if kind_a >= Kind.QUIET_NAN:
        return canonical_nan(width) if kind_b >= Kind.QUIET_NAN else b, flags
    if kind_b >= Kind.QUIET_NAN:
        return a, flags
    a_is_less = sign_a == 1 if sign_a != sign_b else (a < b) == (sign_a == 0)
    return a if a_is_less != greatest else b, flags
