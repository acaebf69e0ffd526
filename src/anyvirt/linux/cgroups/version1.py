"""Control groups of version 1, one hierarchy per controller, also beside version 2 (hybrid hosts).

Documentation/admin-guide/cgroup-v1/{memory,freezer-subsystem,pids}.rst and scheduler/sched-bwc.rst.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, ClassVar, Self

from anyvirt.linux.cgroups.control_group import (
    CPU,
    FREEZE_PATIENCE,
    MEMORY,
    PIDS,
    ControlGroup,
    ControllerError,
    make_directory,
    read_counter,
    write_value,
)
from anyvirt.linux.cgroups.version2 import freeze_unified

if TYPE_CHECKING:
    from anyvirt.linux.cgroups.hierarchies import Hierarchies

_PERIOD_MICROSECONDS = 100_000
_FREEZER = "freezer"
_FREEZER_FILE = "freezer.state"
_LIMIT_FILES = {MEMORY: "memory.limit_in_bytes", CPU: "cpu.cfs_quota_us", PIDS: "pids.max"}
"""The control file by which the directory of each controller is recognized."""


class Version1Group(ControlGroup):
    """A group in the hierarchy of each controller in use and in the freezer's (or the unified one).

    The name of the controller that a directory serves is recognized by the control files in it.
    """

    version: ClassVar[str] = "v1"

    @classmethod
    def plan(cls, hierarchies: Hierarchies, name: str, controllers: frozenset[str]) -> Self:
        """See plan_control_group: groups named `name` below the ones that this process is in."""
        directories = []
        for controller in sorted(controllers):
            hierarchy = hierarchies.legacy.get(controller)
            if hierarchy is None:
                raise ControllerError(f"this host's kernel offers no cgroup controller for {controller}")
            if not os.access(hierarchy.own, os.W_OK):
                raise ControllerError(
                    f"{hierarchy.own} is not writable by user {os.geteuid()}; run as root, or let root make"
                    " this cgroup yours"
                )
            directories.append(f"{hierarchy.own}/{name}")
        freezing = hierarchies.unified or hierarchies.legacy.get(_FREEZER)
        if freezing is not None and os.access(freezing.own, os.W_OK):
            directories.append(f"{freezing.own}/{name}")
        # Controllers that are mounted together (cpu,cpuacct) share one directory.
        return cls(tuple(dict.fromkeys(directories)))

    def make(self) -> None:
        """See ControlGroup.make."""
        for directory in self.directories:
            make_directory(directory)

    def limit_memory(self, size: int) -> None:
        """See ControlGroup.limit_memory."""
        directory = self._serving(MEMORY)
        write_value(directory, "memory.limit_in_bytes", str(size))
        if os.path.exists(f"{directory}/memory.memsw.limit_in_bytes"):
            write_value(directory, "memory.memsw.limit_in_bytes", str(size))

    def limit_cpus(self, cpus: float) -> None:
        """See ControlGroup.limit_cpus."""
        directory = self._serving(CPU)
        write_value(directory, "cpu.cfs_period_us", str(_PERIOD_MICROSECONDS))
        write_value(directory, "cpu.cfs_quota_us", str(round(cpus * _PERIOD_MICROSECONDS)))

    def limit_pids(self, count: int) -> None:
        """See ControlGroup.limit_pids."""
        write_value(self._serving(PIDS), "pids.max", str(count))

    def open_for_clone(self) -> int | None:
        """See ControlGroup.open_for_clone."""
        unified = self._find("cgroup.freeze")
        return os.open(unified, os.O_RDONLY | os.O_DIRECTORY) if unified else None

    def open_for_joining(self) -> tuple[int, ...]:
        """See ControlGroup.open_for_joining."""
        unified = self._find("cgroup.freeze")
        return tuple(
            os.open(f"{directory}/cgroup.procs", os.O_WRONLY)
            for directory in self.directories
            if directory != unified
        )

    def views(self) -> dict[str, str]:
        """See ControlGroup.views."""
        found = ((name, self._find(file)) for name, file in _LIMIT_FILES.items())
        return {name: directory for name, directory in found if directory is not None}

    @property
    def freezes(self) -> bool:
        """See ControlGroup.freezes."""
        return self._find("cgroup.freeze", _FREEZER_FILE) is not None

    def freeze(self, frozen: bool) -> None:
        """See ControlGroup.freeze."""
        unified = self._find("cgroup.freeze")
        if unified is not None:
            freeze_unified(unified, frozen)
            return
        directory = self._serving(_FREEZER)
        wanted = "FROZEN" if frozen else "THAWED"
        deadline = time.monotonic() + FREEZE_PATIENCE
        while True:
            # Writing again makes the kernel try again with processes that were forking meanwhile.
            write_value(directory, "freezer.state", wanted)
            with open(f"{directory}/freezer.state", encoding="ascii") as file:
                if file.read().strip() == wanted:
                    return
            if time.monotonic() > deadline:
                raise TimeoutError(f"the processes of {directory} did not freeze in {FREEZE_PATIENCE:g} s")
            time.sleep(0.001)

    def out_of_memory_kills(self) -> int:
        """See ControlGroup.out_of_memory_kills."""
        directory = self._find("memory.oom_control")
        return read_counter(f"{directory}/memory.oom_control", "oom_kill") if directory else 0

    def _find(self, *files: str) -> str | None:
        for directory in self.directories:
            if any(os.path.exists(f"{directory}/{file}") for file in files):
                return directory
        return None

    def _serving(self, controller: str) -> str:
        directory = self._find(_LIMIT_FILES.get(controller, _FREEZER_FILE))
        if directory is None:
            raise ControllerError(f"this instance has no {controller} control group")
        return directory
