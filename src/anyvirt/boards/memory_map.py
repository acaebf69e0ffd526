"""The memory map of a board as devices see it that put others into it: host bridges, hot-plug controllers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anyvirt.cpu.machine_memory import Device, MachineMemory


class MemoryMap:
    """Lets devices appear and disappear; CPUs that run are held meanwhile."""

    def __init__(self, memory: MachineMemory) -> None:
        self._memory = memory

    def place(self, address: int, size: int, device: Device) -> None:
        """Let a device answer at addresses where nothing is. Raises OSError if something is."""
        self._memory.add_mmio(address, size, device)

    def remove(self, address: int, size: int) -> None:
        """Let nothing be there again."""
        self._memory.remove(address, size)
