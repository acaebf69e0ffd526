"""The stencil translations of one space of decoded code: where they are entered, and when they end.

A translation is entered through the records of some of its instructions, whose handlers it replaces. Whoever
else replaces one of these later is let have it. When code that it was made from changes, it is given up; CPUs
that are in it are asked to leave at their next loop, and its memory is used again once none can be in it.
"""

from __future__ import annotations

import ctypes
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anyvirt.cpu.arena import ArenaFullError, Placement, arena
from anyvirt.cpu.code import code_space
from anyvirt.cpu.host import host
from anyvirt.cpu.memory import PAGE_SIZE, FlatMemory, hold_over_fork, outer_locks
from anyvirt.cpu.stencil import StencilImage, StencilTier
from anyvirt.jit.layout import HANDLER_FIELD, Request, Slot

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from anyvirt.cpu.code import CodeSpace
    from anyvirt.cpu.machine_code import MachineCodeSpace
    from anyvirt.cpu.machine_memory import MachineMemory

_MASK = (1 << 64) - 1
_CATCHING_UP = 0.002
"""Seconds after which catching up is to go on another time."""
_HEAD_START, _SHARE = 0.05, 0.1
"""Seconds that catching up may take at first, and the share of the time that it may have."""
_MOST_CONTINUATIONS = 16
"""Translations that are made at a time because code goes on behind one."""


@dataclass(eq=False)
class StencilTranslation:
    """An image in the arena and the records that lead to it."""

    placement: Placement
    entries: list[tuple[int, int]]
    """Host addresses: of a record's handler field, and of the code that belongs there."""
    ranges: list[tuple[int, int]]
    """What it covers, as (start, end): addresses in flat memory; in machine memory page numbers times the
    size of a page, plus offsets."""
    replaced: dict[int, int] = field(default_factory=dict)
    """What was in the fields of the entries before, as far as that was the interpreter's."""

    @property
    def pages(self) -> set[int]:
        """Numbers of the pages that it was made from."""
        return {
            page
            for start, end in self.ranges
            for page in range(start // PAGE_SIZE, (end - 1) // PAGE_SIZE + 1)
        }

    def ranges_within(self, page: int) -> Iterator[tuple[int, int]]:
        """What it covers of the page that begins at `page`, relative to that."""
        for start, end in self.ranges:
            low, high = max(start - page, 0), min(end - page, PAGE_SIZE)
            if low < high:
                yield low, high

    def covers(self, start: int, end: int) -> bool:
        """Whether some of its instructions lie in [start, end)."""
        return any(low < end and start < high for low, high in self.ranges)


class StencilSpace(ABC):
    """The stencil translations of one space of decoded code. Any thread may use it."""

    _tier: StencilTier
    _code: CodeSpace | MachineCodeSpace

    def __init__(self) -> None:
        self.lock = threading.RLock()
        hold_over_fork(self.lock)
        self.instructions = 0
        """Guest instructions that have been translated so far."""
        self._by_page: dict[int, set[StencilTranslation]] = {}
        self._behind: dict[int, None] = {}
        """Pages that are still to be caught up with."""
        self._began = time.monotonic()
        self._spent = 0.0
        """Seconds for which there has been catching up."""

    def __del__(self) -> None:
        arena().abandon(translation.placement for translation in self._all())

    @abstractmethod
    def translate(self, state: int, *, decode: bool = False) -> bool:
        """Let CPUs that come to where the one with a state block is run a translation; whether there is one.

        `decode` as in `StencilTier.translate`. The interpreter goes on where no translation is possible.
        """

    @abstractmethod
    def make_way(self, addresses: Iterable[int], state: int) -> None:
        """Let something better begin at guest addresses.

        What was made from the code around is made anew, and leads there. `state` is the state block of a CPU
        that was about to execute it.
        """

    @abstractmethod
    def go_on_around(self, ranges: Collection[tuple[int, int]]) -> None:
        """There is something better for these ranges of guest addresses: translate what is around them."""

    def care_for(self, places: Iterable[int]) -> None:
        """There is hot code in the pages of these places, which are what ranges are made of."""
        with self.lock:
            self._behind.update((place & -PAGE_SIZE, None) for place in places)

    def catch_up(self) -> bool:
        """Translate some of what has been decoded in pages with hot code; whether there is more.

        Looks at a guest show where it jumps; they seldom show the few instructions of each way between two
        translations that the interpreter executes.
        """
        began = now = time.monotonic()
        with self.lock:
            if self._spent > _HEAD_START + _SHARE * (began - self._began):
                return False
            while self._behind and now - began <= _CATCHING_UP:
                page = next(iter(self._behind))
                del self._behind[page]
                self._catch_up_with(page)
                now = time.monotonic()
            self._spent += now - began
        return bool(self._behind)

    def _catch_up_with(self, page: int) -> None:
        """Translate what has been decoded in a page, which the tier sees at its place, and is not covered."""
        granule = self._code.layout.granule
        covered = bytearray(PAGE_SIZE // granule)
        for part in self._by_page.get(page // PAGE_SIZE, ()):
            for low, high in part.ranges_within(page):
                covered[low // granule : high // granule] = bytes((1,)) * ((high - low) // granule)
        for image in self._tier.translate_page(page, covered):
            if not self._place(image, 0):
                return

    def synchronize(self) -> None:  # noqa: B027 - stores are seen as they happen, in most memories
        """A guest says that it has changed code."""

    def publish(self, tier: StencilTier, record: int, origin: int, *, decode: bool = False) -> bool:
        """Translate from a record on, if that has not been done; whether there is a translation.

        `origin` is what the ranges of the image are relative to. Where code goes on behind what fits into a
        translation it is translated, too: nobody would be seen to jump there.
        """
        if self.is_translated(record):
            return True
        image = tier.translate(record, decode=decode)
        if image is None or not self._place(image, origin):
            return False
        self.go_on(tier, [end for _, end in image.ranges], origin)
        return True

    def go_on(self, tier: StencilTier, addresses: Iterable[int], origin: int) -> None:
        """Translate what has been decoded at some addresses, and so on."""
        work = deque(addresses)
        for _ in range(_MOST_CONTINUATIONS):
            while work and not self._is_interpreted(tier.record_at(work[0])):
                work.popleft()
            if not work:
                return
            image = tier.translate(tier.record_at(work.popleft()))
            if image is not None and self._place(image, origin):
                work += [end for _, end in image.ranges]

    def _make_anew(self, found: Iterable[StencilTranslation]) -> None:
        """Translate from where translations were entered that have been given up."""
        for part in found:
            for place, _ in part.entries:
                if self._is_interpreted(place - HANDLER_FIELD):
                    self.publish(self._tier, place - HANDLER_FIELD, 0)

    def _place(self, image: StencilImage, origin: int) -> bool:
        try:
            placement = arena().place(image.image)
        except ArenaFullError:
            self.forget_all()
            return False
        entries = [(entry + HANDLER_FIELD, placement.address + offset) for entry, offset in image.entries]
        ranges = [(origin + start, origin + end) for start, end in image.ranges]
        translation = StencilTranslation(placement, entries, ranges)
        for page in translation.pages:
            self._by_page.setdefault(page, set()).add(translation)
        for place, code in entries:
            handler = ctypes.c_uint64.from_address(place)
            # What is there may be a region, which is better.
            if not arena().contains(handler.value):
                translation.replaced[place] = handler.value
                handler.value = code
        self.instructions += image.instructions
        return True

    @staticmethod
    def _is_interpreted(record: int) -> bool:
        if not record:
            return False
        handler = ctypes.c_uint64.from_address(record + HANDLER_FIELD).value
        return handler != 0 and not arena().contains(handler)

    @staticmethod
    def is_translated(record: int) -> bool:
        """Whether the record at a host address leads into a translation of any kind."""
        return arena().contains(ctypes.c_uint64.from_address(record + HANDLER_FIELD).value)

    def forget(self, start: int, length: int) -> None:
        """Give up what was made from [start, start + length) of what ranges say."""
        with self.lock:
            self._give_up(self._made_from(start, length))

    def _made_from(self, start: int, length: int) -> list[StencilTranslation]:
        if len(self._by_page) * PAGE_SIZE < length:
            found = self._all()
        else:
            pages = range(start // PAGE_SIZE, (start + length - 1) // PAGE_SIZE + 1)
            found = set().union(*(self._by_page.get(page, ()) for page in pages))
        return [part for part in found if part.covers(start, start + length)]

    def forget_all(self) -> None:
        """Give up everything."""
        with self.lock:
            self._give_up(list(self._all()))

    def _all(self) -> set[StencilTranslation]:
        return set[StencilTranslation]().union(*self._by_page.values())

    def _give_up(self, translations: Collection[StencilTranslation], *, restore: bool = False) -> None:
        """Take translations out of their records; `restore` what was there, which must still be true."""
        for translation in translations:
            for page in translation.pages:
                self._by_page[page].discard(translation)
                if not self._by_page[page]:
                    del self._by_page[page]
            for place, code in translation.entries:
                handler = ctypes.c_uint64.from_address(place)
                if handler.value == code:
                    handler.value = translation.replaced.get(place, 0) if restore else 0
            arena().retire(translation.placement)
        if translations:
            for state in host().running_states():
                ctypes.c_uint8.from_address(state + Slot.PENDING + Request.SAMPLE).value = 1


class FlatStencilSpace(StencilSpace):
    """Of a flat memory."""

    def __init__(self, memory: FlatMemory, isa: str, *, counted: bool) -> None:
        """`counted` as the runs are. Raises UnsupportedError."""
        super().__init__()
        code: CodeSpace = code_space(memory, isa, counted=counted, translated=True)
        self._tier = StencilTier(isa, code, counted=counted, machine=False)
        self._tier.see(memory, code)
        self._code = code
        memory.on_code_change.append(self.forget)

    def translate(self, state: int, *, decode: bool = False) -> bool:
        """See StencilSpace.translate."""
        with self.lock:
            if decode:
                self._tier.adopt(state)
            record = _slot(state, Slot.RECORD)
            self.care_for([record - _slot(state, Slot.RECORDS) >> self._code.layout.shift])
            return self.publish(self._tier, record, 0, decode=decode)

    def make_way(self, addresses: Iterable[int], state: int) -> None:
        """See StencilSpace.make_way."""
        with self.lock:
            found = {part for address in addresses for part in self._made_from(address, 1)}
            self._give_up(found)
            self._tier.adopt(state)
            for part in found:
                self._tier.decode([place - HANDLER_FIELD for place, _ in part.entries])
            self._make_anew(found)

    def go_on_around(self, ranges: Collection[tuple[int, int]]) -> None:
        """See StencilSpace.go_on_around."""
        with self.lock:
            self.go_on(self._tier, [end for _, end in ranges], 0)
            self.care_for(_pages_of(ranges))

    def synchronize(self) -> None:
        """See StencilSpace.synchronize."""
        self.forget_all()


class MachineStencilSpace(StencilSpace):
    """Of a machine memory. A translation is of code in one page."""

    _code: MachineCodeSpace
    _memory: MachineMemory

    def __init__(self, memory: MachineMemory, isa: str, *, counted: bool) -> None:
        """`counted` as the runs are. Raises UnsupportedError."""
        super().__init__()
        code: MachineCodeSpace = code_space(memory, isa, counted=counted, translated=True)
        self._memory = weakref.proxy(memory)
        self._fence = threading.Lock()
        """To take it orders this thread's accesses to memory; nobody ever holds it."""
        self._code = code
        self._tier = StencilTier(isa, code, counted=counted, machine=True)
        memory.on_code_change.append(self._forget_physical)

    def translate(self, state: int, *, decode: bool = False) -> bool:
        """See StencilSpace.translate."""
        record, records = _slot(state, Slot.RECORD), _slot(state, Slot.RECORDS)
        with self.lock:
            page = record & -self._code.stride
            number = self._code.page_number(page)
            if number is None:
                return False
            # Whoever stores to the page from now on will have this forgotten.
            self._memory.note_translations(number)
            self.care_for([number * PAGE_SIZE])
            distance = page - records & _MASK
            address = (distance - (distance >> 63 << 64) >> self._code.layout.shift) & _MASK
            self._tier.see_page(address, state)
            if decode:
                self._tier.adopt(state)
            return self.publish(self._tier, record, number * PAGE_SIZE - address, decode=decode)

    def make_way(self, addresses: Iterable[int], state: int) -> None:
        """See StencilSpace.make_way. The addresses are physical: those of a machine without modes."""
        for address in addresses:
            page = self._page_at(address)
            if page is not None:
                self.make_way_at(page + address % PAGE_SIZE)

    def go_on_around(self, ranges: Collection[tuple[int, int]]) -> None:
        """See StencilSpace.go_on_around; guest addresses are physical, as for `make_way`."""
        pages = (self._page_at(address) for address in _pages_of(ranges))
        self.care_for(page for page in pages if page is not None)

    def make_way_at(self, place: int) -> None:
        """Let something better begin at a page's number times the size of a page, plus an offset.

        What was made from the code around is made anew, and leads there.
        """
        number = place // PAGE_SIZE
        with self.lock:
            found = [part for part in self._by_page.get(number, ()) if part.covers(place, place + 1)]
            page = self._code.page(number)
            if not found or not page:
                return
            # As for `translate`; and what is restored is compared with what was stored meanwhile.
            self._memory.note_translations(number)
            with self._fence:
                before = self._content(number)
            self._give_up(found, restore=True)
            self._tier.see_records(number * PAGE_SIZE, page)
            self._make_anew(found)
            with self._fence:
                pass
            if self._content(number) != before:
                # Whoever stored to it may have forgotten the code before it was restored.
                self.forget(number * PAGE_SIZE, PAGE_SIZE)
                for entry, _ in (entry for part in found for entry in part.entries):
                    handler = ctypes.c_uint64.from_address(entry)
                    if not arena().contains(handler.value):
                        handler.value = 0

    def _catch_up_with(self, page: int) -> None:
        records = self._code.page(page // PAGE_SIZE)
        if records:
            # As for `translate`.
            self._memory.note_translations(page // PAGE_SIZE)
            with self._fence:
                pass
            self._tier.see_records(page, records)
            super()._catch_up_with(page)

    def _content(self, number: int) -> bytes:
        return ctypes.string_at(self._memory.page_address(number), PAGE_SIZE)

    def _forget_physical(self, start: int, length: int) -> None:
        """Give up what was made from a range of physical addresses."""
        if length > PAGE_SIZE:
            self.forget_all()
            return
        page = self._page_at(start)
        if page is not None:
            self.forget(page, PAGE_SIZE)

    def _page_at(self, address: int) -> int | None:
        """The place of the page that a physical address is in; None if there is no memory."""
        region = self._memory.mapping_at(address)
        if region is None or region.bank is None:
            return None
        return region.page_number(address) * PAGE_SIZE


def _pages_of(ranges: Iterable[tuple[int, int]]) -> Iterator[int]:
    """Addresses of the pages that ranges, as (start, end), lie in, and of those that begin behind them."""
    for start, end in ranges:
        yield from range(start & -PAGE_SIZE, end + 1, PAGE_SIZE)


def _slot(state: int, slot: Slot) -> int:
    return ctypes.c_uint64.from_address(state + slot).value


# Who holds it may have to fork for a compiler, which holds it once more.
_lock = threading.RLock()
outer_locks.append(_lock)
_spaces: weakref.WeakKeyDictionary[
    FlatMemory | MachineMemory, dict[tuple[str, bool], FlatStencilSpace | MachineStencilSpace]
] = weakref.WeakKeyDictionary()


def stencil_space(
    memory: FlatMemory | MachineMemory, isa: str, *, counted: bool
) -> FlatStencilSpace | MachineStencilSpace:
    """The stencil translations of a memory, shared by all CPUs that execute translations there."""
    with _lock:
        spaces = _spaces.setdefault(memory, {})
        key = (isa, counted)
        if key not in spaces:
            if isinstance(memory, FlatMemory):
                spaces[key] = FlatStencilSpace(memory, isa, counted=counted)
            else:
                spaces[key] = MachineStencilSpace(memory, isa, counted=counted)
        return spaces[key]
