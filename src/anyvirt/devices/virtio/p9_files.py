"""The files of a shared directory, as a 9P server handles them: by descriptors, never by paths of the guest.

Each fid holds an O_PATH descriptor. Names are looked up one at a time, in a directory that is held, without
following symbolic links; so whatever links or renames a guest makes, it stays inside. Only regular files
and directories are opened: no device node or FIFO of the host is reached. Everything raises OSError.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

QID = struct.Struct("<BIQ")
_DIRECTORY, _SYMLINK = 0x80, 0x02
_HOLD = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_PASSED_FLAGS = os.O_ACCMODE | os.O_TRUNC | os.O_SYNC
"""O_APPEND is not passed: drivers give the offset of each write."""
_MOST_NAME = 255
_WORD = (1 << 64) - 1


@dataclass(slots=True)
class Fid:
    """A file that the guest has a number for."""

    held: int
    """O_PATH descriptor."""
    opened: int = -1
    flags: int = 0
    entries: Sequence[tuple[bytes, bytes, int]] = ()
    """Of an open directory, as it was when it was last read from the beginning: name, qid, type."""

    def close(self) -> None:
        """Let go."""
        for descriptor in (self.held, self.opened):
            if descriptor >= 0:
                os.close(descriptor)
        self.held = self.opened = -1

    @property
    def path(self) -> str:
        """A path of the host that is this very file."""
        return f"/proc/self/fd/{self.held}"

    def io(self) -> int:
        """The descriptor to read and write by."""
        if self.opened < 0:
            raise error(errno.EBADF)
        return self.opened


def error(number: int) -> OSError:
    """An error of the host's kind."""
    return OSError(number, os.strerror(number))


def name_of(name: bytes) -> bytes:
    """A name that can be looked up or made in a directory."""
    if not name or name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise error(errno.EINVAL)
    if len(name) > _MOST_NAME:
        raise error(errno.ENAMETOOLONG)
    return name


class SharedDirectory:
    """A directory of the host that a guest sees, or a single file in it as if it had nothing else."""

    def __init__(self, path: Path | str, *, read_only: bool, only: bytes | None = None) -> None:
        """With the name `only`, that is all there is; the directory itself cannot be changed then."""
        self.read_only = read_only
        self._only = only
        self._root = Fid(os.open(path, _HOLD & ~os.O_NOFOLLOW | os.O_DIRECTORY))
        self._device = os.fstat(self._root.held).st_dev

    def close(self) -> None:
        """Let go of the directory."""
        self._root.close()

    def attach(self) -> Fid:
        """The directory itself."""
        return self.duplicate(self._root)

    def duplicate(self, fid: Fid) -> Fid:
        """The same file, not open."""
        return Fid(os.dup(fid.held))

    def walk(self, fid: Fid, name: bytes) -> Fid:
        """A file in a directory; its parent for `..`, but not above the shared directory."""
        if name == b"..":
            return self.at(self.location(fid)[:-1])
        if self._is_hidden(fid, name):
            raise error(errno.ENOENT)
        return Fid(os.open(name_of(name), _HOLD, dir_fd=fid.held))

    def location(self, fid: Fid) -> list[bytes]:
        """The names on the way from the shared directory to a file, as of now."""
        root = os.fsencode(os.readlink(self._root.path)).rstrip(b"/")
        path = os.fsencode(os.readlink(fid.path))
        if self._is_root(fid):
            return []
        if not path.startswith(root + b"/"):
            raise error(errno.ENOENT)
        return path[len(root) + 1 :].split(b"/")

    def at(self, names: Sequence[bytes]) -> Fid:
        """The file at the end of a way."""
        fid = self.attach()
        for name in names:
            before = fid
            try:
                fid = Fid(os.open(name_of(name), _HOLD, dir_fd=before.held))
            finally:
                before.close()
        return fid

    def _is_hidden(self, directory: Fid, name: bytes) -> bool:
        return self._only not in (None, name) and self._is_root(directory)

    def _is_root(self, fid: Fid) -> bool:
        return os.path.samestat(os.fstat(fid.held), os.fstat(self._root.held))

    def _check_changeable(self, directory: Fid) -> None:
        """Refuse changes of names where they are not the guest's to change."""
        self.check_writable()
        if self._only is not None and self._is_root(directory):
            raise error(errno.EACCES)

    def qid(self, fid: Fid) -> bytes:
        """How the guest tells files apart."""
        return self.qid_of(os.fstat(fid.held))

    def qid_of(self, status: os.stat_result) -> bytes:
        """See `qid`. Files of other file systems below the directory do not look like those of its own."""
        kind = _DIRECTORY if stat.S_ISDIR(status.st_mode) else _SYMLINK if stat.S_ISLNK(status.st_mode) else 0
        version = (status.st_mtime_ns ^ status.st_size) & 0xFFFFFFFF
        return QID.pack(kind, version, (status.st_ino ^ (status.st_dev - self._device) << 48) & _WORD)

    def check_writable(self) -> None:
        """Refuse changes of what is shared for reading only."""
        if self.read_only:
            raise error(errno.EROFS)

    # Open files -----------------------------------------------------------------------------------------

    def open(self, fid: Fid, flags: int) -> None:
        """Open a file with the flags of open(2)."""
        if fid.opened >= 0:
            raise error(errno.EBADF)
        if flags & (os.O_ACCMODE | os.O_TRUNC):
            self.check_writable()
        mode = os.fstat(fid.held).st_mode
        if stat.S_ISLNK(mode):
            raise error(errno.ELOOP)
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise error(errno.EACCES)
        fid.opened, fid.flags = os.open(fid.path, flags & _PASSED_FLAGS | _OPEN), flags & _PASSED_FLAGS

    def create(self, fid: Fid, name: bytes, flags: int, mode: int) -> None:
        """Make a regular file in a directory, or open the one that is there; the fid becomes the file."""
        self._check_changeable(fid)
        passed = flags & _PASSED_FLAGS
        try:
            exclusive = passed | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | _OPEN
            opened = os.open(name_of(name), exclusive, mode & 0o7777, dir_fd=fid.held)
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
            there = self.walk(fid, name)
            try:
                self.open(there, flags)
            except OSError:
                there.close()
                raise
        else:
            try:
                there = Fid(os.open(f"/proc/self/fd/{opened}", os.O_PATH | os.O_CLOEXEC), opened, passed)
            except OSError:
                os.close(opened)
                raise
        fid.close()
        fid.held, fid.opened, fid.flags = there.held, there.opened, there.flags

    def read_directory(self, fid: Fid, position: int) -> Sequence[tuple[bytes, bytes, int]]:
        """What is in an open directory, from the entry with that number."""
        descriptor = fid.io()
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise error(errno.ENOTDIR)
        if position == 0:
            os.lseek(descriptor, 0, os.SEEK_SET)
            own = self.qid(fid)
            entries = [(b".", own, 4), (b"..", own, 4)]
            with os.scandir(descriptor) as listing:
                for entry in listing:
                    if self._is_hidden(fid, os.fsencode(entry.name)):
                        continue
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        entries.append((os.fsencode(entry.name), self.qid_of(status), status.st_mode >> 12))
            fid.entries = entries
        return fid.entries[position:]

    # Changes --------------------------------------------------------------------------------------------

    def make_directory(self, fid: Fid, name: bytes, mode: int) -> bytes:
        """Make a directory; its qid."""
        self._check_changeable(fid)
        os.mkdir(name_of(name), mode & 0o7777, dir_fd=fid.held)
        return self._qid_in(fid, name)

    def make_symlink(self, fid: Fid, name: bytes, target: bytes) -> bytes:
        """Make a symbolic link, which only the guest ever follows; its qid."""
        self._check_changeable(fid)
        os.symlink(target, name_of(name), dir_fd=fid.held)
        return self._qid_in(fid, name)

    def make_node(self, fid: Fid, name: bytes, mode: int) -> bytes:
        """Make a file, a FIFO or a socket; no device nodes."""
        self._check_changeable(fid)
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
            raise error(errno.EPERM)
        os.mknod(name_of(name), stat.S_IFMT(mode) | mode & 0o7777, dir_fd=fid.held)
        return self._qid_in(fid, name)

    def _qid_in(self, fid: Fid, name: bytes) -> bytes:
        return self.qid_of(os.stat(name, dir_fd=fid.held, follow_symlinks=False))

    def link(self, directory: Fid, fid: Fid, name: bytes) -> None:
        """Give a file another name."""
        self._check_changeable(directory)
        os.link(fid.path, name_of(name), dst_dir_fd=directory.held, follow_symlinks=True)

    def rename(self, old: Fid, old_name: bytes, new: Fid, new_name: bytes) -> None:
        """Give a file another place."""
        self._check_changeable(old)
        self._check_changeable(new)
        os.rename(name_of(old_name), name_of(new_name), src_dir_fd=old.held, dst_dir_fd=new.held)

    def remove(self, fid: Fid, name: bytes, *, is_directory: bool) -> None:
        """Remove a name."""
        self._check_changeable(fid)
        (os.rmdir if is_directory else os.unlink)(name_of(name), dir_fd=fid.held)

    def set_owner(self, fid: Fid, user: int, group: int) -> None:
        """Change owners (-1: leave) as far as the host allows it; unprivileged hosts do not, silently."""
        self._change(fid)
        with contextlib.suppress(PermissionError):
            os.chown(fid.path, user, group)

    def set_mode(self, fid: Fid, mode: int) -> None:
        """Change permissions."""
        self._change(fid)
        os.chmod(fid.path, mode & 0o7777)

    def set_size(self, fid: Fid, size: int) -> None:
        """Cut a file off, or extend it."""
        self._change(fid)
        if fid.opened >= 0 and fid.flags & os.O_ACCMODE:
            os.ftruncate(fid.opened, size)
            return
        other = self.duplicate(fid)
        try:
            self.open(other, os.O_WRONLY)
            os.ftruncate(other.opened, size)
        finally:
            other.close()

    def set_times(self, fid: Fid, accessed: int, modified: int) -> None:
        """Change times, in nanoseconds."""
        self._change(fid)
        os.utime(fid.path, ns=(accessed, modified))

    def _change(self, fid: Fid) -> None:
        self._check_changeable(fid)
        if stat.S_ISLNK(os.fstat(fid.held).st_mode):
            raise error(errno.EOPNOTSUPP)
