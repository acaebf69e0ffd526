"""Branches, the condition register, special registers, calls of the system."""

# Pattern and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103, TC001

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.isa.ppc.core import MASK, Core, isa
from anyvirt.isa.processor import Immediate, Register, Small
from anyvirt.typed import u8, u64

if TYPE_CHECKING:
    from collections.abc import Callable

isa.extension("branches", "Branches and the condition register")


def condition_bit(cpu: Core, number: u8) -> u64:
    """A bit of the condition register, numbered from the most significant one."""
    return cpu.cr[number >> 2] >> (u8(3) - (number & 3)) & 1


def taken(cpu: Core, bo: u8, bi: u8) -> bool:
    """Count CTR down if BO says so, and look at it and at a condition ("Branch Conditional")."""
    if bo & 4 == 0:
        left = cpu.ctr - 1 & MASK
        cpu.ctr = left
        if (left != 0) == (bo & 2 != 0):
            return False
    return bo & 16 != 0 or condition_bit(cpu, bi) == u64(bo >> 3 & 1)


@isa.instruction("010010 offset[25:2] 0 0", "b {pc+offset}")
def b(cpu: Core, offset: Immediate) -> None:
    cpu.branch(offset)


@isa.instruction("010010 offset[25:2] 0 1", "bl {pc+offset}")
def bl(cpu: Core, offset: Immediate) -> None:
    cpu.lr = cpu.next_pc
    cpu.branch(offset)


@isa.instruction("010010 address[25:2] 1 0", "ba {address}")
def ba(cpu: Core, address: Immediate) -> None:
    cpu.jump(address & MASK)


@isa.instruction("010010 address[25:2] 1 1", "bla {address}")
def bla(cpu: Core, address: Immediate) -> None:
    cpu.lr = cpu.next_pc
    cpu.jump(address & MASK)


# The two plainest kinds of BO, whatever their hints: a condition that is true, or false.


@isa.instruction("010000 011-- bi offset[15:2] 0 0", "bc 12, {bi}, {pc+offset}")
def branch_if_true(cpu: Core, bi: Small, offset: Immediate) -> None:
    if condition_bit(cpu, bi) != 0:
        cpu.branch(offset)


@isa.instruction("010000 001-- bi offset[15:2] 0 0", "bc 4, {bi}, {pc+offset}")
def branch_if_false(cpu: Core, bi: Small, offset: Immediate) -> None:
    if condition_bit(cpu, bi) == 0:
        cpu.branch(offset)


@isa.instruction("010000 bo bi offset[15:2] 0 0", "bc {bo}, {bi}, {pc+offset}")
def bc(cpu: Core, bo: Small, bi: Small, offset: Immediate) -> None:
    if taken(cpu, bo, bi):
        cpu.branch(offset)


@isa.instruction("010000 bo bi offset[15:2] 0 1", "bcl {bo}, {bi}, {pc+offset}")
def bcl(cpu: Core, bo: Small, bi: Small, offset: Immediate) -> None:
    cpu.lr = cpu.next_pc
    if taken(cpu, bo, bi):
        cpu.branch(offset)


@isa.instruction("010000 bo bi address[15:2] 1 0", "bca {bo}, {bi}, {address}")
def bca(cpu: Core, bo: Small, bi: Small, address: Immediate) -> None:
    if taken(cpu, bo, bi):
        cpu.jump(address & MASK)


@isa.instruction("010000 bo bi address[15:2] 1 1", "bcla {bo}, {bi}, {address}")
def bcla(cpu: Core, bo: Small, bi: Small, address: Immediate) -> None:
    cpu.lr = cpu.next_pc
    if taken(cpu, bo, bi):
        cpu.jump(address & MASK)


@isa.instruction("010011 1-1-- ----- 000 -- 0000010000 0", "blr")
def blr(cpu: Core) -> None:
    cpu.jump(cpu.lr & 0xFFFFFFFC)


@isa.instruction("010011 bo bi 000 -- 0000010000 0", "bclr {bo}, {bi}")
def bclr(cpu: Core, bo: Small, bi: Small) -> None:
    if taken(cpu, bo, bi):
        cpu.jump(cpu.lr & 0xFFFFFFFC)


@isa.instruction("010011 bo bi 000 -- 0000010000 1", "bclrl {bo}, {bi}")
def bclrl(cpu: Core, bo: Small, bi: Small) -> None:
    target = cpu.lr & 0xFFFFFFFC
    cpu.lr = cpu.next_pc
    if taken(cpu, bo, bi):
        cpu.jump(target)


# Counting CTR down while jumping to it is invalid.
_NO_COUNT = {"bo": tuple(bo for bo in range(32) if not bo & 4)}


@isa.instruction("010011 bo bi 000 -- 1000010000 0", "bcctr {bo}, {bi}", excluding=_NO_COUNT)
def bcctr(cpu: Core, bo: Small, bi: Small) -> None:
    if taken(cpu, bo, bi):
        cpu.jump(cpu.ctr & 0xFFFFFFFC)


@isa.instruction("010011 bo bi 000 -- 1000010000 1", "bcctrl {bo}, {bi}", excluding=_NO_COUNT)
def bcctrl(cpu: Core, bo: Small, bi: Small) -> None:
    cpu.lr = cpu.next_pc
    if taken(cpu, bo, bi):
        cpu.jump(cpu.ctr & 0xFFFFFFFC)


@isa.instruction("010001 00000 00000 ---- ------- --- 1 -", "sc")
def sc(cpu: Core) -> None:
    cpu.system_call()


# The condition register -------------------------------------------------------------------------------------


def _bits(name: str, code: str, combine: Callable[[u64, u64], u64]) -> None:
    @isa.instruction(f"010011 bt ba bb {code} 0", f"{name} {{bt}}, {{ba}}, {{bb}}")
    def on_bits(cpu: Core, bt: Small, ba: Small, bb: Small) -> None:
        value = combine(condition_bit(cpu, ba), condition_bit(cpu, bb)) & 1
        place = u8(3) - (bt & 3)
        cpu.cr[bt >> 2] = cpu.cr[bt >> 2] & ~(u64(1) << place) | value << place


def conjunction(a: u64, b: u64) -> u64:
    return a & b


def disjunction(a: u64, b: u64) -> u64:
    return a | b


def exclusion(a: u64, b: u64) -> u64:
    return a ^ b


def not_and(a: u64, b: u64) -> u64:
    return ~(a & b)


def not_or(a: u64, b: u64) -> u64:
    return ~(a | b)


def equivalence(a: u64, b: u64) -> u64:
    return ~(a ^ b)


def conjunction_with_complement(a: u64, b: u64) -> u64:
    return a & ~b


def disjunction_with_complement(a: u64, b: u64) -> u64:
    return a | ~b


_bits("crand", "0100000001", conjunction)
_bits("cror", "0111000001", disjunction)
_bits("crxor", "0011000001", exclusion)
_bits("crnand", "0011100001", not_and)
_bits("crnor", "0000100001", not_or)
_bits("creqv", "0100100001", equivalence)
_bits("crandc", "0010000001", conjunction_with_complement)
_bits("crorc", "0110100001", disjunction_with_complement)


@isa.instruction("010011 bf 00 bfa 00 00000 0000000000 0", "mcrf {bf}, {bfa}")
def mcrf(cpu: Core, bf: Register, bfa: Register) -> None:
    cpu.cr[bf] = cpu.cr[bfa]


@isa.instruction("011111 rt 0 00000000 0 0000010011 0", "mfcr {rt}")
def mfcr(cpu: Core, rt: Register) -> None:
    value = u64(0)
    for number in range(8):
        value = value << 4 | cpu.cr[u8(number)]
    cpu.r[rt] = value


@isa.instruction("011111 rs 0 fxm 0 0010010000 0", "mtcrf {fxm}, {rs}")
def mtcrf(cpu: Core, rs: Register, fxm: Small) -> None:
    value = cpu.r[rs]
    for number in range(8):
        if fxm >> (7 - number) & 1 != 0:
            cpu.cr[u8(number)] = value >> (28 - 4 * number) & 15


# Special registers ------------------------------------------------------------------------------------------


@isa.instruction("011111 rt 0000100000 0101010011 0", "mfxer {rt}")
def mfxer(cpu: Core, rt: Register) -> None:
    cpu.r[rt] = cpu.so << 31 | cpu.ov << 30 | cpu.ca << 29 | cpu.string_length


@isa.instruction("011111 rs 0000100000 0111010011 0", "mtxer {rs}")
def mtxer(cpu: Core, rs: Register) -> None:
    value = cpu.r[rs]
    cpu.so = value >> 31 & 1
    cpu.ov = value >> 30 & 1
    cpu.ca = value >> 29 & 1
    cpu.string_length = value & 127


@isa.instruction("011111 rt 0100000000 0101010011 0", "mflr {rt}")
def mflr(cpu: Core, rt: Register) -> None:
    cpu.r[rt] = cpu.lr


@isa.instruction("011111 rs 0100000000 0111010011 0", "mtlr {rs}")
def mtlr(cpu: Core, rs: Register) -> None:
    cpu.lr = cpu.r[rs]


@isa.instruction("011111 rt 0100100000 0101010011 0", "mfctr {rt}")
def mfctr(cpu: Core, rt: Register) -> None:
    cpu.r[rt] = cpu.ctr


@isa.instruction("011111 rs 0100100000 0111010011 0", "mtctr {rs}")
def mtctr(cpu: Core, rs: Register) -> None:
    cpu.ctr = cpu.r[rs]
