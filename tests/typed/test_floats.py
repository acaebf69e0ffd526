"""f32 and f64 under CPython: rounding once to their own width, IEEE division, encodings."""

import ctypes
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anyvirt.typed import TypedPythonError, as_f32, as_f64, bits, f32, f64, fma, s64, sqrt, u32, u64, u128

SINGLE = st.floats(width=32)
DOUBLE = st.floats()


def same(a, b):
    return a == b or (math.isnan(a) and math.isnan(b))


@given(SINGLE, SINGLE)
def test_single_precision_is_that_of_c(a, b):
    # The host computes in double and rounds, which is exact for these operations.
    for result, exact in (
        (f32(a) + f32(b), a + b),
        (f32(a) - f32(b), a - b),
        (f32(a) * f32(b), a * b),
    ):
        assert same(float(result), ctypes.c_float(exact).value)


@given(DOUBLE, DOUBLE)
def test_division(a, b):
    result = float(f64(a) / f64(b))
    if b != 0 and not math.isnan(b):
        assert same(result, a / b)
    elif math.isnan(a) or math.isnan(b) or a == 0:
        assert math.isnan(result)
    else:
        assert math.isinf(result)
        assert math.copysign(1, result) == math.copysign(1, a) * math.copysign(1, b)


HALFWAY_TO_INFINITY = 2**128 - 2**103


@given(st.integers(0, 2**128 - 1) | st.integers(0, 2**64 - 1))
@example(HALFWAY_TO_INFINITY)
@example(HALFWAY_TO_INFINITY - 1)
def test_integers_are_rounded_once(number):
    assert float(f64(u128(number))) == float(number)
    best = float(f32(u128(number)))
    assert math.isinf(best) == (number >= HALFWAY_TO_INFINITY)
    if math.isfinite(best):
        for neighbour in (math.nextafter(best, 0), math.nextafter(best, math.inf)):
            candidate = ctypes.c_float(neighbour).value
            assert math.isinf(candidate) or abs(int(best) - number) <= abs(int(candidate) - number)


@given(st.integers(0, 2**64 - 1))
def test_encodings_round_trip(pattern):
    number = as_f64(u64(pattern))
    if not math.isnan(float(number)):
        assert int(bits(number)) == pattern
    single = as_f32(u32(pattern & 0xFFFFFFFF))
    if not math.isnan(float(single)):
        assert int(bits(single)) == pattern & 0xFFFFFFFF


def test_fused_multiply_add_rounds_once():
    a = 1.0 + 2.0**-30
    assert float(fma(f64(a), f64(a), f64(-1.0))) == 2.0**-29 + 2.0**-60
    assert a * a - 1.0 != 2.0**-29 + 2.0**-60
    assert math.isinf(float(fma(f64(1e300), f64(1e300), f64(0.0))))
    assert float(fma(f64(1e300), f64(-1e300), f64(math.inf))) == math.inf


def test_roots():
    assert float(sqrt(f64(2.0))) == math.sqrt(2)
    assert math.isnan(float(sqrt(f32(-1.0))))
    assert math.copysign(1, float(sqrt(f64(-0.0)))) == -1


@pytest.mark.parametrize(
    "mixture",
    [lambda: f64(1.0) + f32(1.0), lambda: f64(1.0) + 1, lambda: f64(1.0) * s64(2), lambda: bool(f64(0.0))],
)
def test_mixtures_are_refused(mixture):
    with pytest.raises(TypedPythonError):
        mixture()
