"""The state of a machine that stands, besides the content of its memory: CPUs, devices, time, console."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.devices.bus import StateError
from anyvirt.devices.saved_state import SavedState
from anyvirt.errors import AnyvirtError
from anyvirt.machines.counted import Turn
from anyvirt.machines.ending import Ending, Reason

if TYPE_CHECKING:
    from anyvirt.devices.bus import State
    from anyvirt.machines.machine import Machine

_VERSION = 1


def save_machine(machine: Machine) -> State:
    """All that `load_machine` of the same kind of machine needs, in any tier; hooks are not the guest's.

    Raises AnyvirtError if what is on disks cannot be made to last.
    """
    with machine.lock:
        try:
            board = machine.board.save_state()
        except OSError as error:
            raise AnyvirtError(f"what the guest has stored cannot be flushed: {error.strerror}") from None
        ended = machine.ended
        return {
            "version": _VERSION,
            "clock": machine.clock.now(),
            "board": board,
            "leaps": machine.leaps,
            "turn": None if machine.turn is None else [list(turn) for turn in machine.turn.left.items()],
            "harts": [hart.save_state() for hart in machine.harts],
            "console": machine.console.save_state(),
            "ended": None if ended is None else [str(ended.reason), ended.code],
        }


def load_machine(machine: Machine, state: State) -> None:
    """Go on from there; the content of memory is there already, and nothing runs.

    Raises StateError. What the machine is then is not defined.
    """
    saved = SavedState(state, _VERSION, "the machine")
    harts = saved.value("harts")
    if not isinstance(harts, list) or len(harts) != len(machine.harts):
        raise saved.misfit("harts")
    console, board = (saved.value(name) for name in ("console", "board"))
    if not isinstance(console, dict) or not isinstance(board, dict):
        raise StateError("the saved state of the machine lacks a part")
    ended, turn, leaps = _ending(saved), _turn(saved, len(harts)), saved.number("leaps", 64)
    with machine.lock:
        machine.clock.restart(saved.number("clock", 64))
        machine.console.load_state(console)
        machine.board.load_state(board)
        machine.console.await_room()
        # Devices have driven the lines of CPUs meanwhile.
        for hart, values in zip(machine.harts, harts, strict=True):
            if not isinstance(values, dict):
                raise saved.misfit("harts")
            hart.load_state(values)
    machine.ended, machine.turn, machine.leaps = ended, turn, leaps


def _ending(saved: SavedState) -> Ending | None:
    value = saved.value("ended")
    match value:
        case None:
            return None
        case [str(reason), int(code)] if reason in list(Reason):
            return Ending(Reason(reason), code)
    raise saved.misfit("ended")


def _turn(saved: SavedState, harts: int) -> Turn | None:
    value = saved.value("turn")
    if value is None:
        return None
    if not isinstance(value, list):
        raise saved.misfit("turn")
    left: dict[int, int] = {}
    for part in value:
        match part:
            case [int(number), int(instructions)] if 0 <= number < harts and 0 < instructions < 1 << 32:
                left[number] = instructions
            case _:
                raise saved.misfit("turn")
    return Turn(left)
