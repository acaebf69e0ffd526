"""Branches, jumps and calls of PALcode.

A branch is relative to the instruction after it: the field `offset` has a bias of 4 bytes.
"""

# Pattern and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103, TC001

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.isa.alpha.core import Core, isa
from anyvirt.isa.alpha.integer import CONDITIONS
from anyvirt.isa.processor import Immediate, Register
from anyvirt.typed import u8, u64

if TYPE_CHECKING:
    from collections.abc import Callable

isa.extension("control", "Branches, jumps and PALcode")

V0, A0 = u8(0), u8(16)


@isa.instruction("110000 ra offset[22:2]", "br {ra}, {pc+offset}")
@isa.instruction("110100 ra offset[22:2]", "bsr {ra}, {pc+offset}")
def br(cpu: Core, ra: Register, offset: Immediate) -> None:
    cpu.r[ra] = cpu.next_pc
    cpu.branch(offset)


def _conditional(condition: str, code: str, holds: Callable[[u64], bool]) -> None:
    @isa.instruction(f"111{code} ra offset[22:2]", f"b{condition} {{ra}}, {{pc+offset}}")
    def branch(cpu: Core, ra: Register, offset: Immediate) -> None:
        if holds(cpu.r[ra]):
            cpu.branch(offset)


for _condition, _code in (
    ("lbc", "000"), ("eq", "001"), ("lt", "010"), ("le", "011"),
    ("lbs", "100"), ("ne", "101"), ("ge", "110"), ("gt", "111"),
):  # fmt: skip
    _conditional(_condition, _code, CONDITIONS[_condition])


@isa.instruction("011010 ra rb 00 hint", "jmp {ra}, ({rb}), {hint}")
@isa.instruction("011010 ra rb 01 hint", "jsr {ra}, ({rb}), {hint}")
@isa.instruction("011010 ra rb 10 hint", "ret {ra}, ({rb}), {hint}")
@isa.instruction("011010 ra rb 11 hint", "jsr_coroutine {ra}, ({rb}), {hint}")
def jump(cpu: Core, ra: Register, rb: Register) -> None:
    target = cpu.r[rb] & ~3
    cpu.r[ra] = cpu.next_pc
    cpu.jump(target)


# Calls of PALcode, as OSF/1 and Linux number them -----------------------------------------------------------


@isa.instruction(f"000000 {0x83:026b}", "callsys")
def callsys(cpu: Core) -> None:
    cpu.system_call()


@isa.instruction(f"000000 {0x80:026b}", "bpt")
def bpt(cpu: Core) -> None:
    cpu.breakpoint()


@isa.instruction(f"000000 {0x86:026b}", "imb")
def imb(cpu: Core) -> None:
    cpu.synchronize_code()


@isa.instruction(f"000000 {0x9E:026b}", "rduniq")
def rduniq(cpu: Core) -> None:
    cpu.r[V0] = cpu.unique


@isa.instruction(f"000000 {0x9F:026b}", "wruniq")
def wruniq(cpu: Core) -> None:
    cpu.unique = cpu.r[A0]
