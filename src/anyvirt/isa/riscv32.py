"""RISC-V with 32-bit registers: RV32GC with Zba, Zbb, Zbs and Zicond, in user mode.

Derived from `riscv64`. Registers hold 32 bits; semantics read them sign-extended to 64 bits and write their
low half. That makes most of RV64 right as it stands (a sign-extended comparison, even an unsigned one, has
the order of the words) and the `w` forms of RV64 right for what looks at the upper end of a register.
"""

# Pattern and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103, TC001

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from anyvirt.isa.processor import Register
from anyvirt.isa.riscv64 import bits, control, floating, integer, multiply, pseudo, riscv64, words
from anyvirt.isa.riscv64.hart import CYCLE, INSTRET, TIME, Hart
from anyvirt.typed import byte_swap, u32, u64

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyvirt.isa.pseudo import Values

rv = riscv64.derive(
    "riscv32",
    "RISC-V RV32GC",
    address_bits=32,
    keep=lambda pattern: not pattern.extension.startswith("RV64"),
)
_x = riscv64.register_files["x"]
rv.registers("x", _x.names, zero=_x.zero, width=32, aliases=_x.aliases)
rv.number_field("shamt", 5)
rv.extension("RV32C", "compressed instructions that only RV32 has")

compressed = partial(rv.instruction, extension="RV32C")
for _number, _name in ((CYCLE, "cycle"), (TIME, "time"), (INSTRET, "instret")):
    rv.control_register(_number + control.HIGH, f"{_name}h", f"bits 63 to 32 of {_name}")

# Zicsr, shifts and compressed instructions ------------------------------------------------------------------

control.describe(rv, halves=True)

rv.begin("I")
rv.instruction("0000000 shamt rs1 001 rd 0010011", "slli {rd}, {rs1}, {shamt}")(integer.slli)
rv.instruction("0000000 shamt rs1 101 rd 0010011", "srli {rd}, {rs1}, {shamt}")(words.srliw)
rv.instruction("0100000 shamt rs1 101 rd 0010011", "srai {rd}, {rs1}, {shamt}")(integer.srai)
rv.instruction("0000000 rs2 rs1 001 rd 0110011", "sll {rd}, {rs1}, {rs2}")(words.sllw)
rv.instruction("0000000 rs2 rs1 101 rd 0110011", "srl {rd}, {rs1}, {rs2}")(words.srlw)
rv.instruction("0100000 rs2 rs1 101 rd 0110011", "sra {rd}, {rs1}, {rs2}")(words.sraw)

rv.begin("C")
rv.instruction("0000 rd/rs1 shamt 10", "c.slli {rd}, {shamt}")(integer.slli)
rv.instruction("100000 rd'/rs1' shamt 01", "c.srli {rd}, {shamt}")(words.srliw)
rv.instruction("100001 rd'/rs1' shamt 01", "c.srai {rd}, {shamt}")(integer.srai)
compressed("001 imm[11|4|9:8|10|6|7|3:1|5] 01", "c.jal {pc+imm}", fixed={"rd": 1})(integer.jal)
compressed("011 uimm[5:3] rs1' uimm[2|6] fd' 00", "c.flw {rd}, {imm}({rs1})")(floating.flw)
compressed("111 uimm[5:3] rs1' uimm[2|6] fs2' 00", "c.fsw {rs2}, {imm}({rs1})")(floating.fsw)
compressed("011 uimm[5] fd uimm[4:2|7:6] 10", "c.flwsp {rd}, {imm}({rs1})", fixed={"rs1": 2})(floating.flw)
compressed("111 uimm[5:2|7:6] fs2 10", "c.fswsp {rs2}, {imm}({rs1})", fixed={"rs1": 2})(floating.fsw)

# Multiplication and division --------------------------------------------------------------------------------

rv.begin("M")
rv.instruction("0000001 rs2 rs1 101 rd 0110011", "divu {rd}, {rs1}, {rs2}")(multiply.divuw)
rv.instruction("0000001 rs2 rs1 111 rd 0110011", "remu {rd}, {rs1}, {rs2}")(multiply.remuw)


@rv.instruction("0000001 rs2 rs1 001 rd 0110011", "mulh {rd}, {rs1}, {rs2}")
def mulh(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = cpu.x[rs1] * cpu.x[rs2] >> 32


@rv.instruction("0000001 rs2 rs1 010 rd 0110011", "mulhsu {rd}, {rs1}, {rs2}")
def mulhsu(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = cpu.x[rs1] * u64(u32(cpu.x[rs2])) >> 32


@rv.instruction("0000001 rs2 rs1 011 rd 0110011", "mulhu {rd}, {rs1}, {rs2}")
def mulhu(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = u64(u32(cpu.x[rs1])) * u64(u32(cpu.x[rs2])) >> 32


# Bit manipulation -------------------------------------------------------------------------------------------

rv.begin("Zbb")
rv.instruction("0110000 00000 rs1 001 rd 0010011", "clz {rd}, {rs1}")(bits.clzw)
rv.instruction("0110000 00001 rs1 001 rd 0010011", "ctz {rd}, {rs1}")(bits.ctzw)
rv.instruction("0110000 00010 rs1 001 rd 0010011", "cpop {rd}, {rs1}")(bits.cpopw)
rv.instruction("0000100 00000 rs1 100 rd 0110011", "zext.h {rd}, {rs1}")(bits.zext_h)
rv.instruction("0110000 rs2 rs1 001 rd 0110011", "rol {rd}, {rs1}, {rs2}")(bits.rolw)
rv.instruction("0110000 rs2 rs1 101 rd 0110011", "ror {rd}, {rs1}, {rs2}")(bits.rorw)
rv.instruction("0110000 shamt rs1 101 rd 0010011", "rori {rd}, {rs1}, {shamt}")(bits.roriw)


@rv.instruction("011010011000 rs1 101 rd 0010011", "rev8 {rd}, {rs1}")
def rev8(cpu: Hart, rd: Register, rs1: Register) -> None:
    cpu.x[rd] = u64(byte_swap(u32(cpu.x[rs1])))


rv.begin("Zbs")
rv.instruction("0100100 shamt rs1 001 rd 0010011", "bclri {rd}, {rs1}, {shamt}")(bits.bclri)
rv.instruction("0100100 shamt rs1 101 rd 0010011", "bexti {rd}, {rs1}, {shamt}")(bits.bexti)
rv.instruction("0110100 shamt rs1 001 rd 0010011", "binvi {rd}, {rs1}, {shamt}")(bits.binvi)
rv.instruction("0010100 shamt rs1 001 rd 0010011", "bseti {rd}, {rs1}, {shamt}")(bits.bseti)


@rv.instruction("0100100 rs2 rs1 001 rd 0110011", "bclr {rd}, {rs1}, {rs2}")
def bclr(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = cpu.x[rs1] & ~(u64(1) << (cpu.x[rs2] & 31))


@rv.instruction("0100100 rs2 rs1 101 rd 0110011", "bext {rd}, {rs1}, {rs2}")
def bext(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = cpu.x[rs1] >> (cpu.x[rs2] & 31) & 1


@rv.instruction("0110100 rs2 rs1 001 rd 0110011", "binv {rd}, {rs1}, {rs2}")
def binv(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = cpu.x[rs1] ^ u64(1) << (cpu.x[rs2] & 31)


@rv.instruction("0010100 rs2 rs1 001 rd 0110011", "bset {rd}, {rs1}, {rs2}")
def bset(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    cpu.x[rd] = cpu.x[rs1] | u64(1) << (cpu.x[rs2] & 31)


# Pseudo-instructions ----------------------------------------------------------------------------------------


def constant(operands: Mapping[str, str], values: Values) -> list[str]:
    """Instructions that put a constant of 32 bits into a register."""
    value, rd = values(operands["value"]), operands["rd"]
    high, low = pseudo.split(value)
    if high == 0:
        return [f"addi {rd}, zero, {low}"]
    return [f"lui {rd}, {high}", *([f"addi {rd}, {rd}, {low}"] if low else [])]


rv.pseudo_instruction("li {rd}, {value}", expand=constant)

rv.sources = [*riscv64.sources, __file__]
riscv32 = rv.build()
