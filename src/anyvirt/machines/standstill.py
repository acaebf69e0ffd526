"""Doing things with a machine when nothing of it runs, also for other threads than the one that runs it."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

from anyvirt.errors import UsageError
from anyvirt.machines.ending import Ending, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

T = TypeVar("T")
ASIDE = Ending(Reason.STOPPED)
"""How a run ends that goes on when the work is done; it is told by its identity."""
_LOOK = 0.01
"""Seconds after which a run that has not begun when it was to be held is asked once more."""


class Standstill:
    """Of one machine: whether somebody runs it, and what is to be done when it stands."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_running = False
        self._work: list[tuple[Future[Any], Callable[[], Any]]] = []
        self._worker = 0
        """The thread that does something while nothing runs."""
        self._busy = threading.RLock()
        """Held by whoever runs the machine, or works on it while it stands."""

    @property
    def is_running(self) -> bool:
        """Whether somebody runs the machine, even if that is held."""
        return self._is_running

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run the machine; what is still to be done is done at the end. Raises UsageError."""
        if self._is_running:
            raise UsageError("the machine is running already")
        with self._busy:
            with self._lock:
                self._is_running = True
            try:
                yield
            finally:
                with self._lock:
                    self._is_running = False
                    work, self._work = self._work, []
                self._do(work)

    def serve(self) -> None:
        """Do what others want; the run is held."""
        with self._lock:
            work, self._work = self._work, []
        self._do(work)

    def do(self, work: Callable[[], T], hold: Callable[[], object]) -> T:
        """Do something while nothing runs; `hold` lets a run come to `serve`."""
        if self._worker == threading.get_ident():
            return work()
        future: Future[T] = Future()
        with self._lock:
            waits = self._is_running
            if waits:
                self._work.append((future, work))
        if not waits:
            with self._busy:
                self._do([(future, work)])
        while not future.done():
            hold()
            with contextlib.suppress(TimeoutError):
                future.exception(_LOOK)
        return future.result()

    def _do(self, work: list[tuple[Future[Any], Callable[[], Any]]]) -> None:
        for future, function in work:
            self._worker = threading.get_ident()
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)
            finally:
                self._worker = 0
