"""Coverage: which instructions have been executed and where blocks began, in files that other tools read.

    with Coverage(cpu, 0x10000, 0x80000) as coverage:
        cpu.run()
    coverage.write_drcov(path, [Module("/bin/program", 0x10000, 0x80000)])

The instrumented interpreter notes it natively, in one byte for each place where an instruction can start.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyvirt.cpu.disassembly import instruction_at
from anyvirt.cpu.memory import PAGE_SIZE, host_munmap, page_ceiling, reserve
from anyvirt.jit.hook_layout import Covered, Instrument

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from os import PathLike
    from typing import Self

    from anyvirt.cpu.hookable import Hookable

_DRCOV_BLOCK = struct.Struct("<IHH")
_LARGEST_BLOCK = 0xFFFF


@dataclass(frozen=True)
class Block:
    """Instructions that were executed one behind the other."""

    start: int
    end: int
    instructions: int


@dataclass(frozen=True)
class Module:
    """A program or library in the guest's memory: what drcov files give addresses relative to."""

    path: str
    start: int
    end: int


class Coverage:
    """A map of what one CPU executes in [start, end), from now on until it is closed."""

    def __init__(self, cpu: Hookable, start: int, end: int) -> None:
        """Record from now on. A map has a byte for each place, but takes memory only where code is executed.

        Raises ValueError for an empty range or if the CPU has a map already, and OSError if the host has no
        room for the map.
        """
        if not 0 <= start < end:
            raise ValueError(f"nothing can be covered in [{start:#x}, {end:#x})")
        self.start, self.end = start, end
        self._cpu = cpu
        self._hooks = cpu.hooks
        self._granule = self._hooks.granule
        self._count = -(-(end - start) // self._granule)
        self._map_size = page_ceiling(self._count)
        self._size = self._map_size + page_ceiling(self._map_size // PAGE_SIZE)
        self._map = reserve(self._size, mmap.PROT_READ | mmap.PROT_WRITE)
        self._pages = self._map + self._map_size
        self._hooks.attach_coverage(self)
        instruments = self._hooks.instruments
        instruments[Instrument.COVERED_LOW] = start
        instruments[Instrument.COVERED_SHIFT] = self._granule.bit_length() - 1
        instruments[Instrument.COVERED_COUNT] = self._count
        instruments[Instrument.COVERED_PAGES] = self._pages
        instruments[Instrument.COVERED] = self._map

    def close(self) -> None:
        """Record no longer; what has been recorded stays until the object goes."""
        self._hooks.detach_coverage(self)

    def follow(self, cpu: Hookable) -> None:
        """Go on with another CPU, which takes the place of the one so far."""
        self._cpu = cpu

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_map"):
            self.close()
            host_munmap(self._map, self._size)

    # What was executed ----------------------------------------------------------------------------------

    def _flags(self) -> Iterator[tuple[int, int]]:
        """Each covered address with its flags, ascending."""
        pages = ctypes.string_at(self._pages, self._map_size // PAGE_SIZE)
        number = pages.find(1)
        while number >= 0:
            first = number * PAGE_SIZE
            for offset, flags in enumerate(ctypes.string_at(self._map + first, PAGE_SIZE)):
                if flags:
                    yield self.start + (first + offset) * self._granule, flags
            number = pages.find(1, number + 1)

    def addresses(self) -> list[int]:
        """The addresses of all instructions that were executed, ascending."""
        return [address for address, _ in self._flags()]

    def blocks(self) -> list[Block]:
        """What was executed as blocks, ascending: one begins where it did for the CPU, or behind a gap."""
        blocks: list[Block] = []
        start = end = count = 0
        for address, flags in self._flags():
            if count and (address != end or flags == Covered.BLOCK):
                blocks.append(Block(start, end, count))
                count = 0
            if not count:
                start = address
            end, count = address + self._length(address), count + 1
        if count:
            blocks.append(Block(start, end, count))
        return blocks

    def _length(self, address: int) -> int:
        return instruction_at(self._cpu, address).length

    # Files ----------------------------------------------------------------------------------------------

    # To a path, or to a descriptor, which is closed then.

    def write_text(self, path: str | PathLike[str] | int) -> None:
        """One line for each block: its first address, the one behind it, and how many instructions it has."""
        with open(path, "w", encoding="ascii") as file:
            for block in self.blocks():
                file.write(f"{block.start:#x} {block.end:#x} {block.instructions}\n")

    def write_json(self, path: str | PathLike[str] | int) -> None:
        """An object with the instruction set, the covered range, and the blocks as [start, end, count]."""
        blocks = [[block.start, block.end, block.instructions] for block in self.blocks()]
        with open(path, "w", encoding="ascii") as file:
            json.dump({"isa": self._cpu.isa, "start": self.start, "end": self.end, "blocks": blocks}, file)

    def write_drcov(self, path: str | PathLike[str] | int, modules: Iterable[Module] = ()) -> None:
        """DynamoRIO's drcov format, version 2, which disassemblers show.

        Blocks outside of `modules` are left out; without modules there is one from address 0, `guest`.
        """
        known = list(modules) or [Module("guest", 0, self.end)]
        entries = []
        for block in self.blocks():
            for number, module in enumerate(known):
                if module.start <= block.start < module.end:
                    size = min(block.end - block.start, _LARGEST_BLOCK)
                    entries.append(_DRCOV_BLOCK.pack(block.start - module.start, size, number))
                    break
        lines = [
            "DRCOV VERSION: 2",
            "DRCOV FLAVOR: anyvirt",
            f"Module Table: version 2, count {len(known)}",
            "Columns: id, base, end, entry, checksum, timestamp, path",
            *(
                f"{number:3}, {module.start:#018x}, {module.end:#018x}, {0:#018x}, {0:#010x}, {0:#010x}, "
                f"{module.path}"
                for number, module in enumerate(known)
            ),
            f"BB Table: {len(entries)} bbs",
        ]
        with open(path, "wb") as file:
            file.write("\n".join([*lines, ""]).encode("utf-8", "surrogateescape"))
            file.write(b"".join(entries))
