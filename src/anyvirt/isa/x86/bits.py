"""Single bits and bit scans: SDM Volume 1, section 7.3.7."""

# Encoding and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103, TC001

from __future__ import annotations

from anyvirt.isa.processor import Small
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
    write,
)
from anyvirt.typed import byte_swap, count_leading_zeros, count_trailing_zeros, s64, u8, u32, u64

BT, BTS, BTR, BTC = 4, 5, 6, 7
"""Numbers of the operations on bits."""


def changed(number: u8, value: u64, bit: u64) -> u64:
    """The result of an operation by its number."""
    result = value ^ bit
    if number == BTS:
        result = value | bit
    elif number == BTR:
        result = value & ~bit
    return result


def bit_address(cpu: X86, size: int, to: Place, which: Place) -> u64:
    """Where the unit of memory is that has a bit; a register counts from the operand in both directions."""
    offset = offset_of(cpu, to)
    if isinstance(which, General):
        offset = offset + u64(s64(extend(size, cpu.r[which.number]) & ~(size - 1)) >> 3)
    return address_at(cpu, to, offset)


@encoding("0f a3 /r", "bt", to="Ev", which="Gv", form="A")
@encoding("0f ba /4", "bt", to="Ev", which="Ub", form="A")
def bit_test(cpu: X86, size: int, to: Place, which: Place) -> None:
    number = read(cpu, size, which) & size - 1
    if isinstance(to, General):
        set_carry(cpu, cpu.r[to.number] >> number & 1)
    else:
        set_carry(cpu, load(cpu, size, bit_address(cpu, size, to, which)) >> number & 1)


def bit_change(cpu: X86, size: int, number: Small, to: Place, which: Place) -> None:
    """BTS, BTR, BTC; on memory always as if locked, which does no harm."""
    position = read(cpu, size, which) & size - 1
    bit = u64(1) << position
    if isinstance(to, General):
        value = read(cpu, size, to)
        write(cpu, size, to, changed(number, value, bit))
        set_carry(cpu, value >> position & 1)
    else:
        address = bit_address(cpu, size, to, which)
        before = load(cpu, size, address)
        while not compare_and_store(cpu, size, address, before, changed(number, before, bit)):
            before = load(cpu, size, address)
        set_carry(cpu, before >> position & 1)


for _number, _name in ((BTS, "bts"), (BTR, "btr"), (BTC, "btc")):
    _first, _which = f"0f {0x83 | _number << 3:02x} /r", {"number": _number}
    _second = f"0f ba /{_number}"
    encoding(_first, _name, fixed=_which, form="A", to="Ev", which="Gv")(bit_change)
    encoding(_second, _name, fixed=_which, form="A", to="Ev", which="Ub")(bit_change)
    encoding(_first, _name, fixed=_which, lock=True, to="Mv", which="Gv")(bit_change)
    encoding(_second, _name, fixed=_which, lock=True, to="Mv", which="Ub")(bit_change)


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
