"""The Alpha processor: its registers and state, and the fields instructions are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from anyvirt.isa.description import InstructionSet
from anyvirt.isa.processor import Immediate, Processor, Register, Registers, four_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.typed import u64


class Core(Processor, Protocol):
    """What Alpha instructions work on beyond what every processor has."""

    r: Registers
    lock_address: u64
    lock_value: u64
    unique: u64


ARITHMETIC = 0x0300
"""Offset of the entry for arithmetic traps in OSF/1 PALcode's table (SCB vector of entArith)."""
NO_LOCK = (1 << 64) - 1
_NAMES = (
    "$v0 $t0 $t1 $t2 $t3 $t4 $t5 $t6 $t7 $s0 $s1 $s2 $s3 $s4 $s5 $fp "
    "$a0 $a1 $a2 $a3 $a4 $a5 $t8 $t9 $t10 $t11 $ra $pv $at $gp $sp $zero"
)

isa = InstructionSet("alpha", "Alpha", 4, four_bytes)
isa.registers("r", _NAMES.split(), zero=31)
isa.state("lock_address", NO_LOCK, "address of the last load-locked, all ones if none holds")
isa.state("lock_value", 0, "what that load read")
isa.state("unique", 0, "the thread pointer, which rduniq and wruniq know")

for _name in ("ra", "rb", "rc"):
    isa.register_field(_name, 5, "r")
isa.number_field("literal", 8, operand="imm")
isa.number_field("disp", 16, operand="imm", signed=True)
isa.number_field("high", operand="imm", signed=True, show=lambda value: str(value >> 16))
isa.number_field("offset", signed=True, bias=4)
isa.number_field("hint", 14)


def operate(name: str, opcode: str, function: str, compute: Callable[[Core, u64, u64], u64]) -> None:
    """An instruction on a register and a register or an 8-bit literal."""

    @isa.instruction(f"{opcode} ra rb 000 0 {function} rc", f"{name} {{ra}}, {{rb}}, {{rc}}")
    def register(cpu: Core, ra: Register, rb: Register, rc: Register) -> None:
        cpu.r[rc] = compute(cpu, cpu.r[ra], cpu.r[rb])

    @isa.instruction(f"{opcode} ra literal 1 {function} rc", f"{name} {{ra}}, {{imm}}, {{rc}}")
    def literal(cpu: Core, ra: Register, imm: Immediate, rc: Register) -> None:
        cpu.r[rc] = compute(cpu, cpu.r[ra], imm)
