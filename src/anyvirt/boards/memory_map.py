"""The memory map of a board: where devices answer to CPUs, one access at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading

    from anyvirt.cpu.machine_memory import Device, MachineMemory


class _LockedDevice:
    """A device as CPUs reach it that run at the same time."""

    def __init__(self, device: Device, lock: threading.RLock) -> None:
        self._device = device
        self._lock = lock

    def read(self, offset: int, size: int) -> int:
        with self._lock:
            return self._device.read(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        with self._lock:
            self._device.write(offset, size, value)


class MemoryMap:
    """Puts devices into a machine's memory; they may come and go while its CPUs run."""

    def __init__(self, memory: MachineMemory, lock: threading.RLock) -> None:
        """Accesses of CPUs hold `lock` while a device answers them."""
        self._memory = memory
        self._lock = lock
        self._locked: dict[int, _LockedDevice] = {}
        """By the identity of what they lock."""

    def place(self, address: int, size: int, device: Device, *, name: str = "") -> None:
        """Let a device answer at addresses where nothing is. Raises OSError if something is."""
        locked = self._locked.setdefault(id(device), _LockedDevice(device, self._lock))
        self._memory.add_mmio(address, size, locked, name=name)

    def remove(self, address: int, size: int) -> None:
        """Let nothing be there again."""
        self._memory.remove(address, size)
