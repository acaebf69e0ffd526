"""The translations of one address space: where they are, what they were made from, and when they end.

A translation is entered through the record of its first instruction, whose handler it replaces. It is given
up when code it was made from changes, is remapped or may not be executed any more; CPUs that are in it at
that time leave it as any CPU leaves code that was changed under it, and its memory is used again once none
can be in it.
"""

from __future__ import annotations

import threading
import weakref
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anyvirt.cpu.arena import ArenaFullError, Placement, arena
from anyvirt.cpu.code import code_space
from anyvirt.cpu.guest_code import guest_code
from anyvirt.cpu.hooked import hooked_addresses
from anyvirt.cpu.memory import PAGE_SIZE, outer_locks
from anyvirt.jit.guest_code import code_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from anyvirt.cpu.code import CodeSpace
    from anyvirt.cpu.guest_code import GuestCode
    from anyvirt.cpu.machine_code import MachineCodeSpace
    from anyvirt.cpu.machine_memory import MachineMemory
    from anyvirt.cpu.memory import FlatMemory


@dataclass(eq=False)
class Translation:
    """Guest code as machine code of the host."""

    entry: int
    ranges: list[tuple[int, int]]
    """Addresses of the guest's instructions in it, as (start, end)."""
    digest: str
    """Of those instructions."""
    placement: Placement
    start: int
    """Host address of its code."""
    cut: bool = False
    """The limit on its size has kept instructions out of it."""
    missed: int = 0
    """How often control left it for a place that it could have contained."""
    generation: int = 0
    """How often its region has been compiled anew."""
    instructions: int = 0
    """How many of the guest's it has."""
    entries: list[int] = field(default_factory=list)
    """Where it is entered: `entry`, unless another one is now, and others."""

    def covers(self, start: int, end: int) -> bool:
        """Whether some of its instructions lie in [start, end)."""
        return any(low < end and start < high for low, high in self.ranges)


@dataclass
class Statistics:
    """What has been translated so far."""

    published: int = 0
    given_up: int = 0
    instructions: int = 0
    from_disk: int = 0


class TranslationSpace:
    """The translations of one address space for one instruction set and way of counting."""

    def __init__(self, memory: FlatMemory | MachineMemory, code: CodeSpace | MachineCodeSpace) -> None:
        self.code: GuestCode = guest_code(memory, code)
        self._by_entry: dict[int, Translation] = {}
        self._by_page: dict[int, set[Translation]] = {}
        self._lock = memory.lock
        self._fence = threading.Lock()
        """To take it orders this thread's accesses to memory; nobody ever holds it."""
        self.barriers = hooked_addresses(memory)
        """Instructions that must not be translated: somebody wants to see them executed."""
        self.changes = 0
        """Grows whenever executable memory changes."""
        self.statistics = Statistics()
        memory.on_code_change.append(self.forget)

    def __del__(self) -> None:
        arena().abandon([translation.placement for translation in set(self._by_entry.values())])

    def at(self, entry: int) -> Translation | None:
        """The translation that is entered at an address."""
        return self._by_entry.get(entry)

    def containing(self, pc: int) -> Iterator[Translation]:
        """Translations that an instruction is part of."""
        # Another CPU's thread may publish one meanwhile.
        for translation in tuple(self._by_page.get(pc // PAGE_SIZE, ())):
            if translation.covers(pc, pc + 1):
                yield translation

    @contextmanager
    def reading(self) -> Iterator[Callable[[int, int], bytes | None]]:
        """A function like `code.read` that reads each page once, for publishing many images.

        Whoever changes code meanwhile waits, and then has what was made from it forgotten.
        """
        pages: dict[int, bytes | None] = {}

        def read(address: int, length: int) -> bytes | None:
            page, offset = address & -PAGE_SIZE, address % PAGE_SIZE
            if page not in pages:
                self.code.watch(page)
                with self._fence:
                    pass
                pages[page] = self.code.read(page, PAGE_SIZE)
            content = pages[page]
            if content is None or offset + length <= PAGE_SIZE:
                return None if content is None else content[offset : offset + length]
            rest = read(page + PAGE_SIZE, offset + length - PAGE_SIZE)
            return None if rest is None else content[offset:] + rest

        with self._lock:
            yield read

    def publish(
        self,
        entry: int,
        ranges: list[tuple[int, int]],
        digest: str,
        image: bytes,
        offset: int,
        *,
        others: Iterable[int] = (),
        instructions: int = 0,
        read: Callable[[int, int], bytes | None] | None = None,
    ) -> Translation | None:
        """Let CPUs enter an image at `offset` for the code at `entry`; None if that has changed.

        It is entered at `others`, too, but where what is there has more than its `instructions`. `read` is
        from `reading`, by those who publish many.
        """
        with self._lock:
            if self._is_barred(ranges):
                return None
            # Whoever stores to the code from now on will have this forgotten; what has been stored is seen.
            for page in _pages(ranges):
                self.code.watch(page * PAGE_SIZE)
            with self._fence:
                pass
            if code_digest(ranges, read or self.code.read) != digest:
                return None
            if self.code.handler(entry) is None:
                return None
            try:
                placement = arena().place(image)
            except ArenaFullError:
                self.forget_all()
                return None
            start = placement.address + offset
            translation = Translation(entry, ranges, digest, placement, start, instructions=instructions)
            for page in _pages(ranges):
                self._by_page.setdefault(page, set()).add(translation)
            self._enter_at(translation, entry)
            for other in others:
                old = self._by_entry.get(other)
                if old is None or old.instructions <= instructions:
                    self._enter_at(translation, other)
            self.statistics.published += 1
            return translation

    def _enter_at(self, translation: Translation, entry: int) -> None:
        """Let CPUs enter a translation at an address, and no other one there."""
        handler = self.code.handler(entry)
        if handler is None:
            return
        old = self._by_entry.get(entry)
        self._by_entry[entry] = translation
        translation.entries.append(entry)
        # Nobody may come to the old one any more before its memory is given back.
        handler.value = translation.start
        if old is not None:
            old.entries.remove(entry)
            if not old.entries:
                self._give_up(old)

    def _is_barred(self, ranges: list[tuple[int, int]]) -> bool:
        """Whether some instruction of a translation must not be part of one."""
        return any(low <= barrier < high for barrier in self.barriers for low, high in ranges)

    def forget(self, start: int, length: int) -> None:
        """Give up what was made from [start, start + length): the bytes have changed."""
        with self._lock:
            self.changes += 1
            if len(self._by_page) * PAGE_SIZE < length:
                found = set(self._by_entry.values())
            else:
                pages = range(start // PAGE_SIZE, (start + length - 1) // PAGE_SIZE + 1)
                found = set().union(*(self._by_page.get(page, ()) for page in pages))
            for translation in found:
                if translation.covers(start, start + length):
                    self._give_up(translation)

    def forget_at(self, entry: int) -> bool:
        """Give up what is entered at an address; whether there was anything."""
        with self._lock:
            translation = self._by_entry.get(entry)
            if translation is not None:
                self._give_up(translation)
            return translation is not None

    def forget_all(self) -> None:
        """Give up everything."""
        with self._lock:
            for translation in set(self._by_entry.values()):
                self._give_up(translation)

    def revalidate(self) -> None:
        """Records were emptied although code may be the same: go on with what was made from that."""
        with self._lock:
            for translation in set(self._by_entry.values()):
                handlers = [self.code.handler(entry) for entry in translation.entries]
                if None in handlers or code_digest(translation.ranges, self.code.read) != translation.digest:
                    self._give_up(translation)
                    continue
                for handler in handlers:
                    handler.value = translation.start  # type: ignore[union-attr]

    def _give_up(self, translation: Translation) -> None:
        for page in _pages(translation.ranges):
            self._by_page[page].discard(translation)
            if not self._by_page[page]:
                del self._by_page[page]
        for entry in translation.entries:
            del self._by_entry[entry]
            handler = self.code.handler(entry)
            if handler is not None and handler.value == translation.start:
                handler.value = 0
        arena().retire(translation.placement)
        self.statistics.given_up += 1


# Who holds it may have to fork for a compiler, which holds it once more.
_lock = threading.RLock()
outer_locks.append(_lock)
_spaces: weakref.WeakKeyDictionary[FlatMemory | MachineMemory, dict[tuple[str, bool], TranslationSpace]] = (
    weakref.WeakKeyDictionary()
)


def translation_space(memory: FlatMemory | MachineMemory, isa: str, *, counted: bool) -> TranslationSpace:
    """The translations of an address space, shared by all CPUs that execute translations there."""
    with _lock:
        spaces = _spaces.setdefault(memory, {})
        key = (isa, counted)
        if key not in spaces:
            code = code_space(memory, isa, counted=counted, translated=True)
            spaces[key] = TranslationSpace(memory, code)
        return spaces[key]


def _pages(ranges: list[tuple[int, int]]) -> set[int]:
    return {page for start, end in ranges for page in range(start // PAGE_SIZE, (end - 1) // PAGE_SIZE + 1)}
