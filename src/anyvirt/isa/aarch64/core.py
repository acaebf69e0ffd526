"""The A64 processor: its registers and flags, and the fields instructions are made of.

Register 31 is the zero register in some operands and the stack pointer in others: the file has both, as
numbers 31 and 32, and fields for the latter rename 31. Instructions on 32 bits write zeros to the upper
half; each is described once for both widths (`WIDTHS`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from anyvirt.isa.description import InstructionSet
from anyvirt.isa.processor import Processor, Registers, four_bytes
from anyvirt.typed import count_leading_zeros, rotate_right, s32, s64, u8, u32, u64

if TYPE_CHECKING:
    from collections.abc import Callable


class Core(Processor, Protocol):
    """What A64 instructions work on beyond what every processor has."""

    x: Registers
    n: u64
    z: u64
    c: u64
    v: u64
    exclusive_address: u64
    exclusive_value: u64
    thread_pointer: u64


LINK = u8(30)
ZERO, STACK_POINTER = 31, 32
NO_RESERVATION = (1 << 64) - 1

isa = InstructionSet("aarch64", "ARMv8-A, A64", 4, four_bytes, record_size=32)
isa.registers("x", [*(f"x{number}" for number in range(31)), "xzr", "sp"], zero=ZERO)
for _flag, _meaning in (("n", "negative"), ("z", "zero"), ("c", "carry"), ("v", "overflow")):
    isa.state(_flag, 0, f"condition flag: {_meaning} (0 or 1)")
isa.state("exclusive_address", NO_RESERVATION, "address of the last load-exclusive, all ones if none holds")
isa.state("exclusive_value", 0, "what that load read")
isa.state("thread_pointer", 0, "TPIDR_EL0")


def _show_narrow(number: int) -> str:
    return {ZERO: "wzr", STACK_POINTER: "wsp"}.get(number, f"w{number}")


for _letter in "dnmats":
    isa.register_field(f"x{_letter}", 5, "x", operand=_letter)
    isa.register_field(f"xs{_letter}", 5, "x", operand=_letter, renamed={ZERO: STACK_POINTER})
    for _name in (f"{_letter}", f"s{_letter}"):
        isa.fields[f"w{_name}"] = replace(isa.fields[f"x{_name}"], name=f"w{_name}", show=_show_narrow)
# The second register of a pair.
isa.register_field("xu", 5, "x", operand="t2")
isa.fields["wu"] = replace(isa.fields["xu"], name="wu", show=_show_narrow)


def bitmask(encoded: u64, width: u64) -> u64:
    """A run of ones, rotated, repeated over 64 or 32 bits; 0 if reserved ("DecodeBitMasks").

    `encoded` is N:immr:imms.
    """
    n, rotation, ones = encoded >> 12, encoded >> 6 & 63, encoded & 63
    length = u64(63) - count_leading_zeros(n << 6 | ~ones & 63)
    if n << 6 | ~ones & 63 == 0 or length == 0 or (u64(1) << length) > width:
        return u64(0)
    size = u64(1) << length
    ones &= size - 1
    if ones == size - 1:
        return u64(0)
    rotation &= size - 1
    run = (u64(2) << ones) - 1
    element = run
    if rotation != 0:
        element = run >> rotation | run << size - rotation
    if size < 64:
        element &= (u64(1) << size) - 1
    while size < width:
        element |= element << size
        size <<= 1
    return element


def bitmask_x(encoded: u64) -> u64:
    """For instructions on 64 bits."""
    return bitmask(encoded, u64(64))


def bitmask_w(encoded: u64) -> u64:
    """For instructions on 32 bits."""
    return bitmask(encoded, u64(32))


isa.number_field("xbitmask", 13, operand="imm", formula=bitmask_x, excluded=(0,), show=hex)
isa.number_field("wbitmask", 13, operand="imm", formula=bitmask_w, excluded=(0,), show=hex)
isa.number_field("imm")
isa.number_field("high", operand="imm", show=lambda value: f"{value >> 12}, lsl #12")
isa.number_field("offset", signed=True)
isa.number_field("simm", operand="imm", signed=True)
isa.number_field("amount")
SHIFTS = ("lsl", "lsr", "asr", "ror")
isa.number_field("shift", 2, show=lambda number: SHIFTS[number])
EXTENSIONS = ("uxtb", "uxth", "uxtw", "uxtx", "sxtb", "sxth", "sxtw", "sxtx")
isa.number_field("option", 3, show=lambda number: EXTENSIONS[number])
CONDITIONS = ("eq", "ne", "cs", "cc", "mi", "pl", "vs", "vc", "hi", "ls", "ge", "lt", "gt", "le", "al", "nv")
isa.number_field("cond", 4, show=lambda number: CONDITIONS[number])
isa.number_field("flags", 4)
isa.number_field("hw", 2, show=lambda number: str(16 * number))
isa.number_field("immr")
isa.number_field("imms")
isa.number_field("code", 16)
isa.number_field("bit")
isa.number_field("hint", 5)


def holds(cpu: Core, cond: u8) -> bool:
    """Whether a condition holds now ("ConditionHolds"): one of eight, the odd ones inverted, but not `nv`."""
    kind = cond >> 1
    value = cpu.z
    if kind == 1:
        value = cpu.c
    elif kind == 2:
        value = cpu.n
    elif kind == 3:
        value = cpu.v
    elif kind == 4:
        value = cpu.c & (cpu.z ^ 1)
    elif kind == 5:
        value = cpu.n ^ cpu.v ^ 1
    elif kind == 6:
        value = (cpu.n ^ cpu.v ^ 1) & (cpu.z ^ 1)
    elif kind == 7:
        value = u64(1)
    inverted = cond & 1 != 0 and cond != 15
    return value != u64(inverted)


def shifted_w(value: u64, shift: u8, amount: u8) -> u64:
    """A 32-bit register operand, shifted ("ShiftReg")."""
    narrow = u32(value)
    if shift == 0:
        return u64(narrow << amount)
    if shift == 1:
        return u64(narrow >> amount)
    if shift == 2:
        return u64(u32(s32(narrow) >> amount))
    return u64(rotate_right(narrow, u32(amount)))


def shifted_x(value: u64, shift: u8, amount: u8) -> u64:
    """A 64-bit register operand, shifted."""
    if shift == 0:
        return value << amount
    if shift == 1:
        return value >> amount
    if shift == 2:
        return u64(s64(value) >> amount)
    return rotate_right(value, u64(amount))


def extended(value: u64, option: u8) -> u64:
    """A register operand, extended from 8, 16, 32 or 64 bits ("ExtendReg")."""
    bits = u64(8) << (option & 3)
    if bits == 64:
        return value
    if option >= 4:
        return u64(s64(value << 64 - bits) >> 64 - bits)
    return value & (u64(1) << bits) - 1


@dataclass(frozen=True)
class Width:
    """One of the two widths of operations."""

    sf: str
    """The bit of encodings that tells them apart."""
    r: str
    """First letter of its register fields."""
    mask: int
    top: int
    """The most significant bit."""
    amount: str
    """The bits of a shift amount in patterns."""
    shifted: Callable[[u64, u8, u8], u64]


WIDTHS = (
    Width("0", "w", 0xFFFFFFFF, 31, "0 amount[4:0]", shifted_w),
    Width("1", "x", (1 << 64) - 1, 63, "amount[5:0]", shifted_x),
)
