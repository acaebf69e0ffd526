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

Instructions that are streams of bytes behind prefixes have a `context` (see `anyvirt.isa.contexts`): then a
pattern reads byte by byte, and further

- `role:name` is the field `name` for the parameter `role`;
- `role:M(000)` or `role:M(reg)` is the form `M`, whose shapes are declared with `form`; in parentheses stand
  the bits of its first byte that belong to the instruction (`.` in the shapes' patterns).
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field, replace
from dataclasses import fields as dataclass_fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from anyvirt.isa.fields import (
    CONTEXT,
    MODE,
    ControlRegister,
    DescriptionError,
    Exclusion,
    Field,
    Operand,
    Part,
    RegisterFile,
    Scalar,
)
from anyvirt.isa.matching import PatternIndex, check, check_forms
from anyvirt.isa.patterns import Bits, Form, FormUse, Handler, Pattern, PatternParser, Place
from anyvirt.isa.pseudo import PseudoInstruction, template
from anyvirt.typed import u16

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from anyvirt.isa.contexts import Context
    from anyvirt.isa.pseudo import Values
    from anyvirt.isa.system import System
    from anyvirt.typed import u8, u64

__all__ = [
    "DELAY_SLOT",
    "ControlRegister",
    "Decoded",
    "DescriptionError",
    "Exclusion",
    "Field",
    "Handler",
    "InstructionSet",
    "Operand",
    "Part",
    "Pattern",
    "RegisterFile",
    "Scalar",
]

Function = TypeVar("Function", bound="Callable[..., None]")


DELAY_SLOT = 2
"""In an executor's `pc` of an instruction set with delay slots: this bit says that the instruction there is
in the slot of a taken branch, after which execution goes on at the state `delay_target`."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """An instruction found at the beginning of some bytes."""

    pattern: Pattern
    word: int
    length: int
    """Bytes, prefixes included; more than were there if some are missing."""


@dataclass(eq=False)
class InstructionSet:
    """An instruction set under description; `build()` checks it as a whole."""

    name: str
    title: str
    parcel: int
    """Bytes that instructions are aligned to, and in units of which they are fetched."""
    length: Callable[[u16], u8] | None
    """Typed function: bytes of an instruction from its first parcel; None if only decoding can tell."""
    record_size: int = 16
    """Bytes a decoded instruction takes in the compiled tiers: 16, or 32 for more and wider operands."""
    byte_order: Literal["little", "big"] = "little"
    """Of instructions and of data. Patterns read from the most significant bit in either case."""
    delay_slots: bool = False
    """The instruction after a branch is executed before its target; see `DELAY_SLOT`."""
    address_bits: int = 64
    """Addresses are computed modulo 2 to this."""
    system: System | None = None
    """The instruction set is one for machines, with modes, traps and translation of addresses."""
    context: Context | None = None
    """Instructions are streams of bytes whose meaning depends on prefixes and modes."""
    forms: dict[str, list[Form]] = field(default_factory=dict)
    register_files: dict[str, RegisterFile] = field(default_factory=dict)
    scalars: dict[str, Scalar] = field(default_factory=dict)
    control_registers: dict[int, ControlRegister] = field(default_factory=dict)
    fields: dict[str, Field] = field(default_factory=dict)
    extensions: dict[str, str] = field(default_factory=dict)
    """The parts of the instruction set in the order of the manual: name and meaning."""
    pseudo_instructions: dict[str, PseudoInstruction] = field(default_factory=dict)
    """Further lines that the assembler understands, by form."""
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
        zero_is_written: bool = True,
    ) -> RegisterFile:
        """Declare a register file; `zero_is_written` says whether encodings can name `zero` as a target."""
        self.register_files[name] = RegisterFile(
            name, len(names), tuple(names), zero, width, signed, aliases or {}, zero_is_written
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

    def pseudo_instruction(
        self, form: str, *lines: str, expand: Callable[[Mapping[str, str], Values], list[str]] | None = None
    ) -> None:
        """Declare what a line stands for in assembly text: other lines with its operands, or a function's."""
        self.pseudo_instructions[form] = PseudoInstruction(expand) if expand else template(lines)

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
        extension: tuple[str, ...] = (),
        show: Callable[[int], str] | None = None,
    ) -> None:
        """Declare a field that selects a register; `renamed` gives encoded numbers another meaning.

        `extension` names fields of the context that stand above the encoded bits.
        """
        self.fields[name] = Field(
            name,
            operand or name,
            width,
            bias=bias,
            registers=registers,
            excluded=excluded,
            renamed=tuple((renamed or {}).items()),
            extension=extension,
            show=show,
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
        renamed: Mapping[int, int] | None = None,
        extension: tuple[str, ...] = (),
        from_end: bool = False,
    ) -> None:
        """Declare a field that is a number; without a width its bits are named in each pattern.

        `bias` is added to the encoded number. `formula` is a typed function that computes a value of up to
        64 bits from it, when decoding. A distance `from_end` of the instruction is given to semantics as one
        from its beginning.
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
            renamed=tuple((renamed or {}).items()),
            extension=extension,
            from_end=from_end,
        )

    def object_field(
        self,
        name: str,
        width: int,
        structure: type,
        members: Mapping[str, Mapping[int, int] | int],
        *,
        show: Callable[[int], str],
        signed: bool = False,
        extension: tuple[str, ...] = (),
        registers: Mapping[str, str] | None = None,
    ) -> None:
        """Declare a field that semantics get as an object: a register of some size, an immediate.

        Each of its attributes is the encoded number, or what that is renamed to, or always the same; `show`
        gets the number. `registers` says which attributes select from which register file.
        """
        plain = Field(name, name, width, signed=signed, show=show, extension=extension)
        parts = tuple(
            replace(
                plain,
                name=member,
                operand=member,
                registers=(registers or {}).get(member),
                constant=value if isinstance(value, int) else None,
                renamed=() if isinstance(value, int) else tuple(value.items()),
            )
            for member, value in members.items()
        )
        self.fields[name] = replace(plain, structure=structure, members=parts)

    def form(
        self,
        name: str,
        bits: str,
        assembly: str,
        structure: type,
        *,
        fixed: Mapping[str, int] | None = None,
        implied: Sequence[str] = (),
        excluding: Mapping[str, tuple[int, ...]] | None = None,
        when: Mapping[str, int] | None = None,
    ) -> None:
        """Declare a shape of a form: an addressing mode.

        Semantics get an object of the dataclass `structure`; fields that are none of its attributes serve
        only the assembly form. `implied` names fields that take all of their bits from the context; `when`
        says what must be in it.
        """
        try:
            parsed = self._conditional(self._parser.parse(bits), when or {})
            operands, _ = self._operands(parsed.places, fixed or {}, implied)
            rules = self._exclusions(parsed.places, operands, excluding or {})
        except (DescriptionError, KeyError) as error:
            raise DescriptionError(f"{assembly!r} ({bits}): {error}") from None
        members = {member.name for member in dataclass_fields(structure)}
        shown = tuple(operand for operand in operands if operand.name not in members)
        operands = tuple(operand for operand in operands if operand.name in members)
        self.forms.setdefault(name, []).append(Form(parsed, operands, shown, rules, assembly, structure))

    def instruction(
        self,
        bits: str,
        assembly: str,
        *,
        fixed: Mapping[str, int] | None = None,
        excluding: Mapping[str, tuple[int, ...]] | None = None,
        extension: str | None = None,
        when: Mapping[str, int] | None = None,
        constants: Mapping[str, int] | None = None,
        objects: Mapping[str, type] | None = None,
        implied: Sequence[str] = (),
    ) -> Callable[[Function], Function]:
        """Declare one encoding of the function that follows; stack several for several encodings.

        `fixed` gives operands that the encoding implies; `excluding` values that belong to other
        instructions or are reserved; `extension` names another part than the one begun last; `when` says
        what must be in the context. `constants` are parameters that are known when compiling: each
        combination that occurs gets a handler of its own. `objects` are parameters that get an object whose
        attributes are all `fixed`, as PARAMETER_ATTRIBUTE; `implied` names fields that take all of their bits
        from the context.
        """
        part = self._extension if extension is None else self._known_extension(extension)

        def register(semantics: Function) -> Function:
            try:
                parsed = self._conditional(self._parser.parse(bits), when or {})
                pattern = self._pattern(parsed, assembly, fixed or {}, implied, excluding or {}, semantics)
                pattern = replace(
                    pattern,
                    source=bits,
                    extension=part,
                    constants=tuple((constants or {}).items()),
                    structures=(*pattern.structures, *(objects or {}).items()),
                )
                self._check_parameters(pattern)
            except (DescriptionError, KeyError) as error:
                raise DescriptionError(f"{assembly!r} ({bits}): {error}") from None
            if pattern.mnemonic in self._inherited:
                self._inherited.remove(pattern.mnemonic)
                self.patterns = [known for known in self.patterns if known.mnemonic != pattern.mnemonic]
            self.patterns.append(pattern)
            return semantics

        return register

    # Patterns -------------------------------------------------------------------------------------------

    @property
    def _parser(self) -> PatternParser:
        holes = {name: forms[0].bits.hole for name, forms in self.forms.items()}
        return PatternParser(self.fields, holes, stream=self.context is not None)

    def _conditional(self, bits: Bits, when: Mapping[str, int]) -> Bits:
        """Bits that also want something of the context."""
        if not when or self.context is None:
            return bits
        mask, match = self.context.condition(when)
        return replace(bits, mask=bits.mask | mask << CONTEXT, match=bits.match | match << CONTEXT)

    def _pattern(
        self,
        bits: Bits,
        assembly: str,
        fixed: Mapping[str, int],
        implied: Sequence[str],
        excluding: Mapping[str, tuple[int, ...]],
        semantics: Callable[..., None],
    ) -> Pattern:
        operands, shown = self._operands(bits.places, fixed, implied)
        tail, shown_tail = self._operands(bits.tail, {})
        names = [operand.name for operand in (*operands, *tail)]
        if len(set(names)) != len(names):
            raise DescriptionError("an operand is given twice")
        structures = {
            place.role: place.field.structure
            for place in (*bits.places, *bits.tail)
            if place.field.structure is not None
        }
        pattern = Pattern(
            bits.length,
            bits.mask,
            bits.match,
            operands,
            self._exclusions(bits.places, operands, excluding),
            assembly,
            semantics,
            "",
            structures=tuple(structures.items()),
            shown=shown,
            form=bits.form,
            forms=() if bits.form is None else self._compatible_forms(bits.form, bits),
            tail=tail,
            shown_tail=shown_tail,
            tail_length=bits.tail_length,
            stream=self.context is not None,
        )
        return pattern if bits.form else pattern.settled()

    def _compatible_forms(self, use: FormUse, bits: Bits) -> tuple[Form, ...]:
        """The shapes that a form can have where the context is as a pattern wants it, specific ones first."""
        shapes = [
            shape
            for shape in self.forms[use.form]
            if not (shape.bits.match ^ bits.match) >> CONTEXT & (shape.bits.mask & bits.mask) >> CONTEXT
        ]
        return tuple(sorted(shapes, key=lambda shape: -shape.bits.mask.bit_count()))

    def _operands(
        self, places: Iterable[Place], fixed: Mapping[str, int], implied: Sequence[str] = ()
    ) -> tuple[tuple[Operand, ...], tuple[Operand, ...]]:
        """What semantics get, and what only assembly forms name: the objects whose parts semantics get."""
        collected: dict[str, tuple[Field, list[Part]]] = {}
        for place in places:
            known, parts = collected.setdefault(place.role, (place.field, []))
            if known is not place.field:
                raise DescriptionError("an operand is given twice")
            parts.append(place.part)
        for name in implied:
            collected[self.fields[name].operand] = (self.fields[name], [])
        operands, shown = [], []
        for role, (item, pieces) in collected.items():
            parts = [*pieces, *self._extension_parts(item, pieces)]
            if item.structure is None:
                operands.append(Operand(role, item, tuple(parts)))
            else:
                shown.append(Operand(role, item, tuple(parts)))
                operands += [
                    Operand(f"{role}_{part.name}", part, tuple(parts), part.constant) for part in item.members
                ]
        operands += [Operand(name, self._field_of(name), fixed=value) for name, value in fixed.items()]
        if len({operand.name for operand in operands}) != len(operands):
            raise DescriptionError("an operand is given twice")
        return tuple(operands), tuple(shown)

    def _field_of(self, name: str) -> Field:
        """The field of an operand that an encoding implies; attributes of objects need not be declared."""
        return self.fields[name] if name in self.fields or "_" not in name else Field(name, name, None)

    def _extension_parts(self, item: Field, pieces: Sequence[Part]) -> Iterable[Part]:
        if not item.extension or self.context is None:
            return ()
        top = max((part.target + part.width for part in pieces), default=0)
        return self.context.parts(item.extension, top)

    def _exclusions(
        self,
        places: Iterable[Place],
        operands: tuple[Operand, ...],
        excluding: Mapping[str, tuple[int, ...]],
    ) -> tuple[Exclusion, ...]:
        """Rules about operands; where the context extends one, about the bits that are encoded."""
        by_name = {operand.name: operand for operand in operands}
        for role in excluding:
            pieces = [place for place in places if place.role == role]
            if pieces and (pieces[0].field.extension or pieces[0].field.structure):
                encoded = replace(pieces[0].field, renamed=(), extension=(), structure=None, members=())
                by_name[role] = Operand(role, encoded, tuple(place.part for place in pieces))
        rules = [Exclusion(by_name[name], values) for name, values in excluding.items()]
        rules += [
            Exclusion(operand, operand.field.excluded) for operand in operands if operand.field.excluded
        ]
        return tuple(rules)

    @staticmethod
    def _check_parameters(pattern: Pattern) -> None:
        """Semantics get what they ask for."""
        wanted = set(list(inspect.signature(pattern.semantics).parameters)[1:])
        given = {operand.name for operand in (*pattern.operands, *pattern.tail)}
        given |= {name for name, _ in (*pattern.constants, *pattern.structures)}
        if pattern.form is not None:
            given.add(pattern.form.role)
        missing = wanted - given
        if missing:
            raise DescriptionError(f"nothing gives {', '.join(sorted(missing))}")

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
            pseudo_instructions=dict(self.pseudo_instructions),
            sources=list(self.sources),
            _inherited={pattern.mnemonic for pattern in patterns},
        )

    def build(self) -> InstructionSet:
        """Check patterns against each other and put the more specific ones first. Raises DescriptionError."""
        self.patterns.sort(key=lambda pattern: -pattern.mask.bit_count())
        for name, forms in self.forms.items():
            check_forms(name, forms)
        check(self.patterns, self.find)
        return self

    @cached_property
    def _index(self) -> dict[int, PatternIndex]:
        """By length; the lengths of byte streams are known only behind it, and stand under 0."""
        groups: dict[int, list[Pattern]] = {}
        for pattern in self.patterns:
            groups.setdefault(0 if self.context is not None else pattern.length, []).append(pattern)
        return {length: PatternIndex(patterns) for length, patterns in groups.items()}

    def find(self, word: int, length: int) -> Pattern | None:
        """The pattern of an encoded instruction, its form resolved; None if it is illegal.

        Of byte streams the length is not needed.
        """
        index = self._index.get(0 if self.context is not None else length)
        pattern = None if index is None else index.find(word)
        return None if pattern is None else pattern.resolve(word)

    def decode(self, code: bytes, mode: int | None = None) -> Decoded | None:
        """The instruction that `code` begins with, in a mode of the processor; None if it is illegal.

        The mode is that after a reset if none is given. Bytes beyond the end of `code` count as 0.
        """
        if self.context is not None:
            return self._decode_stream(self.context, code, self.reset_mode if mode is None else mode)
        if self.length is None:
            raise DescriptionError(f"{self.name} does not say how long instructions are")
        parcel = int.from_bytes(code[: self.parcel].ljust(self.parcel, b"\0"), self.byte_order)
        length = int(self.length(u16(parcel)))
        whole = code[:length].ljust(length, b"\0")
        pieces = [whole[start : start + self.parcel] for start in range(0, length, self.parcel)]
        word = sum(
            int.from_bytes(piece, self.byte_order) << 8 * self.parcel * position
            for position, piece in enumerate(pieces)
        )
        pattern = self.find(word, length)
        return None if pattern is None else Decoded(pattern, word, length)

    @property
    def reset_mode(self) -> int:
        """The mode of the processor after a reset; 0 if there are no modes."""
        return self.scalars[MODE].initial if self.context is not None else 0

    def _decode_stream(self, context: Context, code: bytes, mode: int) -> Decoded | None:
        prefixes = context.read(code.ljust(context.longest, b"\0"), mode)
        if prefixes is None:
            return None
        bits, count = prefixes
        word = int.from_bytes(code[count : count + CONTEXT // 8], "little") | bits << CONTEXT
        pattern = self.find(word, 0)
        if pattern is None or count + pattern.length > context.longest:
            return None
        return Decoded(pattern, word, count + pattern.length)

    def disassemble(self, word: int, length: int, pc: int = 0) -> str | None:
        """Assembly text of an encoded instruction at address `pc`; None if it is illegal.

        In an assembly form `{imm}` is the operand and `{pc+imm}` the address it leads to.
        """
        pattern = self.find(word, length)
        if pattern is None:
            return None

        def show(match: re.Match[str]) -> str:
            relative, name = match.groups()
            operand = pattern.by_name[name]
            value = operand.extract(word)
            if relative:
                return f"{(pc + value) & (1 << self.address_bits) - 1:#x}"
            return operand.show(value, self.register_files)

        return re.sub(r"\{(pc\+)?(\w+)\}", show, pattern.assembly)

    def assemble(self, text: str, pc: int = 0, symbols: Mapping[str, int] | None = None) -> bytes:
        """Machine code for lines of assembly text that starts at address `pc`: see `anyvirt.isa.assembler`.

        Raises AssemblyError.
        """
        from anyvirt.isa.assembler import assemble

        return assemble(self, text, pc, symbols).code

    def functions(self) -> list[tuple[Callable[..., Any], int]]:
        """Every pair of semantics and instruction length that occurs."""
        return list(dict.fromkeys((pattern.semantics, pattern.length) for pattern in self.patterns))

    def wide_operands(self, handler: Handler) -> frozenset[str]:
        """Operands of a handler that need more than 32 bits, or 32 without a sign."""
        return self._wide.get(handler, frozenset())

    @cached_property
    def _wide(self) -> dict[Handler, frozenset[str]]:
        wide: dict[Handler, frozenset[str]] = {}
        for pattern in self.patterns:
            names = frozenset(
                operand.name
                for operand in (*pattern.operands, *pattern.tail)
                if operand.value_bits >= 32 + operand.field.signed
            )
            for handler in pattern.handlers():
                wide[handler] = wide.get(handler, frozenset()) | names
        return wide

    def handlers(self) -> list[tuple[Handler, str]]:
        """Everything that compiled tiers compile, with the mnemonic of a pattern that needs it."""
        found: dict[Handler, str] = {}
        for pattern in self.patterns:
            for handler in pattern.handlers():
                found.setdefault(handler, pattern.mnemonic)
        return list(found.items())
