"""The SiFive test finisher: a word that ends the machine's run, or starts it over.

SiFive's `sifive,test0`, as OpenSBI, riscv-tests and Linux (syscon-poweroff, syscon-reboot) use it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from anyvirt.devices.saved_state import SavedState

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.devices.bus import State

SIZE = 0x1000
_VERSION = 1


class Outcome(IntEnum):
    """What the low half of the word says."""

    FAIL = 0x3333
    PASS = 0x5555
    RESET = 0x7777


@dataclass(frozen=True)
class Finish:
    """How a guest wants its machine to end."""

    outcome: Outcome
    code: int = 0
    """The guest's exit code, 0 to 65535; only FAIL has one."""


class TestFinisher:
    """A device of one register, at offset 0; it reads as 0."""

    __test__ = False
    """Not one of pytest's."""

    def __init__(self, on_finish: Callable[[Finish], None]) -> None:
        """`on_finish` is called within the guest's store."""
        self._on_finish = on_finish

    def read(self, offset: int, size: int) -> int:
        """See BusDevice.read."""
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """See BusDevice.write."""
        if offset != 0 or size < 2:
            return
        try:
            outcome = Outcome(value & 0xFFFF)
        except ValueError:
            return
        self._on_finish(Finish(outcome, value >> 16 & 0xFFFF if outcome is Outcome.FAIL else 0))

    def reset(self) -> None:
        """See BusDevice.reset."""

    def save_state(self) -> State:
        """See BusDevice.save_state."""
        return {"version": _VERSION}

    def load_state(self, state: State) -> None:
        """See BusDevice.load_state."""
        SavedState(state, _VERSION, "the test finisher")
