"""Expressions: what they are worth, as Python's own arithmetic has it, and how mistakes are told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyvirt.errors import UsageError
from anyvirt.machines.debugging.expressions import Expression, evaluate

MASK = (1 << 64) - 1


class Names:
    def register(self, name):
        return {"a0": 5, "sp": 0x1000, "pc": 0x8000_0000}.get(name)

    def symbol(self, name):
        return {"main": 0x200, "a0": 0x999, "jiffies.0": 0x300}.get(name)

    def load(self, address, size):
        return int.from_bytes(bytes((address + n) & 0xFF for n in range(size)), "little")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("0x10 + 0b11", 19),
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("10 - 4 - 3", 3),
        ("$a0", 5),
        ("a0", 5),
        ("main + 4", 0x204),
        ("jiffies.0", 0x300),
        ("-1", MASK),
        ("~0", MASK),
        ("!5", 0),
        ("!0", 1),
        ("$a0 == 5 && main", 1),
        ("$a0 == 4 || $a0 > 7", 0),
        ("1 << 4 | 1", 17),
        ("0xff >> 4 & 3", 3),
        ("*$sp", 0x0706050403020100),
        ("u16($sp + 2)", 0x0302),
        ("u8(0x80)", 0x80),
        ("s8(0x80)", MASK - 0x7F),
        ("7 % 4 ^ 1", 2),
        ("1 < 2", 1),
        ("2 <= 1", 0),
        ("1 != 1", 0),
    ],
)
def test_values(text, value):
    assert evaluate(text, Names()) == value


@given(
    st.recursive(
        st.integers(0, 1 << 63).map(str),
        lambda inner: st.tuples(inner, st.sampled_from(["+", "-", "*", "&", "|", "^"]), inner).map(
            lambda t: f"({t[0]} {t[1]} {t[2]})"
        ),
        max_leaves=12,
    )
)
def test_arithmetic_is_that_of_64_bits(text):
    assert evaluate(text, Names()) == eval(text) & MASK


@given(st.text(alphabet="()+-*&|<>=! a0$19x~%/", max_size=30))
def test_whatever_is_typed_is_a_value_or_a_mistake(text):
    try:
        assert 0 <= evaluate(text, Names()) <= MASK
    except UsageError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "missing"),
        ("1 +", "end is missing"),
        ("(1", r"'\)' is missing"),
        ("1 2", "'2' is out of place"),
        ("1 / 0", "divides by 0"),
        ("$nothing", r"no register \$nothing"),
        ("nothing", "no register or symbol nothing"),
        ("1 ? 2", "not understood"),
        ("(" * 200 + "1" + ")" * 200, "too deeply"),
    ],
)
def test_mistakes(text, complaint):
    with pytest.raises(UsageError, match=complaint):
        Expression(text).value(Names())
