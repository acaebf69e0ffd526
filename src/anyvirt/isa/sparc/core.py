"""The SPARC processor: its registers and state, and the fields instructions are made of.

The 32 registers that instructions can see are a register file of their own, and `save` and `restore` move
the others in and out of the file `w` of all windows (see `anyvirt.isa.sparc.windows`). So every operand is a
plain register number, which a compiler of whole regions keeps in a host register; only the two instructions
that turn the window compute an index. QEMU does the reverse, and pays with an indirection at each access.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from anyvirt.isa.description import InstructionSet
from anyvirt.isa.processor import Processor, Registers, four_bytes
from anyvirt.typed import u8, u64

if TYPE_CHECKING:
    from collections.abc import Callable


class Core(Processor, Protocol):
    """What SPARC instructions work on beyond what every processor has."""

    r: Registers
    w: Registers
    y: u64
    n: u64
    z: u64
    v: u64
    c: u64
    cwp: u64
    wim: u64


WINDOWS = 8
"""NWINDOWS, which is the implementation's choice from 2 to 32."""
MASK = 0xFFFFFFFF
LINK = u8(15)
"""%o7, where `call` leaves its own address."""

# Trap types (section 7.1).
WINDOW_OVERFLOW, WINDOW_UNDERFLOW, TAG_OVERFLOW, DIVISION_BY_ZERO = 0x05, 0x06, 0x0A, 0x2A
SOFTWARE_TRAPS = 0x80
SYSTEM_CALL = 0x10
"""The software trap that is Linux' system call for 32-bit programs."""

isa = InstructionSet("sparc", "SPARC V8", 4, four_bytes, byte_order="big", address_bits=32, delay_slots=True)
isa.registers(
    "r",
    [f"%{group}{number}" for group in "goli" for number in range(8)],
    zero=0,
    width=32,
    signed=False,
    aliases={"%sp": 14, "%fp": 30},
)
isa.registers(
    "w",
    [f"window{window}.{group}{number}" for window in range(WINDOWS) for group in "li" for number in range(8)],
    width=32,
    signed=False,
)
isa.state("y", 0, "high half of a product, or of a dividend")
for _flag, _meaning in (("n", "negative"), ("z", "zero"), ("v", "overflow"), ("c", "carry")):
    isa.state(_flag, 0, f"integer condition code: {_meaning} (0 or 1)")
isa.state("cwp", 0, "number of the current window")
isa.state("wim", 2, "a bit for each window that traps when it is entered")

for _name in ("rd", "rs1", "rs2"):
    isa.register_field(_name, 5, "r")
isa.register_field("rde", operand="rd", width=5, registers="r", excluded=tuple(range(1, 32, 2)))
isa.number_field("simm", 13, operand="imm", signed=True)
isa.number_field("shcnt", 5, operand="imm")
isa.number_field("high", operand="imm", show=lambda value: hex((value & MASK) >> 10), signed=True)
isa.number_field("offset", signed=True)
isa.number_field("number", 7, operand="imm")

TWO = ("0 -------- rs2", "1 simm")
"""The second operand of most instructions: a register, or an immediate."""


def both(head: str, form: str, register: Callable[..., None], immediate: Callable[..., None]) -> None:
    """Declare the two forms of an instruction, whose second operand is `{b}` in the assembly form."""
    isa.instruction(f"{head} {TWO[0]}", form.replace("{b}", "{rs2}"))(register)
    isa.instruction(f"{head} {TWO[1]}", form.replace("{b}", "{imm}"))(immediate)


def set_logical_flags(cpu: Core, value: u64) -> None:
    """The condition codes of a result, of which the low 32 bits count; no overflow, no carry."""
    cpu.n = value >> 31 & 1
    cpu.z = u64(value & MASK == 0)
    cpu.v = u64(0)
    cpu.c = u64(0)


def set_sum_flags(cpu: Core, a: u64, b: u64, total: u64) -> None:
    """The condition codes of `total = a + b + carry`."""
    cpu.n = total >> 31 & 1
    cpu.z = u64(total & MASK == 0)
    cpu.v = ((a ^ total) & (b ^ total)) >> 31 & 1
    cpu.c = (a & b | (a | b) & ~total) >> 31 & 1


def set_difference_flags(cpu: Core, a: u64, b: u64, difference: u64) -> None:
    """The condition codes of `difference = a - b - carry`."""
    cpu.n = difference >> 31 & 1
    cpu.z = u64(difference & MASK == 0)
    cpu.v = ((a ^ b) & (a ^ difference)) >> 31 & 1
    cpu.c = (~a & b | (~a | b) & difference) >> 31 & 1
