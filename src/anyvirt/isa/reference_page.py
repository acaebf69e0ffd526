"""The reference page of an instruction set: everything that its description says, for people to read.

`page` gives it as data, `markdown` as a document; `anyvirt isa` shows both.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyvirt
from anyvirt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from anyvirt.isa.description import InstructionSet
    from anyvirt.isa.fields import Field
    from anyvirt.isa.patterns import Pattern


@dataclass(frozen=True)
class Encoding:
    """One encoding of an instruction."""

    bits: str
    assembly: str
    bytes: int
    extension: str
    constants: dict[str, int]
    """Parameters of the semantics that this encoding fixes."""


@dataclass(frozen=True)
class Instruction:
    """What one function describes: its encodings and what they do."""

    name: str
    encodings: tuple[Encoding, ...]
    semantics: str
    """Python source, without decorators."""
    given: dict[str, str]
    """What the source refers to besides its operands: members of a family differ in these."""
    file: str
    """Path of the source below the package."""

    @property
    def mnemonics(self) -> list[str]:
        """Mnemonics of its encodings, each once."""
        return list(
            dict.fromkeys(encoding.assembly.split()[0].partition("{")[0] for encoding in self.encodings)
        )


@dataclass(frozen=True)
class Page:
    """Everything about an instruction set."""

    name: str
    title: str
    properties: dict[str, str]
    registers: list[dict[str, Any]]
    state: list[dict[str, Any]]
    control_registers: list[dict[str, Any]]
    fields: list[dict[str, Any]]
    extensions: dict[str, str]
    instructions: list[Instruction]
    pseudo_instructions: list[str]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, for JSON."""
        return asdict(self)


def page(isa: InstructionSet, words: Sequence[str] = ()) -> Page:
    """The reference page, of all instructions or of those that have one of the mnemonics or extensions.

    Raises UsageError for a word that is neither.
    """
    return Page(
        name=isa.name,
        title=isa.title,
        properties=_properties(isa),
        registers=[
            {"file": file.name, "width": file.width, "zero": file.zero, "names": list(file.names)}
            for file in isa.register_files.values()
        ],
        state=[asdict(scalar) for scalar in isa.scalars.values()],
        control_registers=[asdict(register) for register in isa.control_registers.values()],
        fields=[_field(item) for item in isa.fields.values()],
        extensions=dict(isa.extensions),
        instructions=_instructions(isa, _selected(isa, words)),
        pseudo_instructions=list(isa.pseudo_instructions),
    )


def _properties(isa: InstructionSet) -> dict[str, str]:
    return {
        "instructions": str(len({pattern.mnemonic for pattern in isa.patterns})),
        "encodings": str(len(isa.patterns)),
        "byte order": isa.byte_order,
        "address bits": str(isa.address_bits),
        "alignment of instructions": f"{isa.parcel} byte{'s' * (isa.parcel > 1)}",
        **({"delay slots": "yes"} if isa.delay_slots else {}),
    }


def _field(item: Field) -> dict[str, Any]:
    return {
        "name": item.name,
        "operand": item.operand,
        "bits": item.width,
        "registers": item.registers,
        "signed": item.signed,
        "bias": item.bias,
        "excluded": list(item.excluded),
    }


def _selected(isa: InstructionSet, words: Sequence[str]) -> list[Pattern]:
    if not words:
        return isa.patterns
    found = []
    for word in words:
        meant = [pattern for pattern in isa.patterns if word in (pattern.mnemonic, pattern.extension)]
        if not meant:
            raise UsageError(f"{isa.name} has no instruction and no extension {word}")
        found += meant
    return found


def _instructions(isa: InstructionSet, selected: Iterable[Pattern]) -> list[Instruction]:
    """Grouped by semantics, in the order of extensions and then of the description's files."""
    groups: dict[Callable[..., None], list[Pattern]] = {}
    for pattern in selected:
        groups.setdefault(pattern.semantics, []).append(pattern)
    order = list(isa.extensions)

    def key(patterns: list[Pattern]) -> tuple[int, str, int]:
        main = patterns[0]
        rank = order.index(main.extension) if main.extension in order else len(order)
        return (
            rank,
            inspect.getsourcefile(main.semantics) or "",
            inspect.unwrap(main.semantics).__code__.co_firstlineno,
        )

    for patterns in groups.values():
        # The longest encoding is the plain one; compressed ones follow.
        patterns.sort(key=lambda pattern: -pattern.length)
    return [_instruction(patterns) for patterns in sorted(groups.values(), key=key)]


def _instruction(patterns: list[Pattern]) -> Instruction:
    semantics = patterns[0].semantics
    return Instruction(
        name=semantics.__name__,
        encodings=tuple(
            Encoding(
                pattern.source, pattern.assembly, pattern.length, pattern.extension, dict(pattern.constants)
            )
            for pattern in patterns
        ),
        semantics=source_of(semantics),
        given=_given(semantics),
        file=_file(semantics),
    )


@cache
def source_of(function: Callable[..., Any]) -> str:
    """The source of a function as it stands in its file, dedented and without its decorators."""
    text = textwrap.dedent(inspect.getsource(function))
    definition = ast.parse(text).body[0]
    assert isinstance(definition, ast.FunctionDef)
    return "\n".join(text.splitlines()[definition.lineno - 1 :])


def _given(function: Callable[..., Any]) -> dict[str, str]:
    """Variables of the enclosing function that this one uses, if they are plain values."""
    values = inspect.getclosurevars(function).nonlocals
    return {name: repr(value) for name, value in values.items() if isinstance(value, (int, str, bool))}


def _file(function: Callable[..., Any]) -> str:
    path = Path(inspect.getsourcefile(function) or "")
    package = Path(anyvirt.__file__).parent
    return str(path.relative_to(package)) if path.is_relative_to(package) else path.name


# Markdown ---------------------------------------------------------------------------------------------------


def markdown(isa: InstructionSet, words: Sequence[str] = ()) -> str:
    """The reference page as a document."""
    whole = page(isa, words)
    sections = [
        f"# {whole.title} (`{whole.name}`)",
        f"Generated from the description by `anyvirt isa {' '.join((whole.name, *words))} --markdown`.",
        _table(("property", "value"), whole.properties.items()),
    ]
    if not words:
        sections += _machine(whole)
    sections.append("## Instructions")
    current = None
    for instruction in whole.instructions:
        extension = instruction.encodings[0].extension
        if extension and extension != current:
            sections.append(f"### {extension}: {whole.extensions.get(extension, '')}".rstrip(": "))
            current = extension
        sections += _instruction_section(instruction)
    return "\n\n".join(section for section in sections if section) + "\n"


def _machine(whole: Page) -> list[str]:
    """Registers, state and fields."""
    sections = ["## Registers"]
    for file in whole.registers:
        zero = f"; number {file['zero']} always reads 0" if file["zero"] is not None else ""
        names = " ".join(f"`{name}`" for name in file["names"])
        sections += [
            f"`{file['file']}`: {len(file['names'])} registers of {file['width']} bits{zero}.",
            names,
        ]
    if whole.state:
        state = [(f"`{item['name']}`", item["meaning"]) for item in whole.state]
        sections += ["## State", _table(("name", "meaning"), state)]
    if whole.control_registers:
        control = [
            (f"{item['number']:#05x}", f"`{item['name']}`", item["meaning"])
            for item in whole.control_registers
        ]
        sections += ["## Control registers", _table(("number", "name", "meaning"), control)]
    fields = [(f"`{item['name']}`", f"`{item['operand']}`", _meaning(item)) for item in whole.fields]
    sections += ["## Fields of encodings", _table(("field", "operand", "meaning"), fields)]
    if whole.pseudo_instructions:
        forms = ", ".join(f"`{form}`" for form in whole.pseudo_instructions)
        sections += ["## Pseudo-instructions of the assembler", forms]
    return sections


def _meaning(item: dict[str, Any]) -> str:
    """A field in words."""
    bits = f"{item['bits']} bits" if item["bits"] else "bits as each pattern names them"
    kind = f"register of `{item['registers']}`" if item["registers"] else "number"
    words = [("signed " if item["signed"] else "") + kind, bits]
    if item["bias"]:
        words.append(f"plus {item['bias']}")
    if item["excluded"]:
        words.append(f"never {' or '.join(map(str, item['excluded']))}")
    return ", ".join(words)


def _instruction_section(instruction: Instruction) -> list[str]:
    rows = []
    for encoding in instruction.encodings:
        given = "".join(f", {name} = {value}" for name, value in encoding.constants.items())
        rows.append((f"`{encoding.assembly}`", f"`{encoding.bits}`", encoding.extension + given))
    given = ", ".join(f"`{name} = {value}`" for name, value in instruction.given.items())
    return [
        f"#### {', '.join(instruction.mnemonics)}",
        _table(("assembly", "encoding", "extension"), rows),
        f"With {given}:" if given else "",
        f"```python\n{instruction.semantics}\n```",
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
