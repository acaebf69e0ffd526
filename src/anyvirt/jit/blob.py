"""Blobs: machine code that runs wherever it is mapped, with nothing left to relocate.

A blob is the text and constants of one object file, followed by zeroed data on pages of its own. Distances
between them are fixed when the blob is made, so one file serves every process, and loading it is a copy.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anyvirt.jit.layout import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAGIC = b"anyvirt blob 1\n\0"
_HEADER = struct.Struct(f"<{len(_MAGIC)}s32s32sII")

_RELATIVE = (2, 4)
"""R_X86_64_PC32 and R_X86_64_PLT32: 32-bit distances (System V ABI AMD64 supplement, table 4.9)."""


class BlobError(Exception):
    """Bytes that are no blob, or not the one that was asked for."""


@dataclass(frozen=True)
class Blob:
    """Code with its symbols, independent of where it will be."""

    code: bytes
    data_size: int
    """Bytes of zeroed, writable data behind the code, from the next page on."""
    symbols: dict[str, int]
    """Offsets of what is to be found by name."""
    notes: dict[str, object] = field(default_factory=dict)
    """What the users of the blob want to know without asking its sources (JSON)."""

    def pack(self, key: bytes) -> bytes:
        """The file that `unpack` reads, for a 32-byte key that names what the blob was made from."""
        facts = {"data_size": self.data_size, "symbols": self.symbols, "notes": self.notes}
        head = json.dumps(facts).encode()
        digest = hashlib.sha256(head + self.code).digest()
        return _HEADER.pack(_MAGIC, key, digest, len(head), len(self.code)) + head + self.code

    @classmethod
    def unpack(cls, content: bytes, key: bytes) -> Blob:
        """The blob in a file, checked in every byte. Raises BlobError."""
        if len(content) < _HEADER.size:
            raise BlobError("too short")
        magic, stored_key, digest, head_size, code_size = _HEADER.unpack_from(content)
        body = content[_HEADER.size :]
        if magic != _MAGIC or stored_key != key:
            raise BlobError("made from something else")
        if len(body) != head_size + code_size or hashlib.sha256(body).digest() != digest:
            raise BlobError("damaged")
        facts = json.loads(body[:head_size])
        return cls(body[head_size:], facts["data_size"], facts["symbols"], facts["notes"])


def data_offset(code_size: int) -> int:
    """Where a blob's data begins."""
    return -(-code_size // PAGE_SIZE) * PAGE_SIZE


def link(object_file: bytes, notes: Mapping[str, object] | None = None) -> Blob:
    """Make a blob of an x86-64 object file that needs nothing from outside. Raises LinkError."""
    from anyvirt.jit.object_file import Binding, LinkError, SectionFlags, SectionType, read_object

    parsed = read_object(object_file)
    code, places, data_size = bytearray(), {}, 0
    loaded = [
        (index, section)
        for index, section in enumerate(parsed.sections)
        if section.flags & SectionFlags.ALLOC and section.size and section.name != ".eh_frame"
    ]
    for index, section in loaded:
        if section.type != SectionType.NOBITS:
            if section.flags & SectionFlags.WRITE:
                raise LinkError(
                    f"section {section.name} has data with start values, which a blob cannot have"
                )
            code += bytes(-len(code) % section.alignment)
            places[index] = len(code)
            code += section.data
    for index, section in loaded:
        if section.type == SectionType.NOBITS:
            data_size += -data_size % section.alignment
            places[index] = data_offset(len(code)) + data_size
            data_size += section.size
    for index, section in loaded:
        for relocation in section.relocations:
            symbol = parsed.symbols[relocation.symbol]
            if relocation.type not in _RELATIVE or symbol.section not in places:
                raise LinkError(
                    f"{symbol.name or section.name} (relocation type {relocation.type}) is outside the blob"
                )
            place = places[index] + relocation.offset
            distance = places[symbol.section] + symbol.value + relocation.addend - place
            struct.pack_into("<i", code, place, distance)
    symbols = {
        symbol.name: places[symbol.section] + symbol.value
        for symbol in parsed.symbols
        if symbol.binding is Binding.GLOBAL and symbol.section in places
    }
    if data_size:
        symbols["data"] = data_offset(len(code))
    return Blob(bytes(code), data_size, symbols, dict(notes or {}))
