"""Disk images as disk controllers want them."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

from anyvirt.images.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyvirt.images.block import Disk
    from anyvirt.monitor.orders import DiskOrder

_SECTOR = 512
_ZEROS = memoryview(bytes(1 << 20))


def open_disk(order: DiskOrder) -> ImageDisk:
    """The image of an order, which nobody else may use meanwhile. Raises ImageError."""
    from anyvirt.images.qcow2 import Qcow2Disk
    from anyvirt.images.raw import RawDisk

    make = Qcow2Disk if order.format == "qcow2" else RawDisk
    return ImageDisk(make(Path(order.path), read_only=order.read_only), read_only=order.read_only)


class ImageDisk:
    """Satisfies `anyvirt.devices.disk.Disk`: what is wrong with an image is an error of the medium."""

    block_size = 4096

    def __init__(self, image: Disk, *, read_only: bool) -> None:
        self.read_only = read_only
        self._image = image

    @property
    def size(self) -> int:
        """See Disk; what an image has beyond its last whole sector is not there."""
        return self._image.size // _SECTOR * _SECTOR

    def preadv(self, views: Sequence[memoryview], offset: int, /) -> None:
        """See Disk."""
        try:
            self._image.preadv(views, offset)
        except ImageError as error:
            raise _medium(error) from None

    def pwritev(self, views: Sequence[memoryview], offset: int, /) -> None:
        """See Disk."""
        try:
            self._image.pwritev(views, offset)
        except ImageError as error:
            raise _medium(error) from None

    def flush(self) -> None:
        """See Disk."""
        try:
            self._image.flush()
        except ImageError as error:
            raise _medium(error) from None

    def discard(self, offset: int, length: int, /) -> None:
        """See Disk."""
        try:
            self._image.discard(offset, length)
        except ImageError as error:
            raise _medium(error) from None

    def write_zeroes(self, offset: int, length: int, /, *, may_unmap: bool) -> None:
        """See Disk. Images do not say what discarded ranges read as, so zeros are stored."""
        for position in range(offset, offset + length, len(_ZEROS)):
            self.pwritev([_ZEROS[: offset + length - position]], position)

    def close(self) -> None:
        """Flush, and let go of the image."""
        self._image.close()


def _medium(error: ImageError) -> OSError:
    return OSError(errno.EIO, str(error))
