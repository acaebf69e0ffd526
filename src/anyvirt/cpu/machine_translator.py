"""The executor of machines on all tiers: stencils for what is warm, regions, behind the scenes, for the hot.

It differs from `anyvirt.cpu.translator` in that the same code may be at several addresses, and an address be
that of different code: what has been seen is kept by place in physical memory (`anyvirt.cpu.paged_profile`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from anyvirt.cpu.memory import PAGE_SIZE
from anyvirt.cpu.paged_profile import PagedProfile
from anyvirt.cpu.paged_translation import paged_translation_space
from anyvirt.cpu.stencil_executor import BURST, StencilExecutor
from anyvirt.cpu.ticker import Pace
from anyvirt.jit.layout import UNFIT, Request, Slot, StopReason
from anyvirt.paths import cache_directory

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anyvirt.cpu.machine_memory import MachineMemory
    from anyvirt.cpu.machine_view import MachineView
    from anyvirt.cpu.stencil_space import MachineStencilSpace

_PENDING, _REASON, _RECORD, _SOURCE, _ROUNDING = (
    int(slot) // 8 for slot in (Slot.PENDING, Slot.REASON, Slot.RECORD, Slot.SOURCE, Slot.FLOAT_ROUNDING)
)
_ONLY_SAMPLE = 1 << 8 * Request.SAMPLE
LOOKS, GLANCE, NEWS = 3, 2, 4
"""Jumps that are looked at in a row, while the compiler has enough to do, and more after one to new code."""


class MachineTranslator(StencilExecutor):
    """One virtual CPU with modes that executes translations where there are any."""

    LOOKING = 0.15
    # A machine that starts comes to new code all the time, and to much of it only once.
    _space: MachineStencilSpace

    def __init__(self, isa: str, memory: MachineMemory, *, stencils: bool = True) -> None:
        """A CPU at reset; `stencils` bridge the time until there are regions. As StencilExecutor's."""
        super().__init__(isa, memory)
        self._wants_stencils = stencils
        self._machine_view: MachineView = self._view  # type: ignore[assignment]
        self._profile: PagedProfile | None = None
        self._directory = cache_directory()

    def compile_now(self, addresses: Iterable[int], *, counted: bool = False) -> int:
        """Compile the regions around guest addresses now, in this process. Imports LLVM.

        Code that has never been executed is included. Returns how many regions there are.
        """
        self._select(counted)
        profile = self._known_profile()
        return sum(self._approach(pc) and self._compile(profile, pc) for pc in addresses)

    def _compile(self, profile: PagedProfile, pc: int) -> bool:
        from anyvirt.jit.compile_server import GuestPages, compile_image

        request, surroundings = profile.request_at(pc, self._slots[_ROUNDING])
        code = GuestPages()
        code.accept(request, profile.code_of(request, surroundings))
        code.decoded.clear()
        reply, image = compile_image(code, request)
        return bool(image) and profile.publish(reply, image, surroundings)

    def _select(self, counted: bool) -> None:
        """Use the records that lead into translations."""
        super()._select(counted)
        self._regions = paged_translation_space(self.memory, self.isa, counted=counted)

    def _known_profile(self) -> PagedProfile:
        if self._profile is None or self._profile.space is not self._regions:
            self._profile = PagedProfile(
                self.isa,
                self._regions,
                self._directory,
                self._machine_view,
                counted=bool(self._counted),
                on_regions=self._prefer_regions,
            )
        return self._profile

    def _prefer_regions(self, places: list[int]) -> None:
        """A loop that is executed as stencils would never come by the record that leads into the region."""
        if self._wants_stencils:
            for place in places:
                self._space.make_way_at(place)
            self._space.care_for(places)

    def _goes_on(self) -> bool:
        if not self._instrumented and self._slots[_REASON] == UNFIT:
            self._give_up_here()
            return True
        return super()._goes_on()

    def _give_up_here(self) -> None:
        """The region here is for another rounding mode."""
        pc, number = self._view.program_counter(), self._machine_view.record_page()
        if number is not None:
            self._regions.forget_at(number * PAGE_SIZE + pc % PAGE_SIZE)
        self._view.place(pc)

    def _sample(self) -> None:
        """Look at where the next jumps lead; something else may stop the run meanwhile."""
        began = time.monotonic()
        slots, requests, view = self._slots, self._requests, self._machine_view
        profile = self._known_profile()
        left = LOOKS if profile.is_curious else GLANCE
        news = False
        for _ in range(BURST):
            source = slots[_SOURCE]
            slots[_SOURCE] = 0
            view.settle()
            if (
                self._wants_stencils
                and not self._space.is_translated(slots[_RECORD])
                and self._space.translate(self._state)
            ):
                # It is warm at best, and where something was missing there is more to be found.
                news = True
                left += NEWS
            elif not profile.note_here(source):
                break
            left -= 1
            if left <= 0 or slots[_PENDING] & ~_ONLY_SAMPLE:
                break
            requests[Request.SAMPLE] = 1
            view.enter(self._state)
            if slots[_REASON] != StopReason.INTERRUPTED:
                break
        requests[Request.SAMPLE] = 0
        profile.note_news(news)
        pace = profile.serve(slots[_ROUNDING])
        pace = Pace.SOON if news else Pace.LATER if pace is Pace.LATER else Pace.STEADY
        spent = time.monotonic() - began
        is_behind = self._wants_stencils and self._space.catch_up()
        self._ticker.rest(Pace.AT_ONCE if is_behind else pace, spent)
