"""Running a machine by counted instructions: in one thread, the same in each run.

Time is instructions: each takes a nanosecond of the machine's. The harts take turns of `TURN` instructions,
which count as executed at the same time; when all of them wait, time leaps to what happens next. Devices see
the time at which a turn began. A turn that a run's end has cut short goes on in the next counted run, so
it makes no difference where runs end. What comes from outside comes between two steps (see
`anyvirt.machines.inputs`).

Debuggers also run some harts apart from the others, and in step with each other: such a run has turns of its
own.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyvirt.cpu.executor import StopReason
from anyvirt.cpu.system import NEVER
from anyvirt.machines.ending import Ending, Reason
from anyvirt.machines.inputs import NEVER as ENDLESS
from anyvirt.machines.inputs import ReplayError
from anyvirt.machines.standstill import ASIDE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anyvirt.machines.hart import Hart
    from anyvirt.machines.machine import Machine

TURN = 10_000
"""Instructions of a turn where there are several harts."""
_LONGEST = 1_000_000
"""The same for a hart on its own, so that conditions are looked at."""


@dataclass
class Turn:
    """A turn that is under way; `Hart.progress` says what each hart has executed in it."""

    left: dict[int, int]
    """What harts may still execute, in the order in which they do."""


@dataclass(frozen=True)
class Goal:
    """What one hart is to come to, whatever the others do meanwhile."""

    hart: Hart
    instructions: int
    """How many it has executed then since the machine was made."""

    @property
    def left(self) -> int:
        """How many it has still to execute."""
        return max(self.instructions - self.hart.cpu.instructions, 0)


class CountedRun:
    """One run."""

    def __init__(
        self,
        machine: Machine,
        instructions: int = ENDLESS,
        *,
        leaps: int = 0,
        goal: Goal | None = None,
        harts: Sequence[Hart] | None = None,
    ) -> None:
        """So many instructions are executed, by all harts together, unless something ends the run before.

        Then time leaps until it has done so `leaps` times since the machine was made. With a `goal` it ends
        when a hart is there. `harts` are those that take turns: all of them unless given.

        On the way to a goal all execute as many instructions as that hart, one after the other. But where
        what comes from outside is kept, they take turns as in other runs, so that this is no event.
        """
        self._machine = machine
        self._clock = machine.clock
        self._inputs = machine.inputs
        self._goal = goal
        is_usual = machine.inputs.log is not None or len(machine.harts) == 1
        self._harts = machine.harts if is_usual or harts is None else harts
        self._is_apart = not is_usual and (goal is not None or harts is not None)
        self.ending: Ending | None = None
        """How it has ended."""
        self._thread = 0
        self.left = instructions
        """Instructions that are still to be executed."""
        self._leaps = leaps

    def end(self, ending: Ending) -> bool:
        """Let the run end; the first ending counts. Whether it was this one."""
        is_first = self.ending is None or self.ending is ASIDE
        if is_first:
            self.ending = ending
        self.notice_input()
        return is_first

    def is_own_thread(self, thread: int) -> bool:
        """Whether the run cannot go on before this thread does."""
        return thread == self._thread

    def notice(self) -> None:
        """Conditions are looked at after each turn anyway."""

    def notice_input(self) -> None:
        """Something has come from outside: take it soon."""
        for hart in self._harts:
            hart.wake()

    def run(self, until: Callable[[], object] | None) -> None:
        """Run to the end, or until a condition holds."""
        self._thread = threading.get_ident()
        if self._is_apart:
            self._machine.end_turn()
        try:
            while self.ending is None:
                self._inputs.arrive()
                if self._is_at_goal():
                    self.end(Ending(Reason.LIMIT))
                elif until is not None and until():
                    self.end(Ending(Reason.CONDITION))
                elif self.left == 0 and self._machine.leaps >= self._leaps:
                    self.end(Ending(Reason.LIMIT))
                else:
                    self._step()
        finally:
            if self._is_apart:
                self._machine.end_turn()

    def _is_at_goal(self) -> bool:
        """Whether the hart is where it was to come to, and those that go in step with it have come as far."""
        if self._goal is None or self._goal.left:
            return False
        return not self._is_apart or self._machine.turn is None

    def _step(self) -> None:
        """Run the hart whose turn it is, or let time leap. What comes here next comes to the same state."""
        turn = self._machine.turn or self._begin_turn()
        if turn is None:
            self._leap()
            return
        self._machine.turn = turn
        self._take_turn(turn)
        if not any(hart.progress for hart in self._harts):
            # Somebody has interrupted it before it began.
            self._machine.turn = None

    # Turns ----------------------------------------------------------------------------------------------

    def _begin_turn(self) -> Turn | None:
        """A turn of all harts that have something to execute, if there are any."""
        with self._machine.lock:
            self._clock.ring_due()
        active = [hart for hart in self._harts if self._is_active(hart)]
        if not active:
            return None
        is_in_step = self._is_apart and self._goal is not None and self._goal.hart in active
        length = 1 if is_in_step else self._length(len(active))
        return Turn({hart.number: length for hart in active})

    def _take_turn(self, turn: Turn) -> None:
        """Run the hart whose turn it is, as far as this run goes."""
        number = next(iter(turn.left), None)
        if number is not None:
            hart = self._machine.harts[number]
            budget = min(turn.left[number], self.left, self._inputs.instructions_to_next())
            if not budget:
                raise ReplayError("the machine goes another way than it did when it was recorded")
            if self._goal is not None and hart is self._goal.hart:
                budget = min(budget, self._goal.left)
            if self._advance(hart, turn, budget) or not turn.left[number]:
                del turn.left[number]
        if not turn.left:
            self._machine.end_turn()

    def _is_active(self, hart: Hart) -> bool:
        if not hart.start_if_wanted():
            return False
        if hart.is_waiting:
            self._set_time(hart)
            hart.system.instructions_to_deadline(hart.cpu.instructions)
            hart.is_waiting = not hart.system.is_interrupt_wanted()
        return not hart.is_waiting

    def _length(self, active: int) -> int:
        """Instructions until something is due."""
        turn = _LONGEST if active == 1 else TURN
        upcoming = self._clock.next_alarm()
        if upcoming is not None:
            turn = min(turn, max(upcoming - self._clock.now(), 1))
        return min([turn, *(max(when - self._clock.now(), 1) for when in self._deadlines(waiting=True))])

    def _advance(self, hart: Hart, turn: Turn, budget: int) -> bool:
        """Run one hart; whether it has ended its turn by itself."""
        self._set_time(hart)
        before = hart.cpu.instructions
        try:
            stop = hart.cpu.run(max_instructions=budget)
        finally:
            executed = hart.cpu.instructions - before
            hart.progress += executed
            turn.left[hart.number] -= executed
            self.left -= executed
        has_called = hart.has_called
        self._machine.serve(hart, stop)
        hart.is_waiting = stop.reason is StopReason.IDLE
        return has_called or hart.is_waiting

    def _set_time(self, hart: Hart) -> None:
        hart.system.set_time(hart.now(), instructions=hart.cpu.instructions)

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
        self._machine.leaps += 1
        with self._machine.lock:
            self._clock.advance_to(min(moments))
