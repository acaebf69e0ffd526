"""Control groups of version 2: one hierarchy for all controllers.

Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING, ClassVar, Self

from anyvirt.linux.cgroups.control_group import (
    FREEZE_PATIENCE,
    ControlGroup,
    ControllerError,
    make_directory,
    read_counter,
    write_value,
)
from anyvirt.linux.cgroups.hierarchies import read_words

if TYPE_CHECKING:
    from anyvirt.linux.cgroups.hierarchies import Hierarchies

_PERIOD_MICROSECONDS = 100_000
_DELEGATION = (
    "run as root, or in a control group of your own: systemd-run --user --scope -p Delegate=yes anyvirt …"
)
_CALLERS = "anyvirt-callers"


class Version2Group(ControlGroup):
    """One directory, with the controllers that its parent has enabled for its children."""

    version: ClassVar[str] = "v2"

    @classmethod
    def plan(cls, hierarchies: Hierarchies, name: str, controllers: frozenset[str]) -> Self:
        """See plan_control_group.

        The group goes below this process's own. Where controllers are needed root's goes to the top of the
        hierarchy, since only there may a group with processes of its own limit its children.
        """
        unified = hierarchies.unified
        if unified is None:
            if controllers:
                raise ControllerError("no cgroup hierarchy is mounted on this host")
            return cls(())
        if not controllers:
            return cls((f"{unified.own}/{name}",) if os.access(unified.own, os.W_OK) else ())
        parent = unified.mount_point if os.geteuid() == 0 else unified.own
        if not os.access(parent, os.W_OK):
            raise ControllerError(f"{parent} is not writable by user {os.geteuid()}; {_DELEGATION}")
        _enable(parent, controllers)
        return cls((f"{parent}/{name}",))

    def make(self) -> None:
        """See ControlGroup.make."""
        for directory in self.directories:
            make_directory(directory)

    def limit_memory(self, size: int) -> None:
        """See ControlGroup.limit_memory."""
        write_value(self._directory, "memory.max", str(size))
        if os.path.exists(f"{self._directory}/memory.swap.max"):
            write_value(self._directory, "memory.swap.max", "0")

    def limit_cpus(self, cpus: float) -> None:
        """See ControlGroup.limit_cpus."""
        quota = round(cpus * _PERIOD_MICROSECONDS)
        write_value(self._directory, "cpu.max", f"{quota} {_PERIOD_MICROSECONDS}")

    def limit_pids(self, count: int) -> None:
        """See ControlGroup.limit_pids."""
        write_value(self._directory, "pids.max", str(count))

    def open_for_clone(self) -> int | None:
        """See ControlGroup.open_for_clone."""
        return os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY) if self.directories else None

    def open_for_joining(self) -> tuple[int, ...]:
        """See ControlGroup.open_for_joining: a process is cloned into its only directory."""
        return ()

    def views(self) -> dict[str, str]:
        """See ControlGroup.views."""
        return {"": self._directory} if self.directories else {}

    @property
    def freezes(self) -> bool:
        """See ControlGroup.freezes."""
        return bool(self.directories)

    def freeze(self, frozen: bool) -> None:
        """See ControlGroup.freeze."""
        freeze_unified(self._directory, frozen)

    def out_of_memory_kills(self) -> int:
        """See ControlGroup.out_of_memory_kills."""
        return read_counter(f"{self._directory}/memory.events", "oom_kill") if self.directories else 0

    @property
    def _directory(self) -> str:
        if not self.directories:
            raise ControllerError("this instance has no control group")
        return self.directories[0]


def _enable(parent: str, controllers: frozenset[str]) -> None:
    """Let the children of `parent` be limited by `controllers`."""
    missing = controllers - set(read_words(f"{parent}/cgroup.controllers"))
    if missing:
        raise ControllerError(
            f"the cgroup {parent} is not given the controller {min(missing)}; {_DELEGATION}"
        )
    wanted = controllers - set(read_words(f"{parent}/cgroup.subtree_control"))
    if not wanted:
        return
    change = " ".join(f"+{controller}" for controller in sorted(wanted))
    try:
        write_value(parent, "cgroup.subtree_control", change)
    except ControllerError as error:
        if not (isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EBUSY):
            raise
        # A group with processes of its own cannot limit its children; they move to a leaf beside them.
        _move_processes(parent, f"{parent}/{_CALLERS}")
        write_value(parent, "cgroup.subtree_control", change)


def _move_processes(parent: str, leaf: str) -> None:
    os.makedirs(leaf, exist_ok=True)
    for pid in read_words(f"{parent}/cgroup.procs"):
        try:
            write_value(leaf, "cgroup.procs", pid)
        except ControllerError as error:
            if not isinstance(error.__cause__, ProcessLookupError):
                raise


def freeze_unified(directory: str, frozen: bool) -> None:
    """Freeze or thaw the version 2 group `directory` (Documentation/admin-guide/cgroup-v2.rst)."""
    try:
        write_value(directory, "cgroup.freeze", "1" if frozen else "0")
    except ControllerError as error:
        if not frozen and isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENOENT:
            return
        raise
    deadline = time.monotonic() + FREEZE_PATIENCE
    while read_counter(f"{directory}/cgroup.events", "frozen") != int(frozen):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the processes of {directory} did not freeze in {FREEZE_PATIENCE:g} s")
        time.sleep(0.0005)
