"""The assembler: assembly forms of patterns read backwards, and programs of lines with labels.

It is made for tests and for people: whatever an instruction set's disassembler prints can be assembled, and
so can its declared pseudo-instructions, labels, and expressions wherever a number is wanted.

    riscv64.assemble("loop: addi a0, a0, -1; bne a0, zero, loop", pc=0x1000)

Statements end at a newline or `;`; comments begin with `//` or with `#` and a blank. Directives are `.byte`,
`.half`, `.word`, `.dword` (values in the byte order of the instruction set), `.ascii`, `.space BYTES` and
`.align BYTES`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from itertools import islice, product
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from anyvirt.errors import UsageError
from anyvirt.isa.encoding import (
    EncodingError,
    all_numbers,
    encode_operands,
    encoded_bits,
    normalized,
    place,
)
from anyvirt.isa.expressions import ExpressionError, evaluate
from anyvirt.isa.fields import CONTEXT

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from anyvirt.isa.description import InstructionSet
    from anyvirt.isa.fields import Operand
    from anyvirt.isa.patterns import Pattern

_MOST_ENUMERATED = 14
"""Bits of a field whose every value is written down to find out which one a text means."""
_MOST_LISTED = 64
"""Texts of an operand that are looked for one by one, where it is not clear where it begins or ends."""
_MOST_MEANINGS = 64
"""Combinations of values that are tried where texts mean several."""
_MOST_PASSES = 100
_HOLE = re.compile(r"\{(pc\+)?(\w+)\}")
_LABEL = re.compile(r"([A-Za-z_.$][\w.$]*)\s*:\s*")
_COMMENT = re.compile(r"//.*|#(?=\s|$).*")
_DATA = {".byte": 1, ".half": 2, ".word": 4, ".dword": 8}


class AssemblyError(UsageError):
    """A line that is no assembly language of the instruction set; one sentence with the line."""


@dataclass(frozen=True)
class Assembled:
    """Machine code and where its labels are."""

    code: bytes
    symbols: dict[str, int]
    """Addresses of labels, and the symbols that were given."""


def assemble(
    isa: InstructionSet, text: str, pc: int = 0, symbols: Mapping[str, int] | None = None
) -> Assembled:
    """Machine code for lines of assembly text that starts at address `pc`. Raises AssemblyError."""
    statements = list(_statements(text))
    known = dict(symbols or {})
    sizes = [0] * len(statements)
    final = False
    for _ in range(_MOST_PASSES):
        # Sizes depend on addresses and the other way round. They only grow, so this ends.
        addresses, code = _Pass(isa, known, sizes, final=final).run(statements, pc)
        settled = addresses.items() <= known.items()
        if final and settled:
            return Assembled(b"".join(code), known)
        known.update(addresses)
        sizes = [max(size, len(piece)) for size, piece in zip(sizes, code, strict=True)]
        final = settled
    raise AssemblyError("the sizes of these instructions do not settle")


@dataclass(frozen=True)
class _Statement:
    line: int
    label: str
    text: str

    def error(self, reason: str) -> AssemblyError:
        return AssemblyError(f"line {self.line}: {self.text or self.label}: {reason}")


def _statements(text: str) -> Iterator[_Statement]:
    for number, line in enumerate(text.splitlines(), 1):
        for piece in _COMMENT.sub("", line).split(";"):
            rest = piece.strip()
            while label := _LABEL.match(rest):
                yield _Statement(number, label[1], "")
                rest = rest[label.end() :]
            if rest:
                yield _Statement(number, "", rest)


class _Pass:
    """One pass over the statements with what is known of symbols."""

    def __init__(
        self, isa: InstructionSet, symbols: Mapping[str, int], sizes: list[int], *, final: bool
    ) -> None:
        self._isa = isa
        self._symbols = symbols
        self._sizes = sizes
        self._final = final

    def run(self, statements: list[_Statement], pc: int) -> tuple[dict[str, int], list[bytes]]:
        """The addresses of labels, and the code of each statement."""
        addresses: dict[str, int] = {}
        code = []
        for statement, size in zip(statements, self._sizes, strict=True):
            try:
                piece = self._statement(statement, pc, size)
            except (EncodingError, ExpressionError) as error:
                raise statement.error(str(error)) from None
            if statement.label:
                if statement.label in addresses:
                    raise statement.error("this label is there twice")
                addresses[statement.label] = pc
            code.append(piece)
            pc += len(piece)
        return addresses, code

    def _statement(self, statement: _Statement, pc: int, size: int) -> bytes:
        if statement.label:
            return b""
        if statement.text.startswith("."):
            return self._directive(statement.text, pc)
        lines = _expand(self._isa, statement.text, _Values(self, pc))
        pieces: list[bytes] = []
        for line in lines:
            pieces.append(self._instruction(line, pc + sum(map(len, pieces)), size if len(lines) == 1 else 0))
        return b"".join(pieces)

    def value(self, text: str, pc: int) -> int:
        """What an expression means; before labels are known they are taken to be here."""
        return evaluate(text, {**self._symbols, ".": pc}, None if self._final else pc)

    # Directives -----------------------------------------------------------------------------------------

    def _directive(self, text: str, pc: int) -> bytes:
        name, _, rest = text.partition(" ")
        if name in _DATA:
            values = [self.value(word, pc) for word in rest.split(",")]
            return b"".join(self._data(value, _DATA[name]) for value in values)
        match name:
            case ".ascii":
                return _string(rest.strip())
            case ".space":
                return bytes(self.value(rest, pc))
            case ".align":
                return bytes(-pc % self.value(rest, pc))
        raise EncodingError(f"there is no directive {name}")

    def _data(self, value: int, size: int) -> bytes:
        if not -(1 << 8 * size - 1) <= value < 1 << 8 * size:
            raise EncodingError(f"{value} does not fit into {size} byte{'s' * (size > 1)}")
        return (value % (1 << 8 * size)).to_bytes(size, self._isa.byte_order)

    # Instructions ---------------------------------------------------------------------------------------

    def _instruction(self, text: str, pc: int, size: int) -> bytes:
        """The first and shortest form that fits, but not less than `size` bytes."""
        forms = _forms(self._isa).of(text)
        if not forms:
            raise EncodingError(f"{self._isa.name} has no instruction {text.split(maxsplit=1)[0]}")
        reason = ""
        found: list[bytes] = []
        canonical = _canonical(text)
        for form in forms:
            match = form.expression.fullmatch(canonical)
            if match is None:
                continue
            try:
                found.append(self._encode(form, match, pc))
            except (EncodingError, ExpressionError) as error:
                reason = reason or str(error)
        fitting = [code for code in found if len(code) >= size] or found
        if fitting:
            return min(fitting, key=len)
        usage = " or ".join(dict.fromkeys(form.pattern.assembly for form in forms))
        raise EncodingError(reason or f"the form is {usage.replace('pc+', '')}")

    def _encode(self, form: _AssemblyForm, match: re.Match[str], pc: int) -> bytes:
        meanings: dict[str, tuple[int, ...]] = {}
        for group, (name, relative) in form.holes.items():
            operand = form.pattern.by_name[name]
            values = self._operand_values(operand, match[group], pc)
            if relative:
                values = tuple(_signed(value - pc, self._isa.address_bits) for value in values)
            meanings[name] = values
        reason = EncodingError("these operands have no encoding")
        for chosen in islice(product(*meanings.values()), _MOST_MEANINGS):
            operands = dict(zip(meanings, chosen, strict=True))
            try:
                return encode_operands(self._isa, form.pattern, operands, strict=self._final)
            except EncodingError as error:
                reason = error
        raise reason

    def _operand_values(self, operand: Operand, text: str, pc: int) -> tuple[int, ...]:
        """What a text may mean; more than one value where a disassembler writes the same for several."""
        if operand.field.registers is not None and operand.field.show is None:
            names = _register_names(self._isa)[operand.field.registers]
            if text not in names:
                raise EncodingError(f"{text!r} is no register for {operand.name}")
            return (names[text],)
        spellings = _spellings(self._isa, operand)
        if spellings is not None and text in spellings:
            return spellings[text]
        number = self.value(text, pc)
        return (number if operand.field.show is None else _value_shown_as(operand, number),)


def _signed(value: int, bits: int) -> int:
    half = 1 << bits - 1
    return (value + half) % (1 << bits) - half


def _string(text: str) -> bytes:
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        raise EncodingError("a string stands in double quotes")
    return text[1:-1].encode("latin-1", "backslashreplace").decode("unicode_escape").encode("utf-8")


# Forms ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _AssemblyForm:
    """The assembly form of a pattern as an expression to match, and what its groups are."""

    pattern: Pattern
    expression: re.Pattern[str]
    holes: dict[str, tuple[str, bool]]
    """Group: operand, and whether the text is an address and the operand its distance."""


class _Forms:
    """The assembly forms of an instruction set by the first word of a line."""

    def __init__(self, isa: InstructionSet) -> None:
        self._isa = isa
        self._whole: dict[str, list[Pattern]] = {}
        self._prefixes: dict[str, list[Pattern]] = {}
        self._made: dict[str, list[_AssemblyForm]] = {}
        for pattern in isa.patterns:
            word = pattern.assembly.split(maxsplit=1)[0]
            start = word.partition("{")[0]
            (self._whole if start == word else self._prefixes).setdefault(start, []).append(pattern)

    def of(self, text: str) -> list[_AssemblyForm]:
        """Forms that a line might have."""
        word = text.split(maxsplit=1)[0]
        if word not in self._made:
            patterns = list(self._whole.get(word, ()))
            for length in range(len(word) + 1):
                patterns += self._prefixes.get(word[:length], ())
            self._made[word] = [
                _assembly_form(self._isa, whole) for pattern in patterns for whole in _shapes(pattern)
            ]
        return self._made[word]


def _shapes(pattern: Pattern) -> Iterator[Pattern]:
    """The pattern with each shape of its form."""
    if pattern.form is None:
        yield pattern
    for shape in pattern.forms:
        if not (shape.bits.match ^ pattern.match) & shape.bits.mask & pattern.mask >> CONTEXT << CONTEXT:
            yield pattern.with_form(shape)


_known_forms: WeakKeyDictionary[InstructionSet, _Forms] = WeakKeyDictionary()


def _forms(isa: InstructionSet) -> _Forms:
    if isa not in _known_forms:
        _known_forms[isa] = _Forms(isa)
    return _known_forms[isa]


def _canonical(text: str) -> str:
    """A line without blanks that mean nothing: one behind the mnemonic, the others only between words."""
    mnemonic, *operands = text.split(maxsplit=1)
    return " ".join((mnemonic, *map(_squeezed, operands)))


def _squeezed(text: str) -> str:
    """Text with blanks only between words."""
    return re.sub(r"\s*([^\w\s])\s*", r"\1", re.sub(r"\s+", " ", text.strip()))


def _literal(text: str, *, first: bool) -> str:
    """An expression for what stands between the holes of a form."""
    if first and (blank := re.search(r"\s+", text)):
        return f"{re.escape(text[: blank.start()])} {_literal(text[blank.end() :], first=False)}"
    squeezed = _squeezed(text)
    # Towards a hole, which may be a word or not, a blank may have gone.
    before = " ?" if text[:1].isspace() and not re.match(r"\W", squeezed) else ""
    after = " ?" if squeezed and text[-1].isspace() and re.search(r"\w$", squeezed) else ""
    return before + re.escape(squeezed) + after


def _assembly_form(isa: InstructionSet, pattern: Pattern) -> _AssemblyForm:
    text = pattern.assembly
    expression, holes, position = "", {}, 0
    spaced = False
    for number, hole in enumerate(_HOLE.finditer(text)):
        group = f"operand{number}"
        holes[group] = (hole[2], hole[1] is not None)
        literal = text[position : hole.start()]
        alone = text[hole.end() : hole.end() + 1] != "{" and (literal or not number)
        expression += _literal(literal, first=not spaced)
        expression += f"(?P<{group}>{_hole(isa, pattern.by_name[hole[2]], alone=bool(alone))})"
        spaced = spaced or any(letter.isspace() for letter in literal)
        position = hole.end()
    expression += _literal(text[position:], first=not spaced)
    return _AssemblyForm(pattern, re.compile(expression), holes)


def _hole(isa: InstructionSet, operand: Operand, *, alone: bool) -> str:
    """An expression for the texts that an operand can have: any if it is `alone` between literal text."""
    spellings: Collection[str] | None = _spellings(isa, operand)
    if spellings is None and operand.field.registers is not None and operand.field.show is None:
        spellings = () if alone else _register_names(isa)[operand.field.registers]
    if not spellings or len(spellings) > _MOST_LISTED:
        return ".*?" if operand.field.show is not None and not alone else ".+?"
    if alone and not any(_is_part(text) for text in spellings):
        return ".+?"
    return "|".join(re.escape(text) for text in sorted(spellings, key=len, reverse=True))


def _is_part(text: str) -> bool:
    """Whether a text is more or less than a word: a suffix, an operand that is left out."""
    return not text or text[0] in ".,"


def _spellings(isa: InstructionSet, operand: Operand) -> dict[str, tuple[int, ...]] | None:
    """What each text that a disassembler writes for an operand means; None if it writes numbers."""
    if operand.field.show is None or encoded_bits(operand) > _MOST_ENUMERATED:
        return None
    return _enumerated(isa, normalized(operand))


@cache
def _enumerated(isa: InstructionSet, operand: Operand) -> dict[str, tuple[int, ...]]:
    spellings: dict[str, tuple[int, ...]] = {}
    for encoded in all_numbers(operand):
        value = operand.extract(encoded)
        if value in operand.field.excluded:
            continue
        try:
            text = _squeezed(operand.show(value, isa.register_files))
        except LookupError:
            # The disassembler has no text for a value that never occurs.
            continue
        spellings[text] = (*spellings.get(text, ()), value)
    return spellings


def _value_shown_as(operand: Operand, number: int) -> int:
    """The value that a disassembler writes as this number: it may leave out the bits that are always 0."""
    show = operand.field.show
    assert show is not None
    lowest = min((part.target for part in operand.parts), default=0)
    for encoded in (number, number << lowest):
        value = operand.extract(place(operand, encoded))
        try:
            if evaluate(show(value), {}) == number:
                return value
        except ExpressionError:
            continue
    raise EncodingError(f"{operand.name} cannot be {number}")


@cache
def _register_names(isa: InstructionSet) -> dict[str, dict[str, int]]:
    """Names in each register file: declared ones, aliases, and the file's name with a number."""
    return {
        file.name: {
            **{f"{file.name}{number}": number for number in range(file.count)},
            **file.aliases,
            **{name: number for number, name in enumerate(file.names)},
        }
        for file in isa.register_files.values()
    }


# Pseudo-instructions ----------------------------------------------------------------------------------------


class _Values:
    """What the expansion of a pseudo-instruction may ask for."""

    def __init__(self, running: _Pass, pc: int) -> None:
        self._pass = running
        self.pc = pc

    def __call__(self, text: str) -> int:
        return self._pass.value(text, self.pc)


def _expand(isa: InstructionSet, text: str, values: _Values) -> list[str]:
    """The instructions that a line stands for: itself, or what a pseudo-instruction expands to."""
    canonical = _canonical(text)
    for form, pseudo in isa.pseudo_instructions.items():
        match = _pseudo_expression(form).fullmatch(canonical)
        if match is not None:
            return pseudo.expand(match.groupdict(), values)
    return [text]


@cache
def _pseudo_expression(form: str) -> re.Pattern[str]:
    expression, position = "", 0
    for hole in _HOLE.finditer(form):
        expression += _literal(form[position : hole.start()], first=not position)
        expression += f"(?P<{hole[2]}>[^,]+)"
        position = hole.end()
    return re.compile(expression + _literal(form[position:], first=not position))
