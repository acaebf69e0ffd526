"""Going back: states of a machine that are kept while it runs, and doing again what came behind them.

Where a machine was before is reached by going on from the last state before that. What it did between two
states it does again exactly, because all that came from outside comes again (`anyvirt.machines.inputs`).
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyvirt.cpu.hooks import Attention
from anyvirt.errors import UsageError
from anyvirt.machines.ending import Ending, Reason
from anyvirt.machines.inputs import Place, Position
from anyvirt.machines.moment import Moment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anyvirt.machines.hart import Hart
    from anyvirt.machines.machine import Machine

_GIVEN_UP = (Reason.CONDITION, Reason.STOPPED)
"""How a run ends that somebody does not want any more."""


@dataclass(frozen=True)
class _Checkpoint:
    """A state of the machine."""

    position: Position
    moment: Moment
    place: Place


@dataclass(frozen=True)
class _Stop:
    """Where a breakpoint or watchpoint is reached, or where one was given up looking for one."""

    position: Position
    ending: Ending
    is_passed: bool
    """Whether it was served in front of the instruction there."""


class History:
    """Of one machine, from when it is made on."""

    def __init__(self, machine: Machine, *, every: int, most: int) -> None:
        """Keep a state each `every` instructions, at most `most` of them. Raises UsageError."""
        if every < 1 or most < 2:
            raise UsageError("a history needs two states or more, and at least one instruction between them")
        self._machine = machine
        self._most = most
        self._checkpoints: list[_Checkpoint] = []
        inputs = machine.inputs
        is_at_beginning = inputs.log is not None and machine.position == inputs.log.start
        if inputs.has_future and not is_at_beginning:
            raise UsageError("the history of a machine that is replayed begins where the recording does")
        inputs.keep(every)
        inputs.on_settled, inputs.on_given_up = self._take, self._forget_future
        if is_at_beginning:
            self._take()
        else:
            inputs.settle()

    @property
    def beginning(self) -> Position:
        """How far one can go back."""
        return self._checkpoints[0].position

    # Keeping --------------------------------------------------------------------------------------------

    def _take(self) -> None:
        """Keep the state of now, which nothing clings to that is not in it."""
        machine = self._machine
        here = machine.position
        if self._checkpoints and here <= self._checkpoints[-1].position:
            return
        if len(self._checkpoints) >= self._most:
            # Those that are long ago become fewer.
            del self._checkpoints[1 : 1 + self._most // 2 : 2]
        self._checkpoints.append(_Checkpoint(here, Moment.of(machine), machine.inputs.place))

    def _forget_future(self) -> None:
        here = self._machine.position
        self._checkpoints = [point for point in self._checkpoints if point.position <= here]

    # Going back -----------------------------------------------------------------------------------------

    def step_back(self, count: int) -> Ending:
        """Stand where `count` fewer instructions had been executed, or where the history begins."""
        target = self._machine.position.instructions - count
        if target < self.beginning.instructions:
            self._go(self.beginning)
            return Ending(Reason.BEGINNING)
        self._go(Position(target, 0))
        return Ending(Reason.LIMIT)

    def step_hart_back(self, hart: Hart, count: int) -> Ending:
        """Stand where a hart had executed `count` fewer instructions, or where the history begins."""
        target = hart.cpu.instructions - count
        for checkpoint in reversed(self._checkpoints):
            self._restore(checkpoint)
            if hart.cpu.instructions <= target:
                self._do_again(lambda: self._machine.run_hart_to(hart, target))
                return Ending(Reason.LIMIT)
        return Ending(Reason.BEGINNING)

    def continue_back(self, until: Callable[[], object] | None = None) -> Ending:
        """Stand where a breakpoint or watchpoint was last reached before, or where the history begins.

        Stand where it was if `until` becomes true or somebody stops the machine meanwhile.
        """
        start = end = self._machine.position
        for checkpoint in reversed([point for point in self._checkpoints if point.position < end]):
            found = self._last_stop(checkpoint, end, until)
            if found is not None:
                if found.ending.reason is not Reason.HOOK:
                    self._go(start)
                    return found.ending
                self._go(found.position)
                if found.is_passed and found.ending.hart is not None:
                    self._machine.harts[found.ending.hart].hooks.pass_place()
                return found.ending
            end = checkpoint.position
        self._go(self.beginning)
        return Ending(Reason.BEGINNING)

    def _last_stop(
        self, checkpoint: _Checkpoint, end: Position, until: Callable[[], object] | None
    ) -> _Stop | None:
        """The last stop from a state on, before a position."""
        self._restore(checkpoint)
        last = None
        while True:
            with self._doing_again(Attention.STOPS):
                ending = self._machine.run_to(end, until=until)
            if ending.reason in _GIVEN_UP:
                return _Stop(self._machine.position, ending, is_passed=False)
            if ending.reason is not Reason.HOOK:
                return last
            stop = self._stop(ending)
            if stop.position < end:
                last = stop

    def _stop(self, ending: Ending) -> _Stop:
        """Where a stop is on the way back: a watchpoint's in front of what made the access."""
        here = self._machine.position
        assert ending.stop is not None
        if getattr(ending.stop.hit, "stops_behind", False):
            return _Stop(Position(here.instructions - 1, 0), ending, is_passed=False)
        return _Stop(here, ending, is_passed=True)

    def _go(self, target: Position) -> None:
        """Stand at a position."""
        self._restore(next(point for point in reversed(self._checkpoints) if point.position <= target))
        self._do_again(lambda: self._machine.run_to(target))

    def _do_again(self, run: Callable[[], Ending]) -> None:
        """Run to its end: whoever stops the machine would let it stand at some place between."""
        with self._doing_again(Attention.NONE):
            while run().reason is Reason.STOPPED:
                pass

    def _restore(self, checkpoint: _Checkpoint) -> None:
        machine = self._machine
        checkpoint.moment.bring_back(machine)
        machine.inputs.go_back(checkpoint.place)
        machine.untold.clear()
        for hart in machine.harts:
            if hart.cpu.has_hooks:
                hart.hooks.forget_place()

    @contextmanager
    def _doing_again(self, attention: Attention) -> Iterator[None]:
        """What is done now has been done before: nobody is told again."""
        machine = self._machine
        hooked = [hart for hart in machine.harts if hart.cpu.has_hooks]
        machine.console.is_quiet = True
        for hart in hooked:
            hart.hooks.attention = attention
        try:
            yield
        finally:
            machine.console.is_quiet = False
            for hart in hooked:
                hart.hooks.attention = Attention.ALL
