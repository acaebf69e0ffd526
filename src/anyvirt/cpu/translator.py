"""The translating executor: it starts in the interpreter and has what turns out to be hot compiled.

Once in a while (`Ticker`) the run is stopped at a few jumps in a row. Where they lead is where it is hot,
and which targets an indirect jump really has. Regions around the hottest places are compiled by a process
of their own (`anyvirt.jit.compile_server`) while the guest goes on; what was compiled in earlier runs comes
from disk.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, ClassVar

from anyvirt.cpu.code import code_space
from anyvirt.cpu.interpreter import Interpreter
from anyvirt.cpu.profile import Profile
from anyvirt.cpu.ticker import Pace, Ticker
from anyvirt.cpu.translation import translation_space
from anyvirt.errors import UnsupportedError
from anyvirt.jit.layout import INTERPRET, SYNCHRONIZE, UNFIT, Request, Slot, StopReason
from anyvirt.paths import cache_directory

if TYPE_CHECKING:
    from pathlib import Path

    from anyvirt.cpu.machine_memory import MachineMemory
    from anyvirt.cpu.memory import FlatMemory
    from anyvirt.cpu.stencil_space import StencilSpace

_PENDING, _RECORD, _REASON, _COUNT, _FAULT_COUNT, _RETIRED, _SOURCE, _ROUNDING, _TRANSLATION = (
    int(slot) // 8
    for slot in (
        Slot.PENDING, Slot.RECORD, Slot.REASON, Slot.COUNT, Slot.FAULT_COUNT, Slot.RETIRED, Slot.SOURCE,
        Slot.FLOAT_ROUNDING, Slot.TRANSLATION,
    )
)  # fmt: skip
_ONLY_SAMPLE = 1 << 8 * Request.SAMPLE
"""The slot PENDING when nobody wants anything else; other wishes go first."""
BURST, GLANCE, NEWS = 16, 2, 4
"""Jumps that are looked at in a row, while the compiler has enough to do, and more after one to new code."""


class Watch:
    """What CPUs that execute the same program in the same memory have been seen doing, and who looks now."""

    _all: ClassVar[weakref.WeakSet[Watch]] = weakref.WeakSet()

    def __init__(self, directory: Path) -> None:
        """Use what is kept in `directory`, and the compiler that listens there."""
        self.directory = directory
        self.profile: Profile | None = None
        self.lock = threading.Lock()
        """Held by the CPU that looks; others look another time."""
        Watch._all.add(self)

    @classmethod
    def after_fork(cls) -> None:
        """What another thread was about to change is not to be relied on."""
        for watch in cls._all:
            if watch.lock.locked():
                watch.lock = threading.Lock()
                watch.profile = None


os.register_at_fork(after_in_child=Watch.after_fork)


class Translator(Interpreter):
    """One virtual CPU that executes translations where there are any."""

    def __init__(
        self,
        isa: str,
        memory: FlatMemory | MachineMemory,
        *,
        stencils: bool = True,
        watch: Watch | None = None,
    ) -> None:
        """A CPU at reset; `stencils` bridge the time until regions have been compiled. As Interpreter's.

        `watch` is that of a CPU that executes the same program.
        """
        super().__init__(isa, memory)
        if self.system is not None:
            raise UnsupportedError(
                "interpreter",
                "regions of code whose addresses are translated",
                "they are made of physical pages",
                alternatives=("MachineTranslator",),
            )
        self._wants_stencils = stencils
        self._stencils: StencilSpace | None = None
        # A guest may be somebody else, and somewhere else, by the time the directory is wanted.
        self._watch = watch or Watch(cache_directory())
        self._ticker = Ticker(self._state)

    @property
    def _profile(self) -> Profile | None:
        return self._watch.profile

    def _another(self) -> Translator:
        _import_everything()
        return Translator(self.isa, self.memory, stencils=self._wants_stencils, watch=self._watch)

    def _change_mode(self) -> None:
        """Regions are compiled for the mode after a reset. Raises UnsupportedError."""
        raise UnsupportedError(
            "user",
            "regions in another mode",
            "they are compiled for the mode after a reset",
            alternatives=("the interpreter and stencil tiers",),
        )

    def prepare(self) -> None:
        """Have everything compiled that is compiled ahead of time, so that later no compiler is needed."""
        from anyvirt.cpu.stencil_space import stencil_space

        if self._wants_stencils:
            stencil_space(self.memory, self.isa, counted=False)

    def translate(self, entry: int, *, counted: bool = False) -> bool:
        """Compile the region around `entry` now, in this process; whether there is one. Imports LLVM."""
        from anyvirt.jit.compile_server import GuestPages, compile_image

        space = translation_space(self.memory, self.isa, counted=counted)
        profile = Profile(self.isa, space, self._watch.directory, counted=counted)
        request = profile.request(entry, [], self._slots[_ROUNDING])
        code = GuestPages()
        code.read_code = space.code.read  # type: ignore[method-assign]
        reply, image = compile_image(code, request)
        if not image:
            return False
        return profile.publish_image(reply, image) is not None

    def _select(self, counted: bool) -> None:
        """Use the records that lead into translations."""
        self._counted = counted
        self._view.use(code_space(self.memory, self.isa, counted=counted, translated=True))
        self._space = translation_space(self.memory, self.isa, counted=counted)
        self._stencils = None

    def _enter(self) -> None:
        if not self._counted and not self._instrumented:
            self._ticker.start()
        super()._enter()

    def _goes_on(self) -> bool:
        if self._instrumented:
            return super()._goes_on()
        reason = self._slots[_REASON]
        if reason == UNFIT and self._space.forget_at(self._view.program_counter()):
            return True
        if reason in (INTERPRET, UNFIT):
            return self._interpret()
        if reason == StopReason.INTERRUPTED and self._slots[_PENDING] == _ONLY_SAMPLE:
            self._sample()
            if self._slots[_REASON] != StopReason.INTERRUPTED:
                return self._goes_on()
        if reason == SYNCHRONIZE:
            super()._goes_on()
            if self._stencils is not None:
                self._stencils.synchronize()
            self._space.revalidate()
            return True
        return super()._goes_on()

    def _interpret(self) -> bool:
        """Have the instruction executed by handlers that are nobody's translation."""
        pc = self._view.program_counter()
        self._view.use(code_space(self.memory, self.isa, counted=bool(self._counted)))
        self._view.place(pc)
        goes_on = self._interpret_one() if self._counted else self._interpret_some()
        pc = self._view.program_counter()
        self._select(bool(self._counted))
        self._view.place(pc)
        return goes_on or self._goes_on()

    def _interpret_one(self) -> bool:
        """One instruction, if the budget allows for one."""
        slots = self._slots
        left = slots[_COUNT]
        now = min(left, 1)
        slots[_COUNT] = slots[_FAULT_COUNT] = now
        slots[_RETIRED] -= left - now
        self._enter_aside()
        slots[_RETIRED] += left - now
        slots[_COUNT] += left - now
        return slots[_REASON] == StopReason.BUDGET and slots[_COUNT] > 0

    def _interpret_some(self) -> bool:
        """Up to the next jump; in a machine, finding where to begin counts as one."""
        goes_on = self._run_to_jump()
        if goes_on and self._space.code.model == "machine":
            goes_on = self._run_to_jump()
        return goes_on

    def _run_to_jump(self) -> bool:
        self._requests[Request.SAMPLE] = 1
        self._enter_aside()
        self._requests[Request.SAMPLE] = 0
        self._slots[_SOURCE] = 0
        return self._slots[_REASON] == StopReason.INTERRUPTED and not self._requests[Request.STOP]

    def _enter_aside(self) -> None:
        """Run records that lead into no translation, and serve what only concerns those."""
        self._view.enter(self._state)
        while self._slots[_REASON] not in (StopReason.INTERRUPTED, SYNCHRONIZE) and self._view.serve(
            self._slots[_REASON]
        ):
            self._view.enter(self._state)

    # Heat -----------------------------------------------------------------------------------------------

    def _sample(self) -> None:
        """Look at where the CPU is, unless somebody else looks at what it executes, too."""
        watch = self._watch
        if not watch.lock.acquire(blocking=False):
            self._requests[Request.SAMPLE] = 0
            self._ticker.rest(Pace.STEADY)
            return
        lock, profile = watch.lock, watch.profile
        try:
            if profile is None or profile.space is not self._space:
                profile = watch.profile = Profile(self.isa, self._space, watch.directory, counted=False)
            profile.on_regions = self._prefer_regions
            self._look(profile)
        finally:
            if profile is not None:
                profile.on_regions = _nobody
            lock.release()

    def _look(self, profile: Profile) -> None:
        """Look at where the next jumps lead; something else may stop the run meanwhile."""
        began = time.monotonic()
        slots, requests = self._slots, self._requests
        stencils = self._known_stencils()
        left = BURST if profile.is_curious else GLANCE
        news = False
        while left > 0:
            left -= 1
            source = slots[_SOURCE]
            slots[_SOURCE] = 0
            if self._view.is_lost():
                break
            goes_on = profile.note(self._view.program_counter(), source)
            if (
                stencils is not None
                and not stencils.is_translated(slots[_RECORD])
                and stencils.translate(self._state)
            ):
                # Where something was missing there is more to be found.
                left = min(left + NEWS, BURST)
                news = True
            if not goes_on or slots[_PENDING] & ~_ONLY_SAMPLE:
                break
            requests[Request.SAMPLE] = 1
            self._view.enter(self._state)
            if slots[_REASON] != StopReason.INTERRUPTED:
                break
        requests[Request.SAMPLE] = 0
        # Regions are made of physical pages: they are for machines whose guests use no other addresses.
        pace = Pace.LATER if slots[_TRANSLATION] else profile.serve(slots[_ROUNDING])
        pace = Pace.SOON if news else pace
        spent = time.monotonic() - began
        # That has a share of the time of its own.
        is_behind = stencils is not None and stencils.catch_up()
        self._ticker.rest(Pace.AT_ONCE if is_behind else pace, spent)

    def _prefer_regions(self, entries: list[int]) -> None:
        """A loop that is executed as stencils would never come by the record that leads into the region.

        And what is behind the end of one should be translated in some way.
        """
        if self._stencils is None:
            return
        self._stencils.make_way(entries, self._state)
        regions = {region for entry in entries if (region := self._space.at(entry)) is not None}
        self._stencils.go_on_around([span for region in regions for span in region.ranges])

    def _known_stencils(self) -> StencilSpace | None:
        """The stencils, where there are any; they are small, but loaded only when they are wanted."""
        if self._wants_stencils and self._stencils is None:
            from anyvirt.cpu.stencil_space import stencil_space

            try:
                self._stencils = stencil_space(self.memory, self.isa, counted=bool(self._counted))
            except (ImportError, OSError, UnsupportedError):
                self._wants_stencils = False
        return self._stencils


def _import_everything() -> None:
    """Import what is wanted only later, before there is a thread that may fork meanwhile.

    In the child a module that another thread has been importing can never be imported (importlib's locks).
    """
    import anyvirt.cpu.region_client
    import anyvirt.cpu.stencil_space
    import anyvirt.jit.cache
    import anyvirt.jit.compile_protocol
    import anyvirt.jit.guest_code
    import anyvirt.jit.region_cache  # noqa: F401


def _nobody(_entries: list[int]) -> None:
    """Nobody looks, so nobody has to hear of regions."""
