"""How an instruction set is written down: fields, registers, patterns, assembly forms, semantics.

    rv = InstructionSet("riscv64", ...)
    rv.register_field("rd", 5, "x")

    @rv.instruction("0000000 rs2 rs1 000 rd 0110011", "add {rd}, {rs1}, {rs2}")
    def add(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
        cpu.x[rd] = cpu.x[rs1] + cpu.x[rs2]

A pattern reads from the most significant bit: `0` and `1` are fixed, `-` is ignored, a name is a whole
field, `name[11:5]` or `name[4]` are bits of a scattered field (several parts: `imm[4|9:8|10]`), and
`rd/rs1` fills two operands from one field. Where two patterns match the same encoding the one that fixes
more bits is meant; any other overlap is an error.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from anyvirt.typed import u64

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from anyvirt.typed import u8, u16

Function = TypeVar("Function", bound="Callable[..., None]")

_TOKEN = re.compile(r"([A-Za-z][\w'/]*)(?:\[([\d:|]+)\])?|([01-]+)")


DELAY_SLOT = 2
"""In an executor's `pc` of an instruction set with delay slots: this bit says that the instruction there is
in the slot of a taken branch, after which execution goes on at the state `delay_target`."""


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


@dataclass(frozen=True, slots=True)
class Part:
    """`width` bits of an instruction at bit `source` are bits from `target` up of an operand."""

    source: int
    target: int
    width: int


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
        """Bits that the value needs."""
        return 64 if self.field.formula is not None else self.width

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


@dataclass(frozen=True, eq=False)
class Pattern:
    """One encoding of an instruction."""

    length: int
    """Bytes."""
    mask: int
    match: int
    operands: tuple[Operand, ...]
    exclusions: tuple[Exclusion, ...]
    assembly: str
    semantics: Callable[..., None]
    source: str
    extension: str = ""
    """The part of the instruction set that it belongs to."""

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
        return {operand.name: operand for operand in self.operands}

    def decode(self, word: int) -> dict[str, int]:
        """The values of all operands."""
        return {operand.name: operand.extract(word) for operand in self.operands}


@dataclass(eq=False)
class InstructionSet:
    """An instruction set under description; `build()` checks it as a whole."""

    name: str
    title: str
    parcel: int
    """Bytes that instructions are aligned to, and in units of which they are fetched."""
    length: Callable[[u16], u8]
    """Typed function: bytes of an instruction from its first parcel."""
    record_size: int = 16
    """Bytes a decoded instruction takes in the compiled tiers: 16, or 32 for more and wider operands."""
    byte_order: Literal["little", "big"] = "little"
    """Of instructions and of data. Patterns read from the most significant bit in either case."""
    delay_slots: bool = False
    """The instruction after a branch is executed before its target; see `DELAY_SLOT`."""
    address_bits: int = 64
    """Addresses are computed modulo 2 to this."""
    register_files: dict[str, RegisterFile] = field(default_factory=dict)
    scalars: dict[str, Scalar] = field(default_factory=dict)
    control_registers: dict[int, ControlRegister] = field(default_factory=dict)
    fields: dict[str, Field] = field(default_factory=dict)
    extensions: dict[str, str] = field(default_factory=dict)
    """The parts of the instruction set in the order of the manual: name and meaning."""
    patterns: list[Pattern] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    """Files that the description consists of, for the keys of caches."""
    _extension: str = ""
    _inherited: set[str] = field(default_factory=set)
    """Mnemonics whose patterns come from the instruction set that this one is derived from."""

    def __post_init__(self) -> None:
        if self.delay_slots:
            self.state("delay_target", 0, "where execution goes on behind a delay slot")

    # Declarations ---------------------------------------------------------------------------------------

    def registers(
        self,
        name: str,
        names: Sequence[str],
        *,
        zero: int | None = None,
        width: int = 64,
        signed: bool = True,
        aliases: Mapping[str, int] | None = None,
    ) -> RegisterFile:
        """Declare a register file."""
        self.register_files[name] = RegisterFile(
            name, len(names), tuple(names), zero, width, signed, aliases or {}
        )
        return self.register_files[name]

    def extension(self, name: str, meaning: str) -> None:
        """Declare a part of the instruction set."""
        self.extensions[name] = meaning

    def begin(self, extension: str) -> None:
        """Instructions declared from here on belong to this part, unless they say otherwise."""
        self._extension = self._known_extension(extension)

    def _known_extension(self, name: str) -> str:
        if name and name not in self.extensions:
            raise DescriptionError(f"{self.name} has no extension {name}")
        return name

    def state(self, name: str, initial: int, meaning: str) -> None:
        """Declare a piece of state."""
        self.scalars[name] = Scalar(name, initial, meaning)

    def control_register(self, number: int, name: str, meaning: str) -> int:
        """Declare a control and status register; returns its number."""
        self.control_registers[number] = ControlRegister(number, name, meaning)
        return number

    def register_field(
        self,
        name: str,
        width: int,
        registers: str,
        *,
        operand: str = "",
        bias: int = 0,
        excluded: tuple[int, ...] = (),
        renamed: Mapping[int, int] | None = None,
    ) -> None:
        """Declare a field that selects a register; `renamed` gives encoded numbers another meaning."""
        self.fields[name] = Field(
            name,
            operand or name,
            width,
            bias=bias,
            registers=registers,
            excluded=excluded,
            renamed=tuple((renamed or {}).items()),
        )

    def number_field(
        self,
        name: str,
        width: int | None = None,
        *,
        operand: str = "",
        signed: bool = False,
        bias: int = 0,
        excluded: tuple[int, ...] = (),
        show: Callable[[int], str] | None = None,
        formula: Callable[[u64], u64] | None = None,
    ) -> None:
        """Declare a field that is a number; without a width its bits are named in each pattern.

        `bias` is added to the encoded number. `formula` is a typed function that computes a value of up to
        64 bits from it, when decoding.
        """
        self.fields[name] = Field(
            name,
            operand or name,
            width,
            signed=signed,
            bias=bias,
            excluded=excluded,
            show=show,
            formula=formula,
        )

    def instruction(
        self,
        bits: str,
        assembly: str,
        *,
        fixed: Mapping[str, int] | None = None,
        excluding: Mapping[str, tuple[int, ...]] | None = None,
        extension: str | None = None,
    ) -> Callable[[Function], Function]:
        """Declare one encoding of the function that follows; stack several for several encodings.

        `fixed` gives operands that the encoding implies; `excluding` values that belong to other
        instructions or are reserved; `extension` names another part than the one begun last.
        """
        part = self._extension if extension is None else self._known_extension(extension)

        def register(semantics: Function) -> Function:
            pattern = self._pattern(bits, assembly, fixed or {}, excluding or {}, semantics)
            if pattern.mnemonic in self._inherited:
                self._inherited.remove(pattern.mnemonic)
                self.patterns = [known for known in self.patterns if known.mnemonic != pattern.mnemonic]
            self.patterns.append(replace(pattern, extension=part))
            return semantics

        return register

    # Patterns -------------------------------------------------------------------------------------------

    def _pattern(
        self,
        bits: str,
        assembly: str,
        fixed: Mapping[str, int],
        excluding: Mapping[str, tuple[int, ...]],
        semantics: Callable[..., None],
    ) -> Pattern:
        try:
            mask, match, length, parts = self._parse(bits)
            operands = self._operands(parts, fixed)
            exclusions = self._exclusions(operands, excluding)
        except (DescriptionError, KeyError) as error:
            raise DescriptionError(f"{assembly!r} ({bits}): {error}") from None
        missing = self._parameters(semantics) - {operand.name for operand in operands}
        if missing:
            raise DescriptionError(f"{assembly!r} ({bits}): nothing gives {', '.join(sorted(missing))}")
        return Pattern(length, mask, match, operands, exclusions, assembly, semantics, bits)

    def _parse(self, bits: str) -> tuple[int, int, int, list[tuple[str, Part]]]:
        tokens = [_TOKEN.fullmatch(token) for token in bits.split()]
        if not all(tokens):
            raise DescriptionError("this is no pattern")
        sized = [(token, self._token_parts(token)) for token in tokens if token]
        width = sum(total for _, (total, _) in sized)
        if width % 8 or not width:
            raise DescriptionError(f"{width} bits are no whole number of bytes")
        position, mask, match, parts = width, 0, 0, []
        for token, (total, fragments) in sized:
            position -= total
            for offset, digit in enumerate(reversed(token[3] or "")):
                mask |= (digit != "-") << position + offset
                match |= (digit == "1") << position + offset
            parts += [
                (name, Part(position + part.source, part.target, part.width)) for name, part in fragments
            ]
        return mask, match, width // 8, parts

    def _token_parts(self, token: re.Match[str]) -> tuple[int, list[tuple[str, Part]]]:
        """Bits a token takes, and the parts of fields in it relative to the token's lowest bit."""
        names, ranges, digits = token.groups()
        if digits:
            return len(digits), []
        fields = [self.fields[name] for name in names.split("/")]
        spans = []
        for span in (ranges or f"{(fields[0].width or 0) - 1}:0").split("|"):
            high, _, low = span.partition(":")
            spans.append((int(high), int(low or high)))
        if spans[0][0] < 0:
            raise DescriptionError(f"{names} needs its bits named")
        total = sum(high - low + 1 for high, low in spans)
        position, parts = total, []
        for high, low in spans:
            position -= high - low + 1
            parts += [(item.name, Part(position, low, high - low + 1)) for item in fields]
        return total, parts

    def _operands(self, parts: list[tuple[str, Part]], fixed: Mapping[str, int]) -> tuple[Operand, ...]:
        collected: dict[str, list[Part]] = {}
        for name, part in parts:
            collected.setdefault(name, []).append(part)
        operands = [
            Operand(self.fields[name].operand, self.fields[name], tuple(pieces))
            for name, pieces in collected.items()
        ]
        operands += [Operand(name, self.fields[name], fixed=value) for name, value in fixed.items()]
        if len({operand.name for operand in operands}) != len(operands):
            raise DescriptionError("an operand is given twice")
        return tuple(operands)

    def _exclusions(
        self, operands: tuple[Operand, ...], excluding: Mapping[str, tuple[int, ...]]
    ) -> tuple[Exclusion, ...]:
        by_name = {operand.name: operand for operand in operands}
        rules = [Exclusion(by_name[name], values) for name, values in excluding.items()]
        rules += [
            Exclusion(operand, operand.field.excluded) for operand in operands if operand.field.excluded
        ]
        return tuple(rules)

    @staticmethod
    def _parameters(semantics: Callable[..., None]) -> set[str]:
        return set(list(inspect.signature(semantics).parameters)[1:])

    # The whole ------------------------------------------------------------------------------------------

    def variant(self, name: str, title: str, byte_order: Literal["little", "big"]) -> InstructionSet:
        """The same instruction set with the other byte order: it shares all of the description."""
        return replace(self, name=name, title=title, byte_order=byte_order)

    def derive(
        self, name: str, title: str, *, address_bits: int, keep: Callable[[Pattern], bool]
    ) -> InstructionSet:
        """A relative, yet to be built, with what is declared here and, of the instructions, those to keep.

        Declaring a register file, a field or a mnemonic again replaces what was taken over.
        """
        patterns = [pattern for pattern in self.patterns if keep(pattern)]
        parts = {pattern.extension for pattern in patterns}
        return replace(
            self,
            name=name,
            title=title,
            address_bits=address_bits,
            register_files=dict(self.register_files),
            scalars=dict(self.scalars),
            control_registers=dict(self.control_registers),
            fields=dict(self.fields),
            extensions={part: meaning for part, meaning in self.extensions.items() if part in parts},
            patterns=patterns,
            sources=list(self.sources),
            _inherited={pattern.mnemonic for pattern in patterns},
        )

    def build(self) -> InstructionSet:
        """Check patterns against each other and put the more specific ones first. Raises DescriptionError."""
        for position, first in enumerate(self.patterns):
            for second in self.patterns[position + 1 :]:
                self._check_pair(first, second)
        self.patterns.sort(key=lambda pattern: -pattern.mask.bit_count())
        for pattern in self.patterns:
            if not any(self.find(word, pattern.length) is pattern for word in _examples(pattern)):
                raise DescriptionError(
                    f"{pattern.assembly!r} ({pattern.source}) is never reached: "
                    "more specific patterns and exclusions leave nothing of it"
                )
        return self

    @staticmethod
    def _check_pair(first: Pattern, second: Pattern) -> None:
        if first.length != second.length or (first.match ^ second.match) & first.mask & second.mask:
            return
        common = first.mask & second.mask
        if common in (first.mask, second.mask) and first.mask != second.mask:
            return
        if not (_excludes(first, second) or _excludes(second, first)):
            raise DescriptionError(
                f"{first.assembly!r} ({first.source}) and {second.assembly!r} ({second.source}) overlap"
            )

    @cached_property
    def _index(self) -> dict[int, tuple[int, dict[int, list[Pattern]]]]:
        """For each length the bits to look at first, and the patterns for each of their values."""
        index = {}
        for length in {pattern.length for pattern in self.patterns}:
            patterns = [pattern for pattern in self.patterns if pattern.length == length]
            chosen = _telling_bits(patterns)
            groups: dict[int, list[Pattern]] = {}
            for value in _values_of(chosen):
                groups[value] = [
                    pattern for pattern in patterns if not (value ^ pattern.match) & pattern.mask & chosen
                ]
            index[length] = chosen, groups
        return index

    def find(self, word: int, length: int) -> Pattern | None:
        """The pattern of an encoded instruction; None if it is illegal."""
        chosen, groups = self._index.get(length, (0, {}))
        for pattern in groups.get(word & chosen, ()):
            if pattern.matches(word):
                return pattern
        return None

    def disassemble(self, word: int, length: int, pc: int = 0) -> str | None:
        """Assembly text of an encoded instruction at address `pc`; None if it is illegal.

        In an assembly form `{imm}` is the operand and `{pc+imm}` the address it leads to.
        """
        pattern = self.find(word, length)
        if pattern is None:
            return None
        values = pattern.decode(word)

        def show(match: re.Match[str]) -> str:
            relative, name = match.groups()
            if relative:
                return f"{(pc + values[name]) & (1 << self.address_bits) - 1:#x}"
            return pattern.by_name[name].show(values[name], self.register_files)

        return re.sub(r"\{(pc\+)?(\w+)\}", show, pattern.assembly)

    def functions(self) -> list[tuple[Callable[..., Any], int]]:
        """Every pair of semantics and instruction length that occurs: one handler each."""
        return list(dict.fromkeys((pattern.semantics, pattern.length) for pattern in self.patterns))


def _telling_bits(patterns: list[Pattern]) -> int:
    """A mask of the eight bits that most patterns fix."""
    often = sorted(
        range(8 * patterns[0].length), key=lambda bit: -sum(pattern.mask >> bit & 1 for pattern in patterns)
    )
    return sum(1 << bit for bit in often[:8])


def _values_of(mask: int) -> Iterator[int]:
    """Every number whose bits are all within the mask."""
    value = 0
    while True:
        yield value
        value = (value - mask) & mask
        if not value:
            return


def _examples(pattern: Pattern) -> Iterator[int]:
    """Encodings of a pattern: all of them if they are few, otherwise a fixed selection."""
    free = [bit for bit in range(8 * pattern.length) if not pattern.mask >> bit & 1]
    if len(free) <= 8:
        choices: Iterable[int] = range(1 << len(free))
    else:
        # Multiples of an odd number spread over all bits.
        choices = (number * 0x9E3779B97F4A7C15 >> 16 for number in range(256))
    for choice in choices:
        yield pattern.match | sum((choice >> position & 1) << bit for position, bit in enumerate(free))


def _excludes(first: Pattern, second: Pattern) -> bool:
    """Whether `first` rejects everything that `second` matches, by a value that `second` fixes."""
    for rule in first.exclusions:
        bits = sum((1 << part.width) - 1 << part.source for part in rule.operand.parts)
        if bits & second.mask == bits and rule.rejects(second.match):
            return True
    return False
