"""System calls that wait for events: poll, select, epoll and signalfd, with their temporary signal masks."""

from __future__ import annotations

import ctypes
import errno
import struct
from typing import TYPE_CHECKING

from anyvirt.linux.emulation import host
from anyvirt.linux.emulation.abi import HOST_EPOLL_EVENT
from anyvirt.linux.emulation.signal_types import MASK_SIZE
from anyvirt.linux.emulation.signals import host_mask
from anyvirt.linux.emulation.table import system_call

if TYPE_CHECKING:
    from anyvirt.linux.emulation.process import Process

_EPOLL_CTL_DEL = 2
_MAXIMUM_EVENTS = 1 << 16
_TIMESPEC_SIZE = 16
_POLLFD_SIZE = 8
_SELECT_MASK = struct.Struct("<QQ")
_MASK = struct.Struct("<Q")


def _waiting(process: Process, name: str, mask: int | None, *arguments: int) -> int:
    """Make a blocking call whose last two arguments are a signal mask and its size."""
    if mask is None:
        return process.blocking_call(name, *arguments, 0, MASK_SIZE)
    buffer = ctypes.create_string_buffer(_MASK.pack(host_mask(mask)), _MASK.size)
    process.signals.wait_with(mask)
    return process.blocking_call(name, *arguments, ctypes.addressof(buffer), MASK_SIZE)


def _read_mask(process: Process, address: int, size: int) -> int | None:
    """The signal set at `address`, None for NULL. Raises OSError(EINVAL) for another size of set."""
    if not address:
        return None
    if size != MASK_SIZE:
        raise OSError(errno.EINVAL, "wrong size of a signal set")
    (mask,) = _MASK.unpack(process.memory.read(address, MASK_SIZE))
    return int(mask)


@system_call("ppoll", "pointer size pointer pointer size")
def ppoll(process: Process, fds: int, count: int, timeout: int, mask: int, mask_size: int) -> int:
    """Wait for events on file descriptors"""
    if count > _MAXIMUM_EVENTS << 4:
        return -errno.EINVAL
    wanted = _read_mask(process, mask, mask_size)
    pointer = process.pointer(fds, count * _POLLFD_SIZE)
    return _waiting(process, "ppoll", wanted, pointer, count, process.pointer(timeout, _TIMESPEC_SIZE))


@system_call("pselect6", "int pointer pointer pointer pointer pointer")
def pselect6(
    process: Process, count: int, readable: int, writable: int, exceptional: int, timeout: int, mask: int
) -> int:
    """Wait for events on sets of file descriptors"""
    wanted = None
    if mask:
        address, size = _SELECT_MASK.unpack(process.memory.read(mask, _SELECT_MASK.size))
        wanted = _read_mask(process, address, size)
    sets = (process.pointer(address, max(count, 0) // 8 + 8) for address in (readable, writable, exceptional))
    arguments = (count, *sets, process.pointer(timeout, _TIMESPEC_SIZE))
    if wanted is None:
        return process.blocking_call("pselect6", *arguments, 0)
    buffer = ctypes.create_string_buffer(_MASK.pack(host_mask(wanted)), _MASK.size)
    packed = ctypes.create_string_buffer(_SELECT_MASK.pack(ctypes.addressof(buffer), MASK_SIZE))
    process.signals.wait_with(wanted)
    return process.blocking_call("pselect6", *arguments, ctypes.addressof(packed))


@system_call("epoll_ctl", "fd int fd pointer")
def epoll_ctl(process: Process, epoll: int, operation: int, fd: int, event: int) -> int:
    """Change what an epoll instance watches"""
    if operation == _EPOLL_CTL_DEL and not event:
        return host.named("epoll_ctl", epoll, operation, fd, 0)
    layout = process.abi.epoll_event
    content = HOST_EPOLL_EVENT.pack(*layout.unpack(process.memory.read(event, layout.size)))
    buffer = ctypes.create_string_buffer(content, len(content))
    return host.named("epoll_ctl", epoll, operation, fd, ctypes.addressof(buffer))


@system_call("epoll_pwait", "fd pointer int int pointer size")
def epoll_pwait(
    process: Process, epoll: int, events: int, count: int, timeout: int, mask: int, mask_size: int
) -> int:
    """Wait for events of an epoll instance"""
    return _epoll_wait(process, "epoll_pwait", epoll, events, count, timeout, mask, mask_size)


@system_call("epoll_pwait2", "fd pointer int pointer pointer size")
def epoll_pwait2(
    process: Process, epoll: int, events: int, count: int, timeout: int, mask: int, mask_size: int
) -> int:
    """Wait for events of an epoll instance, with a timeout in nanoseconds"""
    pointer = process.pointer(timeout, _TIMESPEC_SIZE)
    return _epoll_wait(process, "epoll_pwait2", epoll, events, count, pointer, mask, mask_size)


def _epoll_wait(
    process: Process, name: str, epoll: int, events: int, count: int, timeout: int, mask: int, mask_size: int
) -> int:
    if not count > 0:
        return -errno.EINVAL
    count = min(count, _MAXIMUM_EVENTS)
    layout = process.abi.epoll_event
    process.memory.host_address(events, count * layout.size)
    wanted = _read_mask(process, mask, mask_size)
    buffer = ctypes.create_string_buffer(count * HOST_EPOLL_EVENT.size)
    ready = _waiting(process, name, wanted, epoll, ctypes.addressof(buffer), count, timeout)
    if ready > 0:
        found = HOST_EPOLL_EVENT.iter_unpack(buffer.raw[: ready * HOST_EPOLL_EVENT.size])
        process.memory.write(events, b"".join(layout.pack(*event) for event in found))
    return ready


@system_call("signalfd4", "fd pointer size flags")
def signalfd4(process: Process, fd: int, mask: int, size: int, flags: int) -> int:
    """A descriptor from which blocked signals are read"""
    wanted = _read_mask(process, mask, size)
    if wanted is None:
        return -errno.EINVAL
    buffer = ctypes.create_string_buffer(_MASK.pack(wanted), _MASK.size)
    return host.named("signalfd4", fd, ctypes.addressof(buffer), MASK_SIZE, flags)


_SIGEVENT_SIZE = 64
_SIGEV_THREAD = 2


@system_call("mq_notify", "fd pointer")
def mq_notify(process: Process, queue: int, event: int) -> int:
    """Ask for a signal when a message arrives; for a thread's start the kernel would follow a pointer"""
    if event:
        (how,) = struct.unpack_from("<i", process.memory.read(event, _SIGEVENT_SIZE), 12)
        if how == _SIGEV_THREAD:
            return -errno.EINVAL
    return host.named("mq_notify", queue, process.pointer(event, _SIGEVENT_SIZE))
