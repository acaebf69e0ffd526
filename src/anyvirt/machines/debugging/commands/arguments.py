"""What commands have behind their names: counts, numbers, formats, conditions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyvirt.errors import UsageError
from anyvirt.machines.debugging.expressions import Expression

if TYPE_CHECKING:
    from anyvirt.machines.debugging.monitor import Monitor

_FORMAT = re.compile(r"(\d*)([a-z]*)")
_SIZES = {"b": 1, "h": 2, "w": 4, "g": 8}
_CONDITION = re.compile(r"(?:^|\s)if\b")
_MOST_SHOWN = 1 << 16
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def count_of(monitor: Monitor, text: str) -> int:
    """A count: 1 if none is given. Raises UsageError."""
    return monitor.value(text) if text else 1


def number_of(text: str, what: str) -> float:
    """A number such as 0.5. Raises UsageError."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 < number < 1e9:
        raise UsageError(f"{text!r} is no number of {what}")
    return number


def line_to_type(text: str) -> str:
    """What is typed for a text: a line, or in quotes just that, with backslashes as in C."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), text[1:-1])
    return text + "\n"


@dataclass(frozen=True)
class Format:
    """How memory is shown: as gdb's `x/COUNT FORMAT SIZE`."""

    count: int
    letter: str
    size: int


def format_of(text: str, before: Format) -> tuple[Format, str]:
    """The format that text begins with, if it does, and the rest. Raises UsageError."""
    if not text.startswith("/"):
        return Format(1, before.letter, before.size), text
    word, _, rest = text[1:].partition(" ")
    match = _FORMAT.fullmatch(word)
    if match is None:
        raise UsageError(f"/{word} is no format: write /COUNT, a letter of xduocsit, and a size of bhwg")
    count, letter, size = int(match[1] or 1), before.letter, before.size
    for each in match[2]:
        if each in _SIZES:
            size = _SIZES[each]
        elif each in "xduocsit":
            letter = each
        else:
            raise UsageError(f"{each!r} is no format and no size: formats are xduocsit, sizes bhwg")
    if not 0 < count <= _MOST_SHOWN:
        raise UsageError(f"{count} is too many to show")
    return Format(count, letter, size), rest.strip()


def condition_of(text: str) -> tuple[str, Expression | None]:
    """What is before `if`, and the condition behind it. Raises UsageError."""
    match = _CONDITION.search(text)
    if match is None:
        return text, None
    return text[: match.start()].strip(), Expression(text[match.end() :])
