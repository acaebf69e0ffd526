"""Addition, logic, multiplication, division and conditional selection, with results and flags."""

# Pattern and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103, TC001

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.isa.aarch64.core import WIDTHS, Core, Width, extended, holds, isa
from anyvirt.isa.processor import Immediate, Register, Small
from anyvirt.typed import s32, s64, s128, u8, u32, u64, u128

if TYPE_CHECKING:
    from collections.abc import Callable

isa.extension("integer", "Arithmetic, logic and conditional selection")


def set_flags(cpu: Core, a: u64, b: u64, total: u64, top: u8) -> None:
    """The flags of `total = a + b + carry`, all of `top + 1` bits ("AddWithCarry")."""
    cpu.n = total >> top
    cpu.z = u64(total == 0)
    cpu.c = (a & b | (a | b) & ~total) >> top & 1
    cpu.v = ((a ^ total) & (b ^ total)) >> top & 1


def _immediate_additions(width: Width) -> None:
    """ADD, SUB and their flag-setting forms with an immediate."""
    sf, r, mask, top = width.sf, width.r, width.mask, width.top

    @isa.instruction(f"{sf} 00 100010 0 imm[11:0] {r}sn {r}sd", "add {d}, {n}, #{imm}")
    @isa.instruction(f"{sf} 00 100010 1 high[23:12] {r}sn {r}sd", "add {d}, {n}, #{imm}")
    def add_immediate(cpu: Core, d: Register, n: Register, imm: Immediate) -> None:
        cpu.x[d] = cpu.x[n] + imm & mask

    @isa.instruction(f"{sf} 10 100010 0 imm[11:0] {r}sn {r}sd", "sub {d}, {n}, #{imm}")
    @isa.instruction(f"{sf} 10 100010 1 high[23:12] {r}sn {r}sd", "sub {d}, {n}, #{imm}")
    def sub_immediate(cpu: Core, d: Register, n: Register, imm: Immediate) -> None:
        cpu.x[d] = cpu.x[n] - imm & mask

    @isa.instruction(f"{sf} 01 100010 0 imm[11:0] {r}sn {r}d", "adds {d}, {n}, #{imm}")
    @isa.instruction(f"{sf} 01 100010 1 high[23:12] {r}sn {r}d", "adds {d}, {n}, #{imm}")
    def adds_immediate(cpu: Core, d: Register, n: Register, imm: Immediate) -> None:
        a = cpu.x[n] & mask
        total = a + imm & mask
        set_flags(cpu, a, imm, total, u8(top))
        cpu.x[d] = total

    @isa.instruction(f"{sf} 11 100010 0 imm[11:0] {r}sn {r}d", "subs {d}, {n}, #{imm}")
    @isa.instruction(f"{sf} 11 100010 1 high[23:12] {r}sn {r}d", "subs {d}, {n}, #{imm}")
    def subs_immediate(cpu: Core, d: Register, n: Register, imm: Immediate) -> None:
        a, b = cpu.x[n] & mask, ~imm & mask
        total = a + b + 1 & mask
        set_flags(cpu, a, b, total, u8(top))
        cpu.x[d] = total


def _plain_additions(width: Width) -> None:
    """The same with a register, not shifted: the most common form by far."""
    sf, r, mask, top = width.sf, width.r, width.mask, width.top
    plain = f"00 0 {r}m 000000 {r}n {r}d"

    @isa.instruction(f"{sf} 00 01011 {plain}", "add {d}, {n}, {m}")
    def add(cpu: Core, d: Register, n: Register, m: Register) -> None:
        cpu.x[d] = cpu.x[n] + cpu.x[m] & mask

    @isa.instruction(f"{sf} 10 01011 {plain}", "sub {d}, {n}, {m}")
    def sub(cpu: Core, d: Register, n: Register, m: Register) -> None:
        cpu.x[d] = cpu.x[n] - cpu.x[m] & mask

    @isa.instruction(f"{sf} 01 01011 {plain}", "adds {d}, {n}, {m}")
    def adds(cpu: Core, d: Register, n: Register, m: Register) -> None:
        a, b = cpu.x[n] & mask, cpu.x[m] & mask
        total = a + b & mask
        set_flags(cpu, a, b, total, u8(top))
        cpu.x[d] = total

    @isa.instruction(f"{sf} 11 01011 {plain}", "subs {d}, {n}, {m}")
    def subs(cpu: Core, d: Register, n: Register, m: Register) -> None:
        a, b = cpu.x[n] & mask, ~cpu.x[m] & mask
        total = a + b + 1 & mask
        set_flags(cpu, a, b, total, u8(top))
        cpu.x[d] = total


def _shifted_additions(width: Width) -> None:
    """The same with a shifted register."""
    sf, r, mask, top, shifted = width.sf, width.r, width.mask, width.top, width.shifted
    moved = f"shift 0 {r}m {width.amount} {r}n {r}d"
    no_ror = {"shift": (3,)}

    @isa.instruction(f"{sf} 00 01011 {moved}", "add {d}, {n}, {m}, {shift} #{amount}", excluding=no_ror)
    def add_shifted(cpu: Core, d: Register, n: Register, m: Register, shift: Small, amount: Small) -> None:
        cpu.x[d] = cpu.x[n] + shifted(cpu.x[m], shift, amount) & mask

    @isa.instruction(f"{sf} 10 01011 {moved}", "sub {d}, {n}, {m}, {shift} #{amount}", excluding=no_ror)
    def sub_shifted(cpu: Core, d: Register, n: Register, m: Register, shift: Small, amount: Small) -> None:
        cpu.x[d] = cpu.x[n] - shifted(cpu.x[m], shift, amount) & mask

    @isa.instruction(f"{sf} 01 01011 {moved}", "adds {d}, {n}, {m}, {shift} #{amount}", excluding=no_ror)
    def adds_shifted(cpu: Core, d: Register, n: Register, m: Register, shift: Small, amount: Small) -> None:
        a, b = cpu.x[n] & mask, shifted(cpu.x[m], shift, amount)
        total = a + b & mask
        set_flags(cpu, a, b, total, u8(top))
        cpu.x[d] = total

    @isa.instruction(f"{sf} 11 01011 {moved}", "subs {d}, {n}, {m}, {shift} #{amount}", excluding=no_ror)
    def subs_shifted(cpu: Core, d: Register, n: Register, m: Register, shift: Small, amount: Small) -> None:
        a, b = cpu.x[n] & mask, ~shifted(cpu.x[m], shift, amount) & mask
        total = a + b + 1 & mask
        set_flags(cpu, a, b, total, u8(top))
        cpu.x[d] = total


def _extended_additions(width: Width) -> None:
    """The same with an extended register."""
    sf, r, mask, top = width.sf, width.r, width.mask, width.top
    other = f"01011 00 1 {r}m option amount[2:0] {r}sn"
    form = "{d}, {n}, {m}, {option} #{amount}"
    small = {"amount": (5, 6, 7)}

    @isa.instruction(f"{sf} 00 {other} {r}sd", f"add {form}", excluding=small)
    def add_extended(cpu: Core, d: Register, n: Register, m: Register, option: Small, amount: Small) -> None:
        cpu.x[d] = cpu.x[n] + (extended(cpu.x[m], option) << amount) & mask

    @isa.instruction(f"{sf} 10 {other} {r}sd", f"sub {form}", excluding=small)
    def sub_extended(cpu: Core, d: Register, n: Register, m: Register, option: Small, amount: Small) -> None:
        cpu.x[d] = cpu.x[n] - (extended(cpu.x[m], option) << amount) & mask

    @isa.instruction(f"{sf} 01 {other} {r}d", f"adds {form}", excluding=small)
    def adds_extended(cpu: Core, d: Register, n: Register, m: Register, option: Small, amount: Small) -> None:
        a, b = cpu.x[n] & mask, extended(cpu.x[m], option) << amount & mask
        total = a + b & mask
        set_flags(cpu, a, b, total, u8(top))
        cpu.x[d] = total

    @isa.instruction(f"{sf} 11 {other} {r}d", f"subs {form}", excluding=small)
    def subs_extended(cpu: Core, d: Register, n: Register, m: Register, option: Small, amount: Small) -> None:
        a, b = cpu.x[n] & mask, ~(extended(cpu.x[m], option) << amount) & mask
        total = a + b + 1 & mask
        set_flags(cpu, a, b, total, u8(top))
        cpu.x[d] = total


def _carries(width: Width) -> None:
    """ADC, SBC and their flag-setting forms."""
    sf, r, mask, top = width.sf, width.r, width.mask, width.top

    @isa.instruction(f"{sf} 00 11010000 {r}m 000000 {r}n {r}d", "adc {d}, {n}, {m}")
    def adc(cpu: Core, d: Register, n: Register, m: Register) -> None:
        cpu.x[d] = cpu.x[n] + cpu.x[m] + cpu.c & mask

    @isa.instruction(f"{sf} 01 11010000 {r}m 000000 {r}n {r}d", "adcs {d}, {n}, {m}")
    def adcs(cpu: Core, d: Register, n: Register, m: Register) -> None:
        a, b = cpu.x[n] & mask, cpu.x[m] & mask
        total = a + b + cpu.c & mask
        set_flags(cpu, a, b, total, u8(top))
        cpu.x[d] = total

    @isa.instruction(f"{sf} 10 11010000 {r}m 000000 {r}n {r}d", "sbc {d}, {n}, {m}")
    def sbc(cpu: Core, d: Register, n: Register, m: Register) -> None:
        cpu.x[d] = cpu.x[n] + ~cpu.x[m] + cpu.c & mask

    @isa.instruction(f"{sf} 11 11010000 {r}m 000000 {r}n {r}d", "sbcs {d}, {n}, {m}")
    def sbcs(cpu: Core, d: Register, n: Register, m: Register) -> None:
        a, b = cpu.x[n] & mask, ~cpu.x[m] & mask
        total = a + b + cpu.c & mask
        set_flags(cpu, a, b, total, u8(top))
        cpu.x[d] = total


def conjunction(a: u64, b: u64) -> u64:
    return a & b


def disjunction(a: u64, b: u64) -> u64:
    return a | b


def exclusion(a: u64, b: u64) -> u64:
    return a ^ b


def _logic(width: Width, names: tuple[str, str], opc: str, combine: Callable[[u64, u64], u64]) -> None:
    """One logical operation, with an immediate, a shifted register, and the complement of one."""
    sf, r, mask, top, shifted = width.sf, width.r, width.mask, width.top, width.shifted
    name, inverted = names
    flags = opc == "11"
    bits = "xbitmask" if sf == "1" else "0 wbitmask[11:0]"
    target = f"{r}d" if flags else f"{r}sd"

    @isa.instruction(f"{sf} {opc} 100100 {bits} {r}n {target}", f"{name} {{d}}, {{n}}, #{{imm}}")
    def immediate(cpu: Core, d: Register, n: Register, imm: Immediate) -> None:
        value = combine(cpu.x[n], imm) & mask
        if flags:
            set_logical_flags(cpu, value, u8(top))
        cpu.x[d] = value

    @isa.instruction(f"{sf} {opc} 01010 00 0 {r}m 000000 {r}n {r}d", f"{name} {{d}}, {{n}}, {{m}}")
    def plain(cpu: Core, d: Register, n: Register, m: Register) -> None:
        value = combine(cpu.x[n], cpu.x[m]) & mask
        if flags:
            set_logical_flags(cpu, value, u8(top))
        cpu.x[d] = value

    form = "{d}, {n}, {m}, {shift} #{amount}"

    @isa.instruction(f"{sf} {opc} 01010 shift 0 {r}m {width.amount} {r}n {r}d", f"{name} {form}")
    def moved(cpu: Core, d: Register, n: Register, m: Register, shift: Small, amount: Small) -> None:
        value = combine(cpu.x[n], shifted(cpu.x[m], shift, amount)) & mask
        if flags:
            set_logical_flags(cpu, value, u8(top))
        cpu.x[d] = value

    @isa.instruction(f"{sf} {opc} 01010 shift 1 {r}m {width.amount} {r}n {r}d", f"{inverted} {form}")
    def complement(cpu: Core, d: Register, n: Register, m: Register, shift: Small, amount: Small) -> None:
        value = combine(cpu.x[n], ~shifted(cpu.x[m], shift, amount)) & mask
        if flags:
            set_logical_flags(cpu, value, u8(top))
        cpu.x[d] = value


def set_logical_flags(cpu: Core, value: u64, top: u8) -> None:
    cpu.n = value >> top
    cpu.z = u64(value == 0)
    cpu.c = u64(0)
    cpu.v = u64(0)


def _selections(width: Width) -> None:
    """CSEL and its relatives, conditional comparison."""
    sf, r, mask, top = width.sf, width.r, width.mask, width.top
    fields, form = f"{r}m cond", "{d}, {n}, {m}, {cond}"

    @isa.instruction(f"{sf} 0 0 11010100 {fields} 00 {r}n {r}d", f"csel {form}")
    def csel(cpu: Core, d: Register, n: Register, m: Register, cond: Small) -> None:
        cpu.x[d] = (cpu.x[n] if holds(cpu, cond) else cpu.x[m]) & mask

    @isa.instruction(f"{sf} 0 0 11010100 {fields} 01 {r}n {r}d", f"csinc {form}")
    def csinc(cpu: Core, d: Register, n: Register, m: Register, cond: Small) -> None:
        cpu.x[d] = (cpu.x[n] if holds(cpu, cond) else cpu.x[m] + 1) & mask

    @isa.instruction(f"{sf} 1 0 11010100 {fields} 00 {r}n {r}d", f"csinv {form}")
    def csinv(cpu: Core, d: Register, n: Register, m: Register, cond: Small) -> None:
        cpu.x[d] = (cpu.x[n] if holds(cpu, cond) else ~cpu.x[m]) & mask

    @isa.instruction(f"{sf} 1 0 11010100 {fields} 01 {r}n {r}d", f"csneg {form}")
    def csneg(cpu: Core, d: Register, n: Register, m: Register, cond: Small) -> None:
        cpu.x[d] = (cpu.x[n] if holds(cpu, cond) else -cpu.x[m]) & mask

    @isa.instruction(f"{sf} 0 1 11010010 {r}m cond 0 0 {r}n 0 flags", "ccmn {n}, {m}, #{flags}, {cond}")
    def ccmn(cpu: Core, n: Register, m: Register, cond: Small, flags: Small) -> None:
        compare(cpu, cpu.x[n] & mask, cpu.x[m] & mask, u64(0), cond, flags)

    @isa.instruction(f"{sf} 1 1 11010010 {r}m cond 0 0 {r}n 0 flags", "ccmp {n}, {m}, #{flags}, {cond}")
    def ccmp(cpu: Core, n: Register, m: Register, cond: Small, flags: Small) -> None:
        compare(cpu, cpu.x[n] & mask, ~cpu.x[m] & mask, u64(1), cond, flags)

    @isa.instruction(
        f"{sf} 0 1 11010010 imm[4:0] cond 1 0 {r}n 0 flags", "ccmn {n}, #{imm}, #{flags}, {cond}"
    )
    def ccmn_immediate(cpu: Core, n: Register, imm: Immediate, cond: Small, flags: Small) -> None:
        compare(cpu, cpu.x[n] & mask, imm, u64(0), cond, flags)

    @isa.instruction(
        f"{sf} 1 1 11010010 imm[4:0] cond 1 0 {r}n 0 flags", "ccmp {n}, #{imm}, #{flags}, {cond}"
    )
    def ccmp_immediate(cpu: Core, n: Register, imm: Immediate, cond: Small, flags: Small) -> None:
        compare(cpu, cpu.x[n] & mask, ~imm & mask, u64(1), cond, flags)

    def compare(cpu: Core, a: u64, b: u64, carry: u64, cond: u8, flags: u8) -> None:
        if holds(cpu, cond):
            set_flags(cpu, a, b, a + b + carry & mask, u8(top))
        else:
            cpu.n = u64(flags >> 3 & 1)
            cpu.z = u64(flags >> 2 & 1)
            cpu.c = u64(flags >> 1 & 1)
            cpu.v = u64(flags & 1)


def _products(width: Width) -> None:
    """Multiplication and division."""
    sf, r, mask = width.sf, width.r, width.mask

    @isa.instruction(f"{sf} 00 11011 000 {r}m 0 {r}a {r}n {r}d", "madd {d}, {n}, {m}, {a}")
    def madd(cpu: Core, d: Register, n: Register, m: Register, a: Register) -> None:
        cpu.x[d] = cpu.x[a] + cpu.x[n] * cpu.x[m] & mask

    @isa.instruction(f"{sf} 00 11011 000 {r}m 1 {r}a {r}n {r}d", "msub {d}, {n}, {m}, {a}")
    def msub(cpu: Core, d: Register, n: Register, m: Register, a: Register) -> None:
        cpu.x[d] = cpu.x[a] - cpu.x[n] * cpu.x[m] & mask


for _width in WIDTHS:
    _immediate_additions(_width)
    _plain_additions(_width)
    _shifted_additions(_width)
    _extended_additions(_width)
    _carries(_width)
    _logic(_width, ("and", "bic"), "00", conjunction)
    _logic(_width, ("orr", "orn"), "01", disjunction)
    _logic(_width, ("eor", "eon"), "10", exclusion)
    _logic(_width, ("ands", "bics"), "11", conjunction)
    _selections(_width)
    _products(_width)


# Division: by zero it gives zero ----------------------------------------------------------------------------


@isa.instruction("0 0 0 11010110 wm 000010 wn wd", "udiv {d}, {n}, {m}")
def udiv_w(cpu: Core, d: Register, n: Register, m: Register) -> None:
    divisor = u32(cpu.x[m])
    cpu.x[d] = u64(u32(cpu.x[n]) // divisor) if divisor != 0 else u64(0)


@isa.instruction("1 0 0 11010110 xm 000010 xn xd", "udiv {d}, {n}, {m}")
def udiv_x(cpu: Core, d: Register, n: Register, m: Register) -> None:
    divisor = cpu.x[m]
    cpu.x[d] = cpu.x[n] // divisor if divisor != 0 else u64(0)


@isa.instruction("0 0 0 11010110 wm 000011 wn wd", "sdiv {d}, {n}, {m}")
def sdiv_w(cpu: Core, d: Register, n: Register, m: Register) -> None:
    divisor = s32(cpu.x[m])
    cpu.x[d] = u64(u32(s32(cpu.x[n]) // divisor)) if divisor != 0 else u64(0)


@isa.instruction("1 0 0 11010110 xm 000011 xn xd", "sdiv {d}, {n}, {m}")
def sdiv_x(cpu: Core, d: Register, n: Register, m: Register) -> None:
    divisor = s64(cpu.x[m])
    cpu.x[d] = u64(s64(cpu.x[n]) // divisor) if divisor != 0 else u64(0)


# Long products ----------------------------------------------------------------------------------------------


@isa.instruction("1 00 11011 001 wm 0 xa wn xd", "smaddl {d}, {n}, {m}, {a}")
def smaddl(cpu: Core, d: Register, n: Register, m: Register, a: Register) -> None:
    cpu.x[d] = cpu.x[a] + u64(s32(cpu.x[n])) * u64(s32(cpu.x[m]))


@isa.instruction("1 00 11011 001 wm 1 xa wn xd", "smsubl {d}, {n}, {m}, {a}")
def smsubl(cpu: Core, d: Register, n: Register, m: Register, a: Register) -> None:
    cpu.x[d] = cpu.x[a] - u64(s32(cpu.x[n])) * u64(s32(cpu.x[m]))


@isa.instruction("1 00 11011 101 wm 0 xa wn xd", "umaddl {d}, {n}, {m}, {a}")
def umaddl(cpu: Core, d: Register, n: Register, m: Register, a: Register) -> None:
    cpu.x[d] = cpu.x[a] + u64(u32(cpu.x[n])) * u64(u32(cpu.x[m]))


@isa.instruction("1 00 11011 101 wm 1 xa wn xd", "umsubl {d}, {n}, {m}, {a}")
def umsubl(cpu: Core, d: Register, n: Register, m: Register, a: Register) -> None:
    cpu.x[d] = cpu.x[a] - u64(u32(cpu.x[n])) * u64(u32(cpu.x[m]))


@isa.instruction("1 00 11011 010 xm 0 ----- xn xd", "smulh {d}, {n}, {m}")
def smulh(cpu: Core, d: Register, n: Register, m: Register) -> None:
    cpu.x[d] = u64(s128(s64(cpu.x[n])) * s128(s64(cpu.x[m])) >> 64)


@isa.instruction("1 00 11011 110 xm 0 ----- xn xd", "umulh {d}, {n}, {m}")
def umulh(cpu: Core, d: Register, n: Register, m: Register) -> None:
    cpu.x[d] = u64(u128(cpu.x[n]) * u128(cpu.x[m]) >> 64)
