"""From operands to an encoded instruction: patterns backwards."""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import TYPE_CHECKING

from anyvirt.typed import u64

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from anyvirt.isa.description import InstructionSet
    from anyvirt.isa.fields import Operand
    from anyvirt.isa.patterns import Pattern

_MOST_TABULATED = 16
"""Bits of a number of which a formula's every result is computed to turn it round."""


class EncodingError(Exception):
    """An instruction that cannot be encoded: why, in a few words."""


def encode_operands(
    isa: InstructionSet, pattern: Pattern, values: Mapping[str, int], *, strict: bool = True
) -> bytes:
    """The bytes of an instruction with these operands; what is not given is 0 or the least that is allowed.

    Raises EncodingError where an operand does not fit, unless not `strict`: then only the length is right.
    """
    word = pattern.match
    for name, value in values.items():
        operand = pattern.by_name[name]
        try:
            word |= place(operand, encoded_number(operand, value, isa.address_bits))
        except EncodingError:
            if strict:
                raise
    if strict:
        _check_shared(pattern, values, word, isa.address_bits)
        word = _complete(isa, pattern, values, word)
    return instruction_bytes(isa, word, pattern.length)


def instruction_bytes(isa: InstructionSet, word: int, length: int) -> bytes:
    """An encoded instruction as it stands in memory: parcels one behind the other, the lowest first."""
    mask = (1 << 8 * isa.parcel) - 1
    return b"".join(
        (word >> 8 * position & mask).to_bytes(isa.parcel, isa.byte_order)
        for position in range(0, length, isa.parcel)
    )


def place(operand: Operand, number: int) -> int:
    """The bits of an encoded number where an instruction has them."""
    return sum((number >> part.target & (1 << part.width) - 1) << part.source for part in operand.parts)


def encoded_number(operand: Operand, value: int, bits: int) -> int:
    """The number to encode for an operand to have a value, which may also be given unsigned, of `bits` bits.

    Raises EncodingError.
    """
    for wanted in (value, value - (1 << bits), value - (1 << 64)):
        for number in _candidates(operand, wanted):
            if operand.extract(place(operand, number)) == wanted and wanted not in operand.field.excluded:
                return number
    raise EncodingError(f"{operand.name} cannot be {value}{_range(operand)}")


def _candidates(operand: Operand, value: int) -> Iterator[int]:
    """Numbers that may stand for a value."""
    if operand.fixed is not None:
        yield 0
        return
    if operand.field.formula is not None:
        yield from _inverse_of_formula(operand).get(value % (1 << 64), ())
        return
    for encoded, meaning in operand.field.renamed:
        if meaning == value:
            yield encoded - operand.field.bias
    yield value - operand.field.bias


@cache
def _inverse_of_formula(operand: Operand) -> dict[int, tuple[int, ...]]:
    """Which numbers give each value of a formula."""
    if operand.width > _MOST_TABULATED:
        return _Linear(operand)
    inverse: dict[int, tuple[int, ...]] = {}
    for number in range(1 << operand.width):
        value = operand.extract(place(operand, number))
        inverse[value] = (*inverse.get(value, ()), number)
    return inverse


class _Linear(dict[int, tuple[int, ...]]):
    """The inverse of a formula that only moves and repeats bits: each value bit is one encoded bit."""

    def __init__(self, operand: Operand) -> None:
        super().__init__()
        formula = operand.field.formula
        assert formula is not None
        constant = int(formula(u64(0)))
        self._constant = constant
        self._source: dict[int, int] = {}
        """Value bit: the encoded bit that it is a copy of."""
        for bit in range(operand.width):
            for position in range(64):
                if (int(formula(u64(1 << bit))) ^ constant) >> position & 1:
                    self._source.setdefault(position, bit)

    def get(self, value: int, default: object = ()) -> tuple[int, ...]:
        """The one number that may give a value; whether it does remains to be checked."""
        changed = value ^ self._constant
        number = 0
        for position, bit in self._source.items():
            number |= (changed >> position & 1) << bit
        return (number,)


def _range(operand: Operand) -> str:
    """What an operand can be, where that can be said."""
    field = operand.field
    if operand.fixed is not None:
        return f": this encoding has {operand.fixed}"
    if field.formula is not None or field.renamed or field.registers is not None:
        return ""
    step = 1 << min(part.target for part in operand.parts)
    top = 1 << operand.width
    low, high = (-(top >> 1), (top >> 1) - step) if field.signed else (0, top - step)
    steps = f" in steps of {step}" if step > 1 else ""
    others = f", but not {', '.join(map(str, field.excluded))}" if field.excluded else ""
    return f": it is {low + field.bias} to {high + field.bias}{steps}{others}"


def _check_shared(pattern: Pattern, values: Mapping[str, int], word: int, bits: int) -> None:
    """Operands that share bits of the encoding must agree about them."""
    for name, value in values.items():
        operand = pattern.by_name[name]
        if operand.extract(word) not in (value, value - (1 << bits), value - (1 << 64)):
            raise EncodingError(f"{name} must be the same as another operand")


def _complete(isa: InstructionSet, pattern: Pattern, values: Mapping[str, int], word: int) -> int:
    """Choose the operands that nobody gave so that the word is of this pattern."""
    taken = {bit for name in values for bit in _bits(pattern.by_name[name])}
    hidden = [
        operand
        for operand in pattern.operands
        if operand.fixed is None and operand.name not in values and not taken >= set(_bits(operand))
    ]
    choices = [range(min(8, 1 << operand.width)) for operand in hidden]
    for numbers in product(*choices):
        candidate = word
        for operand, number in zip(hidden, numbers, strict=True):
            candidate |= place(operand, number)
        if isa.find(candidate, pattern.length) is pattern:
            return candidate
    raise EncodingError("these operands are reserved, or mean another instruction")


def _bits(operand: Operand) -> Iterator[int]:
    for part in operand.parts:
        yield from range(part.source, part.source + part.width)
