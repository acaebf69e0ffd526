"""Running a machine by counted instructions: in one thread, the same in each run.

Time is instructions: each takes a nanosecond of the machine's. The harts take turns of `TURN` instructions,
which count as executed at the same time; when all of them wait, time leaps to what happens next. Devices see
the time at which a turn began.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from anyvirt.cpu.executor import StopReason
from anyvirt.cpu.system import NEVER
from anyvirt.machines.ending import Ending, Reason
from anyvirt.machines.standstill import ASIDE

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.machines.hart import Hart
    from anyvirt.machines.machine import Machine

TURN = 10_000
"""Instructions of a turn where there are several harts."""
_LONGEST = 1_000_000
"""The same for a hart on its own, so that conditions are looked at."""


class CountedRun:
    """One run."""

    def __init__(self, machine: Machine, instructions: int) -> None:
        """So many instructions are executed, by all harts together, unless something ends the run before."""
        self._machine = machine
        self._clock = machine.clock
        self._harts = machine.harts
        self.ending: Ending | None = None
        """How it has ended."""
        self._thread = 0
        self.left = instructions
        """Instructions that are still to be executed."""

    def end(self, ending: Ending) -> bool:
        """Let the run end; the first ending counts. Whether it was this one."""
        is_first = self.ending is None or self.ending is ASIDE
        if is_first:
            self.ending = ending
        for hart in self._harts:
            hart.wake()
        return is_first

    def is_own_thread(self, thread: int) -> bool:
        """Whether the run cannot go on before this thread does."""
        return thread == self._thread

    def notice(self) -> None:
        """Conditions are looked at after each turn anyway."""

    def run(self, until: Callable[[], object] | None) -> None:
        """Run to the end, or until a condition holds."""
        self._thread = threading.get_ident()
        while self.ending is None:
            if until is not None and until():
                self.end(Ending(Reason.CONDITION))
            elif self.left == 0:
                self.end(Ending(Reason.LIMIT))
            else:
                self._take_turns()

    def _take_turns(self) -> None:
        clock = self._clock
        with self._machine.lock:
            clock.ring_due()
        active = [hart for hart in self._harts if self._is_active(hart)]
        if not active:
            self._leap()
            return
        turn = self._turn(len(active))
        longest = 0
        for hart in active:
            budget = min(turn, self.left)
            if self.ending is None and budget:
                longest = max(longest, self._advance(hart, budget))
        with self._machine.lock:
            clock.advance_to(clock.now() + longest)

    def _is_active(self, hart: Hart) -> bool:
        if not hart.start_if_wanted():
            return False
        if hart.is_waiting:
            self._set_time(hart)
            hart.system.instructions_to_deadline(hart.cpu.instructions)
            hart.is_waiting = not hart.system.is_wanted()
        return not hart.is_waiting

    def _turn(self, active: int) -> int:
        """Instructions until something is due."""
        turn = _LONGEST if active == 1 else TURN
        upcoming = self._clock.next_alarm()
        if upcoming is not None:
            turn = min(turn, max(upcoming - self._clock.now(), 1))
        return min([turn, *(max(when - self._clock.now(), 1) for when in self._deadlines(waiting=True))])

    def _advance(self, hart: Hart, budget: int) -> int:
        """Run one hart; how many instructions it has executed."""
        self._set_time(hart)
        before = hart.cpu.instructions
        stop = hart.cpu.run(max_instructions=budget)
        executed = hart.cpu.instructions - before
        self.left -= executed
        self._machine.serve(hart, stop)
        hart.is_waiting = stop.reason is StopReason.IDLE
        return executed

    def _set_time(self, hart: Hart) -> None:
        hart.system.set_time(self._clock.now(), instructions=hart.cpu.instructions)

    def _deadlines(self, *, waiting: bool) -> list[int]:
        """When the timers of harts that are started raise interrupts, as machine time."""
        result = []
        for hart in self._harts:
            if hart.start_if_wanted() and hart.is_waiting is waiting:
                self._set_time(hart)
                left = hart.system.instructions_to_deadline(hart.cpu.instructions)
                if left != NEVER:
                    result.append(self._clock.now() + left)
        return result

    def _leap(self) -> None:
        """All harts wait: go to when something happens."""
        upcoming = self._clock.next_alarm()
        moments = self._deadlines(waiting=True) + ([upcoming] if upcoming is not None else [])
        if not moments:
            self.end(Ending(Reason.IDLE))
            return
        with self._machine.lock:
            self._clock.advance_to(min(moments))
