"""Typing on a machine's keyboard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.devices.evdev import EVENT, REPORT, Event, EventType, Key, Led
from anyvirt.errors import UsageError
from anyvirt.machines.seat.keymap import ALIASES, US

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anyvirt.devices.virtio.input import VirtioInput
    from anyvirt.machines.machine import Machine

_INPUT = "keyboard"


class Keyboard:
    """A keyboard of the USA. What is typed before the guest has a driver for it is lost."""

    def __init__(self, machine: Machine, device: VirtioInput) -> None:
        self._machine, self._device = machine, device
        machine.inputs.receive(_INPUT, lambda data: send_packed(device, data))

    @property
    def is_ready(self) -> bool:
        """Whether the guest has a driver for it."""
        return self._device.is_live

    @property
    def lights(self) -> frozenset[Led]:
        """The lights that the guest has turned on."""
        told = dict(self._device.told)
        return frozenset(light for light in Led if told.get((EventType.EV_LED, light)))

    def type(self, text: str) -> None:
        """Press the keys of a text one after the other, a line feed as Enter.

        The guest takes them as it has room; of what waits more than 65536 events are lost. Raises UsageError
        for characters that are not on the keyboard.
        """
        events: list[Event] = []
        for character in text:
            if character not in US:
                raise UsageError(f"{character!r} is not on the keyboard: it is one of the USA")
            key, is_shifted = US[character]
            events += _chord((Key.KEY_LEFTSHIFT, key) if is_shifted else (key,))
        self._push(events)

    def press(self, *keys: Key | str) -> None:
        """Press keys together and let them go: `press("ctrl", "alt", "f2")`, `press("enter")`.

        A key is called as in `anyvirt.devices.evdev.Key`, without `KEY_`, or by what is on it. Raises
        UsageError.
        """
        self._push(_chord([find_key(key) for key in keys]))

    def hold(self, *keys: Key | str) -> None:
        """Press keys and hold them until `release`."""
        self._push(event for key in keys for event in _change(find_key(key), 1))

    def release(self, *keys: Key | str) -> None:
        """Let keys go."""
        self._push(event for key in keys for event in _change(find_key(key), 0))

    def _push(self, events: Iterable[Event]) -> None:
        self._machine.inputs.push(_INPUT, pack(events))


def find_key(name: Key | str) -> Key:
    """A key by its name. Raises UsageError."""
    if isinstance(name, Key):
        return name
    if name in US and not US[name][1]:
        return US[name][0]
    plain = name.upper().removeprefix("KEY_")
    found = Key.__members__.get(f"KEY_{ALIASES.get(plain, plain)}")
    if found is None:
        raise UsageError(f"there is no key {name!r}; keys are called as in enter, esc, ctrl, f1, a")
    return found


def pack(events: Iterable[Event]) -> bytes:
    """Events as they come by `machine.inputs`."""
    return b"".join(EVENT.pack(*event) for event in events)


def send_packed(device: VirtioInput, data: bytes) -> None:
    """Let events come that were packed: those between two reports at the same time."""
    update: list[Event] = []
    for values in EVENT.iter_unpack(data):
        event = Event(*values)
        if event == REPORT:
            device.send(update)
            update = []
        else:
            update.append(event)


def _chord(keys: Iterable[Key]) -> list[Event]:
    """Keys pressed one after the other, and let go in the opposite order."""
    pressed = list(keys)
    down = [event for key in pressed for event in _change(key, 1)]
    return down + [event for key in reversed(pressed) for event in _change(key, 0)]


def _change(key: Key, value: int) -> tuple[Event, Event]:
    return Event(EventType.EV_KEY, key, value), REPORT
