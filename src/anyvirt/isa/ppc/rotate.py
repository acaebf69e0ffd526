"""Rotate and mask: the mask from bit MB to ME is an immediate by formula.

The formula is computed when decoding, so that executing rlwinm is a rotation and a conjunction.
"""

# Pattern and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: TC001

from __future__ import annotations

from anyvirt.isa.ppc.core import Core, isa, record
from anyvirt.isa.processor import Immediate, Register, Small
from anyvirt.typed import rotate_left, u32, u64

isa.extension("rotate", "Rotate and mask")


def _rotations(rc: int) -> None:
    records = rc == 1

    @isa.instruction(f"010101 rs ra sh mask {rc}", f"rlwinm{'.' * rc} {{ra}}, {{rs}}, {{sh}}, {{mask}}")
    def rlwinm(cpu: Core, ra: Register, rs: Register, sh: Small, mask: Immediate) -> None:
        value = u64(rotate_left(u32(cpu.r[rs]), u32(sh))) & mask
        cpu.r[ra] = value
        if records:
            record(cpu, value)

    @isa.instruction(f"010111 rs ra rb mask {rc}", f"rlwnm{'.' * rc} {{ra}}, {{rs}}, {{rb}}, {{mask}}")
    def rlwnm(cpu: Core, ra: Register, rs: Register, rb: Register, mask: Immediate) -> None:
        value = u64(rotate_left(u32(cpu.r[rs]), u32(cpu.r[rb]))) & mask
        cpu.r[ra] = value
        if records:
            record(cpu, value)

    @isa.instruction(f"010100 rs ra sh mask {rc}", f"rlwimi{'.' * rc} {{ra}}, {{rs}}, {{sh}}, {{mask}}")
    def rlwimi(cpu: Core, ra: Register, rs: Register, sh: Small, mask: Immediate) -> None:
        value = u64(rotate_left(u32(cpu.r[rs]), u32(sh))) & mask | cpu.r[ra] & ~mask
        cpu.r[ra] = value
        if records:
            record(cpu, value)


for _rc in (0, 1):
    _rotations(_rc)
