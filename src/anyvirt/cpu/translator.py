"""The translating executor: it starts in the interpreter and has what turns out to be hot compiled.

Once in a while (`Ticker`) the run is stopped at a few jumps in a row. Where they lead is where it is hot,
and which targets an indirect jump really has. Regions around the hottest places are compiled by a process
of their own (`anyvirt.jit.compile_server`) while the guest goes on; what was compiled in earlier runs comes
from disk.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from anyvirt.cpu.code import code_space
from anyvirt.cpu.interpreter import Interpreter
from anyvirt.cpu.region_client import RegionClient
from anyvirt.cpu.ticker import Ticker
from anyvirt.cpu.translation import TranslationSpace, translation_space
from anyvirt.jit.compile_protocol import Reply, code_digest, region_kind
from anyvirt.jit.compile_protocol import Request as RegionRequest
from anyvirt.jit.compile_server import CACHE
from anyvirt.jit.layout import INSIDE, INTERPRET, PAGE_SIZE, SYNCHRONIZE, Request, Slot, StopReason
from anyvirt.jit.region_cache import RegionCache
from anyvirt.paths import cache_directory

if TYPE_CHECKING:
    from anyvirt.cpu.memory import FlatMemory

_REASON, _COUNT, _FAULT_COUNT, _SOURCE, _ROUNDING = (
    int(slot) // 8 for slot in (Slot.REASON, Slot.COUNT, Slot.FAULT_COUNT, Slot.SOURCE, Slot.FLOAT_ROUNDING)
)
BURST = 16
"""Jumps that are looked at in a row."""
HOT = 2
"""Times that a place has to be seen to be hot."""
PATIENCE = 6
"""Ticks before the compiler is started: many programs are over by then."""
WINDOW = 32
"""Pages of code before and after a hot place that the compiler gets to see."""
MOST_TARGETS = 24
"""Of an indirect jump, those a region knows."""
MOST_GENERATIONS = 6
"""Times that a region is compiled anew because it turned out to be too small."""
IMAGE_ENTRY = 16
"""Distance of a region's first instruction from the beginning of its image."""


class Translator(Interpreter):
    """One virtual CPU that executes translations where there are any."""

    def __init__(self, isa: str, memory: FlatMemory) -> None:
        super().__init__(isa, memory)
        self._profile: Profile | None = None
        self._ticker = Ticker(self._state)

    def run_translations(self) -> None:
        """Forget nothing, translate nothing: for tests, see `translate`."""

    def translate(self, entry: int, *, counted: bool = False) -> bool:
        """Compile the region around `entry` now, in this process; whether there is one. Imports LLVM."""
        from anyvirt.jit.compile_server import Client, compile_image

        space = translation_space(self.memory, self.isa, counted=counted)
        profile = Profile(self, space, counted=counted)
        request = profile.request(entry, [], self._slots[_ROUNDING])
        client = Client(None)  # type: ignore[arg-type]
        client.read_code = space.read_code  # type: ignore[method-assign]
        reply, image = compile_image(client, request)
        if not image:
            return False
        return space.publish(reply.entry, reply.ranges, reply.digest, image, IMAGE_ENTRY) is not None

    def _select(self, counted: bool) -> None:
        """Use the records that lead into translations."""
        self._counted = counted
        self._view.use(code_space(self.memory, self.isa, counted=counted, translated=True))
        self._space = translation_space(self.memory, self.isa, counted=counted)

    def _enter(self) -> None:
        if not self._counted:
            self._ticker.start()
        super()._enter()

    def _goes_on(self) -> bool:
        reason = self._slots[_REASON]
        if reason == INTERPRET:
            return self._interpret()
        if reason == StopReason.INTERRUPTED and self._requests[Request.SAMPLE]:
            self._sample()
            if self._slots[_REASON] != StopReason.INTERRUPTED:
                return self._goes_on()
        if reason == SYNCHRONIZE:
            super()._goes_on()
            self._space.revalidate()
            return True
        return super()._goes_on()

    def _interpret(self) -> bool:
        """Have the instruction executed by handlers that are nobody's translation."""
        slots, counted = self._slots, bool(self._counted)
        left = slots[_COUNT]
        pc = self._view.program_counter()
        self._view.use(code_space(self.memory, self.isa, counted=True))
        self._view.place(pc)
        slots[_COUNT] = slots[_FAULT_COUNT] = min(left, 1) if counted else 1
        self._host.enter(self._state)
        pc = self._view.program_counter()
        if counted:
            slots[_COUNT] += left - min(left, 1)
        self._select(counted)
        self._view.place(pc)
        if slots[_REASON] != StopReason.BUDGET:
            return self._goes_on()
        return not counted or left > 1 or slots[_COUNT] > 0

    # Heat -----------------------------------------------------------------------------------------------

    def _sample(self) -> None:
        """Look at where the next jumps lead; something else may stop the run meanwhile."""
        slots, requests = self._slots, self._requests
        if self._profile is None or self._profile.space is not self._space:
            self._profile = Profile(self, self._space, counted=False)
        profile = self._profile
        for _ in range(BURST):
            source = slots[_SOURCE]
            slots[_SOURCE] = 0
            pc = self._view.program_counter()
            if not profile.note(pc, source) or requests[Request.STOP]:
                break
            requests[Request.SAMPLE] = 1
            self._host.enter(self._state)
            if slots[_REASON] != StopReason.INTERRUPTED:
                break
        requests[Request.SAMPLE] = 0
        self._ticker.rest(profile.serve(slots[_ROUNDING]))


class Profile:
    """What one CPU has been seen doing in an address space, and what has been asked for because of it."""

    def __init__(self, cpu: Translator, space: TranslationSpace, *, counted: bool) -> None:
        self.space = space
        self._cpu = cpu
        self._counted = counted
        self._arrivals: Counter[int] = Counter()
        self._targets: dict[int, Counter[int]] = {}
        self._asked: dict[int, int] = {}
        """Places asked for, and how often."""
        self._urgent: list[int] = []
        self._sent: set[int] = set()
        self._changes = -1
        self._ticks = 0
        self._quiet = 0
        self._numbers = 0
        self._client: RegionClient | None = None

    def note(self, pc: int, source: int) -> bool:
        """Control has come to `pc`; false if that was in the midst of a translation."""
        if source == INSIDE:
            return False
        if source > INSIDE:
            self._targets.setdefault(source, Counter())[pc] += 1
            self._reconsider(source, pc)
        if self.space.at(pc) is None:
            self._arrivals[pc] += 1
        return True

    def _reconsider(self, source: int, pc: int) -> None:
        """A translation that control leaves again and again for a place it did not know is compiled anew."""
        for translation in self.space.containing(source):
            if translation.covers(pc, pc + 1) and len(self._targets[source]) <= 1:
                continue
            translation.missed += 1
            if (
                translation.missed >= 4 << translation.generation
                and translation.generation < MOST_GENERATIONS
            ):
                translation.missed = 0
                translation.generation += 1
                self._urgent.append(translation.entry)

    def serve(self, rounding: int) -> bool:
        """Publish what has been compiled and ask for more; whether there was anything new."""
        if self._changes != self.space.changes:
            self._changes = self.space.changes
            self._sent.clear()
            self._asked.clear()
            self._load(rounding)
        self._ticks += 1
        news = self._publish()
        if self._ticks >= PATIENCE:
            news |= self._ask(rounding)
        self._quiet = 0 if news else self._quiet + 1
        return self._quiet < 8

    def _publish(self) -> bool:
        news = False
        if self._client is not None:
            for reply, image in self._client.answers():
                news = True
                self._accept(reply, image)
        return news

    def _accept(self, reply: Reply, image: bytes) -> None:
        if not image:
            return
        known = self.space.at(reply.entry)
        translation = self.space.publish(reply.entry, reply.ranges, reply.digest, image, IMAGE_ENTRY)
        if translation is not None:
            self.space.statistics.instructions += reply.instructions
            translation.generation = known.generation if known is not None else 0
            del self._arrivals[reply.entry]

    def _ask(self, rounding: int) -> bool:
        asked = False
        for entry in self._candidates():
            if self._client is None:
                self._client = _client()
            if not self._client.is_ready:
                break
            request = self.request(entry, self._unsent(entry), rounding)
            code = b"".join(self.space.read_code(page, PAGE_SIZE) or b"" for page in request.pages)
            self._sent.update(request.pages)
            self._asked[entry] = self._asked.get(entry, 0) + 1
            self._client.ask(request, code)
            asked = True
        return asked

    def _candidates(self) -> list[int]:
        urgent, self._urgent = self._urgent, []
        hot = [
            pc
            for pc, count in self._arrivals.most_common(8)
            if count >= HOT << 2 * self._asked.get(pc, 0) and self.space.at(pc) is None
        ]
        return [*dict.fromkeys(urgent), *hot]

    def request(self, entry: int, pages: list[int], rounding: int) -> RegionRequest:
        """What the compiler is to be asked for a place."""
        self._numbers += 1
        return RegionRequest(
            number=self._numbers,
            isa=self._cpu.isa,
            entry=entry,
            counted=self._counted,
            memory_size=self._cpu.memory.size,
            rounding=rounding,
            indirect={
                source: [target for target, _ in targets.most_common(MOST_TARGETS)]
                for source, targets in self._targets.items()
            },
            barriers=sorted(self.space.barriers),
            pages=pages,
        )

    def _unsent(self, entry: int) -> list[int]:
        """Pages of code around a place that the compiler has not seen."""
        middle = entry // PAGE_SIZE
        wanted = (page * PAGE_SIZE for page in range(max(middle - WINDOW, 0), middle + WINDOW))
        return [
            page
            for page in wanted
            if page not in self._sent and self.space.read_code(page, PAGE_SIZE) is not None
        ]

    def _load(self, rounding: int) -> None:
        """Publish what earlier runs have left on disk for the code that is there."""
        kind = region_kind(
            self._cpu.isa, counted=self._counted, memory_size=self._cpu.memory.size, rounding=rounding
        )
        cache = RegionCache(cache_directory() / CACHE, kind)
        for mapping in self._cpu.memory.mappings:
            if not mapping.protection & 4:
                continue
            for page in range(mapping.start, mapping.end, PAGE_SIZE):
                code = self.space.read_code(page, PAGE_SIZE)
                for region in cache.load(page, code) if code else ():
                    if self.space.at(region.entry) is None and self.space.publish(
                        region.entry, region.ranges, region.digest, region.image, IMAGE_ENTRY
                    ):
                        self.space.statistics.from_disk += 1


def _client() -> RegionClient:
    from anyvirt.jit.cache import version

    return RegionClient(cache_directory(), version())


__all__ = ["Translator", "code_digest"]
