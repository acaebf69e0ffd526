"""What the benchmarks of machines boot: Debian's kernel, and busybox with a script."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from anyvirt.agent.protocol import Run, RunFlag
from anyvirt.images.debian import Archive
from anyvirt.images.initramfs import Initramfs, make_initramfs
from anyvirt.images.kernels import debian_kernel
from anyvirt.images.store import Store
from anyvirt.isa.names import Isa

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anyvirt.agent.protocol import Request

SETTLE = 3.0
"""Seconds until a guest that has booted is at rest."""
TOOLS = ("sh", "cat", "dd", "sleep", "wget", "nc", "ip", "udhcpc", "head", "seq")


def debian_guest(directory: Path) -> tuple[Path, Path]:
    """The kernel's image, and a root file system that is busybox."""
    store = Store()
    kernel = debian_kernel(Isa.RISCV64, store)
    archive = Archive(store.directory / "debian", suite="trixie", architecture="riscv64")
    busybox = (
        store.make_directory(
            "benchmarks/busybox-riscv64", lambda place: archive.unpack("busybox-static", place / "root")
        )
        / "root/usr/bin/busybox"
    )
    image = directory / "Image"
    image.write_bytes(kernel.image.content)
    root = directory / "root"
    for place in ("bin", "dev", "proc", "sys", "run", "tmp", "etc"):
        (root / place).mkdir(parents=True)
    shutil.copy(busybox, root / "bin/busybox")
    for tool in TOOLS:
        (root / "bin" / tool).symlink_to("busybox")
    return image, root


def debian_root(directory: Path, packages: Iterable[str]) -> Path:
    """A new directory with Debian's packages and what they depend on, unpacked but not configured."""
    archive = Archive(Store().directory / "debian", suite="trixie", architecture="riscv64")
    for place in ("usr/bin", "usr/sbin", "usr/lib", "dev", "proc", "sys", "run", "tmp", "etc"):
        (directory / place).mkdir(parents=True)
    for name in ("bin", "sbin", "lib"):
        (directory / name).symlink_to(f"usr/{name}")
    for package in archive.closure(*packages):
        tree = archive.fetch(package)
        for part in filter(Path.is_dir, (tree / "usr", tree / "etc")):
            shutil.copytree(part, directory / part.name, symlinks=True, dirs_exist_ok=True)
    return directory


def plain_initrd(
    directory: Path,
    root: Path,
    script: str,
    *,
    modules: tuple[str, ...] = (),
    steps: tuple[Request, ...] = (),
) -> Path:
    """An initial file system that loads modules and runs a script on the console, then turns off."""
    tree = debian_kernel(Isa.RISCV64, Store()).modules if modules else None
    command = Run(("/bin/sh", "-c", script), {"PATH": "/bin"}, flags=RunFlag.CONSOLE | RunFlag.MAIN)
    initramfs = Initramfs(Isa.RISCV64, tree, load=modules, files=root, channel="", run=command, steps=steps)
    return make_initramfs(initramfs, directory)
