"""The device tree of the RISC-V board `virt`.

Bindings are those of Linux's Documentation/devicetree/bindings; nodes are named as on QEMU's board.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from anyvirt.boards import virt_map
from anyvirt.boards.device_tree import Node, Property, cells64
from anyvirt.boards.virt_map import HartInterrupt, Interrupt, Range
from anyvirt.devices.clint import FREQUENCY
from anyvirt.devices.test_finisher import Outcome
from anyvirt.devices.uart16550 import CLOCK_FREQUENCY

_INTC, _PLIC, _TEST = 1, 2, 3
"""Phandles; those of harts and their interrupt controllers follow."""
_FIRST_HART = 16
_PCI_PINS = 4
_PCI_SLOTS = 4


@dataclass(frozen=True)
class HartDescription:
    """What a kernel is told about each hart."""

    extensions: tuple[str, ...] = ("i", "m", "a", "f", "d", "c", "zicsr", "zifencei", "zba", "zbb", "zbs")
    """In canonical order, in lower case; those of one letter first."""
    width: int = 64
    mmu: str = "sv39"
    cache_block: int = 0
    """Bytes that Zicbom and Zicboz work on at a time, where there are any."""

    @property
    def base(self) -> str:
        """The base instruction set, such as rv64i."""
        return f"rv{self.width}i"

    @property
    def isa(self) -> str:
        """All in one string, such as rv64imafdc_zicsr."""
        letters = "".join(name for name in self.extensions if len(name) == 1)
        return "_".join((f"rv{self.width}{letters}", *(name for name in self.extensions if len(name) > 1)))


@dataclass(frozen=True)
class Chosen:
    """What firmware and kernel are told by whoever starts them (node /chosen)."""

    bootargs: str = ""
    """The kernel's command line."""
    initrd: Range | None = None
    rng_seed: bytes = b""
    """Randomness for the kernel; 32 bytes are usual."""


@dataclass(frozen=True)
class VirtDescription:
    """Which machine of this kind it is."""

    harts: int
    ram_size: int
    hart: HartDescription = field(default_factory=HartDescription)
    flash_banks: tuple[Range, ...] = ()
    virtio_mmio_slots: tuple[int, ...] = ()
    has_pci: bool = False
    others: tuple[Node, ...] = ()
    """Nodes of further devices, under /soc."""


def virt_tree(machine: VirtDescription, chosen: Chosen | None = None) -> Node:
    """The whole tree."""
    children = [
        _chosen(chosen or Chosen()),
        Node(
            f"memory@{virt_map.RAM_START:x}",
            {"device_type": "memory", "reg": cells64(virt_map.RAM_START, machine.ram_size)},
        ),
        _cpus(machine),
        _syscon("poweroff", Outcome.PASS),
        _syscon("reboot", Outcome.RESET),
        _soc(machine),
    ]
    if machine.flash_banks:
        children.append(_flash(machine.flash_banks))
    properties: dict[str, Property] = {
        "#address-cells": 2,
        "#size-cells": 2,
        "compatible": "riscv-virtio",
        "model": "riscv-virtio,qemu",
    }
    return Node("/", properties, children)


def _chosen(chosen: Chosen) -> Node:
    properties: dict[str, Property] = {"stdout-path": f"/soc/serial@{virt_map.UART.start:x}"}
    if chosen.bootargs:
        properties["bootargs"] = chosen.bootargs
    if chosen.initrd is not None:
        start, size = chosen.initrd
        properties["linux,initrd-start"] = cells64(start)
        properties["linux,initrd-end"] = cells64(start + size)
    if chosen.rng_seed:
        properties["rng-seed"] = chosen.rng_seed
    return Node("chosen", properties)


def _hart_phandle(hart: int) -> int:
    return _FIRST_HART + 2 * hart


def _cpus(machine: VirtDescription) -> Node:
    cpus = [_cpu(machine.hart, number) for number in range(machine.harts)]
    cores = [Node(f"core{number}", {"cpu": _hart_phandle(number)}) for number in range(machine.harts)]
    topology = Node("cpu-map", {}, [Node("cluster0", {}, cores)])
    properties: dict[str, Property] = {
        "#address-cells": 1,
        "#size-cells": 0,
        "timebase-frequency": FREQUENCY,
    }
    return Node("cpus", properties, [*cpus, topology])


def _cpu(hart: HartDescription, number: int) -> Node:
    phandle = _hart_phandle(number)
    controller: dict[str, Property] = {
        "#interrupt-cells": 1,
        "interrupt-controller": None,
        "compatible": "riscv,cpu-intc",
        "phandle": phandle + _INTC,
    }
    properties: dict[str, Property] = {
        "phandle": phandle,
        "device_type": "cpu",
        "reg": number,
        "status": "okay",
        "compatible": "riscv",
        "riscv,isa": hart.isa,
        "riscv,isa-base": hart.base,
        "riscv,isa-extensions": list(hart.extensions),
        "mmu-type": f"riscv,{hart.mmu}",
    }
    for extension, block in (("zicbom", "riscv,cbom-block-size"), ("zicboz", "riscv,cboz-block-size")):
        if extension in hart.extensions:
            properties[block] = hart.cache_block
    return Node(f"cpu@{number:x}", properties, [Node("interrupt-controller", controller)])


def _syscon(name: str, outcome: Outcome) -> Node:
    return Node(name, {"value": int(outcome), "offset": 0, "regmap": _TEST, "compatible": f"syscon-{name}"})


def _flash(banks: tuple[Range, ...]) -> Node:
    properties: dict[str, Property] = {
        "bank-width": 4,
        "reg": cells64(*(number for bank in banks for number in bank)),
        "compatible": "cfi-flash",
    }
    return Node(f"flash@{banks[0].start:x}", properties)


def _soc(machine: VirtDescription) -> Node:
    nodes = [
        _device("rtc", virt_map.RTC, "google,goldfish-rtc", Interrupt.RTC),
        _device("serial", virt_map.UART, "ns16550a", Interrupt.UART, {"clock-frequency": CLOCK_FREQUENCY}),
        Node(
            f"test@{virt_map.TEST_FINISHER.start:x}",
            {
                "phandle": _TEST,
                "reg": cells64(*virt_map.TEST_FINISHER),
                "compatible": ["sifive,test1", "sifive,test0", "syscon"],
            },
        ),
        *(
            _device("virtio_mmio", virt_map.VIRTIO_MMIO[slot], "virtio,mmio", Interrupt.VIRTIO_MMIO + slot)
            for slot in machine.virtio_mmio_slots
        ),
        *([_pci()] if machine.has_pci else []),
        *machine.others,
        _plic(machine.harts),
        _clint(machine.harts),
    ]
    properties: dict[str, Property] = {
        "#address-cells": 2,
        "#size-cells": 2,
        "compatible": "simple-bus",
        "ranges": None,
    }
    return Node("soc", properties, nodes)


def _device(
    name: str, place: Range, compatible: str, interrupt: int, more: dict[str, Property] | None = None
) -> Node:
    """A node of a device with one interrupt."""
    properties: dict[str, Property] = {
        "interrupts": int(interrupt),
        "interrupt-parent": _PLIC,
        "reg": cells64(*place),
        "compatible": compatible,
    }
    return Node(f"{name}@{place.start:x}", properties | (more or {}))


def _plic(harts: int) -> Node:
    properties: dict[str, Property] = {
        "phandle": _PLIC,
        "riscv,ndev": virt_map.INTERRUPT_SOURCES,
        "reg": cells64(*virt_map.PLIC),
        "interrupts-extended": _wires(
            harts, HartInterrupt.MACHINE_EXTERNAL, HartInterrupt.SUPERVISOR_EXTERNAL
        ),
        "interrupt-controller": None,
        "compatible": ["sifive,plic-1.0.0", "riscv,plic0"],
        "#address-cells": 0,
        "#interrupt-cells": 1,
    }
    return Node(f"plic@{virt_map.PLIC.start:x}", properties)


def _clint(harts: int) -> Node:
    properties: dict[str, Property] = {
        "interrupts-extended": _wires(harts, HartInterrupt.MACHINE_SOFTWARE, HartInterrupt.MACHINE_TIMER),
        "reg": cells64(*virt_map.CLINT),
        "compatible": ["sifive,clint0", "riscv,clint0"],
    }
    return Node(f"clint@{virt_map.CLINT.start:x}", properties)


def _wires(harts: int, *interrupts: HartInterrupt) -> tuple[int, ...]:
    """Interrupts of every hart, as pairs of its controller's phandle and their number."""
    return tuple(
        cell
        for hart in range(harts)
        for interrupt in interrupts
        for cell in (_hart_phandle(hart) + _INTC, int(interrupt))
    )


def _pci() -> Node:
    """The host bridge (PCI Bus Binding to IEEE 1275, revision 2.1; Linux's pci-host-ecam-generic)."""
    io, memory, far = virt_map.PCI_IO, virt_map.PCI_MEMORY, virt_map.PCI_MEMORY_64
    properties: dict[str, Property] = {
        "interrupt-map-mask": (0x1800, 0, 0, 7),
        "interrupt-map": tuple(
            cell
            for slot in range(_PCI_SLOTS)
            for pin in range(_PCI_PINS)
            for cell in (slot << 11, 0, 0, pin + 1, _PLIC, Interrupt.PCI + (slot + pin) % _PCI_PINS)
        ),
        "ranges": (
            *(0x0100_0000, *cells64(0), *cells64(*io)),
            *(0x0200_0000, *cells64(memory.start), *cells64(*memory)),
            *(0x0300_0000, *cells64(far.start), *cells64(*far)),
        ),
        "reg": cells64(*virt_map.PCI_ECAM),
        "dma-coherent": None,
        "bus-range": (0, 0xFF),
        "linux,pci-domain": 0,
        "device_type": "pci",
        "compatible": "pci-host-ecam-generic",
        "#size-cells": 2,
        "#interrupt-cells": 1,
        "#address-cells": 3,
    }
    return Node(f"pci@{virt_map.PCI_ECAM.start:x}", properties)
