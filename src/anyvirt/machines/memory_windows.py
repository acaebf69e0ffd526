"""Memory as slices: the machine's physical memory, and what a hart sees at its virtual addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.cpu.memory import GuestFault
from anyvirt.devices.bus import BusError
from anyvirt.errors import UsageError

if TYPE_CHECKING:
    from anyvirt.cpu.machine_memory import MachineMemory, MemoryRegion
    from anyvirt.machines.hart import Hart

_PAGE = 4096
_SIZES = (1, 2, 4, 8)
"""Bytes of an access of a CPU's."""


class PhysicalMemory:
    """`memory[address]` is a byte, `memory[start:end]` bytes; devices are asked where there are any.

    Of 1, 2, 4 and 8 bytes at a multiple of that a device sees one access, as a CPU would make it.
    """

    def __init__(self, memory: MachineMemory) -> None:
        self._memory = memory

    def __getitem__(self, key: int | slice) -> bytes | int:
        """Raises BusError where nothing is."""
        start, length = _range(key)
        data = self.read(start, length)
        return data if isinstance(key, slice) else data[0]

    def __setitem__(self, key: int | slice, value: bytes | int) -> None:
        """Raises BusError where nothing is; UsageError for a value of another length."""
        start, length = _range(key)
        data = value if isinstance(value, bytes) else bytes([value])
        if len(data) != length:
            raise UsageError(f"{length} bytes of memory cannot be set to {len(data)}")
        self.write(start, data)

    def read(self, start: int, length: int) -> bytes:
        """As `memory[start : start + length]`."""
        device = self._device(start, length)
        try:
            if device is not None:
                return device.read(start, length).to_bytes(length, "little")
            return self._memory.read(start, length)
        except GuestFault as fault:
            raise BusError(f"there is nothing at the physical address {fault.address:#x}") from None

    def write(self, start: int, data: bytes) -> None:
        """As `memory[start : start + len(data)] = data`."""
        device = self._device(start, len(data))
        try:
            if device is not None:
                device.write(start, len(data), int.from_bytes(data, "little"))
            else:
                self._memory.write(start, data)
        except GuestFault as fault:
            raise BusError(
                f"there is nothing to store to at the physical address {fault.address:#x}"
            ) from None

    def _device(self, start: int, length: int) -> _DeviceAccess | None:
        """The device that a range is in, if a CPU would reach all of it in one access."""
        region = self._memory.mapping_at(start)
        if region is None or region.device is None or start + length > region.end:
            return None
        return _DeviceAccess(region) if length in _SIZES and start % length == 0 else None


class _DeviceAccess:
    """A device by physical addresses."""

    def __init__(self, region: MemoryRegion) -> None:
        assert region.device is not None
        self._device = region.device
        self._base = region.start - region.offset

    def read(self, address: int, size: int) -> int:
        return self._device.read(address - self._base, size) & (1 << 8 * size) - 1

    def write(self, address: int, size: int, value: int) -> None:
        self._device.write(address - self._base, size, value)


class VirtualMemory(PhysicalMemory):
    """The same by the virtual addresses of a hart, in its mode; user pages are seen by the kernel, too.

    Looking does not mark pages as accessed.
    """

    def __init__(self, hart: Hart) -> None:
        super().__init__(hart.cpu.memory)
        self._hart = hart

    def read(self, start: int, length: int) -> bytes:
        """See PhysicalMemory.read."""
        return b"".join(super(VirtualMemory, self).read(*piece) for piece in self.pieces(start, length))

    def write(self, start: int, data: bytes) -> None:
        """See PhysicalMemory.write."""
        position = 0
        for physical, length in list(self.pieces(start, len(data))):
            super().write(physical, data[position : position + length])
            position += length

    def pieces(self, start: int, length: int) -> list[tuple[int, int]]:
        """Physical addresses and lengths, a page each. Raises BusError."""
        from anyvirt.machines.control_registers import physical_address

        pieces, end = [], start + length
        while start < end:
            size = min(end, (start & -_PAGE) + _PAGE) - start
            pieces.append((physical_address(self._hart, start), size))
            start += size
        return pieces


def _range(key: int | slice) -> tuple[int, int]:
    if isinstance(key, int):
        return key, 1
    if key.start is None or key.stop is None or key.step is not None or not 0 <= key.start <= key.stop:
        raise UsageError("memory is addressed as memory[start:end]")
    return key.start, key.stop - key.start
