"""String instructions, with repetition: SDM Volume 1, section 7.3.9.

A repeated instruction does one element and comes again until its count is used up. So it can be stopped
between elements with registers that say how far it is, and a budget counts elements.
"""

# Encoding and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103, TC001

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.isa.processor import Immediate, Register, Small
from anyvirt.isa.x86.flags import remember, zero
from anyvirt.isa.x86.machine import BEGINS_AT_0, x86
from anyvirt.isa.x86.operands import X86, load, low, store, write_register
from anyvirt.typed import u8, u64

if TYPE_CHECKING:
    from collections.abc import Callable

AX, CX, SI, DI = 0, 1, 6, 7
ES = 0
_LETTERS = {8: "b", 16: "w", 32: "d", 64: "q"}


# The size of addresses is known only when executed: `narrow` is 64 minus their bits.


def cut(narrow: u8, value: u64) -> u64:
    """As much of a register as addresses have."""
    return value << narrow >> narrow


def element(cpu: X86, narrow: u8, register: int, segment: Register) -> u64:
    """The address of the element that SI or DI points to."""
    address = cut(narrow, cpu.r[u8(register)]) + cpu.segment_base[segment]
    return address if narrow == 0 or segment == BEGINS_AT_0 else address & 0xFFFFFFFF


def put(cpu: X86, narrow: u8, register: int, value: u64) -> None:
    """Set as much of a register as addresses have; 32 bits clear the others, 16 bits leave them."""
    kept = cpu.r[u8(register)] & ~0xFFFF if narrow == 48 else u64(0)
    cpu.r[u8(register)] = kept | cut(narrow, value)


def advance(cpu: X86, size: int, narrow: u8, register: int) -> None:
    """Let SI or DI point to the next element."""
    step = u64(size // 8)
    put(cpu, narrow, register, cpu.r[u8(register)] + (-step if cpu.direction != 0 else step))


def move(cpu: X86, size: int, narrow: u8, source: Register, target: Register) -> None:
    value = load(cpu, size, element(cpu, narrow, SI, source))
    store(cpu, size, element(cpu, narrow, DI, target), value)
    advance(cpu, size, narrow, SI)
    advance(cpu, size, narrow, DI)


def compare(cpu: X86, size: int, narrow: u8, source: Register, target: Register) -> None:
    a = load(cpu, size, element(cpu, narrow, SI, source))
    b = load(cpu, size, element(cpu, narrow, DI, target))
    advance(cpu, size, narrow, SI)
    advance(cpu, size, narrow, DI)
    remember(cpu, size, a, b, a - b)


def store_accumulator(cpu: X86, size: int, narrow: u8, source: Register, target: Register) -> None:
    store(cpu, size, element(cpu, narrow, DI, target), cpu.r[u8(AX)])
    advance(cpu, size, narrow, DI)


def load_accumulator(cpu: X86, size: int, narrow: u8, source: Register, target: Register) -> None:
    value = load(cpu, size, element(cpu, narrow, SI, source))
    write_register(cpu, size, u8(AX), value)
    advance(cpu, size, narrow, SI)


def scan(cpu: X86, size: int, narrow: u8, source: Register, target: Register) -> None:
    value = load(cpu, size, element(cpu, narrow, DI, target))
    advance(cpu, size, narrow, DI)
    a = low(size, cpu.r[u8(AX)])
    remember(cpu, size, a, value, a - value)


def _describe(
    opcode: int, name: str, step: Callable[[X86, int, u8, Register, Register], None], compares: bool
) -> None:
    """A string instruction, by its opcode for bytes, with and without repetition."""

    def once(cpu: X86, size: int, narrow: Small, segment: Register, target: Register) -> None:
        step(cpu, size, narrow, segment, target)

    def repeated(
        cpu: X86,
        size: int,
        narrow: Small,
        until: Small,
        segment: Register,
        target: Register,
        again: Immediate,
    ) -> None:
        count = cut(narrow, cpu.r[u8(CX)])
        if count != 0:
            step(cpu, size, narrow, segment, target)
            left = cut(narrow, count - 1)
            put(cpu, narrow, CX, left)
            if compares:
                if left != 0 and zero(cpu) != u64(until):
                    cpu.branch(again)
            elif left != 0:
                cpu.branch(again)

    for size in (8, 16, 32, 64):
        for width in (16, 32, 64):
            _encodings(opcode, f"{name}{_LETTERS[size]}", size, width, once, repeated, compares)


def _encodings(
    opcode: int,
    name: str,
    size: int,
    width: int,
    once: Callable[..., None],
    repeated: Callable[..., None],
    compares: bool,
) -> None:
    """The patterns of one size of elements and one of addresses."""
    for long in (0, 1):
        if (not long and 64 in (size, width)) or (long and width == 16):
            continue
        when = {"lock": 0, "long": long, "address": width} | ({"operand": size} if size != 8 else {})
        for repeat in (0, 2, 3):
            prefix = {0: "", 2: "repne ", 3: "repe " if compares else "rep "}[repeat]
            x86.instruction(
                f"{opcode | (size != 8):08b}",
                f"{prefix}{name}",
                fixed={
                    "target": BEGINS_AT_0 if long else ES,
                    "narrow": 64 - width,
                    "until": int(repeat == 2),
                    "again": 0,
                },
                implied=("no_segment" if long else "segment",),
                when={**when, "repeat": repeat},
                constants={"size": size},
            )(repeated if repeat else once)


_describe(0xA4, "movs", move, False)
_describe(0xA6, "cmps", compare, True)
_describe(0xAA, "stos", store_accumulator, False)
_describe(0xAC, "lods", load_accumulator, False)
_describe(0xAE, "scas", scan, True)
