"""The executor that runs stencils: it begins in the interpreter and translates what turns out to be warm.

Once in a while (`Ticker`) the run is stopped at a few jumps in a row. Where they lead is worth a translation,
which takes microseconds, so nothing is kept and nothing is waited for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from anyvirt.cpu.code import code_space
from anyvirt.cpu.interpreter import Interpreter
from anyvirt.cpu.memory import FlatMemory
from anyvirt.cpu.stencil_space import StencilSpace, stencil_space
from anyvirt.cpu.ticker import USUAL_SHARE, Pace, Ticker
from anyvirt.jit.layout import SYNCHRONIZE, Request, Slot, StopReason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anyvirt.cpu.machine_memory import MachineMemory

_PENDING, _REASON, _RECORD, _SOURCE = (
    int(slot) // 8 for slot in (Slot.PENDING, Slot.REASON, Slot.RECORD, Slot.SOURCE)
)
_ONLY_SAMPLE = 1 << 8 * Request.SAMPLE
"""The slot PENDING when nobody wants anything else; other wishes go first."""
BURST = 16
"""Jumps that are looked at in a row."""


class StencilExecutor(Interpreter):
    """One virtual CPU that executes stencils where it has been for a while.

    The first use on a machine compiles the stencils (a second) and keeps them in the cache; from then on no
    compiler is needed.
    """

    LOOKING: ClassVar[float] = USUAL_SHARE
    """The share of the time that looks may take."""
    _space: StencilSpace

    def __init__(self, isa: str, memory: FlatMemory | MachineMemory) -> None:
        """A CPU at reset (all registers 0) in `memory`. Raises UnsupportedError."""
        super().__init__(isa, memory)
        self._ticker = Ticker(self._state, self.LOOKING)

    def prepare(self) -> None:
        """Have everything compiled that is compiled ahead of time, so that later no compiler is needed."""
        stencil_space(self.memory, self.isa, counted=False)

    def translate_now(self, addresses: Iterable[int], *, counted: bool = False) -> int:
        """Translate from each of these guest addresses on, for runs with a budget or without.

        Code that has never been executed is included. Returns for how many there is a translation.
        """
        self._select(counted)
        return sum(self._approach(pc) and self._space.translate(self._state, decode=True) for pc in addresses)

    def _approach(self, pc: int) -> bool:
        """Let the state block say that the CPU is at the record of an address; whether there is one."""
        there = self._view.place(pc)
        if isinstance(self.memory, FlatMemory):
            return there
        while there:
            # The code that looks an address up honours requests before it goes on there.
            self._requests[Request.SAMPLE] = 1
            self._view.enter(self._state)
            self._requests[Request.SAMPLE] = 0
            if self._slots[_REASON] == StopReason.INTERRUPTED:
                return True
            there = self._view.serve(self._slots[_REASON])
        return False

    def _select(self, counted: bool) -> None:
        """Use the records that lead into translations."""
        self._counted = counted
        self._view.use(code_space(self.memory, self.isa, counted=counted, translated=True))
        self._space = stencil_space(self.memory, self.isa, counted=counted)

    def _enter(self) -> None:
        if not self._instrumented:
            self._ticker.start()
        super()._enter()

    def _goes_on(self) -> bool:
        if self._instrumented:
            return super()._goes_on()
        reason = self._slots[_REASON]
        if reason == StopReason.INTERRUPTED and self._slots[_PENDING] == _ONLY_SAMPLE:
            self._sample()
            if self._slots[_REASON] != StopReason.INTERRUPTED:
                return self._goes_on()
        if reason == SYNCHRONIZE:
            self._space.synchronize()
        return super()._goes_on()

    def _sample(self) -> None:
        """Look at where the next jumps lead; something else may stop the run meanwhile."""
        slots, requests = self._slots, self._requests
        news = False
        for _ in range(BURST):
            slots[_SOURCE] = 0
            if self._view.is_lost():
                break
            if not self._space.is_translated(slots[_RECORD]):
                news |= self._space.translate(self._state)
            if slots[_PENDING] & ~_ONLY_SAMPLE:
                break
            requests[Request.SAMPLE] = 1
            self._view.enter(self._state)
            if slots[_REASON] != StopReason.INTERRUPTED:
                break
        requests[Request.SAMPLE] = 0
        pace = Pace.SOON if news else Pace.LATER
        self._ticker.rest(Pace.AT_ONCE if self._space.catch_up() else pace)
