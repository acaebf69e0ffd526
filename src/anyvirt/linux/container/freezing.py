"""Pausing a container: by its control group's freezer, else by stopping each of its processes."""

from __future__ import annotations

import os
import signal as signals

from anyvirt.linux.cgroups import open_control_group


def freeze(group: tuple[str, tuple[str, ...]], namespace: int, *, frozen: bool) -> None:
    """Stop, or let run again, the container of the described group and the PID namespace `namespace`.

    Without a freezer the processes get SIGSTOP and SIGCONT, which a shell inside can see and undo.
    """
    if group[1]:
        control_group = open_control_group(group)
        if control_group.freezes:
            control_group.freeze(frozen)
            return
    number = signals.SIGSTOP if frozen else signals.SIGCONT
    done: set[int] = set()
    # Processes that were being forked meanwhile are found in the next round.
    while fresh := processes_of(namespace) - done:
        for pid in fresh:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        done |= fresh


def processes_of(namespace: int) -> set[int]:
    """The processes, by their numbers on the host, in the PID namespace with the inode `namespace`.

    An ordinary user does not see the container's first process, which hides: it only waits anyway.
    """
    found = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{name}/ns/pid").st_ino == namespace:
                found.add(int(name))
        except OSError:
            continue
    return found
