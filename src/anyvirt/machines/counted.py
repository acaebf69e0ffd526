"""Running a machine by counted instructions: in one thread, the same in each run.

Time is instructions: each takes a nanosecond of the machine's. The harts take turns of `TURN` instructions,
which count as executed at the same time; when all of them wait, time leaps to what happens next. Devices see
the time at which a turn began.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.cpu.executor import StopReason
from anyvirt.cpu.system import NEVER
from anyvirt.machines.ending import Ending, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anyvirt.machines.hart import Hart
    from anyvirt.machines.machine import Machine

TURN = 10_000
"""Instructions of a turn where there are several harts."""
_LONGEST = 1_000_000
"""The same for a hart on its own, so that conditions are looked at."""


_ENDLESS = 1 << 62


class CountedRun:
    """One run."""

    def __init__(self, machine: Machine, harts: Sequence[Hart] | None = None) -> None:
        """`harts` are those that take turns: all of them unless given."""
        self._machine = machine
        self._clock = machine.clock
        self._harts = machine.harts if harts is None else harts
        self._ending: Ending | None = None
        self._left = 0
        self._stepped: Hart | None = None

    def end(self, ending: Ending) -> bool:
        """Let the run end; the first ending counts. Whether it was this one."""
        is_first = self._ending is None
        self._ending = self._ending or ending
        for hart in self._harts:
            hart.wake()
        return is_first

    def notice(self) -> None:
        """Conditions are looked at after each turn anyway."""

    def run(self, instructions: int, until: Callable[[], object] | None) -> Ending:
        """Execute so many instructions, by all harts together, unless something ends the run before."""
        self._left = instructions
        while self._ending is None:
            if until is not None and until():
                self._ending = Ending(Reason.CONDITION)
            elif self._left == 0:
                self._ending = Ending(Reason.LIMIT)
            else:
                self._take_turns()
        return self._ending

    def step(self, hart: Hart, until: Callable[[], object] | None) -> Ending:
        """Execute one instruction of a hart; each of the others executes as many."""
        self._stepped, self._left = hart, _ENDLESS
        before = hart.cpu.instructions
        while self._ending is None:
            if hart.cpu.instructions != before:
                self._ending = Ending(Reason.LIMIT)
            elif until is not None and until():
                self._ending = Ending(Reason.CONDITION)
            else:
                self._take_turns()
        return self._ending

    def _take_turns(self) -> None:
        clock = self._clock
        with self._machine.lock:
            clock.ring_due()
        active = [hart for hart in self._harts if self._is_active(hart)]
        if not active:
            self._leap()
            return
        turn = 1 if self._stepped in active else self._turn(len(active))
        longest = 0
        for hart in active:
            budget = min(turn, self._left)
            if self._ending is None and budget:
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
        self._left -= executed
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
            self._ending = Ending(Reason.IDLE)
            return
        with self._machine.lock:
            self._clock.advance_to(min(moments))
