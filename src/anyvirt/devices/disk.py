"""What disk controllers need of a disk, and disks that are raw files or block devices of the host."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from anyvirt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

SECTOR = 512
"""Bytes."""

_LIBC = ctypes.CDLL(None, use_errno=True)
_KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE = 0x01, 0x02, 0x10
"""Modes of fallocate(2)."""
_UNSUPPORTED = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV}
_ZEROS = bytes(1 << 20)


class Disk(Protocol):
    """A disk image of any format. Controllers check ranges before they ask; failures raise OSError."""

    @property
    def size(self) -> int:
        """Bytes; a multiple of 512."""

    @property
    def read_only(self) -> bool:
        """Whether stores are refused."""

    @property
    def block_size(self) -> int:
        """Bytes that the medium below reads and writes at once: a power of two, not less than 512."""

    def preadv(self, views: Sequence[memoryview], offset: int, /) -> None:
        """Fill all views."""

    def pwritev(self, views: Sequence[memoryview], offset: int, /) -> None:
        """Store all views; lasting only after `flush`."""

    def flush(self) -> None:
        """Let everything that was stored last."""

    def discard(self, offset: int, length: int, /) -> None:
        """Nobody needs these bytes any more; they may read as anything."""

    def write_zeroes(self, offset: int, length: int, /, *, may_unmap: bool) -> None:
        """Let these bytes be zeros, without a place on the medium if `may_unmap`."""


class RawDisk:
    """A file or block device that holds the bytes of a disk as they are.

    Reads go straight into the given memory and writes out of it. Use it as a context manager, or `close` it.
    """

    format = "raw"

    def __init__(self, path: Path | str, *, read_only: bool = False) -> None:
        """Raises UsageError if it cannot be opened or is no disk."""
        self.path = Path(path)
        self.read_only = read_only
        self._descriptor = -1
        flags = os.O_RDONLY if read_only else os.O_RDWR
        try:
            self._descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
            status = os.fstat(self._descriptor)
            self._end = os.lseek(self._descriptor, 0, os.SEEK_END)
        except OSError as error:
            self.close()
            raise UsageError(f"cannot open the disk {path}: {error.strerror}") from None
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
            self.close()
            raise UsageError(f"the disk {path} is neither a file nor a block device")
        self.block_size = 4096 if stat.S_ISREG(status.st_mode) else max(SECTOR, _block_size(status))
        self.size = -(-self._end // SECTOR) * SECTOR
        """Bytes; a file that ends within a sector is filled up with zeros."""

    def close(self) -> None:
        """Do without the file. What was not flushed may be lost when the host fails."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> RawDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def preadv(self, views: Sequence[memoryview], offset: int, /) -> None:
        """See Disk.preadv."""
        rest = list(views)
        while rest:
            count = os.preadv(self._descriptor, rest, offset)
            if not count:
                for view in rest:
                    view[:] = bytes(len(view))
                return
            offset += count
            rest = _behind(rest, count)

    def pwritev(self, views: Sequence[memoryview], offset: int, /) -> None:
        """See Disk.pwritev."""
        rest = list(views)
        while rest:
            count = os.pwritev(self._descriptor, rest, offset)
            offset += count
            rest = _behind(rest, count)

    def flush(self) -> None:
        """See Disk.flush."""
        if not self.read_only:
            os.fdatasync(self._descriptor)

    def discard(self, offset: int, length: int, /) -> None:
        """See Disk.discard: a hole, where the host's file system has them."""
        self._allocate(_PUNCH_HOLE | _KEEP_SIZE, offset, length)

    def write_zeroes(self, offset: int, length: int, /, *, may_unmap: bool) -> None:
        """See Disk.write_zeroes."""
        modes = (_PUNCH_HOLE | _KEEP_SIZE,) if may_unmap else ()
        if any(self._allocate(mode, offset, length) for mode in (*modes, _ZERO_RANGE | _KEEP_SIZE)):
            return
        for position in range(offset, offset + length, len(_ZEROS)):
            part = min(len(_ZEROS), offset + length - position)
            self.pwritev([memoryview(_ZEROS)[:part]], position)

    def _allocate(self, mode: int, offset: int, length: int) -> bool:
        """Whether the host could do it."""
        call = _LIBC.fallocate64 if hasattr(_LIBC, "fallocate64") else _LIBC.fallocate
        result = call(self._descriptor, mode, ctypes.c_int64(offset), ctypes.c_int64(length))
        if result == 0:
            return True
        number = ctypes.get_errno()
        if number in _UNSUPPORTED:
            return False
        raise OSError(number, os.strerror(number))


def _behind(views: list[memoryview], count: int) -> list[memoryview]:
    """What is left when the first `count` bytes are done."""
    for index, view in enumerate(views):
        if count < len(view):
            return [view[count:], *views[index + 1 :]]
        count -= len(view)
    return []


def _block_size(status: os.stat_result) -> int:
    """Of a block device, as sysfs tells it."""
    device = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    try:
        return int(Path(f"/sys/dev/block/{device}/queue/physical_block_size").read_text())
    except (OSError, ValueError):
        return SECTOR
