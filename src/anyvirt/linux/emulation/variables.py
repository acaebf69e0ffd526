"""Environment variables that tell the emulator what is not part of the guest's command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

GDB_VARIABLE = "ANYVIRT_GDB"
"""The address to wait for gdb at; the guest does not get to see it."""
TRACE_VARIABLE = "ANYVIRT_TRACE"
"""The file for a line about each instruction of the guest's first process; not for the guest either."""
COVERAGE_VARIABLE = "ANYVIRT_COVERAGE"
"""The file for what that process has executed."""
DOOR_VARIABLE = "ANYVIRT_DOOR"
"""What the process is found by that stays outside of a guest's own root (`doorkeeper`)."""
ROOT_VARIABLE = "ANYVIRT_ROOT"
"""The directory that becomes the guest's root; without it a command joins a guest that is there."""
WORKDIR_VARIABLE = "ANYVIRT_WORKDIR"
"""The directory in that root that the command starts in."""
OWN_PREFIX = "ANYVIRT_"
"""Variables that a guest with a root of its own does not get to see."""
GUEST_PREFIX = "ANYVIRT_FOR_GUEST_"
"""What is put before the names of those that only such a guest is to see."""


@dataclass(frozen=True)
class Place:
    """Where a guest's program is to be started."""

    door: str
    """What its doorkeeper is found by."""
    root: str | None
    """The directory of the host that becomes its root; None to join those who are there already."""
    workdir: str | None
    """The directory in that root where it begins; None is its `/`."""

    @classmethod
    def told(cls, environment: Mapping[str, str]) -> Place:
        """The place that these variables tell of."""
        workdir = environment.get(WORKDIR_VARIABLE)
        return cls(environment[DOOR_VARIABLE], environment.get(ROOT_VARIABLE), workdir)

    def variables(self) -> dict[str, str]:
        """What tells a new emulator of it."""
        told = {DOOR_VARIABLE: self.door, ROOT_VARIABLE: self.root, WORKDIR_VARIABLE: self.workdir}
        return {name: value for name, value in told.items() if value is not None}
