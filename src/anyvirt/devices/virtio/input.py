"""virtio-input: keyboards, tablets and other things that people use (VIRTIO 1.2, section 5.8)."""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from anyvirt.devices.evdev import (
    EVENT,
    REPORT,
    Absolute,
    Bus,
    Event,
    EventType,
    Key,
    Led,
    Relative,
)
from anyvirt.devices.virtio.device import DeviceId, VirtioDevice
from anyvirt.devices.virtio.queue import QueueError
from anyvirt.devices.virtio.views import copy_in, copy_out, total

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from anyvirt.devices.bus import DirectMemory
    from anyvirt.devices.virtio.queue import Chain

MOST_EVENTS = 1 << 16
"""That wait until the driver has room; what comes then is lost."""


class InputQueue(IntEnum):
    """Section 5.8.2."""

    EVENT = 0
    STATUS = 1


class Select(IntEnum):
    """What a driver asks for in the configuration space (section 5.8.4)."""

    UNSET = 0x00
    ID_NAME = 0x01
    ID_SERIAL = 0x02
    ID_DEVIDS = 0x03
    PROP_BITS = 0x10
    EV_BITS = 0x11
    ABS_INFO = 0x12


_HEAD = struct.Struct("<BBB5x")
_CONTENT = 128
_IDENTIFIERS = struct.Struct("<4H")
_AXIS = struct.Struct("<5i")
_VENDOR, _VERSION = 0x1AF4, 1


@dataclass(frozen=True)
class Axis:
    """The values of an absolute axis."""

    minimum: int
    maximum: int


@dataclass(frozen=True)
class InputKind:
    """What a device is and which events there are of it."""

    name: str
    product: int
    events: Mapping[int, Collection[int]]
    """Codes by type; those of EV_LED are the driver's to send."""
    axes: Mapping[int, Axis] = field(default_factory=dict)


KEYBOARD = InputKind(
    "anyvirt keyboard",
    1,
    {
        EventType.EV_KEY: [key for key in Key if key.name.startswith("KEY_")],
        EventType.EV_LED: list(Led),
    },
)
"""Without EV_REP: a guest that is slow would repeat keys that were pressed for a moment."""
TABLET_AXIS = Axis(0, 0x7FFF)
TABLET = InputKind(
    "anyvirt tablet",
    2,
    {
        EventType.EV_KEY: [key for key in Key if key.name.startswith("BTN_")],
        EventType.EV_REL: list(Relative),
        EventType.EV_ABS: list(Absolute),
    },
    {Absolute.ABS_X: TABLET_AXIS, Absolute.ABS_Y: TABLET_AXIS},
)
"""A pointer that is put somewhere, where a mouse is moved by something."""


class VirtioInput(VirtioDevice):
    """See the module."""

    device_id = DeviceId.INPUT
    pci_class = 0x090000

    def __init__(
        self,
        memory: DirectMemory,
        kind: InputKind,
        *,
        post: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        super().__init__(memory, queue_sizes=[64, 64], post=post)
        self.kind = kind
        self.told: dict[tuple[int, int], int] = {}
        """What the driver has last told, by type and code: lights that are on, for one."""
        self._select = self._subselect = 0
        self._waiting: deque[Event] = deque()

    # The host's side ------------------------------------------------------------------------------------

    def send(self, events: Iterable[Event]) -> bool:
        """Let events come at the same time; whether there is a driver, and room for them.

        Without a driver they are lost, as what is typed on a keyboard that nobody looks at.
        """
        update = [*events, REPORT]
        if not self.is_live or len(self._waiting) + len(update) > MOST_EVENTS:
            return False
        self._waiting += update
        self.poll(InputQueue.EVENT)
        return True

    # The driver's side ----------------------------------------------------------------------------------

    def config(self) -> bytes:
        """Section 5.8.4."""
        content = self._content()
        return _HEAD.pack(self._select, self._subselect, len(content)) + content.ljust(_CONTENT, b"\0")

    def config_written(self, offset: int, data: bytes) -> None:
        """The driver says what it wants to know."""
        for position, value in enumerate(data[:2], offset):
            if position == 0:
                self._select = value
            elif position == 1:
                self._subselect = value

    def _content(self) -> bytes:
        """What was asked for; nothing if there is none (section 5.8.5.2)."""
        select, subselect = self._select, self._subselect
        if select == Select.EV_BITS:
            return _bits(self.kind.events.get(subselect, ()))
        if select == Select.ABS_INFO:
            axis = self.kind.axes.get(subselect)
            return b"" if axis is None else _AXIS.pack(axis.minimum, axis.maximum, 0, 0, 0)
        if subselect == 0 and select == Select.ID_NAME:
            return self.kind.name.encode()[:_CONTENT]
        if subselect == 0 and select == Select.ID_DEVIDS:
            return _IDENTIFIERS.pack(Bus.BUS_VIRTUAL, _VENDOR, self.kind.product, _VERSION)
        return b""

    def handle(self, index: int, chain: Chain) -> int | None:
        """See VirtioDevice.handle; section 5.8.6."""
        if index == InputQueue.STATUS:
            self._note_status(copy_out(chain.readable, EVENT.size))
            return 0
        if not self._waiting:
            return None
        if total(chain.writable) < EVENT.size:
            raise QueueError("a buffer for input events without room for one")
        return copy_in(chain.writable, EVENT.pack(*self._waiting.popleft()))

    def _note_status(self, content: bytes) -> None:
        """What the device does not know of is ignored."""
        if len(content) < EVENT.size:
            return
        type, code, value = EVENT.unpack(content)
        if type == EventType.EV_LED and code in self.kind.events.get(type, ()):
            self.told[type, code] = value

    # Life -----------------------------------------------------------------------------------------------

    def stopped(self) -> None:
        """See VirtioDevice.stopped."""
        self._select = self._subselect = 0
        self._waiting.clear()
        self.told.clear()

    def save_fields(self) -> dict[str, Any]:
        """See VirtioDevice.save_fields."""
        return {
            "product": self.kind.product,
            "select": [self._select, self._subselect],
            "waiting": b"".join(EVENT.pack(*event) for event in self._waiting),
            "told": [[*key, value] for key, value in self.told.items()],
        }

    def load_fields(self, fields: dict[str, Any]) -> None:
        """See VirtioDevice.load_fields."""
        if fields["product"] != self.kind.product:
            raise ValueError("another kind of input device")
        select, subselect = (int(value) & 0xFF for value in fields["select"])
        try:
            waiting = deque(Event(*values) for values in EVENT.iter_unpack(fields["waiting"]))
        except struct.error:
            raise ValueError("part of an event") from None
        told = {(int(type), int(code)): int(value) for type, code, value in fields["told"]}
        if len(waiting) > MOST_EVENTS or any(
            code not in self.kind.events.get(type, ()) for type, code in told
        ):
            raise ValueError("events that this device has not")
        self._select, self._subselect = select, subselect
        self._waiting, self.told = waiting, told


def _bits(codes: Iterable[int]) -> bytes:
    """A bitmap, without zeros at its end."""
    found = 0
    for code in codes:
        found |= 1 << code
    return found.to_bytes((found.bit_length() + 7) // 8, "little")
