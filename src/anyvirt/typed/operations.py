"""Operations of typed Python that are not operators: counting and rotating bits, encodings, roots, ranges."""

from __future__ import annotations

import builtins
import math
import struct
from fractions import Fraction
from typing import TYPE_CHECKING, TypeVar, overload

from anyvirt.typed.errors import TypedPythonError
from anyvirt.typed.floats import f32, f64, pack
from anyvirt.typed.integers import FixedInteger, u32, u64

if TYPE_CHECKING:
    from collections.abc import Iterator

Integer = TypeVar("Integer", bound=FixedInteger)
Float = TypeVar("Float", f32, f64)


def _pattern(value: FixedInteger) -> int:
    return int(value) & ((1 << value.BITS) - 1)


def count_leading_zeros(value: Integer) -> Integer:
    """How many zero bits stand above the highest one bit; the width for 0."""
    return type(value)(value.BITS - _pattern(value).bit_length())


def count_trailing_zeros(value: Integer) -> Integer:
    """How many zero bits stand below the lowest one bit; the width for 0."""
    pattern = _pattern(value)
    return type(value)((pattern & -pattern).bit_length() - 1 if pattern else value.BITS)


def count_ones(value: Integer) -> Integer:
    """How many bits are one."""
    return type(value)(_pattern(value).bit_count())


def byte_swap(value: Integer) -> Integer:
    """The bytes in reverse order (16 bits and more)."""
    size = value.BITS // 8
    return type(value)(int.from_bytes(_pattern(value).to_bytes(size, "little"), "big"))


def rotate_left(value: Integer, amount: Integer) -> Integer:
    """The bits moved up by `amount` modulo the width; what leaves at the top enters at the bottom."""
    count = int(amount) % value.BITS
    return type(value)(_pattern(value) << count | _pattern(value) >> (value.BITS - count))


def rotate_right(value: Integer, amount: Integer) -> Integer:
    """The bits moved down by `amount` modulo the width; what leaves at the bottom enters at the top."""
    return rotate_left(value, -amount)


@overload
def bits(value: f32) -> u32: ...
@overload
def bits(value: f64) -> u64: ...
def bits(value: f32 | f64) -> u32 | u64:
    """The IEEE 754 encoding of a float."""
    return u32(pack(value)) if isinstance(value, f32) else u64(pack(value))


def as_f32(pattern: u32) -> f32:
    """The float with this IEEE 754 encoding."""
    return f32(struct.unpack("<f", int(pattern).to_bytes(4, "little"))[0])


def as_f64(pattern: u64) -> f64:
    """The float with this IEEE 754 encoding."""
    return f64(struct.unpack("<d", int(pattern).to_bytes(8, "little"))[0])


def sqrt(value: Float) -> Float:
    """The square root; NaN for negative numbers."""
    number = float(value)
    return type(value)(math.sqrt(number) if number >= 0 or math.isnan(number) else math.nan)


def fma(a: Float, b: Float, c: Float) -> Float:
    """`a * b + c`, rounded once."""
    numbers = [float(number) for number in (a, b, c)]
    if math.isinf(numbers[2]) and math.isfinite(numbers[0]) and math.isfinite(numbers[1]):
        return c
    if not all(math.isfinite(number) for number in numbers):
        return type(a)(numbers[0] * numbers[1] + numbers[2])
    exact = Fraction(numbers[0]) * Fraction(numbers[1]) + Fraction(numbers[2])
    if exact == 0:
        return type(a)(numbers[0] * numbers[1] + numbers[2])
    return type(a)(_nearest(exact, 24 if isinstance(a, f32) else 53, -149 if isinstance(a, f32) else -1074))


def _nearest(exact: Fraction, precision: int, smallest: int) -> float:
    """Round to nearest-even at the given precision, with 2^smallest as the least subnormal number."""
    magnitude, sign = abs(exact), -1 if exact < 0 else 1
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if magnitude < Fraction(2) ** exponent:
        exponent -= 1
    unit = max(exponent - precision + 1, smallest)
    try:
        return sign * math.ldexp(round(magnitude / Fraction(2) ** unit), unit)
    except OverflowError:
        return sign * math.inf


@overload
def range(start: int, stop: int = ..., step: int = ..., /) -> Iterator[int]: ...
@overload
def range(start: Integer, stop: Integer | int = ..., step: int = ..., /) -> Iterator[Integer]: ...
def range(start, stop=None, step=1, /):  # type: ignore[no-untyped-def]
    """As the builtin, but bounds of a fixed-width type give loop variables of that type.

    `step` is a positive or negative constant. With plain int bounds the loop is unrolled when compiled.
    """
    first, last = (0, start) if stop is None else (start, stop)
    kind = next((type(bound) for bound in (first, last) if isinstance(bound, FixedInteger)), None)
    if kind is None:
        return iter(builtins.range(first, last, step))
    if isinstance(step, FixedInteger) or step == 0:
        raise TypedPythonError("the step of a range must be a constant other than 0")
    return (kind(value) for value in builtins.range(int(first), int(last), step))
