"""The translations of a machine's code by where it is in physical memory, whatever address it is executed at.

What says where is a *place*: the number of a page of RAM or ROM times the size of a page, plus the offset in
it. A translation of code of several pages checks on its way from one to another that they are mapped as they
were when it was made (`anyvirt.jit.region_paged`); for that it is told here where their records are.
"""

from __future__ import annotations

import ctypes
import struct
import threading
import weakref
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyvirt.cpu.code import code_space
from anyvirt.cpu.host import host
from anyvirt.cpu.memory import PAGE_SIZE
from anyvirt.cpu.translation import Translation, TranslationSpace
from anyvirt.jit.image_layout import Header
from anyvirt.jit.layout import HANDLER_FIELD, Request, Slot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyvirt.cpu.machine_code import MachineCodeSpace
    from anyvirt.cpu.machine_memory import MachineMemory

_WORD = (1 << 64) - 1
_HIGH_BYTE = 5
"""Of an address in the host's memory that mmap(2) has given: never 0."""


@dataclass(frozen=True)
class Surroundings:
    """Pages of code around a place, as one CPU saw them mapped, at addresses that mean nothing elsewhere."""

    pages: dict[int, int]
    """Their numbers by address."""

    def place(self, address: int) -> int:
        """Where what is at an address is in physical memory. Raises KeyError."""
        return self.pages[address & -PAGE_SIZE] * PAGE_SIZE + address % PAGE_SIZE

    def contains(self, ranges: list[tuple[int, int]]) -> bool:
        """Whether all of these addresses are in these pages."""
        return all(
            page in self.pages for start, end in ranges for page in range(start & -PAGE_SIZE, end, PAGE_SIZE)
        )

    def places(self, ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Ranges of addresses as ranges of places, each in one page, in the same order. Raises KeyError."""
        result = []
        for start, end in ranges:
            for page in range(start & -PAGE_SIZE, end, PAGE_SIZE):
                low, high = max(start, page), min(end, page + PAGE_SIZE)
                place = self.place(low)
                result.append((place, place + high - low))
        return result


class PagedCode:
    """`anyvirt.cpu.guest_code.GuestCode` with places for addresses."""

    model = "machine"
    memory_size = 0
    alone = False

    def __init__(self, memory: MachineMemory, code: MachineCodeSpace) -> None:
        self._memory: MachineMemory = weakref.proxy(memory)
        self.space = code
        self.marks = PAGE_SIZE // code.layout.granule

    def read(self, address: int, length: int) -> bytes | None:
        """See GuestCode; all in one page."""
        number, offset = divmod(address, PAGE_SIZE)
        if offset + length > PAGE_SIZE:
            return None
        return ctypes.string_at(self._memory.page_address(number) + offset, length)

    def handler(self, pc: int) -> ctypes.c_uint64 | None:
        """See GuestCode."""
        number, offset = divmod(pc, PAGE_SIZE)
        record = self.records(number) + (offset << self.space.layout.shift)
        return ctypes.c_uint64.from_address(record + HANDLER_FIELD)

    def records(self, number: int) -> int:
        """Host address of the records of a page."""
        self._memory.make_code_page(self.space, number)
        return self.space.page(number)

    def decoded(self, page: int) -> bytes | None:
        """See GuestCode."""
        records = self.space.page(page // PAGE_SIZE)
        if not records:
            return None
        layout = self.space.layout
        return ctypes.string_at(records, PAGE_SIZE * layout.scale)[HANDLER_FIELD + _HIGH_BYTE :: layout.size]

    def pages(self) -> Iterator[int]:
        """See GuestCode."""
        return iter(())

    def watch(self, page: int) -> None:
        """See GuestCode."""
        self._memory.make_code_page(self.space, page // PAGE_SIZE)
        self._memory.note_translations(page // PAGE_SIZE)


class PagedTranslationSpace(TranslationSpace):
    """The translations of a machine's memory for one instruction set and way of counting."""

    code: PagedCode

    def __init__(self, memory: MachineMemory, code: MachineCodeSpace) -> None:
        super().__init__(memory, code)
        self.code = PagedCode(memory, code)
        self._memory: MachineMemory = weakref.proxy(memory)
        self.versions: Counter[int] = Counter()
        """How often the code of a page has changed, by its number."""

    def publish_region(
        self,
        entry: int,
        ranges: list[tuple[int, int]],
        digest: str,
        image: bytes,
        offset: int,
        surroundings: Surroundings,
    ) -> Translation | None:
        """`publish` what was made from code at addresses in `surroundings`."""
        with self._lock:
            try:
                places = surroundings.places(ranges)
                place = surroundings.place(entry)
            except KeyError:
                return None
            changes = self.changes
            bound = self._bind(image, entry, ranges, surroundings)
            if self.changes != changes:
                # All records have been given up to make room for those of a page.
                return None
            return self.publish(place, places, digest, bound, offset)

    def _bind(
        self, image: bytes, entry: int, ranges: list[tuple[int, int]], surroundings: Surroundings
    ) -> bytes:
        """Fill in the table of pages of an image (`Header.PAGE_TABLE`)."""
        pages = sorted({page for start, end in ranges for page in range(start & -PAGE_SIZE, end, PAGE_SIZE)})
        count, table = struct.unpack_from("<II", image, Header.PAGES)
        if count != len(pages):
            raise ValueError(f"an image for {count} pages of code that has {len(pages)}")
        shift, home = self.code.space.layout.shift, entry & -PAGE_SIZE
        base = self.code.records(surroundings.pages[home])
        distances = [
            self.code.records(surroundings.pages[page]) - base - (page - home << shift) & _WORD
            for page in pages
        ]
        bound = bytearray(image)
        struct.pack_into(f"<{count}Q", bound, table, *distances)
        return bytes(bound)

    def _is_barred(self, ranges: list[tuple[int, int]]) -> bool:
        """Barriers are addresses, which may be those of any page."""
        return any(
            low <= (low & -PAGE_SIZE) + barrier % PAGE_SIZE < high
            for barrier in self.barriers
            for low, high in ranges
        )

    def forget(self, start: int, length: int) -> None:
        """Give up what was made from a range of physical addresses: the bytes have changed."""
        if length > PAGE_SIZE:
            with self._lock:
                self.changes += 1
                self.forget_all()
            return
        region = self._memory.mapping_at(start)
        if region is not None and region.bank is not None:
            number = region.page_number(start)
            self.versions[number] += 1
            super().forget(number * PAGE_SIZE, PAGE_SIZE)

    def _give_up(self, translation: Translation) -> None:
        """CPUs that are in it are asked to leave it at their next loop."""
        super()._give_up(translation)
        for state in host().running_states():
            ctypes.c_uint8.from_address(state + Slot.PENDING + Request.SAMPLE).value = 1


_lock = threading.Lock()
_spaces: weakref.WeakKeyDictionary[MachineMemory, dict[tuple[str, bool], PagedTranslationSpace]] = (
    weakref.WeakKeyDictionary()
)


def paged_translation_space(memory: MachineMemory, isa: str, *, counted: bool) -> PagedTranslationSpace:
    """The translations of a machine's code, shared by all CPUs that execute translations there."""
    with _lock:
        spaces = _spaces.setdefault(memory, {})
        key = (isa, counted)
        if key not in spaces:
            spaces[key] = PagedTranslationSpace(
                memory, code_space(memory, isa, counted=counted, translated=True)
            )
        return spaces[key]
