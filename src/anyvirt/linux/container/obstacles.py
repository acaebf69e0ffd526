"""What on a host stands in a container's way, and what its user can do about it."""

from __future__ import annotations

import os

from anyvirt.linux import seccomp
from anyvirt.linux.cgroups import find_hierarchies

_OVERFLOW_LIMIT = "/proc/sys/user/max_user_namespaces"
_DEBIAN_SWITCH = "/proc/sys/kernel/unprivileged_userns_clone"
_APPARMOR_SWITCH = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"


def find_remedy() -> str:
    """What would make containers work for this user, as far as it can be told."""
    if _read(_OVERFLOW_LIMIT) == "0":
        return "allow user namespaces (sysctl user.max_user_namespaces=10000) or run as root"
    if _read(_DEBIAN_SWITCH) == "0":
        return "allow user namespaces (sysctl kernel.unprivileged_userns_clone=1) or run as root"
    if _read(_APPARMOR_SWITCH) == "1":
        return "allow user namespaces (sysctl kernel.apparmor_restrict_unprivileged_userns=0) or run as root"
    if _is_chroot():
        return "leave the chroot: the kernel makes no user namespaces inside one (user_namespaces(7))"
    if not _knows_overlays():
        return "load the kernel's overlay filesystem (modprobe overlay)"
    return "run as root, and inside another container give that one more privileges"


def _is_chroot() -> bool:
    """Whether the root directory is not the root of a mount, as after chroot(2)."""
    mount_points = (line.split()[4] for line in _read("/proc/self/mountinfo").splitlines())
    return "/" not in mount_points


def _knows_overlays() -> bool:
    return any(line.split()[-1] == "overlay" for line in _read("/proc/filesystems").splitlines())


def describe_host() -> dict[str, str]:
    """What limits and filters containers can have here."""
    hierarchies = find_hierarchies()
    writable = os.access(
        hierarchies.unified.own if hierarchies.unified else "/sys/fs/cgroup/memory", os.W_OK
    ) or any(os.access(hierarchy.own, os.W_OK) for hierarchy in hierarchies.legacy.values())
    machine = os.uname().machine
    return {
        "cgroups": hierarchies.summary,
        "limits": ", ".join(sorted({"memory", "cpu", "pids"} & set(hierarchies.controllers())))
        if writable
        else "none: no control group is writable",
        "system call filter": "default list" if seccomp.supports(machine) else f"none for {machine}",
    }


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
