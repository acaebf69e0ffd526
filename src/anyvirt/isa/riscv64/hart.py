"""The RISC-V hart: its registers and state, and the fields instructions are made of."""

from __future__ import annotations

from functools import partial
from typing import Protocol

from anyvirt.isa.description import InstructionSet
from anyvirt.isa.ieee754 import Rounding
from anyvirt.isa.processor import Processor, Registers
from anyvirt.typed import u8, u16, u64


class Hart(Processor, Protocol):
    """What RISC-V instructions work on beyond what every processor has."""

    x: Registers
    f: Registers
    reservation_address: u64
    reservation_value: u64


def _names(text: str) -> list[str]:
    return text.split()


def length(parcel: u16) -> u8:
    """Chapter "RV32I", expanded instruction-length encoding; longer ones than 32 bits do not exist here."""
    if parcel & 3 == 3:
        return u8(4)
    return u8(2)


rv = InstructionSet("riscv64", "RISC-V RV64GC", 2, length)

for _name, _meaning in (
    ("I", "base integer instructions"),
    ("RV64I", "base integer instructions that only RV64 has"),
    ("Zifencei", "instruction-fetch fence"),
    ("Zicsr", "control and status registers"),
    ("M", "multiplication and division"),
    ("RV64M", "multiplication and division of words"),
    ("A", "atomic operations on words"),
    ("RV64A", "atomic operations on double-words"),
    ("F", "single-precision floating point"),
    ("RV64F", "conversions between single precision and 64-bit integers"),
    ("D", "double-precision floating point"),
    ("RV64D", "conversions and moves between double precision and 64-bit integers"),
    ("C", "compressed instructions"),
    ("RV64C", "compressed instructions that only RV64 has"),
    ("Zba", "address generation"),
    ("RV64Zba", "address generation with unsigned words"),
    ("Zbb", "basic bit manipulation"),
    ("RV64Zbb", "basic bit manipulation of words"),
    ("Zbs", "single-bit instructions"),
    ("Zicond", "integer conditional operations"),
):
    rv.extension(_name, _meaning)

compressed = partial(rv.instruction, extension="C")
"""Declares a 16-bit encoding."""

rv.registers(
    "x",
    _names(
        "zero ra sp gp tp t0 t1 t2 s0 s1 a0 a1 a2 a3 a4 a5 a6 a7 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6"
    ),
    zero=0,
    aliases={"fp": 8},
)
rv.registers(
    "f",
    _names(
        "ft0 ft1 ft2 ft3 ft4 ft5 ft6 ft7 fs0 fs1 fa0 fa1 fa2 fa3 fa4 fa5 fa6 fa7 "
        "fs2 fs3 fs4 fs5 fs6 fs7 fs8 fs9 fs10 fs11 ft8 ft9 ft10 ft11"
    ),
)
NO_RESERVATION = (1 << 64) - 1
rv.state("reservation_address", NO_RESERVATION, "address of the last load-reserved, all ones if none holds")
rv.state("reservation_value", 0, "what that load read")

FFLAGS = rv.control_register(0x001, "fflags", "accrued floating-point exceptions")
FRM = rv.control_register(0x002, "frm", "dynamic floating-point rounding mode")
FCSR = rv.control_register(0x003, "fcsr", "frm and fflags in one")
CYCLE = rv.control_register(0xC00, "cycle", "clock cycles")
TIME = rv.control_register(0xC01, "time", "time in units of 100 ns")
INSTRET = rv.control_register(0xC02, "instret", "instructions executed")

DYNAMIC = 7
_ROUNDING_NAMES = {
    Rounding.NEAREST_EVEN: "rne",
    Rounding.TOWARDS_ZERO: "rtz",
    Rounding.DOWN: "rdn",
    Rounding.UP: "rup",
    Rounding.NEAREST_AWAY: "rmm",
}


def _show_rounding(mode: int) -> str:
    """As a last operand; the dynamic mode is not written."""
    return "" if mode == DYNAMIC else f", {_ROUNDING_NAMES.get(Rounding(mode), '')}"


def _show_control_register(number: int) -> str:
    register = rv.control_registers.get(number)
    return register.name if register else f"{number:#x}"


def _show_accesses(value: int) -> str:
    return "".join(letter for bit, letter in ((8, "i"), (4, "o"), (2, "r"), (1, "w")) if value & bit) or "0"


def _show_ordering(bits: int) -> str:
    """A suffix of the mnemonic."""
    return ("", ".rl", ".aq", ".aqrl")[bits]


def _show_upper(value: int) -> str:
    return f"{value >> 12 & 0xFFFFF:#x}"


for name in ("rd", "rs1", "rs2"):
    rv.register_field(name, 5, "x")
    rv.register_field(f"{name}'", 3, "x", operand=name, bias=8)
for name, operand in (("fd", "rd"), ("fs1", "rs1"), ("fs2", "rs2"), ("fs3", "rs3")):
    rv.register_field(name, 5, "f", operand=operand)
    rv.register_field(f"{name}'", 3, "f", operand=operand, bias=8)
rv.number_field("imm", signed=True)
rv.number_field("nzimm", operand="imm", signed=True, excluded=(0,))
rv.number_field("uimm", operand="imm")
rv.number_field("nzuimm", operand="imm", excluded=(0,))
rv.number_field("upper", operand="imm", signed=True, show=_show_upper)
rv.number_field("nzupper", operand="imm", signed=True, excluded=(0,), show=_show_upper)
rv.number_field("shamt", 6)
rv.number_field("shamtw", 5, operand="shamt")
rv.number_field("zimm", 5)
rv.number_field("csr", 12, show=_show_control_register)
rv.number_field("rm", 3, excluded=(5, 6), show=_show_rounding)
rv.number_field("aqrl", 2, show=_show_ordering)
rv.number_field("pred", 4, show=_show_accesses)
rv.number_field("succ", 4, show=_show_accesses)
