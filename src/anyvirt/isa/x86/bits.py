"""Single bits and bit scans: SDM Volume 1, section 7.3.7."""

# Encoding and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.isa.x86.encoding import encoding
from anyvirt.isa.x86.flags import remember, set_carry
from anyvirt.isa.x86.operands import (
    X86,
    General,
    Place,
    address_at,
    compare_and_store,
    extend,
    load,
    low,
    offset_of,
    read,
    store,
    write,
)
from anyvirt.typed import byte_swap, count_leading_zeros, count_trailing_zeros, s64, u32, u64

if TYPE_CHECKING:
    from collections.abc import Callable


def keep(value: u64, bit: u64) -> u64:
    """BT changes nothing."""
    return value


def put(value: u64, bit: u64) -> u64:
    return value | bit


def clear(value: u64, bit: u64) -> u64:
    return value & ~bit


def toggle(value: u64, bit: u64) -> u64:
    return value ^ bit


def _describe(number: int, mnemonic: str, change: Callable[[u64, u64], u64]) -> None:
    """BT or one of its relatives, by its number."""
    changes = change is not keep

    @encoding(f"0f {0x83 | number << 3:02x} /r", mnemonic, to="Ev", which="Gv", form="A")
    @encoding(f"0f ba /{number}", mnemonic, to="Ev", which="Ub", form="A")
    def operation(cpu: X86, size: int, locked: bool, to: Place, which: Place) -> None:
        number = read(cpu, size, which)
        bit = u64(1) << (number & size - 1)
        if isinstance(to, General):
            value = read(cpu, size, to)
            if changes:
                write(cpu, size, to, change(value, bit))
        else:
            # A register counts bits from the address in both directions.
            offset = offset_of(cpu, to)
            if isinstance(which, General):
                offset += u64(s64(extend(size, number) & ~(size - 1)) >> 3)
            address = address_at(cpu, to, offset)
            value = load(cpu, size, address)
            if locked:
                while not compare_and_store(cpu, size, address, value, change(value, bit)):
                    value = load(cpu, size, address)
            elif changes:
                store(cpu, size, address, change(value, bit))
        set_carry(cpu, u64(value & bit != 0))


for _number, _mnemonic, _change in ((4, "bt", keep), (5, "bts", put), (6, "btr", clear), (7, "btc", toggle)):
    _describe(_number, _mnemonic, _change)


@encoding("0f bc /r", "bsf", to="Gv", source="Ev", form="A", when={"repeat": 0})
def scan_forward(cpu: X86, size: int, to: General, source: Place) -> None:
    value = read(cpu, size, source)
    remember(cpu, size, u64(0), u64(0), value)
    # Of 0 the result is undefined by Intel; AMD's and, in fact, all processors keep the register.
    if value != 0:
        write(cpu, size, to, count_trailing_zeros(value))


@encoding("0f bd /r", "bsr", to="Gv", source="Ev", form="A", when={"repeat": 0})
def scan_reverse(cpu: X86, size: int, to: General, source: Place) -> None:
    value = read(cpu, size, source)
    remember(cpu, size, u64(0), u64(0), value)
    if value != 0:
        write(cpu, size, to, 63 - count_leading_zeros(value))


@encoding("0f c8 +r", "bswap", to="Zv", sizes=(32, 64))
def swap_bytes(cpu: X86, size: int, to: General) -> None:
    value = read(cpu, size, to)
    if size == 64:
        write(cpu, size, to, byte_swap(value))
    else:
        write(cpu, size, to, u64(byte_swap(u32(low(32, value)))))
