"""Kernels, initial file systems and firmware: where in RAM they go, and what is told to whom about it.

Linux, Documentation/arch/riscv/boot.rst: a0 is the number of the hart, a1 the address of the device tree.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anyvirt.boards.virt_map import RAM_START, Range
from anyvirt.errors import UsageError

if TYPE_CHECKING:
    from anyvirt.cpu.machine_memory import MachineMemory

_KERNEL_OFFSET = 0x20_0000
"""From the start of RAM, where a kernel's file does not say."""
_ALIGNMENT = 2 << 20
_USUAL_DISTANCE = 128 << 20


@dataclass(frozen=True)
class Loaded:
    """What was loaded, and the addresses it takes, zeroed data included."""

    entry: int
    start: int
    end: int


def read_file(path: str | Path, what: str) -> bytes:
    """The content of a file that the user has named. Raises UsageError."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"{what} {path} cannot be read: {error.strerror}") from None


def load_kernel(memory: MachineMemory, path: str | Path, *, may_be_raw: bool = False) -> Loaded:
    """Load a RISC-V Image, compressed or not, or an ELF file. Raises UsageError.

    With `may_be_raw` whatever else is put where kernels are usually: U-Boot has no header.
    """
    from anyvirt.images.errors import ImageError
    from anyvirt.images.kernel_formats import KernelFormat, recognize_kernel
    from anyvirt.isa.names import Isa

    content = read_file(path, "kernel")
    try:
        image = recognize_kernel(content, what=str(path))
    except ImageError as error:
        if may_be_raw:
            start = RAM_START + _KERNEL_OFFSET
            place(memory, start, content, str(path))
            return Loaded(start, start, start + len(content))
        raise UsageError(str(error)) from None
    if image.isa is not Isa.RISCV64:
        raise UsageError(f"{path} is a kernel for {image.isa} and the board virt has {Isa.RISCV64} CPUs")
    if image.format is KernelFormat.ELF:
        return _load_elf(memory, image.content, path)
    start = RAM_START + (image.load_offset or _KERNEL_OFFSET)
    place(memory, start, image.content, str(path))
    return Loaded(start, start, start + image.size)


def load_firmware(memory: MachineMemory, path: str | Path) -> Loaded:
    """Load firmware that runs in M-mode: an ELF file, or what is to be at the start of RAM."""
    content = read_file(path, "firmware")
    if content.startswith(b"\x7fELF"):
        return _load_elf(memory, content, path)
    place(memory, RAM_START, content, str(path))
    return Loaded(RAM_START, RAM_START, RAM_START + len(content))


def load_initrd(memory: MachineMemory, path: str | Path, *, kernel: Loaded, limit: int) -> Range:
    """Load an initial file system behind the kernel; it has to end before `limit`.

    If there is room it is put well behind: firmware may move the device tree to where the kernel ends.
    """
    content = read_file(path, "initial file system")
    nearest = -(-kernel.end // _ALIGNMENT) * _ALIGNMENT
    usual = RAM_START + min((limit - RAM_START) // 2, _USUAL_DISTANCE) & -_ALIGNMENT
    start = max(nearest, usual) if max(nearest, usual) + len(content) <= limit else nearest
    if start + len(content) > limit:
        raise UsageError(f"{path} does not fit behind the kernel: give the machine more memory")
    place(memory, start, content, str(path))
    return Range(start, len(content))


def place(memory: MachineMemory, address: int, content: bytes, what: str) -> None:
    """Put bytes into RAM. Raises UsageError."""
    from anyvirt.cpu.machine_memory import RegionKind

    region = memory.mapping_at(address)
    is_ram = region is not None and region.kind is RegionKind.RAM
    if region is None or not is_ram or address + len(content) > region.end:
        raise UsageError(f"{what} wants to be at {address:#x}, where the machine has not enough RAM")
    memory.write(address, content)


def _load_elf(memory: MachineMemory, content: bytes, path: str | Path) -> Loaded:
    from anyvirt.isa.names import Isa
    from anyvirt.linux.elf import ElfError, ElfType, SegmentType, parse_elf

    try:
        elf = parse_elf(content)
    except ElfError as error:
        raise UsageError(f"{path} cannot be loaded: it is {error}") from None
    if elf.isa is not Isa.RISCV64:
        raise UsageError(f"{path} is for {elf.isa} and the board virt has {Isa.RISCV64} CPUs")
    segments = [segment for segment in elf.segments if segment.type == SegmentType.LOAD]
    start = min(segment.physical_address for segment in segments)
    # What was linked to run anywhere, as OpenSBI is, goes to the beginning of RAM.
    distance = RAM_START - start if elf.type == ElfType.DYN and start < RAM_START else 0
    entry = elf.entry + distance
    for segment in segments:
        data = content[segment.offset : segment.offset + segment.file_size]
        address = segment.physical_address + distance
        place(memory, address, data.ljust(segment.memory_size, b"\0"), str(path))
        if segment.address <= elf.entry < segment.address + segment.memory_size:
            entry = elf.entry - segment.address + address
    end = max(segment.physical_address + segment.memory_size for segment in segments)
    return Loaded(entry, start + distance, end + distance)
