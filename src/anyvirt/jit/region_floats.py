"""Loads and stores of doubles in regions go to and from the host's vector registers directly.

Semantics move 64 bits, and registers of a guest that hold floating-point numbers are doubles in a region: as
written, a load goes through a general register. Where the 64 bits are used for nothing else, it need not.
"""

from __future__ import annotations

import re

_NAME = r"%[\w.]+\x01u\x02"
_TO_DOUBLE = re.compile(rf"  ({_NAME}) = bitcast i64 ({_NAME}) to double")
_FROM_DOUBLE = re.compile(rf"  ({_NAME}) = bitcast double ({_NAME}) to i64")
_LOAD = 'callbr i64 asm sideeffect "1: movq '
_STORE = 'callbr void asm sideeffect "1: movq ${1:q}, '


def move_doubles(lines: list[str]) -> list[str]:
    """The lines of a template with such loads and stores."""
    text = "\n".join(lines)
    result = list(lines)
    for position, line in enumerate(lines):
        if (match := _TO_DOUBLE.fullmatch(line)) and text.count(match[2]) == 2:
            _load(result, position, *match.groups())
        elif (match := _FROM_DOUBLE.fullmatch(line)) and text.count(match[1]) == 2:
            _store(result, position, *match.groups())
    return [line for line in result if line]


def _load(lines: list[str], position: int, number: str, bits: str) -> None:
    """Let `number` be what was loaded as `bits`, if it was."""
    changes = ((bits, number), ("callbr i64", "callbr double"), ("movq", "movsd"), ('"=r,', '"=x,'))
    for place, line in enumerate(lines):
        if line.startswith(f"  {bits} = {_LOAD}"):
            lines[place], lines[position] = _changed(line, changes), ""


def _store(lines: list[str], position: int, bits: str, number: str) -> None:
    """Store `number` instead of its `bits`, if those are stored."""
    changes = ((f"i64 {bits}", f"double {number}"), ('"=*m,r,', '"=*m,x,'), ("movq ${1:q}", "movsd $1"))
    for place, line in enumerate(lines):
        if line.startswith(f"  {_STORE}") and f", i64 {bits})" in line:
            lines[place], lines[position] = _changed(line, changes), ""


def _changed(line: str, changes: tuple[tuple[str, str], ...]) -> str:
    for old, new in changes:
        line = line.replace(old, new)
    return line
