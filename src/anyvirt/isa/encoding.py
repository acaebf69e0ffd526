"""From operands to an encoded instruction: patterns backwards."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product
from typing import TYPE_CHECKING

from anyvirt.isa.fields import CONTEXT, MODE, PREFIX_COUNT
from anyvirt.typed import u64

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from anyvirt.isa.contexts import Context
    from anyvirt.isa.description import InstructionSet
    from anyvirt.isa.fields import Operand
    from anyvirt.isa.patterns import Pattern

COUNT_MASK = (1 << PREFIX_COUNT.width) - 1
PREFIX_COUNT_BITS = COUNT_MASK << PREFIX_COUNT.source
_MOST_PREFIXES = 3
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
    word = _with_operands(isa, pattern, values, pattern.match, strict=strict)
    prefixes = b""
    if isa.context is not None:
        prefixes = _prefixes(isa, isa.context, pattern, values, word)
        if prefixes:
            # Distances from the end of an instruction depend on how many prefixes it has.
            start = pattern.match | len(prefixes) << PREFIX_COUNT.source
            word = _with_operands(isa, pattern, values, start, strict=strict)
    if not strict:
        return prefixes + instruction_bytes(isa, word, pattern.length)
    if isa.context is None:
        _check_shared(pattern, values, word, isa.address_bits)
        return instruction_bytes(isa, _complete(isa, pattern, values, word), pattern.length)
    code = prefixes + instruction_bytes(isa, word, pattern.length)
    found = isa.decode(code, default_mode(isa))
    if found is None or found.length != len(code) or isa.find(found.word, found.length) is not pattern:
        raise EncodingError("these operands are reserved, or mean another instruction")
    _check_shared(pattern, values, found.word, isa.address_bits)
    return code


def default_mode(isa: InstructionSet) -> int:
    """The mode of the processor that code is assembled for: the one at reset."""
    mode = isa.scalars.get(MODE)
    return mode.initial if mode is not None else 0


def _with_operands(
    isa: InstructionSet, pattern: Pattern, values: Mapping[str, int], word: int, *, strict: bool
) -> int:
    """A word with what encodes the operands put in."""
    count = word & PREFIX_COUNT_BITS
    for name, value in values.items():
        operand = pattern.by_name[name]
        try:
            word |= place(operand, encoded_number(operand, value, isa.address_bits, count))
        except EncodingError:
            if strict:
                raise
    return word


def _prefixes(
    isa: InstructionSet, context: Context, pattern: Pattern, values: Mapping[str, int], word: int
) -> bytes:
    """The prefixes that a word of a byte stream needs."""
    needed = pattern.mask
    for name in values:
        needed |= place(pattern.by_name[name], -1)
    table = _prefix_table(context, default_mode(isa), needed >> CONTEXT & ~COUNT_MASK)
    found = table.get((word & needed) >> CONTEXT & ~COUNT_MASK)
    if found is None:
        raise EncodingError("no prefixes give these operands")
    return found


@cache
def _prefix_table(context: Context, mode: int, mask: int) -> dict[int, bytes]:
    """The fewest prefixes for each value that the bits of the context in a mask can have."""
    table: dict[int, bytes] = {}
    for found, prefixes in _contexts(context, mode).items():
        table.setdefault(found & mask, prefixes)
    return table


@cache
def _contexts(context: Context, mode: int) -> dict[int, bytes]:
    """The contexts after up to three prefixes, with the fewest for each; those with fewer come first."""
    choices = [
        prefix.match | sum((chosen >> number & 1) << bit for number, (bit, _) in enumerate(prefix.taken))
        for prefix in context.prefixes
        for chosen in range(1 << len(prefix.taken))
    ]
    found: dict[int, bytes] = {}
    newest = [b""]
    for count in range(_MOST_PREFIXES + 1):
        longer = []
        for code in newest:
            after = context.read(code.ljust(context.longest, b"\x90"), mode)
            if after is not None and after[1] == count and after[0] & ~COUNT_MASK not in found:
                found[after[0] & ~COUNT_MASK] = code
                longer += [code + bytes([choice]) for choice in choices]
        newest = longer
    return found


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


def encoded_number(operand: Operand, value: int, bits: int, context: int = 0) -> int:
    """The number to encode for an operand to have a value, which may also be given unsigned, of `bits` bits.

    `context` are further bits of the word on which the value depends. Raises EncodingError.
    """
    distance = operand.extract(context) - operand.extract(0) if context else 0
    for wanted in (value, value - (1 << bits), value - (1 << 64)):
        for number in _candidates(operand, wanted - distance):
            word = place(operand, number) | context
            if operand.extract(word) == wanted and wanted not in operand.field.excluded:
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


def all_numbers(operand: Operand) -> Iterator[int]:
    """Every number that the bits of an operand can encode."""
    bits = sorted({bit for part in operand.parts for bit in range(part.target, part.target + part.width)})
    for choice in range(1 << len(bits)):
        yield sum((choice >> position & 1) << bit for position, bit in enumerate(bits))


def encoded_bits(operand: Operand) -> int:
    """How many bits encode an operand."""
    return len({bit for part in operand.parts for bit in range(part.target, part.target + part.width)})


def normalized(operand: Operand) -> Operand:
    """An operand of the same values whose bits are in order from bit 0 on, whatever encoding it is of."""
    parts = sorted(
        {replace(part, source=part.target) for part in operand.parts}, key=lambda part: part.target
    )
    return replace(operand, name="", parts=tuple(parts))


def _inverse_of_formula(operand: Operand) -> dict[int, tuple[int, ...]]:
    """Which numbers give each value of a formula."""
    return _tabulated(normalized(operand))


@cache
def _tabulated(operand: Operand) -> dict[int, tuple[int, ...]]:
    if encoded_bits(operand) > _MOST_TABULATED:
        return _Linear(operand)
    inverse: dict[int, tuple[int, ...]] = {}
    for number in all_numbers(operand):
        value = operand.extract(number)
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
