"""Whole reads and writes of a file at an offset, with many buffers, locks, and holes: what disks stand on."""

from __future__ import annotations

import ctypes
import fcntl
import functools
import os
from typing import TYPE_CHECKING

from anyvirt.images.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_MOST_BUFFERS = 1024
"""IOV_MAX of Linux."""
_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # of fallocate(2)


class HostFile:
    """A file that is a disk or holds one, locked against other writers (flock(2)) as long as it is open."""

    def __init__(self, path: Path, *, read_only: bool) -> None:
        """Raises ImageError when it cannot be opened or another process writes it."""
        self.path = path
        try:
            self._descriptor = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
        except OSError as error:
            raise ImageError(f"disk {path} cannot be opened: {error.strerror}") from None
        try:
            fcntl.flock(self._descriptor, (fcntl.LOCK_SH if read_only else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            raise ImageError(f"disk {path} is in use by another process") from None

    def size(self) -> int:
        """In bytes, of a file or a block device."""
        return os.lseek(self._descriptor, 0, os.SEEK_END)

    def read(self, size: int, offset: int) -> bytes:
        """Exactly `size` bytes; what lies behind the end is zeros."""
        buffer = bytearray(size)
        self.read_into([memoryview(buffer)], offset)
        return bytes(buffer)

    def read_into(self, views: Sequence[memoryview], offset: int) -> None:
        """Fill all views; what lies behind the end is zeros."""
        read_into(self._descriptor, views, offset)

    def write(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        """Write all of `data`."""
        self.write_from([memoryview(data)], offset)

    def write_from(self, views: Sequence[memoryview], offset: int) -> None:
        """Write all views, one behind the other."""
        write_from(self._descriptor, views, offset)

    def sync(self) -> None:
        """Return when all that was written is on stable storage."""
        os.fdatasync(self._descriptor)

    def punch(self, offset: int, length: int) -> None:
        """Give a range back to the host's file system, which may be unable to take it."""
        _fallocate()(self._descriptor, _KEEP_SIZE | _PUNCH_HOLE, ctypes.c_long(offset), ctypes.c_long(length))

    def share(self) -> None:
        """Let others open it for reading; nobody writes to it any more."""
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def close(self) -> None:
        """Close it, and unlock it by that."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def read_into(descriptor: int, views: Sequence[memoryview], offset: int) -> None:
    """Fill all views from an open file; what lies behind its end is zeros."""
    rest = [view for view in views if view]
    while rest:
        count = os.preadv(descriptor, rest[:_MOST_BUFFERS], offset)
        if count == 0:
            for view in rest:
                view[:] = bytes(len(view))
            return
        offset += count
        rest = _without(rest, count)


def write_from(descriptor: int, views: Sequence[memoryview], offset: int) -> None:
    """Write all views to an open file, one behind the other."""
    rest = [view for view in views if view]
    while rest:
        count = os.pwritev(descriptor, rest[:_MOST_BUFFERS], offset)
        offset += count
        rest = _without(rest, count)


def synchronize_directory(directory: Path) -> None:
    """Return when the names in a directory are on stable storage."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _without(views: list[memoryview], count: int) -> list[memoryview]:
    """What is left of `views` behind their first `count` bytes."""
    for index, view in enumerate(views):
        if count < len(view):
            return [view[count:], *views[index + 1 :]]
        count -= len(view)
    return []


@functools.cache
def _fallocate() -> ctypes._NamedFuncPointer:
    return ctypes.CDLL(None, use_errno=True).fallocate
