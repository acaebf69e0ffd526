"""virtio-9p: a directory of the host shared with the guest, by the protocol 9P2000.L (device type 9).

The protocol is described in the Linux kernel, include/net/9p/9p.h, and in the diod documentation. Content of
files goes straight between file and guest memory. Requests are served in order, so there is nothing to flush.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
import time
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, Any

from anyvirt.devices.virtio.device import DeviceId, VirtioDevice
from anyvirt.devices.virtio.p9_files import Fid, SharedDirectory, error
from anyvirt.devices.virtio.queue import QueueError
from anyvirt.devices.virtio.views import copy_in, copy_out, split, total
from anyvirt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anyvirt.devices.bus import DirectMemory
    from anyvirt.devices.virtio.queue import Chain
    from anyvirt.devices.virtio.views import Views

MOST_MESSAGE = 1 << 20
"""Bytes of a message that are offered to drivers."""
LEAST_MESSAGE = 4096
MOST_FIDS = 1 << 16
MOST_NAMES = 16
"""In one walk (P9_MAXWELEM)."""
VERSION = b"9P2000.L"

_HEADER = struct.Struct("<IBH")
_IO_HEADER = struct.Struct("<IBHI")
_WRITE = struct.Struct("<IQI")
_SMALL = 16384
"""Bytes of a request that are looked at; names and paths fit."""
_RLERROR = 7
_REMOVE_DIRECTORY = 0x200
_GETATTR_BASIC = 0x7FF
_FILE_SYSTEM = 0x01021997
_UNLOCKED = 2


class P9Feature(IntFlag):
    """As Linux has it (include/uapi/linux/virtio_9p.h); VIRTIO 1.2 only reserves the device."""

    MOUNT_TAG = 1 << 0


class Message(IntEnum):
    """Requests; an answer has the next number."""

    STATFS = 8
    LOPEN = 12
    LCREATE = 14
    SYMLINK = 16
    MKNOD = 18
    READLINK = 22
    GETATTR = 24
    SETATTR = 26
    READDIR = 40
    FSYNC = 50
    LOCK = 52
    GETLOCK = 54
    LINK = 70
    MKDIR = 72
    RENAMEAT = 74
    UNLINKAT = 76
    VERSION = 100
    ATTACH = 104
    FLUSH = 108
    WALK = 110
    READ = 116
    WRITE = 118
    CLUNK = 120


class SetAttribute(IntFlag):
    """What a request to change attributes changes."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    ATIME_SET = 1 << 7
    MTIME_SET = 1 << 8


class _Fields:
    """The fields of a request, one after the other."""

    def __init__(self, content: bytes) -> None:
        self._content, self._position = content, 0

    def take(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + layout, self._content, self._position)
        self._position += struct.calcsize("<" + layout)
        return values

    def number(self) -> int:
        return int(self.take("I")[0])

    def text(self) -> bytes:
        (length,) = self.take("H")
        return bytes(self.take(f"{length}s")[0])


class VirtioP9(VirtioDevice):
    """See the module. `close` lets go of the directory."""

    device_id = DeviceId.P9
    pci_class = 0x018000

    def __init__(
        self,
        memory: DirectMemory,
        directory: Path | str,
        *,
        tag: str,
        read_only: bool = False,
        only: bytes | None = None,
        queue_size: int = 128,
        post: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        """`tag` is the name by which the guest mounts it; `only` names a file that is all it sees there.

        Raises UsageError if there is no such directory.
        """
        super().__init__(memory, queue_sizes=[queue_size], features=P9Feature.MOUNT_TAG, post=post)
        self._tag = tag.encode()
        self._fids: dict[int, Fid] = {}
        self._most = LEAST_MESSAGE
        try:
            self._files = SharedDirectory(directory, read_only=read_only, only=only)
        except OSError as problem:
            raise UsageError(f"cannot share the directory {directory}: {problem.strerror}") from None
        self._answers: dict[int, Callable[[_Fields], bytes]] = {
            Message.STATFS: self._statfs,
            Message.LOPEN: self._lopen,
            Message.LCREATE: self._lcreate,
            Message.SYMLINK: self._symlink,
            Message.MKNOD: self._mknod,
            Message.READLINK: self._readlink,
            Message.GETATTR: self._getattr,
            Message.SETATTR: self._setattr,
            Message.READDIR: self._readdir,
            Message.FSYNC: self._fsync,
            Message.LOCK: lambda _: b"\0",
            Message.GETLOCK: self._getlock,
            Message.LINK: self._link,
            Message.MKDIR: self._mkdir,
            Message.RENAMEAT: self._renameat,
            Message.UNLINKAT: self._unlinkat,
            Message.VERSION: self._version,
            Message.ATTACH: self._attach,
            Message.FLUSH: lambda _: b"",
            Message.WALK: self._walk,
            Message.CLUNK: self._clunk,
        }

    def close(self) -> None:
        """Let go of the directory and of all files."""
        self._forget_all()
        self._files.close()

    def config(self) -> bytes:
        """The length of the tag, and the tag."""
        return struct.pack("<H", len(self._tag)) + self._tag

    def stopped(self) -> None:
        """See VirtioDevice.stopped."""
        self._forget_all()

    def _forget_all(self) -> None:
        for fid in self._fids.values():
            fid.close()
        self._fids.clear()

    def handle(self, index: int, chain: Chain) -> int:
        """One request: size, type, tag and what the type has; the answer likewise."""
        header = copy_out(chain.readable, _HEADER.size)
        if len(header) < _HEADER.size or total(chain.writable) < _IO_HEADER.size:
            raise QueueError("a message of 9P without its header or without room for an error")
        _, kind, tag = _HEADER.unpack(header)
        body = split(chain.readable, _HEADER.size)[1]
        try:
            if kind == Message.READ:
                return self._read(tag, _Fields(copy_out(body, 16)), chain.writable)
            if kind == Message.WRITE:
                answer = self._write(body)
            elif kind in self._answers:
                answer = self._answers[kind](_Fields(copy_out(body, _SMALL)))
            else:
                raise error(errno.EOPNOTSUPP)
            if _HEADER.size + len(answer) > total(chain.writable):
                raise error(errno.EMSGSIZE)
        except OSError as problem:
            kind, answer = _RLERROR - 1, struct.pack("<I", problem.errno or errno.EIO)
        except (struct.error, ValueError, OverflowError):
            kind, answer = _RLERROR - 1, struct.pack("<I", errno.EINVAL)
        return copy_in(chain.writable, _HEADER.pack(_HEADER.size + len(answer), kind + 1, tag) + answer)

    def _fid(self, number: int) -> Fid:
        if number not in self._fids:
            raise error(errno.EBADF)
        return self._fids[number]

    def _keep(self, number: int, fid: Fid) -> None:
        """Give a file a number that is free."""
        if number in self._fids or len(self._fids) >= MOST_FIDS:
            fid.close()
            raise error(errno.EBADF if number in self._fids else errno.ENFILE)
        self._fids[number] = fid

    # A session ------------------------------------------------------------------------------------------

    def _version(self, fields: _Fields) -> bytes:
        most, version = fields.number(), fields.text()
        self._forget_all()
        self._most = max(min(most, MOST_MESSAGE), LEAST_MESSAGE)
        answer = VERSION if version == VERSION else b"unknown"
        return struct.pack("<IH", min(most, MOST_MESSAGE), len(answer)) + answer

    def _attach(self, fields: _Fields) -> bytes:
        number = fields.number()
        fid = self._files.attach()
        self._keep(number, fid)
        return self._files.qid(fid)

    def _walk(self, fields: _Fields) -> bytes:
        old, new, count = fields.take("IIH")
        if count > MOST_NAMES:
            raise error(errno.EINVAL)
        names = [fields.text() for _ in range(count)]
        fid, qids = self._files.duplicate(self._fid(old)), []
        try:
            for name in names:
                following = self._files.walk(fid, name)
                fid.close()
                fid = following
                qids.append(self._files.qid(fid))
        except OSError:
            fid.close()
            if not qids:
                raise
            return struct.pack("<H", len(qids)) + b"".join(qids)
        if new == old:
            self._fids.pop(old).close()
        self._keep(new, fid)
        return struct.pack("<H", len(qids)) + b"".join(qids)

    def _clunk(self, fields: _Fields) -> bytes:
        number = fields.number()
        self._fid(number).close()
        del self._fids[number]
        return b""

    # Content --------------------------------------------------------------------------------------------

    def _read(self, tag: int, fields: _Fields, answer: Views) -> int:
        number, offset, count = fields.take("IQI")
        head, room = split(answer, _IO_HEADER.size)
        room = split(room, min(count, self._most))[0]
        done = os.preadv(self._fid(number).io(), room, offset) if room else 0
        size = _IO_HEADER.size + done
        copy_in(head, _IO_HEADER.pack(size, Message.READ + 1, tag, done))
        return size

    def _write(self, body: Views) -> bytes:
        number, offset, count = _WRITE.unpack(copy_out(body, _WRITE.size))
        data = split(split(body, _WRITE.size)[1], count)[0]
        self._files.check_writable()
        done = os.pwritev(self._fid(number).io(), data, offset) if data else 0
        return struct.pack("<I", done)

    def _fsync(self, fields: _Fields) -> bytes:
        number, only_data = fields.take("II")
        (os.fdatasync if only_data else os.fsync)(self._fid(number).io())
        return b""

    def _lopen(self, fields: _Fields) -> bytes:
        number, flags = fields.take("II")
        self._files.open(self._fid(number), flags)
        return self._files.qid(self._fid(number)) + bytes(4)

    def _lcreate(self, fields: _Fields) -> bytes:
        number, name = fields.number(), fields.text()
        flags, mode, _ = fields.take("III")
        self._files.create(self._fid(number), name, flags, mode)
        return self._files.qid(self._fid(number)) + bytes(4)

    def _readdir(self, fields: _Fields) -> bytes:
        number, position, count = fields.take("IQI")
        room, result = min(count, self._most - _IO_HEADER.size), bytearray()
        entries = self._files.read_directory(self._fid(number), position)
        for index, (name, qid, kind) in enumerate(entries, position + 1):
            entry = qid + struct.pack("<QBH", index, kind, len(name)) + name
            if len(result) + len(entry) > room:
                break
            result += entry
        return struct.pack("<I", len(result)) + result

    # Attributes -----------------------------------------------------------------------------------------

    def _statfs(self, fields: _Fields) -> bytes:
        status = os.fstatvfs(self._fid(fields.number()).held)
        counts = (status.f_blocks, status.f_bfree, status.f_bavail, status.f_files, status.f_ffree)
        return struct.pack("<IIQQQQQQI", _FILE_SYSTEM, status.f_bsize, *counts, 0, status.f_namemax)

    def _getattr(self, fields: _Fields) -> bytes:
        number, _ = fields.take("IQ")
        status = os.fstat(self._fid(number).held)
        times = [part for when in (status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns) for part in
                 divmod(when, 1_000_000_000)]  # fmt: skip
        return (
            struct.pack("<Q", _GETATTR_BASIC)
            + self._files.qid_of(status)
            + struct.pack("<III", status.st_mode, status.st_uid, status.st_gid)
            + struct.pack("<QQQ", status.st_nlink, status.st_rdev, status.st_size)
            + struct.pack("<QQ", status.st_blksize, status.st_blocks)
            + struct.pack("<6q4Q", *times, 0, 0, 0, 0)
        )

    def _setattr(self, fields: _Fields) -> bytes:
        number, valid, mode, user, group, size, *times = fields.take("IIIIIQQQQQ")
        fid = self._fid(number)
        self._files.check_writable()
        if valid & SetAttribute.SIZE:
            self._files.set_size(fid, size)
        if valid & (SetAttribute.UID | SetAttribute.GID):
            user = user if valid & SetAttribute.UID else -1
            self._files.set_owner(fid, user, group if valid & SetAttribute.GID else -1)
        if valid & SetAttribute.MODE:
            self._files.set_mode(fid, mode)
        if valid & (SetAttribute.ATIME | SetAttribute.MTIME):
            status, now = os.fstat(fid.held), time.time_ns()
            accessed, modified = status.st_atime_ns, status.st_mtime_ns
            if valid & SetAttribute.ATIME:
                accessed = _nanoseconds(times[:2]) if valid & SetAttribute.ATIME_SET else now
            if valid & SetAttribute.MTIME:
                modified = _nanoseconds(times[2:]) if valid & SetAttribute.MTIME_SET else now
            self._files.set_times(fid, accessed, modified)
        return b""

    def _readlink(self, fields: _Fields) -> bytes:
        fid = self._fid(fields.number())
        if not stat.S_ISLNK(os.fstat(fid.held).st_mode):
            raise error(errno.EINVAL)
        target = os.readlink(b"", dir_fd=fid.held)
        return struct.pack("<H", len(target)) + target

    def _getlock(self, fields: _Fields) -> bytes:
        """Nobody else has locks: those within the guest are its kernel's."""
        _, _, start, length, process = fields.take("IBQQI")
        client = fields.text()
        return struct.pack("<BQQIH", _UNLOCKED, start, length, process, len(client)) + client

    # Names ----------------------------------------------------------------------------------------------

    def _symlink(self, fields: _Fields) -> bytes:
        number, name, target = fields.number(), fields.text(), fields.text()
        return self._files.make_symlink(self._fid(number), name, target)

    def _mknod(self, fields: _Fields) -> bytes:
        number, name, mode = fields.number(), fields.text(), fields.number()
        return self._files.make_node(self._fid(number), name, mode)

    def _mkdir(self, fields: _Fields) -> bytes:
        number, name, mode = fields.number(), fields.text(), fields.number()
        return self._files.make_directory(self._fid(number), name, mode)

    def _link(self, fields: _Fields) -> bytes:
        directory, number, name = fields.number(), fields.number(), fields.text()
        self._files.link(self._fid(directory), self._fid(number), name)
        return b""

    def _renameat(self, fields: _Fields) -> bytes:
        old, old_name, new, new_name = fields.number(), fields.text(), fields.number(), fields.text()
        self._files.rename(self._fid(old), old_name, self._fid(new), new_name)
        return b""

    def _unlinkat(self, fields: _Fields) -> bytes:
        number, name, flags = fields.number(), fields.text(), fields.number()
        self._files.remove(self._fid(number), name, is_directory=bool(flags & _REMOVE_DIRECTORY))
        return b""

    # Life -----------------------------------------------------------------------------------------------

    def save_fields(self) -> dict[str, Any]:
        """See VirtioDevice.save_fields: where files are. What has no name any more is lost."""
        fids = []
        for number, fid in self._fids.items():
            with contextlib.suppress(OSError):
                fids.append([number, self._files.location(fid), fid.flags if fid.opened >= 0 else -1])
        return {"most": self._most, "fids": fids}

    def load_fields(self, fields: dict[str, Any]) -> None:
        """See VirtioDevice.load_fields. What is no longer there is a bad file to the guest."""
        saved = [(int(n), [bytes(name) for name in names], int(flags)) for n, names, flags in fields["fids"]]
        most = max(min(int(fields["most"]), MOST_MESSAGE), LEAST_MESSAGE)
        self._forget_all()
        self._most = most
        for number, names, flags in saved:
            with contextlib.suppress(OSError):
                fid = self._files.at(names)
                self._keep(number, fid)
                if flags >= 0:
                    self._files.open(fid, flags & ~os.O_TRUNC)


def _nanoseconds(parts: list[int]) -> int:
    return parts[0] * 1_000_000_000 + parts[1]
