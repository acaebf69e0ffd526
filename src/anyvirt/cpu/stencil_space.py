"""The stencil translations of one space of decoded code: where they are entered, and when they end.

A translation is entered through the records of some of its instructions, whose handlers it replaces. Whoever
else replaces one of these later is let have it. When code that it was made from changes, it is given up; CPUs
that are in it are asked to leave at their next loop, and its memory is used again once none can be in it.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyvirt.cpu.arena import ArenaFullError, Placement, arena
from anyvirt.cpu.code import code_space
from anyvirt.cpu.host import host
from anyvirt.cpu.memory import PAGE_SIZE
from anyvirt.cpu.stencil import StencilTier
from anyvirt.jit.layout import HANDLER_FIELD, Request, Slot

if TYPE_CHECKING:
    from anyvirt.cpu.code import CodeSpace
    from anyvirt.cpu.memory import FlatMemory


@dataclass(eq=False)
class StencilTranslation:
    """An image in the arena and the records that lead to it."""

    placement: Placement
    entries: list[tuple[int, int]]
    """Host addresses: of a record's handler field, and of the code that belongs there."""
    ranges: list[tuple[int, int]]
    """Guest addresses covered, as (start, end)."""

    @property
    def pages(self) -> set[int]:
        """Numbers of the guest's pages that it was made from."""
        return {
            page
            for start, end in self.ranges
            for page in range(start // PAGE_SIZE, (end - 1) // PAGE_SIZE + 1)
        }

    def covers(self, start: int, end: int) -> bool:
        """Whether some of its instructions lie in [start, end)."""
        return any(low < end and start < high for low, high in self.ranges)


class StencilSpace:
    """The stencil translations of one space of decoded code. Any thread may use it."""

    def __init__(self, memory: FlatMemory, isa: str, code: CodeSpace, *, counted: bool) -> None:
        """`counted` as the space's interpreter is. Raises UnsupportedError."""
        self._by_page: dict[int, set[StencilTranslation]] = {}
        self._code = code
        self._tier = StencilTier(memory, isa, code, counted=counted)
        self._lock = threading.RLock()
        self.instructions = 0
        """Guest instructions that have been translated so far."""
        memory.on_code_change.append(self.forget)

    def __del__(self) -> None:
        for translation in set[StencilTranslation]().union(*self._by_page.values()):
            arena().retire(translation.placement)

    def translate(self, pc: int, *, decode: bool = False) -> bool:
        """Let CPUs that come to `pc` run a translation; whether there is one now.

        `decode` as in `StencilTier.translate`. The interpreter goes on where no translation is possible.
        """
        with self._lock:
            image = self._tier.translate(pc, decode=decode)
            if image is None:
                return False
            try:
                placement = arena().place(image.image)
            except ArenaFullError:
                self.forget_all()
                return False
            shift = self._code.layout.shift
            entries = [
                (self._code.records + (entry << shift) + HANDLER_FIELD, placement.address + offset)
                for entry, offset in image.entries
            ]
            translation = StencilTranslation(placement, entries, image.ranges)
            for page in translation.pages:
                self._by_page.setdefault(page, set()).add(translation)
            for field, code in entries:
                ctypes.c_uint64.from_address(field).value = code
            self.instructions += image.instructions
            return True

    def is_translated(self, pc: int) -> bool:
        """Whether CPUs that come to `pc` run a translation of any kind."""
        field = self._code.records + (pc << self._code.layout.shift) + HANDLER_FIELD
        return arena().contains(ctypes.c_uint64.from_address(field).value)

    def forget(self, start: int, length: int) -> None:
        """Give up what was made from [start, start + length): the bytes have changed."""
        with self._lock:
            if len(self._by_page) * PAGE_SIZE < length:
                found = set[StencilTranslation]().union(*self._by_page.values())
            else:
                pages = range(start // PAGE_SIZE, (start + length - 1) // PAGE_SIZE + 1)
                found = set[StencilTranslation]().union(*(self._by_page.get(page, ()) for page in pages))
            self._give_up([part for part in found if part.covers(start, start + length)])

    def forget_all(self) -> None:
        """Give up everything."""
        with self._lock:
            self._give_up(list(set[StencilTranslation]().union(*self._by_page.values())))

    def _give_up(self, translations: list[StencilTranslation]) -> None:
        for translation in translations:
            for page in translation.pages:
                self._by_page[page].discard(translation)
                if not self._by_page[page]:
                    del self._by_page[page]
            for field, code in translation.entries:
                handler = ctypes.c_uint64.from_address(field)
                if handler.value == code:
                    handler.value = 0
            arena().retire(translation.placement)
        if translations:
            for state in host().running_states():
                ctypes.c_uint8.from_address(state + Slot.PENDING + Request.SAMPLE).value = 1


_lock = threading.Lock()
_spaces: weakref.WeakKeyDictionary[FlatMemory, dict[tuple[str, bool], StencilSpace]] = (
    weakref.WeakKeyDictionary()
)


def stencil_space(memory: FlatMemory, isa: str, *, counted: bool) -> StencilSpace:
    """The stencil translations of an address space, shared by all CPUs that execute translations there."""
    with _lock:
        spaces = _spaces.setdefault(memory, {})
        key = (isa, counted)
        if key not in spaces:
            code = code_space(memory, isa, counted=counted, translated=True)
            spaces[key] = StencilSpace(memory, isa, code, counted=counted)
        return spaces[key]
