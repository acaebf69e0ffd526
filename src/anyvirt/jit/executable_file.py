"""Static executables as files: headers, segments, tables for debuggers (System V ABI, chapters 4 and 5).

A section's offset in the file is its address less the program's base: the kernel maps the file as it is.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING

from anyvirt.jit.object_file import Binding, SectionFlags, SectionType

if TYPE_CHECKING:
    from collections.abc import Sequence


PAGE = 0x1000
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_EXECUTABLE_FILE = 2
_FUNCTION, _OBJECT = 2, 1


class _SegmentType(IntEnum):
    LOAD = 1
    GNU_STACK = 0x6474E551


class _SegmentFlags(IntFlag):
    EXECUTE = 1
    WRITE = 2
    READ = 4


@dataclass(frozen=True)
class LoadedSection:
    """A section of the program in memory. `image` holds its bytes; None means zeros that take no room."""

    name: str
    flags: SectionFlags
    address: int
    size: int
    alignment: int
    image: bytes | None

    @property
    def end(self) -> int:
        """The address behind the section."""
        return self.address + self.size


@dataclass(frozen=True)
class ProgramSymbol:
    """A name that debuggers and disassemblers show for an address."""

    name: str
    address: int
    size: int


def headers_size(kinds: set[SectionFlags]) -> int:
    """Bytes at the beginning of a program whose sections have the given kinds of flags."""
    return _HEADER.size + _SEGMENT.size * (2 + len(kinds - {SectionFlags.ALLOC}))


def write_executable(
    machine: int,
    *,
    flags: int,
    base: int,
    entry: int,
    sections: Sequence[LoadedSection],
    symbols: Sequence[ProgramSymbol],
) -> bytes:
    """The file of a program whose `sections`, in the order of their addresses, begin after its headers.

    `machine` and `flags` are the processor's (`e_machine`, `e_flags`). Constants share the
    first segment with the headers; then follow code and data, each beginning on a page of its own.
    """
    segments = _segments(base, sections)
    file = bytearray(_HEADER.size) + b"".join(segments)
    for section in sections:
        if section.image is not None:
            file += bytes(section.address - base - len(file)) + section.image
    headers, names_index = _append_tables(file, base, sections, symbols)
    _pad(file)
    file[: _HEADER.size] = _HEADER.pack(
        b"\x7fELF\x02\x01\x01", _EXECUTABLE_FILE, machine, 1, entry, _HEADER.size, len(file), flags,
        _HEADER.size, _SEGMENT.size, len(segments), _SECTION.size, len(headers), names_index,
    )  # fmt: skip
    return bytes(file + b"".join(headers))


def _segments(base: int, sections: Sequence[LoadedSection]) -> list[bytes]:
    """The program headers: one segment for each set of permissions that occurs, and the stack's."""
    constants = [section for section in sections if section.flags == SectionFlags.ALLOC]
    code = [section for section in sections if section.flags & SectionFlags.EXECUTE]
    data = [section for section in sections if section.flags & SectionFlags.WRITE]
    size = constants[-1].end - base if constants else headers_size({section.flags for section in sections})
    segments = [_segment(_SegmentType.LOAD, _SegmentFlags.READ, 0, base, size, size)]
    for permission, group in ((_SegmentFlags.EXECUTE, code), (_SegmentFlags.WRITE, data)):
        if group:
            start, end = group[0].address, group[-1].end
            filled = max((section.end for section in group if section.image is not None), default=start)
            offset = start - base if filled > start else 0
            segments.append(
                _segment(
                    _SegmentType.LOAD,
                    _SegmentFlags.READ | permission,
                    offset,
                    start,
                    filled - start,
                    end - start,
                )
            )
    segments.append(_segment(_SegmentType.GNU_STACK, _SegmentFlags.READ | _SegmentFlags.WRITE, 0, 0, 0, 0))
    return segments


def _segment(
    kind: _SegmentType, flags: _SegmentFlags, offset: int, address: int, file_size: int, memory_size: int
) -> bytes:
    alignment = PAGE if kind is _SegmentType.LOAD else 16
    return _SEGMENT.pack(kind, flags, offset, address, address, file_size, memory_size, alignment)


def _append_tables(
    file: bytearray, base: int, sections: Sequence[LoadedSection], symbols: Sequence[ProgramSymbol]
) -> tuple[list[bytes], int]:
    """Append symbols and names; return the section headers and the index of the table of section names."""
    names, strings = _Strings(), _Strings()
    headers = [bytes(_SECTION.size)]
    for section in sections:
        kind = SectionType.NOBITS if section.image is None else SectionType.PROGBITS
        headers.append(
            _SECTION.pack(
                names.add(section.name), kind, section.flags, section.address, section.address - base,
                section.size, 0, 0, section.alignment, 0,
            )
        )  # fmt: skip
    table = bytes(_SYMBOL.size) + b"".join(_symbol(strings, sections, symbol) for symbol in symbols)
    _pad(file)
    string_index = len(headers) + 1
    headers.append(
        _SECTION.pack(
            names.add(".symtab"), SectionType.SYMTAB, 0, 0, len(file), len(table), string_index, 1, 8,
            _SYMBOL.size,
        )
    )  # fmt: skip
    file += table
    for name, content in ((".strtab", strings), (".shstrtab", names)):
        name_offset = names.add(name)
        size = len(content.text)
        headers.append(_SECTION.pack(name_offset, SectionType.STRTAB, 0, 0, len(file), size, 0, 0, 1, 0))
        file += content.text
    return headers, len(headers) - 1


def _symbol(strings: _Strings, sections: Sequence[LoadedSection], symbol: ProgramSymbol) -> bytes:
    index = next(
        index for index, section in enumerate(sections, 1) if section.address <= symbol.address <= section.end
    )
    kind = _FUNCTION if sections[index - 1].flags & SectionFlags.EXECUTE else _OBJECT
    return _SYMBOL.pack(
        strings.add(symbol.name), Binding.GLOBAL << 4 | kind, 0, index, symbol.address, symbol.size
    )


def _pad(file: bytearray) -> None:
    file += bytes(-len(file) % 8)


class _Strings:
    """Names, each ended by a zero byte, found by their offset."""

    def __init__(self) -> None:
        self.text = bytearray(1)

    def add(self, name: str) -> int:
        """Append `name` and return its offset."""
        offset = len(self.text)
        self.text += name.encode() + b"\0"
        return offset
