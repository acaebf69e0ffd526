"""Breakpoints and watchpoints: setting them, with conditions, and taking them away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.errors import UsageError
from anyvirt.machines.debugging.commands.arguments import condition_of
from anyvirt.machines.debugging.commands.table import Section, command
from anyvirt.machines.debugging.expressions import Expression
from anyvirt.machines.debugging.points import Kind, Point

if TYPE_CHECKING:
    from anyvirt.machines.debugging.monitor import Monitor

_USUAL_LENGTH = 8


@command("break", "b", usage="[ADDRESS] [if CONDITION]", section=Section.POINTS)
def set_breakpoint(monitor: Monitor, text: str) -> str:
    """Stop before the instruction at an address, which is that of the hart unless given.

    The address is virtual, in whatever address space; the condition is about the hart that comes there:
    `break do_exit if $a0 != 0`. Without arguments it is where the hart stands.
    """
    return _break(monitor, text, is_temporary=False)


@command("tbreak", "tb", usage="[ADDRESS] [if CONDITION]", section=Section.POINTS)
def set_temporary(monitor: Monitor, text: str) -> str:
    """As `break`, but only once."""
    return _break(monitor, text, is_temporary=True)


def _break(monitor: Monitor, text: str, *, is_temporary: bool) -> str:
    address, condition = condition_of(text)
    place = monitor.value(address) if address else monitor.hart.pc
    point = monitor.points.add(Kind.BREAK, place, condition=condition, is_temporary=is_temporary)
    return f"{point.kind} {point.number} at {monitor.place(point.address)}"


@command("watch", usage="ADDRESS [, BYTES] [if CONDITION]", section=Section.POINTS)
def watch_writes(monitor: Monitor, text: str) -> str:
    """Stop behind each store to memory: 8 bytes unless said otherwise.

    The address is virtual. While memory is watched, code is interpreted.
    """
    return _watch(monitor, text, Kind.WRITE)


@command("rwatch", usage="ADDRESS [, BYTES] [if CONDITION]", section=Section.POINTS)
def watch_reads(monitor: Monitor, text: str) -> str:
    """As `watch`, for loads."""
    return _watch(monitor, text, Kind.READ)


@command("awatch", usage="ADDRESS [, BYTES] [if CONDITION]", section=Section.POINTS)
def watch_accesses(monitor: Monitor, text: str) -> str:
    """As `watch`, for loads and stores."""
    return _watch(monitor, text, Kind.ACCESS)


def _watch(monitor: Monitor, text: str, kind: Kind) -> str:
    place, condition = condition_of(text)
    address, comma, length = place.partition(",")
    size = monitor.value(length) if comma else _USUAL_LENGTH
    point = monitor.points.add(kind, monitor.value(address), length=size, condition=condition)
    return f"{point.kind} {point.number} on {size} bytes at {monitor.place(point.address)}"


@command("points", "breakpoints", usage="", section=Section.POINTS)
def list_points(monitor: Monitor, text: str) -> str:
    """Show all breakpoints and watchpoints, with how often they were hit."""
    lines = [_line(monitor, point) for point in monitor.points]
    return "\n".join(lines) or "there are no breakpoints and watchpoints"


def _line(monitor: Monitor, point: Point) -> str:
    words = [f"{point.number}: {point.kind} {monitor.place(point.address)}"]
    if point.length:
        words.append(f"{point.length} bytes")
    if point.condition is not None:
        words.append(f"if {point.condition.text}")
    if point.is_temporary:
        words.append("once")
    if not point.is_enabled:
        words.append("disabled")
    words.append(f"hit {point.hits} times" if point.hits != 1 else "hit once")
    return ", ".join(words)


@command("delete", "d", usage="[NUMBER...]", section=Section.POINTS)
def delete(monitor: Monitor, text: str) -> str:
    """Remove breakpoints and watchpoints by their numbers, or all."""
    for point in _points(monitor, text):
        monitor.points.remove(point)
    return ""


@command("disable", usage="[NUMBER...]", section=Section.POINTS)
def disable(monitor: Monitor, text: str) -> str:
    """Let breakpoints and watchpoints be without effect."""
    for point in _points(monitor, text):
        monitor.points.enable(point, False)
    return ""


@command("enable", usage="[NUMBER...]", section=Section.POINTS)
def enable(monitor: Monitor, text: str) -> str:
    """Let breakpoints and watchpoints stop the machine again."""
    for point in _points(monitor, text):
        monitor.points.enable(point, True)
    return ""


@command("condition", usage="NUMBER [CONDITION]", section=Section.POINTS)
def set_condition(monitor: Monitor, text: str) -> str:
    """Give a breakpoint or watchpoint a condition, or none."""
    number, _, condition = text.partition(" ")
    (point,) = _points(monitor, number or "0")
    point.condition = Expression(condition) if condition.strip() else None
    return _line(monitor, point)


@command("ignore", usage="NUMBER COUNT", section=Section.POINTS)
def ignore(monitor: Monitor, text: str) -> str:
    """Pass a breakpoint or watchpoint COUNT times without stopping."""
    number, _, count = text.partition(" ")
    (point,) = _points(monitor, number or "0")
    point.ignored = monitor.value(count)
    return _line(monitor, point)


def _points(monitor: Monitor, text: str) -> list[Point]:
    words = text.split()
    if not words:
        return list(monitor.points)
    if not all(word.isdecimal() for word in words):
        raise UsageError(f"{text!r} are no numbers of breakpoints: `points` shows them")
    return [monitor.points[int(word)] for word in words]
