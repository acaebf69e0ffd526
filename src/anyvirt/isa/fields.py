"""What instruction sets are described with: registers and state, fields of encodings, and operands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anyvirt.typed import u64

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class DescriptionError(Exception):
    """An instruction set contradicts itself: a mistake of its author, found when it is built."""


@dataclass(frozen=True, slots=True)
class RegisterFile:
    """A numbered set of registers; `zero` is the number of one that always reads 0, if any."""

    name: str
    count: int
    names: tuple[str, ...]
    zero: int | None = None
    width: int = 64
    """Bits, 32 or 64. Semantics read narrow registers extended to 64 bits and write their low bits."""
    signed: bool = True
    """Whether reading a narrow register extends its sign."""
    aliases: Mapping[str, int] = field(default_factory=dict)
    """Further names that assembly text may use."""
    zero_is_written: bool = True
    """Writes to the zero register have to be thrown away; otherwise no encoding has any."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """A piece of state that is no register file: a 64-bit value with a name and a start value."""

    name: str
    initial: int
    meaning: str


@dataclass(frozen=True, slots=True)
class ControlRegister:
    """A control and status register: its number, name and what it holds."""

    number: int
    name: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Field:
    """What the bits of a name in patterns mean."""

    name: str
    operand: str
    """The parameter of the semantics that gets it."""
    width: int | None
    """Bits; None if the pattern says (scattered immediates)."""
    signed: bool = False
    bias: int = 0
    """Added to the encoded number: registers 8 to 15 in three bits."""
    registers: str | None = None
    """The register file the number selects from."""
    excluded: tuple[int, ...] = ()
    """Values (after the bias) that this field never has."""
    show: Callable[[int], str] | None = None
    """How a disassembler writes the value, where that is not a plain number."""
    renamed: tuple[tuple[int, int], ...] = ()
    """Numbers that mean others: pairs of what is encoded and what that stands for."""
    formula: Callable[[u64], u64] | None = None
    """Typed function: the value that the encoded bits stand for."""
    extension: tuple[str, ...] = ()
    """Fields of the context (prefixes) whose bits stand above the encoded ones, lowest first."""
    from_end: bool = False
    """The number counts from the end of the instruction; semantics get it counted from `pc`."""
    structure: type | None = None
    """Semantics get the value as an object of this class; `members` says what its attributes are."""
    members: tuple[Field, ...] = ()
    constant: int | None = None
    """The value, whatever is encoded: an attribute that is always the same."""


@dataclass(frozen=True, slots=True)
class Part:
    """`width` bits of an instruction at bit `source` are bits from `target` up of an operand."""

    source: int
    target: int
    width: int


CONTEXT = 128
"""Bit of a word of a byte stream where the context begins: prefixes and mode (see `anyvirt.isa.contexts`)."""
MODE = "mode"
"""The state, and the field of the context, that says how bytes are decoded."""
PREFIX_COUNT = Part(CONTEXT, 0, 4)
"""Where such a word says how many bytes of prefixes the instruction has."""


@dataclass(frozen=True, slots=True)
class Operand:
    """How one operand is put together from an instruction, or which constant it is."""

    name: str
    field: Field
    parts: tuple[Part, ...] = ()
    fixed: int | None = None

    @property
    def width(self) -> int:
        """Bits from the highest encoded one down to bit 0."""
        return max(part.target + part.width for part in self.parts)

    @property
    def value_bits(self) -> int:
        """Bits that the value needs, one more for an unsigned value than for a signed one of as many."""
        if self.fixed is not None:
            return self.fixed.bit_length() + 1
        if self.field.formula is not None:
            return 64
        if self.field.renamed:
            return max(self.width, *(value.bit_length() for _, value in self.field.renamed))
        return self.width

    def extract(self, word: int) -> int:
        """The operand's value in an encoded instruction, sign-extended where signed."""
        if self.fixed is not None:
            return self.fixed
        value = 0
        for part in self.parts:
            value |= (word >> part.source & (1 << part.width) - 1) << part.target
        if self.field.signed and value >> self.width - 1:
            value -= 1 << self.width
        if self.field.formula is not None:
            return int(self.field.formula(u64(value)))
        value += self.field.bias
        if self.field.from_end:
            value += word >> PREFIX_COUNT.source & (1 << PREFIX_COUNT.width) - 1
        return dict(self.field.renamed).get(value, value)

    def show(self, value: int, registers: Mapping[str, RegisterFile]) -> str:
        """The operand as assembly text."""
        if self.field.show is not None:
            return self.field.show(value)
        if self.field.registers is not None:
            return registers[self.field.registers].names[value]
        return str(value)


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Values an operand must not have for a pattern to match."""

    operand: Operand
    values: tuple[int, ...]

    def rejects(self, word: int) -> bool:
        """Whether this encoded instruction has one of the values."""
        return self.operand.extract(word) in self.values
