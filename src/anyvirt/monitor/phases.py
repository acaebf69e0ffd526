"""Where the time of a start goes."""

from __future__ import annotations

import time


class Phases:
    """Names of what was done, with seconds, in the order in which it was done."""

    def __init__(self, began: float) -> None:
        """`began` is a time of time.monotonic(), which is one clock for all processes of a host."""
        self._last = began
        self._done: list[tuple[str, float]] = []

    def mark(self, name: str) -> None:
        """All time since the last mark went into `name`."""
        now = time.monotonic()
        self._done.append((name, now - self._last))
        self._last = now

    @property
    def done(self) -> tuple[tuple[str, float], ...]:
        """What was marked so far."""
        return tuple(self._done)
