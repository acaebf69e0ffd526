"""Jumps, branches, traps and calls of the system.

A branch is relative to its delay slot: the field `offset` has a bias of 4 bytes. The likely forms leave
the slot out where they are not taken.
"""

# Pattern and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103, TC001

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.isa.mips.core import RETURN_ADDRESS, TRAP, Core, isa
from anyvirt.isa.processor import Immediate, Register
from anyvirt.typed import s64, u64

if TYPE_CHECKING:
    from collections.abc import Callable

isa.extension("control", "Jumps, branches and traps")


@isa.instruction("000010 index[27:2]", "j {index}")
def j(cpu: Core, index: Immediate) -> None:
    cpu.delayed_jump(cpu.pc + 4 & 0xF0000000 | index)


@isa.instruction("000011 index[27:2]", "jal {index}")
def jal(cpu: Core, index: Immediate) -> None:
    cpu.r[RETURN_ADDRESS] = cpu.pc + 8
    cpu.delayed_jump(cpu.pc + 4 & 0xF0000000 | index)


@isa.instruction("000000 rs 00000 00000 00000 001000", "jr {rs}")
@isa.instruction("000000 rs 00000 00000 10000 001000", "jr.hb {rs}")
def jr(cpu: Core, rs: Register) -> None:
    cpu.delayed_jump(cpu.r[rs])


@isa.instruction("000000 rs 00000 rd 00000 001001", "jalr {rd}, {rs}")
@isa.instruction("000000 rs 00000 rd 10000 001001", "jalr.hb {rd}, {rs}")
def jalr(cpu: Core, rs: Register, rd: Register) -> None:
    target = cpu.r[rs]
    cpu.r[rd] = cpu.pc + 8
    cpu.delayed_jump(target)


@isa.instruction("000100 rs rt offset[17:2]", "beq {rs}, {rt}, {pc+offset}")
def beq(cpu: Core, rs: Register, rt: Register, offset: Immediate) -> None:
    if cpu.r[rs] == cpu.r[rt]:
        cpu.delayed_branch(offset)


@isa.instruction("000101 rs rt offset[17:2]", "bne {rs}, {rt}, {pc+offset}")
def bne(cpu: Core, rs: Register, rt: Register, offset: Immediate) -> None:
    if cpu.r[rs] != cpu.r[rt]:
        cpu.delayed_branch(offset)


@isa.instruction("010100 rs rt offset[17:2]", "beql {rs}, {rt}, {pc+offset}")
def beql(cpu: Core, rs: Register, rt: Register, offset: Immediate) -> None:
    if cpu.r[rs] == cpu.r[rt]:
        cpu.delayed_branch(offset)
    else:
        cpu.annul()


@isa.instruction("010101 rs rt offset[17:2]", "bnel {rs}, {rt}, {pc+offset}")
def bnel(cpu: Core, rs: Register, rt: Register, offset: Immediate) -> None:
    if cpu.r[rs] != cpu.r[rt]:
        cpu.delayed_branch(offset)
    else:
        cpu.annul()


def less(value: u64) -> bool:
    return s64(value) < 0


def greater_or_equal(value: u64) -> bool:
    return s64(value) >= 0


def less_or_equal(value: u64) -> bool:
    return s64(value) <= 0


def greater(value: u64) -> bool:
    return s64(value) > 0


def _sign_branch(name: str, holds: Callable[[u64], bool], plain: str, likely: str) -> None:
    """A branch on the sign of a register, and its likely form."""

    @isa.instruction(f"{plain} offset[17:2]", f"{name} {{rs}}, {{pc+offset}}")
    def branch(cpu: Core, rs: Register, offset: Immediate) -> None:
        if holds(cpu.r[rs]):
            cpu.delayed_branch(offset)

    @isa.instruction(f"{likely} offset[17:2]", f"{name}l {{rs}}, {{pc+offset}}")
    def branch_likely(cpu: Core, rs: Register, offset: Immediate) -> None:
        if holds(cpu.r[rs]):
            cpu.delayed_branch(offset)
        else:
            cpu.annul()


def _sign_call(name: str, holds: Callable[[u64], bool], plain: str, likely: str) -> None:
    """The same with a link, which is written whether or not the branch is taken."""

    @isa.instruction(f"{plain} offset[17:2]", f"{name} {{rs}}, {{pc+offset}}")
    def call(cpu: Core, rs: Register, offset: Immediate) -> None:
        taken = holds(cpu.r[rs])
        cpu.r[RETURN_ADDRESS] = cpu.pc + 8
        if taken:
            cpu.delayed_branch(offset)

    @isa.instruction(f"{likely} offset[17:2]", f"{name}l {{rs}}, {{pc+offset}}")
    def call_likely(cpu: Core, rs: Register, offset: Immediate) -> None:
        taken = holds(cpu.r[rs])
        cpu.r[RETURN_ADDRESS] = cpu.pc + 8
        if taken:
            cpu.delayed_branch(offset)
        else:
            cpu.annul()


_sign_branch("bltz", less, "000001 rs 00000", "000001 rs 00010")
_sign_branch("bgez", greater_or_equal, "000001 rs 00001", "000001 rs 00011")
_sign_branch("blez", less_or_equal, "000110 rs 00000", "010110 rs 00000")
_sign_branch("bgtz", greater, "000111 rs 00000", "010111 rs 00000")
_sign_call("bltzal", less, "000001 rs 10000", "000001 rs 10010")
_sign_call("bgezal", greater_or_equal, "000001 rs 10001", "000001 rs 10011")


# Traps ------------------------------------------------------------------------------------------------------


def signed_less(a: u64, b: u64) -> bool:
    return s64(a) < s64(b)


def signed_greater_or_equal(a: u64, b: u64) -> bool:
    return s64(a) >= s64(b)


def unsigned_less(a: u64, b: u64) -> bool:
    return a < b


def unsigned_greater_or_equal(a: u64, b: u64) -> bool:
    return a >= b


def equal(a: u64, b: u64) -> bool:
    return a == b


def different(a: u64, b: u64) -> bool:
    return a != b


def _trap(name: str, holds: Callable[[u64, u64], bool], code: str, immediate_code: str) -> None:
    """A conditional trap on two registers, and on a register and an immediate."""

    @isa.instruction(f"000000 rs rt ---------- {code}", f"{name} {{rs}}, {{rt}}")
    def trap(cpu: Core, rs: Register, rt: Register) -> None:
        if holds(cpu.r[rs], cpu.r[rt]):
            cpu.trap(TRAP)

    @isa.instruction(f"000001 rs {immediate_code} imm", f"{name}i {{rs}}, {{imm}}")
    def trap_immediate(cpu: Core, rs: Register, imm: Immediate) -> None:
        if holds(cpu.r[rs], imm):
            cpu.trap(TRAP)


_trap("tge", signed_greater_or_equal, "110000", "01000")
_trap("tlt", signed_less, "110010", "01010")
_trap("teq", equal, "110100", "01100")
_trap("tne", different, "110110", "01110")


def _unsigned_trap(name: str, holds: Callable[[u64, u64], bool], code: str, immediate_code: str) -> None:
    """The unsigned ones, whose immediate forms are written in another order."""

    @isa.instruction(f"000000 rs rt ---------- {code}", f"{name} {{rs}}, {{rt}}")
    def trap(cpu: Core, rs: Register, rt: Register) -> None:
        if holds(cpu.r[rs], cpu.r[rt]):
            cpu.trap(TRAP)

    @isa.instruction(f"000001 rs {immediate_code} imm", f"{name[:-1]}iu {{rs}}, {{imm}}")
    def trap_immediate(cpu: Core, rs: Register, imm: Immediate) -> None:
        if holds(cpu.r[rs], imm):
            cpu.trap(TRAP)


_unsigned_trap("tgeu", unsigned_greater_or_equal, "110001", "01001")
_unsigned_trap("tltu", unsigned_less, "110011", "01011")


@isa.instruction("000000 -------------------- 001100", "syscall")
def syscall(cpu: Core) -> None:
    cpu.system_call()


@isa.instruction("000000 -------------------- 001101", "break")
def break_(cpu: Core) -> None:
    cpu.breakpoint()


@isa.instruction("000000 00000 00000 00000 stype 001111", "sync {stype}")
def sync(cpu: Core) -> None:
    cpu.fence()
