"""String instructions, with repetition: SDM Volume 1, section 7.3.9.

A repeated instruction does one element and comes again until its count is used up. So it can be stopped
between elements with registers that say how far it is, and a budget counts elements.
"""

# Encoding and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103, TC001

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.isa.processor import Immediate, Register
from anyvirt.isa.x86.flags import remember, zero
from anyvirt.isa.x86.machine import x86
from anyvirt.isa.x86.operands import X86, load, low, store, write_register
from anyvirt.typed import u8, u64

if TYPE_CHECKING:
    from collections.abc import Callable

AX, CX, SI, DI = 0, 1, 6, 7
ES = 0
_LETTERS = {8: "b", 16: "w", 32: "d", 64: "q"}


def element(cpu: X86, width: int, register: int, segment: Register) -> u64:
    """The address of the element that SI or DI points to; `width` is the size of addresses."""
    offset = low(width, cpu.r[u8(register)])
    if width == 64:
        return offset + cpu.segment_base[segment]
    return offset + cpu.segment_base[segment] & 0xFFFFFFFF


def advance(cpu: X86, size: int, width: int, register: int) -> None:
    """Let SI or DI point to the next element."""
    step = u64(size // 8)
    change = -step if cpu.direction != 0 else step
    write_register(cpu, width, u8(register), cpu.r[u8(register)] + change)


def move(cpu: X86, size: int, width: int, source: Register, target: Register) -> None:
    value = load(cpu, size, element(cpu, width, SI, source))
    store(cpu, size, element(cpu, width, DI, target), value)
    advance(cpu, size, width, SI)
    advance(cpu, size, width, DI)


def compare(cpu: X86, size: int, width: int, source: Register, target: Register) -> None:
    a = load(cpu, size, element(cpu, width, SI, source))
    b = load(cpu, size, element(cpu, width, DI, target))
    advance(cpu, size, width, SI)
    advance(cpu, size, width, DI)
    remember(cpu, size, a, b, a - b)


def store_accumulator(cpu: X86, size: int, width: int, source: Register, target: Register) -> None:
    store(cpu, size, element(cpu, width, DI, target), cpu.r[u8(AX)])
    advance(cpu, size, width, DI)


def load_accumulator(cpu: X86, size: int, width: int, source: Register, target: Register) -> None:
    value = load(cpu, size, element(cpu, width, SI, source))
    write_register(cpu, size, u8(AX), value)
    advance(cpu, size, width, SI)


def scan(cpu: X86, size: int, width: int, source: Register, target: Register) -> None:
    value = load(cpu, size, element(cpu, width, DI, target))
    advance(cpu, size, width, DI)
    a = low(size, cpu.r[u8(AX)])
    remember(cpu, size, a, value, a - value)


def _describe(
    opcode: int, name: str, step: Callable[[X86, int, int, Register, Register], None], compares: bool
) -> None:
    """A string instruction, by its opcode for bytes, with and without repetition."""

    def once(cpu: X86, size: int, width: int, segment: Register, target: Register) -> None:
        step(cpu, size, width, segment, target)

    def repeated(
        cpu: X86, size: int, width: int, until: int, segment: Register, target: Register, again: Immediate
    ) -> None:
        count = low(width, cpu.r[u8(CX)])
        if count != 0:
            step(cpu, size, width, segment, target)
            left = low(width, count - 1)
            write_register(cpu, width, u8(CX), left)
            if left != 0:
                if compares:
                    if zero(cpu) != until:
                        cpu.branch(again)
                else:
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
    bits = f"{opcode | (size != 8):08b}"
    for long in (0, 1):
        if (not long and 64 in (size, width)) or (long and width == 16):
            continue
        when = {"lock": 0, "long": long, "address": width} | ({"operand": size} if size != 8 else {})
        target = {"target": 6 if long else ES}
        for repeat in (0, 2, 3):
            prefix = {0: "", 2: "repne ", 3: "repe " if compares else "rep "}[repeat]
            constants = {"size": size, "width": width}
            if repeat:
                constants["until"] = int(repeat == 2)
            x86.instruction(
                bits,
                f"{prefix}{name}",
                fixed={**target, "again": 0},
                implied=("no_segment" if long else "segment",),
                when={**when, "repeat": repeat},
                constants=constants,
            )(repeated if repeat else once)


_describe(0xA4, "movs", move, False)
_describe(0xA6, "cmps", compare, True)
_describe(0xAA, "stos", store_accumulator, False)
_describe(0xAC, "lods", load_accumulator, False)
_describe(0xAE, "scas", scan, True)
