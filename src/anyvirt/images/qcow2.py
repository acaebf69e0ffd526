"""Disks in qcow2 images, read and written (QEMU, docs/interop/qcow2.txt), with chains of backing files.

What a guest writes to clusters that are its image's own goes there at once. All else goes to new clusters,
and the tables that say so are written by `flush`, in an order in which every state that a crash can leave on
disk is a consistent image: as of the last flush, but for what was overwritten in place, and perhaps with
clusters that nobody uses.
"""

from __future__ import annotations

import os
import struct
import zlib
from array import array
from collections import OrderedDict
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from anyvirt.errors import UsageError
from anyvirt.images.block import Buffers, Disk
from anyvirt.images.compression import decompress
from anyvirt.images.errors import ImageError
from anyvirt.images.host_file import HostFile
from anyvirt.images.qcow2_format import (
    COMPRESSED,
    COPIED,
    MAGIC,
    OFFSET_MASK,
    ZERO,
    Header,
    Incompatible,
    read_header,
    write_header,
)
from anyvirt.images.qcow2_refcounts import RefCounts, big_endian, to_big_endian
from anyvirt.images.raw import RawDisk

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_MOST_TABLES = 64
"""L2 tables that are kept; when as many are changed, they are written."""
_MOST_UNPACKED = 16
_DEEPEST = 32
"""Backing files behind one another."""
_FEATURES_AT = 72
_SECTOR = 512


class Mapping(Enum):
    """Where a cluster's content is."""

    HERE = "in the image"
    ZERO = "nowhere: zeros"
    BACKING = "in the backing file"
    COMPRESSED = "in the image, compressed"


@dataclass(frozen=True)
class Extent:
    """A range of the disk whose content lies in one piece."""

    mapping: Mapping
    start: int
    """Offset on the disk."""
    length: int
    place: int
    """Offset in the image's file, or the L2 entry of a compressed cluster."""


class Qcow2Disk:
    """The disk in one image. Satisfies `block.Disk`."""

    def __init__(self, path: Path, *, read_only: bool = False, _depth: int = 0) -> None:
        """Raises ImageError for an image that is damaged, in use, or of a kind that is not supported."""
        self._file = HostFile(path, read_only=read_only)
        self._read_only = read_only
        self._backing: Disk | None = None
        self._counts: RefCounts | None = None
        try:
            self._open(path, _depth)
        except BaseException:
            self._let_go()
            raise

    def _open(self, path: Path, depth: int) -> None:
        self._what = f"disk {path}"
        self.header = read_header(self._file.read(1 << 16, 0), what=self._what)
        header = self.header
        self._l1 = big_endian("Q", self._file.read(header.l1_size * 8, header.l1_offset))
        self._changed_l1: set[int] = set()
        self._tables: OrderedDict[int, array[int]] = OrderedDict()
        self._changed_tables: set[int] = set()
        self._unpacked: OrderedDict[int, bytes] = OrderedDict()
        if not self._read_only:
            self._prepare_writing()
        self._backing = _open_backing(header, path, depth)

    def _prepare_writing(self) -> None:
        header = self.header
        if header.incompatible & (Incompatible.DIRTY | Incompatible.CORRUPT):
            raise ImageError(f"{self._what} was not closed properly: repair it with qemu-img check -r all")
        self._counts = RefCounts(self._file, header)
        own = (0, header.l1_offset, header.table_offset)
        if any(self._counts.count(offset) == 0 for offset in own):
            raise ImageError(f"{self._what} is damaged: its own tables have the reference count 0")
        if header.version == 3 and header.autoclear:
            # What these features stand for (dirty bitmaps, say) is not kept up to date here.
            self.header = replace(header, autoclear=0)
            self._file.write(struct.pack(">Q", 0), _FEATURES_AT + 16)

    @property
    def size(self) -> int:
        """See Disk."""
        return self.header.size

    def preadv(self, views: Sequence[memoryview], offset: int, /) -> None:
        """See Disk."""
        buffers = Buffers(views)
        self._check_range(offset, buffers.size)
        for extent in self._extents(offset, buffers.size):
            target = buffers.part(extent.start - offset, extent.length)
            if extent.mapping is Mapping.HERE:
                self._file.read_into(target, extent.place)
            elif extent.mapping is Mapping.COMPRESSED:
                start = extent.start % self.header.cluster
                content = self._unpack(extent.place)[start : start + extent.length]
                buffers.fill(extent.start - offset, content)
            else:
                self._read_beyond(target, extent)

    def pwritev(self, views: Sequence[memoryview], offset: int, /) -> None:
        """See Disk."""
        self._writable()
        buffers = Buffers(views)
        self._check_range(offset, buffers.size)
        done = 0
        while done < buffers.size:
            length = self._write_some(buffers, done, offset + done)
            done += length
        if len(self._changed_tables) >= _MOST_TABLES:
            self.flush()

    def flush(self) -> None:
        """See Disk."""
        counts = self._counts
        if counts is None:
            return
        if not (self._changed_tables or self._changed_l1 or counts.is_changed):
            self._file.sync()
            return
        counts.write_allocated()
        self._file.sync()  # new clusters have their content before something refers to them
        for index in sorted(self._changed_tables):
            self._file.write(to_big_endian(self._tables[index]), self._l1[index] & OFFSET_MASK)
        self._changed_tables.clear()
        if self._changed_l1:
            self._file.sync()
            for index in sorted(self._changed_l1):
                self._file.write(struct.pack(">Q", self._l1[index]), self.header.l1_offset + index * 8)
            self._changed_l1.clear()
        self._file.sync()
        for offset in counts.write_given_back():
            self._file.punch(offset, self.header.cluster)
        while len(self._tables) > _MOST_TABLES:
            self._tables.popitem(last=False)

    def discard(self, offset: int, length: int, /) -> None:
        """See Disk. Whole clusters are given back and read as zeros from then on."""
        self._writable()
        self._check_range(offset, length)
        cluster = self.header.cluster
        first, end = -(-offset // cluster), (offset + length) // cluster
        if offset + length == self.size:
            end = -(-self.size // cluster)
        if self._backing is not None and self.header.version == 2:
            return  # there is no way to say that a cluster is not the backing file's
        for number in range(first, end):
            self._drop(number)

    def write_zeros(self, offset: int, length: int) -> None:
        """Make a range read as zeros; whole clusters take no room then."""
        self._writable()
        self._check_range(offset, length)
        cluster = self.header.cluster
        can_drop = self._backing is None or self.header.version == 3
        end = offset + length
        while offset < end:
            step = min(end, (offset // cluster + 1) * cluster) - offset
            if step == cluster and can_drop:
                self._drop(offset // cluster)
            else:
                self.pwritev([memoryview(bytes(step))], offset)
            offset += step

    def extents(self) -> Iterator[Extent]:
        """The whole disk, as it lies in this image."""
        yield from self._extents(0, self.size)

    def share(self) -> None:
        """See Disk."""
        self.flush()
        self._file.share()

    def close(self) -> None:
        """See Disk."""
        try:
            self.flush()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        self._file.close()
        if self._backing is not None:
            self._backing.close()

    def _writable(self) -> RefCounts:
        if self._counts is None:
            raise ImageError(f"{self._what} is open for reading only")
        return self._counts

    def _check_range(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ImageError(f"{self._what} has {self.size} bytes: {length} at {offset} lie beyond its end")

    # Reading --------------------------------------------------------------------------------------------

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Pieces as large as they are in one place."""
        end = offset + length
        pending: Extent | None = None
        while offset < end:
            step = min(end, (offset // self.header.cluster + 1) * self.header.cluster) - offset
            found = self._extent(offset, step)
            if pending is not None and _continues(pending, found):
                pending = replace(pending, length=pending.length + step)
            else:
                if pending is not None:
                    yield pending
                pending = found
            offset += step
        if pending is not None:
            yield pending

    def _extent(self, offset: int, length: int) -> Extent:
        entry = self._entry(offset // self.header.cluster)
        if entry & COMPRESSED:
            return Extent(Mapping.COMPRESSED, offset, length, entry)
        if entry & ZERO and self.header.version == 3:
            return Extent(Mapping.ZERO, offset, length, 0)
        place = entry & OFFSET_MASK
        if place == 0:
            return Extent(Mapping.BACKING if self._backing else Mapping.ZERO, offset, length, 0)
        if place % self.header.cluster:
            raise ImageError(f"{self._what} is damaged: data is not at a cluster")
        return Extent(Mapping.HERE, offset, length, place + offset % self.header.cluster)

    def _entry(self, number: int) -> int:
        """The L2 entry of cluster `number` of the disk."""
        index, place = divmod(number, self.header.l2_entries)
        table = self._table(index)
        return table[place] if table is not None else 0

    def _table(self, index: int) -> array[int] | None:
        table = self._tables.get(index)
        if table is not None:
            self._tables.move_to_end(index)
            return table
        offset = self._l1[index] & OFFSET_MASK
        if offset == 0:
            return None
        if offset % self.header.cluster:
            raise ImageError(f"{self._what} is damaged: a table is not at a cluster")
        table = self._tables[index] = big_endian("Q", self._file.read(self.header.cluster, offset))
        if len(self._tables) > _MOST_TABLES:
            self._forget_a_table()
        return table

    def _forget_a_table(self) -> None:
        unchanged = (index for index in self._tables if index not in self._changed_tables)
        oldest = next(unchanged, None)
        if oldest is not None and oldest != next(reversed(self._tables)):
            del self._tables[oldest]

    def _read_beyond(self, views: list[memoryview], extent: Extent) -> None:
        """From the backing file, which may be shorter, or zeros."""
        available = 0
        if extent.mapping is Mapping.BACKING and self._backing is not None:
            available = max(0, min(extent.length, self._backing.size - extent.start))
        buffers = Buffers(views)
        if available and self._backing is not None:
            self._backing.preadv(buffers.part(0, available), extent.start)
        for view in buffers.part(available, extent.length - available):
            view[:] = bytes(len(view))

    def _unpack(self, entry: int) -> bytes:
        """The content of a compressed cluster."""
        if entry not in self._unpacked:
            offset, size = self._packed_range(entry)
            data = self._file.read(size, offset)
            content = _inflate(data, self.header, self._what)
            if len(content) < self.header.cluster:
                raise ImageError(f"{self._what} is damaged: a compressed cluster is too short")
            self._unpacked[entry] = content[: self.header.cluster]
            if len(self._unpacked) > _MOST_UNPACKED:
                self._unpacked.popitem(last=False)
        return self._unpacked[entry]

    def _packed_range(self, entry: int) -> tuple[int, int]:
        """Offset and size in the file of a compressed cluster ("Compressed Clusters Descriptor")."""
        shift = 62 - (self.header.cluster_bits - 8)
        offset = entry & ((1 << shift) - 1)
        sectors = (entry & ~(COPIED | COMPRESSED)) >> shift
        return offset, (sectors + 1) * _SECTOR - offset % _SECTOR

    # Writing --------------------------------------------------------------------------------------------

    def _write_some(self, buffers: Buffers, start: int, offset: int) -> int:
        """Write as much of the buffers, from `start` on, as goes to one place in the file; how much."""
        cluster = self.header.cluster
        left = buffers.size - start
        place, length = self._place_for(buffers, start, offset)
        if place is None:
            return length
        while length < left:
            # A cluster that lies behind the one before, already or because it is new, goes with it.
            step = min(left - length, cluster)
            following = self._whole_place(offset + length, step, place + length)
            if not following:
                break
            length += step
        self._file.write_from(buffers.part(start, length), place)
        return length

    def _place_for(self, buffers: Buffers, start: int, offset: int) -> tuple[int | None, int]:
        """Where the first cluster's part is to be written, and its length; None if that has been done."""
        cluster = self.header.cluster
        inside = offset % cluster
        length = min(buffers.size - start, cluster - inside)
        entry = self._entry(offset // cluster)
        own = self._own_place(entry)
        if own is not None and not self._reads_zero(entry):
            return own + inside, length
        is_whole = length == min(cluster, self.size - (offset - inside)) and inside == 0
        content = b"" if is_whole else self._content(offset - inside)
        place = self._replace(offset // cluster, entry)
        if is_whole:
            return place, length
        merged = content[:inside] + buffers.take(start, length) + content[inside + length :]
        self._file.write(merged, place)
        return None, length

    def _whole_place(self, offset: int, length: int, wanted: int) -> bool:
        """Whether the cluster at `offset`, of which `length` bytes are written, is or comes at `wanted`."""
        entry = self._entry(offset // self.header.cluster)
        own = self._own_place(entry)
        if own is not None and not self._reads_zero(entry):
            return own == wanted
        if own is not None or length < self.header.cluster or not self._writable().is_next(wanted):
            return False
        return self._replace(offset // self.header.cluster, entry) == wanted

    def _own_place(self, entry: int) -> int | None:
        """Where a cluster may be written in place, being this image's and nobody else's."""
        place = entry & OFFSET_MASK
        return place if place and entry & COPIED and not entry & COMPRESSED else None

    def _reads_zero(self, entry: int) -> bool:
        return bool(entry & ZERO) and self.header.version == 3

    def _content(self, start: int) -> bytes:
        """All of a cluster as it is now; behind the disk's end, zeros."""
        content = bytearray(self.header.cluster)
        length = min(self.header.cluster, self.size - start)
        self.preadv([memoryview(content)[:length]], start)
        return bytes(content)

    def _replace(self, number: int, entry: int) -> int:
        """Give the cluster a place of its own, instead of what its entry said."""
        place = self._own_place(entry)
        if place is None:
            place = self._writable().allocate()
            self._forget(entry)
        self._set_entry(number, place | COPIED)
        return place

    def _drop(self, number: int) -> None:
        """Make a cluster read as zeros without a place."""
        entry = self._entry(number)
        if entry == ZERO or (entry == 0 and self._backing is None):
            return
        self._set_entry(number, ZERO if self.header.version == 3 and self._backing is not None else 0)
        self._forget(entry)

    def _forget(self, entry: int) -> None:
        """An entry does not refer any more to what it did."""
        if entry & COMPRESSED:
            self._writable().give_back(*self._packed_range(entry))
        elif entry & OFFSET_MASK:
            self._writable().give_back(entry & OFFSET_MASK)

    def _set_entry(self, number: int, entry: int) -> None:
        index, place = divmod(number, self.header.l2_entries)
        self._own_table(index)[place] = entry
        self._changed_tables.add(index)

    def _own_table(self, index: int) -> array[int]:
        """The L2 table `index`, to be changed: new where there is none, copied where a snapshot shares it."""
        table = self._table(index)
        if table is not None and self._l1[index] & COPIED:
            return table
        counts = self._writable()
        if table is None:
            table = self._tables[index] = array("Q", bytes(self.header.cluster))
        else:
            counts.give_back(self._l1[index] & OFFSET_MASK)
        self._l1[index] = counts.allocate() | COPIED
        self._changed_l1.add(index)
        self._changed_tables.add(index)
        return table


def create_qcow2(
    path: Path,
    size: int,
    *,
    cluster_bits: int = 16,
    version: int = 3,
    backing_file: str = "",
    backing_format: str = "",
) -> None:
    """Make an empty image of `size` bytes, or one that differs in nothing from its backing file.

    `backing_file` is relative to the image's directory; its format ("raw" or "qcow2") has to be said, for
    to guess it would let a guest choose. Raises UsageError and ImageError; a file that exists is not touched.
    """
    if backing_file and backing_format not in ("raw", "qcow2"):
        raise UsageError("a backing file needs its format, raw or qcow2")
    if not 9 <= cluster_bits <= 21 or version not in (2, 3):
        raise UsageError("an image has clusters of 2^9 to 2^21 bytes, and version 2 or 3")
    if size < 0 or size % _SECTOR:
        raise UsageError(f"a disk has a multiple of {_SECTOR} bytes, not {size}")
    cluster = 1 << cluster_bits
    l1_size = max(1, -(-size // (cluster * cluster // 8)))
    l1_clusters = -(-l1_size * 8 // cluster)
    header = Header(
        version, cluster_bits, size, l1_size, 3 * cluster, cluster, 1,
        backing_file=backing_file, backing_format=backing_format,
    )  # fmt: skip
    used = 3 + l1_clusters
    if used > cluster // 2:
        raise UsageError(f"a disk of {size} bytes needs clusters of more than {cluster} bytes")
    block = struct.pack(f">{used}H", *[1] * used)
    parts = [write_header(header), struct.pack(">Q", 2 * cluster), block, bytes(l1_clusters * cluster)]
    try:
        with path.open("xb") as file:
            for part in parts:
                file.write(part + bytes(-len(part) % cluster))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ImageError(f"disk {path} cannot be made: {error.strerror}") from None


def open_disk(path: Path, *, format: str = "", read_only: bool = False, _depth: int = 0) -> Disk:
    """The disk in a file: "qcow2", "raw", or, where nothing is said, what its first bytes say.

    Say it for a file that a guest has written: a guest can make a raw disk look like anything.
    """
    if not format:
        file = HostFile(path, read_only=True)
        format = "qcow2" if file.read(4, 0) == MAGIC else "raw"
        file.close()
    if format == "qcow2":
        return Qcow2Disk(path, read_only=read_only, _depth=_depth)
    if format == "raw":
        return RawDisk(path, read_only=read_only)
    raise UsageError(f"{format} is no format of disks that is known here: qcow2 and raw are")


def image_files(path: Path, *, format: str) -> list[Path]:
    """The file of an image and those of the backing files behind it. Raises ImageError.

    The image may be open for writing, if it was flushed.
    """
    files = [path]
    while format == "qcow2":
        try:
            with files[-1].open("rb") as file:
                header = read_header(file.read(1 << 16), what=f"disk {files[-1]}")
        except OSError as error:
            raise ImageError(f"disk {files[-1]} cannot be opened: {error.strerror}") from None
        if not header.backing_file:
            break
        if len(files) > _DEEPEST:
            raise ImageError(f"disk {path} has more than {_DEEPEST} backing files behind one another")
        files.append(files[-1].resolve().parent / header.backing_file)
        format = header.backing_format
    return files


def _open_backing(header: Header, path: Path, depth: int) -> Disk | None:
    name = header.backing_file
    if not name:
        return None
    if depth >= _DEEPEST:
        raise ImageError(f"disk {path} has more than {_DEEPEST} backing files behind one another")
    if not header.backing_format:
        raise ImageError(
            f"disk {path} does not say the format of its backing file: say it with "
            f"qemu-img rebase -u -F FORMAT -b {name} {path}"
        )
    if ":" in name.partition("/")[0]:
        raise ImageError(f"disk {path} has a backing file that is not a local file: {name}")
    return open_disk(
        path.resolve().parent / name, format=header.backing_format, read_only=True, _depth=depth + 1
    )


def _continues(before: Extent, after: Extent) -> bool:
    if before.mapping is not after.mapping or before.mapping is Mapping.COMPRESSED:
        return False
    return before.mapping is not Mapping.HERE or before.place + before.length == after.place


def _inflate(data: bytes, header: Header, what: str) -> bytes:
    if header.compression == 1:
        return decompress(data, what=f"a cluster of {what}")
    try:
        return zlib.decompressobj(wbits=-15).decompress(data, header.cluster)
    except zlib.error as error:
        raise ImageError(f"{what} is damaged: a compressed cluster cannot be unpacked: {error}") from None
