"""Pictures: what a display showed at one moment, to be compared, looked into, and written to files."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anyvirt.devices.surface import PIXEL_SIZE
from anyvirt.devices.virtio.gpu import CURSOR_SIDE
from anyvirt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from PIL.Image import Image

    from anyvirt.devices.virtio.gpu import Cursor, Frame

_COLOURS = 3


@dataclass(frozen=True)
class Picture:
    """A picture; two are equal if all of their pixels are."""

    width: int
    height: int
    rgb: bytes = field(repr=False)
    """Red, green and blue of each pixel, row by row from the top."""

    @classmethod
    def of(cls, frame: Frame) -> Self:
        """What a display shows, whatever its format."""
        rgb = bytearray(_COLOURS * frame.width * frame.height)
        for colour, place in enumerate(frame.format.colours):
            rgb[colour::_COLOURS] = frame.pixels[place::PIXEL_SIZE]
        return cls(frame.width, frame.height, bytes(rgb))

    def pixel(self, x: int, y: int) -> tuple[int, int, int]:
        """Red, green and blue (0 to 255) at a place; (0, 0) is the top left corner. Raises IndexError."""
        if not (0 <= x < self.width and 0 <= y < self.height):
            raise IndexError(f"there is no pixel at {x}, {y} of {self.width} x {self.height}")
        at = _COLOURS * (y * self.width + x)
        red, green, blue = self.rgb[at : at + _COLOURS]
        return red, green, blue

    def crop(self, x: int, y: int, width: int, height: int) -> Picture:
        """A part of it. Raises IndexError for one that is not within it."""
        if not (0 <= x < x + width <= self.width and 0 <= y < y + height <= self.height):
            raise IndexError(f"{width} x {height} at {x}, {y} is not within {self.width} x {self.height}")
        starts = range(_COLOURS * (y * self.width + x), _COLOURS * (y + height) * self.width, 3 * self.width)
        return Picture(
            width, height, b"".join(self.rgb[at : at + _COLOURS * width] for at in starts[:height])
        )

    def image(self) -> Image:
        """The picture for Pillow. Raises UsageError without that library."""
        try:
            from PIL import Image
        except ImportError:
            raise UsageError(
                "pictures are written by Pillow, which is not installed: pip install 'anyvirt[display]'"
            ) from None
        return Image.frombytes("RGB", (self.width, self.height), self.rgb)

    def png(self) -> bytes:
        """The content of a PNG file. Raises UsageError without Pillow."""
        file = io.BytesIO()
        self.image().save(file, "PNG")
        return file.getvalue()

    def _repr_png_(self) -> bytes:
        """How notebooks show it."""
        return self.png()

    def save(self, path: str | Path) -> None:
        """Write a file, in the format that its name says (`.png`, `.ppm`, `.jpg`). Raises UsageError."""
        try:
            self.image().save(path)
        except ValueError:
            raise UsageError(f"{path} does not say a format of pictures: call it something.png") from None
        except OSError as error:
            raise UsageError(f"the picture cannot be written to {path}: {error.strerror or error}") from None


def draw_cursor(picture: Picture, cursor: Cursor) -> Picture:
    """A picture with a cursor above it, whose colours are multiplied with its opacity already."""
    rgb, left, top = bytearray(picture.rgb), cursor.x - cursor.hot_x, cursor.y - cursor.hot_y
    alpha = cursor.format.alpha
    for y in range(max(-top, 0), min(CURSOR_SIDE, picture.height - top)):
        for x in range(max(-left, 0), min(CURSOR_SIDE, picture.width - left)):
            source = PIXEL_SIZE * (y * CURSOR_SIDE + x)
            target = _COLOURS * ((top + y) * picture.width + left + x)
            shines_through = 0 if alpha is None else 255 - cursor.pixels[source + alpha]
            for colour, place in enumerate(cursor.format.colours):
                below = rgb[target + colour] * shines_through // 255
                rgb[target + colour] = min(cursor.pixels[source + place] + below, 255)
    return Picture(picture.width, picture.height, bytes(rgb))
