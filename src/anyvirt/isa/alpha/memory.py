"""Loads and stores, unaligned quadwords, load-locked and store-conditional, barriers.

A store-conditional succeeds if memory still holds the value that was locked.
"""

# Pattern and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103, TC001

from __future__ import annotations

from anyvirt.isa.alpha.core import NO_LOCK, Core, isa
from anyvirt.isa.processor import Immediate, Register
from anyvirt.typed import s32, u32, u64

isa.extension("memory", "Loads and stores")


@isa.instruction("001010 ra rb disp", "ldbu {ra}, {imm}({rb})")
def ldbu(cpu: Core, ra: Register, rb: Register, imm: Immediate) -> None:
    cpu.r[ra] = u64(cpu.load8(cpu.r[rb] + imm))


@isa.instruction("001100 ra rb disp", "ldwu {ra}, {imm}({rb})")
def ldwu(cpu: Core, ra: Register, rb: Register, imm: Immediate) -> None:
    address = cpu.r[rb] + imm
    cpu.require_aligned(address, 2)
    cpu.r[ra] = u64(cpu.load16(address))


@isa.instruction("101000 ra rb disp", "ldl {ra}, {imm}({rb})")
def ldl(cpu: Core, ra: Register, rb: Register, imm: Immediate) -> None:
    address = cpu.r[rb] + imm
    cpu.require_aligned(address, 4)
    cpu.r[ra] = u64(s32(cpu.load32(address)))


@isa.instruction("101001 ra rb disp", "ldq {ra}, {imm}({rb})")
def ldq(cpu: Core, ra: Register, rb: Register, imm: Immediate) -> None:
    address = cpu.r[rb] + imm
    cpu.require_aligned(address, 8)
    cpu.r[ra] = cpu.load64(address)


@isa.instruction("001011 ra rb disp", "ldq_u {ra}, {imm}({rb})")
def ldq_u(cpu: Core, ra: Register, rb: Register, imm: Immediate) -> None:
    cpu.r[ra] = cpu.load64(cpu.r[rb] + imm & ~7)


@isa.instruction("001110 ra rb disp", "stb {ra}, {imm}({rb})")
def stb(cpu: Core, ra: Register, rb: Register, imm: Immediate) -> None:
    cpu.store8(cpu.r[rb] + imm, cpu.r[ra])


@isa.instruction("001101 ra rb disp", "stw {ra}, {imm}({rb})")
def stw(cpu: Core, ra: Register, rb: Register, imm: Immediate) -> None:
    address = cpu.r[rb] + imm
    cpu.require_aligned(address, 2)
    cpu.store16(address, cpu.r[ra])


@isa.instruction("101100 ra rb disp", "stl {ra}, {imm}({rb})")
def stl(cpu: Core, ra: Register, rb: Register, imm: Immediate) -> None:
    address = cpu.r[rb] + imm
    cpu.require_aligned(address, 4)
    cpu.store32(address, cpu.r[ra])


@isa.instruction("101101 ra rb disp", "stq {ra}, {imm}({rb})")
def stq(cpu: Core, ra: Register, rb: Register, imm: Immediate) -> None:
    address = cpu.r[rb] + imm
    cpu.require_aligned(address, 8)
    cpu.store64(address, cpu.r[ra])


@isa.instruction("001111 ra rb disp", "stq_u {ra}, {imm}({rb})")
def stq_u(cpu: Core, ra: Register, rb: Register, imm: Immediate) -> None:
    cpu.store64(cpu.r[rb] + imm & ~7, cpu.r[ra])


# Atomic -----------------------------------------------------------------------------------------------------


@isa.instruction("101010 ra rb disp", "ldl_l {ra}, {imm}({rb})")
def ldl_l(cpu: Core, ra: Register, rb: Register, imm: Immediate) -> None:
    address = cpu.r[rb] + imm
    cpu.require_aligned(address, 4)
    value = u64(s32(cpu.load32(address)))
    cpu.lock_address = address
    cpu.lock_value = value
    cpu.r[ra] = value


@isa.instruction("101011 ra rb disp", "ldq_l {ra}, {imm}({rb})")
def ldq_l(cpu: Core, ra: Register, rb: Register, imm: Immediate) -> None:
    address = cpu.r[rb] + imm
    cpu.require_aligned(address, 8)
    value = cpu.load64(address)
    cpu.lock_address = address
    cpu.lock_value = value
    cpu.r[ra] = value


@isa.instruction("101110 ra rb disp", "stl_c {ra}, {imm}({rb})")
def stl_c(cpu: Core, ra: Register, rb: Register, imm: Immediate) -> None:
    address = cpu.r[rb] + imm
    cpu.require_aligned(address, 4)
    stored = cpu.lock_address == address and cpu.compare_exchange(
        address, u32(cpu.lock_value), u32(cpu.r[ra])
    )
    cpu.lock_address = u64(NO_LOCK)
    cpu.r[ra] = u64(stored)


@isa.instruction("101111 ra rb disp", "stq_c {ra}, {imm}({rb})")
def stq_c(cpu: Core, ra: Register, rb: Register, imm: Immediate) -> None:
    address = cpu.r[rb] + imm
    cpu.require_aligned(address, 8)
    stored = cpu.lock_address == address and cpu.compare_exchange(address, cpu.lock_value, cpu.r[ra])
    cpu.lock_address = u64(NO_LOCK)
    cpu.r[ra] = u64(stored)


@isa.instruction("011000 ----- ----- 0100000000000000", "mb")
@isa.instruction("011000 ----- ----- 0100010000000000", "wmb")
def barrier(cpu: Core) -> None:
    cpu.fence()


@isa.instruction("011000 ----- ----- 0000000000000000", "trapb")
@isa.instruction("011000 ----- ----- 0000010000000000", "excb")
@isa.instruction("011000 ----- rb 1000000000000000", "fetch 0({rb})")
@isa.instruction("011000 ----- rb 1010000000000000", "fetch_m 0({rb})")
def no_operation(cpu: Core) -> None:
    pass


@isa.instruction("011000 ra ----- 1100000000000000", "rpcc {ra}")
def rpcc(cpu: Core, ra: Register) -> None:
    cpu.r[ra] = cpu.cycle_counter() & 0xFFFFFFFF
