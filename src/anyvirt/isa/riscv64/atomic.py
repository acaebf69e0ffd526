"""A: load-reserved, store-conditional, atomic memory operations. Chapter "A".

A store-conditional succeeds if memory still holds the value that was reserved. Acquire and release bits
need no care: every operation is sequentially consistent.
"""

# Pattern and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103, TC001

from __future__ import annotations

from anyvirt.isa.processor import Register
from anyvirt.isa.riscv64.hart import NO_RESERVATION, Hart, rv
from anyvirt.typed import s32, u32, u64

rv.begin("A")


@rv.instruction("00010 aqrl 00000 rs1 010 rd 0101111", "lr.w{aqrl} {rd}, ({rs1})")
def lr_w(cpu: Hart, rd: Register, rs1: Register) -> None:
    address = cpu.x[rs1]
    cpu.require_aligned(address, 4)
    value = cpu.load32(address)
    cpu.reservation_address = address
    cpu.reservation_value = u64(value)
    cpu.x[rd] = u64(s32(value))


@rv.instruction("00010 aqrl 00000 rs1 011 rd 0101111", "lr.d{aqrl} {rd}, ({rs1})", extension="RV64A")
def lr_d(cpu: Hart, rd: Register, rs1: Register) -> None:
    address = cpu.x[rs1]
    cpu.require_aligned(address, 8)
    value = cpu.load64(address)
    cpu.reservation_address = address
    cpu.reservation_value = value
    cpu.x[rd] = value


@rv.instruction("00011 aqrl rs2 rs1 010 rd 0101111", "sc.w{aqrl} {rd}, {rs2}, ({rs1})")
def sc_w(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    address = cpu.x[rs1]
    cpu.require_aligned(address, 4)
    stored = cpu.reservation_address == address and cpu.compare_exchange(
        address, u32(cpu.reservation_value), u32(cpu.x[rs2])
    )
    cpu.reservation_address = u64(NO_RESERVATION)
    cpu.x[rd] = u64(not stored)


@rv.instruction("00011 aqrl rs2 rs1 011 rd 0101111", "sc.d{aqrl} {rd}, {rs2}, ({rs1})", extension="RV64A")
def sc_d(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
    address = cpu.x[rs1]
    cpu.require_aligned(address, 8)
    stored = cpu.reservation_address == address and cpu.compare_exchange(
        address, cpu.reservation_value, cpu.x[rs2]
    )
    cpu.reservation_address = u64(NO_RESERVATION)
    cpu.x[rd] = u64(not stored)


def _describe(code: str, operation: str) -> None:
    """Both widths of one atomic memory operation."""

    @rv.instruction(
        f"{code} aqrl rs2 rs1 010 rd 0101111", f"amo{operation}.w{{aqrl}} {{rd}}, {{rs2}}, ({{rs1}})"
    )
    def amo_w(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
        address = cpu.x[rs1]
        cpu.require_aligned(address, 4)
        cpu.x[rd] = u64(s32(cpu.exchange(operation, address, u32(cpu.x[rs2]))))

    @rv.instruction(
        f"{code} aqrl rs2 rs1 011 rd 0101111",
        f"amo{operation}.d{{aqrl}} {{rd}}, {{rs2}}, ({{rs1}})",
        extension="RV64A",
    )
    def amo_d(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
        address = cpu.x[rs1]
        cpu.require_aligned(address, 8)
        cpu.x[rd] = cpu.exchange(operation, address, cpu.x[rs2])


for _code, _operation in (
    ("00001", "swap"),
    ("00000", "add"),
    ("00100", "xor"),
    ("01100", "and"),
    ("01000", "or"),
    ("10000", "min"),
    ("10100", "max"),
    ("11000", "minu"),
    ("11100", "maxu"),
):
    _describe(_code, _operation)
