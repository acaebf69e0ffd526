"""The machine that `anyvirt debug` makes: of a kernel or firmware, with a root file system and disks."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anyvirt.errors import UsageError
from anyvirt.isa.names import Isa

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyvirt.boards.virt import VirtBoard
    from anyvirt.devices.virtio.device import VirtioDevice
    from anyvirt.guest import Disk
    from anyvirt.images.kernels import Kernel
    from anyvirt.machines.machine import Machine

_ROOT_TAG = "root"
_SHELL = ("/bin/sh", "-i")
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "TERM": "vt100"}
_COMMAND_LINE = "console=ttyS0 panic=-1"
_ON_DISPLAY = "console=tty0"
_DISPLAY_MODULES = ("virtio_gpu", "virtio_input")


@dataclass(frozen=True, kw_only=True)
class Debugged:
    """What the user has named."""

    kernel: Path | None = None
    initrd: Path | None = None
    append: str | None = None
    """The kernel's command line; None: the console is the serial line."""
    firmware: Path | None = None
    rootfs: Path | None = None
    disks: Sequence[Disk] = ()
    memory: str = "512M"
    cpus: int = 1
    display: str | None = None
    """Pixels in each direction; the kernel's messages are there, too."""
    tier: str | None = None
    seed: int | None = None

    def make(self) -> Machine:
        """The machine, ready to run. Raises UsageError, ImageError and PackageError."""
        from anyvirt.machines.machine import Machine

        if self.rootfs is not None and self.initrd is not None:
            raise UsageError("a guest's root is a root filesystem or an initial file system, not both")
        kernel, initrd = self.kernel, self.initrd
        with tempfile.TemporaryDirectory(prefix="anyvirt-") as directory:
            if self.rootfs is not None:
                found = _kernel(self)
                kernel, initrd = found.path, _initial_file_system(self, found, Path(directory))
            return Machine(
                kernel=kernel,
                initrd=initrd,
                append=self._words if self.append is None else self.append,
                memory=self.memory,
                cpus=self.cpus,
                display=self.display,
                firmware=self.firmware,
                tier=self.tier,
                seed=self.seed,
                attach=self._attach if self.rootfs is not None or self.disks else None,
            )

    @property
    def _words(self) -> str:
        return _COMMAND_LINE if self.display is None else f"{_ON_DISPLAY} {_COMMAND_LINE}"

    def _attach(self, board: VirtBoard) -> None:
        from anyvirt.devices.virtio.blk import VirtioBlk
        from anyvirt.devices.virtio.p9 import VirtioP9
        from anyvirt.devices.virtio.rng import VirtioRng
        from anyvirt.machines.disks.image import open_image
        from anyvirt.machines.pci import attach_virtio_pci

        devices: list[VirtioDevice] = [VirtioRng(board.memory)]
        if self.rootfs is not None:
            devices.append(VirtioP9(board.memory, str(self.rootfs), tag=_ROOT_TAG, read_only=True))
        for disk in self.disks:
            image = open_image(disk.path, format=disk.format.value, read_only=disk.read_only)
            devices.append(VirtioBlk(board.memory, image))
        attach_virtio_pci(board, devices)


def _kernel(debugged: Debugged) -> Kernel:
    from anyvirt.images.kernels import find_kernel

    return find_kernel(Isa.RISCV64, path=debugged.kernel, rootfs=debugged.rootfs)


def _initial_file_system(debugged: Debugged, kernel: Kernel, directory: Path) -> Path:
    """What mounts the root and begins a shell on the console; changes to the root are thrown away."""
    from anyvirt.agent.protocol import Run, RunFlag
    from anyvirt.images.initramfs import Initramfs, SharedRoot, make_initramfs

    modules = ["virtio_blk"] if debugged.disks else []
    modules += _DISPLAY_MODULES if debugged.display is not None else ()
    shell = Run(_SHELL, _ENVIRONMENT, flags=RunFlag.CONSOLE | RunFlag.MAIN)
    return make_initramfs(
        Initramfs(
            Isa.RISCV64,
            kernel.modules,
            load=tuple(modules),
            root=SharedRoot(_ROOT_TAG),
            channel="",
            run=shell,
        ),
        directory,
    )
