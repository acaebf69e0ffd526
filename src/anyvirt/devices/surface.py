"""Surfaces: rows of pixels in the host's memory, in the formats that display adapters know."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PIXEL_SIZE = 4
"""Bytes, in every format."""


class PixelFormat(StrEnum):
    """What the four bytes of a pixel are, in the order in which they lie in memory; X is no value at all."""

    BGRA = "BGRA"
    BGRX = "BGRX"
    ARGB = "ARGB"
    XRGB = "XRGB"
    RGBA = "RGBA"
    XBGR = "XBGR"
    ABGR = "ABGR"
    RGBX = "RGBX"

    @property
    def colours(self) -> tuple[int, int, int]:
        """Where in a pixel its red, green and blue are."""
        return self.value.index("R"), self.value.index("G"), self.value.index("B")

    @property
    def alpha(self) -> int | None:
        """Where in a pixel its opacity is, if it has one."""
        return self.value.index("A") if "A" in self.value else None


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A part of a surface, in pixels; (0, 0) is its top left corner."""

    x: int
    y: int
    width: int
    height: int

    def is_within(self, width: int, height: int) -> bool:
        """Whether there is something of it, and all of it is on a surface of that size."""
        return 0 <= self.x < self.x + self.width <= width and 0 <= self.y < self.y + self.height <= height


class Surface:
    """A picture that changes; rows follow each other without gaps."""

    __slots__ = ("format", "height", "pixels", "stride", "width")

    def __init__(
        self, width: int, height: int, format: PixelFormat, pixels: bytes | bytearray | None = None
    ) -> None:
        """Black, unless it begins as a copy of `pixels`."""
        self.width, self.height, self.format = width, height, format
        self.stride = PIXEL_SIZE * width
        """Bytes of a row."""
        self.pixels = bytearray(self.stride * height if pixels is None else pixels)

    def rows(self, part: Rectangle) -> Iterator[memoryview]:
        """What lies in each row of a part that is within the surface, for changes in place."""
        window, length = memoryview(self.pixels), PIXEL_SIZE * part.width
        start = part.y * self.stride + PIXEL_SIZE * part.x
        for at in range(start, start + part.height * self.stride, self.stride):
            yield window[at : at + length]

    def band(self, part: Rectangle) -> memoryview:
        """All of the rows of a part, which is as wide as the surface, for changes in place."""
        start = part.y * self.stride
        return memoryview(self.pixels)[start : start + part.height * self.stride]

    def copy(self, part: Rectangle) -> bytes:
        """The pixels of a part that is within the surface, its rows without gaps."""
        return bytes(self.band(part)) if part.width == self.width else b"".join(self.rows(part))
