"""The front end: what it compiles behaves as CPython does, what it refuses it names with file and line."""

import builtins
import ctypes
import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyvirt.jit.frontend import Module
from anyvirt.jit.target import Target
from anyvirt.typed import (
    TypedPythonError,
    as_f64,
    bits,
    byte_swap,
    count_leading_zeros,
    count_ones,
    count_trailing_zeros,
    f32,
    f64,
    fma,
    load8,
    load32,
    load64,
    range,
    rotate_left,
    rotate_right,
    s8,
    s16,
    s32,
    s64,
    s128,
    sqrt,
    store8,
    store64,
    u8,
    u16,
    u32,
    u64,
    u128,
)

WORD = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2, 63, 64, 2**31, 2**32 - 1, 2**63, 2**64 - 1])
DOUBLE = st.floats(width=64)
MASK = 0xFF00FF
PRIMES = (u32(2), u32(3), u32(5), u32(7))
GOLDEN = u64(0x9E3779B97F4A7C15)


def arithmetic(a: u64, b: u64) -> u64:
    c = a * 3 + (b ^ GOLDEN) - (a & MASK)
    c -= b << (a & 7)
    return (c | 1) >> b


def signed(a: u64, b: u64) -> s64:
    x = s64(a)
    y = s64(b)
    if x < y:
        return -x >> 3
    return x // y + x % y


def unsigned_division(a: u64, b: u64) -> u64:
    return (a // b) ^ (a % b) ^ (a // 10) ^ u64(u32(a) % u32(b))


def narrow_division(a: u64, b: u64) -> s32:
    return s32(s8(a) // s8(b)) * s32(s16(a) % s16(b))


def casts(a: u64, b: u64) -> u64:
    return u64(s8(a)) + u64(u8(b)) + u64(s32(u16(a))) + u64(bool(a < 9)) + u64(a < b)


def wide(a: u64, b: u64) -> u64:
    unsigned = u64((u128(a) * u128(b)) >> 64)
    return unsigned ^ u64((s128(s64(a)) * s128(s64(b))) >> 64)


def bit_operations(a: u64, b: u64) -> u64:
    counted = count_leading_zeros(a) + count_trailing_zeros(b) * 100 + count_ones(a ^ b) * 10000
    turned = rotate_left(a, b) ^ rotate_right(a, b) ^ byte_swap(b)
    return counted ^ turned ^ u64(count_leading_zeros(u8(a)))


def loops(a: u64, b: u64) -> u64:
    total = u64(0)
    for i in range(a & 31):
        if i == 7:
            continue
        total += i * i
        if total > 5000:
            break
    n = b
    while n != 0:
        n >>= 1
        total += 1
    for k in range(4):
        if k == 2:
            continue
        total = total * 31 + u64(PRIMES[k])
    for j in range(s64(5), s64(-6), -3):
        total ^= u64(j)
    return total


def table(a: u64, b: u64) -> u64:
    return u64(PRIMES[a & 3]) + u64(PRIMES[b & 1])


def decisions(a: u64, b: u64) -> u64:
    if a > 10 and (b < 5 or a == b) and not (b == 3):  # noqa: SIM201
        x = u64(1)
    elif a == 0 or b // a > 100:
        x = u64(2)
    else:
        x = u64(3) if a < b else b
    return max(min(a, b), x)


def collatz(a: u64) -> tuple[u64, bool]:
    if a & 1 == 0:
        return a // 2, True
    return a * 3 + 1, False


def fibonacci(n: u64) -> u64:
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


def calls(a: u64, b: u64) -> u64:
    value, even = collatz(a)
    return (value if even else ~value) + fibonacci(b & 7)


def forever(a: u64, b: u64) -> u64:
    count = a & 15
    while True:
        count += 1
        if count > 20:
            result = count * b
            break
    return result


INTEGER_FUNCTIONS = [
    arithmetic, signed, unsigned_division, narrow_division, casts, wide, bit_operations, loops, table,
    decisions, calls, forever,
]  # fmt: skip


@pytest.mark.parametrize("function", INTEGER_FUNCTIONS, ids=lambda function: function.__name__)
def test_integers_behave_as_under_cpython(native, function):
    compiled = native.compile(function)

    @given(WORD, WORD)
    def check(a, b):
        assert compiled(a, b) == int(function(u64(a), u64(b)))

    check()


def float_arithmetic(a: f64, b: f64) -> f64:
    return (a + b) * (a - b) / (a * 2.0) + sqrt(abs(a)) - -b


def fused(a: f64, b: f64) -> f64:
    return fma(a, b, a)


def float_decisions(a: f64, b: f64) -> f64:
    if a < b or a != a:  # noqa: PLR0124
        return min(a, b)
    return max(a, b) if a >= b else as_f64(bits(a) ^ (1 << 63))


def float_casts(a: f64, b: f64) -> f64:
    return f64(s64(a)) + f64(u32(b)) + f64(f32(a)) + f64(s8(b)) + f64(u64(a))


@pytest.mark.parametrize(
    "function",
    [float_arithmetic, fused, float_decisions, float_casts],
    ids=lambda function: function.__name__,
)
def test_floats_behave_as_under_cpython(native, function):
    compiled = native.compile(function)

    @given(DOUBLE, DOUBLE)
    def check(a, b):
        expected = float(function(f64(a), f64(b)))
        actual = compiled(a, b)
        assert actual == expected or (math.isnan(actual) and math.isnan(expected))
        assert math.copysign(1, actual) == math.copysign(1, expected) or math.isnan(actual)

    check()


def single(a: f32, b: f32) -> f32:
    return fma(a, b, a / b) + f32(3) * f32(u64(b))


def test_single_precision_rounds_once(native):
    compiled = native.compile(single)

    @given(st.floats(width=32), st.floats(width=32))
    def check(a, b):
        expected, actual = float(single(f32(a), f32(b))), compiled(a, b)
        assert actual == expected or (math.isnan(actual) and math.isnan(expected))

    check()


def checksum(address: u64, length: u64) -> u64:
    total = u64(0)
    for position in range(length):
        total = total * 31 + u64(load8(address + position))
    store64(address, total)
    store8(address + 8, total)
    return total ^ load64(address + 1) ^ u64(load32(address + 3))


def test_parameters_may_have_any_name(native):
    def named(entry: u64, then: u64) -> u64:
        return entry - then if entry > then else then

    assert native.compile(named)(7, 3) == 4


def test_loads_and_stores(native):
    content = bytes((7 * i) & 255 for i in builtins.range(64))
    images = []
    for function in (native.compile(checksum), lambda a, n: int(checksum(u64(a), u64(n)))):
        buffer = ctypes.create_string_buffer(content, len(content))
        images.append((function(ctypes.addressof(buffer), 64), buffer.raw))
    assert images[0] == images[1]


def test_a_function_made_in_a_loop_sees_its_closure(native):
    def make(factor, operation):
        def scaled(a: u64, b: u64) -> u64:
            return operation(a, b) * factor

        return scaled

    for factor in (3, u64(5)):
        assert native.compile(make(factor, decisions))(4, 9) == int(decisions(u64(4), u64(9))) * int(factor)


# A setting of one's own: intrinsics and object parameters ---------------------------------------------------


def answer(question: u64) -> u64:
    """What the test's target gives a meaning to; CPython runs this body."""
    return question + 42


class Machine:
    """An object parameter with a register file, as CPython sees it."""

    def __init__(self):
        self.r = [u64(0)] * 4
        self.flag = False


def step(machine: Machine, destination: u8) -> None:
    if machine.flag:
        return
    machine.r[destination] = machine.r[0] + 1


def asks(machine: Machine, a: u64) -> u64:
    step(machine, u8(2))
    return answer(a)


class RecordingTarget(Target):
    """Notes what it is asked for."""

    def __init__(self):
        super().__init__()
        self.intrinsics[answer] = self.emit_answer
        self.asked = []

    def emit_answer(self, compiler, arguments):
        (question,) = compiler.typed_arguments(arguments, [u64])
        return compiler.body.value(f"add i64 {question.text}, 42", u64)

    def read_attribute(self, compiler, name):
        self.asked.append(("read", name))
        return compiler.body.value("icmp eq i64 0, 1", bool)

    def read_element(self, compiler, name, index):
        self.asked.append(("read", name, index))
        return compiler.body.value("add i64 1, 2", u64)

    def write_element(self, compiler, name, index, value):
        self.asked.append(("write", name, value.type))


def test_a_target_gives_meaning_to_intrinsics_and_objects():
    from anyvirt.jit.frontend import FunctionCompiler

    target = RecordingTarget()
    text = FunctionCompiler(Module(target), asks).compile()
    assert target.asked == [("read", "flag"), ("read", "r", 0), ("write", "r", u64)]
    assert "add i64" in text and "42" in text


# What is refused --------------------------------------------------------------------------------------------


def untyped_local(a: u64) -> u64:
    b = 1
    return a + u64(b)


def mixed(a: u64, b: u32) -> u64:
    return a + b


def truth(a: u64) -> u64:
    return u64(1) if a else u64(0)


def chained(a: u64) -> bool:
    return 0 < a < 9


def changes_type(a: u64) -> u64:
    b = a
    b = u32(a)
    return u64(b)


def maybe_unassigned(a: u64) -> u64:
    if a == 1:
        b = a
    return b


def falls_through(a: u64) -> u64:  # noqa: RET503
    if a == 1:
        return a


def too_wide(a: u64) -> u64:
    return a + (1 << 64)


def lists(a: u64) -> u64:
    return u64([a][0])


def excepts(a: u64) -> u64:
    try:
        return a
    finally:
        pass


def keyword(a: u64) -> u64:
    return decisions(a, b=a)


def python_range(a: u64) -> u64:
    total = u64(0)
    for i in builtins.range(a):
        total += i
    return total


def foreign(a: u64) -> u64:
    return u64(math.floor(1.5)) + a


def floats_and_integers(a: u64) -> f64:
    return f64(1.0) + a


def unknown_name(a: u64) -> u64:
    return a + nowhere  # noqa: F821


def annotated_literal(a: u64) -> u64:
    b: u64 = 7
    return a + b


def shifts_a_literal(a: u64) -> u64:
    return 1 << a


def divides_wide(a: u64) -> u64:
    return u64(u128(a) // u128(3))


def power(a: u64) -> u64:
    return a * u64(2**3)


def divides_by_zero(a: u64) -> u64:
    return a + 1 // 0


REFUSED = [
    (power, 1, "Pow cannot be compiled"),
    (divides_by_zero, 1, "FloorDiv of constants"),
    (untyped_local, 1, "b needs a fixed-width type: write b = u64(1)"),
    (mixed, 1, "u64 meets u32"),
    (truth, 1, "a is no condition: compare it"),
    (chained, 1, "single comparisons"),
    (changes_type, 2, "b is u64 and cannot become u32"),
    (maybe_unassigned, 3, "b is not assigned on every way"),
    (falls_through, 0, "must return 1 value(s)"),
    (too_wide, 1, "does not fit u64"),
    (lists, 1, "List cannot be compiled"),
    (excepts, 1, "Try cannot be compiled"),
    (keyword, 1, "only positional arguments"),
    (foreign, 1, "math.floor cannot be called"),
    (floats_and_integers, 1, "cast one of them"),
    (unknown_name, 1, "nowhere is not known"),
    (annotated_literal, 1, "write u64(7)"),
    (shifts_a_literal, 1, "int cannot be shifted"),
    (divides_wide, 1, "u128 cannot be divided"),
]


@pytest.mark.parametrize(
    ("function", "line", "reason"), REFUSED, ids=lambda value: getattr(value, "__name__", "")
)
def test_refusals_name_file_line_and_reason(function, line, reason):
    with pytest.raises(TypedPythonError) as caught:
        Module(Target()).add(function)
    message = str(caught.value)
    assert message.startswith(f"{__file__}:{function.__code__.co_firstlineno + line}: ")
    assert reason in message


def test_builtin_range_over_run_time_values_is_refused():
    source = python_range.__code__
    with pytest.raises(TypedPythonError, match=f"{source.co_firstlineno + 2}: "):
        Module(Target()).add(python_range)


def test_compiling_to_text_does_not_import_llvmlite():
    code = "import sys, anyvirt.jit.frontend, anyvirt.jit.target; sys.exit('llvmlite' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
