"""Typed Python: fixed-width numbers and the operations on them that CPython runs and the compiler compiles.

Code written with these names behaves identically when CPython runs it as it stands and when
`anyvirt.jit.frontend` turns it into machine code; docs/typed-python.md is the description of the language.
"""

from anyvirt.typed.errors import TypedPythonError
from anyvirt.typed.floats import FixedFloat, f32, f64
from anyvirt.typed.integers import FixedInteger, s8, s16, s32, s64, s128, u8, u16, u32, u64, u128
from anyvirt.typed.memory import (
    load8,
    load16,
    load32,
    load64,
    loadf32,
    loadf64,
    store8,
    store16,
    store32,
    store64,
    storef32,
    storef64,
)
from anyvirt.typed.operations import (
    as_f32,
    as_f64,
    bits,
    byte_swap,
    count_leading_zeros,
    count_ones,
    count_trailing_zeros,
    fma,
    range,
    rotate_left,
    rotate_right,
    sqrt,
)

__all__ = [
    "FixedFloat",
    "FixedInteger",
    "TypedPythonError",
    "as_f32",
    "as_f64",
    "bits",
    "byte_swap",
    "count_leading_zeros",
    "count_ones",
    "count_trailing_zeros",
    "f32",
    "f64",
    "fma",
    "load8",
    "load16",
    "load32",
    "load64",
    "loadf32",
    "loadf64",
    "range",
    "rotate_left",
    "rotate_right",
    "s8",
    "s16",
    "s32",
    "s64",
    "s128",
    "sqrt",
    "store8",
    "store16",
    "store32",
    "store64",
    "storef32",
    "storef64",
    "u8",
    "u16",
    "u32",
    "u64",
    "u128",
]
