"""x86: the integer instructions of user programs in 16-, 32- and 64-bit code, from one set of semantics.

Follows the Intel 64 and IA-32 Architectures Software Developer's Manual (SDM), Volumes 1 and 2.
`x86_64` has all modes, `i386` those without 64-bit code.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from anyvirt.isa.fields import CONTEXT
from anyvirt.isa.patterns import Form
from anyvirt.isa.x86 import addressing, arithmetic, bits, control, moves, shifts, strings
from anyvirt.isa.x86.machine import FLAT, LONG, context, x86

if TYPE_CHECKING:
    from anyvirt.isa.description import InstructionSet, Pattern

__all__ = ["addressing", "arithmetic", "bits", "control", "i386", "moves", "shifts", "strings", "x86_64"]

_ONLY_LONG = {
    "mode": LONG,
    "long": 1,
    "operand": 64,
    "stack": 64,
    "near": 64,
    "pointer": 64,
    "address": 64,
    "w": 1,
}


def _asks_for(item: Pattern | Form, name: str, value: int) -> bool:
    """Whether a pattern or a shape is only there for a value of the context."""
    mask, match = (number << CONTEXT for number in context.condition({name: value}))
    bits_of = item.bits if isinstance(item, Form) else item
    return bits_of.mask & mask == mask and bits_of.match & mask == match


def _without(isa: InstructionSet, *conditions: tuple[str, int]) -> None:
    """Remove what needs one of these values of the context."""

    def stays(item: Pattern | Form) -> bool:
        return not any(_asks_for(item, name, value) for name, value in conditions)

    isa.patterns = [
        replace(pattern, forms=tuple(filter(stays, pattern.forms)), _whole={})
        for pattern in isa.patterns
        if stays(pattern)
    ]


x86.sources = sorted(str(path) for path in Path(__file__).parent.glob("*.py"))
i386 = x86.derive("i386", "x86 with 32-bit registers (IA-32)", address_bits=32, keep=lambda pattern: True)
i386.state("mode", FLAT, x86.scalars["mode"].meaning)
_without(i386, *_ONLY_LONG.items())
i386.build()

x86_64 = x86
# 32-bit code is rare in a 64-bit system: it does without handlers of its own for flat segments.
_without(x86_64, ("mode", FLAT))
x86_64.build()
