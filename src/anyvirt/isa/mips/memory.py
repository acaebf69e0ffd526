"""Loads and stores, the halves of unaligned words, load-linked and store-conditional.

A store-conditional succeeds if memory still holds the value that was linked.
"""

# Pattern and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103, TC001

from __future__ import annotations

from anyvirt.isa.mips.core import NO_LINK, Core, isa
from anyvirt.isa.processor import Immediate, Register
from anyvirt.typed import range, s8, s16, s32, u32, u64

isa.extension("memory", "Loads and stores")


@isa.instruction("100000 rs rt imm", "lb {rt}, {imm}({rs})")
def lb(cpu: Core, rs: Register, rt: Register, imm: Immediate) -> None:
    cpu.r[rt] = u64(s8(cpu.load8(cpu.r[rs] + imm)))


@isa.instruction("100100 rs rt imm", "lbu {rt}, {imm}({rs})")
def lbu(cpu: Core, rs: Register, rt: Register, imm: Immediate) -> None:
    cpu.r[rt] = u64(cpu.load8(cpu.r[rs] + imm))


@isa.instruction("100001 rs rt imm", "lh {rt}, {imm}({rs})")
def lh(cpu: Core, rs: Register, rt: Register, imm: Immediate) -> None:
    address = cpu.r[rs] + imm
    cpu.require_aligned(address, 2)
    cpu.r[rt] = u64(s16(cpu.load16(address)))


@isa.instruction("100101 rs rt imm", "lhu {rt}, {imm}({rs})")
def lhu(cpu: Core, rs: Register, rt: Register, imm: Immediate) -> None:
    address = cpu.r[rs] + imm
    cpu.require_aligned(address, 2)
    cpu.r[rt] = u64(cpu.load16(address))


@isa.instruction("100011 rs rt imm", "lw {rt}, {imm}({rs})")
def lw(cpu: Core, rs: Register, rt: Register, imm: Immediate) -> None:
    address = cpu.r[rs] + imm
    cpu.require_aligned(address, 4)
    cpu.r[rt] = u64(cpu.load32(address))


@isa.instruction("101000 rs rt imm", "sb {rt}, {imm}({rs})")
def sb(cpu: Core, rs: Register, rt: Register, imm: Immediate) -> None:
    cpu.store8(cpu.r[rs] + imm, cpu.r[rt])


@isa.instruction("101001 rs rt imm", "sh {rt}, {imm}({rs})")
def sh(cpu: Core, rs: Register, rt: Register, imm: Immediate) -> None:
    address = cpu.r[rs] + imm
    cpu.require_aligned(address, 2)
    cpu.store16(address, cpu.r[rt])


@isa.instruction("101011 rs rt imm", "sw {rt}, {imm}({rs})")
def sw(cpu: Core, rs: Register, rt: Register, imm: Immediate) -> None:
    address = cpu.r[rs] + imm
    cpu.require_aligned(address, 4)
    cpu.store32(address, cpu.r[rt])


# Unaligned words: "left" is the more significant part -------------------------------------------------------


def left_gap(cpu: Core, address: u64) -> u64:
    """Bytes of the aligned word that are more significant than the one at an address."""
    if cpu.big_endian:
        return address & 3
    return 3 - (address & 3)


@isa.instruction("100010 rs rt imm", "lwl {rt}, {imm}({rs})")
def lwl(cpu: Core, rs: Register, rt: Register, imm: Immediate) -> None:
    address = cpu.r[rs] + imm
    bits = left_gap(cpu, address) * 8
    word = u64(cpu.load32(address & ~3))
    cpu.r[rt] = word << bits | cpu.r[rt] & (u64(1) << bits) - 1


@isa.instruction("100110 rs rt imm", "lwr {rt}, {imm}({rs})")
def lwr(cpu: Core, rs: Register, rt: Register, imm: Immediate) -> None:
    address = cpu.r[rs] + imm
    bits = 24 - left_gap(cpu, address) * 8
    word = cpu.load32(address & ~3)
    cpu.r[rt] = u64(word >> bits) | cpu.r[rt] & ~(u64(0xFFFFFFFF) >> bits)


@isa.instruction("101010 rs rt imm", "swl {rt}, {imm}({rs})")
def swl(cpu: Core, rs: Register, rt: Register, imm: Immediate) -> None:
    # Byte by byte from the most significant one on: nothing else of the word may be written.
    address = cpu.r[rs] + imm
    for position in range(4 - left_gap(cpu, address)):
        value = cpu.r[rt] >> 24 - position * 8
        if cpu.big_endian:
            cpu.store8(address + position, value)
        else:
            cpu.store8(address - position, value)


@isa.instruction("101110 rs rt imm", "swr {rt}, {imm}({rs})")
def swr(cpu: Core, rs: Register, rt: Register, imm: Immediate) -> None:
    address = cpu.r[rs] + imm
    for position in range(1 + left_gap(cpu, address)):
        value = cpu.r[rt] >> position * 8
        if cpu.big_endian:
            cpu.store8(address - position, value)
        else:
            cpu.store8(address + position, value)


# Atomic -----------------------------------------------------------------------------------------------------


@isa.instruction("110000 rs rt imm", "ll {rt}, {imm}({rs})")
def ll(cpu: Core, rs: Register, rt: Register, imm: Immediate) -> None:
    address = cpu.r[rs] + imm
    cpu.require_aligned(address, 4)
    value = cpu.load32(address)
    cpu.link_address = address
    cpu.link_value = u64(value)
    cpu.r[rt] = u64(s32(value))


@isa.instruction("111000 rs rt imm", "sc {rt}, {imm}({rs})")
def sc(cpu: Core, rs: Register, rt: Register, imm: Immediate) -> None:
    address = cpu.r[rs] + imm
    cpu.require_aligned(address, 4)
    stored = cpu.link_address == address and cpu.compare_exchange(
        address, u32(cpu.link_value), u32(cpu.r[rt])
    )
    cpu.link_address = u64(NO_LINK)
    cpu.r[rt] = u64(stored)


@isa.instruction("110011 rs hint imm", "pref {hint}, {imm}({rs})")
def pref(cpu: Core) -> None:
    pass
