"""A small static linker: relocatable object files in, one executable out.

No libraries, no relaxation, no dynamic linking: it lays out sections, resolves symbols and applies the
relocations of `jit.relocations`. Constants are readable, code is executable and not writable, data is
writable and not executable; neither is the stack.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyvirt.jit.executable_file import PAGE, LoadedSection, ProgramSymbol, headers_size, write_executable
from anyvirt.jit.object_file import (
    Binding,
    LinkError,
    ObjectFile,
    Relocation,
    Section,
    SectionFlags,
    SectionType,
    SpecialIndex,
    Symbol,
)
from anyvirt.jit.relocations import LINK_RULES, Formula, LinkRules, RelocationType

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from anyvirt.isa.names import Isa

_IGNORED_SECTIONS = (".eh_frame",)
"""Unwinding tables, which no program here reads."""
_CODE = SectionFlags.ALLOC | SectionFlags.EXECUTE
_DATA = SectionFlags.ALLOC | SectionFlags.WRITE
_KINDS = {".rodata": SectionFlags.ALLOC, ".text": _CODE, ".data": _DATA, ".bss": _DATA}
"""The sections of an executable, in their order in memory."""


def link(objects: Sequence[ObjectFile], *, isa: Isa, entry: str = "_start") -> bytes:
    """Link `objects` into a static executable for `isa` that begins at the symbol `entry`.

    Raises LinkError naming what is wrong: another CPU's object, an undefined or twice defined symbol, a
    relocation that is unknown or does not reach.
    """
    rules = LINK_RULES.get(isa)
    if rules is None:
        raise LinkError(f"programs for {isa} cannot be linked: only for {' and '.join(LINK_RULES)}")
    flags = _common_flags(objects, isa, rules.machine)
    outputs = _lay_out(objects, rules.base)
    addresses = _Addresses(objects, outputs)
    relocator = _Relocator(rules, objects, addresses)
    relocator.collect(outputs)
    return write_executable(
        rules.machine,
        flags=flags,
        base=rules.base,
        entry=addresses.of_name(entry),
        sections=[output.loaded(relocator) for output in outputs],
        symbols=addresses.program_symbols(),
    )


@dataclass(frozen=True)
class _Input:
    """A section of one of the object files, with its place in memory."""

    source: int
    index: int
    section: Section
    address: int


@dataclass(frozen=True)
class _Output:
    """A section of the executable: the input sections of one kind, one after the other."""

    name: str
    address: int
    size: int
    alignment: int
    inputs: tuple[_Input, ...]

    def loaded(self, relocator: _Relocator) -> LoadedSection:
        """The section with its relocated bytes."""
        image = None if self.name == ".bss" else self._image(relocator)
        return LoadedSection(self.name, _KINDS[self.name], self.address, self.size, self.alignment, image)

    def _image(self, relocator: _Relocator) -> bytes:
        image = bytearray(self.size)
        for item in self.inputs:
            data = bytearray(item.section.data)
            relocator.patch(item, data)
            offset = item.address - self.address
            image[offset : offset + len(data)] = data
        return bytes(image)


def _common_flags(objects: Sequence[ObjectFile], isa: Isa, machine: int) -> int:
    for item in objects:
        if item.machine != machine:
            raise LinkError(f"an object file is for machine {item.machine}, not for {isa}")
        if item.flags != objects[0].flags:
            raise LinkError("the object files follow different calling conventions (e_flags)")
    return objects[0].flags


def _lay_out(objects: Sequence[ObjectFile], base: int) -> tuple[_Output, ...]:
    """Give every section its address. Where permissions change, a new page begins."""
    found = list(_loaded_sections(objects))
    groups = {name: [item for item in found if _kind(item[2]) == name] for name in _KINDS}
    address = base + headers_size({_KINDS[name] for name in groups if groups[name]})
    permissions = SectionFlags.ALLOC
    outputs = []
    for name, group in groups.items():
        if not group:
            continue
        if _KINDS[name] != permissions:
            address, permissions = _align(address, PAGE), _KINDS[name]
        alignment = max(section.alignment for *_, section in group)
        start = address = _align(address, alignment)
        inputs = []
        for source, index, section in group:
            address = _align(address, section.alignment)
            inputs.append(_Input(source, index, section, address))
            address += section.size
        outputs.append(_Output(name, start, address - start, alignment, tuple(inputs)))
    return tuple(outputs)


def _loaded_sections(objects: Sequence[ObjectFile]) -> Iterator[tuple[int, int, Section]]:
    for source, item in enumerate(objects):
        for index, section in enumerate(item.sections):
            if (
                not section.flags & SectionFlags.ALLOC
                or section.name in _IGNORED_SECTIONS
                or not section.size
            ):
                continue
            if section.flags & SectionFlags.TLS:
                raise LinkError(f"section {section.name} holds thread-local data, which is not supported")
            yield source, index, section


def _kind(section: Section) -> str:
    if section.flags & SectionFlags.EXECUTE:
        if section.flags & SectionFlags.WRITE:
            raise LinkError(f"section {section.name} would be writable and executable")
        return ".text"
    if not section.flags & SectionFlags.WRITE:
        return ".rodata"
    return ".bss" if section.type == SectionType.NOBITS else ".data"


def _align(address: int, alignment: int) -> int:
    return -(-address // alignment) * alignment


class _Addresses:
    """Where every symbol of every object file ended up."""

    def __init__(self, objects: Sequence[ObjectFile], outputs: Iterable[_Output]) -> None:
        self._objects = objects
        self._sections = {
            (item.source, item.index): item.address for output in outputs for item in output.inputs
        }
        self._globals: dict[str, tuple[int, Symbol]] = {}
        for source, item in enumerate(objects):
            for symbol in item.symbols:
                self._define(source, symbol)

    def _define(self, source: int, symbol: Symbol) -> None:
        if symbol.binding is Binding.LOCAL or symbol.section == SpecialIndex.UNDEFINED:
            return
        if symbol.section == SpecialIndex.COMMON:
            raise LinkError(f"{symbol.name} is a common symbol, which is not supported")
        earlier = self._globals.get(symbol.name)
        if earlier is None or earlier[1].binding is Binding.WEAK:
            self._globals[symbol.name] = source, symbol
        elif symbol.binding is not Binding.WEAK:
            raise LinkError(f"{symbol.name} is defined twice")

    def of(self, source: int, index: int) -> int:
        """The address of symbol `index` of object file `source`."""
        symbols = self._objects[source].symbols
        if index >= len(symbols):
            raise LinkError(f"the object file is damaged: it has no symbol {index}")
        if symbols[index].binding is Binding.LOCAL:
            return self._place(source, symbols[index])
        return self.of_name(symbols[index].name)

    def of_name(self, name: str) -> int:
        """The address of a global symbol."""
        if name not in self._globals:
            raise LinkError(f"{name} is not defined{_hint(name)}")
        return self._place(*self._globals[name])

    def _place(self, source: int, symbol: Symbol) -> int:
        if symbol.section == SpecialIndex.ABSOLUTE:
            return symbol.value
        address = self._sections.get((source, symbol.section))
        if address is None:
            raise LinkError(f"{symbol.name or 'a symbol'} lies in a section that is empty or not loaded")
        return address + symbol.value

    def program_symbols(self) -> list[ProgramSymbol]:
        """The global symbols, for debuggers and disassemblers."""
        return [
            ProgramSymbol(name, self._place(source, symbol), symbol.size)
            for name, (source, symbol) in sorted(self._globals.items())
            if (source, symbol.section) in self._sections
        ]


def _hint(name: str) -> str:
    """What in a program needs `name`, where it is a function of a compiler's run-time library."""
    if name.startswith("__") and name.endswith(("ti2", "ti3", "tf2", "tf3")):
        return ": 128-bit division and floats need a run-time library, which programs here do not have"
    if name in ("floor", "ceil", "trunc", "round", "fmod", "fma", "pow", "exp", "log", "sin", "cos"):
        return ": the CPU has no instruction for it and programs here have no mathematical library"
    return ""


class _Relocator:
    """Computes the values of relocations and applies them."""

    def __init__(self, rules: LinkRules, objects: Sequence[ObjectFile], addresses: _Addresses) -> None:
        self._rules = rules
        self._objects = objects
        self._addresses = addresses
        self._relative: dict[int, int] = {}

    def collect(self, outputs: Iterable[_Output]) -> None:
        """Remember the values of RELATIVE relocations by their place, for those that refer to them."""
        for output in outputs:
            for item in output.inputs:
                for relocation in item.section.relocations:
                    if self._type(relocation).formula is Formula.RELATIVE:
                        place = item.address + relocation.offset
                        self._relative[place] = self._target(item, relocation) + relocation.addend - place

    def patch(self, item: _Input, data: bytearray) -> None:
        """Apply all relocations of a section to its bytes."""
        for relocation in item.section.relocations:
            kind = self._type(relocation)
            value = self._value(item, relocation, kind)
            try:
                kind.patch(data, relocation.offset, value)
            except struct.error:
                raise LinkError(f"relocation {kind.name} lies outside of {item.section.name}") from None
            except OverflowError:
                name = self._objects[item.source].symbols[relocation.symbol].name or "a local symbol"
                raise LinkError(f"relocation {kind.name} of {name} does not reach: {value:#x}") from None

    def _value(self, item: _Input, relocation: Relocation, kind: RelocationType) -> int:
        if kind.formula is Formula.ABSOLUTE:
            return self._target(item, relocation) + relocation.addend
        of_partner = kind.formula is Formula.OF_PARTNER
        place = self._target(item, relocation) if of_partner else item.address + relocation.offset
        if place not in self._relative:
            raise LinkError(f"relocation {kind.name} refers to a place that has no relocation of its own")
        return self._relative[place]

    def _target(self, item: _Input, relocation: Relocation) -> int:
        return self._addresses.of(item.source, relocation.symbol)

    def _type(self, relocation: Relocation) -> RelocationType:
        kind = self._rules.types.get(relocation.type)
        if kind is None:
            name = self._rules.refused.get(relocation.type, f"of type {relocation.type}")
            raise LinkError(f"relocation {name} is not supported")
        return kind
