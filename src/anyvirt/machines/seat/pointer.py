"""Pointing at what a machine's display shows."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from anyvirt.devices.evdev import REPORT, Absolute, Event, EventType, Key, Relative
from anyvirt.devices.virtio.input import TABLET_AXIS
from anyvirt.errors import UsageError
from anyvirt.machines.seat.keyboard import pack, send_packed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anyvirt.devices.virtio.input import VirtioInput
    from anyvirt.machines.machine import Machine
    from anyvirt.machines.seat.display import Display

_INPUT = "pointer"
_STEPS = TABLET_AXIS.maximum - TABLET_AXIS.minimum + 1


class Button(IntEnum):
    """Buttons of the pointer."""

    LEFT = Key.BTN_LEFT
    RIGHT = Key.BTN_RIGHT
    MIDDLE = Key.BTN_MIDDLE
    SIDE = Key.BTN_SIDE
    EXTRA = Key.BTN_EXTRA


class Pointer:
    """A pointer that is put somewhere by pixels of the display, as on a tablet.

    What is done with it before the guest has a driver for it is lost.
    """

    def __init__(self, machine: Machine, device: VirtioInput, display: Display) -> None:
        self._machine, self._device, self._display = machine, device, display
        machine.inputs.receive(_INPUT, lambda data: send_packed(device, data))

    @property
    def is_ready(self) -> bool:
        """Whether the guest has a driver for it."""
        return self._device.is_live

    def move(self, x: int, y: int) -> None:
        """Point at a pixel; (0, 0) is the top left corner. Raises UsageError for one that is not there."""
        self._push(self._place(x, y))

    def click(self, x: int, y: int, button: Button | str = Button.LEFT, *, times: int = 1) -> None:
        """Point at a pixel, and press a button (`"left"`, `"right"`, `"middle"`). Raises UsageError."""
        found, events = find_button(button), self._place(x, y)
        for _ in range(times):
            events += [*_change(found, 1), *_change(found, 0)]
        self._push(events)

    def press(self, button: Button | str = Button.LEFT) -> None:
        """Press a button where the pointer is, and hold it."""
        self._push(_change(find_button(button), 1))

    def release(self, button: Button | str = Button.LEFT) -> None:
        """Let a button go."""
        self._push(_change(find_button(button), 0))

    def drag(self, start: tuple[int, int], end: tuple[int, int], button: Button | str = Button.LEFT) -> None:
        """Press a button at one pixel, and let it go at another. Raises UsageError."""
        found = find_button(button)
        self._push([*self._place(*start), *_change(found, 1), *self._place(*end), *_change(found, 0)])

    def scroll(self, steps: int, *, across: bool = False) -> None:
        """Turn the wheel: up (or right) for more than 0, down (or left) for less."""
        code, step = Relative.REL_HWHEEL if across else Relative.REL_WHEEL, 1 if steps > 0 else -1
        self._push(
            event for _ in range(abs(steps)) for event in (Event(EventType.EV_REL, code, step), REPORT)
        )

    def _place(self, x: int, y: int) -> list[Event]:
        width, height = self._display.width, self._display.height
        if not (0 <= x < width and 0 <= y < height):
            raise UsageError(f"there is no pixel at {x}, {y}: the display has {width} x {height}")
        return [
            Event(EventType.EV_ABS, Absolute.ABS_X, _value(x, width)),
            Event(EventType.EV_ABS, Absolute.ABS_Y, _value(y, height)),
            REPORT,
        ]

    def _push(self, events: Iterable[Event]) -> None:
        self._machine.inputs.push(_INPUT, pack(events))


def find_button(name: Button | str) -> Button:
    """A button by its name. Raises UsageError."""
    if isinstance(name, Button):
        return name
    found = Button.__members__.get(name.upper())
    if found is None:
        names = ", ".join(button.name.lower() for button in Button)
        raise UsageError(f"there is no button {name!r}: the buttons are {names}")
    return found


def _value(pixel: int, pixels: int) -> int:
    """The value of an axis in the middle of a pixel, which guests scale back to that pixel."""
    return TABLET_AXIS.minimum + (2 * pixel + 1) * _STEPS // (2 * pixels)


def _change(button: Button, value: int) -> tuple[Event, Event]:
    return Event(EventType.EV_KEY, button, value), REPORT
