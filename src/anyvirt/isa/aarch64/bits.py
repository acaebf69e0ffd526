"""Constants and addresses, bit fields, shifts by registers, reversal and counting."""

# Pattern and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103, TC001

from __future__ import annotations

from anyvirt.isa.aarch64.core import WIDTHS, Core, Width, isa
from anyvirt.isa.processor import Immediate, Register, Small
from anyvirt.typed import byte_swap, count_leading_zeros, rotate_right, s64, u8, u32, u64

isa.extension("bits", "Constants, bit fields and shifts")


@isa.instruction("0 offset[1:0] 10000 offset[20:2] xd", "adr {d}, {pc+offset}")
def adr(cpu: Core, d: Register, offset: Immediate) -> None:
    cpu.x[d] = cpu.pc + offset


@isa.instruction("1 offset[1:0] 10000 offset[20:2] xd", "adrp {d}, {offset}")
def adrp(cpu: Core, d: Register, offset: Immediate) -> None:
    # The offset counts pages of 4 KiB.
    cpu.x[d] = (cpu.pc & ~0xFFF) + (offset << 12)


def _constants(width: Width) -> None:
    """MOVN, MOVZ and MOVK."""
    sf, r, mask = width.sf, width.r, width.mask
    place = "0 hw[0]" if sf == "0" else "hw[1:0]"

    @isa.instruction(f"{sf} 00 100101 {place} imm[15:0] {r}d", "movn {d}, #{imm}, lsl #{hw}")
    def movn(cpu: Core, d: Register, imm: Immediate, hw: Small) -> None:
        cpu.x[d] = ~(imm << hw * 16) & mask

    @isa.instruction(f"{sf} 10 100101 {place} imm[15:0] {r}d", "movz {d}, #{imm}, lsl #{hw}")
    def movz(cpu: Core, d: Register, imm: Immediate, hw: Small) -> None:
        cpu.x[d] = imm << hw * 16

    @isa.instruction(f"{sf} 11 100101 {place} imm[15:0] {r}d", "movk {d}, #{imm}, lsl #{hw}")
    def movk(cpu: Core, d: Register, imm: Immediate, hw: Small) -> None:
        cpu.x[d] = (cpu.x[d] & ~(u64(0xFFFF) << hw * 16) | imm << hw * 16) & mask


def _fields(width: Width) -> None:
    """SBFM, BFM, UBFM and EXTR: a run of bits moved down (imms >= immr) or up."""
    sf, r, mask, top = width.sf, width.r, width.mask, width.top
    numbers = "0 0 immr[4:0] 0 imms[4:0]" if sf == "0" else "1 immr[5:0] imms[5:0]"
    form = "{d}, {n}, #{immr}, #{imms}"

    def moved(value: u64, immr: u8, imms: u8) -> u64:
        """The run of bits `imms:0` or `imms:immr`, the rest 0, at its new place."""
        if imms >= immr:
            return (value & (u64(2) << imms) - 1) >> immr
        return (value & (u64(2) << imms) - 1) << u8(top + 1) - immr

    def highest(immr: u8, imms: u8) -> u8:
        """Where the most significant bit of the run comes to lie."""
        if imms >= immr:
            return imms - immr
        return u8(top + 1) - immr + imms

    @isa.instruction(f"{sf} 00 100110 {numbers} {r}n {r}d", f"sbfm {form}")
    def sbfm(cpu: Core, d: Register, n: Register, immr: Small, imms: Small) -> None:
        distance = u8(63) - highest(immr, imms)
        value = moved(cpu.x[n], immr, imms) << distance
        cpu.x[d] = u64(s64(value) >> distance) & mask

    @isa.instruction(f"{sf} 01 100110 {numbers} {r}n {r}d", f"bfm {form}")
    def bfm(cpu: Core, d: Register, n: Register, immr: Small, imms: Small) -> None:
        kept = ~moved(u64(mask), immr, imms)
        cpu.x[d] = (cpu.x[d] & kept | moved(cpu.x[n], immr, imms)) & mask

    @isa.instruction(f"{sf} 10 100110 {numbers} {r}n {r}d", f"ubfm {form}")
    def ubfm(cpu: Core, d: Register, n: Register, immr: Small, imms: Small) -> None:
        cpu.x[d] = moved(cpu.x[n], immr, imms) & mask


def _extraction(width: Width) -> None:
    """EXTR: bits from the middle of two registers."""
    sf, r, mask, top = width.sf, width.r, width.mask, width.top
    n = "0" if sf == "0" else "1"

    @isa.instruction(f"{sf} 00 100111 {n} 0 {r}m {width.amount} {r}n {r}d", "extr {d}, {n}, {m}, #{amount}")
    def extr(cpu: Core, d: Register, n: Register, m: Register, amount: Small) -> None:
        low = (cpu.x[m] & mask) >> amount
        # In two steps, for an amount of 0.
        cpu.x[d] = (low | cpu.x[n] << 1 << u8(top) - amount) & mask


def _shifts(width: Width, name: str, code: str, shift: int) -> None:
    """A shift by a register, modulo the width."""
    sf, r, top, shifted = width.sf, width.r, width.top, width.shifted

    @isa.instruction(f"{sf} 0 0 11010110 {r}m 0010 {code} {r}n {r}d", f"{name} {{d}}, {{n}}, {{m}}")
    def by_register(cpu: Core, d: Register, n: Register, m: Register) -> None:
        cpu.x[d] = shifted(cpu.x[n], u8(shift), u8(cpu.x[m]) & top)


for _width in WIDTHS:
    _constants(_width)
    _fields(_width)
    _extraction(_width)
    for _code, _name in enumerate(("lsl", "lsr", "asr", "ror")):
        _shifts(_width, _name, f"{_code:02b}", _code)


# Reversal and counting --------------------------------------------------------------------------------------


def reversed_bits(value: u64) -> u64:
    swapped = (value >> 1 & 0x5555555555555555) | (value & 0x5555555555555555) << 1
    swapped = (swapped >> 2 & 0x3333333333333333) | (swapped & 0x3333333333333333) << 2
    swapped = (swapped >> 4 & 0x0F0F0F0F0F0F0F0F) | (swapped & 0x0F0F0F0F0F0F0F0F) << 4
    return byte_swap(swapped)


@isa.instruction("0 1 0 11010110 00000 000000 wn wd", "rbit {d}, {n}")
def rbit_w(cpu: Core, d: Register, n: Register) -> None:
    cpu.x[d] = reversed_bits(cpu.x[n]) >> 32


@isa.instruction("1 1 0 11010110 00000 000000 xn xd", "rbit {d}, {n}")
def rbit_x(cpu: Core, d: Register, n: Register) -> None:
    cpu.x[d] = reversed_bits(cpu.x[n])


def reversed_halves(value: u64) -> u64:
    return (value >> 8 & 0x00FF00FF00FF00FF) | (value & 0x00FF00FF00FF00FF) << 8


@isa.instruction("0 1 0 11010110 00000 000001 wn wd", "rev16 {d}, {n}")
def rev16_w(cpu: Core, d: Register, n: Register) -> None:
    cpu.x[d] = reversed_halves(cpu.x[n]) & 0xFFFFFFFF


@isa.instruction("1 1 0 11010110 00000 000001 xn xd", "rev16 {d}, {n}")
def rev16_x(cpu: Core, d: Register, n: Register) -> None:
    cpu.x[d] = reversed_halves(cpu.x[n])


@isa.instruction("0 1 0 11010110 00000 000010 wn wd", "rev {d}, {n}")
def rev_w(cpu: Core, d: Register, n: Register) -> None:
    cpu.x[d] = u64(byte_swap(u32(cpu.x[n])))


@isa.instruction("1 1 0 11010110 00000 000010 xn xd", "rev32 {d}, {n}")
def rev32_x(cpu: Core, d: Register, n: Register) -> None:
    cpu.x[d] = rotate_right(byte_swap(cpu.x[n]), u64(32))


@isa.instruction("1 1 0 11010110 00000 000011 xn xd", "rev {d}, {n}")
def rev_x(cpu: Core, d: Register, n: Register) -> None:
    cpu.x[d] = byte_swap(cpu.x[n])


@isa.instruction("0 1 0 11010110 00000 000100 wn wd", "clz {d}, {n}")
def clz_w(cpu: Core, d: Register, n: Register) -> None:
    cpu.x[d] = u64(count_leading_zeros(u32(cpu.x[n])))


@isa.instruction("1 1 0 11010110 00000 000100 xn xd", "clz {d}, {n}")
def clz_x(cpu: Core, d: Register, n: Register) -> None:
    cpu.x[d] = count_leading_zeros(cpu.x[n])


@isa.instruction("0 1 0 11010110 00000 000101 wn wd", "cls {d}, {n}")
def cls_w(cpu: Core, d: Register, n: Register) -> None:
    value = u32(cpu.x[n])
    cpu.x[d] = u64(count_leading_zeros((value ^ value << 1) | 1))


@isa.instruction("1 1 0 11010110 00000 000101 xn xd", "cls {d}, {n}")
def cls_x(cpu: Core, d: Register, n: Register) -> None:
    value = cpu.x[n]
    cpu.x[d] = count_leading_zeros((value ^ value << 1) | 1)
