"""What a virtual CPU has been seen doing, and what is done about it: where it is hot, regions are compiled.

Nothing that takes long to import is needed before a program has been running for a while.
"""

from __future__ import annotations

from collections import Counter
from heapq import nlargest
from itertools import islice
from typing import TYPE_CHECKING

from anyvirt.cpu.ticker import Pace
from anyvirt.jit.image_layout import Header
from anyvirt.jit.layout import INSIDE, PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from anyvirt.cpu.region_client import RegionClient
    from anyvirt.cpu.translation import Translation, TranslationSpace
    from anyvirt.jit.compile_protocol import Reply, Request
    from anyvirt.jit.region_cache import RegionCache

HOT = 2
"""Times that a place has to be seen to be hot."""
LOOKING = 2
"""Ticks before earlier runs' regions are looked for on disk."""
PATIENCE = 4
"""Ticks before the compiler is started: many programs are over by then."""
PERSEVERANCE = 8
"""Ticks without anything new after which the next ones come later and later."""
WINDOW = 32
"""Pages of code before and after a hot place that the compiler gets to see."""
NEIGHBOURHOOD = 6
"""The same of those of which it is told each time what has been decoded, after a look at every record."""
SMALLEST_LIMIT, LARGEST_LIMIT = 96, 768
"""Most instructions of a region at first, and after it has turned out to be too small."""
MOST_CANDIDATES = 8
"""Hot places that are looked at when the compiler is to be asked for some."""
MOST_TARGETS, LEAST_SHARE = 24, 32
"""Of an indirect jump, the targets that a region knows, if one in so many of its jumps leads there."""
LEAST_UNKNOWN = 4
"""Targets of an indirect jump seen once each that are enough to say that there are many more."""
MOST_ARRIVALS = 32
"""Places that control has come to most often, of which those in a region become entries of it."""
MOST_SUSPECTS = 4
"""Regions with the same jump of which each may be too small."""
MOST_CONNECTIONS = 8
"""Times that a process turns to a compiler anew because the last one has gone, with no answer in between."""
MOST_GENERATIONS = 6
"""Times that a region is compiled anew because it turned out to be too small."""
IMAGE_ENTRY = int(Header.SIZE)
"""Distance of a region's first instruction from the beginning of its image."""


class Profile:
    """What one CPU has been seen doing in an address space, and what has been asked for because of it."""

    def __init__(
        self,
        isa: str,
        space: TranslationSpace,
        directory: Path,
        *,
        counted: bool,
        on_regions: Callable[[list[int]], None] = lambda entries: None,
    ) -> None:
        """Use what is kept in `directory`, and the compiler that listens there.

        `on_regions` is called with the entries of regions that have been published.
        """
        self.space = space
        self._isa = isa
        self._directory = directory
        self._counted = counted
        self.on_regions = on_regions
        """Whoever looks at present may want to hear of them."""
        self._arrivals: Counter[int] = Counter()
        self._hot: set[int] = set()
        """Those that control has come to often enough."""
        self._targets: dict[int, Counter[int]] = {}
        self._untold: set[int] = set()
        """Jumps of whose targets the compiler does not know all that is known here."""
        self._asked: dict[int, int] = {}
        """Places asked for, and how often."""
        self._urgent: dict[int, None] = {}
        """Regions to be compiled anew, in the order in which that was noticed."""
        self._generations: dict[int, int] = {}
        """How often a region has turned out to be too small, by its entry."""
        self._sent: set[int] = set()
        self._changes = -1
        self._ticks = 0
        self._is_hopeful = True
        """There may be a compiler and a cache."""
        self._quiet = 0
        self._numbers = 0
        self._client: RegionClient | None = None
        self._connections = 0
        self._fruitless = 0
        """Connections since the last answer."""
        self._caches: dict[int, RegionCache] = {}
        """What is on disk by rounding mode, as it was when first looked at."""

    def note(self, pc: int, source: int) -> bool:
        """Control has come to `pc`; false if that was in the midst of a translation."""
        if source == INSIDE:
            return False
        if source > INSIDE:
            self._targets.setdefault(source, Counter())[pc] += 1
            self._untold.add(source)
            self._reconsider(source, pc)
        known = self.space.at(pc)
        if known is None:
            self._arrive(pc)
        elif known.cut and SMALLEST_LIMIT << known.generation < LARGEST_LIMIT:
            self._miss(known)
        elif known.cut:
            self._go_on_behind(known)
        return True

    def _arrive(self, pc: int) -> None:
        """Control has come to where no translation begins."""
        self._arrivals[pc] += 1
        if self._arrivals[pc] >= HOT:
            self._hot.add(pc)

    def _go_on_behind(self, translation: Translation) -> None:
        """What does not fit into the largest translation, as of a long loop, is hot where that is.

        Control comes to it without a jump, so hardly ever in a look.
        """
        code = self.space.code
        for _, end in translation.ranges:
            handler = code.handler(end) if end < code.memory_size else None
            if handler is not None and handler.value and not any(self.space.containing(end)):
                self._arrive(end)

    def _reconsider(self, source: int, pc: int) -> None:
        """A translation that control leaves again and again for a place it did not know is compiled anew.

        Which of them control has left is not known, so what is a part of many, a common end, is let be.
        """
        targets = self._targets[source]
        if targets[pc] * LEAST_SHARE < targets.total():
            return
        translations = list(islice(self.space.containing(source), MOST_SUSPECTS + 1))
        if len(translations) > MOST_SUSPECTS:
            return
        for translation in translations:
            if translation.covers(pc, pc + 1) and len(targets) <= 1:
                continue
            self._miss(translation)

    def _miss(self, translation: Translation) -> None:
        """Control has left a translation for what could be part of it: one day it is made anew, larger."""
        translation.missed += 1
        enough = PATIENCE << translation.generation
        if translation.missed >= enough and translation.generation < MOST_GENERATIONS:
            translation.missed = 0
            translation.generation += 1
            self._generations[translation.entry] = translation.generation
            self._urgent[translation.entry] = None

    @property
    def is_curious(self) -> bool:
        """Whether there is reason to look closely: the compiler has nothing, or not enough, to do."""
        return self._client is None or not self._client.is_busy

    def serve(self, rounding: int) -> Pace:
        """Publish what has been compiled and ask for more; returns when to come again."""
        self._ticks += 1
        if self._ticks < LOOKING:
            return Pace.SOON
        try:
            return self._serve(rounding) if self._is_hopeful else Pace.LATER
        except (ImportError, OSError):
            # The guest has locked itself out of everything: another root, no descriptors, no rights.
            self._is_hopeful = False
            return Pace.LATER

    def _serve(self, rounding: int) -> Pace:
        if self._changes != self.space.changes:
            self._changes = self.space.changes
            self._sent.clear()
            self._asked.clear()
            self._load(rounding)
            self._quiet = 0
        news = self._publish()
        if self._ticks >= PATIENCE:
            news |= self._ask(rounding)
        return self._pace(news)

    def _pace(self, news: bool) -> Pace:
        """When to come again, after there was something new or not."""
        self._quiet = 0 if news else self._quiet + 1
        if self.is_curious and self._quiet < PERSEVERANCE:
            return Pace.SOON
        waits = self._client is not None and self._client.waiting > 0
        return Pace.STEADY if waits else Pace.LATER

    def _publish(self) -> bool:
        news = False
        if self._client is not None and self._client.waiting:
            for reply, image in self._client.answers():
                news = True
                self._fruitless = 0
                self._accept(reply, image)
        return news

    def _accept(self, reply: Reply, image: bytes) -> None:
        if not image:
            return
        translation = self.publish_image(reply, image)
        if translation is None:
            # What the compiler knows of the code is out of date.
            self._sent.clear()
        else:
            self.space.statistics.instructions += reply.instructions
            translation.generation = self._generations.get(reply.entry, 0)
            translation.cut = reply.cut
            for entry in translation.entries:
                del self._arrivals[entry]
                self._hot.discard(entry)
            self.on_regions(translation.entries)

    def publish_image(self, reply: Reply, image: bytes) -> Translation | None:
        """Let CPUs enter what was compiled for a request, if its code is still the same."""
        return self.space.publish(
            reply.entry,
            reply.ranges,
            reply.digest,
            image,
            IMAGE_ENTRY,
            others=reply.others,
            instructions=reply.instructions,
        )

    def _ask(self, rounding: int) -> bool:
        asked = False
        client = self._compiler()
        for entry in self._candidates() if client.is_ready else ():
            if not client.is_ready:
                break
            self._urgent.pop(entry, None)
            request = self.request(entry, self._unsent(entry), rounding)
            code = b"".join(
                self.space.code.read(page, PAGE_SIZE) or bytes(PAGE_SIZE) for page in request.pages
            )
            code += b"".join(
                self.space.code.decoded(page) or bytes(request.marks) for page in request.visited
            )
            self._sent.update(request.pages)
            self._untold.clear()
            self._asked[entry] = self._asked.get(entry, 0) + 1
            client.ask(request, code)
            asked = True
        return asked

    def _compiler(self) -> RegionClient:
        """The connection to the compiler, a new one if the last has gone."""
        if self._client is None or (self._client.is_lost and self._fruitless < MOST_CONNECTIONS):
            self._client = self._connect()
        return self._client

    def _candidates(self) -> list[int]:
        hottest = nlargest(MOST_CANDIDATES, self._hot, key=self._arrivals.__getitem__)
        hot = [
            pc
            for pc in hottest
            if self._arrivals[pc] >= HOT << 2 * self._asked.get(pc, 0) and self.space.at(pc) is None
        ]
        return [*hot, *self._urgent]

    def request(self, entry: int, pages: list[int], rounding: int) -> Request:
        """What the compiler is to be asked for a place."""
        from anyvirt.jit.compile_protocol import Request

        self._numbers += 1
        # What has turned out too small around a place is so for a region that begins there, too.
        around = (translation.generation for translation in self.space.containing(entry))
        self._generations[entry] = max(self._generations.get(entry, 0), *around, 0)
        return Request(
            number=self._numbers,
            isa=self._isa,
            entry=entry,
            counted=self._counted,
            memory=self.space.code.model,
            memory_size=self.space.code.memory_size,
            rounding=rounding,
            alone=self.space.code.alone,
            limit=min(SMALLEST_LIMIT << self._generations[entry], LARGEST_LIMIT),
            arrivals=self._arrivals_near(entry),
            indirect={source: frequent_targets(self._targets[source]) for source in self._untold},
            barriers=sorted(self.space.barriers),
            pages=pages,
            visited=[page for page in _around(entry, NEIGHBOURHOOD) if page in self._sent or page in pages],
            marks=self.space.code.marks,
        )

    def _arrivals_near(self, entry: int) -> list[int]:
        """Where else control has come to of late, in the pages around a place.

        Not where translations are entered already: each entry costs some of what the rest can be optimized.
        """
        pages = _around(entry, NEIGHBOURHOOD)
        places = {pc for pc, _ in self._arrivals.most_common(MOST_ARRIVALS)}
        return sorted(pc for pc in places if pc in range(pages.start, pages.stop) and pc != entry)

    def _unsent(self, entry: int) -> list[int]:
        """Pages of code around a place that the compiler has not seen."""
        return [
            page
            for page in _around(entry, WINDOW)
            if page not in self._sent and self.space.code.read(page, PAGE_SIZE) is not None
        ]

    def _load(self, rounding: int) -> None:
        """Publish what earlier runs have left on disk for the code that is there."""
        cache = self._cache(rounding)
        with self.space.reading() as read:
            loaded = list(self._load_pages(cache, read))
        self.on_regions(loaded)

    def _load_pages(self, cache: RegionCache, read: Callable[[int, int], bytes | None]) -> Iterator[int]:
        """Publish what a cache has for each page of code; the entries of that."""
        for page in list(self.space.code.pages()):
            content = read(page, PAGE_SIZE)
            for region in cache.load(page, content) if content else ():
                if self.space.at(region.entry) is not None:
                    continue
                translation = self.space.publish(
                    region.entry,
                    region.ranges,
                    region.digest,
                    region.image,
                    IMAGE_ENTRY,
                    others=region.others,
                    instructions=region.instructions,
                    read=read,
                )
                if translation is not None:
                    translation.cut = region.cut
                    self.space.statistics.from_disk += 1
                    yield from translation.entries

    def _cache(self, rounding: int) -> RegionCache:
        """What earlier runs have left on disk."""
        from anyvirt.jit.guest_code import region_kind
        from anyvirt.jit.region_cache import CACHE, RegionCache

        if rounding not in self._caches:
            code = self.space.code
            kind = region_kind(
                self._isa,
                code.model,
                counted=self._counted,
                memory_size=code.memory_size,
                rounding=rounding,
                alone=code.alone,
            )
            self._caches[rounding] = RegionCache(self._directory / CACHE, kind)
        return self._caches[rounding]

    def _connect(self) -> RegionClient:
        """A new compiler knows nothing of the code yet."""
        from anyvirt.cpu.region_client import RegionClient
        from anyvirt.jit.cache import version

        self._connections += 1
        self._fruitless += 1
        self._sent.clear()
        self._untold.update(self._targets)
        return RegionClient(self._directory, version())


def frequent_targets(targets: Counter[int]) -> list[int]:
    """The targets of an indirect jump that a region should know.

    There are none if the next one will probably be new: the share of what has been seen once is an estimate
    of how likely that is (I. J. Good, "The population frequencies of species", 1953).
    """
    single = sum(count == 1 for count in targets.values())
    if single >= LEAST_UNKNOWN and 2 * single > targets.total():
        return []
    return [
        target
        for target, count in targets.most_common(MOST_TARGETS)
        if count * LEAST_SHARE >= targets.total()
    ]


def _around(entry: int, pages: int) -> range:
    """Addresses of so many pages before and after a place."""
    middle = entry // PAGE_SIZE
    return range(max(middle - pages, 0) * PAGE_SIZE, (middle + pages) * PAGE_SIZE, PAGE_SIZE)
