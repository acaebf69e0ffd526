"""A PCI function: configuration space, base address registers, capabilities, INTx.

PCI Local Bus Specification 3.0, chapter 6; PCI Express Base Specification, section 7.5. A chip on PCI makes
one of these, gives it BARs with what is behind them, and is told of stores to its configuration space.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag
from typing import TYPE_CHECKING, Protocol

from anyvirt.devices.bus import StateError, expect_version

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.devices.bus import State

CONFIG_SIZE = 256
"""Bytes of configuration space; there is nothing in the extended one."""
MOST_BARS = 6
STATE_VERSION = 1

_FIRST_CAPABILITY = 0x40
_WORD = 0xFFFFFFFF


class Register(IntEnum):
    """Offsets in the header of type 0 (section 6.1)."""

    VENDOR_ID = 0x00
    DEVICE_ID = 0x02
    COMMAND = 0x04
    STATUS = 0x06
    REVISION_ID = 0x08
    CLASS_CODE = 0x09
    CACHE_LINE_SIZE = 0x0C
    HEADER_TYPE = 0x0E
    BAR = 0x10
    SUBSYSTEM_VENDOR_ID = 0x2C
    SUBSYSTEM_ID = 0x2E
    CAPABILITIES = 0x34
    INTERRUPT_LINE = 0x3C
    INTERRUPT_PIN = 0x3D


class Command(IntFlag):
    """Bits of the command register (section 6.2.2)."""

    IO_SPACE = 1 << 0
    MEMORY_SPACE = 1 << 1
    BUS_MASTER = 1 << 2
    PARITY_ERROR_RESPONSE = 1 << 6
    SERR = 1 << 8
    INTERRUPT_DISABLE = 1 << 10


class PciStatus(IntFlag):
    """Bits of the status register (section 6.2.3)."""

    INTERRUPT = 1 << 3
    CAPABILITIES_LIST = 1 << 4


class Space(Enum):
    """What a BAR takes a part of."""

    MEMORY = "memory"
    IO = "io"


class Registers(Protocol):
    """What is behind a BAR."""

    def read(self, offset: int, size: int, /) -> int:
        """See BusDevice.read."""

    def write(self, offset: int, size: int, value: int, /) -> None:
        """See BusDevice.write."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A base address register (section 6.2.5)."""

    index: int
    size: int
    """Bytes; a power of two."""
    registers: Registers
    space: Space = Space.MEMORY
    is_64bit: bool = False
    prefetchable: bool = False

    @property
    def flags(self) -> int:
        """The bits that say what it is."""
        if self.space is Space.IO:
            return 1
        return 4 * self.is_64bit | 8 * self.prefetchable

    @property
    def offset(self) -> int:
        """Of its register."""
        return Register.BAR + 4 * self.index


class Bus(Protocol):
    """What a function needs of the bus it is on."""

    def bars_changed(self) -> None:
        """A BAR was moved, switched on or off."""

    def interrupt_changed(self, function: PciFunction, /) -> None:
        """The level of a function's INTx pin has changed."""

    def send_message(self, address: int, data: int, /) -> None:
        """Deliver a message-signalled interrupt."""


class PciFunction:
    """See the module."""

    def __init__(
        self,
        *,
        vendor: int,
        device: int,
        class_code: int,
        revision: int = 0,
        subsystem_vendor: int = 0,
        subsystem: int = 0,
        has_interrupt: bool = False,
    ) -> None:
        """`class_code` is class, subclass and programming interface, 24 bits. The interrupt pin is INTA."""
        self.bus: Bus | None = None
        self.bars: dict[int, Bar] = {}
        self.interrupt_level = False
        """Whether the INTx pin is active."""
        self.on_change: list[Callable[[], None]] = []
        """Called when the command register or a capability may have changed."""
        self.on_write: list[Callable[[int, int], None]] = []
        """Called with (offset, size) after stores to the configuration space."""
        self.on_access: list[Callable[[int, int], None]] = []
        """Called with (offset, size) before loads from the configuration space."""
        self._wants_interrupt = False
        self._space = bytearray(CONFIG_SIZE)
        self._writable = bytearray(CONFIG_SIZE)
        self._end = _FIRST_CAPABILITY
        self._last_pointer = int(Register.CAPABILITIES)
        struct.pack_into("<HH", self._space, Register.VENDOR_ID, vendor, device)
        struct.pack_into("<I", self._space, Register.REVISION_ID, class_code << 8 | revision & 0xFF)
        struct.pack_into("<HH", self._space, Register.SUBSYSTEM_VENDOR_ID, subsystem_vendor, subsystem)
        self._space[Register.INTERRUPT_PIN] = int(has_interrupt)
        commands = Command.BUS_MASTER | Command.PARITY_ERROR_RESPONSE | Command.SERR
        if has_interrupt:
            commands |= Command.INTERRUPT_DISABLE
        struct.pack_into("<H", self._writable, Register.COMMAND, commands)
        self._writable[Register.CACHE_LINE_SIZE] = self._writable[Register.INTERRUPT_LINE] = 0xFF
        self._initial = bytes(self._space)

    # What a chip declares -------------------------------------------------------------------------------

    def add_bar(self, bar: Bar) -> None:
        """Declare a base address register; before the function is on a bus."""
        smallest = 4 if bar.space is Space.IO else 16
        width = 2 if bar.is_64bit else 1
        taken = {number for other in self.bars.values() for number in self._numbers(other)}
        if bar.size < smallest or bar.size & bar.size - 1 or not 0 <= bar.index <= MOST_BARS - width:
            raise ValueError(f"there is no BAR {bar.index} of {bar.size} bytes")
        if taken & set(self._numbers(bar)):
            raise ValueError(f"BAR {bar.index} is taken")
        self.bars[bar.index] = bar
        mask = -bar.size & (1 << 32 * width) - 1
        self._writable[bar.offset : bar.offset + 4 * width] = mask.to_bytes(4 * width, "little")
        self._space[bar.offset] = bar.flags
        self._writable[Register.COMMAND] |= (
            Command.IO_SPACE if bar.space is Space.IO else Command.MEMORY_SPACE
        )
        self._initial = bytes(self._space)

    def add_capability(self, identifier: int, body: bytes, writable: bytes = b"") -> int:
        """Append to the list of capabilities (section 6.7) and return the offset of its header.

        `body` is what follows the two bytes of the header, `writable` which of its bits can be stored to.
        """
        offset, end = self._end, self._end + 2 + len(body)
        if end > CONFIG_SIZE:
            raise ValueError("the capabilities do not fit into the configuration space")
        self._space[offset : offset + 2] = bytes([identifier, 0])
        self._space[offset + 2 : end] = body
        self._writable[offset + 2 : offset + 2 + len(writable)] = writable
        self._space[self._last_pointer] = offset
        self._space[Register.STATUS] |= PciStatus.CAPABILITIES_LIST
        self._last_pointer, self._end = offset + 1, end + 3 & -4
        self._initial = bytes(self._space)
        return offset

    def mark_multifunction(self) -> None:
        """There are other functions in the same slot."""
        self._space[Register.HEADER_TYPE] |= 0x80
        self._initial = bytes(self._space)

    @staticmethod
    def _numbers(bar: Bar) -> range:
        return range(bar.index, bar.index + 1 + bar.is_64bit)

    # What a chip uses -----------------------------------------------------------------------------------

    @property
    def command(self) -> Command:
        """The command register."""
        return Command(self.get(Register.COMMAND, 2))

    def get(self, offset: int, size: int) -> int:
        """What is stored in the configuration space."""
        return int.from_bytes(self._space[offset : offset + size], "little")

    def put(self, offset: int, size: int, value: int) -> None:
        """Let the configuration space show a value, whatever can be stored by the guest."""
        self._space[offset : offset + size] = value.to_bytes(size, "little")

    def set_interrupt(self, level: bool) -> None:
        """Assert INTx, or not. Does not reach the bus while the command register disables it."""
        self._wants_interrupt = level
        if level:
            self._space[Register.STATUS] |= PciStatus.INTERRUPT
        else:
            self._space[Register.STATUS] &= ~PciStatus.INTERRUPT & 0xFF
        self._drive()

    def _drive(self) -> None:
        level = self._wants_interrupt and not self.command & Command.INTERRUPT_DISABLE
        if level is not self.interrupt_level:
            self.interrupt_level = level
            if self.bus is not None:
                self.bus.interrupt_changed(self)

    def send_message(self, address: int, data: int) -> bool:
        """Send a message-signalled interrupt; whether it could be sent: it is a store by a bus master."""
        if self.bus is None or not self.command & Command.BUS_MASTER:
            return False
        self.bus.send_message(address, data)
        return True

    # What the bus uses ----------------------------------------------------------------------------------

    def bar_address(self, bar: Bar) -> int | None:
        """Where a BAR is, on the bus; None if the command register switches it off."""
        enable = Command.IO_SPACE if bar.space is Space.IO else Command.MEMORY_SPACE
        if not self.command & enable:
            return None
        return self.get(bar.offset, 8 if bar.is_64bit else 4) & -bar.size

    def read_config(self, offset: int, size: int) -> int:
        """A value of the configuration space; 0 where there is nothing."""
        for listener in self.on_access:
            listener(offset, size)
        return self.get(offset, size)

    def write_config(self, offset: int, size: int, value: int) -> None:
        """The guest stores to the configuration space; what cannot be changed stays."""
        end = min(offset + size, CONFIG_SIZE)
        if offset >= end:
            return
        before = self.command
        for position in range(offset, end):
            mask, byte = self._writable[position], value >> 8 * (position - offset) & 0xFF
            self._space[position] = self._space[position] & ~mask | byte & mask
        self._drive()
        moved = offset < Register.BAR + 4 * MOST_BARS and end > Register.BAR
        switched = (before ^ self.command) & (Command.IO_SPACE | Command.MEMORY_SPACE)
        if (moved or switched) and self.bus is not None:
            self.bus.bars_changed()
        self._tell()
        for listener in self.on_write:
            listener(offset, size)

    def _tell(self) -> None:
        for listener in self.on_change:
            listener()

    # Life -----------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Be as after power-on: no BAR is anywhere."""
        self._space[:] = self._initial
        self._wants_interrupt = False
        self._drive()
        if self.bus is not None:
            self.bus.bars_changed()
        self._tell()

    def save_state(self) -> State:
        """See BusDevice.save_state."""
        return {"version": STATE_VERSION, "space": bytes(self._space), "interrupt": self._wants_interrupt}

    def load_state(self, state: State, /) -> None:
        """See BusDevice.load_state."""
        expect_version(state, STATE_VERSION, "a PCI function")
        space = state.get("space")
        if not isinstance(space, bytes) or len(space) != CONFIG_SIZE or space[:4] != self._initial[:4]:
            raise StateError("the saved state is of another PCI function")
        for position, mask in enumerate(self._writable):
            self._space[position] = self._space[position] & ~mask | space[position] & mask
        self.set_interrupt(bool(state.get("interrupt")))
        if self.bus is not None:
            self.bus.bars_changed()
        self._tell()
