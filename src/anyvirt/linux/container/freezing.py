"""Pausing a container: by its control group's freezer, else by stopping each of its processes."""

from __future__ import annotations

import os
import signal as signals

from anyvirt.linux.cgroups import open_control_group


def freeze(group: tuple[str, tuple[str, ...]], init: int, *, frozen: bool) -> None:
    """Stop, or let run again, the container whose first process is `init` and whose group is described.

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
    while fresh := processes_of(init) - done:
        for pid in fresh:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        done |= fresh


def processes_of(init: int) -> set[int]:
    """All processes, by their numbers on the host, in the PID namespace of process `init`."""
    try:
        namespace = os.readlink(f"/proc/{init}/ns/pid")
    except OSError:
        return _descendants(init)
    found = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{name}/ns/pid") == namespace:
                found.add(int(name))
        except OSError:
            continue
    return found


def _descendants(init: int) -> set[int]:
    """The process and its children's children: an ordinary user may not see into the namespaces of `init`."""
    found, rest = set(), [init]
    while rest:
        pid = rest.pop()
        found.add(pid)
        try:
            with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
                rest.extend(int(word) for word in file.read().split())
        except OSError:
            continue
    return found
