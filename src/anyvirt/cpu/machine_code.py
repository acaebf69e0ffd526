"""Decoded code of a machine memory: a page of records for each page of RAM or ROM that is executed."""

from __future__ import annotations

import ctypes
import mmap
from typing import TYPE_CHECKING, cast

from anyvirt.cpu.hooked import HookTable
from anyvirt.cpu.memory import PAGE_SIZE, host_discard, host_munmap, reserve
from anyvirt.errors import UnsupportedError
from anyvirt.jit.layout import RecordLayout
from anyvirt.jit.machine_layout import END_RECORDS, LOOKUP, MOST_PAGES, RecordPage

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.cpu.host import MappedBlob

POOL_SIZE = 1 << 36
"""Bytes of address space for pages of records; what is not used costs nothing."""
_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE


class MachineCodeSpace:
    """The records of a memory's code for one interpreter."""

    _reserved = 0
    table = 0
    """Host address of the address of the page of records for each page number; 0 where there is none."""

    def __init__(self, interpreter: MappedBlob) -> None:
        """Raises UnsupportedError where the host does not give that much address space."""
        self.interpreter = interpreter
        granule, size = cast("list[int]", interpreter.blob.notes["records"])
        self.layout = RecordLayout(granule, size)
        self.hooks = HookTable(interpreter["hooked"], size)
        self.half = PAGE_SIZE << self.layout.shift
        """Bytes of records for a page of code, and half of the distance between such pages."""
        try:
            self.table = reserve(8 * MOST_PAGES, _READ_WRITE)
            self._size = POOL_SIZE
            self._reserved = reserve(self._size + self.stride, _READ_WRITE)
        except OSError as error:
            raise UnsupportedError(
                "interpreter",
                "address space for decoded code",
                f"the host refuses to reserve {POOL_SIZE >> 30} GiB ({error.strerror}): "
                "see `ulimit -v` and vm.overcommit_memory",
            ) from None
        self._pool = -(-self._reserved // self.stride) * self.stride
        self._used = 0
        outside = interpreter["outside"].to_bytes(8, "little").ljust(size, b"\0")
        self._end = outside * (END_RECORDS // granule)

    def __del__(self) -> None:
        if self._reserved:
            host_munmap(self._reserved, self._size + self.stride)
        if self.table:
            host_munmap(self.table, 8 * MOST_PAGES)

    @property
    def stride(self) -> int:
        """Distance between pages of records, to which they are aligned."""
        return 2 * self.half

    @property
    def is_full(self) -> bool:
        """Whether there is no place for another page."""
        return self._used + self.stride > self._size

    def page(self, number: int) -> int:
        """Address of the records of a page; 0 if it has none."""
        return self._entry(number).value

    def page_number(self, records: int) -> int | None:
        """The number of the page of code whose records are at a host address; None if it has none there."""
        if not self._pool <= records < self._pool + self._used:
            return None
        return ctypes.c_uint64.from_address(records + self.half + RecordPage.NUMBER).value

    def make_page(self, number: int, host: int, flag: int) -> None:
        """Make place for the records of a page, whose bytes and CodeFlag are at the given host addresses."""
        page = self._pool + self._used
        self._used += self.stride
        header = page + self.half
        ctypes.memmove(header, self._end, len(self._end))
        for field, value in (
            (RecordPage.HOST, host),
            (RecordPage.FLAG, flag),
            (RecordPage.NUMBER, number),
        ):
            ctypes.c_uint64.from_address(header + field).value = value
        self._entry(number).value = page

    def clear(self) -> None:
        """Give all pages back; no CPU may be running, and none may go on in the middle of one."""
        host_discard(self._pool, self._used)
        host_discard(self.table, 8 * MOST_PAGES)
        self._used = 0

    @property
    def page_count(self) -> int:
        """How many pages there are."""
        return self._used // self.stride

    def discard(self, first: int, end: int, is_kept: Callable[[int], bool]) -> None:
        """Forget what was decoded in the `first` page made and those up to `end`, by number of the page.

        No CPU may be in the middle of an instruction. The pages stay where they are, without their records.
        """
        for position in range(first, min(end, self.page_count)):
            page = self._pool + position * self.stride
            number = self.page_number(page)
            if number is not None and not is_kept(number):
                host_discard(page, self.half)

    def crossing_page(self) -> tuple[int, int]:
        """A page of records for instructions of a CPU that cross pages: what is reserved, and the page."""
        reserved = reserve(2 * self.stride, _READ_WRITE)
        page = -(-reserved // self.stride) * self.stride
        outside = self.interpreter["outside"]
        record = outside.to_bytes(8, "little").ljust(self.layout.size, b"\0")
        ctypes.memmove(page, record * (PAGE_SIZE // self.layout.granule), self.half)
        ctypes.memmove(page + self.half, self._end, len(self._end))
        ctypes.c_uint64.from_address(page + self.half + RecordPage.OUTSIDE).value = outside
        ctypes.c_uint64.from_address(page + self.half + RecordPage.LOST).value = self.interpreter[LOOKUP]
        return reserved, page

    def _entry(self, number: int) -> ctypes.c_uint64:
        return ctypes.c_uint64.from_address(self.table + 8 * number)
