"""What the CPU of a machine has been seen doing, by place in physical memory, and what regions that leads to.

What a region is made of is what the CPU sees around it when it is there, by its TLB for code. So what is
asked for is always a place that the CPU has just been at: it is also what is hot now.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

from anyvirt.cpu.memory import PAGE_SIZE
from anyvirt.cpu.paged_translation import PagedTranslationSpace, Surroundings
from anyvirt.cpu.profile import (
    HOT,
    IMAGE_ENTRY,
    LARGEST_LIMIT,
    PATIENCE,
    SMALLEST_LIMIT,
    Profile,
    frequent_targets,
)
from anyvirt.jit.layout import INSIDE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anyvirt.cpu.machine_view import MachineView
    from anyvirt.cpu.ticker import Pace
    from anyvirt.cpu.translation import Translation
    from anyvirt.jit.compile_protocol import Reply, Request
    from anyvirt.jit.region_cache import StoredRegion

HOME = 1 << 40
"""The address at which the compiler is shown the page of the entry; others are where they are from there."""
WINDOW, SEEN = 2048, 5
"""A place is hot that is so many of the last ones seen, which are those of some seconds. Of code that goes
everywhere, as a kernel's when it starts, a region has little to gain: most of it is entering and leaving."""
REACH = 12
"""Pages before and after that of the entry that the compiler gets to see."""
MOST_NEWS, MEMORY_OF_NEWS = 0.3, 0.95
"""The part of the looks that found code without any translation above which nothing is compiled: a guest that
is in new code all the time, as when it boots, will have left it when there is a region. And what is kept of
that part from one look to the next."""
MOST_TRIES = 8
"""Times that regions from disk wait for pages around them to be known."""
_WORD = (1 << 64) - 1


class PagedProfile(Profile):
    """Of one CPU and one way of counting. The addresses that `Profile` speaks of are places."""

    space: PagedTranslationSpace

    def __init__(
        self,
        isa: str,
        space: PagedTranslationSpace,
        directory: Path,
        view: MachineView,
        *,
        counted: bool,
        on_regions: Callable[[list[int]], None] = lambda entries: None,
    ) -> None:
        """`view` is the CPU's."""
        super().__init__(isa, space, directory, counted=counted, on_regions=on_regions)
        self._view = view
        self._here: dict[int, int] = {}
        """Places that could be asked for, as far as the CPU was there just now; an address of each."""
        self._last: deque[int] = deque()
        """Places seen, as many as WINDOW."""
        self._now: Counter[int] = Counter()
        """How often each is among them."""
        self._behind: dict[int, int] = {}
        """Places behind regions that the CPU has come to just now; an address of each."""
        self._jumps: dict[int, set[int]] = {}
        """Places of the jumps that have been seen, by the numbers of their pages."""
        self._waiting: dict[int, Surroundings] = {}
        """What the compiler was shown, by number of the request."""
        self._looked: dict[int, int] = {}
        """Versions of the pages for which there may be something on disk that was looked for."""
        self._unlooked: dict[int, int] = {}
        """Places where the CPU was just now and for which that is to be done; an address of each."""
        self._tries: Counter[int] = Counter()
        """How often what was found for a place has been looked at in vain."""
        self._news = 0.0
        """The part of the looks of late that found code without any translation."""
        self._stored: dict[int, dict[int, StoredRegion]] = {}
        """What was on disk for each page, by offset of the entry, as far as it is not in use yet."""

    def note_here(self, source: int) -> bool:
        """`Profile.note` with the address of the jump by which control has come to where the CPU is."""
        if source == INSIDE:
            return False
        number = self._view.record_page()
        if number is None:
            return True
        pc, origin = self._view.program_counter(), self.place(source) if source else 0
        place = number * PAGE_SIZE + pc % PAGE_SIZE
        if origin:
            self._jumps.setdefault(origin // PAGE_SIZE, set()).add(origin)
        self._count(place)
        self.note(place, origin or 0)
        if self._looked.get(number) != self.space.versions[number] or self._is_stored(place):
            self._unlooked[place] = pc
        if place in self._urgent or self._is_hot(place):
            self._here[place] = pc
        return True

    def note_news(self, news: bool) -> None:
        """A look has found code without any translation, or not."""
        self._news = self._news * MEMORY_OF_NEWS + news * (1 - MEMORY_OF_NEWS)

    def _is_hot(self, place: int) -> bool:
        return (
            (self._now[place] >= SEEN or place in self._behind)
            and self._arrivals[place] >= SEEN << 2 * self._asked.get(place, 0)
            and self.space.at(place) is None
        )

    def _go_on_behind(self, translation: Translation) -> None:
        """See Profile; what is behind can be asked for as far as it is in pages that the CPU knows."""
        home = self._view.program_counter() & -PAGE_SIZE
        known = {number: address for address, number in self._view.known_code(home, REACH)}
        for _, end in translation.ranges:
            number, last = divmod(end - 1, PAGE_SIZE)
            pc = known[number] + last + 1 if number in known else 0
            place = self.place(pc) if pc else None
            if place is None or any(self.space.containing(place)):
                continue
            handler = self.space.code.handler(place)
            if handler is not None and handler.value:
                self._arrive(place)
                self._behind[place] = pc

    def _count(self, place: int) -> None:
        """A place is among the last ones that the CPU was at."""
        if len(self._last) == WINDOW:
            self._now[self._last.popleft()] -= 1
        self._last.append(place)
        self._now[place] += 1

    def place(self, pc: int) -> int | None:
        """Where the code at an address is, if the CPU knows it there."""
        number = self._view.code_page(pc)
        return None if number is None else number * PAGE_SIZE + pc % PAGE_SIZE

    def _serve(self, rounding: int) -> Pace:
        news = self._publish() | self._look(rounding)
        if self._ticks >= PATIENCE and self._news <= MOST_NEWS:
            news |= self._ask(rounding)
        return self._pace(news)

    def _ask(self, rounding: int) -> bool:
        asked = False
        here = self._here | self._behind
        for place, pc in sorted(here.items(), key=lambda item: -self._arrivals[item[0]]):
            client = self._compiler()
            if not client.is_ready:
                break
            if self.place(pc) != place or (place not in self._urgent and not self._is_hot(place)):
                continue
            self._urgent.pop(place, None)
            request, surroundings = self.request_at(pc, rounding)
            self._waiting[request.number] = surroundings
            self._asked[place] = self._asked.get(place, 0) + 1
            client.ask(request, self.code_of(request, surroundings))
            asked = True
        self._here.clear()
        self._behind.clear()
        return asked

    def _look(self, rounding: int) -> bool:
        """Publish what earlier runs have left on disk for the places that the CPU has just been at."""
        unlooked, self._unlooked = self._unlooked, {}
        news = False
        for place, pc in unlooked.items():
            number, offset = divmod(place, PAGE_SIZE)
            version = self.space.versions[number]
            if self._looked.get(number) != version:
                self._looked[number] = version
                content = self.space.code.read(number * PAGE_SIZE, PAGE_SIZE) or b""
                found = self._cache(rounding).load(HOME, content)
                self._stored[number] = {region.entry % PAGE_SIZE: region for region in found}
            if self._is_stored(place) and self.place(pc) == place:
                news |= self._look_at(place, offset, self._surroundings(pc))
        return news

    def _is_stored(self, place: int) -> bool:
        """Whether there is a region from disk for a place that has been seen several times."""
        number, offset = divmod(place, PAGE_SIZE)
        return offset in self._stored.get(number, ()) and self._arrivals[place] > HOT

    def _look_at(self, place: int, offset: int, surroundings: Surroundings) -> bool:
        stored = self._stored[place // PAGE_SIZE]
        ready = surroundings.contains(stored[offset].ranges)
        self._tries[place] += 1
        if not ready and self._tries[place] < MOST_TRIES:
            return False
        region = stored.pop(offset)
        if ready and self.space.at(place) is None:
            self._publish_stored(region, surroundings)
        return ready

    def _publish_stored(self, region: StoredRegion, surroundings: Surroundings) -> None:
        translation = self.space.publish_region(
            region.entry, region.ranges, region.digest, region.image, IMAGE_ENTRY, surroundings
        )
        if translation is not None:
            translation.cut = region.cut
            self.space.statistics.from_disk += 1
            self.on_regions([translation.entry])

    def _surroundings(self, pc: int) -> Surroundings:
        """The code around an address that the CPU knows."""
        home = pc & -PAGE_SIZE
        pages: dict[int, int] = {}
        for address, number in self._view.known_code(home, REACH):
            distance = address - home & _WORD
            pages[HOME + distance - (distance >> 63 << 64)] = number
        return Surroundings(dict(sorted(pages.items())))

    def request_at(self, pc: int, rounding: int) -> tuple[Request, Surroundings]:
        """What the compiler is to be asked for an address that the CPU knows, and what the request means."""
        from anyvirt.jit.compile_protocol import Request

        self._numbers += 1
        place, surroundings = self.place(pc) or 0, self._surroundings(pc)
        request = Request(
            number=self._numbers,
            isa=self._isa,
            entry=HOME + pc % PAGE_SIZE,
            counted=self._counted,
            memory=self.space.code.model,
            memory_size=0,
            rounding=rounding,
            paged=True,
            limit=min(SMALLEST_LIMIT << self._generations.get(place, 0), LARGEST_LIMIT),
            indirect=self._indirect(surroundings),
            barriers=sorted(
                {page + barrier % PAGE_SIZE for page in surroundings.pages for barrier in self.space.barriers}
            ),
            pages=list(surroundings.pages),
            visited=list(surroundings.pages),
            marks=self.space.code.marks,
        )
        return request, surroundings

    def code_of(self, request: Request, surroundings: Surroundings) -> bytes:
        """What goes with a request: the code of its pages, and what has been decoded of them."""
        code = self.space.code
        places = [surroundings.place(page) for page in request.pages]
        parts = [code.read(place, PAGE_SIZE) or bytes(PAGE_SIZE) for place in places]
        parts += [code.decoded(place) or bytes(request.marks) for place in places]
        return b"".join(parts)

    def _indirect(self, surroundings: Surroundings) -> dict[int, list[int]]:
        """Seen targets of indirect jumps in pages that the compiler gets to see."""
        shown: dict[int, int] = {}
        for address, number in surroundings.pages.items():
            shown.setdefault(number, address)
        return {
            page + source % PAGE_SIZE: [
                shown[target // PAGE_SIZE] + target % PAGE_SIZE
                for target in frequent_targets(self._targets[source])
                if target // PAGE_SIZE in shown
            ]
            for number, page in shown.items()
            for source in self._jumps.get(number, ())
        }

    def _accept(self, reply: Reply, image: bytes) -> None:
        surroundings = self._waiting.pop(reply.number, None)
        if image and surroundings is not None:
            self.publish(reply, image, surroundings)

    def publish(self, reply: Reply, image: bytes, surroundings: Surroundings) -> bool:
        """Let CPUs enter what was compiled for a request; whether its code is still the same."""
        translation = self.space.publish_region(
            reply.entry, reply.ranges, reply.digest, image, IMAGE_ENTRY, surroundings
        )
        if translation is None:
            return False
        self.space.statistics.instructions += reply.instructions
        translation.generation = self._generations.get(translation.entry, 0)
        translation.cut = reply.cut
        self._arrivals.pop(translation.entry, None)
        self.on_regions([translation.entry])
        return True
