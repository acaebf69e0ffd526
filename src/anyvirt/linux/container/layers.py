"""The container's root filesystem: writable overlays whose upper layers are thrown away.

An overlay shows one host filesystem, not what is mounted below it, so every filesystem mounted below the
root gets an overlay of its own. What cannot lie under an overlay (a mounted file, some network filesystems)
is shown read-only instead. Where the host's root is used, /proc, /sys, /dev and /run are left out: the
container has its own, and the host's /run holds the sockets of its services.

Without privileges on the host nothing that has mounts below it can lie under an overlay either; there the
root is a fresh directory in which each entry is a layer.
"""

from __future__ import annotations

import os
import stat
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from anyvirt.linux import kernel

OWN_DIRECTORIES = ("/proc", "/sys", "/dev", "/run")
_PSEUDO = """
    autofs binfmt_misc bpf cgroup cgroup2 configfs debugfs devpts devtmpfs efivarfs fusectl hugetlbfs mqueue
    nsfs proc pstore rpc_pipefs securityfs selinuxfs sysfs tracefs
"""
_PSEUDO_FILESYSTEMS = frozenset(_PSEUDO.split())


class LayerKind(Enum):
    """How a path of the container's root is made."""

    OVERLAY = "overlay"
    FILE = "file"
    LINK = "link"
    DIRECTORY = "directory"


class Layer(NamedTuple):
    """One piece of the container's root: host path `source` (or a link's text) shown at `target`."""

    kind: LayerKind
    source: str
    target: str
    mode: int = 0o755
    """Permissions of a plain directory."""


class MountPoint(NamedTuple):
    """One line of /proc/self/mountinfo (proc(5))."""

    path: str
    filesystem: str


def read_mount_points() -> tuple[MountPoint, ...]:
    """What is mounted in this process's mount namespace, in the order of mounting."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return parse_mount_points(file.read())


@lru_cache(maxsize=1)
def parse_mount_points(mountinfo: str) -> tuple[MountPoint, ...]:
    """The mount points in the text of a mountinfo file."""
    points = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        points.append(MountPoint(_unescape(before.split(" ")[4]), after.split(" ", 1)[0]))
    return tuple(points)


def plan_layers(
    root: str, points: tuple[MountPoint, ...], *, privileged: bool, owned: tuple[str, ...] = ()
) -> list[Layer]:
    """The layers that show the host directory `root`, in the order in which they are to be attached.

    An unprivileged caller's directories named in `owned` become writable wherever in the root they are.
    """
    root = root.rstrip("/")
    inside = [
        point
        for path, point in sorted({point.path: point for point in points}.items())
        if path.startswith(f"{root}/") and not _is_own(root, path) and path != "/"
    ]
    if privileged or not (inside or not root):
        return [
            Layer(LayerKind.OVERLAY, root or "/", "/"),
            *(_submount(root, p) for p in inside if p.filesystem not in _PSEUDO_FILESYSTEMS),
        ]
    layers = _split(root, "", {point.path for point in inside})
    targets = {layer.target for layer in layers}
    own = dict.fromkeys(_first_owned(path) for path in owned) if not root else {}
    return layers + [Layer(LayerKind.OVERLAY, path, path) for path in own if path and path not in targets]


def _first_owned(path: str) -> str | None:
    """The first directory on the way to `path` that belongs to the caller.

    An overlay copies the directories above a changed file, which fails for those of other users: the
    container does not know their owners. So the caller's own get a layer that begins with them.
    """
    place = ""
    for part in os.path.normpath(path).split("/")[1:]:
        place += f"/{part}"
        try:
            status = os.lstat(place)
        except OSError:
            return None
        if not stat.S_ISDIR(status.st_mode) or _is_own("", place):
            return None
        if status.st_uid == os.geteuid():
            return place
    return None


def _is_own(root: str, path: str) -> bool:
    """Whether `path` belongs to a directory that the container has instead of the host's."""
    return not root and any(path == own or path.startswith(f"{own}/") for own in OWN_DIRECTORIES)


def _submount(root: str, point: MountPoint) -> Layer:
    kind = LayerKind.OVERLAY if os.path.isdir(point.path) else LayerKind.FILE
    return Layer(kind, point.path, point.path[len(root) :])


def _split(root: str, inner: str, mounted: set[str]) -> list[Layer]:
    """Layers for the entries of `root`/`inner`, descending where something is mounted farther below."""
    layers = [_directory(root + inner or "/", inner or "/")]
    try:
        entries = sorted(os.scandir(root + inner or "/"), key=lambda entry: entry.name)
    except OSError:
        return layers
    for entry in entries:
        path, target = f"{root}{inner}/{entry.name}", f"{inner}/{entry.name}"
        if entry.is_symlink():
            layers.append(Layer(LayerKind.LINK, os.readlink(path), target))
        elif _is_own(root, path):
            layers.append(_directory(path, target))
        elif entry.is_file():
            layers.append(Layer(LayerKind.FILE, path, target))
        elif not entry.is_dir():
            continue
        elif any(point.startswith(f"{path}/") for point in mounted):
            layers.extend(_split(root, target, mounted))
        else:
            layers.append(Layer(LayerKind.OVERLAY, path, target))
    return layers


def _directory(source: str, target: str) -> Layer:
    return Layer(LayerKind.DIRECTORY, source, target, stat.S_IMODE(os.stat(source).st_mode))


def open_layer(layer: Layer) -> int | None:
    """A detached mount of what the layer shows; None for one that shows nothing or may not be read."""
    if layer.kind in (LayerKind.LINK, LayerKind.DIRECTORY):
        return None
    try:
        return kernel.clone_tree(layer.source)
    except OSError:
        if layer.target == "/":
            raise
        return None


def build_root(layers: list[Layer], trees: list[int | None], *, in_user_namespace: bool) -> list[int | None]:
    """Lay a writable overlay over each tree, in the working directory, which is an empty writable one.

    Returns the detached mounts to attach at the layers' targets.
    """
    for name in ("lower", "upper", "work"):
        os.mkdir(name)
    return [
        _build(index, layer, tree, in_user_namespace=in_user_namespace)
        for index, (layer, tree) in enumerate(zip(layers, trees, strict=True))
    ]


def attach_layer(layer: Layer, mount: int | None) -> None:
    """Put a layer in its place, once the container's root is this process's root."""
    path = layer.target
    if layer.kind is LayerKind.LINK:
        os.symlink(layer.source, path)
        return
    if layer.kind is LayerKind.FILE:
        if not os.path.lexists(path):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    elif not os.path.isdir(path):
        os.mkdir(path)
    if layer.kind is LayerKind.DIRECTORY:
        os.chmod(path, layer.mode)
    if mount is not None:
        kernel.attach_tree(mount, path)
        os.close(mount)


def _build(index: int, layer: Layer, tree: int | None, *, in_user_namespace: bool) -> int | None:
    if tree is None:
        return None
    if layer.kind is LayerKind.FILE:
        kernel.set_mount_attributes(tree, kernel.MOUNT_ATTR_RDONLY | kernel.MOUNT_ATTR_NODEV)
        return tree
    lower, upper, work = f"lower/{index}", f"upper/{index}", f"work/{index}"
    for directory in (lower, upper, work):
        os.mkdir(directory)
    kernel.attach_tree(tree, lower)
    _copy_mode(lower, upper)
    options: dict[str, str | None] = {"lowerdir": lower, "upperdir": upper, "workdir": work}
    if in_user_namespace:
        options["userxattr"] = None
    try:
        overlay = kernel.new_filesystem("overlay", options, kernel.MOUNT_ATTR_NODEV)
    except OSError:
        if layer.target == "/":
            raise
        # Not every filesystem can lie under an overlay: this one is shown as it is, but read-only.
        kernel.set_mount_attributes(tree, kernel.MOUNT_ATTR_RDONLY | kernel.MOUNT_ATTR_NODEV)
        return tree
    os.close(tree)
    return overlay


def _copy_mode(source: str, target: str) -> None:
    """Give the directory `target` the permissions of `source`, and its owner where that is possible."""
    try:
        status = os.stat(source)
        os.chmod(target, stat.S_IMODE(status.st_mode))
        if status.st_uid or status.st_gid:
            os.chown(target, status.st_uid, status.st_gid)
    except OSError:
        # An owner that the container does not know cannot be given; the container's root owns it then.
        return


def _unescape(path: str) -> str:
    """Undo mountinfo's octal escapes of blanks and backslashes."""
    if "\\" not in path:
        return path
    import re

    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)
