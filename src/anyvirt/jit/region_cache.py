"""Regions kept on disk, so that a program that has run before starts hot.

There is a file for each page of guest code that a region begins in, named by a hash of the page, its
address and all else that decides what is compiled. A file is used only if it is ours, its checksum is
right, and the guest's code is still what each region was made from; anything else counts as absent and is
overwritten. The oldest files go when all together are too large.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct

# As in anyvirt.jit.guest_code: hashlib is slow to import.
from _blake2 import blake2b
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CACHE = "regions"
"""Directory, within the cache directory, of all these files."""
LARGEST_CACHE = 256 << 20
"""Bytes of all files together."""
_MAGIC = b"anyvirt regions 3\n"
_HEADER = struct.Struct(f"<{len(_MAGIC)}s32s")
_REGION = struct.Struct("<Q16sIIIII")
"""Entry, digest, number of ranges, bytes of the image, whether it is cut, number of other entries and of
instructions; then the ranges, the other entries, and the image."""
_RANGE = struct.Struct("<QQ")
_ENTRY = struct.Struct("<Q")
_REGIONS_OF_A_FILE = 256
_LARGEST_FILE = 64 << 20


@dataclass(frozen=True)
class StoredRegion:
    """A compiled region and the code it was made from."""

    entry: int
    ranges: list[tuple[int, int]]
    digest: str
    """See `anyvirt.jit.guest_code.code_digest`."""
    image: bytes = b""
    cut: bool = False
    """See `anyvirt.jit.compile_protocol.Reply`."""
    others: list[int] = field(default_factory=list)
    """See there."""
    instructions: int = 0


class RegionCache:
    """The files of one kind of region; see `anyvirt.jit.guest_code.region_kind`."""

    def __init__(self, directory: Path, kind: str) -> None:
        self._directory = directory
        self._kind = kind.encode()
        self._present: frozenset[str] | None = None

    def load(self, page: int, code: bytes) -> list[StoredRegion]:
        """The regions that begin in a page of guest code, if there are any that can be trusted."""
        name = self._name(page, code)
        if self._present is None:
            try:
                self._present = frozenset(os.listdir(self._directory))
            except OSError:
                self._present = frozenset()
        if name not in self._present:
            return []
        return self._read(name)

    def store(self, page: int, code: bytes, region: StoredRegion) -> None:
        """Add a region, in place of one with the same entry; a disk that is full costs time only."""
        name = self._name(page, code)
        with contextlib.suppress(OSError):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            entries = {region.entry, *region.others}
            others = [other for other in self._read(name) if other.entry not in entries]
            self._write(name, [region, *others][:_REGIONS_OF_A_FILE])

    def prune(self, limit: int = LARGEST_CACHE) -> None:
        """Remove the files that were written longest ago until the rest is within the limit."""
        total = sum(size for _, size, _ in self._files())
        for _, size, path in sorted(self._files()) if total > limit else ():
            if total <= limit:
                return
            with contextlib.suppress(OSError):
                os.unlink(path)
            total -= size

    def _files(self) -> Iterator[tuple[float, int, str]]:
        """Time, size and path of each, one at a time: there may be very many."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self._directory) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    yield status.st_mtime, status.st_size, entry.path

    def _name(self, page: int, code: bytes) -> str:
        digest = blake2b(self._kind, digest_size=16)
        digest.update(page.to_bytes(8, "little") + code)
        return digest.hexdigest()

    def _read(self, name: str) -> list[StoredRegion]:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            with os.fdopen(os.open(Path(self._directory, name), flags), "rb") as file:
                content = file.read() if _is_ours(os.fstat(file.fileno())) else b""
        except OSError:
            return []
        return _unpack(content, name)

    def _write(self, name: str, regions: list[StoredRegion]) -> None:
        import tempfile

        descriptor, temporary = tempfile.mkstemp(dir=self._directory, prefix=".new.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(_pack(regions, name))
            os.rename(temporary, Path(self._directory, name))
        except BaseException:
            os.unlink(temporary)
            raise


def _is_ours(status: os.stat_result) -> bool:
    """Whether nobody else can have written a file, and it is one that we would write."""
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_uid == os.geteuid()
        and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        and status.st_size <= _LARGEST_FILE
    )


def _pack(regions: list[StoredRegion], name: str) -> bytes:
    parts = []
    for region in regions:
        digest = bytes.fromhex(region.digest)
        sizes = len(region.ranges), len(region.image)
        counts = len(region.others), region.instructions
        parts.append(_REGION.pack(region.entry, digest, *sizes, region.cut, *counts))
        parts += [_RANGE.pack(*pair) for pair in region.ranges]
        parts += [_ENTRY.pack(entry) for entry in region.others]
        parts.append(region.image)
    body = b"".join(parts)
    return _HEADER.pack(_MAGIC, _checksum(name, body)) + body


def _unpack(content: bytes, name: str) -> list[StoredRegion]:
    if len(content) < _HEADER.size:
        return []
    magic, checksum = _HEADER.unpack_from(content)
    if magic != _MAGIC or checksum != _checksum(name, content[_HEADER.size :]):
        return []
    try:
        return _unpack_regions(content)
    except struct.error:
        return []


def _unpack_regions(content: bytes) -> list[StoredRegion]:
    """Raises struct.error if there is less than the lengths say."""
    regions, position = [], _HEADER.size
    while position < len(content):
        entry, digest, count, size, cut, more, instructions = _REGION.unpack_from(content, position)
        position += _REGION.size
        ranges = [_RANGE.unpack_from(content, position + _RANGE.size * number) for number in range(count)]
        position += _RANGE.size * count
        others = [_ENTRY.unpack_from(content, position + _ENTRY.size * number)[0] for number in range(more)]
        position += _ENTRY.size * more
        (image,) = struct.unpack_from(f"{size}s", content, position)
        regions.append(StoredRegion(entry, ranges, digest.hex(), image, bool(cut), others, instructions))
        position += size
    return regions


def _checksum(name: str, body: bytes) -> bytes:
    return blake2b(name.encode() + body, digest_size=32).digest()
