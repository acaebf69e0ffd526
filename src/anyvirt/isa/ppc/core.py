"""The PowerPC processor: its registers and state, and the fields instructions are made of.

Bits of a field of the condition register are LT, GT, EQ and SO, from 8 down to 1. The bits of XER are state
of their own. The manual numbers bits from the most significant one; patterns here need no numbers.
"""

from __future__ import annotations

from typing import Protocol

from anyvirt.isa.description import InstructionSet
from anyvirt.isa.processor import Processor, Registers, four_bytes
from anyvirt.typed import s32, u8, u64


class Core(Processor, Protocol):
    """What PowerPC instructions work on beyond what every processor has."""

    r: Registers
    cr: Registers
    lr: u64
    ctr: u64
    so: u64
    ov: u64
    ca: u64
    string_length: u64
    reservation_address: u64
    reservation_value: u64


PROGRAM = 0x700
"""The vector of the program interrupt, which trap instructions cause."""
NO_RESERVATION = (1 << 64) - 1
MASK = 0xFFFFFFFF

isa = InstructionSet(
    "ppc", "PowerPC, 32-bit, big-endian", 4, four_bytes, record_size=32, byte_order="big", address_bits=32
)
isa.registers("r", [f"r{number}" for number in range(32)], width=32, signed=False)
isa.registers("cr", [f"cr{number}" for number in range(8)], width=32, signed=False)
isa.state("lr", 0, "link register")
isa.state("ctr", 0, "count register")
isa.state("so", 0, "XER: summary overflow (0 or 1)")
isa.state("ov", 0, "XER: overflow (0 or 1)")
isa.state("ca", 0, "XER: carry (0 or 1)")
isa.state("string_length", 0, "XER: bytes that string instructions move")
isa.state("reservation_address", NO_RESERVATION, "address of the last lwarx, all ones if none holds")
isa.state("reservation_value", 0, "what that load read")


def mask_of(encoded: u64) -> u64:
    """The ones from bit MB to bit ME, counted from the most significant one and around the end."""
    first, last = encoded >> 5, encoded & 31
    down_from, up_to = u64(MASK) >> first, u64(MASK) << 31 - last & MASK
    return down_from & up_to if first <= last else down_from | up_to


def show_mask(mask: int) -> str:
    """MB and ME of a mask."""
    if mask == MASK:
        return "0, 31"
    # The one whose more significant neighbour is a zero.
    first = next(bit for bit in range(32) if mask >> 31 - bit & 1 and not mask >> (32 - bit) % 32 & 1)
    return f"{first}, {(first + mask.bit_count() - 1) % 32}"


for _name in ("rt", "rs", "ra", "rb"):
    isa.register_field(_name, 5, "r")
isa.register_field("bf", 3, "cr")
isa.register_field("bfa", 3, "cr")
for _name in ("bt", "ba", "bb", "bi", "bo", "to", "sh", "hint"):
    isa.number_field(_name, 5)
isa.number_field("si", 16, operand="imm", signed=True)
isa.number_field("ui", 16, operand="imm")
isa.number_field("high", operand="imm", signed=True, show=lambda value: str(value >> 16))
isa.number_field("uhigh", operand="imm", show=lambda value: str(value >> 16 & 0xFFFF), signed=True)
isa.number_field("offset", signed=True)
isa.number_field("address", signed=True)
isa.number_field("mask", 10, formula=mask_of, show=show_mask)
isa.number_field("fxm", 8)


def base(cpu: Core, ra: u8) -> u64:
    """A base register, where number 0 means the value 0."""
    return u64(0) if ra == 0 else cpu.r[ra]


def compared(cpu: Core, less: bool, greater: bool) -> u64:
    """A field of the condition register."""
    order = u64(8) if less else u64(4) if greater else u64(2)
    return order | cpu.so


def record(cpu: Core, result: u64) -> None:
    """Set CR0 for a result, of which the low 32 bits count."""
    value = s32(result)
    cpu.cr[u8(0)] = compared(cpu, value < 0, value > 0)


def set_overflow(cpu: Core, overflow: u64) -> None:
    """Set OV to 0 or 1, and SO with it."""
    cpu.ov = overflow
    cpu.so = cpu.so | overflow
