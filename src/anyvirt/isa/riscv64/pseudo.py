"""Pseudo-instructions of RISC-V. Appendix "RISC-V Assembly Programmer's Handbook"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.isa.riscv64.hart import rv

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyvirt.isa.pseudo import Values

for _form, _line in {
    "nop": "addi zero, zero, 0",
    "mv {rd}, {rs}": "addi {rd}, {rs}, 0",
    "not {rd}, {rs}": "xori {rd}, {rs}, -1",
    "neg {rd}, {rs}": "sub {rd}, zero, {rs}",
    "negw {rd}, {rs}": "subw {rd}, zero, {rs}",
    "sext.w {rd}, {rs}": "addiw {rd}, {rs}, 0",
    "zext.b {rd}, {rs}": "andi {rd}, {rs}, 255",
    "zext.w {rd}, {rs}": "add.uw {rd}, {rs}, zero",
    "seqz {rd}, {rs}": "sltiu {rd}, {rs}, 1",
    "snez {rd}, {rs}": "sltu {rd}, zero, {rs}",
    "sltz {rd}, {rs}": "slt {rd}, {rs}, zero",
    "sgtz {rd}, {rs}": "slt {rd}, zero, {rs}",
    "beqz {rs}, {target}": "beq {rs}, zero, {target}",
    "bnez {rs}, {target}": "bne {rs}, zero, {target}",
    "blez {rs}, {target}": "bge zero, {rs}, {target}",
    "bgez {rs}, {target}": "bge {rs}, zero, {target}",
    "bltz {rs}, {target}": "blt {rs}, zero, {target}",
    "bgtz {rs}, {target}": "blt zero, {rs}, {target}",
    "bgt {rs}, {rt}, {target}": "blt {rt}, {rs}, {target}",
    "ble {rs}, {rt}, {target}": "bge {rt}, {rs}, {target}",
    "bgtu {rs}, {rt}, {target}": "bltu {rt}, {rs}, {target}",
    "bleu {rs}, {rt}, {target}": "bgeu {rt}, {rs}, {target}",
    "j {target}": "jal zero, {target}",
    "jal {target}": "jal ra, {target}",
    "jr {rs}": "jalr zero, 0({rs})",
    "jalr {rs}": "jalr ra, 0({rs})",
    "ret": "jalr zero, 0(ra)",
    "fence": "fence iorw, iorw",
    "fmv.s {rd}, {rs}": "fsgnj.s {rd}, {rs}, {rs}",
    "fabs.s {rd}, {rs}": "fsgnjx.s {rd}, {rs}, {rs}",
    "fneg.s {rd}, {rs}": "fsgnjn.s {rd}, {rs}, {rs}",
    "fmv.d {rd}, {rs}": "fsgnj.d {rd}, {rs}, {rs}",
    "fabs.d {rd}, {rs}": "fsgnjx.d {rd}, {rs}, {rs}",
    "fneg.d {rd}, {rs}": "fsgnjn.d {rd}, {rs}, {rs}",
    "csrr {rd}, {csr}": "csrrs {rd}, {csr}, zero",
    "csrw {csr}, {rs}": "csrrw zero, {csr}, {rs}",
    "csrwi {csr}, {value}": "csrrwi zero, {csr}, {value}",
    "frcsr {rd}": "csrrs {rd}, fcsr, zero",
    "fscsr {rs}": "csrrw zero, fcsr, {rs}",
    "rdcycle {rd}": "csrrs {rd}, cycle, zero",
    "rdtime {rd}": "csrrs {rd}, time, zero",
    "rdinstret {rd}": "csrrs {rd}, instret, zero",
}.items():
    rv.pseudo_instruction(_form, _line)


def split(value: int) -> tuple[int, int]:
    """The upper 20 bits and the signed lower 12 whose sum is a value, modulo 2**32."""
    low = (value + 0x800) % 0x1000 - 0x800
    return (value - low) >> 12 & 0xFFFFF, low


def relative(*lines: str) -> None:
    """Declare what begins with `auipc`: `{high}` and `{low}` are the distance from there."""
    form, *expansion = lines

    def expand(operands: Mapping[str, str], values: Values) -> list[str]:
        high, low = split(values(operands["target"]) - values.pc)
        return [line.format(**operands, high=high, low=low) for line in expansion]

    rv.pseudo_instruction(form, expand=expand)


relative("la {rd}, {target}", "auipc {rd}, {high}", "addi {rd}, {rd}, {low}")
relative("call {target}", "auipc ra, {high}", "jalr ra, {low}(ra)")
relative("tail {target}", "auipc t1, {high}", "jalr zero, {low}(t1)")


def constant(rd: str, value: int) -> list[str]:
    """Instructions that put a signed constant of 64 bits into a register."""
    high, low = split(value)
    if -0x800 <= value < 0x800:
        return [f"addi {rd}, zero, {value}"]
    if -(1 << 31) <= value < 1 << 31:
        return [f"lui {rd}, {high}", *([f"addiw {rd}, {rd}, {low}"] if low else [])]
    rest = (value - low) >> 12
    zeros = (rest & -rest).bit_length() - 1
    # What is above bit 63 falls out of the shift.
    upper = _wrapped(rest, 52) >> zeros
    shifted = [*constant(rd, upper), f"slli {rd}, {rd}, {12 + zeros}"]
    return [*shifted, *([f"addi {rd}, {rd}, {low}"] if low else [])]


def _wrapped(value: int, bits: int) -> int:
    half = 1 << bits - 1
    return (value + half) % (1 << bits) - half


rv.pseudo_instruction(
    "li {rd}, {value}",
    expand=lambda operands, values: constant(operands["rd"], _wrapped(values(operands["value"]), 64)),
)
