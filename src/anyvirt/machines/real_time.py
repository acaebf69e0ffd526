"""Running a machine in real time: a thread of the host for each hart, and one that rings the alarms.

WFI lets a hart's thread sleep until an interrupt is raised, by a device or by an alarm of the clock, for
which the thread that called `Machine.run` waits: an idle machine takes no time of the host's.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from anyvirt.cpu.executor import StopReason
from anyvirt.devices.clock import SECOND
from anyvirt.machines.ending import Ending, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anyvirt.machines.hart import Hart
    from anyvirt.machines.machine import Machine

_LOOK = 0.02
"""Seconds between looks at a condition of the user's when nothing happens."""


class RealTimeRun:
    """One run. `end` and `notice` may be called from any thread."""

    def __init__(self, machine: Machine, harts: Sequence[Hart] | None = None) -> None:
        """`harts` are those that run: all of them unless given."""
        self._machine = machine
        self._harts = machine.harts if harts is None else harts
        self._clock = machine.clock
        self._changed = threading.Condition()
        self._is_noticed = False
        self._ending: Ending | None = None
        self._error: BaseException | None = None

    def end(self, ending: Ending) -> bool:
        """Let the run end; the first ending counts. Whether it was this one."""
        with self._changed:
            is_first = self._ending is None
            self._ending = self._ending or ending
            self._changed.notify_all()
        for hart in self._machine.harts:
            hart.wake()
        return is_first

    def notice(self) -> None:
        """Something has happened that whoever waits may want to look at."""
        with self._changed:
            self._is_noticed = True
            self._changed.notify_all()

    def run(self, seconds: float | None, until: Callable[[], object] | None) -> Ending:
        """Run to the end, or for some seconds, or until a condition holds."""
        clock, harts = self._clock, self._harts
        limit = None if seconds is None else time.monotonic() + seconds
        threads = [
            threading.Thread(target=self._run_hart, args=(hart,), name=f"hart {hart.number}", daemon=True)
            for hart in harts
        ]
        clock.on_earlier = self.notice
        clock.resume()
        for hart in harts:
            hart.system.set_time(clock.now())
            # A hart that waits since a counted run has told nobody for what.
            hart.system.settle_alarm()
        try:
            for thread in threads:
                thread.start()
            self._tend(limit, until)
        except BaseException:
            self.end(Ending(Reason.STOPPED))
            raise
        finally:
            self._finish(threads)
        if self._error is not None:
            raise self._error
        assert self._ending is not None
        return self._ending

    def _finish(self, threads: list[threading.Thread]) -> None:
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        self._clock.on_earlier = None
        self._clock.pause()

    # The agenda -----------------------------------------------------------------------------------------

    def _tend(self, limit: float | None, until: Callable[[], object] | None) -> None:
        """Ring alarms, and look at conditions, until the run is to end."""
        clock = self._clock
        while self._ending is None:
            with self._machine.lock:
                clock.ring_due()
            if until is not None and until():
                self.end(Ending(Reason.CONDITION))
            elif limit is not None and time.monotonic() >= limit:
                self.end(Ending(Reason.LIMIT))
            else:
                self._sleep(limit, until is not None)

    def _sleep(self, limit: float | None, looks: bool) -> None:
        """Until the next alarm, or until there is something to look at."""
        with self._changed:
            upcoming = self._clock.next_alarm()
            waits = [_LOOK] if looks else []
            if upcoming is not None:
                waits.append((upcoming - self._clock.now()) / SECOND)
            if limit is not None:
                waits.append(limit - time.monotonic())
            if not self._is_noticed and self._ending is None:
                self._changed.wait(max(min(waits), 0) if waits else None)
            self._is_noticed = False

    # Harts ----------------------------------------------------------------------------------------------

    def _run_hart(self, hart: Hart) -> None:
        try:
            while self._ending is None:
                self._advance(hart)
        except BaseException as error:
            self._error = self._error or error
            self.end(Ending(Reason.STOPPED))

    def _advance(self, hart: Hart) -> None:
        """Run a hart until it has something for others, or has to wait."""
        if not hart.start_if_wanted():
            hart.woken.clear()
            if self._ending is None and not hart.start_if_wanted():
                hart.woken.wait()
            return
        if hart.is_waiting:
            hart.system.wait()
            hart.is_waiting = False
            return
        stop = hart.cpu.run()
        self._machine.serve(hart, stop)
        hart.is_waiting = stop.reason is StopReason.IDLE
