"""The root file system of a guest for which none is named: Debian's static busybox, and nothing else."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from anyvirt.images.kernels import debian_archive

if TYPE_CHECKING:
    from pathlib import Path

    from anyvirt.images.store import Store
    from anyvirt.isa.names import Isa

BUSYBOX = "/bin/busybox"
INSTALL_TOOLS = (BUSYBOX, "--install", "-s")
"""The command by which a guest gives each of busybox's tools a name of its own, beyond `sh`."""
_PACKAGE = "busybox-static"
_DIRECTORIES = (
    "bin",
    "dev",
    "etc",
    "mnt",
    "proc",
    "root",
    "run",
    "sbin",
    "sys",
    "tmp",
    "usr/bin",
    "usr/sbin",
)
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
}


def busybox_root(isa: Isa, store: Store | None = None) -> Path:
    """The directory, made in the store (default: the user's) once.

    Raises UsageError for an ISA that Debian has no kernel for, PackageError if it cannot be fetched.
    """
    from anyvirt.images.store import Progress, Store

    store = store or Store()
    archive = debian_archive(isa, store)

    def make(place: Path) -> None:
        with Progress(f"fetching Debian's busybox for {isa}"):
            package = archive.fetch(_PACKAGE)
        for name in _DIRECTORIES:
            (place / name).mkdir(parents=True)
        (place / "tmp").chmod(0o1777)
        (place / "root").chmod(0o700)
        for name, content in _FILES.items():
            (place / name).write_text(content)
        shutil.copy2(package / "usr/bin/busybox", place / "bin/busybox")
        (place / "bin/sh").symlink_to("busybox")

    return store.make_directory(f"roots/busybox-{isa}", make)
