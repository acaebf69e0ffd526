"""The MIPS32 processor: its registers and state, and the fields instructions are made of."""

from __future__ import annotations

from typing import Protocol

from anyvirt.isa.description import InstructionSet
from anyvirt.isa.processor import Processor, Registers, four_bytes
from anyvirt.typed import u8, u64


class Core(Processor, Protocol):
    """What MIPS instructions work on beyond what every processor has."""

    r: Registers
    hi: u64
    lo: u64
    link_address: u64
    link_value: u64
    user_local: u64


OVERFLOW, TRAP = 12, 13
"""Exception codes of the Cause register (Volume III, "Cause Register ExcCode Field")."""
RETURN_ADDRESS = u8(31)
NO_LINK = (1 << 64) - 1
_NAMES = (
    "$zero $at $v0 $v1 $a0 $a1 $a2 $a3 $t0 $t1 $t2 $t3 $t4 $t5 $t6 $t7 "
    "$s0 $s1 $s2 $s3 $s4 $s5 $s6 $s7 $t8 $t9 $k0 $k1 $gp $sp $fp $ra"
)

isa = InstructionSet(
    "mips",
    "MIPS32 Release 2, big-endian",
    4,
    four_bytes,
    byte_order="big",
    address_bits=32,
    delay_slots=True,
)
isa.registers(
    "r",
    _NAMES.split(),
    zero=0,
    width=32,
)
isa.state("hi", 0, "high half of a product, remainder of a division; sign-extended")
isa.state("lo", 0, "low half of a product, quotient of a division; sign-extended")
isa.state("link_address", NO_LINK, "address of the last load-linked, all ones if none holds")
isa.state("link_value", 0, "what that load read")
isa.state("user_local", 0, "the thread pointer, which the kernel sets and rdhwr reads")

for _name in ("rs", "rt", "rd"):
    isa.register_field(_name, 5, "r")
isa.number_field("imm", 16, signed=True)
isa.number_field("uimm", 16, operand="imm", show=hex)
isa.number_field("upper", operand="imm", signed=True, show=lambda value: hex(value >> 16 & 0xFFFF))
isa.number_field("offset", signed=True, bias=4)
isa.number_field("index")
isa.number_field("sa", 5)
isa.number_field("pos", 5)
isa.number_field("size", 5, bias=1)
isa.number_field("msb", 5)
isa.number_field("hint", 5)
isa.number_field("stype", 5)
