"""The address space of a guest process: one reservation of host memory, `guest address + base` apart.

Compiled guest code adds `base` to an address and lets the host's page tables decide, so a mapping of the
guest is a mapping of the host at a fixed place, and a pointer can be handed to the host kernel unchanged
but for that addition (an unmapped page then is the kernel's EFAULT). What the host's page tables must not
know is execute permission: guest code is data here, so it is kept beside them, one byte a page.
"""

from __future__ import annotations

import bisect
import ctypes
import errno
import mmap
import os
import threading
import weakref
from dataclasses import dataclass, replace
from enum import IntFlag
from functools import cache
from typing import TYPE_CHECKING

from anyvirt.cpu.executor import Access
from anyvirt.devices.bus import BusError
from anyvirt.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGE_SIZE = 4096
GUARD_SIZE = (1 << 31) + (1 << 16)
"""Inaccessible bytes on both sides of the guest's: what an offset of 32 bits leads to faults too."""

_MAP_FIXED = 0x10
_MAP_NORESERVE = 0x4000
_MREMAP_MAYMOVE_FIXED = 1 | 2
_FAILED = ctypes.c_void_p(-1).value


class Protection(IntFlag):
    """Page permissions, numbered as PROT_* in Linux' mman.h."""

    NONE = 0
    READ = 1
    WRITE = 2
    EXECUTE = 4

    def __str__(self) -> str:
        """The way /proc/PID/maps writes it, e.g. `r-x`."""
        return "".join(
            letter if self & bit else "-"
            for letter, bit in (("r", Protection.READ), ("w", Protection.WRITE), ("x", Protection.EXECUTE))
        )


class GuestFault(BusError):
    """Python asked for guest memory that the guest itself could not access that way."""

    def __init__(self, address: int, access: Access) -> None:
        super().__init__(f"guest address {address:#x} cannot be accessed ({access.name.lower()})")
        self.address = address
        self.access = access


@dataclass(frozen=True, slots=True)
class Mapping:
    """One range of pages with the same origin and permissions: a line of /proc/PID/maps."""

    start: int
    end: int
    protection: Protection
    shared: bool = False
    anonymous: bool = True
    offset: int = 0
    """Offset in the mapped file, in bytes; 0 for anonymous memory."""
    name: str = ""
    """Path of the file, or a label such as `[heap]`."""

    @property
    def takes_atomics(self) -> bool:
        """Whether atomic operations are possible there, given the permission to write."""
        return True

    def clip(self, start: int, end: int) -> Mapping:
        """The part of this mapping within [start, end)."""
        start, end = max(start, self.start), min(end, self.end)
        return replace(self, start=start, end=end, offset=self._offset_at(start))

    def continues(self, other: Mapping) -> bool:
        """Whether `other` starts where this one ends and differs in nothing else."""
        return other == replace(self, start=self.end, end=other.end, offset=self._offset_at(self.end))

    def _offset_at(self, address: int) -> int:
        return 0 if self.anonymous else self.offset + address - self.start


class _IoVector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


@cache
def _libc() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = (
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
    )  # fmt: skip
    library.mremap.restype = ctypes.c_void_p
    library.mremap.argtypes = (
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p,
    )  # fmt: skip
    library.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    library.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    library.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    for name in ("process_vm_readv", "process_vm_writev"):
        transfer = getattr(library, name)
        transfer.restype = ctypes.c_ssize_t
        transfer.argtypes = (
            ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong,
        )  # fmt: skip
    return library


def host_mmap(address: int, length: int, protection: int, flags: int, fd: int = -1, offset: int = 0) -> int:
    """mmap(2) of the host; returns the address. Raises OSError."""
    result = _libc().mmap(address, length, protection, flags, fd, offset)
    if result == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(result or 0)


def host_munmap(address: int, length: int) -> None:
    """munmap(2) of the host. Raises OSError."""
    _check(_libc().munmap(address, length))


def host_protect(address: int, length: int, protection: int) -> None:
    """mprotect(2) of the host. Raises OSError."""
    _check(_libc().mprotect(address, length, protection))


def host_move(address: int, length: int, new_address: int, new_length: int | None = None) -> None:
    """mremap(2) of the host with MREMAP_FIXED: what was at the new address goes. Raises OSError."""
    size = length if new_length is None else new_length
    if _libc().mremap(address, length, size, _MREMAP_MAYMOVE_FIXED, new_address) == _FAILED:
        _check(-1)


def host_discard(address: int, length: int) -> None:
    """Make anonymous pages of the host zero again and free their store. Raises OSError."""
    _check(_libc().madvise(address, length, mmap.MADV_DONTNEED))


def trim_heap() -> None:
    """Give the host what the heap of the C library keeps free, where the library can do that."""
    trim = getattr(_libc(), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))


def reserve(length: int, protection: int = 0) -> int:
    """Address space of the host that costs nothing until it is touched. Raises OSError."""
    return host_mmap(0, length, protection, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def page_ceiling(length: int) -> int:
    """`length` rounded up to whole pages."""
    return -(-length // PAGE_SIZE) * PAGE_SIZE


_memories: weakref.WeakSet[FlatMemory] = weakref.WeakSet()


_held: list[threading.RLock | threading.Lock] = []
outer_locks: list[threading.RLock | threading.Lock] = []
"""Locks that are taken before that of a memory, if both are; each before those that stand before it here."""
_registering = threading.Lock()
_middle_locks: weakref.WeakSet[threading.RLock] = weakref.WeakSet()
inner_locks: list[threading.Lock] = []
"""Locks that are taken while any other is held, never the other way round; held over fork(2), too."""


def hold_over_fork(lock: threading.RLock) -> None:
    """Hold a lock over fork(2) that is taken while that of a memory is held, never while an inner one is."""
    with _registering:
        _middle_locks.add(lock)


def _hold_still() -> None:
    """Nothing that other threads share is being changed by one of them while the process forks."""
    _hold([*reversed(outer_locks), _registering])
    _hold([*(memory._lock for memory in _memories), *_middle_locks, *inner_locks])


def _hold(locks: list[threading.RLock | threading.Lock]) -> None:
    for lock in locks:
        lock.acquire()
        _held.append(lock)


def _move_on() -> None:
    held = _held[::-1]
    # Another thread may want to fork as soon as it can have them.
    _held.clear()
    for lock in held:
        lock.release()


os.register_at_fork(before=_hold_still, after_in_parent=_move_on, after_in_child=_move_on)


class FlatMemory:
    """A guest address space of `size` bytes from 0, reserved in the host and mapped page by page.

    Survives os.fork(): the child has private copies, exactly as a forked process has. Failing host calls
    raise OSError with the host's errno, for a system-call layer to pass on; Python's own accesses to what
    the guest could not access raise `GuestFault`.
    """

    base = 0
    """Host address of guest address 0."""
    executable_pages = 0
    """Host address of one byte for each guest page: 1 where code may be executed."""

    def __init__(self, size: int = 1 << 38) -> None:
        """Reserve `size` bytes (a multiple of the page size; 2^38 is an Sv39 user half).

        Raises UnsupportedError where the host does not give that much address space.
        """
        if size <= 0 or size % PAGE_SIZE:
            raise ValueError(
                f"the size of a guest address space must be a multiple of {PAGE_SIZE}, not {size}"
            )
        self.size = size
        try:
            self.base = reserve(size + 2 * GUARD_SIZE) + GUARD_SIZE
            self.executable_pages = reserve(size // PAGE_SIZE, mmap.PROT_READ | mmap.PROT_WRITE)
        except OSError as error:
            raise UnsupportedError(
                "user",
                "address space for the guest",
                f"the host refuses to reserve {size >> 30} GiB ({error.strerror}): "
                "see `ulimit -v` and vm.overcommit_memory",
            ) from None
        self.on_code_change: list[Callable[[int, int], None]] = []
        """Called with (start, length) after executable pages changed in content, place or permission."""
        self.alone = True
        """Nobody but one CPU of this process has ever had this memory, or a part of it."""
        self._cpus: weakref.WeakSet[object] = weakref.WeakSet()
        self._mappings: list[Mapping] = []
        self._lock = threading.RLock()
        with _registering:
            _memories.add(self)

    def __del__(self) -> None:
        if self.base:
            host_munmap(self.base - GUARD_SIZE, self.size + 2 * GUARD_SIZE)
        if self.executable_pages:
            host_munmap(self.executable_pages, self.size // PAGE_SIZE)

    @property
    def lock(self) -> threading.RLock:
        """Held while mappings change and whoever listens is told; the same thread may take it again.

        What is made from code is kept under it, too: two locks would be taken in either order.
        """
        return self._lock

    # Who has it -----------------------------------------------------------------------------------------

    def admit(self, cpu: object) -> bool:
        """A CPU is going to run in this memory; whether there is another that believed to be alone."""
        self._cpus.add(cpu)
        if len(self._cpus) == 1 or not self.alone:
            return False
        self.share()
        return True

    def share(self) -> None:
        """Somebody else has the memory too, another CPU or another process: what relies on it is undone."""
        if not self.alone:
            return
        self.alone = False
        with self._lock:
            self._report_code(self._mappings)

    # What is mapped -------------------------------------------------------------------------------------

    @property
    def mappings(self) -> tuple[Mapping, ...]:
        """All mappings by ascending address; they do not overlap."""
        return tuple(self._mappings)

    def mapping_at(self, address: int) -> Mapping | None:
        """The mapping that contains `address`, if any (none: SEGV_MAPERR; otherwise SEGV_ACCERR)."""
        mappings = self._mappings
        index = _first_ending_after(mappings, address)
        if index < len(mappings) and mappings[index].start <= address:
            return mappings[index]
        return None

    def mappings_in(self, start: int, length: int) -> Iterator[Mapping]:
        """The parts of mappings that lie within [start, start + length), clipped to it."""
        mappings = self._mappings
        for index in range(_first_ending_after(mappings, start), len(mappings)):
            mapping = mappings[index]
            if mapping.start >= start + length:
                break
            yield mapping.clip(start, start + length)

    def is_free(self, start: int, length: int) -> bool:
        """Whether [start, start + length) lies in the address space and nothing is mapped there."""
        return (
            start >= 0 and start + length <= self.size and next(self.mappings_in(start, length), None) is None
        )

    def find_free(
        self, length: int, *, bottom: int = PAGE_SIZE, top: int | None = None, align: int = PAGE_SIZE
    ) -> int:
        """The highest free range of `length` bytes within [bottom, top). Raises OSError(ENOMEM)."""
        length = page_ceiling(length)
        ceiling = self.size if top is None else min(top, self.size)
        with self._lock:
            for index in range(_first_ending_after(self._mappings, ceiling - 1), -1, -1):
                if index < len(self._mappings):
                    ceiling = min(ceiling, self._mappings[index].start)
                floor = self._mappings[index - 1].end if index else 0
                start = (ceiling - length) // align * align
                if start >= max(floor, bottom):
                    return start
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    # Changing what is mapped ----------------------------------------------------------------------------

    def map(
        self,
        address: int,
        length: int,
        protection: int,
        *,
        fd: int = -1,
        offset: int = 0,
        shared: bool = False,
        flags: int = 0,
        name: str = "",
    ) -> None:
        """Map [address, address + length) anew, replacing what was there; `length` is rounded up to pages.

        `fd` -1 is anonymous memory. `flags` are further MAP_* flags of the host (MAP_POPULATE, ...).
        """
        protection = Protection(protection & 7)
        length = self._check_range(address, length)
        host_flags = flags | _MAP_FIXED | (mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE)
        if fd < 0:
            host_flags |= mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        with self._lock:
            host_mmap(self.base + address, length, _host_protection(protection), host_flags, fd, offset)
            mapping = Mapping(
                address, address + length, protection, shared, fd < 0, offset if fd >= 0 else 0, name
            )
            self._replace(address, address + length, [mapping])
        if shared:
            self.share()

    def unmap(self, address: int, length: int) -> None:
        """Take away whatever is mapped in [address, address + length)."""
        length = self._check_range(address, length)
        with self._lock:
            self._unreserve(address, length)
            self._replace(address, address + length, [])

    def protect(self, address: int, length: int, protection: int) -> None:
        """Change permissions; every page of the range must be mapped (OSError ENOMEM otherwise)."""
        protection = Protection(protection & 7)
        length = self._check_range(address, length)
        with self._lock:
            parts = list(self.mappings_in(address, length))
            if sum(part.end - part.start for part in parts) != length:
                raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
            host_protect(self.base + address, length, _host_protection(protection))
            self._replace(address, address + length, [replace(part, protection=protection) for part in parts])

    def move(self, address: int, length: int, new_address: int, new_length: int) -> None:
        """mremap(2) with MREMAP_FIXED: move one mapping's pages, growing or shrinking, to a disjoint range.

        To grow in place, `map` the pages that follow.
        """
        length = self._check_range(address, length)
        new_length = self._check_range(new_address, new_length)
        with self._lock:
            parts = list(self.mappings_in(address, length))
            if len(parts) != 1 or parts[0].end - parts[0].start != length:
                raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
            if new_length < length:
                self.unmap(address + new_length, length - new_length)
                length = new_length
            host_move(self.base + address, length, self.base + new_address, new_length)
            self._unreserve(address, length)
            self._replace(address, address + length, [])
            moved = replace(parts[0], start=new_address, end=new_address + new_length)
            self._replace(new_address, new_address + new_length, [moved])

    # Access from Python ---------------------------------------------------------------------------------

    def host_address(self, address: int, length: int = 0) -> int:
        """The host pointer to guest memory, for the host kernel; only the range is checked.

        A pointer to pages that are not mapped is fine: the kernel answers EFAULT.
        """
        if address < 0 or length < 0 or address + length > self.size:
            raise GuestFault(address, Access.READ)
        return self.base + address

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes of guest memory. Raises GuestFault."""
        with self._lock:
            if self._accessible(address, length, Access.READ):
                return ctypes.string_at(self.base + address, length)
            buffer = ctypes.create_string_buffer(length)
            done = _transfer("process_vm_readv", ctypes.addressof(buffer), self.base + address, length)
            if done != length:
                raise GuestFault(address + done, Access.READ)
            return buffer.raw

    def fetch(self, address: int, length: int) -> bytes:
        """`length` bytes of code; whether it may be executed is the caller's business. Raises GuestFault."""
        return self.read(address, length)

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Store bytes into guest memory the guest may write. Raises GuestFault."""
        content = bytes(data)
        with self._lock:
            if self._accessible(address, len(content), Access.WRITE):
                ctypes.memmove(self.base + address, content, len(content))
            else:
                buffer = ctypes.create_string_buffer(content, len(content))
                done = _transfer(
                    "process_vm_writev", ctypes.addressof(buffer), self.base + address, len(content)
                )
                if done != len(content):
                    raise GuestFault(address + done, Access.WRITE)
            self._report_code(self.mappings_in(address, len(content)))

    def read_string(self, address: int, limit: int = 1 << 20) -> bytes:
        """The bytes up to, not including, the first zero. Raises GuestFault or OSError(ENAMETOOLONG)."""
        result = bytearray()
        while len(result) < limit:
            position = address + len(result)
            piece = self.read(position, min(PAGE_SIZE - position % PAGE_SIZE, limit - len(result)))
            content, zero, _ = piece.partition(b"\0")
            result += content
            if zero:
                return bytes(result)
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))

    def view(self, address: int, length: int, *, writable: bool = False) -> memoryview:
        """A window on guest memory without copying. Raises GuestFault.

        It stays valid while the pages stay mapped; the caller sees to that.
        """
        access = Access.WRITE if writable else Access.READ
        with self._lock:
            self._accessible(address, length, access)
            array = (ctypes.c_char * length).from_address(self.base + address)
            view = memoryview(array).cast("B")
            return view if writable else view.toreadonly()

    # The inside -----------------------------------------------------------------------------------------

    def _check_range(self, address: int, length: int) -> int:
        length = page_ceiling(length)
        if address % PAGE_SIZE or length <= 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if address < 0 or address + length > self.size:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return length

    def _unreserve(self, address: int, length: int) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE | _MAP_FIXED
        host_mmap(self.base + address, length, 0, flags)

    def _accessible(self, address: int, length: int, access: Access) -> bool:
        """Raise GuestFault unless the guest may; true if no file is behind the pages (no SIGBUS then)."""
        needed = Protection.WRITE if access == Access.WRITE else Protection.READ | Protection.WRITE
        position, safe = address, True
        for part in self.mappings_in(address, length):
            if part.start != position or not part.protection & (needed | _readable(access)):
                break
            position, safe = part.end, safe and part.anonymous
        if position < address + length or address < 0:
            raise GuestFault(position, access)
        return safe

    def _replace(self, start: int, end: int, new: list[Mapping]) -> None:
        """Put `new` in place of what the list says about [start, end), and tell who decoded code there."""
        first = _first_ending_after(self._mappings, start)
        last = first
        while last < len(self._mappings) and self._mappings[last].start < end:
            last += 1
        old = self._mappings[first:last]
        before = [old[0].clip(0, start)] if old and old[0].start < start else []
        after = [old[-1].clip(end, self.size)] if old and old[-1].end > end else []
        low, high = max(first - 1, 0), last + 1
        neighbours = self._mappings[low:first], self._mappings[last:high]
        between = _merged([*neighbours[0], *before, *new, *after, *neighbours[1]])
        # A list of its own: who reads the old one meanwhile goes on with that.
        self._mappings = [*self._mappings[:low], *between, *self._mappings[high:]]
        for mapping in new:
            self._mark_executable(mapping)
        if not new:
            self._fill_executable(start, end, 0)
        self._report_code([part.clip(start, end) for part in old])

    def _mark_executable(self, mapping: Mapping) -> None:
        self._fill_executable(mapping.start, mapping.end, 1 if mapping.protection & Protection.EXECUTE else 0)

    def _fill_executable(self, start: int, end: int, value: int) -> None:
        first, count = self.executable_pages + start // PAGE_SIZE, (end - start) // PAGE_SIZE
        if value or count <= 2 * PAGE_SIZE:
            ctypes.memset(first, value, count)
            return
        # A large range is given back to the host instead of being written.
        low, high = page_ceiling(first), (first + count) // PAGE_SIZE * PAGE_SIZE
        ctypes.memset(first, 0, low - first)
        ctypes.memset(high, 0, first + count - high)
        host_discard(low, high - low)

    def _report_code(self, parts: Iterator[Mapping] | list[Mapping]) -> None:
        for part in parts:
            if part.protection & Protection.EXECUTE:
                for listener in self.on_code_change:
                    listener(part.start, part.end - part.start)


def _first_ending_after(mappings: list[Mapping], address: int) -> int:
    """Index of the first mapping of an ascending list that has something behind an address."""
    return bisect.bisect_right(mappings, address, key=lambda mapping: mapping.end)


def _readable(access: Access) -> Protection:
    """Execute-only pages can be read by the host, and RISC-V has no write-only pages."""
    return Protection.EXECUTE if access == Access.READ else Protection.NONE


def _host_protection(protection: Protection) -> int:
    """Never executable; readable whenever the guest may do anything with the page."""
    return (protection & Protection.WRITE) | (Protection.READ if protection else Protection.NONE)


def _merged(mappings: list[Mapping]) -> list[Mapping]:
    result: list[Mapping] = []
    for mapping in mappings:
        if result and result[-1].continues(mapping):
            result[-1] = replace(result[-1], end=mapping.end)
        else:
            result.append(mapping)
    return result


def _transfer(call: str, local: int, remote: int, length: int) -> int:
    """Copy within this process so that a missing page is a short count, never a signal."""
    here, there = _IoVector(local, length), _IoVector(remote, length)
    done: int = getattr(_libc(), call)(os.getpid(), ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
    if done < 0 and ctypes.get_errno() in (errno.ENOSYS, errno.EPERM):
        # A seccomp filter forbids the call (some container hosts do): the plain copy is what is left.
        source, target = (remote, local) if call == "process_vm_readv" else (local, remote)
        ctypes.memmove(target, source, length)
        return length
    return max(done, 0)
