"""What is on a disk at a moment: the content of an image, with other blocks in the place of some of its own.

Several disks, of one machine and its copies, and the moments that histories keep can stand on one image. At
most one disk writes to the image itself. Before it changes a block there, all others get the block as it was.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

from anyvirt.images.block import Buffers
from anyvirt.machines.disks.blocks import BLOCK, ZERO_BLOCK, BlockStore, block_length

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TypeAlias

    from anyvirt.devices.disk import RawDisk
    from anyvirt.machines.disks.blocks import Block, Blocks, Place
    from anyvirt.machines.disks.freezing import FrozenImage
    from anyvirt.machines.disks.image import ImageDisk

    Image: TypeAlias = RawDisk | ImageDisk


class DiskBase:
    """An image that disks stand on."""

    def __init__(self, image: Image, *, frozen: FrozenImage | None = None) -> None:
        """`frozen` says which files hold the image, if nobody writes to it."""
        self.image: Image = image
        self.size = image.size
        self.block_size = image.block_size
        self.frozen = frozen
        """What holds the present content of the image, if it was not written to since that was found out."""
        self.lock = threading.RLock()
        """Held by whoever reads or writes anything of these disks: two machines have threads of their own."""
        self.store = BlockStore()
        self._contents: weakref.WeakSet[DiskContent] = weakref.WeakSet()
        self._users = 0

    def add(self, content: DiskContent) -> None:
        """A content stands on the image from now on, as long as it is there."""
        self._contents.add(content)

    def write(self, views: Sequence[memoryview], offset: int) -> None:
        """Write to the image; see Disk.pwritev."""
        self._preserve(offset, sum(view.nbytes for view in views))
        self.image.pwritev(views, offset)

    def discard(self, offset: int, length: int) -> None:
        """See Disk.discard."""
        self._preserve(offset, length)
        self.image.discard(offset, length)

    def write_zeroes(self, offset: int, length: int, *, may_unmap: bool) -> None:
        """See Disk.write_zeroes."""
        self._preserve(offset, length)
        self.image.write_zeroes(offset, length, may_unmap=may_unmap)

    def _preserve(self, offset: int, length: int) -> None:
        """A range of the image is about to change: contents that lack a block of it get that as it is."""
        self.frozen = None
        contents = list(self._contents)
        if not contents or not length:
            return
        for number in range(offset // BLOCK, (offset + length - 1) // BLOCK + 1):
            lacking = [content for content in contents if number not in content.blocks]
            if lacking:
                block = self._copy(number)
                self.store.keep([block] * (len(lacking) - 1))
                for content in lacking:
                    content.blocks[number] = block

    def _copy(self, number: int) -> Block:
        """A block of the image, once needed."""
        data = bytearray(block_length(number, self.size))
        self.image.preadv([memoryview(data)], number * BLOCK)
        if data == ZERO_BLOCK[: len(data)]:
            return None
        block = self.store.new()
        self.store.write_from([memoryview(data)], block.offset)
        return block

    def enter(self) -> None:
        """A disk stands on it."""
        with self.lock:
            self._users += 1

    def leave(self) -> None:
        """A disk does not any more; the last one closes the image."""
        with self.lock:
            self._users -= 1
            if not self._users:
                self.image.close()


class DiskContent:
    """All that is on a disk. Whoever calls its methods holds the lock of its base."""

    def __init__(self, base: DiskBase, blocks: Blocks) -> None:
        """`blocks` are needed by this content alone, or have been counted for it."""
        self.base = base
        self.blocks = blocks
        base.add(self)
        weakref.finalize(self, base.store.abandon, blocks).atexit = False

    def copy(self) -> DiskContent:
        """The same, of which others may change one."""
        self.base.store.keep(self.blocks.values())
        return DiskContent(self.base, dict(self.blocks))

    def become(self, other: DiskContent) -> None:
        """Be as another content on the same base is."""
        self.base.store.keep(other.blocks.values())
        self.base.store.release(self.blocks.values())
        self.blocks.clear()
        self.blocks.update(other.blocks)

    def read(self, buffers: Buffers, offset: int) -> None:
        """Fill all buffers."""
        for start, length, number in self._runs(offset, buffers.size):
            views = buffers.part(start, length)
            if number not in self.blocks:
                self.base.image.preadv(views, offset + start)
            elif (block := self.blocks[number]) is not None:
                block.file.read_into(views, block.offset + (offset + start) % BLOCK)
            else:
                for view in views:
                    view[:] = bytes(len(view))

    def write(self, buffers: Buffers, offset: int) -> None:
        """Store all buffers, in blocks of this content's own."""
        for start, length, number in _pieces(offset, buffers.size):
            inside = (offset + start) % BLOCK
            block = self._own(number, is_whole=length == self._length(number))
            self.base.store.write_from(buffers.part(start, length), block.offset + inside)

    def drop(self, offset: int, length: int) -> None:
        """Let a range be zeros; whole blocks of it take no room."""
        self.discard(offset, length)
        for start, step, number in _pieces(offset, length):
            if step < self._length(number):
                self.write(Buffers([memoryview(ZERO_BLOCK)[:step]]), offset + start)

    def discard(self, offset: int, length: int) -> None:
        """Let whole blocks be zeros: what overlays of snapshots do, so that a replay does the same."""
        for _, step, number in _pieces(offset, length):
            if step == self._length(number):
                self._put(number, None)

    def _own(self, number: int, *, is_whole: bool) -> Place:
        """A block that may be written to: with its content, unless the whole of it is written."""
        before = self.blocks.get(number)
        if before is not None and before.file.is_private(before.offset):
            return before
        block = self.base.store.new()
        if not is_whole:
            data = memoryview(bytearray(self._length(number)))
            self.read(Buffers([data]), number * BLOCK)
            self.base.store.write_from([data], block.offset)
        self._put(number, block)
        return block

    def _put(self, number: int, block: Block) -> None:
        before = self.blocks.get(number)
        self.blocks[number] = block
        self.base.store.release([before])

    def _length(self, number: int) -> int:
        return block_length(number, self.base.size)

    def _runs(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """Pieces of a range (start in it, length, number of the first block): what is the image's is one."""
        pending: tuple[int, int, int] | None = None
        for start, step, number in _pieces(offset, length):
            if number not in self.blocks and pending is not None:
                pending = (pending[0], pending[1] + step, pending[2])
                continue
            if pending is not None:
                yield pending
                pending = None
            if number in self.blocks:
                yield start, step, number
            else:
                pending = (start, step, number)
        if pending is not None:
            yield pending


def _pieces(offset: int, length: int) -> Iterator[tuple[int, int, int]]:
    """What of a range lies in each block: its start in the range, its length, the number of the block."""
    start = 0
    while start < length:
        number, inside = divmod(offset + start, BLOCK)
        step = min(length - start, BLOCK - inside)
        yield start, step, number
        start += step


class MachineDisk:
    """The disk of a machine, whose content can be kept and brought back. Satisfies `devices.disk.Disk`."""

    def __init__(self, base: DiskBase, content: DiskContent | None, *, read_only: bool = False) -> None:
        """What is written goes to `content`; without one to the image, unless the disk is read-only."""
        self.base = base
        self.read_only = read_only
        self.size, self.block_size = base.size, base.block_size
        self._content = content
        base.enter()
        self._leave = weakref.finalize(self, base.leave)
        self._leave.atexit = False

    @classmethod
    def around(cls, disk: Image) -> MachineDisk:
        """A disk that was used as it is, and goes on being written to."""
        return cls(DiskBase(disk), None, read_only=disk.read_only)

    @classmethod
    def copy_of(cls, content: DiskContent, *, read_only: bool) -> MachineDisk:
        """A disk that stands where another one did; neither sees what the other writes from then on."""
        with content.base.lock:
            return cls(content.base, None if read_only else content.copy(), read_only=read_only)

    def preadv(self, views: Sequence[memoryview], offset: int, /) -> None:
        """See Disk.preadv."""
        with self.base.lock:
            if self._content is None:
                self.base.image.preadv(views, offset)
            else:
                self._content.read(Buffers(views), offset)

    def pwritev(self, views: Sequence[memoryview], offset: int, /) -> None:
        """See Disk.pwritev."""
        with self.base.lock:
            if self._content is None:
                self.base.write(views, offset)
            else:
                self._content.write(Buffers(views), offset)

    def flush(self) -> None:
        """See Disk.flush; what is not written to an image lasts no longer than its disk."""
        with self.base.lock:
            if self._content is None and not self.read_only:
                self.base.image.flush()

    def discard(self, offset: int, length: int, /) -> None:
        """See Disk.discard."""
        with self.base.lock:
            if self._content is None:
                self.base.discard(offset, length)
            else:
                self._content.discard(offset, length)

    def write_zeroes(self, offset: int, length: int, /, *, may_unmap: bool) -> None:
        """See Disk.write_zeroes."""
        with self.base.lock:
            if self._content is None:
                self.base.write_zeroes(offset, length, may_unmap=may_unmap)
            else:
                self._content.drop(offset, length)

    def freeze(self) -> DiskContent:
        """The content of now, which never changes."""
        with self.base.lock:
            return DiskContent(self.base, {}) if self._content is None else self._content.copy()

    def become(self, content: DiskContent) -> None:
        """Have the content that `freeze` of this disk returned."""
        with self.base.lock:
            if self._content is not None:
                self._content.become(content)
            elif not self.read_only:
                self._write_back(content)

    def _write_back(self, content: DiskContent) -> None:
        """What the image has had since then in other blocks, it gets again."""
        for number in list(content.blocks):
            data = memoryview(bytearray(block_length(number, self.size)))
            content.read(Buffers([data]), number * BLOCK)
            self.base.write([data], number * BLOCK)

    def close(self) -> None:
        """Let go of the disk. What was not flushed may be lost when the host fails."""
        self._leave()
