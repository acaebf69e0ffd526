"""What a container has in /proc, /sys and /dev: its own, minimal, with the host's secrets masked.

Called after the root has been changed, so that no symbolic link of the guest's can lead outside of it.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from anyvirt.linux import kernel
from anyvirt.linux.container.stages import Fault, StartError
from anyvirt.linux.kernel import MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_REC, MS_REMOUNT

if TYPE_CHECKING:
    from collections.abc import Sequence

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
_TTY_GROUP = 5

# What Docker and podman hide: it tells about the host, or is not kept apart by namespaces.
_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_LOCKED_DOWN = MS_NOSUID | MS_NODEV | MS_NOEXEC


def clone_devices() -> list[int]:
    """Detached mounts of the host's `DEVICES`, opened while the host's /dev is still in sight."""
    return [kernel.clone_tree(f"/dev/{name}") for name in DEVICES]


def open_kernel_filesystems() -> dict[str, int]:
    """Detached mounts of the container's own /proc and a read-only /sys, by their place.

    In a user namespace the kernel gives them only while the host's are in sight.
    """
    attributes = kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV | kernel.MOUNT_ATTR_NOEXEC
    return {
        "/proc": kernel.new_filesystem("proc", {}, attributes),
        "/sys": kernel.new_filesystem("sysfs", {}, attributes | kernel.MOUNT_ATTR_RDONLY),
    }


def attach_kernel_filesystems(mounts: dict[str, int]) -> None:
    """Attach /proc and /sys, and mask what a container has no business with; /dev is set up already."""
    for path, mount in mounts.items():
        kernel.attach_tree(mount, own_directory(path))
        os.close(mount)
    for path in _READ_ONLY:
        if os.path.lexists(path):
            kernel.mount(path, path, "", MS_BIND | MS_REC)
            kernel.mount("", path, "", MS_REMOUNT | MS_BIND | MS_RDONLY | _LOCKED_DOWN)
    for path in _MASKED:
        _mask(path)


def attach_control_groups(groups: dict[str, int]) -> None:
    """Show detached mounts of the container's control groups, by name, read-only below /sys/fs/cgroup."""
    attributes = kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV | kernel.MOUNT_ATTR_NOEXEC
    place = "/sys/fs/cgroup"
    if groups and "" not in groups:
        kernel.mount("tmpfs", place, "tmpfs", _LOCKED_DOWN, "mode=755")
    for name, tree in groups.items():
        if name:
            os.mkdir(f"{place}/{name}", 0o755)
        kernel.set_mount_attributes(tree, attributes | kernel.MOUNT_ATTR_RDONLY)
        kernel.attach_tree(tree, f"{place}/{name}")
        os.close(tree)
    if groups and "" not in groups:
        kernel.mount("", place, "", MS_REMOUNT | MS_BIND | MS_RDONLY | _LOCKED_DOWN)


def make_devices(devices: Sequence[int], *, tty_group: bool) -> None:
    """Fill /dev with `devices` (from `clone_devices`), pseudo-terminals, shared memory and message queues."""
    make_plain_devices(devices)
    group = f",gid={_TTY_GROUP}" if tty_group else ""
    kernel.mount(
        "devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, f"newinstance,ptmxmode=0666,mode=0620{group}"
    )
    kernel.mount("mqueue", "/dev/mqueue", "mqueue", _LOCKED_DOWN)


def make_plain_devices(devices: Sequence[int]) -> None:
    """The same without pseudo-terminals and message queues, for which there are empty directories."""
    kernel.mount("tmpfs", own_directory("/dev"), "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=755,size=64k")
    for name, tree in zip(DEVICES, devices, strict=True):
        _touch(f"/dev/{name}")
        kernel.attach_tree(tree, f"/dev/{name}")
        os.close(tree)
    for name, target in _LINKS.items():
        os.symlink(target, f"/dev/{name}")
    for name in ("pts", "shm", "mqueue"):
        os.mkdir(f"/dev/{name}", 0o755)
    kernel.mount("shm", "/dev/shm", "tmpfs", _LOCKED_DOWN, "mode=1777,size=65536k")


def make_console(terminal: str) -> None:
    """Show the pseudo-terminal `terminal` as /dev/console too."""
    _touch("/dev/console")
    kernel.mount(terminal, "/dev/console", "", MS_BIND)


def own_directory(path: str) -> str:
    """`path` as a directory of the container's root, made if it is missing.

    A symbolic link there would put what is mounted, and the masks, in different places.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        os.mkdir(path, 0o755)
        return path
    if not stat.S_ISDIR(mode):
        raise StartError(
            Fault.USAGE, f"{path} in the root filesystem must be a directory, and it is a link or a file"
        )
    return path


def _mask(path: str) -> None:
    try:
        is_directory = stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return
    if is_directory:
        kernel.mount("tmpfs", path, "tmpfs", _LOCKED_DOWN | MS_RDONLY, "nr_inodes=1")
    else:
        kernel.mount("/dev/null", path, "", MS_BIND)


def _touch(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
