"""A virtio device on PCI: virtio-pci without the legacy interface.

VIRTIO 1.2, section 4.1. BAR 4 holds the four structures that a driver finds by their capabilities, BAR 1 the
table of MSI-X. Interrupts go by MSI-X if the driver enables it, by INTx otherwise.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING

from anyvirt.devices.bus import StateError, expect_version
from anyvirt.devices.pci.function import Bar, Command, PciFunction
from anyvirt.devices.pci.msix import MOST_VECTORS, MsiX

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.devices.bus import State
    from anyvirt.devices.virtio.device import VirtioDevice

VENDOR = 0x1AF4
FIRST_DEVICE_ID = 0x1040
"""Plus the kind of device (section 4.1.2.1)."""
SUBSYSTEM = 0x40
"""Not less than this for devices without the legacy interface (section 4.1.2.1)."""
VENDOR_CAPABILITY = 0x09
NO_VECTOR = 0xFFFF
NOTIFY_MULTIPLIER = 4
MSIX_BAR, BAR = 1, 4
STATE_VERSION = 1

_WORD = 0xFFFFFFFF
_PART = 0x1000


class CapabilityType(IntEnum):
    """What a structure is (section 4.1.4)."""

    COMMON = 1
    NOTIFY = 2
    ISR = 3
    DEVICE = 4
    PCI_CFG = 5


class Common(IntEnum):
    """Offsets in the common configuration structure (section 4.1.4.3)."""

    DEVICE_FEATURE_SELECT = 0
    DEVICE_FEATURE = 4
    DRIVER_FEATURE_SELECT = 8
    DRIVER_FEATURE = 12
    CONFIG_MSIX_VECTOR = 16
    NUM_QUEUES = 18
    DEVICE_STATUS = 20
    CONFIG_GENERATION = 21
    QUEUE_SELECT = 22
    QUEUE_SIZE = 24
    QUEUE_MSIX_VECTOR = 26
    QUEUE_ENABLE = 28
    QUEUE_NOTIFY_OFF = 30
    QUEUE_DESC = 32
    QUEUE_DRIVER = 40
    QUEUE_DEVICE = 48
    QUEUE_NOTIFY_DATA = 56
    QUEUE_RESET = 58


class Isr(IntFlag):
    """Causes of an interrupt (section 4.1.4.5)."""

    QUEUE = 1
    CONFIG = 2


_OFFSETS = frozenset(map(int, Common))
_COMMON = struct.Struct("<IIIIHHBBHHHHHQQQHH")
_WIDTHS = {
    **dict.fromkeys((Common.DEVICE_FEATURE_SELECT, Common.DRIVER_FEATURE_SELECT, Common.DRIVER_FEATURE), 4),
    **dict.fromkeys((Common.QUEUE_DESC, Common.QUEUE_DRIVER, Common.QUEUE_DEVICE), 8),
    Common.DEVICE_STATUS: 1,
}
"""Of what can be stored to, in bytes; 2 for the rest."""
_AREAS = {
    Common.QUEUE_DESC: "descriptors",
    Common.QUEUE_DRIVER: "driver",
    Common.QUEUE_DEVICE: "device",
}


class _Part:
    """One page of the BAR; what is behind it differs from page to page."""

    def __init__(self, read: Callable[[int, int], int], write: Callable[[int, int, int], None]) -> None:
        self.read, self.write = read, write


class VirtioPci:
    """See the module. `function` goes onto a bus, which also saves and resets it."""

    def __init__(self, device: VirtioDevice, *, vectors: int | None = None) -> None:
        """With one MSI-X vector for each queue and one for changes of the configuration by default."""
        self.device = device
        self.function = PciFunction(
            vendor=VENDOR,
            device=FIRST_DEVICE_ID + device.device_id,
            class_code=device.pci_class,
            revision=1,
            subsystem_vendor=VENDOR,
            subsystem=SUBSYSTEM,
            has_interrupt=True,
        )
        queues = len(device.settings)
        self._parts = (
            (CapabilityType.COMMON, _COMMON.size, _Part(self._read_common, self._write_common)),
            (CapabilityType.ISR, 1, _Part(self._read_isr, self._ignore)),
            (CapabilityType.DEVICE, _PART, _Part(device.read_config, device.write_config)),
            (CapabilityType.NOTIFY, NOTIFY_MULTIPLIER * queues, _Part(self._nothing, self._notify)),
        )
        self.function.add_bar(Bar(BAR, _PART * len(self._parts), self, is_64bit=True, prefetchable=True))
        self._msix = MsiX(self.function, vectors=min(vectors or queues + 1, MOST_VECTORS), bar=MSIX_BAR)
        for position, (kind, length, _) in enumerate(self._parts):
            extra = struct.pack("<I", NOTIFY_MULTIPLIER) if kind is CapabilityType.NOTIFY else b""
            self.function.add_capability(
                VENDOR_CAPABILITY, _capability(kind, _PART * position, length, extra)
            )
        self._window = self.function.add_capability(
            VENDOR_CAPABILITY,
            _capability(CapabilityType.PCI_CFG, 0, 0, bytes(4)),
            bytes(2) + b"\xff" + bytes(3) + b"\xff" * 12,
        )
        self.function.on_access.append(self._window_read)
        self.function.on_write.append(self._window_written)
        self.function.on_change.append(self._function_changed)
        device.transport = self
        self._clear()
        self._function_changed()

    def _clear(self) -> None:
        self._isr = Isr(0)
        self._device_select = self._driver_select = self._queue_select = 0
        self._config_vector = NO_VECTOR
        self._vectors = [NO_VECTOR] * len(self.device.settings)

    # Interrupts -----------------------------------------------------------------------------------------

    def queue_used(self, index: int, /) -> None:
        """See Transport.queue_used; section 4.1.5.3."""
        if self._msix.is_enabled:
            self._msix.notify(self._vectors[index])
        else:
            self._raise(Isr.QUEUE)

    def config_changed(self) -> None:
        """See Transport.config_changed; section 4.1.5.4."""
        self._raise(Isr.CONFIG)
        self._msix.notify(self._config_vector)

    def _raise(self, cause: Isr) -> None:
        self._isr |= cause
        self._drive()

    def _drive(self) -> None:
        self.function.set_interrupt(bool(self._isr) and not self._msix.is_enabled)

    def _function_changed(self) -> None:
        self.device.allow_memory(bool(self.function.command & Command.BUS_MASTER))
        self._drive()

    # BAR ------------------------------------------------------------------------------------------------

    def read(self, offset: int, size: int, /) -> int:
        """See BusDevice.read."""
        return self._parts[offset // _PART][2].read(offset % _PART, size)

    def write(self, offset: int, size: int, value: int, /) -> None:
        """See BusDevice.write."""
        self._parts[offset // _PART][2].write(offset % _PART, size, value)

    def _nothing(self, offset: int, size: int) -> int:
        return 0

    def _ignore(self, offset: int, size: int, value: int) -> None:
        pass

    def _read_isr(self, offset: int, size: int) -> int:
        """Reading acknowledges (section 4.1.4.5)."""
        if offset:
            return 0
        causes, self._isr = self._isr, Isr(0)
        self._drive()
        return causes

    def _notify(self, offset: int, size: int, value: int) -> None:
        if offset % NOTIFY_MULTIPLIER == 0:
            self.device.notify(offset // NOTIFY_MULTIPLIER)

    def _read_common(self, offset: int, size: int) -> int:
        device, index = self.device, self._queue_select
        queue = (0, NO_VECTOR, 0, 0, 0, 0, 0)
        if index < len(device.settings):
            settings = device.settings[index]
            queue = (
                settings.size,
                self._vectors[index],
                int(device.is_enabled(index)),
                index,
                settings.descriptors,
                settings.driver,
                settings.device,
            )
        content = _COMMON.pack(
            self._device_select,
            device.offered_word(self._device_select),
            self._driver_select,
            device.accepted_word(self._driver_select),
            self._config_vector,
            len(device.settings),
            device.status,
            device.generation,
            index,
            *queue,
            0,
            0,
        )
        return int.from_bytes(content[offset : offset + size], "little")

    def _write_common(self, offset: int, size: int, value: int) -> None:
        """Fields are stored to as they are wide, those of 64 bits also by halves (section 4.1.3.1)."""
        field = offset & ~7 if offset >= Common.QUEUE_DESC else offset
        if field in _AREAS and size >= 4 and offset % size == 0:
            self._write_area(Common(field), offset - field, size, value)
            return
        if offset not in _OFFSETS or size != _WIDTHS.get(Common(offset), 2):
            return
        value &= (1 << 8 * size) - 1
        match offset:
            case Common.DEVICE_FEATURE_SELECT:
                self._device_select = value
            case Common.DRIVER_FEATURE_SELECT:
                self._driver_select = value
            case Common.DRIVER_FEATURE:
                self.device.accept_word(self._driver_select, value)
            case Common.CONFIG_MSIX_VECTOR:
                self._config_vector = self._vector(value)
            case Common.DEVICE_STATUS:
                self._set_status(value)
            case Common.QUEUE_SELECT:
                self._queue_select = value
            case _:
                if self._queue_select < len(self.device.settings):
                    self._write_queue(offset, value)

    def _set_status(self, value: int) -> None:
        if value:
            self.device.set_status(value)
        else:
            self._reset_device()

    def _write_queue(self, offset: int, value: int) -> None:
        device, index = self.device, self._queue_select
        match offset:
            case Common.QUEUE_SIZE if not device.is_enabled(index):
                device.settings[index].size = value
            case Common.QUEUE_MSIX_VECTOR:
                self._vectors[index] = self._vector(value)
            case Common.QUEUE_ENABLE if value == 1:
                device.enable_queue(index)
            case Common.QUEUE_RESET if value == 1:
                device.reset_queue(index)

    def _write_area(self, field: Common, within: int, size: int, value: int) -> None:
        index = self._queue_select
        if index < len(self.device.settings) and not self.device.is_enabled(index):
            settings, name = self.device.settings[index], _AREAS[field]
            mask, shift = (1 << 8 * size) - 1, 8 * within
            setattr(settings, name, getattr(settings, name) & ~(mask << shift) | (value & mask) << shift)

    def _vector(self, value: int) -> int:
        """Vectors that are not there cannot be chosen (section 4.1.5.1.2)."""
        return value if value < self._msix.vectors else NO_VECTOR

    # The BAR through the configuration space (section 4.1.4.9) ------------------------------------------

    def _window_target(self, offset: int, size: int) -> tuple[Bar, int, int] | None:
        """What an access to the window reaches: a BAR, an offset and a length in it."""
        data = self._window + 16
        bar = self.function.bars.get(self.function.get(self._window + 4, 1))
        start, length = self.function.get(self._window + 8, 4), self.function.get(self._window + 12, 4)
        if not (offset < data + 4 and offset + size > data) or bar is None:
            return None
        if length not in (1, 2, 4) or start % length or start + length > bar.size:
            return None
        return bar, start, length

    def _window_read(self, offset: int, size: int) -> None:
        target = self._window_target(offset, size)
        if target is not None:
            bar, start, length = target
            self.function.put(self._window + 16, 4, bar.registers.read(start, length))

    def _window_written(self, offset: int, size: int) -> None:
        target = self._window_target(offset, size)
        if target is not None:
            bar, start, length = target
            bar.registers.write(start, length, self.function.get(self._window + 16, length))

    # Life -----------------------------------------------------------------------------------------------

    def _reset_device(self) -> None:
        self.device.reset()
        self._clear()
        self._drive()

    def reset(self) -> None:
        """Become as after power-on, except for the function, which the bus resets."""
        self._reset_device()
        self._msix.reset()

    def save_state(self) -> State:
        """All but the function's configuration space, which the bus saves."""
        return {
            "version": STATE_VERSION,
            "isr": int(self._isr),
            "selected": [self._device_select, self._driver_select, self._queue_select],
            "config_vector": self._config_vector,
            "vectors": list(self._vectors),
            "msix": self._msix.save_state(),
            "device": self.device.save_state(),
        }

    def load_state(self, state: State, /) -> None:
        """See BusDevice.load_state; after the bus's."""
        expect_version(state, STATE_VERSION, "virtio-pci")
        try:
            isr = Isr(int(state["isr"]) & 3)
            device_select, driver_select, queue_select = (int(value) & _WORD for value in state["selected"])
            config_vector = self._vector(int(state["config_vector"]))
            vectors = [self._vector(int(vector)) for vector in state["vectors"]]
            msix, saved = state["msix"], state["device"]
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(f"the saved state of virtio-pci is damaged ({error})") from None
        if len(vectors) != len(self._vectors):
            raise StateError("the saved state is of a device with other queues")
        before = self._msix.save_state()
        self._msix.load_state(msix)
        try:
            self.device.load_state(saved)
        except StateError:
            self._msix.load_state(before)
            raise
        self._isr, self._config_vector, self._vectors = isr, config_vector, vectors
        self._device_select, self._driver_select = device_select, driver_select
        self._queue_select = queue_select & 0xFFFF
        self._function_changed()


def _capability(kind: CapabilityType, offset: int, length: int, extra: bytes = b"") -> bytes:
    """What follows the header of a structure's capability (section 4.1.4)."""
    size = 16 + len(extra)
    return struct.pack("<BBBBHII", size, kind, BAR, 0, 0, offset, length) + extra
