"""Reference counts of a qcow2 image's clusters (qcow2.txt, "Host cluster management").

Counts are changed in memory and written in two steps, so that at every moment what is on disk counts at least
the references that are on disk: what was given out before anything refers to it, what was given back after
nothing does any more. A crash in between leaks clusters and damages nothing.
"""

from __future__ import annotations

import struct
import sys
from array import array
from typing import TYPE_CHECKING

from anyvirt.images.errors import ImageError
from anyvirt.images.qcow2_format import OFFSET_MASK

if TYPE_CHECKING:
    from anyvirt.images.host_file import HostFile
    from anyvirt.images.qcow2_format import Header

_TABLE_FIELDS_AT = 48
"""In the header: u64 offset of the table, u32 its clusters."""
_TYPES = {3: "B", 4: "H", 5: "I", 6: "Q"}


class RefCounts:
    """The counts of one image that is open for writing."""

    def __init__(self, file: HostFile, header: Header) -> None:
        self._file = file
        self._cluster = header.cluster
        self._order = header.refcount_order
        self._per_block = header.cluster * 8 >> header.refcount_order
        self._table_offset = header.table_offset
        self._table_clusters = header.table_clusters
        self._table = big_endian("Q", file.read(header.table_clusters * header.cluster, header.table_offset))
        self._changed_entries: set[int] = set()
        self._moved_from: tuple[int, int] | None = None
        self._blocks: dict[int, array[int]] = {}
        self._changed: set[int] = set()
        self._given_back: list[int] = []
        self._next = 0

    @property
    def is_changed(self) -> bool:
        """Whether something has to be written."""
        return bool(self._changed or self._changed_entries or self._given_back)

    def count(self, offset: int) -> int:
        """The references to the cluster at `offset`."""
        number, place = divmod(offset // self._cluster, self._per_block)
        block = self._block(number)
        return block[place] if block is not None else 0

    def allocate(self) -> int:
        """The offset of a cluster that was free and now has the count 1."""
        while True:
            number, place = divmod(self._next, self._per_block)
            block = self._block(number)
            if block is None:
                self._add_block(number)
                continue
            try:
                place = block.index(0, place)
            except ValueError:
                self._next = (number + 1) * self._per_block
                continue
            block[place] = 1
            self._changed.add(number)
            self._next = number * self._per_block + place + 1
            return (self._next - 1) * self._cluster

    def is_next(self, offset: int) -> bool:
        """Whether `allocate` would give out the cluster at `offset`, as far as can be told at once."""
        number, place = divmod(self._next, self._per_block)
        block = self._blocks.get(number)
        return self._next * self._cluster == offset and block is not None and block[place] == 0

    def give_back(self, offset: int, length: int = 1) -> None:
        """One reference less to the clusters of a range, once what refers to them has been written."""
        first, last = offset // self._cluster, (offset + length - 1) // self._cluster
        self._given_back += range(first, last + 1)

    def write_allocated(self) -> None:
        """Write what was given out, and have it on disk before it returns."""
        if not self._changed and not self._changed_entries:
            return
        self._write_blocks()
        self._file.sync()
        if self._moved_from is not None:
            self._write_moved_table(self._moved_from)
        else:
            for index in sorted(self._changed_entries):
                self._file.write(struct.pack(">Q", self._table[index]), self._table_offset + index * 8)
        if self._changed_entries:
            self._file.sync()
        self._changed_entries.clear()

    def write_given_back(self) -> list[int]:
        """Take back and write what was given back; the offsets of the clusters that are free by that."""
        free = []
        for index in self._given_back:
            number, place = divmod(index, self._per_block)
            block = self._block(number)
            if block is None or block[place] == 0:
                raise ImageError(f"{self._file.path} is damaged: a cluster in use has the reference count 0")
            block[place] -= 1
            self._changed.add(number)
            if block[place] == 0:
                free.append(index * self._cluster)
                self._next = min(self._next, index)
        self._given_back.clear()
        self._write_blocks()
        return free

    def _write_blocks(self) -> None:
        for number in sorted(self._changed):
            self._file.write(self._packed(self._blocks[number]), self._table[number] & OFFSET_MASK)
        self._changed.clear()

    def _write_moved_table(self, old: tuple[int, int]) -> None:
        """A larger table is written whole before the header names it; the old one is then free."""
        self._file.write(to_big_endian(self._table), self._table_offset)
        self._file.sync()
        fields = struct.pack(">QI", self._table_offset, self._table_clusters)
        self._file.write(fields, _TABLE_FIELDS_AT)
        self.give_back(old[0], old[1] * self._cluster)
        self._moved_from = None

    def _block(self, number: int) -> array[int] | None:
        """The block of counts `number`, or None if there is none: all that it would count is free."""
        block = self._blocks.get(number)
        if block is None and number < len(self._table) and self._table[number]:
            offset = self._table[number] & OFFSET_MASK
            if offset % self._cluster:
                raise ImageError(f"{self._file.path} is damaged: reference counts are not at a cluster")
            block = self._blocks[number] = self._unpacked(self._file.read(self._cluster, offset))
        return block

    def _add_block(self, number: int) -> None:
        """A block for clusters that nobody uses yet lies in the first of them."""
        if number >= len(self._table):
            self._grow_table(number)
            return
        first = number * self._per_block
        self._blocks[number] = self._unpacked(bytes(self._cluster))
        self._blocks[number][0] = 1
        self._table[number] = first * self._cluster
        self._changed.add(number)
        self._changed_entries.add(number)

    def _grow_table(self, number: int) -> None:
        """Move the table behind a new block, half as large again."""
        clusters = self._table_clusters + max(1, self._table_clusters // 2)
        if clusters >= self._per_block:
            raise ImageError(f"{self._file.path} is full: its clusters are too small to count more of them")
        if self._moved_from is None:
            self._moved_from = (self._table_offset, self._table_clusters)
        else:
            self.give_back(self._table_offset, self._table_clusters * self._cluster)
        self._table.extend(bytes(clusters * self._cluster // 8 - len(self._table)))
        self._table_clusters = clusters
        self._add_block(number)
        self._table_offset = (number * self._per_block + 1) * self._cluster
        for place in range(1, 1 + clusters):
            self._blocks[number][place] = 1

    def _unpacked(self, data: bytes) -> array[int]:
        if self._order in _TYPES:
            return big_endian(_TYPES[self._order], data)
        bits = 1 << self._order
        mask = (1 << bits) - 1
        return array("B", (byte >> shift & mask for byte in data for shift in range(0, 8, bits)))

    def _packed(self, block: array[int]) -> bytes:
        if self._order in _TYPES:
            return to_big_endian(block)
        bits = 1 << self._order
        each = 8 // bits
        return bytes(
            sum(block[start + place] << place * bits for place in range(each))
            for start in range(0, len(block), each)
        )


def big_endian(kind: str, data: bytes) -> array[int]:
    """Numbers of a file."""
    numbers: array[int] = array(kind, data)
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers


def to_big_endian(numbers: array[int]) -> bytes:
    """Numbers for a file."""
    copy = array(numbers.typecode, numbers)
    if sys.byteorder == "little":
        copy.byteswap()
    return copy.tobytes()
