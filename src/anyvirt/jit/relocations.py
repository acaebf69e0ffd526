"""Relocation types as data, per ISA: how a value is computed from addresses, and how it enters the code.

x86-64: System V ABI AMD64 supplement, table 4.9. RISC-V: ELF psABI, "Relocations", and the unprivileged ISA's
instruction formats (section 2.3). The tables hold the types that compilers and assemblers emit for static,
non-relaxed code.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from anyvirt.isa.names import Isa

Patch = Callable[[bytearray, int, int], None]
"""Writes a value into the code or data at an offset; OverflowError when it does not fit the field."""


class Formula(Enum):
    """How a relocation's value follows from the symbol S, the addend A and the place P."""

    ABSOLUTE = "S + A"
    RELATIVE = "S + A - P"
    OF_PARTNER = "the value of the RELATIVE relocation at address S"


@dataclass(frozen=True)
class RelocationType:
    """One type of relocation that the linker applies."""

    name: str
    formula: Formula
    patch: Patch


def _word64(data: bytearray, offset: int, value: int) -> None:
    struct.pack_into("<Q", data, offset, value & 0xFFFF_FFFF_FFFF_FFFF)


def _word32(data: bytearray, offset: int, value: int) -> None:
    _check(value, 0, 1 << 32)
    struct.pack_into("<I", data, offset, value)


def _signed_word32(data: bytearray, offset: int, value: int) -> None:
    _check(value, -1 << 31, 1 << 31)
    struct.pack_into("<i", data, offset, value)


def _upper_immediate(data: bytearray, offset: int, value: int) -> None:
    """Bits 31…12 into a U-format instruction, rounded so that the signed low part completes them."""
    _check(value + 0x800, -1 << 31, 1 << 31)
    _insert(data, offset, 0xFFFFF000, (value + 0x800) & 0xFFFFF000)


def _lower_immediate(data: bytearray, offset: int, value: int) -> None:
    """Bits 11…0 into an I-format instruction."""
    _insert(data, offset, 0xFFF00000, (value & 0xFFF) << 20)


def _lower_immediate_of_store(data: bytearray, offset: int, value: int) -> None:
    """Bits 11…0 into an S-format instruction, which holds them in two fields."""
    _insert(data, offset, 0xFE000F80, (value >> 5 & 0x7F) << 25 | (value & 0x1F) << 7)


def _call_pair(data: bytearray, offset: int, value: int) -> None:
    """An AUIPC and the JALR after it."""
    _upper_immediate(data, offset, value)
    _lower_immediate(data, offset + 4, value)


def _branch(data: bytearray, offset: int, value: int) -> None:
    """A B-format instruction's distance, in steps of 2 bytes."""
    _check(value, -1 << 12, 1 << 12)
    _insert(data, offset, 0xFE000F80, _scatter(value, ((12, 31), (11, 7)), ((10, 5, 25), (4, 1, 8))))


def _jump(data: bytearray, offset: int, value: int) -> None:
    """A J-format instruction's distance."""
    _check(value, -1 << 20, 1 << 20)
    _insert(data, offset, 0xFFFFF000, _scatter(value, ((20, 31), (11, 20)), ((10, 1, 21), (19, 12, 12))))


def _compressed_branch(data: bytearray, offset: int, value: int) -> None:
    """A CB-format instruction's distance (section 26.4)."""
    _check(value, -1 << 8, 1 << 8)
    field = _scatter(value, ((8, 12), (5, 2)), ((4, 3, 10), (7, 6, 5), (2, 1, 3)))
    _insert_compressed(data, offset, 0x1C7C, field)


def _compressed_jump(data: bytearray, offset: int, value: int) -> None:
    """A CJ-format instruction's distance."""
    _check(value, -1 << 11, 1 << 11)
    single = ((11, 12), (4, 11), (10, 8), (6, 7), (7, 6), (5, 2))
    _insert_compressed(data, offset, 0x1FFC, _scatter(value, single, ((9, 8, 9), (3, 1, 3))))


def _add32(data: bytearray, offset: int, value: int) -> None:
    (word,) = struct.unpack_from("<I", data, offset)
    struct.pack_into("<I", data, offset, word + value & 0xFFFF_FFFF)


def _subtract32(data: bytearray, offset: int, value: int) -> None:
    _add32(data, offset, -value)


def _scatter(value: int, bits: tuple[tuple[int, int], ...], ranges: tuple[tuple[int, int, int], ...]) -> int:
    """The bits of a value where an instruction wants them: (from, to) and (highest, lowest, lowest to)."""
    field = 0
    for source, target in bits:
        field |= (value >> source & 1) << target
    for high, low, target in ranges:
        field |= (value >> low & (1 << high - low + 1) - 1) << target
    return field


def _insert_compressed(data: bytearray, offset: int, mask: int, field: int) -> None:
    (word,) = struct.unpack_from("<H", data, offset)
    struct.pack_into("<H", data, offset, word & ~mask | field)


def _insert(data: bytearray, offset: int, mask: int, field: int) -> None:
    (word,) = struct.unpack_from("<I", data, offset)
    struct.pack_into("<I", data, offset, word & ~mask | field)


def _check(value: int, low: int, end: int) -> None:
    if not low <= value < end:
        raise OverflowError(value)


_X86_64 = {
    1: RelocationType("R_X86_64_64", Formula.ABSOLUTE, _word64),
    2: RelocationType("R_X86_64_PC32", Formula.RELATIVE, _signed_word32),
    4: RelocationType("R_X86_64_PLT32", Formula.RELATIVE, _signed_word32),
    10: RelocationType("R_X86_64_32", Formula.ABSOLUTE, _word32),
    11: RelocationType("R_X86_64_32S", Formula.ABSOLUTE, _signed_word32),
}

_RISCV64 = {
    1: RelocationType("R_RISCV_32", Formula.ABSOLUTE, _word32),
    2: RelocationType("R_RISCV_64", Formula.ABSOLUTE, _word64),
    16: RelocationType("R_RISCV_BRANCH", Formula.RELATIVE, _branch),
    17: RelocationType("R_RISCV_JAL", Formula.RELATIVE, _jump),
    18: RelocationType("R_RISCV_CALL", Formula.RELATIVE, _call_pair),
    19: RelocationType("R_RISCV_CALL_PLT", Formula.RELATIVE, _call_pair),
    23: RelocationType("R_RISCV_PCREL_HI20", Formula.RELATIVE, _upper_immediate),
    24: RelocationType("R_RISCV_PCREL_LO12_I", Formula.OF_PARTNER, _lower_immediate),
    25: RelocationType("R_RISCV_PCREL_LO12_S", Formula.OF_PARTNER, _lower_immediate_of_store),
    26: RelocationType("R_RISCV_HI20", Formula.ABSOLUTE, _upper_immediate),
    27: RelocationType("R_RISCV_LO12_I", Formula.ABSOLUTE, _lower_immediate),
    28: RelocationType("R_RISCV_LO12_S", Formula.ABSOLUTE, _lower_immediate_of_store),
    35: RelocationType("R_RISCV_ADD32", Formula.ABSOLUTE, _add32),
    39: RelocationType("R_RISCV_SUB32", Formula.ABSOLUTE, _subtract32),
    44: RelocationType("R_RISCV_RVC_BRANCH", Formula.RELATIVE, _compressed_branch),
    45: RelocationType("R_RISCV_RVC_JUMP", Formula.RELATIVE, _compressed_jump),
}


@dataclass(frozen=True)
class LinkRules:
    """What the linker has to know about an ISA."""

    machine: int
    """The number of the ISA in ELF headers (`e_machine`)."""
    base: int
    """Address at which programs are loaded."""
    types: Mapping[int, RelocationType]
    refused: Mapping[int, str]
    """Types that compilers emit for other kinds of code: known by name, so that a refusal can say them."""


LINK_RULES: Mapping[Isa, LinkRules] = {
    Isa.X86_64: LinkRules(
        machine=62,
        base=0x400000,
        types=_X86_64,
        refused={
            9: "R_X86_64_GOTPCREL",
            19: "R_X86_64_TLSGD",
            22: "R_X86_64_GOTTPOFF",
            23: "R_X86_64_TPOFF32",
            24: "R_X86_64_PC64",
            26: "R_X86_64_GOTPC32",
            41: "R_X86_64_GOTPCRELX",
            42: "R_X86_64_REX_GOTPCRELX",
        },
    ),
    Isa.RISCV64: LinkRules(
        machine=243,
        base=0x10000,
        types=_RISCV64,
        refused={
            20: "R_RISCV_GOT_HI20",
            21: "R_RISCV_TLS_GOT_HI20",
            22: "R_RISCV_TLS_GD_HI20",
            29: "R_RISCV_TPREL_HI20",
            43: "R_RISCV_ALIGN",
            51: "R_RISCV_RELAX",
            57: "R_RISCV_32_PCREL",
        },
    ),
}
"""One entry for each ISA that programs can be built for."""
