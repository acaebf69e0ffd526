"""Control groups: limits, accounting and freezing of a container's processes, v1 and v2 behind one interface.

`create_control_group` finds out which version holds which controller here and gives the matching one.
"""

from __future__ import annotations

from anyvirt.linux.cgroups.control_group import ControlGroup, ControllerError
from anyvirt.linux.cgroups.hierarchies import Hierarchies, find_hierarchies
from anyvirt.linux.cgroups.version1 import Version1Group
from anyvirt.linux.cgroups.version2 import Version2Group

__all__ = [
    "ControlGroup",
    "ControllerError",
    "Hierarchies",
    "find_hierarchies",
    "open_control_group",
    "plan_control_group",
]


def plan_control_group(name: str, controllers: frozenset[str]) -> ControlGroup:
    """The control group `name` that an instance limited by `controllers` would have; it is not made yet.

    Without any controllers it serves freezing and killing, and may lack both where nothing is writable.
    Raises ControllerError, saying why, when one of the controllers cannot be used here.
    """
    hierarchies = find_hierarchies()
    if hierarchies.legacy:
        return Version1Group.plan(hierarchies, name, controllers)
    return Version2Group.plan(hierarchies, name, controllers)


def open_control_group(description: tuple[str, tuple[str, ...]]) -> ControlGroup:
    """The existing group that `ControlGroup.description` described, perhaps in another process."""
    version, directories = description
    return (Version1Group if version == Version1Group.version else Version2Group)(directories)
