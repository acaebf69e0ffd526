"""Which cgroup hierarchies are mounted on this host, and where this process is in each (cgroups(7))."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import NamedTuple


class Hierarchy(NamedTuple):
    """One mounted hierarchy of control groups."""

    mount_point: str
    own: str
    """Directory of the group that this process is in."""


class Hierarchies(NamedTuple):
    """All of them: those of version 1 by controller, and the one of version 2 if it is mounted."""

    legacy: dict[str, Hierarchy]
    unified: Hierarchy | None

    @property
    def summary(self) -> str:
        """Which versions there are, for a reader: `v1`, `v2`, `v1 and v2 (hybrid)` or `none`."""
        if self.legacy:
            return "v1 and v2 (hybrid)" if self.unified else "v1"
        return "v2" if self.unified else "none"

    def controllers(self) -> tuple[str, ...]:
        """The controllers that some hierarchy here offers."""
        offered = set(self.legacy)
        if self.unified is not None:
            offered.update(read_words(f"{self.unified.own}/cgroup.controllers"))
        return tuple(sorted(offered))


def find_hierarchies(process_directory: str = "/proc/self") -> Hierarchies:
    """The hierarchies that this process sees, from its `cgroup` and `mountinfo` files (proc(5))."""
    with open(f"{process_directory}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        own_groups = file.read()
    with open(f"{process_directory}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return parse_hierarchies(file.read(), own_groups)


def read_words(path: str) -> tuple[str, ...]:
    """The words of a control file; none if it cannot be read."""
    try:
        with open(path, encoding="ascii") as file:
            return tuple(file.read().split())
    except OSError:
        return ()


def _parse_own_groups(text: str) -> dict[str, str]:
    """The path in each hierarchy by controller; the unified one's by the empty string."""
    groups = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            groups[controller] = path
    return groups


@lru_cache(maxsize=1)
def parse_hierarchies(mountinfo: str, cgroup: str) -> Hierarchies:
    """The hierarchies that the texts of a process's `mountinfo` and `cgroup` files describe."""
    own_groups = _parse_own_groups(cgroup)
    legacy: dict[str, Hierarchy] = {}
    unified = None
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, super_options = after.split(" ", 2)
        if kind not in ("cgroup", "cgroup2"):
            continue
        root, mount_point = before.split(" ")[3:5]
        if kind == "cgroup2":
            unified = _hierarchy(mount_point, root, own_groups.get("", "/"))
            continue
        for controller in set(super_options.split(",")) & set(own_groups):
            legacy[controller] = _hierarchy(mount_point, root, own_groups[controller])
    return Hierarchies(legacy, unified)


def _hierarchy(mount_point: str, root: str, own_path: str) -> Hierarchy:
    """A mount shows the hierarchy from `root` down; a group above that is seen as the mount itself."""
    relative = os.path.relpath(own_path, root) if own_path.startswith(root) else "."
    return Hierarchy(mount_point, os.path.normpath(os.path.join(mount_point, relative)))
