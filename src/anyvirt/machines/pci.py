"""The PCI Express host bridge of a machine's board, with virtio devices on its bus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.boards import virt_map
from anyvirt.devices.pci.bus import Window
from anyvirt.devices.pci.ecam import EcamHost
from anyvirt.devices.pci.function import Space
from anyvirt.devices.virtio.pci import VirtioPci

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anyvirt.boards.virt import VirtBoard
    from anyvirt.devices.virtio.device import VirtioDevice


def attach_virtio_pci(board: VirtBoard, devices: Iterable[VirtioDevice]) -> None:
    """Put devices behind the bridge of a board `virt`, which gets one if it has none yet."""
    host = _bridge(board)
    for device in devices:
        attached = VirtioPci(device)
        slot = host.bus.add(attached.function)
        board.keep(f"pci device {slot}", attached)


def _bridge(board: VirtBoard) -> EcamHost:
    """With the windows that the board's memory map has."""
    found = board.devices.get("pci")
    if isinstance(found, EcamHost):
        return found
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
