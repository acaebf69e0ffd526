"""A PCI Express host bridge whose configuration space is memory-mapped: ECAM, `pci-host-ecam-generic`.

PCI Express Base Specification, section 7.2.2: 4096 bytes a function, at bus << 20 | slot << 15 |
function << 12. The bridge itself shows as a function in slot 0, as QEMU's does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.devices.pci.bus import PciBus
from anyvirt.devices.pci.function import PciFunction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anyvirt.devices.bus import State, Wire
    from anyvirt.devices.pci.bus import MemoryMap, Window

BUS_SIZE = 1 << 20
"""Bytes of configuration space a bus."""
HOST_BRIDGE = 0x060000
"""Class code."""


class EcamHost:
    """See the module."""

    def __init__(
        self,
        *,
        memory_map: MemoryMap,
        windows: Sequence[Window],
        interrupts: Sequence[Wire],
        send_message: Callable[[int, int], None] | None = None,
    ) -> None:
        """As PciBus."""
        self.bus = PciBus(
            memory_map=memory_map, windows=windows, interrupts=interrupts, send_message=send_message
        )
        self.bus.add(PciFunction(vendor=0x1B36, device=0x0008, class_code=HOST_BRIDGE), 0)

    def read(self, offset: int, size: int, /) -> int:
        """See BusDevice.read. Where no function is, all bits are ones."""
        function = self._function(offset)
        if function is None:
            return (1 << 8 * size) - 1
        return function.read_config(offset & 0xFFF, size)

    def write(self, offset: int, size: int, value: int, /) -> None:
        """See BusDevice.write."""
        function = self._function(offset)
        if function is not None:
            function.write_config(offset & 0xFFF, size, value)

    def _function(self, offset: int) -> PciFunction | None:
        if offset >= BUS_SIZE:
            return None
        return self.bus.functions.get((offset >> 15 & 0x1F, offset >> 12 & 7))

    def reset(self) -> None:
        """See BusDevice.reset."""
        self.bus.reset()

    def save_state(self) -> State:
        """See BusDevice.save_state."""
        return self.bus.save_state()

    def load_state(self, state: State, /) -> None:
        """See BusDevice.load_state."""
        self.bus.load_state(state)
