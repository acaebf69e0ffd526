"""Patterns: the bits of an encoding, as text that reads like the manual and as masks that machines compare.

An encoded instruction is a number, its word. Where instructions are words of fixed sizes that is the word
itself, and a pattern reads from its most significant bit. Where they are streams of bytes the word is the
bytes behind the prefixes, first byte lowest, and from bit `CONTEXT` up what prefixes and the mode of the
processor say (see `anyvirt.isa.contexts`); a pattern reads byte by byte, each from its most significant bit,
and a field of several bytes has its low byte first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from anyvirt.isa.fields import CONTEXT, DescriptionError, Exclusion, Field, Operand, Part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_TOKEN = re.compile(
    r"(?:(?P<role>[A-Za-z]\w*):)?(?:(?P<form>[A-Z])\((?P<filling>[^()]*)\)"
    r"|(?P<names>[A-Za-z][\w'/]*)(?:\[(?P<ranges>[\d:|]+)\])?|(?P<digits>[01.-]+))"
)
_FORM_BITS = 8
"""A form begins with a byte part of which belongs to the instruction."""


@dataclass(frozen=True)
class Place:
    """Bits of an instruction that a field fills, for the operand `role`."""

    role: str
    field: Field
    part: Part

    def moved(self, bits: int) -> Place:
        """The same, `bits` higher up."""
        return replace(self, part=replace(self.part, source=self.part.source + bits))


@dataclass(frozen=True)
class FormUse:
    """Where a pattern has a form: its name, the operand it is, and the byte it begins with."""

    form: str
    role: str
    position: int


@dataclass(frozen=True)
class Bits:
    """A parsed pattern text."""

    mask: int = 0
    match: int = 0
    length: int = 0
    """Bytes; up to the first byte of a form, if there is one."""
    places: tuple[Place, ...] = ()
    form: FormUse | None = None
    tail: tuple[Place, ...] = ()
    """What stands behind the form, with bits counted from its end."""
    tail_length: int = 0
    hole: int = 0
    """Bits (`.`) of a form's first byte that are left to the instruction."""


class PatternParser:
    """Reads pattern texts with the fields that an instruction set has declared."""

    def __init__(self, fields: Mapping[str, Field], holes: Mapping[str, int], *, stream: bool) -> None:
        """`holes` says of each form which bits of its first byte belong to instructions."""
        self._fields = fields
        self._holes = holes
        self._stream = stream

    def parse(self, text: str) -> Bits:
        """The bits of a pattern. Raises DescriptionError or KeyError for unknown fields."""
        before, form, behind = self._split(text)
        head = self._run(before)
        if form is None:
            return head
        if head.length * 8 % _FORM_BITS or not self._stream:
            raise DescriptionError("a form begins with a byte of its own, in a stream of bytes")
        tail = self._run(behind)
        if tail.mask:
            raise DescriptionError("only fields can follow a form")
        first = self._filling(form["filling"], self._holes[form["form"]])
        return Bits(
            head.mask | first.mask << 8 * head.length,
            head.match | first.match << 8 * head.length,
            head.length + 1,
            (*head.places, *(place.moved(8 * head.length) for place in first.places)),
            FormUse(form["form"], form["role"] or form["form"], head.length),
            tail.places,
            tail.length,
        )

    @staticmethod
    def _split(text: str) -> tuple[list[re.Match[str]], re.Match[str] | None, list[re.Match[str]]]:
        """Tokens before a form, the form, and those behind it."""
        tokens = []
        for word in text.split():
            token = _TOKEN.fullmatch(word)
            if token is None:
                raise DescriptionError("this is no pattern")
            tokens.append(token)
        for position, token in enumerate(tokens):
            if token["form"]:
                return tokens[:position], token, tokens[position + 1 :]
        return tokens, None, []

    def _filling(self, text: str, hole: int) -> Bits:
        """The byte that a form begins with, as far as the instruction says what it is."""
        token = _TOKEN.fullmatch(text)
        if token is None or token["form"]:
            raise DescriptionError(f"{text!r} cannot fill a form")
        if self._token_places(token)[0] != hole.bit_count():
            raise DescriptionError(f"{text!r} does not fill the {hole.bit_count()} bits of the form")
        return self._run([token], start=_FORM_BITS - hole.bit_length(), width=_FORM_BITS)

    def _run(self, tokens: list[re.Match[str]], start: int = 0, width: int | None = None) -> Bits:
        """Tokens one behind the other, from bit `start` of the reading direction on."""
        sized = [(token, *self._token_places(token)) for token in tokens]
        total = start + sum(size for _, size, _ in sized)
        width = total if width is None else width
        if width % 8 or not (width or self._stream):
            raise DescriptionError(f"{width} bits are no whole number of bytes")
        read, mask, match, hole, places = start, 0, 0, 0, []
        for token, size, fragments in sized:
            for offset, digit in enumerate(token["digits"] or ""):
                bit = 1 << self._lowest(read + offset, 1, width)
                mask |= bit * (digit in "01")
                match |= bit * (digit == "1")
                hole |= bit * (digit == ".")
            lowest = self._lowest(read, size, width) if fragments else 0
            places += [place.moved(lowest) for place in fragments]
            read += size
        return Bits(mask, match, width // 8, tuple(places), hole=hole)

    def _lowest(self, read: int, size: int, width: int) -> int:
        """The lowest bit of `size` bits, before which `read` bits are read."""
        if not self._stream:
            return width - read - size
        if size > 8:
            if read % 8 or size % 8:
                raise DescriptionError("a field of several bytes begins and ends with a byte")
            return read
        if read // 8 != (read + size - 1) // 8:
            raise DescriptionError("a field must not reach into the next byte")
        return read // 8 * 8 + 8 - read % 8 - size

    def _token_places(self, token: re.Match[str]) -> tuple[int, list[Place]]:
        """Bits a token takes, and the parts of fields in it relative to the token's lowest bit."""
        if token["digits"]:
            return len(token["digits"]), []
        fields = [self._fields[name] for name in token["names"].split("/")]
        spans = []
        for span in (token["ranges"] or f"{(fields[0].width or 0) - 1}:0").split("|"):
            high, _, low = span.partition(":")
            spans.append((int(high), int(low or high)))
        if spans[0][0] < 0:
            raise DescriptionError(f"{token['names']} needs its bits named")
        total = sum(high - low + 1 for high, low in spans)
        position, places = total, []
        for high, low in spans:
            position -= high - low + 1
            part = Part(position, low, high - low + 1)
            places += [Place(token["role"] or item.operand, item, part) for item in fields]
        return total, places


@dataclass(frozen=True, eq=False)
class Form:
    """One of the shapes of a form: an addressing mode."""

    bits: Bits
    operands: tuple[Operand, ...]
    shown: tuple[Operand, ...]
    """What only the assembly form names."""
    exclusions: tuple[Exclusion, ...]
    assembly: str
    structure: type
    """Class of the object that semantics get; its attributes are the operands."""

    @property
    def length(self) -> int:
        """Bytes, the first one included, which it shares with the instruction."""
        return self.bits.length

    def matches(self, word: int) -> bool:
        """Whether a word whose lowest byte is the form's first has this shape."""
        mask, match = self.bits.mask, self.bits.match
        return word & mask == match and not any(rule.rejects(word) for rule in self.exclusions)


@dataclass(frozen=True)
class Handler:
    """What one piece of compiled code executes: semantics with all that is known when compiling."""

    semantics: Callable[..., None]
    length: int
    """Bytes of the instruction; 0 if the record says how many."""
    constants: tuple[tuple[str, int], ...] = ()
    structures: tuple[tuple[str, type], ...] = ()
    """Operands that are objects, and of which class."""
    form: str = ""
    """The one of them that is a form."""


@dataclass(frozen=True, eq=False)
class Pattern:
    """One encoding of an instruction."""

    length: int
    """Bytes, without prefixes and without what a form adds to its first byte."""
    mask: int
    match: int
    operands: tuple[Operand, ...]
    exclusions: tuple[Exclusion, ...]
    assembly: str
    semantics: Callable[..., None]
    source: str
    extension: str = ""
    """The part of the instruction set that it belongs to."""
    constants: tuple[tuple[str, int], ...] = ()
    """Parameters of the semantics that are known when compiling: an operand size."""
    structures: tuple[tuple[str, type], ...] = ()
    """Parameters that are objects, whose attributes are the operands named PARAMETER_ATTRIBUTE."""
    shown: tuple[Operand, ...] = ()
    """What assembly forms call by the name of such a parameter."""
    form: FormUse | None = None
    forms: tuple[Form, ...] = ()
    """The shapes of the form."""
    tail: tuple[Operand, ...] = ()
    """Operands behind the form, with bits counted from its end."""
    shown_tail: tuple[Operand, ...] = ()
    tail_length: int = 0
    stream: bool = False
    origin: Pattern | None = None
    """The pattern with a form that this one was made from."""
    _whole: dict[Form, Pattern] = field(default_factory=dict, repr=False)

    @property
    def mnemonic(self) -> str:
        """The first word of the assembly form."""
        return self.assembly.split()[0].partition("{")[0]

    def matches(self, word: int) -> bool:
        """Whether an encoded instruction is of this form."""
        return word & self.mask == self.match and not any(rule.rejects(word) for rule in self.exclusions)

    @cached_property
    def by_name(self) -> dict[str, Operand]:
        """Operands by name."""
        return {operand.name: operand for operand in (*self.operands, *self.shown)}

    def decode(self, word: int) -> dict[str, int]:
        """The values of all operands."""
        return {operand.name: operand.extract(word) for operand in self.operands}

    # Forms ----------------------------------------------------------------------------------------------

    def resolve(self, word: int) -> Pattern | None:
        """This pattern with the shape that its form has in a word; itself if it has no form."""
        if self.form is None:
            return self
        context = word >> CONTEXT << CONTEXT
        rest = context | (word & (1 << CONTEXT) - 1) >> 8 * self.form.position
        for shape in self.forms:
            if shape.matches(rest):
                return self.with_form(shape)
        return None

    def with_form(self, shape: Form) -> Pattern:
        """The pattern without a form that results from choosing a shape."""
        if shape not in self._whole:
            self._whole[shape] = self._with_form(shape)
        return self._whole[shape]

    def _with_form(self, shape: Form) -> Pattern:
        assert self.form is not None
        distance, role = 8 * self.form.position, self.form.role
        own, text = (
            [replace(moved(operand, distance), name=f"{role}_{operand.name}") for operand in operands]
            for operands in (shape.operands, shape.shown)
        )
        rules = [Exclusion(moved(rule.operand, distance), rule.values) for rule in shape.exclusions]
        end = self.form.position + shape.length
        stream = (1 << CONTEXT) - 1
        assembly = re.sub(r"\{(\w+)\}", rf"{{{role}_\1}}", shape.assembly)
        whole = replace(
            self,
            length=end + self.tail_length,
            mask=self.mask | (shape.bits.mask & stream) << distance | shape.bits.mask & ~stream,
            match=self.match | (shape.bits.match & stream) << distance | shape.bits.match & ~stream,
            operands=(*self.operands, *own, *(moved(operand, 8 * end) for operand in self.tail)),
            exclusions=(*self.exclusions, *rules),
            assembly=self.assembly.replace(f"{{{role}}}", assembly),
            structures=(*self.structures, (role, shape.structure)),
            shown=(*self.shown, *text, *(moved(operand, 8 * end) for operand in self.shown_tail)),
            form=None,
            forms=(),
            tail=(),
            shown_tail=(),
            tail_length=0,
            origin=self,
            _whole={},
        )
        return whole.settled()

    def settled(self) -> Pattern:
        """With operands that count from the end of the instruction counting from its beginning."""

        def settle(operand: Operand) -> Operand:
            if not operand.field.from_end:
                return operand
            return replace(operand, field=replace(operand.field, bias=operand.field.bias + self.length))

        return replace(
            self,
            operands=tuple(map(settle, self.operands)),
            shown=tuple(map(settle, self.shown)),
            _whole={},
        )

    def handlers(self) -> Iterator[Handler]:
        """The pieces of code that execute instructions of this pattern: one for each class of its form."""
        length = 0 if self.stream else self.length
        if self.form is None:
            yield Handler(self.semantics, length, self.constants, self.structures)
            return
        for structure in dict.fromkeys(shape.structure for shape in self.forms):
            structures = (*self.structures, (self.form.role, structure))
            yield Handler(self.semantics, length, self.constants, structures, self.form.role)


def moved(operand: Operand, distance: int) -> Operand:
    """An operand whose bits in the stream are `distance` bits further on; the context stays."""
    parts = tuple(
        part if part.source >= CONTEXT else replace(part, source=part.source + distance)
        for part in operand.parts
    )
    return replace(operand, parts=parts)
