"""Disk images as disk controllers want them."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from anyvirt.images.block import Buffers
from anyvirt.images.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anyvirt.images.block import Disk

_SECTOR = 512
_ZEROS = memoryview(bytes(1 << 20))


def open_image(
    path: Path, *, format: str, read_only: bool, size: int | None = None, block_size: int = 4096
) -> ImageDisk:
    """The disk in an image, "raw" or "qcow2", which nobody else may write to meanwhile. Raises ImageError.

    `size` and `block_size` as `ImageDisk` has them.
    """
    from anyvirt.images.qcow2 import open_disk

    image = open_disk(path, format=format, read_only=read_only)
    return ImageDisk(image, path, format=format, read_only=read_only, size=size, block_size=block_size)


class ImageDisk:
    """Satisfies `anyvirt.devices.disk.Disk`: what is wrong with an image is an error of the medium."""

    def __init__(
        self,
        image: Disk,
        path: Path,
        *,
        format: str,
        read_only: bool,
        size: int | None = None,
        block_size: int = 4096,
    ) -> None:
        """What a disk of `size` has behind the image's end reads as zeros.

        Without it what the image has beyond its last whole sector is not there.
        """
        self.path, self.format = path, format
        self.read_only = read_only
        self.block_size = block_size
        self._image = image
        self._size = size

    @property
    def size(self) -> int:
        """See Disk."""
        return self._image.size // _SECTOR * _SECTOR if self._size is None else self._size

    def preadv(self, views: Sequence[memoryview], offset: int, /) -> None:
        """See Disk."""
        try:
            if self._size is None:
                self._image.preadv(views, offset)
            else:
                self._read_to_its_end(Buffers(views), offset)
        except ImageError as error:
            raise _medium(error) from None

    def _read_to_its_end(self, buffers: Buffers, offset: int) -> None:
        there = min(max(self._image.size - offset, 0), buffers.size)
        self._image.preadv(buffers.part(0, there), offset)
        for view in buffers.part(there, buffers.size - there):
            view[:] = bytes(len(view))

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

    def share(self) -> None:
        """Let others read the image from now on; nobody writes to it any more."""
        self._image.share()

    def close(self) -> None:
        """Flush, and let go of the image."""
        self._image.close()


def _medium(error: ImageError) -> OSError:
    return OSError(errno.EIO, str(error))
