"""IEEE 754 in typed Python against exact rationals rounded by the definition."""

import math
import struct
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyvirt.isa import ieee754
from anyvirt.isa.ieee754 import Flag, Rounding
from anyvirt.typed import u8, u64

FORMATS = {32: (24, 127), 64: (53, 1023)}
CANONICAL = {32: 0x7FC00000, 64: 0x7FF8000000000000}


def patterns(width):
    digits, bias = FORMATS[width]
    exponent = st.sampled_from([0, 1, 2, bias - 1, bias, bias + 1, 2 * bias - 1, 2 * bias, 2 * bias + 1])
    fraction = st.sampled_from([0, 1, (1 << digits - 1) - 1, 1 << digits - 2]) | st.integers(
        0, (1 << digits - 1) - 1
    )
    near = st.builds(
        lambda sign, high, low: sign << width - 1 | high << digits - 1 | low,
        st.integers(0, 1),
        exponent | st.integers(bias - digits, bias + digits),
        fraction,
    )
    return near | st.integers(0, (1 << width) - 1)


def value(width, pattern):
    """The exact number, or a float infinity or NaN."""
    code = {32: "<f", 64: "<d"}[width]
    number = struct.unpack(code, pattern.to_bytes(width // 8, "little"))[0]
    return Fraction(number) if math.isfinite(number) else number


def rounded(width, exact, mode, negative_zero=False):
    """The encoding and flags of an exact rational, straight from the definition."""
    digits, bias = FORMATS[width]
    sign = 1 if exact < 0 or (exact == 0 and negative_zero) else 0
    magnitude = abs(exact)
    if magnitude == 0:
        return sign << width - 1, 0
    exponent = floor_log2(magnitude)
    kept, inexact, unit = round_at(magnitude, max(exponent, 1 - bias) - digits + 1, mode, sign)
    flags = Flag.INEXACT if inexact else 0
    if kept * unit >= Fraction(2) ** (bias + 1):
        to_infinity = mode in (Rounding.NEAREST_EVEN, Rounding.NEAREST_AWAY) or (
            mode == (Rounding.DOWN if sign else Rounding.UP)
        )
        infinity = 2 * bias + 1 << digits - 1
        return sign << width - 1 | infinity - (not to_infinity), Flag.OVERFLOW | Flag.INEXACT
    unbounded, _, unbounded_unit = round_at(magnitude, exponent - digits + 1, mode, sign)
    if inexact and unbounded * unbounded_unit < Fraction(2) ** (1 - bias):
        flags |= Flag.UNDERFLOW
    if kept >> digits:
        kept, unit = kept >> 1, unit * 2
    field = 0 if kept >> digits - 1 == 0 else floor_log2(kept * unit) + bias
    return sign << width - 1 | field << digits - 1 | kept & (1 << digits - 1) - 1, flags


def floor_log2(magnitude):
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    return exponent if Fraction(2) ** exponent <= magnitude else exponent - 1


def round_at(magnitude, quantum, mode, sign):
    unit = Fraction(2) ** quantum
    scaled = magnitude / unit
    kept = int(scaled)
    rest = scaled - kept
    up = {
        Rounding.NEAREST_EVEN: rest > Fraction(1, 2) or (rest == Fraction(1, 2) and kept % 2 == 1),
        Rounding.TOWARDS_ZERO: False,
        Rounding.DOWN: rest > 0 and sign == 1,
        Rounding.UP: rest > 0 and sign == 0,
        Rounding.NEAREST_AWAY: rest >= Fraction(1, 2),
    }[mode]
    return kept + up, rest != 0, unit


def is_number(*operands):
    return all(isinstance(operand, Fraction) for operand in operands)


def outcome(result):
    return int(result[0]), int(result[1])


modes = st.sampled_from(list(Rounding))
cases = st.sampled_from([32, 64]).flatmap(
    lambda width: st.tuples(st.just(width), patterns(width), patterns(width), patterns(width), modes)
)


@settings(max_examples=400, deadline=None)
@given(cases)
def test_finite_arithmetic(case):
    width, a, b, c, mode = case
    x, y, z = (value(width, pattern) for pattern in (a, b, c))
    w, m = u8(width), u8(mode)
    signs = [pattern >> width - 1 for pattern in (a, b, c)]
    if is_number(x, y):
        # The sign of an exact zero: that of both operands, else of the rounding mode.
        for operation, other, second in ((ieee754.add, y, signs[1]), (ieee754.subtract, -y, 1 - signs[1])):
            both = signs[0] == second if x == 0 and other == 0 else None
            negative = bool(signs[0]) if both else mode == Rounding.DOWN
            assert outcome(operation(w, u64(a), u64(b), m)) == rounded(width, x + other, mode, negative)
        negative = signs[0] != signs[1]
        assert outcome(ieee754.multiply(w, u64(a), u64(b), m)) == rounded(width, x * y, mode, negative)
        if y != 0:
            assert outcome(ieee754.divide(w, u64(a), u64(b), m)) == rounded(width, x / y, mode, negative)
    if is_number(x, y, z):
        product_sign = signs[0] ^ signs[1]
        exact = x * y + z
        negative = (
            bool(product_sign)
            if x * y == 0 and z == 0 and product_sign == signs[2]
            else mode == Rounding.DOWN
        )
        assert outcome(ieee754.fma(w, u64(a), u64(b), u64(c), m)) == rounded(width, exact, mode, negative)


@settings(max_examples=200, deadline=None)
@given(cases)
def test_roots_are_the_nearest_from_the_right_side(case):
    width, a, _, _, mode = case
    x = value(width, a)
    if not is_number(x) or x <= 0:
        return
    result, flags = outcome(ieee754.sqrt(u8(width), u64(a), u8(mode)))
    root = value(width, result)
    exact = root * root == x
    assert flags == (0 if exact else Flag.INEXACT)
    below = root if root * root <= x else value(width, result - 1)
    above = root if root * root >= x else value(width, result + 1)
    assert below * below <= x <= above * above
    middle = (below + above) / 2
    if exact or mode in (Rounding.TOWARDS_ZERO, Rounding.DOWN):
        assert root == below
    elif mode == Rounding.UP:
        assert root == above
    else:
        assert root == (above if middle * middle < x else below)


@settings(max_examples=200, deadline=None)
@given(cases)
def test_conversions(case):
    width, a, b, _, mode = case
    x = value(width, a)
    other = 96 - width
    if is_number(x):
        expected = rounded(other, x, mode, bool(a >> width - 1))
        assert outcome(ieee754.convert(u8(width), u8(other), u64(a), u8(mode))) == expected
    for bits in (32, 64):
        for signed in (False, True):
            low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
            result, flags = outcome(ieee754.to_integer(u8(width), u8(bits), signed, u64(a), u8(mode)))
            if is_number(x):
                kept, inexact, _ = round_at(abs(x), 0, mode, int(x < 0))
                number = -kept if x < 0 else kept
                limited = min(max(number, low), high)
                expected_flags = Flag.INVALID if limited != number else Flag.INEXACT if inexact else 0
            else:
                limited, expected_flags = low if x == -math.inf else high, Flag.INVALID
            extended = (limited + (1 << 31)) % (1 << 32) - (1 << 31) if bits == 32 else limited
            assert (result, flags) == (extended % (1 << 64), expected_flags)
            integer = b % (1 << bits)
            integer -= (1 << bits) * (signed and integer >> bits - 1)
            source = u64(b % (1 << 64))
            assert outcome(ieee754.from_integer(u8(width), u8(bits), signed, source, u8(mode))) == rounded(
                width, Fraction(integer), mode
            )


@settings(max_examples=200, deadline=None)
@given(cases)
def test_comparisons_and_extremes(case):
    width, a, b, _, _ = case
    x, y = value(width, a), value(width, b)
    digits, _ = FORMATS[width]
    quiet_bit = 1 << digits - 2
    nans = [pattern for pattern, number in ((a, x), (b, y)) if not is_number(number) and math.isnan(number)]
    signaling = any(not pattern & quiet_bit for pattern in nans)
    for less, equal, quiet, expected in (
        (True, False, False, x < y), (True, True, False, x <= y), (False, True, True, x == y),
    ):  # fmt: skip
        result, flags = outcome(ieee754.compare(u8(width), u64(a), u64(b), less, equal, quiet))
        assert result == (not nans and expected)
        assert flags == (Flag.INVALID if signaling or (nans and not quiet) else 0)
    for greatest in (False, True):
        result, flags = outcome(ieee754.extreme(u8(width), u64(a), u64(b), greatest))
        assert flags == (Flag.INVALID if signaling else 0)
        if len(nans) == 2:
            assert result == CANONICAL[width]
        elif nans:
            assert result == (b if nans[0] == a else a)
        elif x == y == 0:
            signs = (a >> width - 1, b >> width - 1)
            assert result >> width - 1 == (min if greatest else max)(signs)
        else:
            assert value(width, result) == (max if greatest else min)(x, y)


@pytest.mark.parametrize("width", [32, 64])
def test_special_cases(width):
    digits, bias = FORMATS[width]
    infinity = 2 * bias + 1 << digits - 1
    sign = 1 << width - 1
    one = bias << digits - 1
    signaling, quiet = infinity + 1, infinity | 1 << digits - 2
    nan = CANONICAL[width]
    w, m = u8(width), u8(0)
    for operation, operands, expected in (
        (ieee754.add, (infinity, infinity | sign), (nan, Flag.INVALID)),
        (ieee754.add, (infinity, one), (infinity, 0)),
        (ieee754.add, (signaling, one), (nan, Flag.INVALID)),
        (ieee754.add, (quiet, one), (nan, 0)),
        (ieee754.subtract, (infinity, infinity), (nan, Flag.INVALID)),
        (ieee754.multiply, (infinity, sign), (nan, Flag.INVALID)),
        (ieee754.multiply, (infinity | sign, one), (infinity | sign, 0)),
        (ieee754.divide, (one, sign), (infinity | sign, Flag.DIVIDE_BY_ZERO)),
        (ieee754.divide, (0, 0), (nan, Flag.INVALID)),
        (ieee754.divide, (infinity, infinity), (nan, Flag.INVALID)),
        (ieee754.divide, (one | sign, infinity), (sign, 0)),
        (ieee754.sqrt, (one | sign,), (nan, Flag.INVALID)),
        (ieee754.sqrt, (sign,), (sign, 0)),
        (ieee754.sqrt, (infinity,), (infinity, 0)),
        (ieee754.fma, (infinity, 0, quiet), (nan, Flag.INVALID)),
        (ieee754.fma, (infinity, one, infinity | sign), (nan, Flag.INVALID)),
        (ieee754.fma, (one, one, infinity | sign), (infinity | sign, 0)),
        (ieee754.fma, (one, one, quiet), (nan, 0)),
    ):
        assert outcome(operation(w, *(u64(operand) for operand in operands), m)) == expected, operation
