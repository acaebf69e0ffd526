"""Executing one instruction of a hart: a counted run in which every turn is that long."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.errors import UsageError
from anyvirt.machines.counted import CountedRun
from anyvirt.machines.ending import Ending, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anyvirt.machines.hart import Hart
    from anyvirt.machines.machine import Machine

_ENDLESS = 1 << 62


class SteppedRun(CountedRun):
    """It ends with LIMIT when the hart has executed an instruction; each of the others executes as many.

    While the hart waits for an interrupt, the others take turns as always, or time leaps.
    """

    def __init__(self, machine: Machine, hart: Hart, others: Sequence[Hart]) -> None:
        """Raises UsageError for a machine whose turns were recorded and cannot be others."""
        if machine.inputs.log is not None and len(machine.harts) > 1:
            raise UsageError(
                "harts of a machine that is recorded, or has a history, take their turns: use a counted run"
            )
        # One hart on its own goes on in the turn that is under way, as in any counted run.
        self._is_alone = len(machine.harts) == 1
        super().__init__(machine, 1 if self._is_alone else _ENDLESS, harts=(hart, *others))
        self._hart = hart

    def run(self, until: Callable[[], object] | None) -> None:
        """See CountedRun."""
        if self._is_alone:
            super().run(until)
            return
        self._machine.end_turn()
        before = self._hart.cpu.instructions
        super().run(lambda: self._is_done(before) or (until is not None and until()))

    def _is_done(self, before: int) -> bool:
        """Whether the instruction, and those of the others' turn, have been executed."""
        is_done = self._hart.cpu.instructions != before and self._machine.turn is None
        if is_done:
            self.end(Ending(Reason.LIMIT))
        return is_done

    def _length(self, active: int) -> int:
        return super()._length(active) if self._is_alone or self._hart.is_waiting else 1
