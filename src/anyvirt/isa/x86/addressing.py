"""Memory operands: the shapes that ModRM, SIB and displacement can have.

There are two forms for them. M may become any class of memory operand, so that frequent shapes get handlers
of their own; A is always a `Memory`, for instructions that are not frequent enough. O is an address behind an
opcode. SDM Volume 2, tables 2-1 to 2-3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.isa.x86.machine import BEGINS_AT_0, FLAT, LONG, NAMES, NONE, SEGMENTS, x86
from anyvirt.isa.x86.operands import Memory, Near, Near32, Relative

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DS, SS = 3, 2
DISPLACEMENTS = {"00": "", "01": "displacement8", "10": "displacement{size}"}
"""By the two bits of `mod`."""

# Fields -----------------------------------------------------------------------------------------------------


def _show_displacement(value: int) -> str:
    return f" + {value:#x}" if value > 0 else f" - {-value:#x}" if value < 0 else ""


def _show_absolute(size: int) -> Callable[[int], str]:
    return lambda value: f"{value & (1 << size) - 1:#x}"


def _show_name(size: int) -> Callable[[int], str]:
    return lambda number: NAMES[size][number]


def _show_scale(value: int) -> str:
    return f"*{1 << value}" if value else ""


def _show_override(code: int) -> str:
    return f"{SEGMENTS[code - 1]}:" if code else ""


for _size in (32, 64):
    for _name, _extension in (("base", "b"), ("index", "x")):
        x86.register_field(
            f"{_name}{_size}", 3, "r", operand=_name, extension=(_extension,), show=_show_name(_size)
        )
for _width in (8, 16, 32):
    x86.number_field(
        f"displacement{_width}", _width, operand="displacement", signed=True, show=_show_displacement
    )
for _width in (16, 32, 64):
    x86.number_field(
        f"absolute{_width}", _width, operand="displacement", signed=True, show=_show_absolute(_width)
    )
x86.number_field("scale", 2, show=_show_scale)
for _name in ("base", "index"):
    x86.register_field(_name, 8, "r")
for _name in ("relative", "wrap", "displacement"):
    x86.number_field(_name, 8)
# Which segment it is if there is no prefix (0).
for _name, _default in (("segment", DS), ("stack_segment", SS), ("no_segment", BEGINS_AT_0)):
    x86.number_field(
        _name,
        operand="segment",
        extension=("segment",),
        renamed={0: _default} | {number + 1: number for number in range(6)},
    )
x86.number_field("override", extension=("segment",), show=_show_override)

# Shapes -----------------------------------------------------------------------------------------------------


def shape(
    bits: str,
    text: str,
    *,
    size: int,
    long: int = 0,
    stack: bool = False,
    fixed: Mapping[str, int] | None = None,
    excluding: Mapping[str, tuple[int, ...]] | None = None,
    when: Mapping[str, int] | None = None,
    forms: str = "MA",
) -> None:
    """Addresses of `size` bits; `stack` if they are based on the stack or frame pointer."""
    encoded = {x86.fields[name].operand for name in bits.split() if name in x86.fields}
    given = {"base": NONE, "index": NONE, "scale": 0, "displacement": 0, "relative": 0} | dict(fixed or {})
    given = {name: value for name, value in given.items() if name not in encoded}
    given |= {"narrow": 64 - size, "wrap": 0 if long else 32}
    segment = "no_segment" if long else "stack_segment" if stack else "segment"
    for form in forms:
        x86.form(
            form,
            bits,
            f"{{override}}[{text}]",
            Memory,
            fixed=given,
            implied=(segment, "override"),
            excluding=excluding,
            when={"long": long, "address": size, **(when or {})},
        )


def short_shape(
    bits: str,
    text: str,
    structure: type,
    *,
    fixed: Mapping[str, int] | None = None,
    excluding: Mapping[str, tuple[int, ...]] | None = None,
    when: Mapping[str, int] | None = None,
) -> None:
    """A shape for the usual case: no segment, and addresses as wide as the mode has them."""
    given = dict(fixed or {}) if "displacement" in bits else {"displacement": 0, **(fixed or {})}
    usual = (
        {"mode": FLAT, "long": 0, "address": 32}
        if structure is Near32
        else {"mode": LONG, "long": 1, "address": 64}
    )
    x86.form(
        "M",
        bits,
        f"[{text}]",
        structure,
        fixed=given,
        excluding=excluding,
        when={**usual, "segment": 0, **(when or {})},
    )


def based(
    bits: str,
    text: str,
    *,
    size: int,
    long: int,
    number: int | None = None,
    excluded: tuple[int, ...] = (),
    when: Mapping[str, int] | None = None,
) -> None:
    """A base register, given by its number or encoded, and perhaps a displacement: long and short."""
    fixed = {} if number is None else {"base": number}
    excluding = {"base": excluded} if excluded else None
    shape(
        bits,
        text,
        size=size,
        long=long,
        stack=number is not None,
        fixed=fixed,
        excluding=excluding,
        when=when,
    )
    structure = {(64, 1): Near, (32, 0): Near32}.get((size, long))
    if structure is not None:
        short_shape(bits, text, structure, fixed=fixed, excluding=excluding, when=when)


def wide_shapes(size: int, long: int) -> None:
    """All shapes with addresses of 32 or 64 bits. Outside of 64-bit mode the stack has its own segment."""
    for mod, name in DISPLACEMENTS.items():
        displacement = name.format(size=32)
        tail = "{displacement}" if name else ""
        nothing = (5,) if mod == "00" else ()
        """Base 5 of mod 0 means that there is none."""
        own = () if long else (4, 5)
        based(
            f"{mod} ... base{size} {displacement}",
            f"{{base}}{tail}",
            size=size,
            long=long,
            excluded=(4, *(nothing or own[1:])),
        )
        indexed_shapes(
            mod, f"base{size}", "{base}", displacement, size=size, long=long, excluded=own or nothing
        )
        if not long:
            indexed_shapes(mod, "100", "esp", displacement, size=size, long=long, number=4)
            if mod != "00":
                based(f"{mod} ... 101 {displacement}", f"ebp{tail}", size=size, long=long, number=5)
                indexed_shapes(mod, "101", "ebp", displacement, size=size, long=long, number=5)
    shape(
        f"00 ... 100 scale index{size} 101 displacement32",
        "{index}{scale}{displacement}",
        size=size,
        long=long,
    )
    shape("00 ... 100 -- 100 101 absolute32", "{displacement}", size=size, long=long, when={"x": 0})
    if long:
        name = "rip" if size == 64 else "eip"
        shape(
            "00 ... 101 displacement32",
            f"{name}{{displacement}}",
            size=size,
            long=long,
            fixed={"relative": 1},
        )
    else:
        shape("00 ... 101 absolute32", "{displacement}", size=size, long=long)


def indexed_shapes(
    mod: str,
    base: str,
    text: str,
    displacement: str,
    *,
    size: int,
    long: int,
    number: int | None = None,
    excluded: tuple[int, ...] = (),
) -> None:
    """SIB with a base, with an index and (the number of the stack pointer) without."""
    tail = "{displacement}" if displacement else ""
    shape(
        f"{mod} ... 100 scale index{size} {base} {displacement}",
        f"{text} + {{index}}{{scale}}{tail}",
        size=size,
        long=long,
        stack=number is not None,
        fixed={} if number is None else {"base": number},
        excluding={"base": excluded} if excluded else None,
    )
    based(
        f"{mod} ... 100 -- 100 {base} {displacement}",
        f"{text}{tail}",
        size=size,
        long=long,
        number=number,
        excluded=excluded,
        when={"x": 0},
    )


def narrow_shapes() -> None:
    """All shapes with addresses of 16 bits."""
    bx, bp, si, di = 3, 5, 6, 7
    pairs = ((bx, si), (bx, di), (bp, si), (bp, di), (si, NONE), (di, NONE), (bp, NONE), (bx, NONE))
    for mod, name in DISPLACEMENTS.items():
        displacement = name.format(size=16)
        tail = "{displacement}" if name else ""
        for number, (base, index) in enumerate(pairs):
            if (mod, number) == ("00", 6):
                shape("00 ... 110 absolute16", "{displacement}", size=16)
                continue
            text = NAMES[16][base] + (f" + {NAMES[16][index]}" if index != NONE else "")
            shape(
                f"{mod} ... {number:03b} {displacement}",
                text + tail,
                size=16,
                stack=base == bp,
                fixed={"base": base, "index": index},
            )


wide_shapes(32, 0)
wide_shapes(64, 1)
wide_shapes(32, 1)
narrow_shapes()
short_shape("00 ... 101 displacement32", "rip{displacement}", Relative)

# An absolute address behind the opcode, as wide as addresses are.
for _size, _long in ((16, 0), (32, 0), (32, 1), (64, 1)):
    shape(f"........ absolute{_size}", "{displacement}", size=_size, long=_long, forms="O")
