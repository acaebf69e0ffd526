"""Waiting for the end of a process or a guest: until a descriptor that tells of it becomes readable."""

from __future__ import annotations

import time


def await_end(fd: int, timeout: float | None) -> None:
    """Wait for `timeout` seconds at most, or as long as it takes. Raises TimeoutError."""
    import select

    poll = select.poll()
    poll.register(fd, select.POLLIN)
    deadline = None if timeout is None else time.monotonic() + timeout
    while not poll.poll(None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000):
        if deadline is not None and time.monotonic() >= deadline:
            raise TimeoutError(f"the guest still runs after {timeout:g} seconds")
