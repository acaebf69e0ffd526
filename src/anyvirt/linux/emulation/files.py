"""System calls on files that need more than passing on: opening, status, links, vectors, locks."""

from __future__ import annotations

import ctypes
import errno
import struct
import threading
from typing import TYPE_CHECKING

from anyvirt.linux.emulation import host, procfs
from anyvirt.linux.emulation.abi import HOST_STAT
from anyvirt.linux.emulation.host import HOST
from anyvirt.linux.emulation.table import system_call

if TYPE_CHECKING:
    from anyvirt.linux.emulation.process import Process

_NEWFSTATAT = HOST["newfstatat"]
_FSTAT = HOST["fstat"]
_AT_SYMLINK_NOFOLLOW = 0x100


class _Scratch(threading.local):
    """Room for a status of a file; each thread has its own."""

    def __init__(self) -> None:
        self.buffer = ctypes.create_string_buffer(HOST_STAT.structure.size)
        self.address = ctypes.addressof(self.buffer)


_scratch = _Scratch()
_identity = struct.Struct("<QQ")


@system_call("openat", "fd path flags mode", restart=True)
def openat(process: Process, directory: int, path: int, flags: int, mode: int) -> int:
    """Open a file; the guest's own view of /proc/self replaces the emulator's"""
    fd = process.blocking_call("openat", directory, process.pointer(path), flags, mode)
    if fd == -errno.EACCES and path:
        return procfs.refused(process, process.memory.read_string(path), flags)
    return fd if fd < 0 else _opened(process, fd, path, flags)


@system_call("openat2", "fd path pointer size", restart=True)
def openat2(process: Process, directory: int, path: int, how: int, size: int) -> int:
    """Open a file with constraints on the way to it"""
    fd = process.blocking_call("openat2", directory, process.pointer(path), process.pointer(how, size), size)
    if fd < 0:
        return fd
    (flags,) = struct.unpack("<Q", process.memory.read(how, 8))
    return _opened(process, fd, path, flags)


def _opened(process: Process, fd: int, path: int, flags: int) -> int:
    """`fd`, or the descriptor of what the guest must see in its place."""
    if host.call(_FSTAT, fd, _scratch.address) < 0:
        return fd
    device, inode = _identity.unpack_from(_scratch.buffer)
    if device == procfs.device() or (device, inode) == procfs.emulator_identity():
        return procfs.replace(process, fd, process.memory.read_string(path), flags)
    return fd


@system_call("newfstatat", "fd path pointer flags")
def newfstatat(process: Process, directory: int, path: int, buffer: int, flags: int) -> int:
    """Status of a file by name"""
    result = host.call(_NEWFSTATAT, directory, process.pointer(path), _scratch.address, flags)
    follows = not flags & _AT_SYMLINK_NOFOLLOW
    if result == 0 and follows and _identity.unpack_from(_scratch.buffer) == procfs.emulator_identity():
        actual = procfs.executable(process, process.memory.read_string(path))
        if actual is not None:
            content = ctypes.create_string_buffer(actual)
            result = host.call(_NEWFSTATAT, directory, ctypes.addressof(content), _scratch.address, flags)
    return _give_stat(process, result, buffer)


@system_call("fstat", "fd pointer")
def fstat(process: Process, fd: int, buffer: int) -> int:
    """Status of an open file"""
    return _give_stat(process, host.call(_FSTAT, fd, _scratch.address), buffer)


def _give_stat(process: Process, result: int, buffer: int) -> int:
    """Store the host's status in the guest's layout."""
    if result < 0:
        return result
    values = HOST_STAT.structure.unpack(_scratch.buffer)
    abi = process.abi
    process.memory.write(buffer, abi.stat.structure.pack(*[values[index] for index in abi.stat_order]))
    return 0


@system_call("readlinkat", "fd path buffer size")
def readlinkat(process: Process, directory: int, path: int, buffer: int, size: int) -> int:
    """Target of a symbolic link; /proc/self/exe is the guest's program"""
    actual = procfs.executable(process, process.memory.read_string(path)) if path else None
    if actual is not None and size:
        process.memory.write(buffer, actual[:size])
        return min(len(actual), size)
    return host.named("readlinkat", directory, process.pointer(path), process.pointer(buffer, size), size)


_IO_VECTOR = struct.Struct("<QQ")
_MAXIMUM_VECTORS = 1024


def host_vectors(process: Process, address: int, count: int) -> ctypes.Array[ctypes.c_char]:
    """A guest's array of `struct iovec` as the host's. Raises OSError(EINVAL) or GuestFault."""
    if count > _MAXIMUM_VECTORS:
        raise OSError(errno.EINVAL, "too many vectors")
    memory = process.memory
    result = ctypes.create_string_buffer(max(count, 1) * _IO_VECTOR.size)
    content = memory.read(address, count * _IO_VECTOR.size) if count else b""
    for index, (base, length) in enumerate(_IO_VECTOR.iter_unpack(content)):
        pointer = memory.host_address(base, length) if length else 0
        _IO_VECTOR.pack_into(result, index * _IO_VECTOR.size, pointer, length)
    return result


def _vectored(name: str, signature: str, summary: str, *, restart: bool = True) -> None:
    def handler(process: Process, fd: int, address: int, count: int, *rest: int) -> int:
        vectors = host_vectors(process, address, count)
        return process.blocking_call(name, fd, ctypes.addressof(vectors), count, *rest)

    handler.__doc__ = summary
    system_call(name, signature, restart=restart)(handler)


_vectored("readv", "fd pointer size", "Read into several buffers")
_vectored("writev", "fd pointer size", "Write from several buffers")
_vectored("preadv", "fd pointer size size size", "Read at an offset into several buffers")
_vectored("pwritev", "fd pointer size size size", "Write at an offset from several buffers")
_vectored("preadv2", "fd pointer size size size flags", "Read at an offset with flags")
_vectored("pwritev2", "fd pointer size size size flags", "Write at an offset with flags")
_vectored("vmsplice", "fd pointer size flags", "Splice memory into a pipe")

_FCNTL_POINTERS = {
    5: 32, 6: 32, 7: 32,  # F_GETLK, F_SETLK, F_SETLKW: struct flock
    15: 8, 16: 8,  # F_SETOWN_EX, F_GETOWN_EX: struct f_owner_ex
    17: 8,  # F_GETOWNER_UIDS: two uid_t
    36: 32, 37: 32, 38: 32,  # F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW
    1035: 8, 1036: 8, 1037: 8, 1038: 8,  # F_GET_RW_HINT … F_SET_FILE_RW_HINT
}  # fmt: skip


@system_call("fcntl", "fd int size", restart=True)
def fcntl(process: Process, fd: int, command: int, argument: int) -> int:
    """Manipulate a file descriptor; locks and owners are structures, all else is a number"""
    size = _FCNTL_POINTERS.get(command)
    if size is not None:
        argument = process.memory.host_address(argument, size)
    return process.blocking_call("fcntl", fd, command, argument)
