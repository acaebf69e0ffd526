"""The initial file system that a guest's kernel unpacks and begins with: the agent, its plan, and modules.

The plan mounts what every Linux system has, loads modules, and makes the root: the initial file system
itself with a directory's files in it, a disk, or a directory that the host shares, below an overlay where
changes are to be thrown away. Then the agent listens on its channel, or runs one command on the console.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from anyvirt.agent.build import agent_program
from anyvirt.agent.protocol import (
    PLAN,
    PORT_NAME,
    Channel,
    HostName,
    Link,
    LoadModule,
    MakeDirectory,
    Mount,
    MountFlag,
    Request,
    Run,
    SwitchRoot,
    plan,
)
from anyvirt.images.cpio import Attributes, CpioWriter, Sink
from anyvirt.images.errors import ImageError

if TYPE_CHECKING:
    from anyvirt.images.modules import Module, ModuleTree
    from anyvirt.isa.names import Isa

_DEVICE_PATIENCE = 10.0
"""Seconds that a disk or share may take to appear once its driver is loaded."""
_MODULES = "/anyvirt/modules"
_LOWER, _CHANGES, _ROOT = "/anyvirt/lower", "/anyvirt/changes", "/anyvirt/root"
_SYSTEM = MountFlag.NO_SETUID | MountFlag.NO_DEVICES | MountFlag.NO_EXECUTE


class Share(StrEnum):
    """How a directory of the host reaches the guest, by the file system's name in Linux."""

    PLAN9 = "9p"
    VIRTIOFS = "virtiofs"


@dataclass(frozen=True)
class SharedRoot:
    """The root is a directory that the host shares under a tag; read-only, it lies below an overlay."""

    tag: str
    share: Share = Share.PLAN9
    read_only: bool = True


@dataclass(frozen=True)
class DiskRoot:
    """The root is a disk's file system; read-only, it lies below an overlay."""

    device: str = "/dev/vda"
    type: str = "ext4"
    read_only: bool = True
    drivers: tuple[str, ...] = ("virtio_blk",)
    """Modules that make the disk appear."""


@dataclass(frozen=True)
class Initramfs:
    """What a guest begins with."""

    isa: Isa
    modules: ModuleTree | None = None
    """Those of the kernel that will be booted; None for a kernel that has all it needs built in."""
    load: tuple[str, ...] = ()
    """Modules to load besides those that the root needs; one that the kernel has not is a mistake."""
    load_if_present: tuple[str, ...] = ()
    root: SharedRoot | DiskRoot | None = None
    """None: the initial file system itself."""
    files: Path | None = None
    """A directory whose content is put into the initial file system."""
    host_name: str = ""
    channel: str = PORT_NAME
    """Where the agent listens (see agent.protocol.Channel); empty for nowhere."""
    run: Run | None = None
    """A command that runs once the root is there."""
    steps: tuple[Request, ...] = field(default=())
    """What else the agent does, before it makes its root."""


def write_initramfs(initramfs: Initramfs, sink: Sink) -> None:
    """Write the archive, uncompressed. Raises ImageError and UsageError."""
    modules = _modules(initramfs)
    with CpioWriter(sink) as archive:
        for directory in ("dev", "proc", "sys", "run", "tmp", "root"):
            archive.directory(directory, Attributes(0o1777 if directory == "tmp" else 0o755))
        archive.character_device("dev/console", 5, 1)
        archive.character_device("dev/null", 1, 3, Attributes(0o666))
        if initramfs.files is not None:
            archive.tree(initramfs.files)
        archive.file("init", agent_program(initramfs.isa), Attributes(0o755))
        for number, module in enumerate(modules):
            archive.file(_module_path(number, module), module.content())
        archive.file(PLAN, plan(_plan(initramfs, modules)))


def make_initramfs(initramfs: Initramfs, directory: Path) -> Path:
    """Write the archive into a new file of `directory`; its path. Raises ImageError and UsageError."""
    try:
        descriptor, path = tempfile.mkstemp(dir=directory, prefix="initramfs-", suffix=".cpio")
        with open(descriptor, "wb") as file:
            write_initramfs(initramfs, file)
    except OSError as error:
        raise ImageError(
            f"an initial file system cannot be written to {directory}: {error.strerror}"
        ) from None
    return Path(path)


def plan_of(initramfs: Initramfs) -> list[Request]:
    """The requests that the agent begins with."""
    return _plan(initramfs, _modules(initramfs))


def _modules(initramfs: Initramfs) -> tuple[Module, ...]:
    wanted = [*_root_modules(initramfs.root), *initramfs.load]
    if initramfs.modules is None:
        return ()
    return initramfs.modules.needed(wanted, optional=initramfs.load_if_present)


def _root_modules(root: SharedRoot | DiskRoot | None) -> list[str]:
    match root:
        case SharedRoot(share=Share.PLAN9):
            found = ["9pnet_virtio", "9p"]
        case SharedRoot():
            found = ["virtiofs"]
        case DiskRoot():
            found = [*root.drivers, root.type]
        case None:
            return []
    return [*found, "overlay"] if root.read_only else found


def _module_path(number: int, module: Module) -> str:
    return f"{_MODULES}/{number:02}-{module.name}.ko"


def _plan(initramfs: Initramfs, modules: tuple[Module, ...]) -> list[Request]:
    requests: list[Request] = [*_SYSTEM_STEPS]
    requests += [LoadModule(_module_path(number, module)) for number, module in enumerate(modules)]
    if initramfs.host_name:
        requests.append(HostName(initramfs.host_name))
    requests += initramfs.steps
    requests += _root_steps(initramfs.root)
    if initramfs.channel:
        requests.append(Channel(initramfs.channel))
    if initramfs.run is not None:
        requests.append(initramfs.run)
    return requests


_SYSTEM_STEPS: tuple[Request, ...] = (
    Mount("proc", "/proc", "proc", _SYSTEM),
    Mount("sysfs", "/sys", "sysfs", _SYSTEM),
    Mount("devtmpfs", "/dev", "devtmpfs", MountFlag.NO_SETUID, "mode=755"),
    MakeDirectory("/dev/pts"),
    Mount(
        "devpts",
        "/dev/pts",
        "devpts",
        MountFlag.NO_SETUID | MountFlag.NO_EXECUTE,
        "gid=5,mode=620,ptmxmode=666",
    ),
    MakeDirectory("/dev/shm", 0o1777),
    Mount("tmpfs", "/dev/shm", "tmpfs", MountFlag.NO_SETUID | MountFlag.NO_DEVICES, "mode=1777"),
    Mount("tmpfs", "/run", "tmpfs", MountFlag.NO_SETUID | MountFlag.NO_DEVICES, "mode=755"),
    Link("/proc/self/fd", "/dev/fd"),
    Link("/proc/self/fd/0", "/dev/stdin"),
    Link("/proc/self/fd/1", "/dev/stdout"),
    Link("/proc/self/fd/2", "/dev/stderr"),
)


def _root_steps(root: SharedRoot | DiskRoot | None) -> list[Request]:
    if root is None:
        return []
    place = _LOWER if root.read_only else _ROOT
    requests: list[Request] = [MakeDirectory(place), _root_mount(root, place)]
    if root.read_only:
        layers = f"lowerdir={_LOWER},upperdir={_CHANGES}/upper,workdir={_CHANGES}/work"
        requests += [
            MakeDirectory(_CHANGES),
            Mount("tmpfs", _CHANGES, "tmpfs"),
            MakeDirectory(f"{_CHANGES}/upper"),
            MakeDirectory(f"{_CHANGES}/work"),
            MakeDirectory(_ROOT),
            Mount("overlay", _ROOT, "overlay", options=layers),
        ]
    return [*requests, SwitchRoot(_ROOT)]


def _root_mount(root: SharedRoot | DiskRoot, place: str) -> Mount:
    flags = MountFlag.READ_ONLY if root.read_only else MountFlag(0)
    if isinstance(root, DiskRoot):
        return Mount(root.device, place, root.type, flags, wait=_DEVICE_PATIENCE)
    options = "trans=virtio,version=9p2000.L,msize=524288,cache=loose" if root.share is Share.PLAN9 else ""
    return Mount(root.tag, place, root.share, flags, options, wait=_DEVICE_PATIENCE)
