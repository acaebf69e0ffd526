"""ELF executables: the header and program headers that decide which engine can run a program.

Follows the System V ABI, chapters 4 and 5 ("ELF header", "Program header"), and each processor supplement's
machine number. Every value read from the file is checked against the file's size before use.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from anyvirt.isa.names import Isa

MAGIC = b"\x7fELF"
HEADER_SIZE = 64
_MAXIMUM_SEGMENTS = 128


class ElfError(ValueError):
    """The bytes are not a well-formed ELF executable; the message completes "it is …"."""


class SegmentType(IntEnum):
    """Types of program headers that matter to a loader (System V ABI, figure 5-2)."""

    LOAD = 1
    DYNAMIC = 2
    INTERP = 3
    TLS = 7
    GNU_STACK = 0x6474E551


class SegmentFlags(IntFlag):
    """Permissions of a segment in memory."""

    EXECUTE = 1
    WRITE = 2
    READ = 4


class ElfType(IntEnum):
    """Object file types that can be executed."""

    EXEC = 2
    DYN = 3


@dataclass(frozen=True)
class Segment:
    """One program header: `file_size` bytes at `offset` appear at `address`, zero-filled to `memory_size`."""

    type: int
    flags: SegmentFlags
    offset: int
    address: int
    file_size: int
    memory_size: int
    alignment: int
    physical_address: int = 0
    """Where it is to be without translation of addresses, as kernels and firmware are loaded."""


@dataclass(frozen=True)
class Elf:
    """What an executable's headers say."""

    isa: Isa
    bits: int
    little_endian: bool
    type: ElfType
    entry: int
    header_offset: int
    """File offset of the program header table."""
    flags: int
    """Processor-specific flags (`e_flags`)."""
    segments: tuple[Segment, ...]

    @property
    def interpreter(self) -> Segment | None:
        """The segment that names the dynamic linker; None in a static program."""
        return next((segment for segment in self.segments if segment.type == SegmentType.INTERP), None)


# (machine, bits, little-endian) of each ISA; numbers from the registry in the System V ABI, "e_machine".
_MACHINES: dict[tuple[int, int, bool], Isa] = {
    (3, 32, True): Isa.I386,
    (62, 64, True): Isa.X86_64,
    (243, 64, True): Isa.RISCV64,
    (243, 32, True): Isa.RISCV32,
    (183, 64, True): Isa.AARCH64,
    (40, 32, True): Isa.ARM,
    (8, 32, False): Isa.MIPS,
    (8, 32, True): Isa.MIPSEL,
    (8, 64, False): Isa.MIPS64,
    (8, 64, True): Isa.MIPS64EL,
    (20, 32, False): Isa.PPC,
    (21, 64, False): Isa.PPC64,
    (21, 64, True): Isa.PPC64LE,
    (2, 32, False): Isa.SPARC,
    (43, 64, False): Isa.SPARC64,
    (22, 64, False): Isa.S390X,
    (0x9026, 64, True): Isa.ALPHA,
}


def machine_number(isa: Isa) -> int:
    """The `e_machine` number of `isa`."""
    return next(key[0] for key, value in _MACHINES.items() if value is isa)


def parse_elf(data: bytes, file_size: int | None = None) -> Elf:
    """Read the headers in `data`, the beginning of a file of `file_size` bytes (default: all of it).

    `data` has to hold the program header table. Raises ElfError for anything that no kernel would execute.
    """
    size = len(data) if file_size is None else file_size
    if data[:4] != MAGIC:
        raise ElfError("not an ELF file")
    if len(data) < 52:
        raise ElfError("a truncated ELF file: its header is incomplete")
    bits = {1: 32, 2: 64}.get(data[4])
    order = {1: "<", 2: ">"}.get(data[5])
    if bits is None or order is None or data[6] != 1:
        raise ElfError("a damaged ELF file: its class, byte order or version is not a known one")
    if len(data) < (64 if bits == 64 else 52):
        raise ElfError("a truncated ELF file: its header is incomplete")
    kind, machine = struct.unpack_from(order + "HH", data, 16)
    layout = "QQQIHHH" if bits == 64 else "IIIIHHH"
    entry, header_offset, _, flags, _, entry_size, count = struct.unpack_from(order + layout, data, 24)
    isa = _MACHINES.get((machine, bits, order == "<"))
    if isa is None:
        raise ElfError(f"an ELF file for a CPU that anyvirt does not know (machine {machine}, {bits} bits)")
    if kind not in (ElfType.EXEC, ElfType.DYN):
        raise ElfError("an ELF file but not an executable (an object file or a core dump)")
    table = _program_headers(data, size, order, bits, header_offset, entry_size, count)
    return Elf(isa, bits, order == "<", ElfType(kind), entry, header_offset, flags, table)


def _program_headers(
    data: bytes, size: int, order: str, bits: int, offset: int, entry_size: int, count: int
) -> tuple[Segment, ...]:
    layout = struct.Struct(order + ("IIQQQQQQ" if bits == 64 else "IIIIIIII"))
    if entry_size != layout.size or not 0 < count <= _MAXIMUM_SEGMENTS:
        raise ElfError("a damaged ELF file: its program header table has an impossible size")
    if offset + count * entry_size > size:
        raise ElfError("a truncated ELF file: its program header table lies beyond its end")
    if offset + count * entry_size > len(data):
        raise ElfError("a damaged ELF file: its program header table is too far from its beginning")
    segments = tuple(
        _segment(layout.unpack_from(data, offset + index * entry_size), bits) for index in range(count)
    )
    loads = [segment for segment in segments if segment.type == SegmentType.LOAD]
    if not loads:
        raise ElfError("a damaged ELF file: it has no segment to load")
    for segment in loads:
        if segment.offset + segment.file_size > size:
            raise ElfError("a truncated ELF file: a segment lies beyond its end")
        if segment.file_size > segment.memory_size or segment.address + segment.memory_size >= 1 << bits:
            raise ElfError("a damaged ELF file: a segment does not fit into memory")
    return segments


def _segment(fields: tuple[int, ...], bits: int) -> Segment:
    if bits == 64:
        kind, flags, offset, address, physical, file_size, memory_size, alignment = fields
    else:
        kind, offset, address, physical, file_size, memory_size, flags, alignment = fields
    return Segment(
        kind, SegmentFlags(flags & 7), offset, address, file_size, memory_size, alignment, physical
    )
