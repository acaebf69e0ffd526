"""The header of a qcow2 image, version 2 and 3, with its extensions (QEMU, docs/interop/qcow2.txt)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntFlag

from anyvirt.images.errors import ImageError

MAGIC = b"QFI\xfb"
_HEADER_2 = struct.Struct(">4sIQIIQIIQQIIQ")
_HEADER_3 = struct.Struct(">QQQII")
_EXTENSION = struct.Struct(">II")
_BACKING_FORMAT = 0xE2792ACA
_FEATURE_NAMES = 0x6803F857
_SIZE_2, _SIZE_3, _SIZE = 72, 104, 112
_MOST_TABLE = 32 << 20
"""Bytes of an L1 table that QEMU allows as well."""
_LONGEST_NAME = 1023

OFFSET_MASK = 0x00FF_FFFF_FFFF_FE00
COPIED = 1 << 63
"""In an L1 or L2 entry: what it refers to has the reference count 1 and may be written in place."""
COMPRESSED = 1 << 62
ZERO = 1
"""In an L2 entry of version 3: the cluster reads as zeros, whatever it refers to."""


class Incompatible(IntFlag):
    """Features without which an image cannot be used at all."""

    DIRTY = 1
    CORRUPT = 2
    EXTERNAL_DATA = 4
    COMPRESSION = 8
    EXTENDED_L2 = 16


_SUPPORTED = Incompatible.DIRTY | Incompatible.CORRUPT | Incompatible.COMPRESSION
_NAMES = {Incompatible.EXTERNAL_DATA: "an external data file", Incompatible.EXTENDED_L2: "subclusters"}


@dataclass(frozen=True)
class Header:
    """What an image's header says, in its own words."""

    version: int
    cluster_bits: int
    size: int
    """Of the disk, in bytes."""
    l1_size: int
    l1_offset: int
    table_offset: int
    """Of the table of reference counts."""
    table_clusters: int
    snapshots: int = 0
    snapshots_offset: int = 0
    incompatible: int = 0
    compatible: int = 0
    autoclear: int = 0
    refcount_order: int = 4
    compression: int = 0
    """0: deflate, 1: zstd."""
    backing_file: str = ""
    backing_format: str = ""

    @property
    def cluster(self) -> int:
        """Size of a cluster in bytes."""
        return 1 << self.cluster_bits

    @property
    def l2_entries(self) -> int:
        """Clusters that one L2 table maps."""
        return self.cluster // 8


def read_header(data: bytes, *, what: str) -> Header:
    """Parse the first cluster. Raises ImageError, which calls the image `what`, for what is not supported."""
    try:
        header = _parse(data, what)
    except struct.error:
        raise ImageError(f"{what} is damaged: its header is truncated") from None
    _check(header, what)
    return header


def _parse(data: bytes, what: str) -> Header:
    if data[:4] != MAGIC:
        raise ImageError(f"{what} is not a qcow2 image")
    (
        _,
        version,
        name_at,
        name_size,
        bits,
        size,
        crypt,
        l1_size,
        l1_at,
        table_at,
        clusters,
        snapshots,
        list_at,
    ) = _HEADER_2.unpack_from(data)
    if version not in (2, 3):
        raise ImageError(f"{what} is a qcow image of version {version}: 2 and 3 are supported")
    if crypt:
        raise ImageError(f"{what} is encrypted, which is not supported")
    incompatible = compatible = autoclear = compression = 0
    order, length = 4, _SIZE_2
    if version == 3:
        incompatible, compatible, autoclear, order, length = _HEADER_3.unpack_from(data, _SIZE_2)
        compression = data[_SIZE_3] if length > _SIZE_3 else 0
    extensions = _extensions(data, length, name_at or len(data))
    if name_at and (name_size > _LONGEST_NAME or name_at + name_size > len(data)):
        raise ImageError(f"{what} is damaged: the name of its backing file lies outside of its header")
    return Header(
        version, bits, size, l1_size, l1_at, table_at, clusters, snapshots, list_at, incompatible, compatible,
        autoclear, order, compression,
        data[name_at : name_at + name_size].decode(errors="surrogateescape") if name_at else "",
        extensions.get(_BACKING_FORMAT, b"").decode(errors="replace"),
    )  # fmt: skip


def _extensions(data: bytes, place: int, end: int) -> dict[int, bytes]:
    found = {}
    while place + _EXTENSION.size <= min(end, len(data)):
        kind, size = _EXTENSION.unpack_from(data, place)
        if kind == 0 or place + _EXTENSION.size + size > len(data):
            break
        place += _EXTENSION.size
        found[kind] = data[place : place + size]
        place += (size + 7) & ~7
    return found


def _check(header: Header, what: str) -> None:
    unknown = header.incompatible & ~_SUPPORTED
    if unknown:
        names = [name for feature, name in _NAMES.items() if unknown & feature] or [f"features {unknown:#x}"]
        raise ImageError(f"{what} uses {' and '.join(names)}, which is not supported")
    if not 9 <= header.cluster_bits <= 21:
        raise ImageError(f"{what} is damaged: clusters of 2^{header.cluster_bits} bytes")
    if header.refcount_order > 6 or header.compression > 1:
        raise ImageError(f"{what} is damaged, or compressed in a way that is not known here")
    needed = -(-header.size // (header.cluster * header.l2_entries))
    if header.l1_size < needed or header.l1_size * 8 > _MOST_TABLE or header.size >= 1 << 62:
        raise ImageError(f"{what} is damaged: a table of {header.l1_size} entries for {header.size} bytes")
    aligned = (header.l1_offset, header.table_offset)
    if any(offset % header.cluster or offset >= 1 << 56 for offset in aligned) or not header.table_clusters:
        raise ImageError(f"{what} is damaged: its tables are not at clusters")
    if header.table_clusters * header.cluster > _MOST_TABLE:
        raise ImageError(f"{what} is damaged: its table of reference counts is too large")


_FEATURE_TEXTS = b"".join(
    struct.pack(">BB46s", kind, bit, name)
    for kind, bit, name in (
        (0, 0, b"dirty bit"),
        (0, 1, b"corrupt bit"),
        (0, 2, b"external data file"),
        (0, 3, b"compression type"),
        (0, 4, b"extended L2 entries"),
        (1, 0, b"lazy refcounts"),
        (2, 0, b"bitmaps"),
        (2, 1, b"raw external data"),
    )
)
_FEATURE_TABLE = _EXTENSION.pack(_FEATURE_NAMES, len(_FEATURE_TEXTS)) + _FEATURE_TEXTS
"""What a program that lacks a feature shows as its name; left out where clusters are too small for it."""


def write_header(header: Header) -> bytes:
    """The header as the beginning of the first cluster, with its extensions and the backing file's name."""
    extensions = b""
    if header.backing_format:
        name = header.backing_format.encode()
        extensions += _EXTENSION.pack(_BACKING_FORMAT, len(name)) + name + bytes(-len(name) % 8)
    length = _SIZE if header.version == 3 else _SIZE_2
    name = header.backing_file.encode(errors="surrogateescape")
    end = _EXTENSION.pack(0, 0)
    room = header.cluster - length - len(extensions) - len(end) - len(name)
    if len(name) > _LONGEST_NAME or room < 0:
        raise ImageError(f"the name of the backing file is too long: {header.backing_file}")
    if header.version == 3 and room >= len(_FEATURE_TABLE):
        extensions += _FEATURE_TABLE
    extensions += end
    data = _HEADER_2.pack(
        MAGIC, header.version, length + len(extensions) if name else 0, len(name), header.cluster_bits,
        header.size, 0, header.l1_size, header.l1_offset, header.table_offset, header.table_clusters,
        header.snapshots, header.snapshots_offset,
    )  # fmt: skip
    if header.version == 3:
        features = (header.incompatible, header.compatible, header.autoclear)
        data += (
            _HEADER_3.pack(*features, header.refcount_order, length) + bytes([header.compression]) + bytes(7)
        )
    return data + extensions + name
