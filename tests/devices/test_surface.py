"""Surfaces: parts of them, row by row, and the formats of pixels."""

import random

from hypothesis import given
from hypothesis import strategies as st

from anyvirt.devices.surface import PixelFormat, Rectangle, Surface


@st.composite
def parts(draw):
    width, height = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return width, height, Rectangle(x, y, draw(st.integers(1, width - x)), draw(st.integers(1, height - y)))


@given(parts())
def test_a_part_is_its_pixels(drawn):
    width, height, part = drawn
    content = random.Random(1).randbytes(4 * width * height)
    surface = Surface(width, height, PixelFormat.BGRA, content)
    wanted = b"".join(
        content[4 * (y * width + x) : 4 * (y * width + x) + 4]
        for y in range(part.y, part.y + part.height)
        for x in range(part.x, part.x + part.width)
    )
    assert surface.copy(part) == wanted == b"".join(surface.rows(part))


@given(*[st.integers(-3, 12)] * 4)
def test_what_is_within_a_surface(x, y, width, height):
    wanted = width > 0 and height > 0 and x >= 0 and y >= 0 and x + width <= 8 and y + height <= 6
    assert Rectangle(x, y, width, height).is_within(8, 6) is wanted


def test_formats_say_where_colours_are():
    assert PixelFormat.BGRX.colours == (2, 1, 0) and PixelFormat.BGRX.alpha is None
    assert PixelFormat.ARGB.colours == (1, 2, 3) and PixelFormat.ARGB.alpha == 0
    assert all(sorted(format.value) in (sorted("ABGR"), sorted("XBGR")) for format in PixelFormat)
