"""Overlays in qcow2 that are written at once: what of a disk differs from an image that stays as it is.

Such a file is one of QEMU's format like others (docs/interop/qcow2.txt). Its data lies behind its tables, one
cluster behind the other, so that it is written from the beginning to the end, and read by its tables alone.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from anyvirt.images.errors import ImageError
from anyvirt.images.host_file import read_into, write_from
from anyvirt.images.qcow2_format import COPIED, OFFSET_MASK, ZERO, Header, read_header, write_header
from anyvirt.images.qcow2_refcounts import big_endian, to_big_endian

if TYPE_CHECKING:
    from array import array
    from collections.abc import Mapping
    from pathlib import Path

CLUSTER_BITS = 16
CLUSTER = 1 << CLUSTER_BITS
_ENTRIES = CLUSTER // 8
_COUNTS = CLUSTER // 2
"""Clusters that a block of reference counts of 16 bits is about."""
_TABLE = struct.Struct(">Q")


class OverlayWriter:
    """A file that is being written. The clusters are to be written in ascending order, by `write`."""

    def __init__(
        self,
        path: Path,
        size: int,
        clusters: Mapping[int, bool],
        *,
        backing_file: Path,
        backing_format: str,
    ) -> None:
        """`clusters` are those that differ, by ascending numbers, and whether there is anything but zeros.

        Raises ImageError, and OSError as `write` does.
        """
        tables = sorted({number // _ENTRIES for number in clusters})
        l1_size = max(1, -(-size // (CLUSTER * _ENTRIES)))
        l1_clusters = -(-l1_size * 8 // CLUSTER)
        data = sum(clusters.values())
        blocks = 1
        while (used := 2 + blocks + l1_clusters + len(tables) + data) > blocks * _COUNTS:
            blocks += 1
        l1_at = (2 + blocks) * CLUSTER
        header = Header(
            3, CLUSTER_BITS, size, l1_size, l1_at, CLUSTER, 1,
            backing_file=os.fspath(backing_file), backing_format=backing_format,
        )  # fmt: skip
        tables_at = l1_at + l1_clusters * CLUSTER
        self._next = tables_at + len(tables) * CLUSTER
        parts = [
            write_header(header),
            b"".join(_TABLE.pack((2 + number) * CLUSTER) for number in range(blocks)),
            struct.pack(">H", 1) * used + bytes(2 * (blocks * _COUNTS - used)),
            _first_level(tables, l1_size, tables_at),
            _second_level(clusters, tables, self._next),
        ]
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        place = 0
        for part in parts:
            write_from(self._descriptor, [memoryview(part)], place)
            place += -(-len(part) // CLUSTER) * CLUSTER
        os.truncate(self._descriptor, self._next)

    def write(self, content: memoryview) -> None:
        """The content of the next cluster that is not zeros; the last of a disk may be shorter."""
        write_from(self._descriptor, [content], self._next)
        self._next += CLUSTER

    def finish(self) -> int:
        """Return when it is on stable storage; its size in bytes."""
        os.truncate(self._descriptor, self._next)
        os.fsync(self._descriptor)
        return self._next

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)


def _first_level(tables: list[int], size: int, tables_at: int) -> bytes:
    table = bytearray(size * 8)
    for place, index in enumerate(tables):
        _TABLE.pack_into(table, index * 8, tables_at + place * CLUSTER | COPIED)
    return bytes(table)


def _second_level(clusters: Mapping[int, bool], tables: list[int], data_at: int) -> bytes:
    places = {index: place for place, index in enumerate(tables)}
    result = big_endian("Q", bytes(len(tables) * CLUSTER))
    for number, has_data in clusters.items():
        index, entry = divmod(number, _ENTRIES)
        result[places[index] * _ENTRIES + entry] = data_at | COPIED if has_data else ZERO
        data_at += CLUSTER * has_data
    return to_big_endian(result)


def read_overlay(descriptor: int, *, what: str) -> tuple[Header, dict[int, int | None]]:
    """What is in such a file: its header, and of each cluster where its content is, None for zeros.

    Its backing file is not looked at. Raises ImageError, which calls the file `what`, for any other file.
    """
    header = read_header(_read(descriptor, CLUSTER, 0), what=what)
    if header.version != 3 or header.cluster_bits != CLUSTER_BITS or header.incompatible:
        raise ImageError(f"{what} is not an overlay that was written at once")
    end = os.fstat(descriptor).st_size
    clusters: dict[int, int | None] = {}
    for index, entry in enumerate(_table(descriptor, header.l1_size * 8, header.l1_offset)):
        if entry:
            _read_table(descriptor, index, entry, clusters)
    last = -(-header.size // CLUSTER)
    for number, place in clusters.items():
        if number >= last or (place is not None and (place % CLUSTER or place + CLUSTER > end)):
            raise ImageError(f"{what} is damaged: a cluster lies where none can be")
    return header, clusters


def _read_table(descriptor: int, index: int, entry: int, clusters: dict[int, int | None]) -> None:
    for place, found in enumerate(_table(descriptor, CLUSTER, entry & OFFSET_MASK)):
        if found:
            clusters[index * _ENTRIES + place] = None if found & ZERO else found & OFFSET_MASK


def _table(descriptor: int, size: int, offset: int) -> array[int]:
    return big_endian("Q", _read(descriptor, size, offset))


def _read(descriptor: int, size: int, offset: int) -> bytes:
    buffer = bytearray(size)
    read_into(descriptor, [memoryview(buffer)], offset)
    return bytes(buffer)
