"""A PCI bus: which functions are in which slots, where their BARs are, and whom their interrupts reach.

BARs appear and move in the memory map of the machine as the guest programs them, within the windows that
the host bridge forwards. Of BARs that overlap, the one of the lower slot is there, and the other one when
that has left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from anyvirt.devices.bus import BusError, StateError, expect_version
from anyvirt.devices.pci.function import Space

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anyvirt.devices.bus import State, Wire
    from anyvirt.devices.pci.function import PciFunction, Registers

SLOTS = 32
FUNCTIONS = 8
PINS = 4
STATE_VERSION = 1


class MemoryMap(Protocol):
    """Where devices are in the machine's physical address space."""

    def place(self, address: int, size: int, device: Registers, /) -> None:
        """Let a device answer at addresses where nothing is."""

    def remove(self, address: int, size: int, /) -> None:
        """Let nothing be there again."""


@dataclass(frozen=True, slots=True)
class Window:
    """A range of the machine's addresses that is forwarded to the bus."""

    address: int
    """In the machine."""
    size: int
    space: Space = Space.MEMORY
    bus_address: int | None = None
    """On the bus; the same if None."""

    def translate(self, address: int, size: int) -> int | None:
        """The machine's address of a range on the bus; None if it is not inside."""
        start = self.address if self.bus_address is None else self.bus_address
        inside = start <= address and address + size <= start + self.size
        return self.address + address - start if inside else None


@dataclass(frozen=True, slots=True)
class _Placement:
    address: int
    size: int
    registers: Registers

    def overlaps(self, other: _Placement) -> bool:
        return self.address < other.address + other.size and other.address < self.address + self.size


class PciBus:
    """Bus 0 of a host bridge."""

    def __init__(
        self,
        *,
        memory_map: MemoryMap,
        windows: Sequence[Window],
        interrupts: Sequence[Wire],
        send_message: Callable[[int, int], None] | None = None,
    ) -> None:
        """`interrupts` are the four INTx wires; `send_message` takes (address, data) of MSIs."""
        if len(interrupts) != PINS:
            raise ValueError("a PCI bus has four interrupt wires")
        self.functions: dict[tuple[int, int], PciFunction] = {}
        """By slot and function number."""
        self._memory_map, self._windows = memory_map, tuple(windows)
        self._interrupts = tuple(interrupts)
        self._send_message = send_message
        self._placed: list[_Placement] = []
        self._settling = False

    def add(self, function: PciFunction, slot: int | None = None, number: int = 0) -> int:
        """Put a function into a slot, the first free one by default, and return which."""
        if slot is None:
            taken = {slot for slot, _ in self.functions}
            slot = next((slot for slot in range(SLOTS) if slot not in taken), SLOTS)
        if not (0 <= slot < SLOTS and 0 <= number < FUNCTIONS) or (slot, number) in self.functions:
            raise ValueError(f"there is no free PCI slot {slot}.{number}")
        self.functions[slot, number] = function
        function.bus = self
        self._mark_multifunction(slot)
        return slot

    def _mark_multifunction(self, slot: int) -> None:
        """Function 0 says whether it is alone (PCI 3.0, section 6.2.1, header type)."""
        numbers = [number for there, number in self.functions if there == slot]
        if len(numbers) > 1 and 0 in numbers:
            self.functions[slot, 0].mark_multifunction()

    # What functions tell --------------------------------------------------------------------------------

    def bars_changed(self) -> None:
        """See Bus.bars_changed."""
        if self._settling:
            return
        wanted = self._wanted()
        for placement in [there for there in self._placed if there not in wanted]:
            self._memory_map.remove(placement.address, placement.size)
            self._placed.remove(placement)
        for placement in wanted:
            if placement not in self._placed and self._place(placement):
                self._placed.append(placement)

    def _place(self, placement: _Placement) -> bool:
        """The board may have something else there."""
        try:
            self._memory_map.place(placement.address, placement.size, placement.registers)
        except (OSError, BusError):
            return False
        return True

    def _wanted(self) -> list[_Placement]:
        result: list[_Placement] = []
        for _, function in sorted(self.functions.items(), key=lambda item: item[0]):
            for bar in function.bars.values():
                address = function.bar_address(bar)
                machine = None if address is None else self._translate(address, bar.size, bar.space)
                if machine is not None:
                    placement = _Placement(machine, bar.size, bar.registers)
                    if not any(map(placement.overlaps, result)):
                        result.append(placement)
        return result

    def _translate(self, address: int, size: int, space: Space) -> int | None:
        for window in self._windows:
            if window.space is space and (machine := window.translate(address, size)) is not None:
                return machine
        return None

    def interrupt_changed(self, function: PciFunction, /) -> None:
        """See Bus.interrupt_changed. The pin of a slot reaches the wire (slot + pin) mod 4."""
        levels = [False] * PINS
        for (slot, _), other in self.functions.items():
            levels[slot % PINS] |= other.interrupt_level
        for wire, level in zip(self._interrupts, levels, strict=True):
            wire.set(level)

    def send_message(self, address: int, data: int, /) -> None:
        """See Bus.send_message."""
        if self._send_message is not None:
            self._send_message(address, data)

    # Life -----------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Reset the configuration of all functions; the chips behind them are reset by themselves."""
        for function in self.functions.values():
            function.reset()

    def save_state(self) -> State:
        """See BusDevice.save_state."""
        return {
            "version": STATE_VERSION,
            "functions": {f"{slot}.{number}": f.save_state() for (slot, number), f in self.functions.items()},
        }

    def load_state(self, state: State, /) -> None:
        """See BusDevice.load_state."""
        expect_version(state, STATE_VERSION, "a PCI bus")
        saved = state.get("functions")
        names = {f"{slot}.{number}": function for (slot, number), function in self.functions.items()}
        if not isinstance(saved, dict) or set(saved) != set(names):
            raise StateError("the saved state is of a PCI bus with other functions")
        before = {name: function.save_state() for name, function in names.items()}
        self._settling = True
        try:
            _load_all(names, saved, before)
        finally:
            self._settling = False
        self.bars_changed()


def _load_all(names: dict[str, PciFunction], saved: dict[str, State], before: dict[str, State]) -> None:
    """All or none."""
    try:
        for name, function in names.items():
            function.load_state(saved[name])
    except StateError:
        for name, function in names.items():
            function.load_state(before[name])
        raise
