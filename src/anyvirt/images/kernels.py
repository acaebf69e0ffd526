"""Finding a kernel for a guest: one that is named, one of its root file system, the host's, or Debian's.

And where that kernel's modules are: the directory lib/modules/VERSION that belongs to the same installation.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from anyvirt.errors import UsageError
from anyvirt.images.errors import ImageError
from anyvirt.images.kernel_formats import KernelImage, recognize_kernel
from anyvirt.images.modules import ModuleTree
from anyvirt.isa.names import Isa

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from anyvirt.images.debian import Archive
    from anyvirt.images.store import Store

_PLACES = ("boot/vmlinu[xz]*", "boot/Image*", "lib/modules/*/vmlinu[xz]", "usr/lib/modules/*/vmlinu[xz]")
_LIMIT = 1 << 30
"""No kernel has as many bytes."""


@dataclass(frozen=True)
class DebianKernel:
    """Where Debian has a kernel for an ISA."""

    suite: str
    architecture: str
    package: str
    """A metapackage, whose first dependency is the package of the present version."""


DEBIAN_KERNELS: Mapping[Isa, DebianKernel] = {
    Isa.X86_64: DebianKernel("trixie", "amd64", "linux-image-cloud-amd64"),
    Isa.AARCH64: DebianKernel("trixie", "arm64", "linux-image-cloud-arm64"),
    Isa.RISCV64: DebianKernel("trixie", "riscv64", "linux-image-riscv64"),
    Isa.I386: DebianKernel("bookworm", "i386", "linux-image-686"),
    Isa.MIPSEL: DebianKernel("bookworm", "mipsel", "linux-image-4kc-malta"),
    Isa.MIPS64EL: DebianKernel("bookworm", "mips64el", "linux-image-5kc-malta"),
    Isa.PPC64LE: DebianKernel("trixie", "ppc64el", "linux-image-powerpc64le"),
    Isa.S390X: DebianKernel("trixie", "s390x", "linux-image-s390x"),
}


@dataclass(frozen=True)
class Kernel:
    """A kernel's file, read when it is first asked for what is in it."""

    path: Path
    root: Path | None = None
    """The root of the installation that it belongs to, where that is known."""

    @cached_property
    def image(self) -> KernelImage:
        """What is in the file. Raises ImageError."""
        try:
            size = self.path.stat().st_size
            if size > _LIMIT:
                raise ImageError(f"{self.path} is no kernel: it has {size} bytes")
            data = self.path.read_bytes()
        except OSError as error:
            raise ImageError(f"kernel {self.path} cannot be read: {error.strerror}") from None
        return recognize_kernel(data, what=str(self.path))

    @property
    def modules(self) -> ModuleTree | None:
        """Its modules, if they are beside it; a kernel with everything built in needs none."""
        version = self.image.version or self.path.name.partition("-")[2]
        if not version:
            return None
        roots = [self.root] if self.root is not None else []
        roots += [self.path.parent, self.path.parent.parent]
        for root in roots:
            for library in ("usr/lib/modules", "lib/modules", "modules"):
                if (root / library / version / "kernel").is_dir():
                    return ModuleTree(root / library / version)
        return None


def find_kernel(
    isa: Isa, *, path: Path | None = None, rootfs: Path | None = None, store: Store | None = None
) -> Kernel:
    """The kernel at `path`; or else the newest of `rootfs`, of the host, or Debian's, that is for `isa`.

    Debian's is fetched into `store` (default: the user's) once. Raises UsageError if the kernel at `path` is
    for another ISA, or none can be had at all; ImageError and PackageError.
    """
    if path is not None:
        kernel = Kernel(path, rootfs)
        if kernel.image.isa is not isa:
            raise UsageError(f"{path} is a kernel for {kernel.image.isa} and the guest's CPU is {isa}")
        return kernel
    roots = [root for root in (rootfs, Path("/") if isa is Isa.host() else None) if root is not None]
    for root in roots:
        for kernel in installed_kernels(root):
            if _is_for(kernel, isa):
                return kernel
    return debian_kernel(isa, store)


def installed_kernels(root: Path) -> Iterator[Kernel]:
    """The kernels in a root file system's /boot and beside its modules, the newest first."""
    found = {}
    for pattern in _PLACES:
        for path in root.glob(pattern):
            if path.is_file() and os.access(path, os.R_OK):
                found[path.resolve()] = path
    yield from (Kernel(path, root) for path in sorted(found.values(), key=_version_order, reverse=True))


def debian_kernel(isa: Isa, store: Store | None = None) -> Kernel:
    """Debian's kernel for `isa`, with its modules; fetched into the store unless it is there.

    Raises UsageError for an ISA that Debian has none for, PackageError if it cannot be fetched.
    """
    from anyvirt.images.store import Progress, Store

    store = store or Store()
    stored = stored_kernels(isa, store)
    if stored:
        return stored[0]
    archive = debian_archive(isa, store)
    package = archive.dependencies(DEBIAN_KERNELS[isa].package)[0]
    key = f"kernels/{package}-{DEBIAN_KERNELS[isa].architecture}"

    def fetch(place: Path) -> None:
        with Progress(f"fetching Debian's kernel {package}"):
            archive.unpack(package, place / "root")
        kernel = next(installed_kernels(place / "root"), None)
        modules = kernel.modules if kernel is not None else None
        if modules is not None:
            with Progress("reading what its modules are called"):
                modules.index()

    root = store.make_directory(key, fetch) / "root"
    kernel = next(installed_kernels(root), None)
    if kernel is None:
        raise ImageError(f"there is no kernel in Debian's package {package}")
    return kernel


def stored_kernels(isa: Isa, store: Store) -> list[Kernel]:
    """Debian's kernels for `isa` that were fetched into the store before, the newest first."""
    source = DEBIAN_KERNELS.get(isa)
    if source is None:
        return []
    places = (store.directory / "kernels").glob(f"linux-image-*-{source.architecture}")
    found = [kernel for place in places for kernel in installed_kernels(place / "root")]
    return sorted(found, key=lambda kernel: _version_order(kernel.path), reverse=True)


def debian_archive(isa: Isa, store: Store) -> Archive:
    """Where Debian's kernel for `isa` is fetched from. Raises UsageError, and PackageError if that cannot
    be done on this machine; nothing is fetched here.
    """
    from anyvirt.images.debian import Archive

    source = DEBIAN_KERNELS.get(isa)
    if source is None:
        raise UsageError(f"no kernel was given, and Debian has none for {isa}: name one with its path")
    return Archive(store.directory / "debian", suite=source.suite, architecture=source.architecture)


def _is_for(kernel: Kernel, isa: Isa) -> bool:
    try:
        return kernel.image.isa is isa
    except ImageError:
        return False


def _version_order(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Sorts numbers in names as numbers: 6.10 is newer than 6.9. A rescue kernel comes last."""
    name = str(path)
    parts = [(1, int(word), "") if word.isdigit() else (0, 0, word) for word in re.split(r"(\d+)", name)]
    return [(0 if "rescue" in name else 1, 0, ""), *parts], name
