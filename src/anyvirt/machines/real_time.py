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
from anyvirt.machines.rest import Rest
from anyvirt.machines.standstill import ASIDE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anyvirt.machines.hart import Hart
    from anyvirt.machines.machine import Machine

_LOOK = 0.02
"""Seconds between looks at a condition of the user's when nothing happens."""


class RealTimeRun:
    """One run. `end` and `notice` may be called from any thread."""

    def __init__(
        self, machine: Machine, deadline: float | None, *, harts: Sequence[Hart] | None = None
    ) -> None:
        """It ends when the host's monotonic clock shows `deadline`, in seconds.

        `harts` are those that run: all of them unless given.
        """
        self._machine = machine
        self._harts = machine.harts if harts is None else harts
        self._deadline = deadline
        self._clock = machine.clock
        self._rest = Rest(machine.board.memory)
        self._changed = threading.Condition()
        self._is_noticed = False
        self._threads: set[int] = set()
        self.left: int | None = None
        """There is no number of instructions."""
        self.ending: Ending | None = None
        """How it has ended."""
        self._error: BaseException | None = None

    def end(self, ending: Ending) -> bool:
        """Let the run end; the first ending counts. Whether it was this one."""
        with self._changed:
            is_first = self.ending is None or self.ending is ASIDE
            if is_first:
                self.ending = ending
            self._changed.notify_all()
        for hart in self._machine.harts:
            hart.wake()
        return is_first

    def notice(self) -> None:
        """Something has happened that whoever waits may want to look at."""
        with self._changed:
            self._is_noticed = True
            self._changed.notify_all()

    def is_own_thread(self, thread: int) -> bool:
        """Whether the run cannot go on before this thread does."""
        return thread in self._threads

    def notice_input(self) -> None:
        """What comes from outside does not wait for anything."""

    def run(self, until: Callable[[], object] | None) -> None:
        """Run to the end, or until the deadline, or until a condition holds."""
        clock, harts = self._clock, self._harts
        self._machine.end_turn()
        self._threads = {threading.get_ident()}
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
            self._tend(until)
        except BaseException:
            self.end(Ending(Reason.STOPPED))
            raise
        finally:
            self._finish(threads)
        if self._error is not None:
            raise self._error

    def _finish(self, threads: list[threading.Thread]) -> None:
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        self._clock.on_earlier = None
        self._clock.pause()

    # The agenda -----------------------------------------------------------------------------------------

    def _tend(self, until: Callable[[], object] | None) -> None:
        """Ring alarms, and look at conditions, until the run is to end."""
        clock = self._clock
        while self.ending is None:
            with self._machine.lock:
                clock.ring_due()
            if until is not None and until():
                self.end(Ending(Reason.CONDITION))
            elif self._deadline is not None and time.monotonic() >= self._deadline:
                self.end(Ending(Reason.LIMIT))
            else:
                self._sleep(until is not None, self._rest.look())

    def _sleep(self, looks: bool, longest: float | None) -> None:
        """Until the next alarm, or until there is something to look at; `longest` is in seconds."""
        with self._changed:
            upcoming = self._clock.next_alarm()
            waits = [_LOOK] if looks else []
            if longest is not None:
                waits.append(longest)
            if upcoming is not None:
                waits.append((upcoming - self._clock.now()) / SECOND)
            if self._deadline is not None:
                waits.append(self._deadline - time.monotonic())
            if not self._is_noticed and self.ending is None:
                self._changed.wait(max(min(waits), 0) if waits else None)
            self._is_noticed = False

    # Harts ----------------------------------------------------------------------------------------------

    def _run_hart(self, hart: Hart) -> None:
        self._threads.add(threading.get_ident())
        try:
            while self.ending is None:
                self._advance(hart)
        except BaseException as error:
            self._error = self._error or error
            self.end(Ending(Reason.STOPPED))

    def _advance(self, hart: Hart) -> None:
        """Run a hart until it has something for others, or has to wait."""
        if not hart.start_if_wanted():
            hart.woken.clear()
            if self.ending is None and not hart.start_if_wanted():
                hart.woken.wait()
            return
        if hart.is_waiting:
            hart.system.wait()
            hart.is_waiting = False
            return
        stop = hart.cpu.run()
        self._machine.serve(hart, stop)
        hart.is_waiting = stop.reason is StopReason.IDLE
