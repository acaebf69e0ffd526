"""Relocatable object files: what a compiler emits and the linker reads (System V ABI, chapter 4).

Only 64-bit little-endian files with addends in their relocations (RELA), as LLVM emits them for x86-64 and
RISC-V; anything else is refused by name.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from anyvirt.errors import AnyvirtError

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")
_RELOCATABLE = 1


class LinkError(AnyvirtError):
    """Object files that cannot become a program: damaged, for another CPU, or with something unresolved."""


class SectionType(IntEnum):
    """Section types that are read (figure 4-11)."""

    PROGBITS = 1
    SYMTAB = 2
    STRTAB = 3
    RELA = 4
    NOBITS = 8
    REL = 9


class SectionFlags(IntFlag):
    """Section attributes that decide where a section goes (figure 4-14)."""

    WRITE = 1
    ALLOC = 2
    EXECUTE = 4
    TLS = 0x400


class Binding(IntEnum):
    """Who sees a symbol (figure 4-19)."""

    LOCAL = 0
    GLOBAL = 1
    WEAK = 2


class SpecialIndex(IntEnum):
    """Section indices of symbols that lie in no section (figure 4-8)."""

    UNDEFINED = 0
    RESERVED = 0xFF00
    ABSOLUTE = 0xFFF1
    COMMON = 0xFFF2


@dataclass(frozen=True)
class Relocation:
    """A place in a section that depends on the address of a symbol."""

    offset: int
    type: int
    symbol: int
    """Index into the object file's symbols."""
    addend: int = 0


@dataclass(frozen=True)
class Section:
    """Bytes with a purpose. The data of a NOBITS section are zeros and take no room in the file."""

    name: str
    type: int
    flags: SectionFlags
    alignment: int
    size: int
    data: bytes = b""
    relocations: tuple[Relocation, ...] = ()


@dataclass(frozen=True)
class Symbol:
    """A name for a place: `value` bytes into section `section`, or a SpecialIndex."""

    name: str
    binding: Binding
    section: int
    value: int = 0
    type: int = 0
    size: int = 0


@dataclass(frozen=True)
class ObjectFile:
    """One compiled module. Section and symbol 0 are the null entries that the format begins with."""

    machine: int
    flags: int
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]


def read_object(data: bytes) -> ObjectFile:
    """Parse the object file `data`. Raises LinkError when it is not a well-formed one."""
    try:
        return _read(data)
    except (struct.error, IndexError, OverflowError, ValueError) as error:
        raise LinkError(f"the object file is damaged: {error}") from None


def _read(data: bytes) -> ObjectFile:
    if data[:7] != b"\x7fELF\x02\x01\x01":
        raise LinkError("this is not a 64-bit little-endian ELF object file")
    header = _HEADER.unpack_from(data)
    kind, machine, table, flags, entry_size, count, names = (
        header[1],
        header[2],
        header[6],
        header[7],
        *header[11:],
    )
    if kind != _RELOCATABLE or entry_size != _SECTION.size:
        raise LinkError("this is an ELF file but not a relocatable object file")
    headers = [_SECTION.unpack_from(data, table + index * entry_size) for index in range(count)]
    contents = [_content(data, fields) for fields in headers]
    relocations = _relocations(headers, contents)
    sections = tuple(
        Section(
            _string(contents[names], fields[0]),
            fields[1],
            SectionFlags(fields[2]),
            max(fields[8], 1),
            fields[5],
            contents[index],
            relocations.get(index, ()),
        )
        for index, fields in enumerate(headers)
    )
    return ObjectFile(machine, flags, sections, _symbols(headers, contents))


def _content(data: bytes, fields: tuple[int, ...]) -> bytes:
    kind, offset, size = fields[1], fields[4], fields[5]
    if kind in (0, SectionType.NOBITS):
        return b""
    if offset + size > len(data):
        raise LinkError("the object file is truncated: a section lies beyond its end")
    return data[offset : offset + size]


def _symbols(headers: list[tuple[int, ...]], contents: list[bytes]) -> tuple[Symbol, ...]:
    index = next((index for index, fields in enumerate(headers) if fields[1] == SectionType.SYMTAB), None)
    if index is None:
        return ()
    names = contents[headers[index][6]]
    return tuple(
        Symbol(_string(names, name), Binding(info >> 4), section, value, info & 15, size)
        for name, info, _, section, value, size in _SYMBOL.iter_unpack(contents[index])
    )


def _relocations(headers: list[tuple[int, ...]], contents: list[bytes]) -> dict[int, tuple[Relocation, ...]]:
    found: dict[int, tuple[Relocation, ...]] = {}
    for fields, content in zip(headers, contents, strict=True):
        if fields[1] == SectionType.REL:
            raise LinkError("the object file has relocations without addends (REL), which are not supported")
        if fields[1] == SectionType.RELA:
            target = fields[7]
            found[target] = tuple(
                Relocation(offset, info & 0xFFFFFFFF, info >> 32, addend)
                for offset, info, addend in _RELOCATION.iter_unpack(content)
            )
    return found


def _string(table: bytes, offset: int) -> str:
    return table[offset : table.index(b"\0", offset)].decode()
