"""A root of the guest's own: a directory of the host under an overlay, in namespaces of the emulator.

The emulator enters it before it opens the guest's program. What it needs of the host later is loaded before
(`preload`), is shown read-only at a place in /dev (the cache of compiled code), or is asked of the process
that stayed outside (`doorkeeper`).
"""

from __future__ import annotations

import importlib
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from anyvirt.errors import AnyvirtError, GuestStartError, UsageError
from anyvirt.linux import capabilities, kernel
from anyvirt.linux.container import layers, special_files
from anyvirt.linux.container.confinement import stop_importing
from anyvirt.linux.container.new_root import enter_scratch, pivot
from anyvirt.linux.container.stages import StartError
from anyvirt.linux.emulation import doorkeeper
from anyvirt.linux.emulation.hiding import hide
from anyvirt.paths import cache_directory

if TYPE_CHECKING:
    from anyvirt.linux.emulation.variables import Place

_RESOLVER = "/etc/resolv.conf"
"""A root without one gets the host's, whose network it has."""
_OWN_PLACE = "/dev/.anyvirt"
"""Where the guest's root has the cache of compiled code, in its directory `cache`."""
_LATER = (
    "anyvirt.cpu.hooks", "anyvirt.cpu.region_client", "anyvirt.cpu.stencil_executor",
    "anyvirt.cpu.stencil_space", "anyvirt.cpu.translator", "anyvirt.guest", "anyvirt.isa.description",
    "anyvirt.jit.cache", "anyvirt.jit.compile_protocol", "anyvirt.jit.region_cache",
    "anyvirt.linux.emulation.trace", "anyvirt.linux.program",
)  # fmt: skip
"""Modules that are imported when they are wanted, which is too late in a root without the host's Python."""


def preload() -> None:
    """Import all that may be wanted later, and find out what is remembered."""
    for name in _LATER:
        importlib.import_module(name)
    from anyvirt.jit.cache import version

    version()


def enter(place: Place) -> None:
    """Change to the guest's root and working directory. Raises GuestStartError and UsageError."""
    preload()
    _compile_outside(place.door)
    try:
        if place.root is None:
            stop_importing()
            doorkeeper.join(place.door)
        else:
            _make(place.root, place.door)
    except (OSError, StartError) as error:
        raise _explained(place, error) from error
    os.environ["ANYVIRT_STATE"] = _OWN_PLACE
    _enter_workdir(place)
    # Who may mount could make writable what is shown read-only.
    capabilities.restrict(capabilities.CONTAINER_MASK)
    hide()


def _compile_outside(door: str) -> None:
    """Have the compiler of hot code started by the doorkeeper."""
    from anyvirt.cpu.region_client import RegionClient

    RegionClient.start_elsewhere = lambda: doorkeeper.start_compiler(door)


def _make(directory: str, door: str) -> None:
    """Make the namespaces and the root. Raises OSError, StartError and GuestStartError."""
    from anyvirt.cpu.region_client import socket_name, spawn_compiler
    from anyvirt.jit.cache import version

    cache = cache_directory()
    connection = doorkeeper.begin(door, lambda: spawn_compiler(cache, socket_name(version())))
    doorkeeper.settle(connection, maps_ids=_unshare())
    # From here on modules would be looked for among the guest's files.
    stop_importing()
    before = os.umask(0)
    kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    views = _Views(os.fspath(cache))
    plan = layers.plan_layers(directory, layers.read_mount_points(), privileged=False)
    trees = [layers.open_layer(layer) for layer in plan]
    os.chdir(directory)
    enter_scratch()
    pivot(plan, layers.build_root(plan, trees, in_user_namespace=True))
    views.attach()
    os.umask(before)
    doorkeeper.open_door(connection)
    connection.close()


def _unshare() -> bool:
    """Leave the host's namespaces of users and mounts; whether there is one of users now. Raises OSError.

    Root of a host that has none of users is root in its own root, too.
    """
    try:
        kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS)
    except OSError:
        if os.geteuid() != 0:
            raise
        kernel.unshare(kernel.CLONE_NEWNS)
        return False
    return True


class _Views:
    """What the guest sees of the host: detached mounts, opened while that is in sight."""

    def __init__(self, cache: str) -> None:
        self._kernel = {path: kernel.clone_tree(path, recursive=True) for path in ("/proc", "/sys")}
        self._devices = special_files.clone_devices()
        self._shared = {path: _tree(path) for path in ("/dev/pts", "/dev/ptmx", "/dev/mqueue")}
        self._cache = kernel.clone_tree(cache)
        self._resolver = _content(_RESOLVER)

    def attach(self) -> None:
        """Show it in the new root, which is this process's by now."""
        kernel.set_mount_attributes(self._kernel["/sys"], kernel.MOUNT_ATTR_RDONLY, recursive=True)
        special_files.make_plain_devices(self._devices)
        special_files.attach_kernel_filesystems(self._kernel)
        self._share()
        kernel.set_mount_attributes(self._cache, kernel.MOUNT_ATTR_RDONLY)
        os.makedirs(f"{_OWN_PLACE}/cache", 0o755)
        _attach(self._cache, f"{_OWN_PLACE}/cache")
        if not os.path.lexists("/tmp"):
            os.mkdir("/tmp", 0o1777)
        if os.path.isdir("/etc") and not _content(_RESOLVER):
            # The directory may belong to somebody whom a guest without privileges does not know.
            with suppress(OSError):
                _put(_RESOLVER, self._resolver)

    def _share(self) -> None:
        """The guest has the caller's terminal, whose name is one of the host's, and the host's queues."""
        if self._shared["/dev/ptmx"] is not None:
            os.unlink("/dev/ptmx")
            os.close(os.open("/dev/ptmx", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        for path, tree in self._shared.items():
            if tree is not None:
                _attach(tree, path)


def _tree(path: str) -> int | None:
    try:
        return kernel.clone_tree(path)
    except OSError:
        return None


def _content(path: str) -> bytes:
    """What is in a file, if it is there and may be read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _put(path: str, content: bytes) -> None:
    """Make a file in place of one that is empty, or of a link that leads nowhere."""
    with suppress(FileNotFoundError):
        os.unlink(path)
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o644)) as file:
        file.write(content)


def _attach(tree: int, path: str) -> None:
    kernel.attach_tree(tree, path)
    os.close(tree)


def _enter_workdir(place: Place) -> None:
    try:
        os.chdir(place.workdir or "/")
    except OSError as error:
        raise UsageError(f"the command cannot start in {place.workdir}: {error.strerror}") from error


def _explained(place: Place, error: OSError | StartError) -> AnyvirtError:
    if isinstance(error, StartError):
        return UsageError(str(error))
    if place.root is None:
        return GuestStartError(f"the command cannot join the guest: {error.strerror}")
    subject = f"{os.fsdecode(error.filename)}: " if error.filename else ""
    return GuestStartError(
        f"{place.root} cannot become the guest's root: {subject}{error.strerror}; "
        "it takes namespaces of users and mounts, and overlays"
    )
