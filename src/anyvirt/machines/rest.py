"""Giving memory back when a machine comes to rest: what was needed for a boot is hardly needed after it.

A machine is at rest when this process has taken little of the host's time for a while. That is noticed once
after each busy time. Decoded code goes, and what the heap keeps free; what the guest still executes now and
then is decoded again.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from anyvirt.cpu.memory import trim_heap

if TYPE_CHECKING:
    from anyvirt.cpu.machine_memory import MachineMemory

PERIOD = 1.0
"""Seconds for which a machine is looked at."""
QUIET = 0.25
"""Share of a core below which it is at rest."""


class Rest:
    """Of one run of a machine; only one thread may look."""

    def __init__(self, memory: MachineMemory) -> None:
        self._memory = memory
        self._was_busy = True
        self._begin()

    def look(self) -> float | None:
        """Do what there is to do. Returns the seconds until the next look; None is when something happens."""
        left = self._began + PERIOD - time.monotonic()
        if left > 0:
            return left if self._was_busy else None
        share = (time.process_time() - self._spent) / (time.monotonic() - self._began)
        if share > QUIET:
            self._was_busy = True
        elif self._was_busy:
            self._was_busy = not self._memory.discard_code()
            trim_heap()
        self._begin()
        return PERIOD if self._was_busy else None

    def _begin(self) -> None:
        self._began, self._spent = time.monotonic(), time.process_time()
