"""Loads and stores with every addressing mode, pairs, exclusive and ordered accesses.

A base register that is written back changes only after the access has succeeded. Ordered accesses are
ordinary ones with a full barrier; a store-exclusive succeeds if memory still holds the value that was loaded.
"""

# Pattern and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103, TC001

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.isa.aarch64.core import NO_RESERVATION, Core, extended, isa
from anyvirt.isa.processor import Immediate, Register, Small
from anyvirt.typed import s8, s16, s32, u32, u64

if TYPE_CHECKING:
    from collections.abc import Callable

isa.extension("memory", "Loads and stores")


def byte(cpu: Core, address: u64) -> u64:
    return u64(cpu.load8(address))


def half(cpu: Core, address: u64) -> u64:
    return u64(cpu.load16(address))


def word(cpu: Core, address: u64) -> u64:
    return u64(cpu.load32(address))


def double(cpu: Core, address: u64) -> u64:
    return cpu.load64(address)


def signed_byte(cpu: Core, address: u64) -> u64:
    return u64(s8(cpu.load8(address)))


def signed_half(cpu: Core, address: u64) -> u64:
    return u64(s16(cpu.load16(address)))


def signed_word(cpu: Core, address: u64) -> u64:
    return u64(s32(cpu.load32(address)))


def signed_byte_w(cpu: Core, address: u64) -> u64:
    return u64(u32(s8(cpu.load8(address))))


def signed_half_w(cpu: Core, address: u64) -> u64:
    return u64(u32(s16(cpu.load16(address))))


def put_byte(cpu: Core, address: u64, value: u64) -> None:
    cpu.store8(address, value)


def put_half(cpu: Core, address: u64, value: u64) -> None:
    cpu.store16(address, value)


def put_word(cpu: Core, address: u64, value: u64) -> None:
    cpu.store32(address, value)


def put_double(cpu: Core, address: u64, value: u64) -> None:
    cpu.store64(address, value)


def _load(names: tuple[str, str], size: int, opc: str, r: str, fetch: Callable[[Core, u64], u64]) -> None:
    """All addressing modes of one load; the second name is that of the unscaled form."""
    name, unscaled = names
    head = f"{size:02b} 111 0"

    @isa.instruction(f"{head} 01 {opc} imm[{11 + size}:{size}] xsn {r}t", f"{name} {{t}}, [{{n}}, #{{imm}}]")
    @isa.instruction(f"{head} 00 {opc} 0 simm[8:0] 00 xsn {r}t", f"{unscaled} {{t}}, [{{n}}, #{{imm}}]")
    def load(cpu: Core, t: Register, n: Register, imm: Immediate) -> None:
        cpu.x[t] = fetch(cpu, cpu.x[n] + imm)

    @isa.instruction(f"{head} 00 {opc} 0 simm[8:0] 01 xsn {r}t", f"{name} {{t}}, [{{n}}], #{{imm}}")
    def load_post(cpu: Core, t: Register, n: Register, imm: Immediate) -> None:
        address = cpu.x[n]
        value = fetch(cpu, address)
        cpu.x[n] = address + imm
        cpu.x[t] = value

    @isa.instruction(f"{head} 00 {opc} 0 simm[8:0] 11 xsn {r}t", f"{name} {{t}}, [{{n}}, #{{imm}}]!")
    def load_pre(cpu: Core, t: Register, n: Register, imm: Immediate) -> None:
        address = cpu.x[n] + imm
        value = fetch(cpu, address)
        cpu.x[n] = address
        cpu.x[t] = value

    for scaled, scale in (("0", 0), ("1", size)):
        _load_indexed(name, f"{head} 00 {opc} 1 xm", scaled, scale, r, fetch)


def _load_indexed(
    name: str, head: str, scaled: str, scale: int, r: str, fetch: Callable[[Core, u64], u64]
) -> None:
    @isa.instruction(
        f"{head} option {scaled} 10 xsn {r}t",
        f"{name} {{t}}, [{{n}}, {{m}}, {{option}} #{scale}]",
        excluding={"option": (0, 1, 4, 5)},
    )
    def load(cpu: Core, t: Register, n: Register, m: Register, option: Small) -> None:
        cpu.x[t] = fetch(cpu, cpu.x[n] + (extended(cpu.x[m], option) << scale))


def _store(names: tuple[str, str], size: int, r: str, put: Callable[[Core, u64, u64], None]) -> None:
    """All addressing modes of one store."""
    name, unscaled = names
    head = f"{size:02b} 111 0"

    @isa.instruction(f"{head} 01 00 imm[{11 + size}:{size}] xsn {r}t", f"{name} {{t}}, [{{n}}, #{{imm}}]")
    @isa.instruction(f"{head} 00 00 0 simm[8:0] 00 xsn {r}t", f"{unscaled} {{t}}, [{{n}}, #{{imm}}]")
    def store(cpu: Core, t: Register, n: Register, imm: Immediate) -> None:
        put(cpu, cpu.x[n] + imm, cpu.x[t])

    @isa.instruction(f"{head} 00 00 0 simm[8:0] 01 xsn {r}t", f"{name} {{t}}, [{{n}}], #{{imm}}")
    def store_post(cpu: Core, t: Register, n: Register, imm: Immediate) -> None:
        address = cpu.x[n]
        put(cpu, address, cpu.x[t])
        cpu.x[n] = address + imm

    @isa.instruction(f"{head} 00 00 0 simm[8:0] 11 xsn {r}t", f"{name} {{t}}, [{{n}}, #{{imm}}]!")
    def store_pre(cpu: Core, t: Register, n: Register, imm: Immediate) -> None:
        address = cpu.x[n] + imm
        put(cpu, address, cpu.x[t])
        cpu.x[n] = address

    for scaled, scale in (("0", 0), ("1", size)):
        _store_indexed(name, f"{head} 00 00 1 xm", scaled, scale, r, put)


def _store_indexed(
    name: str, head: str, scaled: str, scale: int, r: str, put: Callable[[Core, u64, u64], None]
) -> None:
    @isa.instruction(
        f"{head} option {scaled} 10 xsn {r}t",
        f"{name} {{t}}, [{{n}}, {{m}}, {{option}} #{scale}]",
        excluding={"option": (0, 1, 4, 5)},
    )
    def store(cpu: Core, t: Register, n: Register, m: Register, option: Small) -> None:
        put(cpu, cpu.x[n] + (extended(cpu.x[m], option) << scale), cpu.x[t])


_load(("ldrb", "ldurb"), 0, "01", "w", byte)
_load(("ldrsb", "ldursb"), 0, "10", "x", signed_byte)
_load(("ldrsb", "ldursb"), 0, "11", "w", signed_byte_w)
_load(("ldrh", "ldurh"), 1, "01", "w", half)
_load(("ldrsh", "ldursh"), 1, "10", "x", signed_half)
_load(("ldrsh", "ldursh"), 1, "11", "w", signed_half_w)
_load(("ldr", "ldur"), 2, "01", "w", word)
_load(("ldrsw", "ldursw"), 2, "10", "x", signed_word)
_load(("ldr", "ldur"), 3, "01", "x", double)
_store(("strb", "sturb"), 0, "w", put_byte)
_store(("strh", "sturh"), 1, "w", put_half)
_store(("str", "stur"), 2, "w", put_word)
_store(("str", "stur"), 3, "x", put_double)


def _literal(name: str, opc: str, r: str, fetch: Callable[[Core, u64], u64]) -> None:
    @isa.instruction(f"{opc} 011 0 00 offset[20:2] {r}t", f"{name} {{t}}, {{pc+offset}}")
    def load(cpu: Core, t: Register, offset: Immediate) -> None:
        cpu.x[t] = fetch(cpu, cpu.pc + offset)


_literal("ldr", "00", "w", word)
_literal("ldr", "01", "x", double)
_literal("ldrsw", "10", "x", signed_word)


@isa.instruction("11 111 0 01 10 imm[14:3] xsn hint", "prfm {hint}, [{n}, #{imm}]")
@isa.instruction("11 111 0 00 10 0 simm[8:0] 00 xsn hint", "prfum {hint}, [{n}, #{imm}]")
def prfm(cpu: Core) -> None:
    pass


# Pairs ------------------------------------------------------------------------------------------------------


def _pair(opc: str, r: str, scale: int, load: str, fetch: Callable[[Core, u64], u64]) -> None:
    """A load of two registers; both are written after both were read."""
    size = 1 << scale
    bits, form = f"simm[{6 + scale}:{scale}] {r}u xsn {r}t", "{t}, {t2}, [{n}"

    def pair(cpu: Core, address: u64, t: Register, t2: Register) -> None:
        first = fetch(cpu, address)
        second = fetch(cpu, address + size)
        cpu.x[t] = first
        cpu.x[t2] = second

    def pair_back(cpu: Core, address: u64, back: u64, t: Register, t2: Register, n: Register) -> None:
        first = fetch(cpu, address)
        second = fetch(cpu, address + size)
        cpu.x[n] = back
        cpu.x[t] = first
        cpu.x[t2] = second

    @isa.instruction(f"{opc} 101 0 010 1 {bits}", f"{load} {form}, #{{imm}}]")
    def load_pair(cpu: Core, t: Register, t2: Register, n: Register, imm: Immediate) -> None:
        pair(cpu, cpu.x[n] + imm, t, t2)

    @isa.instruction(f"{opc} 101 0 001 1 {bits}", f"{load} {form}], #{{imm}}")
    def load_pair_post(cpu: Core, t: Register, t2: Register, n: Register, imm: Immediate) -> None:
        address = cpu.x[n]
        pair_back(cpu, address, address + imm, t, t2, n)

    @isa.instruction(f"{opc} 101 0 011 1 {bits}", f"{load} {form}, #{{imm}}]!")
    def load_pair_pre(cpu: Core, t: Register, t2: Register, n: Register, imm: Immediate) -> None:
        address = cpu.x[n] + imm
        pair_back(cpu, address, address, t, t2, n)

    if load == "ldp":
        isa.instruction(f"{opc} 101 0 000 1 {bits}", f"ldnp {form}, #{{imm}}]")(load_pair)


def _store_pair(opc: str, r: str, scale: int, put: Callable[[Core, u64, u64], None]) -> None:
    size = 1 << scale
    bits, form = f"simm[{6 + scale}:{scale}] {r}u xsn {r}t", "{t}, {t2}, [{n}"

    @isa.instruction(f"{opc} 101 0 000 0 {bits}", f"stnp {form}, #{{imm}}]")
    @isa.instruction(f"{opc} 101 0 010 0 {bits}", f"stp {form}, #{{imm}}]")
    def store_pair(cpu: Core, t: Register, t2: Register, n: Register, imm: Immediate) -> None:
        address = cpu.x[n] + imm
        put(cpu, address, cpu.x[t])
        put(cpu, address + size, cpu.x[t2])

    @isa.instruction(f"{opc} 101 0 001 0 {bits}", f"stp {form}], #{{imm}}")
    def store_pair_post(cpu: Core, t: Register, t2: Register, n: Register, imm: Immediate) -> None:
        address = cpu.x[n]
        put(cpu, address, cpu.x[t])
        put(cpu, address + size, cpu.x[t2])
        cpu.x[n] = address + imm

    @isa.instruction(f"{opc} 101 0 011 0 {bits}", f"stp {form}, #{{imm}}]!")
    def store_pair_pre(cpu: Core, t: Register, t2: Register, n: Register, imm: Immediate) -> None:
        address = cpu.x[n] + imm
        put(cpu, address, cpu.x[t])
        put(cpu, address + size, cpu.x[t2])
        cpu.x[n] = address


_pair("00", "w", 2, "ldp", word)
_pair("01", "x", 2, "ldpsw", signed_word)
_pair("10", "x", 3, "ldp", double)
_store_pair("00", "w", 2, put_word)
_store_pair("10", "x", 3, put_double)


# Exclusive and ordered --------------------------------------------------------------------------------------


@isa.instruction("10 001000 0 1 0 11111 0 11111 xsn wt", "ldxr {t}, [{n}]")
@isa.instruction("10 001000 0 1 0 11111 1 11111 xsn wt", "ldaxr {t}, [{n}]")
def ldxr_w(cpu: Core, t: Register, n: Register) -> None:
    address = cpu.x[n]
    cpu.require_aligned(address, 4)
    value = u64(cpu.load32(address))
    cpu.exclusive_address = address
    cpu.exclusive_value = value
    cpu.x[t] = value


@isa.instruction("11 001000 0 1 0 11111 0 11111 xsn xt", "ldxr {t}, [{n}]")
@isa.instruction("11 001000 0 1 0 11111 1 11111 xsn xt", "ldaxr {t}, [{n}]")
def ldxr_x(cpu: Core, t: Register, n: Register) -> None:
    address = cpu.x[n]
    cpu.require_aligned(address, 8)
    value = cpu.load64(address)
    cpu.exclusive_address = address
    cpu.exclusive_value = value
    cpu.x[t] = value


@isa.instruction("10 001000 0 0 0 ws 0 11111 xsn wt", "stxr {s}, {t}, [{n}]")
@isa.instruction("10 001000 0 0 0 ws 1 11111 xsn wt", "stlxr {s}, {t}, [{n}]")
def stxr_w(cpu: Core, s: Register, t: Register, n: Register) -> None:
    address = cpu.x[n]
    cpu.require_aligned(address, 4)
    stored = cpu.exclusive_address == address and cpu.compare_exchange(
        address, u32(cpu.exclusive_value), u32(cpu.x[t])
    )
    cpu.exclusive_address = u64(NO_RESERVATION)
    cpu.x[s] = u64(not stored)


@isa.instruction("11 001000 0 0 0 ws 0 11111 xsn xt", "stxr {s}, {t}, [{n}]")
@isa.instruction("11 001000 0 0 0 ws 1 11111 xsn xt", "stlxr {s}, {t}, [{n}]")
def stxr_x(cpu: Core, s: Register, t: Register, n: Register) -> None:
    address = cpu.x[n]
    cpu.require_aligned(address, 8)
    stored = cpu.exclusive_address == address and cpu.compare_exchange(address, cpu.exclusive_value, cpu.x[t])
    cpu.exclusive_address = u64(NO_RESERVATION)
    cpu.x[s] = u64(not stored)


def _ordered(size: int, suffix: str, r: str, fetch: Callable[[Core, u64], u64]) -> None:
    @isa.instruction(f"{size:02b} 001000 1 1 0 11111 1 11111 xsn {r}t", f"ldar{suffix} {{t}}, [{{n}}]")
    def load(cpu: Core, t: Register, n: Register) -> None:
        address = cpu.x[n]
        cpu.require_aligned(address, 1 << size)
        value = fetch(cpu, address)
        cpu.fence()
        cpu.x[t] = value


def _ordered_store(size: int, suffix: str, r: str, put: Callable[[Core, u64, u64], None]) -> None:
    @isa.instruction(f"{size:02b} 001000 1 0 0 11111 1 11111 xsn {r}t", f"stlr{suffix} {{t}}, [{{n}}]")
    def store(cpu: Core, t: Register, n: Register) -> None:
        address = cpu.x[n]
        cpu.require_aligned(address, 1 << size)
        cpu.fence()
        put(cpu, address, cpu.x[t])
        cpu.fence()


_ordered(0, "b", "w", byte)
_ordered(1, "h", "w", half)
_ordered(2, "", "w", word)
_ordered(3, "", "x", double)
_ordered_store(0, "b", "w", put_byte)
_ordered_store(1, "h", "w", put_half)
_ordered_store(2, "", "w", put_word)
_ordered_store(3, "", "x", put_double)
