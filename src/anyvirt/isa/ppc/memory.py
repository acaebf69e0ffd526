"""Loads and stores with update and indexed forms, byte-reversed, multiple, reserved; storage control."""

# Pattern and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103, TC001

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.isa.ppc.core import MASK, NO_RESERVATION, Core, base, isa
from anyvirt.isa.processor import Immediate, Register
from anyvirt.typed import byte_swap, s16, u8, u16, u32, u64

if TYPE_CHECKING:
    from collections.abc import Callable

isa.extension("memory", "Loads, stores and storage control")


def byte(cpu: Core, address: u64) -> u64:
    return u64(cpu.load8(address))


def half(cpu: Core, address: u64) -> u64:
    return u64(cpu.load16(address))


def signed_half(cpu: Core, address: u64) -> u64:
    return u64(s16(cpu.load16(address)))


def word(cpu: Core, address: u64) -> u64:
    return u64(cpu.load32(address))


def reversed_half(cpu: Core, address: u64) -> u64:
    return u64(byte_swap(cpu.load16(address)))


def reversed_word(cpu: Core, address: u64) -> u64:
    return u64(byte_swap(cpu.load32(address)))


def put_byte(cpu: Core, address: u64, value: u64) -> None:
    cpu.store8(address, value)


def put_half(cpu: Core, address: u64, value: u64) -> None:
    cpu.store16(address, value)


def put_word(cpu: Core, address: u64, value: u64) -> None:
    cpu.store32(address, value)


def put_reversed_half(cpu: Core, address: u64, value: u64) -> None:
    cpu.store16(address, byte_swap(u16(value)))


def put_reversed_word(cpu: Core, address: u64, value: u64) -> None:
    cpu.store32(address, byte_swap(u32(value)))


def _load_indexed(name: str, code: str, fetch: Callable[[Core, u64], u64]) -> None:
    @isa.instruction(f"011111 rt ra rb {code} 0", f"{name} {{rt}}, {{ra}}, {{rb}}")
    def load(cpu: Core, rt: Register, ra: Register, rb: Register) -> None:
        cpu.r[rt] = fetch(cpu, base(cpu, ra) + cpu.r[rb])


def _load(name: str, code: str, indexed: str, fetch: Callable[[Core, u64], u64]) -> None:
    """Displacement and indexed forms, each also with update of the base, which then is not register 0."""

    @isa.instruction(f"{code} 0 rt ra si", f"{name} {{rt}}, {{imm}}({{ra}})")
    def load(cpu: Core, rt: Register, ra: Register, imm: Immediate) -> None:
        cpu.r[rt] = fetch(cpu, base(cpu, ra) + imm)

    @isa.instruction(f"{code} 1 rt ra si", f"{name}u {{rt}}, {{imm}}({{ra}})", excluding={"ra": (0,)})
    def load_update(cpu: Core, rt: Register, ra: Register, imm: Immediate) -> None:
        address = cpu.r[ra] + imm
        value = fetch(cpu, address)
        cpu.r[ra] = address
        cpu.r[rt] = value

    _load_indexed(f"{name}x", f"{indexed[:4]}0{indexed[5:]}", fetch)

    @isa.instruction(
        f"011111 rt ra rb {indexed[:4]}1{indexed[5:]} 0",
        f"{name}ux {{rt}}, {{ra}}, {{rb}}",
        excluding={"ra": (0,)},
    )
    def load_update_indexed(cpu: Core, rt: Register, ra: Register, rb: Register) -> None:
        address = cpu.r[ra] + cpu.r[rb]
        value = fetch(cpu, address)
        cpu.r[ra] = address
        cpu.r[rt] = value


def _store_indexed(name: str, code: str, put: Callable[[Core, u64, u64], None]) -> None:
    @isa.instruction(f"011111 rs ra rb {code} 0", f"{name} {{rs}}, {{ra}}, {{rb}}")
    def store(cpu: Core, rs: Register, ra: Register, rb: Register) -> None:
        put(cpu, base(cpu, ra) + cpu.r[rb], cpu.r[rs])


def _store(name: str, code: str, indexed: str, put: Callable[[Core, u64, u64], None]) -> None:
    """The same forms of a store."""

    @isa.instruction(f"{code} 0 rs ra si", f"{name} {{rs}}, {{imm}}({{ra}})")
    def store(cpu: Core, rs: Register, ra: Register, imm: Immediate) -> None:
        put(cpu, base(cpu, ra) + imm, cpu.r[rs])

    @isa.instruction(f"{code} 1 rs ra si", f"{name}u {{rs}}, {{imm}}({{ra}})", excluding={"ra": (0,)})
    def store_update(cpu: Core, rs: Register, ra: Register, imm: Immediate) -> None:
        address = cpu.r[ra] + imm
        put(cpu, address, cpu.r[rs])
        cpu.r[ra] = address

    _store_indexed(f"{name}x", f"{indexed[:4]}0{indexed[5:]}", put)

    @isa.instruction(
        f"011111 rs ra rb {indexed[:4]}1{indexed[5:]} 0",
        f"{name}ux {{rs}}, {{ra}}, {{rb}}",
        excluding={"ra": (0,)},
    )
    def store_update_indexed(cpu: Core, rs: Register, ra: Register, rb: Register) -> None:
        address = cpu.r[ra] + cpu.r[rb]
        put(cpu, address, cpu.r[rs])
        cpu.r[ra] = address


_load("lwz", "10000", "0000-10111", word)
_load("lbz", "10001", "0001-10111", byte)
_load("lhz", "10100", "0100-10111", half)
_load("lha", "10101", "0101-10111", signed_half)
_store("stw", "10010", "0010-10111", put_word)
_store("stb", "10011", "0011-10111", put_byte)
_store("sth", "10110", "0110-10111", put_half)
_load_indexed("lwbrx", "1000010110", reversed_word)
_load_indexed("lhbrx", "1100010110", reversed_half)
_store_indexed("stwbrx", "1010010110", put_reversed_word)
_store_indexed("sthbrx", "1110010110", put_reversed_half)


# Multiple words ---------------------------------------------------------------------------------------------


@isa.instruction("101110 rt ra si", "lmw {rt}, {imm}({ra})")
def lmw(cpu: Core, rt: Register, ra: Register, imm: Immediate) -> None:
    address = base(cpu, ra) + imm
    # The last word may be on another page: fault before any register changes.
    _ = cpu.load32(address + 4 * (u64(31) - u64(rt)))
    number = rt
    while number < 32:
        value = cpu.load32(address)
        cpu.r[number] = u64(value)
        address += 4
        number += 1


@isa.instruction("101111 rs ra si", "stmw {rs}, {imm}({ra})")
def stmw(cpu: Core, rs: Register, ra: Register, imm: Immediate) -> None:
    address = base(cpu, ra) + imm
    number = rs
    while number < 32:
        cpu.store32(address, cpu.r[number])
        address += 4
        number += 1


# Reservations and storage control ---------------------------------------------------------------------------


@isa.instruction("011111 rt ra rb 0000010100 -", "lwarx {rt}, {ra}, {rb}")
def lwarx(cpu: Core, rt: Register, ra: Register, rb: Register) -> None:
    address = base(cpu, ra) + cpu.r[rb] & MASK
    cpu.require_aligned(address, 4)
    value = u64(cpu.load32(address))
    cpu.reservation_address = address
    cpu.reservation_value = value
    cpu.r[rt] = value


@isa.instruction("011111 rs ra rb 0010010110 1", "stwcx. {rs}, {ra}, {rb}")
def stwcx(cpu: Core, rs: Register, ra: Register, rb: Register) -> None:
    address = base(cpu, ra) + cpu.r[rb] & MASK
    cpu.require_aligned(address, 4)
    stored = cpu.reservation_address == address and cpu.compare_exchange(
        address, u32(cpu.reservation_value), u32(cpu.r[rs])
    )
    cpu.reservation_address = u64(NO_RESERVATION)
    cpu.cr[u8(0)] = u64(stored) << 1 | cpu.so


@isa.instruction("011111 00000 00000 00000 1001010110 0", "sync")
@isa.instruction("011111 00001 00000 00000 1001010110 0", "lwsync")
@isa.instruction("011111 00000 00000 00000 1101010110 0", "eieio")
def barrier(cpu: Core) -> None:
    cpu.fence()


@isa.instruction("010011 00000 00000 00000 0010010110 0", "isync")
def isync(cpu: Core) -> None:
    cpu.synchronize_code()


@isa.instruction("011111 00000 ra rb 0100010110 0", "dcbt {ra}, {rb}")
@isa.instruction("011111 00000 ra rb 0011110110 0", "dcbtst {ra}, {rb}")
@isa.instruction("011111 00000 ra rb 0001010110 0", "dcbf {ra}, {rb}")
@isa.instruction("011111 00000 ra rb 0000110110 0", "dcbst {ra}, {rb}")
@isa.instruction("011111 00000 ra rb 1111010110 0", "icbi {ra}, {rb}")
def cache_hint(cpu: Core) -> None:
    pass


@isa.instruction("011111 00000 ra rb 1111110110 0", "dcbz {ra}, {rb}")
def dcbz(cpu: Core, ra: Register, rb: Register) -> None:
    line = base(cpu, ra) + cpu.r[rb] & ~31
    for offset in range(0, 32, 8):
        cpu.store64(line + offset, u64(0))
