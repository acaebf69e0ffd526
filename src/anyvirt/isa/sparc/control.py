"""Branches and jumps with delay slots that can be annulled, calls, conditional traps.

The annul bit leaves the slot out where a conditional branch is not taken, and always with `ba,a` and `bn,a`.
"""

# Pattern and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103, TC001

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.isa.processor import Immediate, Register
from anyvirt.isa.sparc.core import LINK, SOFTWARE_TRAPS, SYSTEM_CALL, Core, both, isa
from anyvirt.typed import u64

if TYPE_CHECKING:
    from collections.abc import Callable

isa.extension("control", "Branches, calls and traps")


def never(cpu: Core) -> bool:
    return False


def equal(cpu: Core) -> bool:
    return cpu.z != 0


def less_or_equal(cpu: Core) -> bool:
    return cpu.z | cpu.n ^ cpu.v != 0


def less(cpu: Core) -> bool:
    return cpu.n ^ cpu.v != 0


def less_or_equal_unsigned(cpu: Core) -> bool:
    return cpu.c | cpu.z != 0


def carry_set(cpu: Core) -> bool:
    return cpu.c != 0


def negative(cpu: Core) -> bool:
    return cpu.n != 0


def overflow_set(cpu: Core) -> bool:
    return cpu.v != 0


def always(cpu: Core) -> bool:
    return True


def not_equal(cpu: Core) -> bool:
    return cpu.z == 0


def greater(cpu: Core) -> bool:
    return cpu.z | cpu.n ^ cpu.v == 0


def greater_or_equal(cpu: Core) -> bool:
    return cpu.n ^ cpu.v == 0


def greater_unsigned(cpu: Core) -> bool:
    return cpu.c | cpu.z == 0


def carry_clear(cpu: Core) -> bool:
    return cpu.c == 0


def positive(cpu: Core) -> bool:
    return cpu.n == 0


def overflow_clear(cpu: Core) -> bool:
    return cpu.v == 0


CONDITIONS = (
    ("n", never),
    ("e", equal),
    ("le", less_or_equal),
    ("l", less),
    ("leu", less_or_equal_unsigned),
    ("cs", carry_set),
    ("neg", negative),
    ("vs", overflow_set),
    ("a", always),
    ("ne", not_equal),
    ("g", greater),
    ("ge", greater_or_equal),
    ("gu", greater_unsigned),
    ("cc", carry_clear),
    ("pos", positive),
    ("vc", overflow_clear),
)


def _branch(name: str, code: str, holds: Callable[[Core], bool]) -> None:
    @isa.instruction(f"00 0 {code} 010 offset[23:2]", f"b{name} {{pc+offset}}")
    def branch(cpu: Core, offset: Immediate) -> None:
        if holds(cpu):
            cpu.delayed_branch(offset)

    if name == "a":

        @isa.instruction(f"00 1 {code} 010 offset[23:2]", "ba,a {pc+offset}")
        def branch_always_annulled(cpu: Core, offset: Immediate) -> None:
            cpu.branch(offset)
    else:

        @isa.instruction(f"00 1 {code} 010 offset[23:2]", f"b{name},a {{pc+offset}}")
        def branch_annulled(cpu: Core, offset: Immediate) -> None:
            if holds(cpu):
                cpu.delayed_branch(offset)
            else:
                cpu.annul()


def _trap(name: str, code: str, holds: Callable[[Core], bool]) -> None:
    """A software trap, of which one is the system call."""

    def trap(cpu: Core, number: u64) -> None:
        if holds(cpu):
            if number & 127 == SYSTEM_CALL:
                cpu.system_call()
            cpu.trap(SOFTWARE_TRAPS + (number & 127))

    def register(cpu: Core, rs1: Register, rs2: Register) -> None:
        trap(cpu, cpu.r[rs1] + cpu.r[rs2])

    def immediate(cpu: Core, rs1: Register, imm: Immediate) -> None:
        trap(cpu, cpu.r[rs1] + imm)

    form = f"t{name} {{rs1}} + {{b}}"
    isa.instruction(f"10 - {code} 111010 rs1 0 -------- rs2", form.replace("{b}", "{rs2}"))(register)
    isa.instruction(f"10 - {code} 111010 rs1 1 ------ number", form.replace("{b}", "{imm}"))(immediate)


for _number, (_name, _holds) in enumerate(CONDITIONS):
    _branch(_name, f"{_number:04b}", _holds)
    _trap(_name, f"{_number:04b}", _holds)


@isa.instruction("01 offset[31:2]", "call {pc+offset}")
def call(cpu: Core, offset: Immediate) -> None:
    # It reaches every address, further than a branch's operand may.
    cpu.r[LINK] = cpu.pc
    cpu.delayed_jump(cpu.pc + offset)


def jmpl(cpu: Core, rd: Register, rs1: Register, rs2: Register) -> None:
    target = cpu.r[rs1] + cpu.r[rs2]
    cpu.require_aligned(target, 4)
    cpu.r[rd] = cpu.pc
    cpu.delayed_jump(target)


def jmpl_immediate(cpu: Core, rd: Register, rs1: Register, imm: Immediate) -> None:
    target = cpu.r[rs1] + imm
    cpu.require_aligned(target, 4)
    cpu.r[rd] = cpu.pc
    cpu.delayed_jump(target)


both("10 rd 111000 rs1", "jmpl {rs1} + {b}, {rd}", jmpl, jmpl_immediate)


def flush(cpu: Core, rs1: Register, rs2: Register) -> None:
    cpu.synchronize_code()


def flush_immediate(cpu: Core, rs1: Register, imm: Immediate) -> None:
    cpu.synchronize_code()


both("10 00000 111011 rs1", "flush {rs1} + {b}", flush, flush_immediate)
