"""Codes of input events are those of Linux's header, where that is installed."""

import re
from pathlib import Path

import pytest

from anyvirt.devices import evdev

HEADER = Path("/usr/include/linux/input-event-codes.h")
ENUMS = (evdev.EventType, evdev.Synchronization, evdev.Relative, evdev.Absolute, evdev.Led, evdev.Key)


@pytest.mark.parametrize("enum", ENUMS)
def test_codes_are_those_of_linux(enum):
    if not HEADER.exists():
        pytest.skip(f"{HEADER} is not installed (Debian: linux-libc-dev)")
    found = re.findall(r"#define\s+(\w+)\s+(0x[0-9a-f]+|\d+)\b", HEADER.read_text())
    codes = {name: int(number, 0) for name, number in found}
    assert {code.name: codes.get(code.name) for code in enum} == {code.name: code.value for code in enum}
