"""Integer arithmetic and logic: SDM Volume 1, sections 7.3.2 to 7.3.4."""

# Encoding and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103, TC001

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.isa.processor import Small
from anyvirt.isa.x86.encoding import encoding
from anyvirt.isa.x86.flags import CARRY, FORM, carry, remember, set_flags
from anyvirt.isa.x86.operands import (
    X86,
    Byte,
    General,
    Place,
    address_of,
    compare_and_store,
    extend,
    load,
    low,
    offset_of,
    read,
    write,
    write_register,
)
from anyvirt.typed import range, s64, u8, u64, u128

if TYPE_CHECKING:
    from collections.abc import Callable

DIVIDE_ERROR = 0
"""Vector of #DE."""
AX, DX = 0, 2

# Two operands -----------------------------------------------------------------------------------------------
# Each operation is a function of size and operands that gives the result, and one that remembers its flags.


def add(cpu: X86, size: int, a: u64, b: u64) -> u64:
    return a + b


def add_flags(cpu: X86, size: int, a: u64, b: u64, result: u64) -> None:
    remember(cpu, size, result, a, result)


def subtract(cpu: X86, size: int, a: u64, b: u64) -> u64:
    return a - b


def subtract_flags(cpu: X86, size: int, a: u64, b: u64, result: u64) -> None:
    remember(cpu, size, a, b, result)


def add_carry(cpu: X86, size: int, a: u64, b: u64) -> u64:
    return a + b + carry(cpu)


def add_carry_flags(cpu: X86, size: int, a: u64, b: u64, result: u64) -> None:
    carries = a & b | (a | b) & ~result
    overflow = (a ^ result) & (b ^ result)
    set_flags(cpu, size, result, carries >> size - 1 & 1, (a ^ b ^ result) >> 4 & 1, overflow >> size - 1 & 1)


def subtract_borrow(cpu: X86, size: int, a: u64, b: u64) -> u64:
    return a - b - carry(cpu)


def subtract_borrow_flags(cpu: X86, size: int, a: u64, b: u64, result: u64) -> None:
    borrows = ~a & b | (~a | b) & result
    overflow = (a ^ b) & (a ^ result)
    set_flags(cpu, size, result, borrows >> size - 1 & 1, (a ^ b ^ result) >> 4 & 1, overflow >> size - 1 & 1)


def conjunction(cpu: X86, size: int, a: u64, b: u64) -> u64:
    return a & b


def disjunction(cpu: X86, size: int, a: u64, b: u64) -> u64:
    return a | b


def exclusion(cpu: X86, size: int, a: u64, b: u64) -> u64:
    return a ^ b


def logic_flags(cpu: X86, size: int, a: u64, b: u64, result: u64) -> None:
    remember(cpu, size, u64(0), u64(0), result)


def _describe(
    number: int,
    mnemonic: str,
    combine: Callable[[X86, int, u64, u64], u64],
    flags: Callable[[X86, int, u64, u64, u64], None],
) -> None:
    """One of the operations that share their encodings, by its number."""
    first = number << 3

    @encoding(f"{first:02x} /r", mnemonic, to="Eb", source="Gb", form="A")
    @encoding(f"{first + 1:02x} /r", mnemonic, to="Ev", source="Gv", form="A")
    @encoding(f"{first + 2:02x} /r", mnemonic, to="Gb", source="Eb", form="A")
    @encoding(f"{first + 3:02x} /r", mnemonic, to="Gv", source="Ev")
    @encoding(f"{first + 4:02x}", mnemonic, to="AL", source="Ib")
    @encoding(f"{first + 5:02x}", mnemonic, to="rAX", source="Iz")
    @encoding(f"80 /{number}", mnemonic, to="Eb", source="Ib", form="A")
    @encoding(f"81 /{number}", mnemonic, to="Ev", source="Iz", form="A")
    @encoding(f"82 /{number}", mnemonic, to="Eb", source="Ib", form="A", when={"long": 0})
    @encoding(f"83 /{number}", mnemonic, to="Ev", source="Ib", form="A")
    def operation(cpu: X86, size: int, to: Place, source: Place) -> None:
        a, b = read(cpu, size, to), read(cpu, size, source)
        result = combine(cpu, size, a, b)
        write(cpu, size, to, result)
        flags(cpu, size, a, b, result)

    which = {"number": number}
    encoding(f"{first:02x} /r", mnemonic, lock=True, fixed=which, to="Mb", source="Gb")(locked_operation)
    encoding(f"{first + 1:02x} /r", mnemonic, lock=True, fixed=which, to="Mv", source="Gv")(locked_operation)
    encoding(f"80 /{number}", mnemonic, lock=True, fixed=which, to="Mb", source="Ib")(locked_operation)
    encoding(f"81 /{number}", mnemonic, lock=True, fixed=which, to="Mv", source="Iz")(locked_operation)
    encoding(f"83 /{number}", mnemonic, lock=True, fixed=which, to="Mv", source="Ib")(locked_operation)


ADD, OR, ADC, SBB, AND, SUB, XOR = 0, 1, 2, 3, 4, 5, 6
"""Numbers of the operations."""


def combined(cpu: X86, size: int, number: u8, a: u64, b: u64) -> u64:
    """The result of an operation by its number."""
    result = a ^ b
    if number == ADD:
        result = add(cpu, size, a, b)
    elif number == OR:
        result = disjunction(cpu, size, a, b)
    elif number == ADC:
        result = add_carry(cpu, size, a, b)
    elif number == SBB:
        result = subtract_borrow(cpu, size, a, b)
    elif number == AND:
        result = conjunction(cpu, size, a, b)
    elif number == SUB:
        result = subtract(cpu, size, a, b)
    return result


def locked_operation(cpu: X86, size: int, number: Small, to: Place, source: Place) -> None:
    """Operations on memory that nobody else sees half done; which one it is, is found out on the way."""
    b, address = read(cpu, size, source), address_of(cpu, to)
    a = load(cpu, size, address)
    result = combined(cpu, size, number, a, b)
    while not compare_and_store(cpu, size, address, a, result):
        a = load(cpu, size, address)
        result = combined(cpu, size, number, a, b)
    if number == ADD:
        add_flags(cpu, size, a, b, result)
    elif number == ADC:
        add_carry_flags(cpu, size, a, b, result)
    elif number == SBB:
        subtract_borrow_flags(cpu, size, a, b, result)
    elif number == SUB:
        subtract_flags(cpu, size, a, b, result)
    else:
        logic_flags(cpu, size, a, b, result)


_OPERATIONS = (
    ("add", add, add_flags),
    ("or", disjunction, logic_flags),
    ("adc", add_carry, add_carry_flags),
    ("sbb", subtract_borrow, subtract_borrow_flags),
    ("and", conjunction, logic_flags),
    ("sub", subtract, subtract_flags),
    ("xor", exclusion, logic_flags),
)
for _number, (_mnemonic, _combine, _flags) in enumerate(_OPERATIONS):
    _describe(_number, _mnemonic, _combine, _flags)


@encoding("38 /r", "cmp", to="Eb", source="Gb")
@encoding("39 /r", "cmp", to="Ev", source="Gv")
@encoding("3a /r", "cmp", to="Gb", source="Eb")
@encoding("3b /r", "cmp", to="Gv", source="Ev")
@encoding("3c", "cmp", to="AL", source="Ib")
@encoding("3d", "cmp", to="rAX", source="Iz")
@encoding("80 /7", "cmp", to="Eb", source="Ib")
@encoding("81 /7", "cmp", to="Ev", source="Iz")
@encoding("82 /7", "cmp", to="Eb", source="Ib", when={"long": 0})
@encoding("83 /7", "cmp", to="Ev", source="Ib")
def compare(cpu: X86, size: int, to: Place, source: Place) -> None:
    a, b = read(cpu, size, to), read(cpu, size, source)
    remember(cpu, size, a, b, a - b)


@encoding("84 /r", "test", to="Eb", source="Gb")
@encoding("85 /r", "test", to="Ev", source="Gv")
@encoding("a8", "test", to="AL", source="Ib")
@encoding("a9", "test", to="rAX", source="Iz")
@encoding("f6 /0", "test", to="Eb", source="Ib")
@encoding("f6 /1", "test", to="Eb", source="Ib")
@encoding("f7 /0", "test", to="Ev", source="Iz")
@encoding("f7 /1", "test", to="Ev", source="Iz")
def test(cpu: X86, size: int, to: Place, source: Place) -> None:
    remember(cpu, size, u64(0), u64(0), read(cpu, size, to) & read(cpu, size, source))


# One operand ------------------------------------------------------------------------------------------------

INC, DEC, NOT, NEG = 0, 1, 2, 3
"""Numbers of the operations, for locked ones."""


def _keep_carry(cpu: X86, before: u64) -> None:
    """Invert the carry of what is remembered now if it is not the one from before."""
    now = u64(cpu.flag_left < cpu.flag_right)
    cpu.flag_form = cpu.flag_form | (now ^ before) << (FORM + CARRY)


@encoding("fe /0", "inc", to="Eb", form="A")
@encoding("ff /0", "inc", to="Ev", form="A")
@encoding("40 +r", "inc", to="Zv", sizes=(16, 32), when={"long": 0})
def increment(cpu: X86, size: int, to: Place) -> None:
    a = read(cpu, size, to)
    write(cpu, size, to, a + 1)
    increment_flags(cpu, size, a)


def increment_flags(cpu: X86, size: int, a: u64) -> None:
    before = carry(cpu)
    remember(cpu, size, a + 1, a, a + 1)
    _keep_carry(cpu, before)


@encoding("fe /1", "dec", to="Eb", form="A")
@encoding("ff /1", "dec", to="Ev", form="A")
@encoding("48 +r", "dec", to="Zv", sizes=(16, 32), when={"long": 0})
def decrement(cpu: X86, size: int, to: Place) -> None:
    a = read(cpu, size, to)
    write(cpu, size, to, a - 1)
    decrement_flags(cpu, size, a)


def decrement_flags(cpu: X86, size: int, a: u64) -> None:
    before = carry(cpu)
    remember(cpu, size, a, u64(1), a - 1)
    _keep_carry(cpu, before)


@encoding("f6 /2", "not", to="Eb", form="A")
@encoding("f7 /2", "not", to="Ev", form="A")
def complement(cpu: X86, size: int, to: Place) -> None:
    write(cpu, size, to, ~read(cpu, size, to))


@encoding("f6 /3", "neg", to="Eb", form="A")
@encoding("f7 /3", "neg", to="Ev", form="A")
def negate(cpu: X86, size: int, to: Place) -> None:
    a = read(cpu, size, to)
    write(cpu, size, to, -a)
    remember(cpu, size, u64(0), a, -a)


def _changed(number: u8, a: u64) -> u64:
    """The result of an operation by its number."""
    result = -a
    if number == INC:
        result = a + 1
    elif number == DEC:
        result = a - 1
    elif number == NOT:
        result = ~a
    return result


@encoding("fe /0", "inc", lock=True, fixed={"number": INC}, to="Mb")
@encoding("ff /0", "inc", lock=True, fixed={"number": INC}, to="Mv")
@encoding("fe /1", "dec", lock=True, fixed={"number": DEC}, to="Mb")
@encoding("ff /1", "dec", lock=True, fixed={"number": DEC}, to="Mv")
@encoding("f6 /2", "not", lock=True, fixed={"number": NOT}, to="Mb")
@encoding("f7 /2", "not", lock=True, fixed={"number": NOT}, to="Mv")
@encoding("f6 /3", "neg", lock=True, fixed={"number": NEG}, to="Mb")
@encoding("f7 /3", "neg", lock=True, fixed={"number": NEG}, to="Mv")
def locked_change(cpu: X86, size: int, number: Small, to: Place) -> None:
    address = address_of(cpu, to)
    a = load(cpu, size, address)
    while not compare_and_store(cpu, size, address, a, _changed(number, a)):
        a = load(cpu, size, address)
    if number == INC:
        increment_flags(cpu, size, a)
    elif number == DEC:
        decrement_flags(cpu, size, a)
    elif number == NEG:
        remember(cpu, size, u64(0), a, -a)


# Multiplication and division --------------------------------------------------------------------------------
# Flags that the manual leaves undefined are those of the low half of a product, and no carry.


def _product_flags(cpu: X86, size: int, product: u64, significant: bool) -> None:
    set_flags(cpu, size, product, u64(significant), u64(0), u64(significant))


@encoding("f6 /4", "mul", source="Eb", form="A")
@encoding("f7 /4", "mul", source="Ev", form="A")
def multiply(cpu: X86, size: int, source: Place) -> None:
    product = u128(low(size, cpu.r[u8(AX)])) * u128(read(cpu, size, source))
    _write_wide(cpu, size, u64(product), u64(product >> size))
    _product_flags(cpu, size, u64(product), low(size, u64(product >> size)) != 0)


@encoding("f6 /5", "imul", source="Eb", form="A")
@encoding("f7 /5", "imul", source="Ev", form="A")
def multiply_signed(cpu: X86, size: int, source: Place) -> None:
    a, b = extend(size, cpu.r[u8(AX)]), extend(size, read(cpu, size, source))
    product = u128(s64(a)) * u128(s64(b))
    _write_wide(cpu, size, u64(product), u64(product >> size))
    _product_flags(cpu, size, u64(product), u128(s64(extend(size, u64(product)))) != product)


def _write_wide(cpu: X86, size: int, lower: u64, upper: u64) -> None:
    """A result of twice the operand size: in AX, or half of it in rDX."""
    if size == 8:
        write_register(cpu, 16, u8(AX), lower & 0xFF | upper << 8)
    else:
        write_register(cpu, size, u8(AX), lower)
        write_register(cpu, size, u8(DX), upper)


@encoding("0f af /r", "imul", to="Gv", source="Ev")
def multiply_two(cpu: X86, size: int, to: General, source: Place) -> None:
    _multiply_into(cpu, size, to, read(cpu, size, to), read(cpu, size, source))


@encoding("69 /r", "imul", to="Gv", source="Ev", factor="Iz")
@encoding("6b /r", "imul", to="Gv", source="Ev", factor="Ib")
def multiply_three(cpu: X86, size: int, to: General, source: Place, factor: Place) -> None:
    _multiply_into(cpu, size, to, read(cpu, size, source), read(cpu, size, factor))


def _multiply_into(cpu: X86, size: int, to: General, a: u64, b: u64) -> None:
    product = u128(s64(extend(size, a))) * u128(s64(extend(size, b)))
    write(cpu, size, to, u64(product))
    _product_flags(cpu, size, u64(product), u128(s64(extend(size, u64(product)))) != product)


def divide_wide(upper: u64, lower: u64, divisor: u64) -> tuple[u64, u64]:
    """Quotient and remainder of a number of 128 bits whose upper half is less than the divisor."""
    quotient, rest = lower, upper
    for _ in range(u64(64)):
        carried = rest >> 63
        rest = rest << 1 | quotient >> 63
        quotient = quotient << 1
        if carried != 0 or rest >= divisor:
            rest -= divisor
            quotient |= 1
    return quotient, rest


@encoding("f6 /6", "div", source="Eb", form="A")
@encoding("f7 /6", "div", source="Ev", form="A")
def divide(cpu: X86, size: int, source: Place) -> None:
    divisor = read(cpu, size, source)
    lower, upper = _dividend(cpu, size)
    if upper >= divisor:
        cpu.trap(DIVIDE_ERROR)
    else:
        quotient, rest = _divide_magnitudes(size, upper, lower, divisor)
        _write_wide(cpu, size, quotient, rest)


@encoding("f6 /7", "idiv", source="Eb", form="A")
@encoding("f7 /7", "idiv", source="Ev", form="A")
def divide_signed(cpu: X86, size: int, source: Place) -> None:
    divisor = extend(size, read(cpu, size, source))
    lower, upper = _dividend(cpu, size)
    negative = upper >> size - 1 & 1 != 0
    # Divide magnitudes; the quotient's must fit, which is one more for a negative one.
    if negative:
        lower = low(size, -lower)
        upper = low(size, ~upper) if lower != 0 else low(size, -upper)
    magnitude = -divisor if s64(divisor) < 0 else divisor
    opposite = negative != (s64(divisor) < 0)
    if upper >= magnitude:
        cpu.trap(DIVIDE_ERROR)
    else:
        quotient, rest = _divide_magnitudes(size, upper, lower, magnitude)
        greatest = (u64(1) << size - 1) - u64(not opposite)
        if quotient > greatest:
            cpu.trap(DIVIDE_ERROR)
        else:
            _write_wide(cpu, size, -quotient if opposite else quotient, -rest if negative else rest)


def _divide_magnitudes(size: int, upper: u64, lower: u64, divisor: u64) -> tuple[u64, u64]:
    if size == 64:
        if upper == 0:
            return lower // divisor, lower % divisor
        return divide_wide(upper, lower, divisor)
    dividend = upper << size | lower
    return dividend // divisor, dividend % divisor


def _dividend(cpu: X86, size: int) -> tuple[u64, u64]:
    """Lower and upper half of a number of twice the operand size."""
    if size == 8:
        return cpu.r[u8(AX)] & 0xFF, cpu.r[u8(AX)] >> 8 & 0xFF
    return low(size, cpu.r[u8(AX)]), low(size, cpu.r[u8(DX)])


# Addresses and widths ---------------------------------------------------------------------------------------


@encoding("8d /r", "lea", to="Gv", source="Mv", pointer=False)
def load_effective_address(cpu: X86, size: int, to: General, source: Place) -> None:
    write(cpu, size, to, offset_of(cpu, source))


@encoding("98", "cbw", sizes=(16,), to="rAX", hidden=("to",))
@encoding("98", "cwde", sizes=(32,), to="rAX", hidden=("to",))
@encoding("98", "cdqe", sizes=(64,), to="rAX", hidden=("to",))
def widen_accumulator(cpu: X86, size: int, to: General) -> None:
    write(cpu, size, to, extend(size // 2, cpu.r[u8(AX)]))


@encoding("99", "cwd", sizes=(16,), to="rAX", hidden=("to",))
@encoding("99", "cdq", sizes=(32,), to="rAX", hidden=("to",))
@encoding("99", "cqo", sizes=(64,), to="rAX", hidden=("to",))
def spread_sign(cpu: X86, size: int, to: General) -> None:
    write_register(cpu, size, u8(DX), u64(s64(extend(size, read(cpu, size, to))) >> 63))


# Exchanges --------------------------------------------------------------------------------------------------


@encoding("0f b0 /r", "cmpxchg", to="Eb", source="Gb", form="A")
@encoding("0f b1 /r", "cmpxchg", to="Ev", source="Gv", form="A")
@encoding("0f b0 /r", "cmpxchg", lock=True, to="Mb", source="Gb")
@encoding("0f b1 /r", "cmpxchg", lock=True, to="Mv", source="Gv")
def compare_exchange(cpu: X86, size: int, to: Place, source: Place) -> None:
    expected, given = low(size, cpu.r[u8(AX)]), read(cpu, size, source)
    found = read(cpu, size, to)
    if isinstance(to, General | Byte):
        # Processors leave the upper half of a register that is not written, whatever the manual's code says.
        if found == expected:
            write(cpu, size, to, given)
    else:
        # Memory is written in any case, so it must be writable; and always as if locked, which does no harm.
        address = address_of(cpu, to)
        while not compare_and_store(cpu, size, address, found, given if found == expected else found):
            found = load(cpu, size, address)
    remember(cpu, size, expected, found, expected - found)
    if found != expected:
        write_register(cpu, size, u8(AX), found)


@encoding("0f c0 /r", "xadd", to="Eb", source="Gb", form="A")
@encoding("0f c1 /r", "xadd", to="Ev", source="Gv", form="A")
@encoding("0f c0 /r", "xadd", lock=True, to="Mb", source="Gb")
@encoding("0f c1 /r", "xadd", lock=True, to="Mv", source="Gv")
def exchange_add(cpu: X86, size: int, to: Place, source: Place) -> None:
    addend = read(cpu, size, source)
    found = read(cpu, size, to)
    if isinstance(to, General | Byte):
        # Both may be the same register: the sum is written last.
        write(cpu, size, source, found)
        write(cpu, size, to, found + addend)
    else:
        address = address_of(cpu, to)
        while not compare_and_store(cpu, size, address, found, found + addend):
            found = load(cpu, size, address)
        write(cpu, size, source, found)
    remember(cpu, size, found + addend, found, found + addend)


@encoding("86 /r", "xchg", to="Eb", source="Gb", form="A")
@encoding("87 /r", "xchg", to="Ev", source="Gv", form="A")
@encoding("86 /r", "xchg", lock=True, to="Mb", source="Gb")
@encoding("87 /r", "xchg", lock=True, to="Mv", source="Gv")
@encoding("90 +r", "xchg", to="Zv", source="rAX")
def exchange(cpu: X86, size: int, to: Place, source: Place) -> None:
    found, given = read(cpu, size, to), read(cpu, size, source)
    if isinstance(to, General | Byte):
        write(cpu, size, to, given)
    else:
        # Always locked, SDM Volume 2, XCHG.
        address = address_of(cpu, to)
        while not compare_and_store(cpu, size, address, found, given):
            found = load(cpu, size, address)
    write(cpu, size, source, found)
