"""The change to a new root: from a scratch filesystem in memory, with nothing left of the old one."""

from __future__ import annotations

import os

from anyvirt.linux import kernel
from anyvirt.linux.container import layers


def enter_scratch() -> None:
    """Mount a filesystem in memory over the working directory, and enter it."""
    scratch = kernel.new_filesystem("tmpfs", {"mode": "0755"}, kernel.MOUNT_ATTR_NODEV)
    kernel.attach_tree(scratch, "")
    os.fchdir(scratch)
    os.close(scratch)


def pivot(plan: list[layers.Layer], mounts: list[int | None]) -> None:
    """Make the first of these layers the root, from within a scratch filesystem, and attach the others."""
    os.mkdir("root")
    first, rest = 0, plan
    if mounts[0] is not None:
        kernel.attach_tree(mounts[0], "root")
        os.close(mounts[0])
        first, rest = 1, plan[1:]
    else:
        kernel.mount("tmpfs", "root", "tmpfs", kernel.MS_NODEV, "mode=755")
    os.chdir("root")
    kernel.pivot_root(".", ".")
    # Both roots are now mounted at the same place, the old one on top.
    kernel.unmount(".", kernel.MNT_DETACH)
    os.chdir("/")
    for layer, mount in zip(rest, mounts[first:], strict=True):
        layers.attach_layer(layer, mount)
