"""The x86 processor: registers, state, modes, prefixes, and the fields and forms that encodings consist of.

SDM Volume 2, chapter 2 "Instruction Format" and Volume 1, chapter 3 "Basic Execution Environment".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.isa.contexts import Context
from anyvirt.isa.description import InstructionSet
from anyvirt.isa.x86.operands import Byte, Count, General, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

REAL, PROTECTED, FLAT, LONG = 16, 32, 33, 64
"""Modes: 16-bit code, 32-bit code, the same with all segments at 0, 64-bit code."""
LONGEST = 15
NONE = 16
"""Number of the register that is always 0: no base, no index."""
SIZES = (8, 16, 32, 64)
SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")
BEGINS_AT_0 = 6
"""Number of a segment that always does."""

_LEGACY = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")
NAMES = {
    8: ["al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil", *(f"r{number}b" for number in range(8, 16))],
    16: [*_LEGACY, *(f"r{number}w" for number in range(8, 16))],
    32: [*(f"e{name}" for name in _LEGACY), *(f"r{number}d" for number in range(8, 16))],
    64: [*(f"r{name}" for name in _LEGACY), *(f"r{number}" for number in range(8, 16))],
}
_HIGH_BYTES = ("ah", "ch", "dh", "bh")

# Prefixes ---------------------------------------------------------------------------------------------------

context = Context((REAL, PROTECTED, FLAT, LONG), LONGEST)
context.field("operand_override")
context.field("address_override")
context.field("lock")
context.field("repeat", (0, 2, 3))
context.field("segment", (0, 1, 2, 3, 4, 5, 6))
for _name in ("rex", "w", "r", "x", "b"):
    context.field(_name)

context.prefix("0110 0110", operand_override=1)
context.prefix("0110 0111", address_override=1)
context.prefix("1111 0000", lock=1)
context.prefix("1111 0010", repeat=2)
context.prefix("1111 0011", repeat=3)
for _number, _bits in enumerate(("0010 0110", "0010 1110", "0011 0110", "0011 1110")):
    # In 64-bit mode these segments begin at 0 and their prefixes are ignored.
    context.prefix(_bits, when={"mode": LONG})
    context.prefix(_bits, segment=_number + 1)
context.prefix("0110 0100", segment=5)
context.prefix("0110 0101", segment=6)
context.prefix("0100 w r x b", when={"mode": LONG}, last=True, rex=1)


@context.derive("long", (0, 1), ["mode"])
def _long(mode: int) -> int:
    return int(mode == LONG)


@context.derive("operand", (16, 32, 64), ["mode", "operand_override", "w"])
def _operand_size(mode: int, override: int, wide: int) -> int:
    """SDM Volume 1, table 3-3 and 3-4."""
    if wide:
        return 64
    return 16 if (mode == REAL) != bool(override) else 32


@context.derive("stack", (16, 32, 64), ["mode", "operand_override", "w"])
def _stack_operand_size(mode: int, override: int, wide: int) -> int:
    """Of what is pushed and popped: in 64-bit mode never 32."""
    size = _operand_size(mode, override, wide)
    return 64 if mode == LONG and size == 32 else size


@context.derive("near", (16, 32, 64), ["mode", "operand_override"])
def _near_size(mode: int, override: int) -> int:
    """Of the instruction pointer in near branches: in 64-bit mode nothing changes it."""
    return 64 if mode == LONG else _operand_size(mode, override, 0)


@context.derive("pointer", (16, 32, 64), ["mode"])
def _stack_pointer_size(mode: int) -> int:
    """Of the stack pointer."""
    return {REAL: 16, LONG: 64}.get(mode, 32)


@context.derive("address", (16, 32, 64), ["mode", "address_override"])
def _address_size(mode: int, override: int) -> int:
    if mode == LONG:
        return 32 if override else 64
    return 16 if (mode == REAL) != bool(override) else 32


# Registers and state ----------------------------------------------------------------------------------------

x86 = InstructionSet("x86_64", "x86-64 (AMD64, Intel 64)", 1, None, record_size=32, context=context)
x86.registers("r", [*NAMES[64], "none"], zero=NONE, zero_is_written=False)
x86.registers("segment", SEGMENTS)
x86.registers(
    "segment_base",
    [*(f"{name}_base" for name in SEGMENTS), "flat"],
    zero=BEGINS_AT_0,
    zero_is_written=False,
)
x86.state("flag_left", 1, "minuend of the subtraction whose borrows are the carry, adjust and overflow flags")
x86.state("flag_right", 1, "its subtrahend")
x86.state("flag_result", 1, "the number to which zero, sign and parity flag belong")
x86.state("flag_form", 0, "64 minus the size, and from bit 8 up which flags are inverted")
x86.state("direction", 0, "1 if string instructions go down")
x86.state("system_flags", 0x200, "the other bits of EFLAGS")
x86.state("mode", LONG, "size of code in bits: 16, 32 (33 if all segments begin at 0) or 64")

# Fields -----------------------------------------------------------------------------------------------------


def _show_register(size: int) -> Callable[[int], str]:
    return lambda number: NAMES[size][number]


def _show_byte(number: int) -> str:
    """Bit 4 says that there is a REX prefix."""
    return _HIGH_BYTES[number - 4] if 4 <= number < 8 else NAMES[8][number & 15]


def _show_literal(size: int) -> Callable[[int], str]:
    return lambda value: f"{value & (1 << size) - 1:#x}"


_BYTE_NUMBERS = {number: number - 4 if 4 <= number < 8 else number & 15 for number in range(32)}
_BYTE_SHIFTS = {number: 8 if 4 <= number < 8 else 0 for number in range(32)}

# G: register in bits 5:3 of ModRM, R: register in its bits 2:0 or in an opcode.
for _letter, _extension in (("G", "r"), ("R", "b")):
    for _size in SIZES[1:]:
        x86.object_field(
            f"{_letter}{_size}",
            3,
            General,
            {"number": {}},
            show=_show_register(_size),
            extension=(_extension,),
            registers={"number": "r"},
        )
    # The fifth bit must be that of REX: without one, numbers 4 to 7 are high bytes.
    x86.object_field(
        f"{_letter}8",
        3,
        Byte,
        {"number": _BYTE_NUMBERS, "shift": _BYTE_SHIFTS},
        show=_show_byte,
        extension=(_extension, "rex"),
        registers={"number": "r"},
    )
for _width in SIZES:
    for _size in SIZES:
        # An immediate of `_width` bits for an operand of `_size` bits.
        x86.object_field(
            f"I{_width}_{_size}", _width, Literal, {"value": {}}, show=_show_literal(_size), signed=True
        )
    x86.number_field(f"distance{_width}", _width, operand="offset", signed=True, from_end=True)
x86.object_field(
    "count_literal",
    8,
    Count,
    {"number": NONE, "value": {}},
    show=_show_literal(8),
    registers={"number": "r"},
)
x86.number_field("count", 16, show=hex)
x86.number_field("depth", 8, show=hex)
x86.number_field("vector", 8, show=hex)
x86.number_field("again", 8, signed=True)
x86.number_field("number", 8)
x86.number_field("until", 8)
x86.number_field("narrow", 8)
x86.number_field("target", 8)
