"""Names of addresses: from the symbol tables of ELF files, and from what kernels list of theirs.

ELF-64 Object File Format 1.5, chapters "Sections" and "Symbol table". System.map and /proc/kallsyms have a
line for each symbol: an address, a letter, a name.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from anyvirt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_SYMBOL_TABLE = 2
_DATA, _FUNCTION = 1, 2
_UNTYPED = 0
_LINE = re.compile(r"\s*(?:0x)?([0-9a-fA-F]{8,16})\s+(\S)\s+(\S+)")
_MAPPING = "$"
"""What the names of symbols begin with that only tell code from data (RISC-V ELF psABI, "Mapping symbol")."""
_FARTHEST = 1 << 20
"""An address so far behind a symbol without a size does not belong to it."""


class Symbol(NamedTuple):
    """A name for some addresses; a size of 0 is not known."""

    address: int
    name: str
    size: int = 0


class Symbols:
    """A table that grows by files."""

    def __init__(self) -> None:
        self._by_name: dict[str, Symbol] = {}
        self._sorted: list[Symbol] = []

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def load(self, path: str | Path) -> int:
        """Add the symbols of a file of either kind, and return how many. Raises UsageError."""
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise UsageError(f"symbols cannot be read from {path}: {error.strerror}") from None
        if content.startswith(b"\x7fELF"):
            found = list(_of_elf(content, path))
        else:
            found = list(_of_text(content.decode(errors="replace")))
        if not found:
            raise UsageError(
                f"{path} has no symbols: it is an ELF file without a symbol table, or no list of any"
            )
        self.add(found)
        return len(found)

    def add(self, symbols: Iterable[Symbol]) -> None:
        """Add some; of the same name the last ones count."""
        for symbol in symbols:
            self._by_name[symbol.name] = symbol
        self._sorted = sorted(self._by_name.values())

    def address(self, name: str) -> int | None:
        """Where a name is; None if there is no such name."""
        symbol = self._by_name.get(name)
        return symbol.address if symbol is not None else None

    def at(self, address: int) -> str | None:
        """An address as a name and a distance; None if it belongs to none."""
        symbol = self._nearest(address)
        if symbol is None:
            return None
        distance = address - symbol.address
        return f"{symbol.name}+{distance:#x}" if distance else symbol.name

    def _nearest(self, address: int) -> Symbol | None:
        place = bisect_right(self._sorted, (address, "\U0010ffff", 0)) - 1
        if place < 0:
            return None
        symbol = self._sorted[place]
        reach = symbol.size or _FARTHEST
        return symbol if address == symbol.address or address < symbol.address + reach else None

    def names(self, beginning: str = "") -> Iterator[str]:
        """All names that begin so."""
        return (name for name in self._by_name if name.startswith(beginning))


def _of_text(text: str) -> Iterator[Symbol]:
    for line in text.splitlines():
        match = _LINE.match(line)
        if match and int(match[1], 16):
            yield Symbol(int(match[1], 16), match[3])


def _of_elf(content: bytes, path: str | Path) -> Iterator[Symbol]:
    try:
        yield from _symbols(content)
    except (struct.error, ValueError, IndexError, OverflowError):
        raise UsageError(f"{path} is a damaged ELF file, or not one of 64 bits, little-endian") from None


def _symbols(content: bytes) -> Iterator[Symbol]:
    identity, *fields = _HEADER.unpack_from(content)
    if identity[4:6] != b"\x02\x01":
        raise ValueError("another kind of ELF")
    sections_at, size, count = fields[5], fields[10], fields[11]
    sections = [_SECTION.unpack_from(content, sections_at + number * size) for number in range(count)]
    for _, kind, _, _, offset, length, link, _, _, entry in sections:
        if kind != _SYMBOL_TABLE or entry != _SYMBOL.size:
            continue
        names = sections[link][4]
        for start in range(offset, offset + length, entry):
            name_at, info, _, section, value, extent = _SYMBOL.unpack_from(content, start)
            begin = names + name_at
            name = content[begin : content.index(b"\0", begin)].decode(errors="replace")
            if (
                name
                and section
                and info & 0xF in (_UNTYPED, _DATA, _FUNCTION)
                and not name.startswith(_MAPPING)
            ):
                yield Symbol(value, name, extent)
