"""Guest code as translations see it: its bytes, its records, and who has to hear when it changes.

The two kinds of memory differ in where records are and in which pages hold code.
"""

from __future__ import annotations

import ctypes
import weakref
from typing import TYPE_CHECKING, Protocol

from anyvirt.cpu.memory import PAGE_SIZE, FlatMemory, GuestFault, Protection
from anyvirt.jit.layout import HANDLER_FIELD

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyvirt.cpu.code import CodeSpace
    from anyvirt.cpu.machine_code import MachineCodeSpace
    from anyvirt.cpu.machine_memory import MachineMemory

_HIGH_BYTE = 5
"""Of an address in the host's memory that mmap(2) has given: never 0."""


class GuestCode(Protocol):
    """The code of one memory and its records in one space."""

    model: str
    """The memory model, by its name in `anyvirt.jit.memory_model`."""
    memory_size: int
    """Bytes of a flat address space; 0 for a machine's."""
    marks: int
    """Places in a page where an instruction can start."""

    @property
    def alone(self) -> bool:
        """Whether nobody but one CPU has the memory."""

    def read(self, address: int, length: int) -> bytes | None:
        """Bytes that the guest may execute, or None."""

    def handler(self, pc: int) -> ctypes.c_uint64 | None:
        """The handler of the record for an address; None if there is no place for one."""

    def decoded(self, page: int) -> bytes | None:
        """For each place of a page whether there is a decoded instruction; None if there are none at all."""

    def pages(self) -> Iterator[int]:
        """Addresses of the pages that may be executed, or have been where there are too many of them."""

    def watch(self, page: int) -> None:
        """There are translations of a page of code now."""


class FlatCode:
    """In a flat memory records are at their addresses times a factor."""

    model = "flat"

    def __init__(self, memory: FlatMemory, code: CodeSpace) -> None:
        self._memory = weakref.proxy(memory)
        self._code = code
        self.memory_size = memory.size
        self.marks = PAGE_SIZE // code.layout.granule

    @property
    def alone(self) -> bool:
        """See GuestCode."""
        return bool(self._memory.alone)

    def read(self, address: int, length: int) -> bytes | None:
        """See GuestCode."""
        position = address
        for mapping in self._memory.mappings_in(address, length):
            if mapping.start != position or not mapping.protection & Protection.EXECUTE:
                return None
            position = mapping.end
        if position != address + length:
            return None
        try:
            return bytes(self._memory.read(address, length))
        except GuestFault:
            # The file behind the page has been cut off.
            return None

    def handler(self, pc: int) -> ctypes.c_uint64 | None:
        """See GuestCode."""
        record = self._code.records + (pc << self._code.layout.shift)
        return ctypes.c_uint64.from_address(record + HANDLER_FIELD)

    def decoded(self, page: int) -> bytes | None:
        """See GuestCode."""
        if not ctypes.c_uint8.from_address(self._code.decoded_pages + page // PAGE_SIZE).value:
            return None
        layout = self._code.layout
        records = ctypes.string_at(self._code.records + (page << layout.shift), PAGE_SIZE * layout.scale)
        return records[HANDLER_FIELD + _HIGH_BYTE :: layout.size]

    def pages(self) -> Iterator[int]:
        """See GuestCode."""
        for mapping in self._memory.mappings:
            if mapping.protection & Protection.EXECUTE:
                yield from range(mapping.start, mapping.end, PAGE_SIZE)

    def watch(self, page: int) -> None:
        """The memory reports every change of code anyway."""


class MachineCode:
    """In a machine's memory records belong to physical pages; guest addresses are physical ones here."""

    model = "machine"
    memory_size = 0
    alone = False

    def __init__(self, memory: MachineMemory, code: MachineCodeSpace) -> None:
        self._memory: MachineMemory = weakref.proxy(memory)
        self._code = code
        self.marks = PAGE_SIZE // code.layout.granule

    def read(self, address: int, length: int) -> bytes | None:
        """See GuestCode."""
        try:
            return self._memory.fetch(address, length)
        except (GuestFault, ValueError):
            return None

    def handler(self, pc: int) -> ctypes.c_uint64 | None:
        """See GuestCode."""
        number = self._number(pc)
        if number is None:
            return None
        self._memory.make_code_page(self._code, number)
        record = self._code.page(number) + (pc % PAGE_SIZE << self._code.layout.shift)
        return ctypes.c_uint64.from_address(record + HANDLER_FIELD)

    def decoded(self, page: int) -> bytes | None:
        """See GuestCode."""
        number = self._number(page)
        records = 0 if number is None else self._code.page(number)
        if not records:
            return None
        content = ctypes.string_at(records, PAGE_SIZE * self._code.layout.scale)
        return content[HANDLER_FIELD + _HIGH_BYTE :: self._code.layout.size]

    def pages(self) -> Iterator[int]:
        """See GuestCode."""
        return self._memory.code_pages()

    def watch(self, page: int) -> None:
        """See GuestCode."""
        number = self._number(page)
        if number is not None:
            self._memory.note_translations(number)

    def _number(self, address: int) -> int | None:
        region = self._memory.mapping_at(address)
        if region is None or region.bank is None:
            return None
        return region.page_number(address)


def guest_code(
    memory: FlatMemory | MachineMemory, code: CodeSpace | MachineCodeSpace
) -> FlatCode | MachineCode:
    """What translations of a memory's code work with."""
    if isinstance(memory, FlatMemory):
        return FlatCode(memory, code)  # type: ignore[arg-type]
    return MachineCode(memory, code)  # type: ignore[arg-type]
