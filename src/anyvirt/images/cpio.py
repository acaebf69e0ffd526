"""Archives in cpio's "newc" format, which is what Linux unpacks as its initial file system.

Linux, Documentation/driver-api/early-userspace/buffer-format.rst. The output depends on nothing but what is
put in: inode numbers are counted, times are 0 and a directory's entries are sorted, unless asked otherwise.
"""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from anyvirt.images.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

_MAGIC = b"070701"
_ALIGNMENT = 4
_BLOCK = 512
_CHUNK = 1 << 20
_PATH_MAXIMUM = 4096
"""PATH_MAX: Linux ignores entries with a longer name, and longer targets of links (init/initramfs.c)."""
_SIZE_END = 1 << 32
_TRAILER = b"TRAILER!!!"


class Sink(Protocol):
    """What an archive is written to."""

    def write(self, data: bytes, /) -> object:
        """Append `data`."""


@dataclass(frozen=True)
class Attributes:
    """Of an entry: permission bits, owner, and time of modification in seconds since 1970."""

    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0


_DIRECTORY = Attributes(0o755)
_FILE = Attributes(0o644)
_LINK = Attributes(0o777)
_NODE = Attributes(0o600)


class CpioWriter:
    """Writes one archive, entry after entry, to a sink that need not be seekable.

    Names are paths from the root of the file system, with or without a leading slash. Directories that an
    entry needs and that are not there yet are made: Linux would drop the entry. Raises ImageError for what
    the format cannot hold. As a context manager it ends the archive where nothing went wrong.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._position = 0
        self._inode = 0
        self._known = {b""}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()

    def directory(self, name: str | bytes, attributes: Attributes = _DIRECTORY) -> None:
        """A directory; one that is there already keeps its content and gets these attributes."""
        path = _path(name)
        if path:
            self._parents(path)
            self._entry(path, stat.S_IFDIR, attributes)
            self._known.add(path)

    def file(
        self, name: str | bytes, content: bytes | BinaryIO, attributes: Attributes = _FILE, *, size: int = -1
    ) -> None:
        """A regular file. From a stream `size` bytes are read; it must have as many."""
        self.linked_file([name], content, attributes, size=size)

    def linked_file(
        self,
        names: Sequence[str | bytes],
        content: bytes | BinaryIO,
        attributes: Attributes = _FILE,
        *,
        size: int = -1,
    ) -> None:
        """A regular file under several names (hard links), the last of which carries the content."""
        paths = [_path(name) for name in names]
        length = len(content) if isinstance(content, bytes) else size
        if not 0 <= length < _SIZE_END:
            raise ImageError(
                f"{_shown(paths[-1])} has {length} bytes: an initial file system holds files below 4 GiB"
            )
        for path in paths:
            self._parents(path)
        self._inode += 1
        for path in paths[:-1]:
            self._header(path, stat.S_IFREG | attributes.mode, attributes, links=len(paths))
        self._header(paths[-1], stat.S_IFREG | attributes.mode, attributes, links=len(paths), size=length)
        if isinstance(content, bytes):
            self._write(content)
        else:
            self._copy(content, length, paths[-1])
        self._pad(_ALIGNMENT)

    def symbolic_link(self, name: str | bytes, target: str | bytes, attributes: Attributes = _LINK) -> None:
        """A symbolic link to `target`."""
        path, body = _path(name), os.fsencode(target)
        if len(body) > _PATH_MAXIMUM:
            raise ImageError(f"the target of the link {_shown(path)} is longer than {_PATH_MAXIMUM} bytes")
        self._parents(path)
        self._entry(path, stat.S_IFLNK, attributes, body)

    def character_device(
        self, name: str | bytes, major: int, minor: int, attributes: Attributes = _NODE
    ) -> None:
        """A character device."""
        self._node(name, stat.S_IFCHR, attributes, (major, minor))

    def block_device(self, name: str | bytes, major: int, minor: int, attributes: Attributes = _NODE) -> None:
        """A block device."""
        self._node(name, stat.S_IFBLK, attributes, (major, minor))

    def pipe(self, name: str | bytes, attributes: Attributes = _NODE) -> None:
        """A named pipe."""
        self._node(name, stat.S_IFIFO, attributes, (0, 0))

    def tree(
        self, source: Path, at: str | bytes = "", *, keep_owners: bool = False, keep_times: bool = False
    ) -> None:
        """What is in the directory `source`, below the path `at`; sockets are left out.

        Everything belongs to root and has the time 0 unless owners and times are to be kept. Symbolic links
        are not followed, hard links within the directory remain. Raises ImageError when something cannot
        be read.
        """
        try:
            _TreeCopy(self, os.fsencode(source), _path(at), keep_owners, keep_times).copy()
        except OSError as error:
            raise ImageError(
                f"{os.fsdecode(error.filename or source)} cannot be read: {error.strerror}"
            ) from None

    def finish(self) -> None:
        """End the archive; another one may follow in the same file."""
        self._inode = -1  # the trailer's inode number is 0
        self._entry(_TRAILER, 0, Attributes(0))
        self._pad(_BLOCK)

    def _node(self, name: str | bytes, kind: int, attributes: Attributes, device: tuple[int, int]) -> None:
        path = _path(name)
        self._parents(path)
        self._entry(path, kind, attributes, device=device)

    def _parents(self, path: bytes) -> None:
        if not path:
            raise ImageError("the root of an initial file system is a directory and has no other content")
        parent = os.path.dirname(path)
        if parent not in self._known:
            self.directory(parent)

    def _entry(
        self,
        path: bytes,
        kind: int,
        attributes: Attributes,
        body: bytes = b"",
        device: tuple[int, int] = (0, 0),
    ) -> None:
        self._inode += 1
        links = 2 if kind == stat.S_IFDIR else 1
        self._header(path, kind | attributes.mode, attributes, links=links, size=len(body), device=device)
        self._write(body)
        self._pad(_ALIGNMENT)

    def _header(
        self,
        path: bytes,
        mode: int,
        attributes: Attributes,
        *,
        links: int,
        size: int = 0,
        device: tuple[int, int] = (0, 0),
    ) -> None:
        fields = (
            self._inode, mode, attributes.uid, attributes.gid, links, attributes.mtime, size, 0, 0, *device,
            len(path) + 1, 0,
        )  # fmt: skip
        if not all(0 <= field < 1 << 32 for field in fields):
            raise ImageError(
                f"an attribute of {_shown(path)} does not fit into the 32 bits that the format has"
            )
        self._write(_MAGIC + b"".join(b"%08X" % field for field in fields) + path + b"\0")
        self._pad(_ALIGNMENT)

    def _copy(self, stream: BinaryIO, size: int, path: bytes) -> None:
        left = size
        while left:
            data = stream.read(min(left, _CHUNK))
            if not data:
                raise ImageError(f"{_shown(path)} became shorter while it was read")
            self._write(data)
            left -= len(data)

    def _write(self, data: bytes) -> None:
        self._sink.write(data)
        self._position += len(data)

    def _pad(self, alignment: int) -> None:
        self._write(bytes(-self._position % alignment))


class _TreeCopy:
    """One directory of the host on its way into an archive."""

    def __init__(
        self, writer: CpioWriter, source: bytes, at: bytes, keep_owners: bool, keep_times: bool
    ) -> None:
        self._writer = writer
        self._source = source
        self._at = at
        self._keep_owners = keep_owners
        self._keep_times = keep_times
        self._linked: dict[tuple[int, int], list[bytes]] = {}

    def copy(self) -> None:
        """Write everything below the source."""
        if self._at:
            self._writer.directory(self._at, self._attributes(os.stat(self._source)))
        self._directory(b"")
        for paths in self._linked.values():
            self._file(paths)

    def _directory(self, path: bytes) -> None:
        with os.scandir(os.path.join(self._source, path)) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            self._entry(os.path.join(path, entry.name), entry.stat(follow_symlinks=False))

    def _entry(self, path: bytes, status: os.stat_result) -> None:
        name, attributes = os.path.join(self._at, path), self._attributes(status)
        device = (os.major(status.st_rdev), os.minor(status.st_rdev))
        match stat.S_IFMT(status.st_mode):
            case stat.S_IFDIR:
                self._writer.directory(name, attributes)
                self._directory(path)
            case stat.S_IFREG if status.st_nlink > 1:
                self._linked.setdefault((status.st_dev, status.st_ino), []).append(path)
            case stat.S_IFREG:
                self._file([path])
            case stat.S_IFLNK:
                target = os.readlink(os.path.join(self._source, path))
                self._writer.symbolic_link(name, target, attributes)
            case stat.S_IFCHR:
                self._writer.character_device(name, *device, attributes)
            case stat.S_IFBLK:
                self._writer.block_device(name, *device, attributes)
            case stat.S_IFIFO:
                self._writer.pipe(name, attributes)

    def _file(self, paths: list[bytes]) -> None:
        with open(os.path.join(self._source, paths[0]), "rb") as stream:
            status = os.fstat(stream.fileno())
            names = [os.path.join(self._at, path) for path in paths]
            self._writer.linked_file(names, stream, self._attributes(status), size=status.st_size)

    def _attributes(self, status: os.stat_result) -> Attributes:
        owner = (status.st_uid, status.st_gid) if self._keep_owners else (0, 0)
        return Attributes(
            stat.S_IMODE(status.st_mode), *owner, mtime=int(status.st_mtime) if self._keep_times else 0
        )


def concatenate(sink: BinaryIO, archives: Sequence[Path]) -> None:
    """Append archives one behind the other, as Linux unpacks them; each may be compressed by itself."""
    for archive in archives:
        with archive.open("rb") as stream:
            shutil.copyfileobj(stream, sink)
        sink.write(bytes(-sink.tell() % _ALIGNMENT))


def _path(name: str | bytes) -> bytes:
    """A name as the archive has it: relative to the root, with single slashes. Raises ImageError."""
    parts = [part for part in os.fsencode(name).split(b"/") if part not in (b"", b".")]
    path = b"/".join(parts)
    if b".." in parts or b"\0" in path:
        raise ImageError(f"{_shown(path)} is no path below the root of an initial file system")
    if len(path) >= _PATH_MAXIMUM or path == _TRAILER:
        raise ImageError(f"{_shown(path)} cannot be a name in an initial file system")
    return path


def _shown(path: bytes) -> str:
    return repr(os.fsdecode(path if len(path) < 80 else path[:80] + b"..."))
