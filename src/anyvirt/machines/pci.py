"""The PCI Express host bridge of a machine's board, for devices that are put on its bus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.boards import virt_map
from anyvirt.devices.pci.bus import Window
from anyvirt.devices.pci.ecam import EcamHost
from anyvirt.devices.pci.function import Space

if TYPE_CHECKING:
    from anyvirt.boards.virt import VirtBoard


def attach_pci(board: VirtBoard) -> EcamHost:
    """Give a board `virt` its bridge, with the windows that its memory map has."""
    host = EcamHost(
        memory_map=board.memory_map,
        windows=(
            Window(*virt_map.PCI_IO, Space.IO, 0),
            Window(*virt_map.PCI_MEMORY),
            Window(*virt_map.PCI_MEMORY_64),
        ),
        interrupts=board.pci_wires,
    )
    board.attach_pci(host)
    return host
