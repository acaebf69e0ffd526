"""Fixed-width integers against plain Python arithmetic modulo 2^n."""

import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyvirt.typed import TypedPythonError, f64, s8, s16, s32, s64, s128, u8, u16, u32, u64, u128

KINDS = [u8, u16, u32, u64, u128, s8, s16, s32, s64, s128]
BINARY = [operator.add, operator.sub, operator.mul, operator.and_, operator.or_, operator.xor]
COMPARISONS = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]


def wrap(kind, number):
    number %= 1 << kind.BITS
    return number - (1 << kind.BITS) if number > kind.MAX else number


def values(kind):
    edges = [kind.MIN, kind.MAX, 0, 1, kind.MIN + 1, kind.MAX - 1]
    return st.sampled_from(edges) | st.integers(kind.MIN, kind.MAX)


kinds_and_pairs = st.sampled_from(KINDS).flatmap(
    lambda kind: st.tuples(st.just(kind), values(kind), values(kind))
)


@given(kinds_and_pairs)
def test_operators_wrap(case):
    kind, a, b = case
    for operation in BINARY:
        expected = wrap(kind, operation(a, b))
        for result in (operation(kind(a), kind(b)), operation(kind(a), b), operation(a, kind(b))):
            assert type(result) is kind
            assert int(result) == expected
    for operation in COMPARISONS:
        assert operation(kind(a), kind(b)) == operation(a, b)
    assert int(-kind(a)) == wrap(kind, -a)
    assert int(~kind(a)) == wrap(kind, ~a)


@given(kinds_and_pairs)
def test_division_truncates_and_is_total(case):
    kind, a, b = case
    quotient, remainder = kind(a) // kind(b), kind(a) % kind(b)
    if b == 0:
        assert (int(quotient), int(remainder)) == (wrap(kind, -1), a)
    else:
        exact = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        assert (int(quotient), int(remainder)) == (wrap(kind, exact), wrap(kind, a - exact * b))


@given(kinds_and_pairs)
def test_shifts_take_the_amount_modulo_the_width(case):
    kind, a, b = case
    assert int(kind(a) << kind(b)) == wrap(kind, a << b % kind.BITS)
    assert int(kind(a) >> kind(b)) == wrap(kind, a >> b % kind.BITS)
    assert int(kind(a) << (kind.BITS + 1)) == wrap(kind, a << 1)


@given(kinds_and_pairs, st.sampled_from(KINDS))
def test_casts_extend_by_the_source(case, target):
    kind, a, _ = case
    assert int(target(kind(a))) == wrap(target, a)


@pytest.mark.parametrize(
    ("kind", "number", "expected"),
    [
        (u8, -1.0, 0), (u8, 255.9, 255), (u8, 256.0, 255), (s8, -128.9, -128), (s8, -129.0, -128),
        (s32, 2.5, 2), (s32, -2.5, -2), (u64, 1e300, 2**64 - 1), (s64, float("nan"), 0),
        (s64, float("-inf"), -(2**63)), (u32, float("inf"), 2**32 - 1),
    ],
)  # fmt: skip
def test_casts_from_floats_truncate_and_saturate(kind, number, expected):
    assert int(kind(f64(number))) == expected


@pytest.mark.parametrize(
    "mixture",
    [
        lambda: u64(1) + u32(1),
        lambda: u64(1) == s64(1),
        lambda: u64(1) < f64(1.0),
        lambda: u8(1) + 256,
        lambda: u8(1) + -129,
        lambda: u8(1) + True,
        lambda: u8(1) + 1.0,
        lambda: bool(u8(1)),
        lambda: 1 - u8(1) + u16(1),
    ],
)
def test_mixtures_are_refused(mixture):
    with pytest.raises(TypedPythonError):
        mixture()


def test_they_are_usable_as_python_values():
    assert [10, 20, 30][u8(1)] == 20
    assert {u8(1): "a"}[u8(1)] == "a"
    assert repr(s16(-5)) == "s16(-5)"
    assert u64(True) == 1
