"""EDID: how a monitor tells a display adapter what it is and which modes it shows.

VESA Enhanced Extended Display Identification Data Standard, Release A, Revision 2 (structure version 1.4);
timings are those of VESA Coordinated Video Timings 1.2 with reduced blanking.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

SIZE = 128
"""Bytes of a block."""
MOST_PIXELS = 4095
"""In each direction: what the 12 bits of a detailed timing can say (section 3.10.2)."""
REFRESH = 60
"""Hz."""

_MANUFACTURER = "AYV"
"""Of anyvirt: not one that has been given to somebody else."""
_PRODUCT = 1
_DENSITY = 96
"""Pixels for each inch, of which the size of the screen is made."""
_YEAR = 2024
_DIGITAL_8_BITS = 0xA0
"""Section 3.6.1: a digital interface that is not defined, with 8 bits for each colour."""
_GAMMA_2_2 = 120
_FEATURES = 0x06
"""Section 3.6.4: RGB 4:4:4, sRGB is its colour space, the first detailed timing is its own resolution."""
_SRGB = bytes.fromhex("ee91a3544c99260f5054")
"""Section 3.7: chromaticity coordinates of sRGB."""
_DUMMY, _NAME = 0x10, 0xFC
"""Tags of descriptors (section 3.10.3)."""
_ESTABLISHED = {(640, 480): (0, 5), (800, 600): (0, 0), (1024, 768): (1, 3)}
"""Section 3.8: byte and bit of modes at 60 Hz."""
_STANDARD = ((1280, 720), (1280, 800), (1280, 1024), (1440, 900), (1600, 900), (1680, 1050), (1920, 1080))
"""Modes that are offered where they fit, at 60 Hz."""
_ASPECTS = {(16, 10): 0, (4, 3): 1, (5, 4): 2, (16, 9): 3}
"""Section 3.9: codes of standard timings."""


@dataclass(frozen=True)
class Timing:
    """A mode (CVT 1.2, reduced blanking version 1), in pixels and lines."""

    width: int
    height: int
    clock: int
    """In units of 10 kHz."""
    vertical_blank: int
    vertical_sync: int

    HORIZONTAL_BLANK = 160
    HORIZONTAL_FRONT = 48
    HORIZONTAL_SYNC = 32
    VERTICAL_FRONT = 3


def reduced_blanking(width: int, height: int) -> Timing:
    """The timing of a mode at 60 Hz, or slower where no pixel clock that EDID can name is fast enough."""
    least_blank, least_back, step, least_clock = 460, 6, 25, 1000
    line = (1_000_000 / REFRESH - least_blank) / height
    sync = _sync_lines(width, height)
    blank = max(int(least_blank / line) + 1, Timing.VERTICAL_FRONT + sync + least_back)
    clock = REFRESH * (width + Timing.HORIZONTAL_BLANK) * (height + blank) // 10_000
    return Timing(width, height, min(max(clock - clock % step, least_clock), 0xFFFF), blank, sync)


def _sync_lines(width: int, height: int) -> int:
    """CVT 1.2, table 3: the length of the vertical sync says which aspect ratio it is."""
    for (across, down), lines in {(4, 3): 4, (16, 9): 5, (16, 10): 6, (5, 4): 7, (15, 9): 7}.items():
        if width * down == height * across:
            return lines
    return 10


def edid(width: int, height: int, *, name: str = "anyvirt") -> bytes:
    """The block of a monitor with a resolution of its own, of up to 4095 pixels in each direction.

    `name` is up to 13 characters of ASCII.
    """
    millimetres = [max(round(pixels * 25.4 / _DENSITY), 1) for pixels in (width, height)]
    block = b"".join(
        (
            b"\x00\xff\xff\xff\xff\xff\xff\x00",
            _manufacturer(),
            struct.pack("<HIBB", _PRODUCT, 0, 0, _YEAR - 1990),
            bytes((1, 4, _DIGITAL_8_BITS, *(min(max(round(size / 10), 1), 255) for size in millimetres))),
            bytes((_GAMMA_2_2, _FEATURES)),
            _SRGB,
            _established(width, height),
            _standard(width, height),
            _detailed(reduced_blanking(width, height), *millimetres),
            _text(_NAME, name),
            2 * bytes((0, 0, 0, _DUMMY, *bytes(14))),
            b"\0",
        )
    )
    return block + bytes((-sum(block) & 0xFF,))


def _manufacturer() -> bytes:
    """Section 3.4.1: three letters of five bits each."""
    first, second, third = (ord(letter) - ord("A") + 1 for letter in _MANUFACTURER)
    return struct.pack(">H", first << 10 | second << 5 | third)


def _established(width: int, height: int) -> bytes:
    found = bytearray(3)
    for (across, down), (byte, bit) in _ESTABLISHED.items():
        if across <= width and down <= height:
            found[byte] |= 1 << bit
    return bytes(found)


def _standard(width: int, height: int) -> bytes:
    """Section 3.9: eight modes, or 0x01 0x01 for none."""
    modes = [mode for mode in _STANDARD if mode[0] <= width and mode[1] <= height]
    found = b"".join(bytes((across // 8 - 31, _aspect(across, down) << 6)) for across, down in modes)
    return found.ljust(16, b"\1")


def _aspect(width: int, height: int) -> int:
    return next(code for (across, down), code in _ASPECTS.items() if width * down == height * across)


def _detailed(timing: Timing, width_mm: int, height_mm: int) -> bytes:
    """Section 3.10.2; syncs are separate, the horizontal one positive (CVT 1.2, reduced blanking)."""
    blank, front, sync = timing.HORIZONTAL_BLANK, timing.HORIZONTAL_FRONT, timing.HORIZONTAL_SYNC
    vertical_front, vertical_sync = timing.VERTICAL_FRONT, timing.vertical_sync
    return struct.pack("<H", timing.clock) + bytes(
        (
            timing.width & 0xFF,
            blank & 0xFF,
            timing.width >> 8 << 4 | blank >> 8,
            timing.height & 0xFF,
            timing.vertical_blank & 0xFF,
            timing.height >> 8 << 4 | timing.vertical_blank >> 8,
            front & 0xFF,
            sync & 0xFF,
            (vertical_front & 0xF) << 4 | vertical_sync & 0xF,
            front >> 8 << 6 | sync >> 8 << 4 | vertical_front >> 4 << 2 | vertical_sync >> 4,
            width_mm & 0xFF,
            height_mm & 0xFF,
            width_mm >> 8 << 4 | height_mm >> 8,
            0,
            0,
            0x1A,
        )
    )


def _text(tag: int, text: str) -> bytes:
    """Section 3.10.3: up to 13 characters, ended by a line feed and filled with spaces."""
    content = text.encode("ascii")[:13]
    if len(content) < 13:
        content = (content + b"\n").ljust(13)
    return bytes((0, 0, 0, tag, 0)) + content
