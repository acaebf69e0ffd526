"""Where everything is on the RISC-V board `virt`, as on QEMU's board of that name (hw/riscv/virt.c)."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Range(NamedTuple):
    """Physical addresses."""

    start: int
    size: int


BOOT_ROM = Range(0x1000, 0x1000)
TEST_FINISHER = Range(0x10_0000, 0x1000)
RTC = Range(0x10_1000, 0x1000)
CLINT = Range(0x200_0000, 0x1_0000)
PCI_IO = Range(0x300_0000, 0x1_0000)
PLIC = Range(0xC00_0000, 0x60_0000)
UART = Range(0x1000_0000, 0x100)
VIRTIO_MMIO = tuple(Range(0x1000_1000 + slot * 0x1000, 0x1000) for slot in range(8))
FLASH = (Range(0x2000_0000, 0x200_0000), Range(0x2200_0000, 0x200_0000))
PCI_ECAM = Range(0x3000_0000, 0x1000_0000)
PCI_MEMORY = Range(0x4000_0000, 0x4000_0000)
PCI_MEMORY_64 = Range(0x4_0000_0000, 0x4_0000_0000)
RAM_START = 0x8000_0000
MOST_RAM = PCI_MEMORY_64.start - RAM_START

INTERRUPT_SOURCES = 96
"""Largest number of an interrupt of the PLIC."""
MOST_HARTS = 512


class Interrupt(IntEnum):
    """Inputs of the PLIC. Virtio-mmio slots and PCI's INTA to INTD take several, from these on."""

    VIRTIO_MMIO = 1
    UART = 10
    RTC = 11
    PCI = 32


class HartInterrupt(IntEnum):
    """Interrupts of a hart by their bits in mip (RISC-V Privileged Architecture 20240411, section 3.1.9)."""

    MACHINE_SOFTWARE = 3
    MACHINE_TIMER = 7
    SUPERVISOR_EXTERNAL = 9
    MACHINE_EXTERNAL = 11
