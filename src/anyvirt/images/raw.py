"""Disks in files as they are, byte for byte, and on block devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.images.block import Buffers
from anyvirt.images.errors import ImageError
from anyvirt.images.host_file import HostFile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class RawDisk:
    """A raw disk. Satisfies `block.Disk`."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Raises ImageError when it cannot be opened or is in use."""
        self._file = HostFile(path, read_only=read_only)
        self._read_only = read_only
        self._size = self._file.size()

    @property
    def size(self) -> int:
        """See Disk."""
        return self._size

    def preadv(self, views: Sequence[memoryview], offset: int, /) -> None:
        """See Disk."""
        parts = Buffers(views)
        self._check(offset, parts.size)
        self._file.read_into(parts.part(0, parts.size), offset)

    def pwritev(self, views: Sequence[memoryview], offset: int, /) -> None:
        """See Disk."""
        parts = Buffers(views)
        self._check(offset, parts.size, writes=True)
        self._file.write_from(parts.part(0, parts.size), offset)

    def flush(self) -> None:
        """See Disk."""
        self._file.sync()

    def discard(self, offset: int, length: int, /) -> None:
        """See Disk."""
        self._check(offset, length, writes=True)
        self._file.punch(offset, length)

    def share(self) -> None:
        """See Disk."""
        self._file.sync()
        self._file.share()

    def close(self) -> None:
        """See Disk."""
        if not self._read_only:
            self._file.sync()
        self._file.close()

    def _check(self, offset: int, length: int, *, writes: bool = False) -> None:
        if writes and self._read_only:
            raise ImageError(f"disk {self._file.path} is open for reading only")
        if offset < 0 or length < 0 or offset + length > self._size:
            raise ImageError(
                f"disk {self._file.path} has {self._size} bytes: {length} at {offset} lie beyond"
            )
