"""Blocks of disks in files of the host without names: written once, and kept while somebody needs them."""

from __future__ import annotations

import os
import tempfile
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from anyvirt.images.host_file import read_into, write_from

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

BLOCK = 1 << 16
"""Bytes of a block, as of a cluster of the images that snapshots hold."""
ZERO_BLOCK = bytes(BLOCK)
_LASTING_TEMPORARY = Path("/var/tmp")
"""Where there is more room than in memory."""


def block_length(number: int, size: int) -> int:
    """Bytes of a block of a disk of `size` bytes, which may end within its last one."""
    return min(BLOCK, size - number * BLOCK)


class BlockFile:
    """A file that nobody writes to any more; it is closed when no block of it is needed."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)

    def read_into(self, views: Sequence[memoryview], offset: int) -> None:
        """Fill all views; what lies behind the end is zeros."""
        read_into(self.descriptor, views, offset)

    def is_private(self, offset: int) -> bool:
        """Whether a block is needed once, and may be written to."""
        return False


class Place(NamedTuple):
    """Where the content of a block is."""

    file: BlockFile
    offset: int


Block: TypeAlias = Place | None
"""None is a block of zeros."""
Blocks: TypeAlias = dict[int, Block]
"""By their numbers on the disk."""


class BlockStore(BlockFile):
    """A file without a name that blocks are written to. Whoever uses it holds the lock of its disks."""

    def __init__(self) -> None:
        super().__init__(_nameless_file())
        self._needed: dict[int, int] = {}
        """How often a block is, by its offset."""
        self._free: list[int] = []
        self._end = 0
        self._abandoned: deque[Blocks] = deque()

    def new(self) -> Place:
        """Room for a block that is needed once."""
        self._collect()
        if self._free:
            offset = self._free.pop()
        else:
            offset = self._end
            self._end += BLOCK
        self._needed[offset] = 1
        return Place(self, offset)

    def is_private(self, offset: int) -> bool:
        """See BlockFile."""
        self._collect()
        return self._needed[offset] == 1

    def write_from(self, views: Sequence[memoryview], offset: int) -> None:
        """Write all views to a block."""
        write_from(self.descriptor, views, offset)

    def keep(self, blocks: Iterable[Block]) -> None:
        """Blocks are needed once more."""
        for block in blocks:
            if block is not None and block.file is self:
                self._needed[block.offset] += 1

    def release(self, blocks: Iterable[Block]) -> None:
        """Blocks are needed once less."""
        for block in blocks:
            if block is not None and block.file is self:
                self._release(block.offset)

    def abandon(self, blocks: Blocks) -> None:
        """The same, later: for whoever may be called while the store is in use, by the same thread too."""
        self._abandoned.append(blocks)

    def _collect(self) -> None:
        while self._abandoned:
            self.release(self._abandoned.popleft().values())

    def _release(self, offset: int) -> None:
        self._needed[offset] -= 1
        if not self._needed[offset]:
            del self._needed[offset]
            self._free.append(offset)


def _nameless_file() -> int:
    """Removed by the host as soon as nobody has it open; `$TMPDIR` says where, if it is set."""
    directory = None
    if "TMPDIR" not in os.environ and os.access(_LASTING_TEMPORARY, os.W_OK):
        directory = _LASTING_TEMPORARY
    with tempfile.TemporaryFile(prefix="anyvirt-", dir=directory, buffering=0) as file:
        return os.dup(file.fileno())
