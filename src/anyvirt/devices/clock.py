"""The time of a machine, in nanoseconds since it was started, and what is to happen at a later one.

A machine's clock follows the host's (`HostClock`), or the instructions that were executed (`VirtualClock`,
for runs that can be repeated exactly). Devices do not know which.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SECOND = 1_000_000_000
"""Nanoseconds."""
_FEWEST_KEPT = 64


class Alarm:
    """Something that is to happen at a time; `cancel` it, or let it happen once."""

    def __init__(self, when: int, action: Callable[[], None]) -> None:
        self.when = when
        """Nanoseconds since the machine was started."""
        self._action: Callable[[], None] | None = action

    @property
    def is_pending(self) -> bool:
        """Whether it has neither happened nor been cancelled."""
        return self._action is not None

    def cancel(self) -> None:
        """Let it not happen."""
        self._action = None

    def ring(self) -> None:
        """Let it happen, unless it was cancelled."""
        action, self._action = self._action, None
        if action is not None:
            action()


class Clock(ABC):
    """The time, and an agenda. Any thread may use it; alarms ring in whichever thread calls `ring_due`."""

    def __init__(self) -> None:
        self._agenda: list[tuple[int, int, Alarm]] = []
        self._most_kept = _FEWEST_KEPT
        """With so many entries the agenda is rid of the cancelled ones: guests make and cancel many."""
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self.on_earlier: Callable[[], None] | None = None
        """Called when there is an earlier alarm than before: whoever waits for the next has to look again."""

    @abstractmethod
    def now(self) -> int:
        """Nanoseconds since the machine was started; never less than before."""

    def call_at(self, when: int, action: Callable[[], None]) -> Alarm:
        """Have something done at a time, soon if that has passed; those of the same time keep their order."""
        alarm = Alarm(when, action)
        with self._lock:
            if len(self._agenda) >= self._most_kept:
                self._agenda = [entry for entry in self._agenda if entry[2].is_pending]
                heapq.heapify(self._agenda)
                self._most_kept = max(_FEWEST_KEPT, 2 * len(self._agenda))
            is_first = not self._agenda or when < self._agenda[0][0]
            heapq.heappush(self._agenda, (when, next(self._numbers), alarm))
        if is_first and self.on_earlier is not None:
            self.on_earlier()
        return alarm

    def next_alarm(self) -> int | None:
        """When something is to happen next; None if nothing is."""
        with self._lock:
            while self._agenda and not self._agenda[0][2].is_pending:
                heapq.heappop(self._agenda)
            return self._agenda[0][0] if self._agenda else None

    def ring_due(self) -> None:
        """Let everything happen whose time has come."""
        while True:
            with self._lock:
                if not self._agenda or self._agenda[0][0] > self.now():
                    return
                alarm = heapq.heappop(self._agenda)[2]
            alarm.ring()


class HostClock(Clock):
    """Follows the host's monotonic clock, but for the times at which the machine is paused."""

    def __init__(self, start: int = 0) -> None:
        """Show `start` nanoseconds now."""
        super().__init__()
        self._offset = start - time.monotonic_ns()
        self._paused_at: int | None = None

    def now(self) -> int:
        """See Clock.now."""
        return self._paused_at if self._paused_at is not None else time.monotonic_ns() + self._offset

    def pause(self) -> None:
        """Stand still."""
        if self._paused_at is None:
            self._paused_at = self.now()

    def resume(self) -> None:
        """Go on from where it stood."""
        if self._paused_at is not None:
            self._offset = self._paused_at - time.monotonic_ns()
            self._paused_at = None


class VirtualClock(Clock):
    """Shows what it is told: the same run shows the same times."""

    def __init__(self, start: int = 0) -> None:
        """Show `start` nanoseconds."""
        super().__init__()
        self._now = start

    def now(self) -> int:
        """See Clock.now."""
        return self._now

    def advance_to(self, when: int) -> None:
        """Show a later time, and let everything happen on the way, each thing at its time."""
        while (upcoming := self.next_alarm()) is not None and upcoming <= when:
            self._now = max(self._now, upcoming)
            self.ring_due()
        self._now = max(self._now, when)
