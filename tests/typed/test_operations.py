"""Bit operations, typed ranges and memory by address under CPython."""

import builtins
import ctypes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyvirt.typed import (
    TypedPythonError,
    byte_swap,
    count_leading_zeros,
    count_ones,
    count_trailing_zeros,
    f32,
    f64,
    load8,
    load16,
    load32,
    load64,
    loadf32,
    loadf64,
    range,
    rotate_left,
    rotate_right,
    s16,
    s64,
    store8,
    store16,
    store32,
    store64,
    storef32,
    storef64,
    u8,
    u32,
    u64,
)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_bits(number, amount):
    text = f"{number:032b}"
    assert int(count_leading_zeros(u32(number))) == len(text) - len(text.lstrip("0"))
    assert int(count_trailing_zeros(u32(number))) == len(text) - len(text.rstrip("0"))
    assert int(count_ones(u32(number))) == text.count("1")
    turn = amount % 32
    assert int(rotate_left(u32(number), u32(amount))) == int(text[turn:] + text[:turn], 2)
    assert rotate_right(rotate_left(u32(number), u32(amount)), u32(amount)) == number
    assert int(byte_swap(u32(number))) == int.from_bytes(number.to_bytes(4, "little"), "big")


def test_signed_values_count_as_patterns():
    assert int(count_ones(s16(-1))) == 16
    assert int(count_leading_zeros(s16(-1))) == 0


@pytest.mark.parametrize("bounds", [(5,), (2, 5), (10, 0, -3), (0, 10, 4), (5, 2), (0, 255, 50)])
def test_ranges_have_the_type_of_their_bounds(bounds):
    for typed in ([u8(bounds[0]), *bounds[1:]], [s64(bounds[0]), *bounds[1:]]):
        values = list(range(*typed))
        assert [int(value) for value in values] == list(builtins.range(*bounds))
        assert all(type(value) is type(typed[0]) for value in values)
    assert list(range(*bounds)) == list(builtins.range(*bounds))


def test_a_step_must_be_a_constant():
    with pytest.raises(TypedPythonError):
        range(u8(0), u8(5), u8(1))
    with pytest.raises(TypedPythonError):
        range(u8(0), u8(5), 0)


def test_memory():
    buffer = ctypes.create_string_buffer(64)
    base = u64(ctypes.addressof(buffer))
    store8(base, u64(0x1FF))
    store16(base + 3, u32(0x12345))
    store32(base + 9, s64(-2))
    store64(base + 17, u64(2**64 - 3))
    storef32(base + 33, f32(1.5))
    storef64(base + 41, f64(-2.25))
    assert load8(base) == 0xFF
    assert load8(base + 1) == 0
    assert load16(base + 3) == 0x2345
    assert load32(base + 9) == 0xFFFFFFFE
    assert load64(base + 17) == 2**64 - 3
    assert float(loadf32(base + 33)) == 1.5
    assert float(loadf64(base + 41)) == -2.25
