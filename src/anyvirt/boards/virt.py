"""The RISC-V board `virt`: QEMU's machine of that name, with places for whatever else is to be attached."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

from anyvirt.boards import virt_map
from anyvirt.boards.device_tree import Node, flatten
from anyvirt.boards.memory_map import MemoryMap
from anyvirt.boards.riscv_boot_rom import boot_rom
from anyvirt.boards.virt_map import HartInterrupt, Interrupt, Range
from anyvirt.boards.virt_tree import Chosen, HartDescription, VirtDescription, virt_tree
from anyvirt.devices.bus import StateError, Wire
from anyvirt.devices.cfi_flash import BLOCK_SIZE, CfiFlash
from anyvirt.devices.clint import Clint
from anyvirt.devices.goldfish_rtc import GoldfishRtc
from anyvirt.devices.plic import Plic
from anyvirt.devices.saved_state import SavedState
from anyvirt.devices.test_finisher import TestFinisher
from anyvirt.devices.uart16550 import Uart16550
from anyvirt.devices.virtio.mmio import VirtioMmio
from anyvirt.errors import UsageError

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeAlias

    from anyvirt.boards.riscv_boot_rom import Handover
    from anyvirt.cpu.machine_memory import MachineMemory
    from anyvirt.devices.bus import BusDevice, State
    from anyvirt.devices.clock import Clock
    from anyvirt.devices.test_finisher import Finish

    FlashContent: TypeAlias = bytes | bytearray | memoryview | mmap.mmap

_VERSION = 1
_PAGE = 0x1000
_TREE_ALIGNMENT = 2 << 20
_TREE_CEILING = 3 << 30
"""Device trees are below this address, where 32-bit firmware reaches them."""
_EDGES = (Interrupt.UART, *range(Interrupt.VIRTIO_MMIO, Interrupt.VIRTIO_MMIO + len(virt_map.VIRTIO_MMIO)))
"""Each event of these is one request, as on QEMU: kernels written there do not acknowledge all of them."""


class VirtBoard:
    """A board with its memory map filled in; whoever has the CPUs connects `interrupts` to them."""

    def __init__(
        self,
        memory: MachineMemory,
        clock: Clock,
        *,
        harts: int,
        ram_size: int,
        console: Callable[[bytes], object],
        on_finish: Callable[[Finish], None],
        epoch: int,
        hart: HartDescription | None = None,
        flash: Sequence[FlashContent] = (),
    ) -> None:
        """Fill an empty `memory`.

        `console` is given what the guest prints; `on_finish` is called when it turns the machine off or
        resets it. `epoch` is what its real-time clock shows when `clock` shows 0, in nanoseconds since 1970.
        `flash` is the content of up to two banks: bytes are a ROM that CPUs can execute, anything that can be
        changed is flash that can be programmed. Raises UsageError for what this board cannot have.
        """
        _check(harts, ram_size, flash)
        self.memory = memory
        self.clock = clock
        self.harts = harts
        self.ram_size = ram_size
        self._hart = hart or HartDescription()
        self._devices: dict[str, BusDevice] = {}
        self._nodes: list[Node] = []
        self._slots: dict[int, str] = {}
        self._has_pci = False
        self.lock = threading.RLock()
        """The machine's lock. CPUs take it when they reach a device; whoever else calls one holds it, too:
        who rings the clock's alarms, and who has input for a device."""
        self.memory_map = MemoryMap(memory, self.lock)
        """For devices that come and go while the machine runs."""
        self.interrupts: tuple[Mapping[HartInterrupt, Wire], ...] = tuple(
            {number: Wire() for number in HartInterrupt} for _ in range(harts)
        )
        """For each hart, the wires to its interrupts by their bit in mip."""
        memory.add_ram(virt_map.RAM_START, ram_size)
        self.plic = Plic(
            [
                wires[mode]
                for wires in self.interrupts
                for mode in (HartInterrupt.MACHINE_EXTERNAL, HartInterrupt.SUPERVISOR_EXTERNAL)
            ],
            sources=virt_map.INTERRUPT_SOURCES,
            edges=_EDGES,
        )
        self.clint = Clint(
            clock,
            software=[wires[HartInterrupt.MACHINE_SOFTWARE] for wires in self.interrupts],
            timers=[wires[HartInterrupt.MACHINE_TIMER] for wires in self.interrupts],
        )
        self.uart = Uart16550(clock, self.wire(Interrupt.UART), output=console)
        self.attach("plic", self.plic, virt_map.PLIC)
        self.attach("clint", self.clint, virt_map.CLINT)
        self.attach("uart", self.uart, virt_map.UART)
        self.attach("rtc", GoldfishRtc(clock, self.wire(Interrupt.RTC), start=epoch), virt_map.RTC)
        self.attach("test", TestFinisher(partial(self._finish, on_finish)), virt_map.TEST_FINISHER)
        self._empty_slot = VirtioMmio(None, interrupt=Wire())
        for slot in virt_map.VIRTIO_MMIO:
            self._leave_empty(slot)
        self._flash_banks: list[Range] = []
        for number, content in enumerate(flash):
            self._add_flash(f"flash{number}", virt_map.FLASH[number].start, content)

    # Devices --------------------------------------------------------------------------------------------

    @property
    def devices(self) -> Mapping[str, BusDevice]:
        """All devices by name, in the order in which they were attached."""
        return dict(self._devices)

    def wire(self, interrupt: int) -> Wire:
        """An input of the PLIC, for the device that is to drive it."""
        return self.plic.sources[interrupt]

    def attach(self, name: str, device: BusDevice, place: Range, *, node: Node | None = None) -> None:
        """Put a device anywhere where nothing is; `node` describes it in the device tree, under /soc.

        Raises UsageError if there is one of that name, OSError if the place is taken.
        """
        if name in self._devices:
            raise UsageError(f"board virt has a device {name} already")
        self.memory_map.place(place.start, place.size, device, name=name)
        self._devices[name] = device
        if node is not None:
            self._nodes.append(node)

    def _add_flash(self, name: str, start: int, content: FlashContent) -> None:
        if isinstance(content, bytes):
            self.memory.add_rom(start, content, name=name)
            return
        bank = Range(start, len(content))
        self.attach(name, CfiFlash(content, name=name), bank)
        self._flash_banks.append(bank)

    def attach_virtio_mmio(
        self, name: str, make: Callable[[Wire], BusDevice], *, slot: int | None = None
    ) -> BusDevice:
        """Make a virtio-mmio device with its interrupt wire, and put it into a slot, the lowest that is free.

        Raises UsageError if there is none, or if it is taken.
        """
        free = [number for number in range(len(virt_map.VIRTIO_MMIO)) if number not in self._slots]
        if not free or (slot is not None and slot not in free):
            which = "no free virtio-mmio slot" if slot is None else f"no free virtio-mmio slot {slot}"
            raise UsageError(f"board virt has {which} for {name}; it has {len(virt_map.VIRTIO_MMIO)} in all")
        slot = free[0] if slot is None else slot
        device, place = make(self.wire(Interrupt.VIRTIO_MMIO + slot)), virt_map.VIRTIO_MMIO[slot]
        self.memory_map.remove(place.start, place.size)
        try:
            self.attach(name, device, place)
        except UsageError:
            self._leave_empty(place)
            raise
        self._slots[slot] = name
        return device

    def _leave_empty(self, slot: Range) -> None:
        """Show that no device is there: kernels that do not read device trees look into each slot."""
        self.memory_map.place(slot.start, slot.size, self._empty_slot, name="virtio-mmio")

    @property
    def pci_wires(self) -> tuple[Wire, ...]:
        """INTA to INTD of the PCI host bridge: pin p of the device in slot s drives number (s + p) % 4."""
        return tuple(self.wire(Interrupt.PCI + pin) for pin in range(4))

    def keep(self, name: str, device: BusDevice) -> None:
        """Reset, save and load a device that another one leads to, such as a PCI bus; behind that one.

        Raises UsageError if there is one of that name.
        """
        if name in self._devices:
            raise UsageError(f"board virt has a device {name} already")
        self._devices[name] = device

    def attach_pci(self, bridge: BusDevice) -> None:
        """Put in the PCI Express host bridge, which answers in the configuration space (ECAM).

        It drives `pci_wires`, and puts what is behind BARs through `memory_map` into the windows PCI_IO (from
        0 on the bus), PCI_MEMORY and PCI_MEMORY_64 of `anyvirt.boards.virt_map`.
        """
        self.attach("pci", bridge, virt_map.PCI_ECAM)
        self._has_pci = True

    # Starting -------------------------------------------------------------------------------------------

    def device_tree(self, chosen: Chosen | None = None) -> bytes:
        """The flattened device tree of the board as it is. Raises UsageError for bootargs beyond ASCII."""
        machine = VirtDescription(
            self.harts,
            self.ram_size,
            self._hart,
            tuple(self._flash_banks),
            tuple(sorted(self._slots)),
            self._has_pci,
            tuple(self._nodes),
        )
        return flatten(virt_tree(machine, chosen))

    def load_device_tree(self, chosen: Chosen | None = None) -> int:
        """Put the device tree near the end of RAM, and return its address.

        Raises UsageError if there is too little RAM for it.
        """
        tree = self.device_tree(chosen)
        end = min(virt_map.RAM_START + self.ram_size, _TREE_CEILING)
        address = (end - len(tree)) & -_TREE_ALIGNMENT
        if address < virt_map.RAM_START:
            raise UsageError(f"{self.ram_size} bytes of RAM are too few for the board's device tree")
        self.memory.write(address, tree)
        return address

    def install_boot_rom(self, handover: Handover) -> int:
        """Put in the ROM that starts firmware; returns the address at which harts begin."""
        start, size = virt_map.BOOT_ROM
        self.memory.remove(start, size)
        self.memory.add_rom(start, boot_rom(handover), name="boot rom")
        return start

    def _finish(self, on_finish: Callable[[Finish], None], finish: Finish) -> None:
        self.uart.flush()
        on_finish(finish)

    # State ----------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Reset all devices. RAM keeps its content; the CPUs are somebody else's."""
        with self.lock:
            for device in self._devices.values():
                device.reset()

    def save_state(self) -> State:
        """The states of all devices by name; neither RAM nor CPUs."""
        with self.lock:
            devices = {name: device.save_state() for name, device in self._devices.items()}
        return {"version": _VERSION, "devices": devices}

    def load_state(self, state: State) -> None:
        """Go on where a board with the same devices was saved. Raises StateError and changes nothing else."""
        saved = SavedState(state, _VERSION, "board virt")
        states = saved.value("devices")
        if not isinstance(states, dict):
            raise saved.misfit("devices")
        if states.keys() != self._devices.keys():
            missing, needless = states.keys() - self._devices.keys(), self._devices.keys() - states.keys()
            differences = [f"the device {name} is missing" for name in sorted(missing)]
            differences += [f"the device {name} was not there" for name in sorted(needless)]
            raise StateError(f"the saved state is of another board: {', '.join(differences)}")
        with self.lock:
            before = {name: device.save_state() for name, device in self._devices.items()}
            try:
                self._load(states)
            except StateError:
                self._load(before)
                raise

    def _load(self, states: Mapping[str, State]) -> None:
        for name, device in self._devices.items():
            device.load_state(states[name])


def _check(harts: int, ram_size: int, flash: Sequence[FlashContent]) -> None:
    if not 1 <= harts <= virt_map.MOST_HARTS:
        raise UsageError(f"board virt has 1 to {virt_map.MOST_HARTS} CPUs, not {harts}")
    if ram_size % _PAGE or not 0 < ram_size <= virt_map.MOST_RAM:
        raise UsageError(f"board virt takes up to {virt_map.MOST_RAM >> 30} GiB of RAM in whole pages")
    if len(flash) > len(virt_map.FLASH):
        raise UsageError(f"board virt has {len(virt_map.FLASH)} banks of flash, not {len(flash)}")
    for content, bank in zip(flash, virt_map.FLASH, strict=False):
        size = len(content)
        is_whole = isinstance(content, bytes) or (size >= BLOCK_SIZE and size & size - 1 == 0)
        if not 0 < size <= bank.size or not is_whole:
            sizes = f"256 KiB times a power of two, up to {bank.size >> 20} MiB"
            raise UsageError(f"a bank of flash has {sizes}, not {size} bytes")
