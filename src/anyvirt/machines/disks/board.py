"""The disks on a machine's board: all that stand in images, by the names of their controllers."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from anyvirt.devices.bus import StateError
from anyvirt.devices.disk import RawDisk
from anyvirt.devices.virtio.blk import VirtioBlk
from anyvirt.machines.disks.content import DiskContent, MachineDisk
from anyvirt.machines.disks.image import ImageDisk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from anyvirt.boards.virt import VirtBoard


class ExpectedDisk:
    """What is given to a controller whose disk comes from a snapshot, or from the machine that is copied.

    Satisfies `anyvirt.devices.disk.Disk`. Until the disk is there all that is asked of it fails.
    """

    size = 0
    block_size = 512

    def __init__(self, *, read_only: bool = False) -> None:
        self.read_only = read_only

    def preadv(self, views: Sequence[memoryview], offset: int, /) -> None:
        """See Disk.preadv."""
        raise _absent()

    def pwritev(self, views: Sequence[memoryview], offset: int, /) -> None:
        """See Disk.pwritev."""
        raise _absent()

    def flush(self) -> None:
        """See Disk.flush."""

    def discard(self, offset: int, length: int, /) -> None:
        """See Disk.discard."""
        raise _absent()

    def write_zeroes(self, offset: int, length: int, /, *, may_unmap: bool) -> None:
        """See Disk.write_zeroes."""
        raise _absent()

    def close(self) -> None:
        """There is nothing to let go of."""


def _absent() -> OSError:
    return OSError(errno.ENOMEDIUM, os.strerror(errno.ENOMEDIUM))


def machine_disks(board: VirtBoard) -> dict[str, MachineDisk]:
    """The disks in images; of other kinds, which are the user's, is nothing known here."""
    found = {}
    for name, controller in _controllers(board):
        if isinstance(controller.disk, RawDisk | ImageDisk):
            controller.disk = MachineDisk.around(controller.disk)
        if isinstance(controller.disk, MachineDisk):
            found[name] = controller.disk
    return found


def freeze_disks(board: VirtBoard) -> dict[str, DiskContent]:
    """What is on them now."""
    return {name: disk.freeze() for name, disk in machine_disks(board).items()}


def bring_back_disks(board: VirtBoard, contents: Mapping[str, DiskContent]) -> None:
    """Let them have the contents that `freeze_disks` of the same board returned. Raises OSError."""
    disks = machine_disks(board)
    for name, content in contents.items():
        disks[name].become(content)


def copies_of(
    disks: Mapping[str, MachineDisk], contents: Mapping[str, DiskContent]
) -> dict[str, MachineDisk]:
    """Disks for another machine, which stand where those did when the contents were frozen."""
    return {
        name: MachineDisk.copy_of(content, read_only=disks[name].read_only)
        for name, content in contents.items()
    }


def put_disks(board: VirtBoard, disks: Mapping[str, MachineDisk]) -> None:
    """Give controllers disks in place of those that they have. Raises StateError."""
    for name, controller in _controllers(board):
        if name in disks:
            if controller.disk.read_only is not disks[name].read_only:
                raise StateError(f"{name} is a disk that can be written in one machine only")
            controller.disk = disks[name]


def close_disks(board: VirtBoard) -> None:
    """Flush all disks in images, and let go of them."""
    for _, controller in _controllers(board):
        if isinstance(controller.disk, RawDisk | ImageDisk | MachineDisk):
            controller.disk.close()


def _controllers(board: VirtBoard) -> Iterator[tuple[str, VirtioBlk]]:
    for name, device in board.devices.items():
        controller = getattr(device, "device", None)
        if isinstance(controller, VirtioBlk):
            yield name, controller
