"""A virtio device as memory-mapped registers: virtio-mmio, version 2.

VIRTIO 1.2, section 4.2. A slot without a device shows the device ID 0, and drivers leave it alone.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING

from anyvirt.devices.bus import StateError, expect_version

if TYPE_CHECKING:
    from anyvirt.devices.bus import State, Wire
    from anyvirt.devices.virtio.device import VirtioDevice

MAGIC = 0x74726976
VERSION = 2
VENDOR = 0x554D4551
"""QEMU's, which drivers of small kernels insist on."""
SIZE = 0x200
"""Bytes of registers that Linux's device trees describe; boards space slots by 0x1000."""
CONFIG = 0x100
STATE_VERSION = 1

_WORD = 0xFFFFFFFF


class Register(IntEnum):
    """Offsets (section 4.2.2)."""

    MAGIC_VALUE = 0x000
    VERSION = 0x004
    DEVICE_ID = 0x008
    VENDOR_ID = 0x00C
    DEVICE_FEATURES = 0x010
    DEVICE_FEATURES_SEL = 0x014
    DRIVER_FEATURES = 0x020
    DRIVER_FEATURES_SEL = 0x024
    QUEUE_SEL = 0x030
    QUEUE_NUM_MAX = 0x034
    QUEUE_NUM = 0x038
    QUEUE_READY = 0x044
    QUEUE_NOTIFY = 0x050
    INTERRUPT_STATUS = 0x060
    INTERRUPT_ACK = 0x064
    STATUS = 0x070
    QUEUE_DESC_LOW = 0x080
    QUEUE_DESC_HIGH = 0x084
    QUEUE_DRIVER_LOW = 0x090
    QUEUE_DRIVER_HIGH = 0x094
    QUEUE_DEVICE_LOW = 0x0A0
    QUEUE_DEVICE_HIGH = 0x0A4
    SHM_LEN_LOW = 0x0B0
    SHM_LEN_HIGH = 0x0B4
    SHM_BASE_LOW = 0x0B8
    SHM_BASE_HIGH = 0x0BC
    QUEUE_RESET = 0x0C0
    CONFIG_GENERATION = 0x0FC


class Interrupt(IntFlag):
    """Causes (section 4.2.2, InterruptStatus)."""

    USED_BUFFER = 1
    CONFIG_CHANGE = 2


_OFFSETS = frozenset(map(int, Register))
_SHARED_MEMORY = range(Register.SHM_LEN_LOW, Register.SHM_BASE_HIGH + 4)
"""There is none, which all ones say (section 4.2.2)."""
_AREAS = {
    Register.QUEUE_DESC_LOW: ("descriptors", 0),
    Register.QUEUE_DESC_HIGH: ("descriptors", 32),
    Register.QUEUE_DRIVER_LOW: ("driver", 0),
    Register.QUEUE_DRIVER_HIGH: ("driver", 32),
    Register.QUEUE_DEVICE_LOW: ("device", 0),
    Register.QUEUE_DEVICE_HIGH: ("device", 32),
}


class VirtioMmio:
    """See the module."""

    def __init__(self, device: VirtioDevice | None, *, interrupt: Wire) -> None:
        """An empty slot without `device`."""
        self.device = device
        self._interrupt = interrupt
        self._clear()
        if device is not None:
            device.transport = self

    def _clear(self) -> None:
        self._causes = Interrupt(0)
        self._device_features_sel = self._driver_features_sel = self._queue_sel = 0

    # The device's side ----------------------------------------------------------------------------------

    def queue_used(self, index: int, /) -> None:
        """See Transport.queue_used."""
        self._raise(Interrupt.USED_BUFFER)

    def config_changed(self) -> None:
        """See Transport.config_changed."""
        self._raise(Interrupt.CONFIG_CHANGE)

    def _raise(self, cause: Interrupt) -> None:
        self._causes |= cause
        # Each event is an edge, also for drivers that have not acknowledged the one before.
        self._interrupt.set(False)
        self._interrupt.set(True)

    def _acknowledge(self, causes: int) -> None:
        self._causes &= ~Interrupt(causes & 3)
        self._interrupt.set(bool(self._causes))

    # The driver's side ----------------------------------------------------------------------------------

    def read(self, offset: int, size: int, /) -> int:
        """See BusDevice.read. Registers are read as aligned words (section 4.2.2.2)."""
        if offset >= CONFIG:
            return 0 if self.device is None else self.device.read_config(offset - CONFIG, size)
        if size != 4 or offset % 4:
            return 0
        common = {Register.MAGIC_VALUE: MAGIC, Register.VERSION: VERSION, Register.VENDOR_ID: VENDOR}
        if offset in common:
            return common[Register(offset)]
        return 0 if self.device is None else self._read(offset, self.device)

    def _read(self, offset: int, device: VirtioDevice) -> int:
        if offset in _SHARED_MEMORY:
            return _WORD
        values = {
            Register.DEVICE_ID: int(device.device_id),
            Register.DEVICE_FEATURES: device.offered_word(self._device_features_sel),
            Register.INTERRUPT_STATUS: int(self._causes),
            Register.STATUS: device.status,
            Register.CONFIG_GENERATION: device.generation,
        }
        if self._queue_sel < len(device.settings):
            values[Register.QUEUE_NUM_MAX] = device.settings[self._queue_sel].maximum
            values[Register.QUEUE_READY] = int(device.is_enabled(self._queue_sel))
        return values.get(Register(offset), 0) if offset in _OFFSETS else 0

    def write(self, offset: int, size: int, value: int, /) -> None:
        """See BusDevice.write."""
        device = self.device
        if device is None:
            return
        if offset >= CONFIG:
            device.write_config(offset - CONFIG, size, value)
        elif size == 4 and not offset % 4:
            self._write(offset, value & _WORD, device)

    def _write(self, offset: int, value: int, device: VirtioDevice) -> None:
        match offset:
            case Register.DEVICE_FEATURES_SEL:
                self._device_features_sel = value
            case Register.DRIVER_FEATURES_SEL:
                self._driver_features_sel = value
            case Register.DRIVER_FEATURES:
                device.accept_word(self._driver_features_sel, value)
            case Register.QUEUE_SEL:
                self._queue_sel = value
            case Register.QUEUE_NOTIFY:
                device.notify(value)
            case Register.INTERRUPT_ACK:
                self._acknowledge(value)
            case Register.STATUS:
                if value & 0xFF:
                    device.set_status(value & 0xFF)
                else:
                    self.reset()
            case _:
                if self._queue_sel < len(device.settings):
                    self._write_queue(offset, value, device)

    def _write_queue(self, offset: int, value: int, device: VirtioDevice) -> None:
        """What concerns the selected queue; addresses and size stay while it is enabled."""
        index = self._queue_sel
        enabled, settings = device.is_enabled(index), device.settings[index]
        if offset == Register.QUEUE_RESET and value == 1:
            device.reset_queue(index)
        elif offset == Register.QUEUE_READY:
            if value == 1:
                device.enable_queue(index)
            elif value == 0:
                device.disable_queue(index)
        elif offset == Register.QUEUE_NUM and not enabled:
            settings.size = value
        elif offset in _AREAS and not enabled:
            name, shift = _AREAS[Register(offset)]
            setattr(settings, name, getattr(settings, name) & ~(_WORD << shift) | value << shift)

    # Life -----------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """See BusDevice.reset; also what a driver that stores 0 to the status gets."""
        if self.device is not None:
            self.device.reset()
        self._clear()
        self._interrupt.set(False)

    def save_state(self) -> State:
        """See BusDevice.save_state."""
        return {
            "version": STATE_VERSION,
            "causes": int(self._causes),
            "selected": [self._device_features_sel, self._driver_features_sel, self._queue_sel],
            "device": None if self.device is None else self.device.save_state(),
        }

    def load_state(self, state: State, /) -> None:
        """See BusDevice.load_state."""
        expect_version(state, STATE_VERSION, "virtio-mmio")
        try:
            causes = Interrupt(int(state["causes"]) & 3)
            device_sel, driver_sel, queue_sel = (int(value) & _WORD for value in state["selected"])
            saved = state["device"]
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(f"the saved state of virtio-mmio is damaged ({error})") from None
        if (saved is None) is not (self.device is None):
            raise StateError("the saved state is of a slot with another device")
        if self.device is not None:
            self.device.load_state(saved)
        self._causes = causes
        self._device_features_sel, self._driver_features_sel = device_sel, driver_sel
        self._queue_sel = queue_sel
        self._interrupt.set(bool(causes))
