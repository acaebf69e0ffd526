"""A clock that now and then asks a running virtual CPU to show where it is.

One thread for each CPU, asleep nearly always; it looks more rarely when there is nothing new, and stops
when the CPU has not been running for a while.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
import weakref
from enum import Enum
from typing import ClassVar

from anyvirt.cpu.descriptors import make_room
from anyvirt.jit.layout import Request, Slot

SHORTEST, LONGEST = 0.001, 0.016
"""Seconds between two looks."""
_PATIENT = 0.004
"""The same while something is being waited for."""
_IDLE_LOOKS = 64
_HEAD_START = 0.1
"""Seconds that looks may take beyond their share before they become more rare."""
USUAL_SHARE = 0.05
"""Of the time, what looks may take after that."""
_LONGEST_PAUSE = 0.1


class Pace(Enum):
    """When to look again."""

    AT_ONCE = "at once"
    """There is more, and it is worth its time."""
    SOON = "soon"
    """There was something new."""
    STEADY = "steady"
    """Something is being waited for."""
    LATER = "later"
    """There was nothing: later each time."""


_LONGEST = {Pace.AT_ONCE: SHORTEST, Pace.SOON: SHORTEST, Pace.STEADY: _PATIENT, Pace.LATER: LONGEST}


class Ticker:
    """Sets the request SAMPLE of a state block while its CPU runs."""

    _all: ClassVar[weakref.WeakSet[Ticker]] = weakref.WeakSet()

    def __init__(self, state: int, share: float = USUAL_SHARE) -> None:
        """For the CPU with a state block; looks may take that share of the time while there is news."""
        self._share = share
        self._request = ctypes.c_uint8.from_address(state + Slot.PENDING + Request.SAMPLE)
        self._stack = ctypes.c_uint64.from_address(state + Slot.STACK)
        self._interval = SHORTEST
        self._thread: threading.Thread | None = None
        self._starts = 0
        self._last = time.monotonic()
        """When there was the last look."""
        self._spent = 0.0
        """Seconds that looks have taken beyond their share."""
        Ticker._all.add(self)

    def start(self) -> None:
        """The CPU is going to run."""
        self._starts += 1
        if self._thread is None:
            make_room()
            thread = threading.Thread(target=_tick, args=(weakref.ref(self),), daemon=True)
            self._thread = thread
            # Not even its first moments are for signals: they are for threads that run guests.
            others = signal.valid_signals() - signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            try:
                thread.start()
            except RuntimeError:
                # The process has as many threads as it may have. Another start may be luckier.
                self._thread = None
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, others)

    def rest(self, pace: Pace, spent: float = 0.0) -> None:
        """The CPU goes on, after a look that took so many seconds.

        That may have been so long that the thread has given up.
        """
        share = self._share if pace in (Pace.AT_ONCE, Pace.SOON) else USUAL_SHARE
        now = time.monotonic()
        self._spent = max(self._spent - share * (now - self._last), 0) + spent
        self._last = now
        too_much = self._spent - _HEAD_START
        pause = min(too_much / share, _LONGEST_PAUSE) if pace is not Pace.AT_ONCE else 0
        self._interval = max(min(2 * self._interval, _LONGEST[pace]), pause)
        self.start()

    @classmethod
    def threads(cls) -> int:
        """How many threads all tickers have now."""
        return sum(ticker._thread is not None for ticker in cls._all)

    def look(self) -> bool:
        """Ask the CPU if it runs; whether it does."""
        if not self._stack.value:
            return False
        self._request.value = 1
        return True

    @classmethod
    def after_fork(cls) -> None:
        """Threads are not inherited."""
        for ticker in cls._all:
            ticker._thread = None


def _tick(reference: weakref.ref[Ticker]) -> None:
    idle = seen = 0
    while True:
        ticker = reference()
        if ticker is None:
            return
        starts = ticker._starts
        idle = 0 if ticker.look() or starts != seen else idle + 1
        seen = starts
        if idle > _IDLE_LOOKS:
            ticker._thread = None
            if ticker._starts != seen:
                # The CPU has begun to run when this thread still seemed to be there.
                ticker.start()
            return
        interval = ticker._interval
        del ticker
        time.sleep(interval)


os.register_at_fork(after_in_child=Ticker.after_fork)
