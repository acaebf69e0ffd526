"""Loads and stores, doubles in pairs of registers, atomic exchanges."""

# Pattern and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103, TC001

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.isa.processor import Immediate, Register
from anyvirt.isa.sparc.core import Core, both, isa
from anyvirt.typed import s8, s16, u8, u32, u64

if TYPE_CHECKING:
    from collections.abc import Callable

isa.extension("memory", "Loads, stores and exchanges")


def _load(name: str, code: str, fetch: Callable[[Core, u64], u64]) -> None:
    def register(cpu: Core, rd: Register, rs1: Register, rs2: Register) -> None:
        cpu.r[rd] = fetch(cpu, cpu.r[rs1] + cpu.r[rs2])

    def immediate(cpu: Core, rd: Register, rs1: Register, imm: Immediate) -> None:
        cpu.r[rd] = fetch(cpu, cpu.r[rs1] + imm)

    both(f"11 rd {code} rs1", f"{name} [{{rs1}} + {{b}}], {{rd}}", register, immediate)


def unsigned_byte(cpu: Core, address: u64) -> u64:
    return u64(cpu.load8(address))


def unsigned_half(cpu: Core, address: u64) -> u64:
    cpu.require_aligned(address, 2)
    return u64(cpu.load16(address))


def signed_byte(cpu: Core, address: u64) -> u64:
    return u64(s8(cpu.load8(address)))


def signed_half(cpu: Core, address: u64) -> u64:
    cpu.require_aligned(address, 2)
    return u64(s16(cpu.load16(address)))


def word(cpu: Core, address: u64) -> u64:
    cpu.require_aligned(address, 4)
    return u64(cpu.load32(address))


_load("ld", "000000", word)
_load("ldub", "000001", unsigned_byte)
_load("lduh", "000010", unsigned_half)
_load("ldsb", "001001", signed_byte)
_load("ldsh", "001010", signed_half)


def _store(name: str, code: str, put: Callable[[Core, u64, u64], None]) -> None:
    def register(cpu: Core, rd: Register, rs1: Register, rs2: Register) -> None:
        put(cpu, cpu.r[rs1] + cpu.r[rs2], cpu.r[rd])

    def immediate(cpu: Core, rd: Register, rs1: Register, imm: Immediate) -> None:
        put(cpu, cpu.r[rs1] + imm, cpu.r[rd])

    both(f"11 rd {code} rs1", f"{name} {{rd}}, [{{rs1}} + {{b}}]", register, immediate)


def put_byte(cpu: Core, address: u64, value: u64) -> None:
    cpu.store8(address, value)


def put_half(cpu: Core, address: u64, value: u64) -> None:
    cpu.require_aligned(address, 2)
    cpu.store16(address, value)


def put_word(cpu: Core, address: u64, value: u64) -> None:
    cpu.require_aligned(address, 4)
    cpu.store32(address, value)


_store("st", "000100", put_word)
_store("stb", "000101", put_byte)
_store("sth", "000110", put_half)


# A double is in an even register and the next one, the more significant word first --------------------------


def load_double(cpu: Core, address: u64, rd: u8) -> None:
    cpu.require_aligned(address, 8)
    value = cpu.load64(address)
    cpu.r[rd] = value >> 32
    cpu.r[rd + 1] = value


def store_double(cpu: Core, address: u64, rd: u8) -> None:
    cpu.require_aligned(address, 8)
    cpu.store64(address, cpu.r[rd] << 32 | cpu.r[rd + 1])


def ldd(cpu: Core, rd: Register, rs1: Register, rs2: Register) -> None:
    load_double(cpu, cpu.r[rs1] + cpu.r[rs2], rd)


def ldd_immediate(cpu: Core, rd: Register, rs1: Register, imm: Immediate) -> None:
    load_double(cpu, cpu.r[rs1] + imm, rd)


def std(cpu: Core, rd: Register, rs1: Register, rs2: Register) -> None:
    store_double(cpu, cpu.r[rs1] + cpu.r[rs2], rd)


def std_immediate(cpu: Core, rd: Register, rs1: Register, imm: Immediate) -> None:
    store_double(cpu, cpu.r[rs1] + imm, rd)


both("11 rde 000011 rs1", "ldd [{rs1} + {b}], {rd}", ldd, ldd_immediate)
both("11 rde 000111 rs1", "std {rd}, [{rs1} + {b}]", std, std_immediate)


# Atomic -----------------------------------------------------------------------------------------------------


def exchanged(cpu: Core, address: u64, value: u64) -> u64:
    cpu.require_aligned(address, 4)
    return cpu.exchange("swap", address, u32(value))


def swap(cpu: Core, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.r[rd] = exchanged(cpu, cpu.r[rs1] + cpu.r[rs2], cpu.r[rd])


def swap_immediate(cpu: Core, rd: Register, rs1: Register, imm: Immediate) -> None:
    cpu.r[rd] = exchanged(cpu, cpu.r[rs1] + imm, cpu.r[rd])


both("11 rd 001111 rs1", "swap [{rs1} + {b}], {rd}", swap, swap_immediate)


def taken(cpu: Core, address: u64) -> u64:
    """The byte at an address, which becomes 0xFF, through an exchange of its word."""
    shift = (u64(3) - (address & 3)) * 8
    return cpu.exchange("or", address & ~3, u32(0xFF) << shift) >> shift & 0xFF


def ldstub(cpu: Core, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.r[rd] = taken(cpu, cpu.r[rs1] + cpu.r[rs2])


def ldstub_immediate(cpu: Core, rd: Register, rs1: Register, imm: Immediate) -> None:
    cpu.r[rd] = taken(cpu, cpu.r[rs1] + imm)


both("11 rd 001101 rs1", "ldstub [{rs1} + {b}], {rd}", ldstub, ldstub_immediate)
