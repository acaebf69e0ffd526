"""Which keys make which characters on a keyboard of the USA, as data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.devices.evdev import Key

if TYPE_CHECKING:
    from collections.abc import Mapping

_ROWS = (
    ("`1234567890-=", "~!@#$%^&*()_+", (Key.KEY_GRAVE, *range(Key.KEY_1, Key.KEY_EQUAL + 1))),
    ("qwertyuiop[]", "QWERTYUIOP{}", range(Key.KEY_Q, Key.KEY_RIGHTBRACE + 1)),
    ("asdfghjkl;'", 'ASDFGHJKL:"', range(Key.KEY_A, Key.KEY_APOSTROPHE + 1)),
    ("\\zxcvbnm,./", "|ZXCVBNM<>?", range(Key.KEY_BACKSLASH, Key.KEY_SLASH + 1)),
    (" \t\n\b\x1b", "", (Key.KEY_SPACE, Key.KEY_TAB, Key.KEY_ENTER, Key.KEY_BACKSPACE, Key.KEY_ESC)),
)
"""Characters without and with Shift, and their keys."""

US: Mapping[str, tuple[Key, bool]] = {
    character: (Key(key), is_shifted)
    for plain, shifted, keys in _ROWS
    for characters, is_shifted in ((plain, False), (shifted, True))
    for character, key in zip(characters, keys, strict=False)
}
"""By character: the key, and whether Shift is held."""

ALIASES = {
    "ALT": "LEFTALT",
    "ALTGR": "RIGHTALT",
    "CTRL": "LEFTCTRL",
    "CONTROL": "LEFTCTRL",
    "DEL": "DELETE",
    "ESCAPE": "ESC",
    "INS": "INSERT",
    "META": "LEFTMETA",
    "PRINT": "SYSRQ",
    "RETURN": "ENTER",
    "SHIFT": "LEFTSHIFT",
    "SUPER": "LEFTMETA",
}
"""What keys are also called."""
