"""System calls on sockets whose structures hold pointers: messages and a few options."""

from __future__ import annotations

import ctypes
import errno
import struct
from typing import TYPE_CHECKING

from anyvirt.linux.emulation import host
from anyvirt.linux.emulation.files import host_vectors
from anyvirt.linux.emulation.table import system_call

if TYPE_CHECKING:
    from anyvirt.linux.emulation.process import Process

# struct msghdr: name, its length, vectors, their count, control data, its length, flags.
_HEADER = struct.Struct("<Qi4xQQQQI4x")
_MULTIPLE_STRIDE = _HEADER.size + 8
_MAXIMUM_MESSAGES = 1024
_SOL_SOCKET = 1
_SOL_TCP = 6
_SOL_XDP = 283
_SO_ATTACH_FILTER = 26
_SO_ATTACH_REUSEPORT_CBPF = 51
_TCP_ZEROCOPY_RECEIVE = 35
_XT_SO_SET_REPLACE = 64
_IP_LEVELS = (0, 41)
_SOL_PACKET = 263
_PACKET_FANOUT_DATA = 22
_FILTER_PROGRAM = struct.Struct("<H6xQ")
_FILTER_INSTRUCTION_SIZE = 8
_WITH_POINTERS = frozenset(
    ((_SOL_PACKET, _PACKET_FANOUT_DATA), *((level, _XT_SO_SET_REPLACE) for level in _IP_LEVELS))
)
"""Options whose structures lead the kernel to addresses that are not translated."""


class _Message:
    """One `struct msghdr` of the guest and its counterpart for the host's kernel."""

    def __init__(self, process: Process, address: int) -> None:
        self._process = process
        self._address = address
        self._fields = _HEADER.unpack(process.memory.read(address, _HEADER.size))
        name, name_length, vectors, count, control, control_length, flags = self._fields
        if name_length < 0:
            raise OSError(errno.EINVAL, "negative length of a name")
        if count > _MAXIMUM_MESSAGES:
            raise OSError(errno.EMSGSIZE, "too many vectors")
        self._vectors = host_vectors(process, vectors, count)
        content = _HEADER.pack(
            process.pointer(name, name_length),
            name_length,
            ctypes.addressof(self._vectors),
            count,
            process.pointer(control, control_length) if control_length else 0,
            control_length,
            flags,
        )
        self._buffer = ctypes.create_string_buffer(content, len(content))
        self.address = ctypes.addressof(self._buffer)

    def give_back(self) -> None:
        """Store what receiving changed: the two lengths and the flags."""
        _, name_length, _, _, _, control_length, flags = _HEADER.unpack(self._buffer)
        name, _, vectors, count, control, _, _ = self._fields
        content = _HEADER.pack(name, name_length, vectors, count, control, control_length, flags)
        self._process.memory.write(self._address, content)


@system_call("sendmsg", "fd pointer flags", restart=True)
def sendmsg(process: Process, fd: int, address: int, flags: int) -> int:
    """Send a message, possibly with file descriptors"""
    message = _Message(process, address)
    return process.blocking_call("sendmsg", fd, message.address, flags)


@system_call("recvmsg", "fd pointer flags", restart=True)
def recvmsg(process: Process, fd: int, address: int, flags: int) -> int:
    """Receive a message, possibly with file descriptors"""
    message = _Message(process, address)
    result = process.blocking_call("recvmsg", fd, message.address, flags)
    if result >= 0:
        message.give_back()
    return result


@system_call("sendmmsg", "fd pointer int flags", restart=True)
def sendmmsg(process: Process, fd: int, messages: int, count: int, flags: int) -> int:
    """Send several messages"""
    sent = 0
    for index in range(min(max(count, 0), _MAXIMUM_MESSAGES)):
        address = messages + index * _MULTIPLE_STRIDE
        result = sendmsg(process, fd, address, flags)
        if result < 0:
            return sent or result
        process.memory.write(address + _HEADER.size, struct.pack("<I", result))
        sent += 1
    return sent


_MSG_WAITFORONE = 0x10000
_MSG_DONTWAIT = 0x40


@system_call("recvmmsg", "fd pointer int flags pointer", restart=True)
def recvmmsg(process: Process, fd: int, messages: int, count: int, flags: int, timeout: int) -> int:
    """Receive several messages; a timeout is looked at only between them, as in Linux"""
    import time

    deadline = None
    if timeout:
        seconds, nanoseconds = struct.unpack("<qq", process.memory.read(timeout, 16))
        deadline = time.monotonic() + seconds + nanoseconds / 1e9
    received = 0
    for index in range(min(max(count, 0), _MAXIMUM_MESSAGES)):
        address = messages + index * _MULTIPLE_STRIDE
        result = recvmsg(process, fd, address, flags & ~_MSG_WAITFORONE)
        if result < 0:
            return received or result
        process.memory.write(address + _HEADER.size, struct.pack("<I", result))
        received += 1
        if flags & _MSG_WAITFORONE:
            flags |= _MSG_DONTWAIT
        if deadline is not None and time.monotonic() >= deadline:
            break
    return received


@system_call("setsockopt", "fd int int pointer int")
def setsockopt(process: Process, fd: int, level: int, option: int, value: int, length: int) -> int:
    """Set a socket's option; packet filters are translated, other options with pointers refused"""
    if length < 0:
        return -errno.EINVAL
    if level == _SOL_XDP or (level, option) in _WITH_POINTERS:
        return -errno.ENOPROTOOPT
    if level == _SOL_SOCKET and option in (_SO_ATTACH_FILTER, _SO_ATTACH_REUSEPORT_CBPF):
        return _attach_filter(process, fd, option, value, length)
    return host.named("setsockopt", fd, level, option, process.pointer(value, length), length)


def _attach_filter(process: Process, fd: int, option: int, value: int, length: int) -> int:
    if length != _FILTER_PROGRAM.size:
        return -errno.EINVAL
    count, program = _FILTER_PROGRAM.unpack(process.memory.read(value, length))
    pointer = process.memory.host_address(program, count * _FILTER_INSTRUCTION_SIZE)
    buffer = ctypes.create_string_buffer(_FILTER_PROGRAM.pack(count, pointer), length)
    return host.named("setsockopt", fd, _SOL_SOCKET, option, ctypes.addressof(buffer), length)


@system_call("getsockopt", "fd int int pointer pointer")
def getsockopt(process: Process, fd: int, level: int, option: int, value: int, length: int) -> int:
    """Get a socket's option; those that map memory are refused"""
    if level == _SOL_XDP or (level == _SOL_TCP and option == _TCP_ZEROCOPY_RECEIVE):
        return -errno.ENOPROTOOPT
    return host.named("getsockopt", fd, level, option, process.pointer(value), process.pointer(length, 4))
