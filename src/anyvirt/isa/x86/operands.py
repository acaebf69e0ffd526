"""Operands of x86 instructions: what they are, and how semantics read and write them.

Which kind an operand is of, and its size in bits, is known when compiling: each combination that an encoding
has becomes a handler of its own. Values are u64, zero-extended. SDM Volume 1, section 3.7.
"""

# The classes' attributes are named as in the manual, and the compiler resolves annotations at run time.

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

from anyvirt.isa.processor import Immediate, Processor, Register, Registers, Small
from anyvirt.typed import s64, u8, u16, u32, u64

SP = 4
"""Number of the stack pointer."""
CS, SS = 1, 2
"""Numbers of segment registers."""


class X86(Processor, Protocol):
    """What x86 instructions work on beyond what every processor has."""

    r: Registers
    segment_base: Registers
    segment: Registers
    flag_left: u64
    flag_right: u64
    flag_result: u64
    flag_form: u64
    direction: u64
    system_flags: u64


@dataclass(frozen=True, slots=True)
class General:
    """A general register of 16, 32 or 64 bits."""

    number: Register


@dataclass(frozen=True, slots=True)
class Byte:
    """A general register of 8 bits: the low byte of a register, or (`shift` is 8) the byte above it."""

    number: Register
    shift: Small


@dataclass(frozen=True, slots=True)
class Literal:
    """An immediate, sign-extended."""

    value: Immediate


@dataclass(frozen=True, slots=True)
class Count:
    """How far to shift: the low byte of a register (the one that is always 0 for none) plus a number."""

    number: Register
    value: Small


@dataclass(frozen=True, slots=True)
class Near:
    """Memory at a register plus a displacement, 64-bit addresses, no segment: the most frequent one."""

    base: Register
    displacement: Immediate


@dataclass(frozen=True, slots=True)
class Near32:
    """Memory at a register plus a displacement, 32-bit addresses, where all segments begin at 0."""

    base: Register
    displacement: Immediate


@dataclass(frozen=True, slots=True)
class Relative:
    """Memory at a distance from the next instruction, 64-bit addresses, no segment."""

    displacement: Immediate


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory in any other way."""

    base: Register
    """A register; the one that is always 0 if there is no base."""
    index: Register
    scale: Small
    """The index is shifted left by this."""
    displacement: Immediate
    relative: Small
    """Not 0: the address of the next instruction is the base."""
    narrow: Small
    """The address within the segment has 64 minus this many bits."""
    segment: Register
    wrap: Small
    """The address as a whole has 64 minus this many bits."""


Place: TypeAlias = General | Byte | Literal | Near | Near32 | Relative | Memory


def low(size: int, value: u64) -> u64:
    """The low `size` bits."""
    if size == 64:
        return value
    return value & ((1 << size) - 1)


def extend(size: int, value: u64) -> u64:
    """The low `size` bits, sign-extended."""
    return u64(s64(value << (64 - size)) >> (64 - size))


def load(cpu: X86, size: int, address: u64) -> u64:
    """Memory of `size` bits."""
    if size == 8:
        return u64(cpu.load8(address))
    if size == 16:
        return u64(cpu.load16(address))
    if size == 32:
        return u64(cpu.load32(address))
    return cpu.load64(address)


def store(cpu: X86, size: int, address: u64, value: u64) -> None:
    """Set memory of `size` bits."""
    if size == 8:
        cpu.store8(address, value)
    elif size == 16:
        cpu.store16(address, value)
    elif size == 32:
        cpu.store32(address, value)
    else:
        cpu.store64(address, value)


def offset_of(cpu: X86, place: Place) -> u64:
    """The address of a memory operand within its segment: what LEA computes."""
    if isinstance(place, Near):
        return cpu.r[place.base] + place.displacement
    if isinstance(place, Near32):
        return (cpu.r[place.base] + place.displacement) & 0xFFFFFFFF
    if isinstance(place, Relative):
        return cpu.next_pc + place.displacement
    if not isinstance(place, Memory):
        return u64(0)
    base = cpu.next_pc if place.relative != 0 else cpu.r[place.base]
    offset = base + (cpu.r[place.index] << place.scale) + place.displacement
    return offset << place.narrow >> place.narrow


def address_of(cpu: X86, place: Place) -> u64:
    """The address of a memory operand."""
    return address_at(cpu, place, offset_of(cpu, place))


def address_at(cpu: X86, place: Place, offset: u64) -> u64:
    """The address with an offset in the segment of a memory operand; as wide as its addresses are."""
    if isinstance(place, Near32):
        return offset & 0xFFFFFFFF
    if not isinstance(place, Memory):
        return offset
    return (
        (offset << place.narrow >> place.narrow) + cpu.segment_base[place.segment] << place.wrap >> place.wrap
    )


def read(cpu: X86, size: int, place: Place) -> u64:
    """The value of an operand."""
    if isinstance(place, General):
        return low(size, cpu.r[place.number])
    if isinstance(place, Byte):
        return cpu.r[place.number] >> place.shift & 0xFF
    if isinstance(place, Literal):
        return low(size, place.value)
    return load(cpu, size, address_of(cpu, place))


def write(cpu: X86, size: int, place: Place, value: u64) -> None:
    """Set an operand. A register of 32 bits loses its upper half, SDM Volume 1, section 3.4.1.1."""
    if isinstance(place, General):
        write_register(cpu, size, place.number, value)
    elif isinstance(place, Byte):
        others = cpu.r[place.number] & ~(u64(0xFF) << place.shift)
        cpu.r[place.number] = others | (value & 0xFF) << place.shift
    elif not isinstance(place, Literal):
        store(cpu, size, address_of(cpu, place), value)


def write_register(cpu: X86, size: int, number: Register, value: u64) -> None:
    """Set the low bits of a general register."""
    if size == 64:
        cpu.r[number] = value
    elif size == 32:
        cpu.r[number] = value & 0xFFFFFFFF
    elif size == 16:
        cpu.r[number] = cpu.r[number] & ~0xFFFF | value & 0xFFFF
    else:
        cpu.r[number] = cpu.r[number] & ~0xFF | value & 0xFF


# The stack --------------------------------------------------------------------------------------------------
# `width` is the size of stack addresses, `size` that of what is pushed or popped.


def stack_address(cpu: X86, width: int, pointer: u64) -> u64:
    """Where in memory a value of the stack pointer leads."""
    if width == 64:
        return pointer
    return (cpu.segment_base[u8(SS)] + low(width, pointer)) & 0xFFFFFFFF


def push(cpu: X86, width: int, size: int, value: u64) -> None:
    """Put a value onto the stack."""
    pointer = cpu.r[u8(SP)] - size // 8
    store(cpu, size, stack_address(cpu, width, pointer), value)
    write_register(cpu, width, u8(SP), pointer)


def top(cpu: X86, width: int, size: int) -> u64:
    """The last value on the stack."""
    return load(cpu, size, stack_address(cpu, width, cpu.r[u8(SP)]))


def drop(cpu: X86, width: int, count: u64) -> None:
    """Take bytes off the stack."""
    write_register(cpu, width, u8(SP), cpu.r[u8(SP)] + count)


def compare_and_store(cpu: X86, size: int, address: u64, expected: u64, value: u64) -> bool:
    """Store a value atomically if memory holds the expected one; says whether it did."""
    if size == 8:
        return cpu.compare_exchange(address, u8(expected), u8(value))
    if size == 16:
        return cpu.compare_exchange(address, u16(expected), u16(value))
    if size == 32:
        return cpu.compare_exchange(address, u32(expected), u32(value))
    return cpu.compare_exchange(address, expected, value)
