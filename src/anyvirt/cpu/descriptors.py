"""File descriptors of ours in a guest's process: they have numbers that guests hardly use."""

from __future__ import annotations

import contextlib
import fcntl
import os

_LOWEST = (5000, 900)
"""The guest uses the low ones; the first of these may be beyond its limit."""


def out_of_the_way(descriptor: int) -> int | None:
    """A copy of a descriptor under a number that guests hardly use; None if there is none to be had."""
    for lowest in _LOWEST:
        with contextlib.suppress(OSError):
            return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, lowest)
    return None


def make_room() -> None:
    """Have the kernel enlarge its table of this process's descriptors, which it keeps so.

    In a process with threads it waits for all processors when it does that (`expand_fdtable` in fs/file.c),
    ten milliseconds or more.
    """
    with contextlib.suppress(OSError):
        folder = os.open("/", os.O_PATH | os.O_CLOEXEC)
        try:
            copy = out_of_the_way(folder)
            if copy is not None:
                os.close(copy)
        finally:
            os.close(folder)
