"""A machine's display: what it shows, as pixels and as pictures."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from typing import TYPE_CHECKING

from anyvirt.devices.edid import MOST_PIXELS
from anyvirt.devices.surface import PIXEL_SIZE, PixelFormat
from anyvirt.devices.virtio.gpu import LEAST_PIXELS, Frame
from anyvirt.errors import UsageError
from anyvirt.machines.seat.picture import Picture, draw_cursor

if TYPE_CHECKING:
    from anyvirt.devices.virtio.gpu import VirtioGpu
    from anyvirt.machines.machine import Machine

_INPUT = "display"
_SIZE = struct.Struct("<II")
_RESOLUTION = re.compile(r"(\d{1,9})x(\d{1,9})")


class Display:
    """What the guest shows. It may be looked at between runs, and by another thread during one."""

    def __init__(self, machine: Machine, gpu: VirtioGpu) -> None:
        self._machine, self._gpu = machine, gpu
        machine.inputs.receive(_INPUT, lambda data: gpu.resize(*_SIZE.unpack(data)))

    @property
    def is_on(self) -> bool:
        """Whether the guest shows anything."""
        return self._gpu.scanouts[0].number != 0

    @property
    def updates(self) -> int:
        """How often the guest has shown something since the machine was made."""
        return self._gpu.updates

    @property
    def frame(self) -> Frame:
        """What is shown at this moment, a copy: width, height, format and pixels; black if that is nothing.

        Rows are from the top to the bottom without gaps, each pixel has four bytes in the order of `format`.
        """
        with self._machine.lock:
            frame, scanout = self._gpu.frame(), self._gpu.scanouts[0]
            if frame is not None:
                return frame
            width, height = scanout.width, scanout.height
        return Frame(width, height, PixelFormat.BGRX, bytes(PIXEL_SIZE * width * height))

    @property
    def width(self) -> int:
        """Pixels of a row."""
        return self._size[0]

    @property
    def height(self) -> int:
        """Rows."""
        return self._size[1]

    @property
    def _size(self) -> tuple[int, int]:
        with self._machine.lock:
            scanout = self._gpu.scanouts[0]
            shown = scanout.part if scanout.number else scanout
            return shown.width, shown.height

    @property
    def format(self) -> PixelFormat:
        """What the bytes of a pixel are."""
        return self.frame.format

    @property
    def pixels(self) -> memoryview:
        """The pixels of `frame`."""
        return memoryview(self.frame.pixels)

    def picture(self, *, cursor: bool = False) -> Picture:
        """What is shown, without its format; `cursor`: with the guest's pointer drawn above it."""
        with self._machine.lock:
            frame, above = self.frame, self._gpu.scanouts[0].cursor
            above = replace(above) if cursor and above is not None else None
        picture = Picture.of(frame)
        return picture if above is None else draw_cursor(picture, above)

    def resize(self, width: int, height: int) -> None:
        """Ask the guest for another resolution, as a window does when its size changes. Raises UsageError."""
        check_resolution(width, height)
        self._machine.inputs.push(_INPUT, _SIZE.pack(width, height))


def parse_resolution(wanted: str | tuple[int, int]) -> tuple[int, int]:
    """A display's size in pixels, such as "1024x768" or (1024, 768). Raises UsageError."""
    if isinstance(wanted, str):
        found = _RESOLUTION.fullmatch(wanted)
        if found is None:
            raise UsageError(f"display {wanted!r} is not a width and a height, as in 1024x768")
        wanted = int(found[1]), int(found[2])
    width, height = wanted
    check_resolution(width, height)
    return width, height


def check_resolution(width: int, height: int) -> None:
    """Raises UsageError for what no display here can have."""
    if not all(type(side) is int and LEAST_PIXELS <= side <= MOST_PIXELS for side in (width, height)):
        raise UsageError(
            f"a display has {LEAST_PIXELS} to {MOST_PIXELS} pixels in each direction, not {width} x {height}"
        )
