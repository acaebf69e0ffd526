"""System calls on the address space: the heap, mappings, their permissions and residency."""

from __future__ import annotations

import errno
import os
from functools import wraps
from typing import TYPE_CHECKING, cast

from anyvirt.cpu.memory import PAGE_SIZE, Protection, page_ceiling
from anyvirt.linux.emulation import host
from anyvirt.linux.emulation.segments import MINIMUM_ADDRESS
from anyvirt.linux.emulation.table import system_call

if TYPE_CHECKING:
    from anyvirt.cpu.memory import Mapping
    from anyvirt.linux.emulation.process import Process
    from anyvirt.linux.emulation.table import HandlerT

# mmap(2) flags of include/uapi/asm-generic/mman.h, which x86-64 and riscv64 share.
_MAP_SHARED = 0x01
_MAP_PRIVATE = 0x02
_MAP_SHARED_VALIDATE = 0x03
_MAP_TYPE = 0x0F
_MAP_FIXED = 0x10
_MAP_ANONYMOUS = 0x20
_MAP_LOCKED = 0x2000
_MAP_POPULATE = 0x8000
_MAP_HUGETLB = 0x40000
_MAP_SYNC = 0x80000
_MAP_FIXED_NOREPLACE = 0x100000
_PROT_GROWSDOWN = 0x0100_0000
_PROT_ALL = 7
_MREMAP_MAYMOVE = 1
_MREMAP_FIXED = 2
_MCL_CURRENT = 1
_MCL_FUTURE = 2
_MCL_ONFAULT = 4
_MADV_HWPOISON = 100
_MADV_SOFT_OFFLINE = 101


def _exclusive(handler: HandlerT) -> HandlerT:
    """Have other threads change no mapping between what a handler finds and what it does."""

    @wraps(handler)
    def exclusive(process: Process, *arguments: int) -> int:
        with process.memory.lock:
            return handler(process, *arguments)

    return cast("HandlerT", exclusive)


@system_call("brk", "size")
@_exclusive
def brk(process: Process, address: int) -> int:
    """Move the end of the heap; the present end on failure"""
    memory, image = process.memory, process.image
    if not image.heap_start <= address < memory.size:
        return process.heap_end
    old, new = page_ceiling(process.heap_end), page_ceiling(address)
    if new > old:
        if not memory.is_free(old, new - old) or not process.limits.allows(memory, new - old):
            return process.heap_end
        memory.map(old, new - old, Protection.READ | Protection.WRITE, name="[heap]")
    elif new < old:
        memory.unmap(new, old - new)
    process.heap_end = address
    return address


@system_call("mmap", "size size int flags fd size")
@_exclusive
def mmap(
    process: Process, address: int, length: int, protection: int, flags: int, fd: int, offset: int
) -> int:
    """Map a file or anonymous memory"""
    refusal = _refuse_mapping(process, length, flags, fd, offset)
    if flags & (_MAP_FIXED | _MAP_FIXED_NOREPLACE):
        refusal = refusal or _refuse_fixed(process, address, length, flags)
    if refusal:
        return refusal
    if not flags & (_MAP_FIXED | _MAP_FIXED_NOREPLACE):
        address = _choose(process, address, length)
    anonymous = bool(flags & _MAP_ANONYMOUS)
    process.memory.map(
        address,
        length,
        protection & _PROT_ALL,
        fd=-1 if anonymous else fd,
        offset=0 if anonymous else offset,
        shared=flags & _MAP_TYPE != _MAP_PRIVATE,
        flags=flags & (_MAP_LOCKED | _MAP_POPULATE) | process.lock_flags,
        name="" if anonymous else _file_name(fd),
    )
    return address


def _refuse_mapping(process: Process, length: int, flags: int, fd: int, offset: int) -> int:
    """The error of a mapping that cannot be had anywhere, or 0."""
    kind = flags & _MAP_TYPE
    if not length or offset % PAGE_SIZE or kind not in (_MAP_SHARED, _MAP_PRIVATE, _MAP_SHARED_VALIDATE):
        return -errno.EINVAL
    if kind == _MAP_SHARED_VALIDATE and flags & _MAP_SYNC:
        return -errno.EOPNOTSUPP
    if not flags & _MAP_ANONYMOUS and fd < 0:
        return -errno.EBADF
    if length > process.memory.size or flags & _MAP_HUGETLB:
        return -errno.ENOMEM
    return 0 if process.limits.allows(process.memory, page_ceiling(length)) else -errno.ENOMEM


def _refuse_fixed(process: Process, address: int, length: int, flags: int) -> int:
    """The error of a fixed place that cannot be had, or 0."""
    if address % PAGE_SIZE:
        return -errno.EINVAL
    if address + page_ceiling(length) > process.memory.size:
        return -errno.ENOMEM
    if address < MINIMUM_ADDRESS:
        return -errno.EPERM
    if flags & _MAP_FIXED_NOREPLACE and not process.memory.is_free(address, page_ceiling(length)):
        return -errno.EEXIST
    return 0


def _choose(process: Process, wish: int, length: int) -> int:
    """The wished-for place if it is free, or else the highest free one below the stack."""
    wish = page_ceiling(wish)
    if wish >= MINIMUM_ADDRESS and process.memory.is_free(wish, page_ceiling(length)):
        return wish
    return process.memory.find_free(length, bottom=MINIMUM_ADDRESS, top=process.image.mapping_top)


def _file_name(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


@system_call("munmap", "size size")
@_exclusive
def munmap(process: Process, address: int, length: int) -> int:
    """Unmap a range"""
    if address % PAGE_SIZE or not length or address + length > process.memory.size:
        return -errno.EINVAL
    process.memory.unmap(address, length)
    return 0


@system_call("mprotect", "size size int")
@_exclusive
def mprotect(process: Process, address: int, length: int, protection: int) -> int:
    """Change permissions of a range"""
    if address % PAGE_SIZE or protection & ~(_PROT_ALL | _PROT_GROWSDOWN):
        return -errno.EINVAL
    if not length:
        return 0
    if address + length > process.memory.size:
        return -errno.ENOMEM
    if protection & _PROT_GROWSDOWN:
        # The stack is mapped whole from the start, so "down to where it begins" is its mapping's start.
        stack = next(process.memory.mappings_in(address, PAGE_SIZE), None)
        if stack is None or stack.name != "[stack]":
            return -errno.EINVAL
        whole = next(part for part in process.memory.mappings if part.start <= address < part.end)
        address, length = whole.start, address + length - whole.start
    process.memory.protect(address, length, protection & _PROT_ALL)
    return 0


@system_call("mremap", "size size size flags size")
@_exclusive
def mremap(process: Process, old: int, old_length: int, new_length: int, flags: int, new: int) -> int:
    """Resize or move a mapping"""
    memory = process.memory
    old_length, new_length = page_ceiling(old_length), page_ceiling(new_length)
    refusal = _refuse_remapping(process, old, old_length, new_length, flags)
    if refusal:
        return refusal
    if flags & _MREMAP_FIXED:
        return _move_to(process, old, old_length, new, new_length, flags)
    if new_length > old_length:
        return _grow(process, old, old_length, new_length, flags)
    if new_length < old_length:
        memory.unmap(old + new_length, old_length - new_length)
    return old


def _refuse_remapping(process: Process, old: int, old_length: int, new_length: int, flags: int) -> int:
    """The error of a mapping that cannot be resized or moved, or 0."""
    if old % PAGE_SIZE or not new_length or flags & ~(_MREMAP_MAYMOVE | _MREMAP_FIXED):
        return -errno.EINVAL
    if not old_length or max(old_length, new_length) > process.memory.size:
        return -errno.EINVAL
    if old + old_length > process.memory.size or not _mapped(process, old, old_length):
        return -errno.EFAULT
    growth = max(new_length - old_length, 0)
    return 0 if process.limits.allows(process.memory, growth) else -errno.ENOMEM


def _grow(process: Process, old: int, old_length: int, new_length: int, flags: int) -> int:
    memory = process.memory
    last = list(memory.mappings_in(old, old_length))[-1]
    if _grows_in_place(process, last, new_length - old_length):
        memory.map(last.end, new_length - old_length, last.protection, name=last.name)
        return old
    if not flags & _MREMAP_MAYMOVE:
        return -errno.ENOMEM
    target = memory.find_free(new_length, bottom=MINIMUM_ADDRESS, top=process.image.mapping_top)
    memory.move(old, old_length, target, new_length)
    return target


def _grows_in_place(process: Process, last: Mapping, growth: int) -> bool:
    """Only private anonymous pages can be had anew; those of a file or shared ones have to be moved."""
    return last.anonymous and not last.shared and process.memory.is_free(last.end, growth)


def _move_to(process: Process, old: int, old_length: int, new: int, new_length: int, flags: int) -> int:
    if not flags & _MREMAP_MAYMOVE or new % PAGE_SIZE or new + new_length > process.memory.size:
        return -errno.EINVAL
    if new < old + old_length and old < new + new_length:
        return -errno.EINVAL
    if new < MINIMUM_ADDRESS:
        return -errno.EPERM
    process.memory.move(old, old_length, new, new_length)
    return new


def _mapped(process: Process, address: int, length: int) -> bool:
    """Whether every page of a range is mapped."""
    parts = process.memory.mappings_in(address, length)
    return sum(part.end - part.start for part in parts) == length


def _on_range(process: Process, name: str, address: int, length: int, *rest: int) -> int:
    """Pass a call on a range of mapped pages to the host."""
    length = page_ceiling(length)
    if address % PAGE_SIZE:
        return -errno.EINVAL
    if address + length > process.memory.size or not _mapped(process, address, length):
        return -errno.ENOMEM
    return host.named(name, process.memory.base + address, length, *rest) if length else 0


@system_call("madvise", "size size int")
@_exclusive
def madvise(process: Process, address: int, length: int, advice: int) -> int:
    """Advise on the use of memory; DONTNEED and its like take effect"""
    if advice in (_MADV_HWPOISON, _MADV_SOFT_OFFLINE):
        return -errno.EPERM
    result = _on_range(process, "madvise", address, length, advice)
    if result == 0 and any(
        part.protection & Protection.EXECUTE for part in process.memory.mappings_in(address, length)
    ):
        process.cpu.invalidate(address, length)
    return result


@system_call("msync", "size size flags")
def msync(process: Process, address: int, length: int, flags: int) -> int:
    """Write a shared mapping back to its file"""
    return _on_range(process, "msync", address, length, flags)


@system_call("mincore", "size size pointer")
def mincore(process: Process, address: int, length: int, vector: int) -> int:
    """Tell which pages are resident"""
    pages = page_ceiling(length) // PAGE_SIZE
    return _on_range(process, "mincore", address, length, process.memory.host_address(vector, pages))


@system_call("mlock", "size size")
def mlock(process: Process, address: int, length: int) -> int:
    """Keep pages in memory"""
    return mlock2(process, address, length, 0)


@system_call("mlock2", "size size flags")
def mlock2(process: Process, address: int, length: int, flags: int) -> int:
    """Keep pages in memory, possibly only once they are touched"""
    start = address // PAGE_SIZE * PAGE_SIZE
    return _on_range(process, "mlock2", start, length + address - start, flags)


@system_call("munlock", "size size")
def munlock(process: Process, address: int, length: int) -> int:
    """Undo mlock"""
    start = address // PAGE_SIZE * PAGE_SIZE
    return _on_range(process, "munlock", start, length + address - start)


@system_call("mlockall", "flags")
@_exclusive
def mlockall(process: Process, flags: int) -> int:
    """Keep all of the guest's pages in memory; the emulator's own are left alone"""
    if not flags or flags & ~(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT):
        return -errno.EINVAL
    if flags & _MCL_CURRENT:
        for part in process.memory.mappings:
            address = process.memory.base + part.start
            result = host.named("mlock2", address, part.end - part.start, int(bool(flags & _MCL_ONFAULT)))
            if result < 0 and part.protection:
                return result
    process.lock_flags = _MAP_LOCKED if flags & _MCL_FUTURE else 0
    return 0


@system_call("munlockall")
def munlockall(process: Process) -> int:
    """Undo mlockall"""
    process.lock_flags = 0
    return host.named("munlockall")


@system_call("riscv_flush_icache", "size size size")
def riscv_flush_icache(process: Process, start: int, end: int, flags: int) -> int:
    """Make changed instructions visible"""
    if flags & ~1:
        return -errno.EINVAL
    start, end = min(start, process.memory.size), min(end, process.memory.size)
    if start < end:
        process.cpu.invalidate(start, end - start)
    return 0
