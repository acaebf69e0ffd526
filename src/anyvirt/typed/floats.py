"""IEEE 754 numbers f32 and f64, rounding to nearest-even, as CPython runs them.

Division by zero gives an infinity or a NaN, and nothing traps. Which bits a NaN result has is left to the
processor. Instruction semantics that need other rounding modes, flags or exact NaNs do not use these
operators but the operations in `anyvirt.isa.ieee754`.
"""

from __future__ import annotations

import ctypes
import math
import struct
from typing import ClassVar, Self

from anyvirt.typed.errors import TypedPythonError
from anyvirt.typed.integers import FixedInteger


class FixedFloat:
    """What the two floating-point types share; not a type of the language itself."""

    __slots__ = ("_value",)

    _value: float
    BITS: ClassVar[int]

    def __init__(self, value: float | FixedInteger | FixedFloat = 0.0) -> None:
        number = value._value if isinstance(value, FixedFloat) else value
        self._value = self._rounded(int(number) if isinstance(number, FixedInteger) else number)

    @classmethod
    def _rounded(cls, value: float) -> float:
        raise NotImplementedError

    def _operand(self, other: object, operation: str) -> float:
        if type(other) is type(self):
            return other._value
        if isinstance(other, float):
            return self._rounded(other)
        raise TypedPythonError(
            f"{type(self).__name__} {operation} {type(other).__name__}: cast one of them first"
        )

    def __add__(self, other: Self | float) -> Self:
        return type(self)(self._value + self._operand(other, "+"))

    def __sub__(self, other: Self | float) -> Self:
        return type(self)(self._value - self._operand(other, "-"))

    def __mul__(self, other: Self | float) -> Self:
        return type(self)(self._value * self._operand(other, "*"))

    def __truediv__(self, other: Self | float) -> Self:
        divisor = self._operand(other, "/")
        if divisor == 0.0:
            if self._value == 0.0 or math.isnan(self._value):
                return type(self)(math.nan)
            return type(self)(math.copysign(math.inf, self._value) * math.copysign(1.0, divisor))
        return type(self)(self._value / divisor)

    def __radd__(self, other: float) -> Self:
        return type(self)(self._operand(other, "+")) + self

    def __rsub__(self, other: float) -> Self:
        return type(self)(self._operand(other, "-")) - self

    def __rmul__(self, other: float) -> Self:
        return type(self)(self._operand(other, "*")) * self

    def __rtruediv__(self, other: float) -> Self:
        return type(self)(self._operand(other, "/")) / self

    def __neg__(self) -> Self:
        return type(self)(-self._value)

    def __abs__(self) -> Self:
        return type(self)(abs(self._value))

    def __eq__(self, other: object) -> bool:
        return self._value == self._operand(other, "==")

    def __lt__(self, other: Self | float) -> bool:
        return self._value < self._operand(other, "<")

    def __le__(self, other: Self | float) -> bool:
        return self._value <= self._operand(other, "<=")

    def __gt__(self, other: Self | float) -> bool:
        return self._value > self._operand(other, ">")

    def __ge__(self, other: Self | float) -> bool:
        return self._value >= self._operand(other, ">=")

    def __hash__(self) -> int:
        return hash(self._value)

    def __bool__(self) -> bool:
        raise TypedPythonError(f"{type(self).__name__} as a condition: compare it (with `!= 0.0`)")

    def __float__(self) -> float:
        return self._value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._value})"


class f32(FixedFloat):
    """An IEEE 754 binary32 number."""

    __slots__ = ()
    BITS = 32

    @classmethod
    def _rounded(cls, value: float) -> float:
        if isinstance(value, int):
            return _nearest_f32(value)
        # Rounding twice (to double, then to single) is harmless for + - * / and sqrt (Figueroa 1995).
        return ctypes.c_float(value).value


class f64(FixedFloat):
    """An IEEE 754 binary64 number."""

    __slots__ = ()
    BITS = 64

    @classmethod
    def _rounded(cls, value: float) -> float:
        return float(value)


def _nearest_f32(value: int) -> float:
    """An integer rounded once: what does not fit 32 bits is first reduced with its lost bits kept sticky."""
    excess = max(abs(value).bit_length() - 32, 0)
    magnitude = abs(value) >> excess
    if magnitude << excess != abs(value):
        magnitude |= 1
    rounded = ctypes.c_float(float(magnitude)).value * 2.0**excess
    # The scaling is exact; the outer conversion makes an infinity of what rounds up to 2**128.
    return math.copysign(ctypes.c_float(rounded).value, value)


def pack(value: FixedFloat) -> int:
    """The encoding of a float as an integer of the same width."""
    code = "<f" if value.BITS == 32 else "<d"
    return int.from_bytes(struct.pack(code, float(value)), "little")
