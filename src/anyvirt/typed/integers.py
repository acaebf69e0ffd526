"""Fixed-width integers u8 ... u128 and s8 ... s128 (two's complement) as CPython runs them.

Every operation is total, so that compiled code has no undefined behaviour to differ in:

- results wrap to the width; operands have the same type, or one is a plain `int` that fits the other's width;
- shift amounts are taken modulo the width and may have any integer type;
- `//` and `%` truncate towards zero (as C, and as processors do); dividing by zero gives all ones and the
  dividend, the most negative number divided by -1 gives itself and 0 (RISC-V unprivileged ISA, M extension);
- a cast extends by the signedness of its *source* and truncates to the width of its target;
- a cast from a float truncates towards zero and saturates; a NaN becomes 0.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Self

from anyvirt.typed.errors import TypedPythonError

if TYPE_CHECKING:
    from anyvirt.typed.floats import FixedFloat


class FixedInteger:
    """What the ten integer types share; not a type of the language itself."""

    __slots__ = ("_value",)

    _value: int
    BITS: ClassVar[int]
    SIGNED: ClassVar[bool]
    MIN: ClassVar[int]
    MAX: ClassVar[int]

    def __init_subclass__(cls, *, bits: int, signed: bool) -> None:
        cls.BITS, cls.SIGNED = bits, signed
        cls.MIN, cls.MAX = (-1 << bits - 1, (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)

    def __init__(self, value: int | FixedInteger | FixedFloat = 0) -> None:
        if isinstance(value, int):
            number = value
        elif isinstance(value, FixedInteger):
            number = value._value
        else:
            number = self._saturated(float(value))
        number &= (1 << self.BITS) - 1
        self._value = number - (1 << self.BITS) if number > self.MAX else number

    @classmethod
    def _saturated(cls, value: float) -> int:
        if math.isnan(value):
            return 0
        if math.isinf(value):
            return cls.MAX if value > 0 else cls.MIN
        return min(max(int(value), cls.MIN), cls.MAX)

    def _operand(self, other: object, operation: str) -> int:
        """The number of the other operand, which must be of this type or a plain int that fits the width."""
        if type(other) is type(self):
            return other._value
        if isinstance(other, int) and not isinstance(other, bool):
            if not -1 << self.BITS - 1 <= other < 1 << self.BITS:
                raise TypedPythonError(f"{other} does not fit {type(self).__name__}")
            return type(self)(other)._value
        raise TypedPythonError(
            f"{type(self).__name__} {operation} {type(other).__name__}: cast one of them first"
        )

    def _shift(self, amount: int | FixedInteger) -> int:
        return int(amount) % self.BITS

    def __add__(self, other: Self | int) -> Self:
        return type(self)(self._value + self._operand(other, "+"))

    def __sub__(self, other: Self | int) -> Self:
        return type(self)(self._value - self._operand(other, "-"))

    def __mul__(self, other: Self | int) -> Self:
        return type(self)(self._value * self._operand(other, "*"))

    def __floordiv__(self, other: Self | int) -> Self:
        divisor = self._operand(other, "//")
        if divisor == 0:
            return type(self)(-1)
        quotient = abs(self._value) // abs(divisor)
        return type(self)(-quotient if (self._value < 0) != (divisor < 0) else quotient)

    def __mod__(self, other: Self | int) -> Self:
        divisor = self._operand(other, "%")
        if divisor == 0:
            return self
        remainder = abs(self._value) % abs(divisor)
        return type(self)(-remainder if self._value < 0 else remainder)

    def __and__(self, other: Self | int) -> Self:
        return type(self)(self._value & self._operand(other, "&"))

    def __or__(self, other: Self | int) -> Self:
        return type(self)(self._value | self._operand(other, "|"))

    def __xor__(self, other: Self | int) -> Self:
        return type(self)(self._value ^ self._operand(other, "^"))

    def __radd__(self, other: int) -> Self:
        return type(self)(self._operand(other, "+")) + self

    def __rsub__(self, other: int) -> Self:
        return type(self)(self._operand(other, "-")) - self

    def __rmul__(self, other: int) -> Self:
        return type(self)(self._operand(other, "*")) * self

    def __rfloordiv__(self, other: int) -> Self:
        return type(self)(self._operand(other, "//")) // self

    def __rmod__(self, other: int) -> Self:
        return type(self)(self._operand(other, "%")) % self

    def __rand__(self, other: int) -> Self:
        return type(self)(self._operand(other, "&")) & self

    def __ror__(self, other: int) -> Self:
        return type(self)(self._operand(other, "|")) | self

    def __rxor__(self, other: int) -> Self:
        return type(self)(self._operand(other, "^")) ^ self

    def __lshift__(self, amount: int | FixedInteger) -> Self:
        return type(self)(self._value << self._shift(amount))

    def __rshift__(self, amount: int | FixedInteger) -> Self:
        return type(self)(self._value >> self._shift(amount))

    def __neg__(self) -> Self:
        return type(self)(-self._value)

    def __invert__(self) -> Self:
        return type(self)(~self._value)

    def __eq__(self, other: object) -> bool:
        return self._value == self._operand(other, "==")

    def __lt__(self, other: Self | int) -> bool:
        return self._value < self._operand(other, "<")

    def __le__(self, other: Self | int) -> bool:
        return self._value <= self._operand(other, "<=")

    def __gt__(self, other: Self | int) -> bool:
        return self._value > self._operand(other, ">")

    def __ge__(self, other: Self | int) -> bool:
        return self._value >= self._operand(other, ">=")

    def __hash__(self) -> int:
        return hash(self._value)

    def __bool__(self) -> bool:
        raise TypedPythonError(f"{type(self).__name__} as a condition: compare it (with `!= 0`)")

    def __int__(self) -> int:
        return self._value

    def __index__(self) -> int:
        return self._value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._value})"


class u8(FixedInteger, bits=8, signed=False):
    """An unsigned integer of 8 bits."""

    __slots__ = ()


class u16(FixedInteger, bits=16, signed=False):
    """An unsigned integer of 16 bits."""

    __slots__ = ()


class u32(FixedInteger, bits=32, signed=False):
    """An unsigned integer of 32 bits."""

    __slots__ = ()


class u64(FixedInteger, bits=64, signed=False):
    """An unsigned integer of 64 bits."""

    __slots__ = ()


class u128(FixedInteger, bits=128, signed=False):
    """An unsigned integer of 128 bits; compiled code cannot divide it."""

    __slots__ = ()


class s8(FixedInteger, bits=8, signed=True):
    """A signed integer of 8 bits."""

    __slots__ = ()


class s16(FixedInteger, bits=16, signed=True):
    """A signed integer of 16 bits."""

    __slots__ = ()


class s32(FixedInteger, bits=32, signed=True):
    """A signed integer of 32 bits."""

    __slots__ = ()


class s64(FixedInteger, bits=64, signed=True):
    """A signed integer of 64 bits."""

    __slots__ = ()


class s128(FixedInteger, bits=128, signed=True):
    """A signed integer of 128 bits; compiled code cannot divide it."""

    __slots__ = ()
