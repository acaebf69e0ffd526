"""What a machine has done: recordings of it, doing one again, and going back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.errors import UsageError
from anyvirt.machines.inputs import ReplayError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anyvirt.machines.ending import Ending
    from anyvirt.machines.hart import Hart
    from anyvirt.machines.history import History
    from anyvirt.machines.machine import Machine
    from anyvirt.machines.recording import Recording, Replay


class Past:
    """Of one machine, which has these methods under the same names."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._replay: Replay | None = None
        self.history: History | None = None
        """The states that are kept."""

    def clear(self) -> None:
        """The machine begins anew."""
        self.history, self._replay = None, None

    # Recordings -----------------------------------------------------------------------------------------

    def record(self, directory: Path, *, every: int) -> Recording:
        """See Machine.record."""
        from anyvirt.machines.recording import Recording

        self._machine.require_apart("recorded")
        return self._machine.while_standing(lambda: Recording(self._machine, directory, every=every))

    def repeat(self, replay: Replay) -> None:
        """Let the same come in counted runs from here on."""
        self._replay = replay
        self._machine.inputs.repeat(replay.log, replay.end)

    def replay_to_end(self) -> Ending:
        """See Machine.replay_to_end."""
        from anyvirt.machines.recording import state_digest

        machine = self._machine
        if self._replay is None:
            raise UsageError("the machine is not one that is replayed")
        ending = machine.run_to(self._replay.end)
        if machine.position != self._replay.end:
            return ending
        # What came after the last run.
        machine.inputs.arrive()
        if state_digest(machine) != self._replay.digest:
            raise ReplayError("the machine has come to another state than when it was recorded")
        return ending

    # Going back -----------------------------------------------------------------------------------------

    def keep_history(self, *, every: int, most: int) -> None:
        """See Machine.keep_history."""
        from anyvirt.machines.history import History

        machine = self._machine
        machine.require_apart("gone back in")
        self.forget_history()
        self.history = machine.while_standing(lambda: History(machine, every=every, most=most))

    def forget_history(self) -> None:
        """See Machine.forget_history."""
        if self.history is not None:
            self.history = None
            inputs = self._machine.inputs
            inputs.on_settled = inputs.on_given_up = None
            if not inputs.listeners:
                inputs.forget()

    def step_back(self, count: int, hart: Hart | None) -> Ending:
        """See Machine.reverse_step."""
        if count < 1:
            raise UsageError("a machine goes back by one instruction or more")
        history = self._required()
        return history.step_back(count) if hart is None else history.step_hart_back(hart, count)

    def continue_back(self, until: Callable[[], object] | None) -> Ending:
        """See Machine.reverse_continue."""
        return self._required().continue_back(until)

    def _required(self) -> History:
        if self.history is None:
            raise UsageError("the machine has no history: keep_history begins one")
        if self._machine.is_running:
            raise UsageError("a machine that is running cannot go back")
        if self._machine.inputs.listeners:
            raise UsageError("a machine that is recorded cannot go back: close the recording before")
        return self.history
