"""EDID: what a monitor of a size says, read back by the standard's layout, and by edid-decode where it is."""

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyvirt.devices.edid import MOST_PIXELS, SIZE, edid

SIZES = [(640, 480), (800, 600), (1024, 768), (1280, 720), (1366, 768), (1920, 1080), (4095, 4095)]


def detailed_timing(block):
    """(width, height, pixel clock in Hz, pixels of a line, lines of a frame)."""
    at = block[54:72]
    width, blank = at[2] | at[4] >> 4 << 8, at[3] | (at[4] & 15) << 8
    height, lines = at[5] | at[7] >> 4 << 8, at[6] | (at[7] & 15) << 8
    return width, height, (at[0] | at[1] << 8) * 10_000, width + blank, height + lines


@given(st.integers(16, MOST_PIXELS), st.integers(16, MOST_PIXELS))
def test_every_size_makes_a_block_that_says_it(width, height):
    block = edid(width, height)
    assert len(block) == SIZE
    assert sum(block) % 256 == 0
    assert block[:8] == bytes.fromhex("00ffffffffffff00")
    assert block[18:20] == b"\1\4"
    across, down, clock, line, frame = detailed_timing(block)
    assert (across, down) == (width, height)
    assert line > width and frame > height
    refresh = clock / line / frame
    assert refresh <= 60.01 or clock == 10_000_000
    assert refresh > 58 or clock == 655_350_000


def test_timings_are_those_of_the_standard():
    """The reduced blanking modes that VESA lists: 138.50 MHz for 1920x1080, 119.00 MHz for 1680x1050."""
    assert detailed_timing(edid(1920, 1080)) == (1920, 1080, 138_500_000, 2080, 1111)
    assert detailed_timing(edid(1680, 1050)) == (1680, 1050, 119_000_000, 1840, 1080)
    assert detailed_timing(edid(1280, 800)) == (1280, 800, 71_000_000, 1440, 823)


def test_a_name_is_a_descriptor():
    assert b"\xfc\x00anyvirt\n     " in edid(800, 600)
    assert b"\xfc\x00a monitor of " in edid(800, 600, name="a monitor of mine")


@pytest.mark.parametrize("size", SIZES)
def test_edid_decode_finds_no_fault(size):
    if shutil.which("edid-decode") is None:
        pytest.skip("edid-decode is not installed (Debian: edid-decode)")
    found = subprocess.run(["edid-decode", "--check", "-"], input=edid(*size), capture_output=True)
    assert b"EDID conformity: PASS" in found.stdout, found.stdout.decode()
