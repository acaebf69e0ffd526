"""The display, the keyboard and the pointer of a machine that has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.errors import UsageError
from anyvirt.machines.debugging.commands.arguments import line_to_type
from anyvirt.machines.debugging.commands.table import Completion, Section, command

if TYPE_CHECKING:
    from anyvirt.machines.debugging.monitor import Monitor


@command("screenshot", "screendump", usage="FILE", section=Section.DEVICES, completion=Completion.FILE)
def screenshot(monitor: Monitor, text: str) -> str:
    """Write what the display shows to a file, such as a .png."""
    if not text:
        raise UsageError("write `screenshot FILE`")
    picture = monitor.machine.screenshot(text)
    return f"{picture.width} x {picture.height} pixels were written"


@command("type", usage="TEXT", section=Section.DEVICES, completion=Completion.NOTHING)
def type_line(monitor: Monitor, text: str) -> str:
    """Type a line on the keyboard of the display; in quotes it is typed as it is, with \\n for Enter."""
    monitor.machine.keyboard.type(line_to_type(text))
    return ""


@command("press", "sendkey", usage="KEY ...", section=Section.DEVICES, completion=Completion.NOTHING)
def press(monitor: Monitor, text: str) -> str:
    """Press keys together and let them go: `press ctrl alt f2`."""
    if not text:
        raise UsageError("write `press KEY`")
    monitor.machine.keyboard.press(*text.split())
    return ""


@command("click", usage="X Y [BUTTON]", section=Section.DEVICES, completion=Completion.NOTHING)
def click(monitor: Monitor, text: str) -> str:
    """Point at a pixel of the display, and press a button: left, right or middle."""
    match text.split():
        case [x, y, *button] if len(button) <= 1:
            monitor.machine.pointer.click(monitor.value(x), monitor.value(y), *button)
            return ""
    raise UsageError("write `click X Y` or `click X Y BUTTON`")
