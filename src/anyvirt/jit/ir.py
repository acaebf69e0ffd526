"""LLVM IR as text: typed values and the body of one function under construction."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TypeAlias

from anyvirt.typed import FixedFloat, FixedInteger, TypedPythonError, f32, f64

ValueType: TypeAlias = type[FixedInteger] | type[FixedFloat] | type[bool]

LIKELY = ", !prof !0"
"""Branch annotation: the first target is taken nearly always. Modules end with `METADATA` for it."""
UNLIKELY = ", !prof !1"
"""Branch annotation: the second target is taken nearly always."""
METADATA = '!0 = !{!"branch_weights", i32 100000, i32 1}\n!1 = !{!"branch_weights", i32 1, i32 100000}\n'


@dataclass(frozen=True, slots=True)
class Value:
    """A run-time value: its name or constant in LLVM IR and its type in typed Python."""

    text: str
    type: ValueType

    @property
    def operand(self) -> str:
        """The value with its LLVM type, as instructions and arguments want it."""
        return f"{llvm_type(self.type)} {self.text}"


def llvm_type(kind: ValueType) -> str:
    """The LLVM type that holds a typed-Python type."""
    if kind is bool:
        return "i1"
    if issubclass(kind, FixedInteger):
        return f"i{kind.BITS}"
    return "float" if kind is f32 else "double"


def is_integer(kind: ValueType) -> bool:
    """Whether this is one of u8 ... s128."""
    return issubclass(kind, FixedInteger)


def is_signed(kind: ValueType) -> bool:
    """Whether this is one of s8 ... s128."""
    return issubclass(kind, FixedInteger) and kind.SIGNED


def bit_width(kind: ValueType) -> int:
    """Bits of a typed-Python type; 1 for bool."""
    return kind.BITS if issubclass(kind, FixedInteger | FixedFloat) else 1


def constant(value: FixedInteger | FixedFloat | bool) -> Value:
    """A typed constant."""
    if isinstance(value, bool):
        return Value("true" if value else "false", bool)
    if isinstance(value, FixedInteger):
        return Value(str(int(value)), type(value))
    # LLVM writes both widths as the hexadecimal image of a double.
    image = struct.unpack("<Q", struct.pack("<d", float(value)))[0]
    return Value(f"0x{image:016X}", type(value))


def literal(number: float, kind: ValueType) -> Value:
    """A plain Python number as a constant of the type it meets. Raises TypedPythonError."""
    if kind is bool:
        if isinstance(number, bool):
            return constant(number)
        raise TypedPythonError(f"{number!r} where a bool is wanted")
    if isinstance(number, bool) or isinstance(number, float) != issubclass(kind, FixedFloat):
        raise TypedPythonError(
            f"{number!r} where {kind.__name__} is wanted: write {kind.__name__}({number!r})"
        )
    if isinstance(number, int) and issubclass(kind, FixedInteger):
        if not -1 << kind.BITS - 1 <= number < 1 << kind.BITS:
            raise TypedPythonError(f"{number} does not fit {kind.__name__}")
        return constant(kind(number))
    return constant(f32(number) if kind is f32 else f64(number))


@dataclass(frozen=True, slots=True)
class Place:
    """How far a body had been written at some moment."""

    lines: int
    allocas: int


_FIRST = "entry.0"
"""The label of a function's first block: no Python name, for parameters have those of Python."""


class Body:
    """The instructions of a function under construction, one block open at a time."""

    def __init__(self) -> None:
        self.label = _FIRST
        self.closed = False
        """The open block has its terminator; what follows cannot be reached."""
        self._allocas: list[str] = []
        self._lines: list[str] = []
        self._count = 0

    def text(self) -> str:
        """All blocks, local variables first."""
        return "\n".join([f"{_FIRST}:", *self._allocas, *self._lines])

    def __len__(self) -> int:
        """Instructions and labels so far."""
        return len(self._lines)

    def part(self, start: int, end: int | None = None) -> list[str]:
        """The instructions and labels from one length to another."""
        return self._lines[start:end]

    def amend(self, place: int, old: str, new: str) -> None:
        """Replace text in the first instruction from `place` on that has it."""
        for position in range(place, len(self._lines)):
            if old in self._lines[position]:
                self._lines[position] = self._lines[position].replace(old, new, 1)
                return

    def fresh(self, hint: str = "t") -> str:
        """A name not used yet in this function, without its `%`."""
        self._count += 1
        return f"{hint}.{self._count}"

    def emit(self, instruction: str) -> str:
        """Append an instruction that has a result; returns the result's name."""
        name = f"%{self.fresh()}"
        self.effect(f"{name} = {instruction}")
        return name

    def value(self, instruction: str, kind: ValueType) -> Value:
        """Append an instruction whose result has the given type."""
        return Value(self.emit(instruction), kind)

    def effect(self, instruction: str) -> None:
        """Append an instruction without a result."""
        if not self.closed:
            self._lines.append(f"  {instruction}")

    def place(self) -> Place:
        """How far the body has been written."""
        return Place(len(self._lines), len(self._allocas))

    def rewind(self, place: Place) -> None:
        """Forget what was written behind a place in the block that was open there."""
        del self._lines[place.lines :]
        del self._allocas[place.allocas :]
        self.closed = False

    def local(self, llvm: str, hint: str) -> str:
        """Space for a local variable; returns its pointer."""
        name = f"%{self.fresh(hint)}"
        self._allocas.append(f"  {name} = alloca {llvm}")
        return name

    def open(self, label: str) -> None:
        """Start a block; the block before must be closed."""
        self._lines.append(f"{label}:")
        self.label, self.closed = label, False

    def close(self, terminator: str) -> None:
        """End the open block."""
        self.effect(terminator)
        self.closed = True

    def branch(self, label: str) -> None:
        """Continue at `label`."""
        self.close(f"br label %{label}")

    def branch_if(self, condition: Value | str, then: str, otherwise: str, *, hint: str = "") -> None:
        """Continue at one of two labels; `hint` is `LIKELY` or nothing."""
        text = condition if isinstance(condition, str) else condition.text
        self.close(f"br i1 {text}, label %{then}, label %{otherwise}{hint}")
