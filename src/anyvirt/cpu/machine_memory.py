"""The physical memory of a machine: RAM, ROM and devices at the addresses where its board has them.

Compiled code reaches RAM through the TLBs of its CPU (`anyvirt.jit.machine_model`); this is what fills them:
the list of regions, which pages were written, and which have decoded code. All of it may be changed at any
time and from any thread: the CPUs that run are held meanwhile.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import threading
import time
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING

from anyvirt.cpu.executor import Access
from anyvirt.cpu.machine_regions import (
    ADDRESS_SPACE,
    Bank,
    Device,
    MemoryRegion,
    RegionKind,
    RegionList,
)
from anyvirt.cpu.memory import (
    PAGE_SIZE,
    GuestFault,
    Protection,
    host_discard,
    host_munmap,
    page_ceiling,
    reserve,
)
from anyvirt.cpu.memory_image import GAP, MOST_PIECES, BankImage, MemoryImage, copied, joined, not_zero
from anyvirt.cpu.page_marks import PageMarks, runs
from anyvirt.errors import UnsupportedError
from anyvirt.jit.machine_layout import MOST_PAGES, CodeFlag, Map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anyvirt.cpu.machine_code import MachineCodeSpace
    from anyvirt.cpu.machine_view import MachineView

__all__ = ["Device", "MachineMemory", "MemoryRegion", "RegionKind"]

_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
_ALL = Protection.READ | Protection.WRITE | Protection.EXECUTE
_DEVICE_SIZES = (1, 2, 4, 8)
_HOLDING_PAUSE = 20e-6
"""Seconds between looks at CPUs that are to stand still."""
_PAGES_AT_ONCE = 256
"""Pages of records that are discarded while CPUs have to wait: a few milliseconds."""
_DEVICE_CALL = ctypes.CFUNCTYPE(ctypes.c_uint64, *(ctypes.c_uint64,) * 5)

_memories: weakref.WeakSet[MachineMemory] = weakref.WeakSet()
_held: list[MachineMemory] = []


def _hold_still() -> None:
    """Nothing is being changed by another thread while the process forks."""
    _held[:] = _memories
    for memory in _held:
        memory.lock.acquire()


def _move_on() -> None:
    for memory in _held:
        memory.lock.release()
    _held.clear()


os.register_at_fork(before=_hold_still, after_in_parent=_move_on, after_in_child=_move_on)


class MachineMemory:
    """A physical address space of 64 bits. Empty addresses fault, as on most buses.

    Failing host calls raise OSError; Python's own accesses to what is not there raise `GuestFault`.
    """

    map_address = 0
    """Host address of the map that compiled code reads (`anyvirt.jit.machine_layout.Map`)."""
    _flags = 0

    def __init__(self) -> None:
        """Raises UnsupportedError where the host does not give enough address space."""
        self.lock = threading.RLock()
        """Held by whoever changes anything; CPUs take it before they enter compiled code."""
        self.on_code_change: list[Callable[[int, int], None]] = []
        """Called with (start, length), physical, when code has changed of which there are translations."""
        self._regions = RegionList()
        self._banks: list[Bank] = []
        self._windows: dict[int, tuple[memoryview, memoryview]] = {}
        self._devices: list[Device] = []
        self._spaces: dict[object, MachineCodeSpace] = {}
        self._views: weakref.WeakValueDictionary[int, MachineView] = weakref.WeakValueDictionary()
        self._pages = 0
        self._list = b""
        self._written = PageMarks()
        """Pages written before the native marks were last cleared, and since `clear_dirty`."""
        self._changed = PageMarks()
        """The same since `freeze` or `become`."""
        self._image: dict[Bank, BankImage] = {}
        """What was in each bank then."""
        try:
            self.map_address = reserve(page_ceiling(Map.END), _READ_WRITE)
            self._flags = reserve(3 * MOST_PAGES, _READ_WRITE)
        except OSError as error:
            raise UnsupportedError(
                "interpreter",
                "address space for the machine's memory",
                f"the host refuses to reserve {3 * MOST_PAGES >> 20} MiB ({error.strerror}): "
                "see `ulimit -v` and vm.overcommit_memory",
            ) from None
        self._dirty, self._code = self._flags, self._flags + MOST_PAGES
        self._set(Map.DIRTY, self._dirty)
        self._set(Map.CODE, self._code)
        self._set(Map.WRITES, self._flags + 2 * MOST_PAGES)
        self._calls = _device_calls(weakref.ref(self))
        for field, call in zip((Map.DEVICE_READ, Map.DEVICE_WRITE), self._calls, strict=True):
            self._set(field, ctypes.cast(call, ctypes.c_void_p).value or 0)
        _memories.add(self)

    def __del__(self) -> None:
        if self.map_address:
            host_munmap(self.map_address, page_ceiling(Map.END))
            if self._flags:
                host_munmap(self._flags, 3 * MOST_PAGES)
            for bank in self._banks:
                host_munmap(bank.host, bank.size)

    # What is where --------------------------------------------------------------------------------------

    @property
    def regions(self) -> tuple[MemoryRegion, ...]:
        """All regions by ascending address; they do not overlap."""
        return tuple(self._regions)

    def mapping_at(self, address: int) -> MemoryRegion | None:
        """The region that contains a physical address, if any."""
        return self._regions.at(address)

    def add_ram(self, address: int, size: int, *, name: str = "ram") -> MemoryRegion:
        """RAM of whole pages, zeroed; what is not touched costs nothing."""
        region = self._memory_region(RegionKind.RAM, address, size, _ALL, name)
        self._add(region)
        return region

    def add_rom(
        self, address: int, content: bytes, *, name: str = "rom", refuses_stores: bool = False
    ) -> MemoryRegion:
        """ROM, filled up with zeros to whole pages. Stores have no effect, or are access faults."""
        protection = Protection.READ | Protection.EXECUTE if refuses_stores else _ALL
        region = self._memory_region(RegionKind.ROM, address, page_ceiling(len(content)), protection, name)
        ctypes.memmove(region.host_address(address), content, len(content))
        self._add(region)
        return region

    def add_mmio(self, address: int, size: int, device: Device, *, name: str = "") -> MemoryRegion:
        """Let a device answer at any range of addresses; several may share a page."""
        with self.lock:
            number = self._device_number(device)
            region = MemoryRegion(
                address,
                address + size,
                RegionKind.DEVICE,
                Protection.READ | Protection.WRITE,
                name,
                device=device,
                number=number,
            )
            self._add(region)
        return region

    def add_alias(self, address: int, source: int, size: int, *, name: str = "") -> None:
        """Let whole pages of RAM or ROM be seen at another address, too."""
        _check_pages(address, size)
        _check_pages(source, size)
        with self.lock:
            parts = list(self._regions.within(source, source + size))
            if any(part.bank is None for part in parts) or sum(p.end - p.start for p in parts) != size:
                raise OSError(errno.EINVAL, "an alias is of RAM or ROM")
            distance = address - source
            self._add(
                *(
                    replace(
                        part, start=part.start + distance, end=part.end + distance, name=name or part.name
                    )
                    for part in parts
                )
            )

    def remove(self, address: int, size: int) -> None:
        """Take away what answers in [address, address + size); RAM that is nowhere any more is emptied."""
        with self.changing():
            for part in self._regions.within(address, address + size):
                if part.bank is not None:
                    _check_pages(part.start, part.end - part.start)
            self._regions.replace(address, address + size, [])
            self._publish()
            there = {region.bank for region in self._regions}
            for bank in self._banks:
                if bank not in there:
                    BankImage(0, bank.size, is_ram=True).put(bank.host)
                    self._image.pop(bank, None)

    def protect(self, address: int, size: int, protection: int) -> None:
        """Change what CPUs may do with whole pages of RAM or ROM; they must all be there."""
        _check_pages(address, size)
        with self.changing():
            parts = list(self._regions.within(address, address + size))
            if any(part.bank is None for part in parts) or sum(p.end - p.start for p in parts) != size:
                raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
            new = [replace(part, protection=Protection(protection & 7)) for part in parts]
            self._regions.replace(address, address + size, new)
            self._publish()

    def _device_number(self, device: Device) -> int:
        for number, known in enumerate(self._devices):
            if known is device:
                return number
        self._devices.append(device)
        return len(self._devices) - 1

    def _memory_region(
        self, kind: RegionKind, address: int, size: int, protection: Protection, name: str
    ) -> MemoryRegion:
        _check_pages(address, size)
        with self.lock:
            if self._pages + size // PAGE_SIZE > MOST_PAGES:
                raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
            bank = Bank(reserve(size, _READ_WRITE), size, self._pages)
            self._pages += size // PAGE_SIZE
            self._banks.append(bank)
            window = memoryview((ctypes.c_char * size).from_address(bank.host)).cast("B")
            self._windows[bank.host] = window.toreadonly(), window
        return MemoryRegion(address, address + size, kind, protection, name, bank)

    def _add(self, *regions: MemoryRegion) -> None:
        for region in regions:
            if not 0 <= region.start < region.end <= ADDRESS_SPACE:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        with self.changing():
            for region in regions:
                if not self._regions.is_free(region.start, region.end):
                    raise OSError(errno.EEXIST, f"something is at {region.start:#x} already")
                self._regions.replace(region.start, region.end, [region])
            self._publish()

    def _publish(self) -> None:
        """Let compiled code see the regions as they are now; no CPU is running."""
        content = self._regions.entries()
        self._list = content
        address = ctypes.cast(ctypes.c_char_p(content), ctypes.c_void_p).value or 0
        self._set(Map.REGIONS, address)
        self._set(Map.COUNT, len(self._regions))
        for view in list(self._views.values()):
            view.flush()

    # Access from Python ---------------------------------------------------------------------------------

    def read(self, address: int, length: int) -> bytes:
        """Bytes as a CPU would load them; a device is asked once for up to 8 bytes. Raises GuestFault."""
        if length in _DEVICE_SIZES:
            region = self._regions.at(address)
            if region is not None and region.device is not None and address + length <= region.end:
                return self._load_device(region, address, length)
        return b"".join(self._read_part(part) for part in self._parts(address, length, Access.READ))

    def fetch(self, address: int, length: int) -> bytes:
        """Bytes of code as a CPU would fetch them. Raises GuestFault."""
        parts = self._parts(address, length, Access.EXECUTE)
        return b"".join(
            ctypes.string_at(part.host_address(part.start), part.end - part.start) for part in parts
        )

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Store bytes as a CPU would; as `read`. Nothing is stored if a part cannot be. Raises GuestFault."""
        content = bytes(data)
        if len(content) in _DEVICE_SIZES:
            region = self._regions.at(address)
            if region is not None and region.device is not None and address + len(content) <= region.end:
                self._store_device(region, address, content)
                return
        for part in self._parts(address, len(content), Access.WRITE):
            self._write_part(part, content[part.start - address : part.end - address])

    def host_address(self, address: int, length: int = 0) -> int:
        """Where in this process [address, address + length) of RAM or ROM is. Raises GuestFault."""
        region = self._regions.at(address)
        if region is None or region.bank is None or address + length > region.end:
            raise GuestFault(address, Access.READ)
        return region.host_address(address)

    def view(self, address: int, length: int, *, writable: bool = False) -> memoryview:
        """A window on RAM, or to read on ROM, without copying, for a device. Raises GuestFault.

        It stays valid while the regions stay; whoever writes through it calls `wrote` afterwards.
        """
        region = self._regions.at(address)
        access = Access.WRITE if writable else Access.READ
        if region is None or region.bank is None or address + length > region.end:
            raise GuestFault(address, access)
        if writable and region.kind is RegionKind.ROM:
            raise GuestFault(address, access)
        start = region.offset + address - region.start
        return self._windows[region.bank.host][writable][start : start + length]

    def wrote(self, address: int, length: int) -> None:
        """Mark RAM as written and forget the code in it: it was changed through a `view`."""
        region = self._regions.at(address)
        if region is not None and region.bank is not None and address + length <= region.end:
            self._note_write(region, address, address + length)
            return
        for part in self._regions.within(address, address + length):
            if part.bank is not None:
                self._note_write(part, part.start, part.end)

    def _parts(self, address: int, length: int, access: Access) -> list[MemoryRegion]:
        """The regions of a range, all of which allow the access. Raises GuestFault."""
        parts, position = [], address
        for part in self._regions.within(address, address + length):
            if part.start != position or not part.protection & (1 << access):
                break
            parts.append(part)
            position = part.end
        if position < address + length:
            raise GuestFault(position, access)
        return parts

    def _read_part(self, part: MemoryRegion) -> bytes:
        if part.bank is not None:
            return ctypes.string_at(part.host_address(part.start), part.end - part.start)
        return b"".join(self._load_device(part, address, 1) for address in range(part.start, part.end))

    def _write_part(self, part: MemoryRegion, content: bytes) -> None:
        if part.kind is RegionKind.RAM:
            ctypes.memmove(part.host_address(part.start), content, len(content))
            self._note_write(part, part.start, part.end)
        elif part.kind is RegionKind.DEVICE:
            for position, byte in enumerate(content):
                self._store_device(part, part.start + position, bytes([byte]))

    def _load_device(self, region: MemoryRegion, address: int, size: int) -> bytes:
        assert region.device is not None
        try:
            value = region.device.read(region.offset + address - region.start, size)
        except GuestFault:
            raise GuestFault(address, Access.READ) from None
        return (value & (1 << 8 * size) - 1).to_bytes(size, "little")

    def _store_device(self, region: MemoryRegion, address: int, content: bytes) -> None:
        assert region.device is not None
        value = int.from_bytes(content, "little")
        try:
            region.device.write(region.offset + address - region.start, len(content), value)
        except GuestFault:
            raise GuestFault(address, Access.WRITE) from None

    def _note_write(self, region: MemoryRegion, start: int, end: int) -> None:
        """[start, end), in a region of RAM, was written."""
        first, last = region.page_number(start), region.page_number(end - 1)
        ctypes.memset(self._dirty + first, 1, last - first + 1)
        flags = ctypes.string_at(self._code + first, last - first + 1)
        if not any(flags):
            return
        from anyvirt.cpu.host import host

        for index, flag in enumerate(flags):
            if flag:
                page = (start & -PAGE_SIZE) + index * PAGE_SIZE
                low, high = max(start, page), min(end, page + PAGE_SIZE)
                host().forget_code(self.map_address, first + index, low - page, high - low)
                if flag & CodeFlag.TRANSLATIONS:
                    self.report_page(first + index)

    def forget_in_every_page(self, offset: int, length: int) -> None:
        """Forget the code at an offset from the beginning of a page, of all pages that have any.

        For whoever knows an address as CPUs use it, but not every page that is or was mapped there.
        """
        from anyvirt.cpu.host import host

        with self.changing():
            for page in list(self.code_pages()):
                number, flag = self._code_flag(page)
                host().forget_code(self.map_address, number, offset, min(length, PAGE_SIZE - offset))
                if flag & CodeFlag.TRANSLATIONS:
                    self.report_page(number)

    def _code_flag(self, page: int) -> tuple[int, int]:
        """The number of a page of RAM or ROM, and what there is of its code."""
        region = self._regions.at(page)
        assert region is not None
        number = region.page_number(page)
        return number, ctypes.c_uint8.from_address(self._code + number).value

    # Dirty pages ----------------------------------------------------------------------------------------

    def dirty_pages(self) -> list[int]:
        """Physical addresses of the pages of RAM written since the beginning or the last `clear_dirty`."""
        result: list[int] = []
        for region in self._regions:
            if region.kind is RegionKind.RAM:
                first, count = region.page_number(region.start), (region.end - region.start) // PAGE_SIZE
                flags = self._written.joined(first, ctypes.string_at(self._dirty + first, count))
                for start, end in runs(flags):
                    result += range(
                        region.start + start * PAGE_SIZE, region.start + end * PAGE_SIZE, PAGE_SIZE
                    )
        return result

    def clear_dirty(self) -> None:
        """Count no page as written; every CPU stands still meanwhile, so no store goes unseen."""
        with self.changing():
            self._collect_marks()
            self._written.clear()

    def _collect_marks(self) -> None:
        """Clear the native marks, and keep them for all who want to know; no CPU is running."""
        for bank in self._banks:
            count = bank.size // PAGE_SIZE
            marks = ctypes.string_at(self._dirty + bank.first_page, count)
            if 1 in marks:
                self._written.add(bank.first_page, marks)
                self._changed.add(bank.first_page, marks)
                _zero(self._dirty + bank.first_page, count)
        for view in list(self._views.values()):
            view.flush()

    # Images ---------------------------------------------------------------------------------------------

    def freeze(self) -> MemoryImage:
        """The content as it is now, which costs what was written since the last image. Raises OSError.

        Every CPU stands still meanwhile, and looks up addresses anew afterwards.
        """
        with self.changing():
            self._collect_marks()
            images = tuple(self._bank_image(address, bank, kind) for address, bank, kind in self._shown())
            self._changed.clear()
            self._image = {bank: image for (_, bank, _), image in zip(self._shown(), images, strict=True)}
        return MemoryImage(images)

    def become(self, image: MemoryImage) -> None:
        """Have the content of an image, which is of a memory with the same RAM and ROM. Raises OSError.

        All of it counts as written. CPUs forget addresses and code.
        """
        with self.changing():
            shown = self._shown()
            if image.shape != self.shape:
                raise OSError(errno.EINVAL, "the image is of a memory with other RAM and ROM")
            self._collect_marks()
            for (_, bank, _), content in zip(shown, image.banks, strict=True):
                for piece in (*self._image.get(bank, content).pieces, *content.pieces):
                    first, count = piece.start // PAGE_SIZE, (piece.end - piece.start) // PAGE_SIZE
                    self._written.add(bank.first_page + first, b"\1" * count)
                content.put(bank.host)
                self._image[bank] = content
            self._changed.clear()
            self._start_over()
        self.report_all_code()

    @property
    def shape(self) -> list[tuple[int, int, bool]]:
        """Of all RAM and ROM the addresses, the sizes, and whether it is RAM; see `MemoryImage.shape`."""
        return [(address, bank.size, kind is RegionKind.RAM) for address, bank, kind in self._shown()]

    def stretches(self) -> list[tuple[int, int, int]]:
        """Where the content is not zero: addresses and lengths, whole pages, and where that is in the host.

        What is seen at several addresses is told by the lowest. No CPU may be running.
        """
        result = []
        with self.changing():
            self._collect_marks()
            for address, bank, kind in self._shown():
                found = joined(not_zero(bank.host, runs_of_pages(self._touched(bank, kind))))
                result += [(address + start, end - start, bank.host + start) for start, end in found]
        return result

    def _shown(self) -> list[tuple[int, Bank, RegionKind]]:
        """The banks that are seen anywhere, each with the lowest address at which it is."""
        seen: dict[Bank, tuple[int, Bank, RegionKind]] = {}
        for region in self._regions:
            if region.bank is not None and region.bank not in seen:
                seen[region.bank] = region.start - region.offset, region.bank, region.kind
        return list(seen.values())

    def _bank_image(self, address: int, bank: Bank, kind: RegionKind) -> BankImage:
        """The present content of a bank; what did not change is that of its last image."""
        old = self._image.get(bank, BankImage(address, bank.size, kind is RegionKind.RAM))
        count = bank.size // PAGE_SIZE
        is_new = bank not in self._image and kind is RegionKind.ROM
        changed = b"\1" * count if is_new else self._changed.joined(bank.first_page, bytes(count))
        pieces = old.overlaid(copied(bank.host, list(joined(runs_of_pages(changed))), "anyvirt ram"))
        if len(pieces) > MOST_PIECES:
            touched, gap = list(runs_of_pages(self._touched(bank, kind))), GAP
            while len(stretches := list(joined(touched, gap))) > MOST_PIECES // 2:
                gap *= 2
            pieces = tuple(copied(bank.host, stretches, "anyvirt ram"))
        return BankImage(address, bank.size, kind is RegionKind.RAM, pieces)

    def _touched(self, bank: Bank, kind: RegionKind) -> bytes:
        """A byte for each page of a bank, 1 unless it is known to be zero."""
        count = bank.size // PAGE_SIZE
        if bank not in self._image and kind is RegionKind.ROM:
            return b"\1" * count
        marks = bytearray(self._changed.joined(bank.first_page, bytes(count)))
        for piece in self._image[bank].pieces if bank in self._image else ():
            first, end = piece.start // PAGE_SIZE, piece.end // PAGE_SIZE
            marks[first:end] = b"\1" * (end - first)
        return bytes(marks)

    # CPUs -----------------------------------------------------------------------------------------------

    def admit(self, view: MachineView, state: int) -> None:
        """A CPU with this state block is one of this memory's."""
        with self.lock:
            self._views[state] = view

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """While this is open no CPU runs; one that a device is at work for stays in that device."""
        with self.lock:
            views = list(self._views.values())
            for view in views:
                view.ask_to_hold()
            here = threading.get_ident()
            while any(view.is_running and not view.in_device and view.thread != here for view in views):
                time.sleep(_HOLDING_PAUSE)
            yield

    def flush_tlb(self, address: int | None = None) -> None:
        """Let all CPUs forget their translations, or those of one guest address's page."""
        with self.changing():
            for view in list(self._views.values()):
                view.flush(address)

    # Code -----------------------------------------------------------------------------------------------

    def code_space(self, key: object, make: Callable[[], MachineCodeSpace]) -> MachineCodeSpace:
        """The records of a kind of executors; made when first wanted."""
        with self.lock:
            if key not in self._spaces:
                space = make()
                with self.changing():
                    count = len(self._spaces)
                    if count == Map.MOST_SPACES:
                        raise UnsupportedError(
                            "interpreter", "more kinds of executors in a memory", f"there are {count}"
                        )
                    entry = Map.SPACES + count * Map.SPACE
                    for offset, value in enumerate((space.table, space.layout.shift, space.layout.size)):
                        self._set(entry + 8 * offset, value)
                    self._spaces[key] = space
                    self._set(Map.SPACE_COUNT, count + 1)
            return self._spaces[key]

    def make_code_page(self, space: MachineCodeSpace, number: int) -> None:
        """Make place for the records of a page, from whose stores on CPUs have to watch out."""
        with self.lock:
            if space.is_full and not space.page(number):
                self._start_over()
            flag = ctypes.c_uint8.from_address(self._code + number)
            if not flag.value & CodeFlag.RECORDS:
                with self.changing():
                    for view in list(self._views.values()):
                        view.stop_writing(number)
                    flag.value |= CodeFlag.RECORDS
            if not space.page(number):
                space.make_page(number, self.page_address(number), self._code + number)

    def page_address(self, number: int) -> int:
        """Where in this process the page of RAM or ROM with a number is."""
        bank = next(bank for bank in reversed(self._banks) if bank.first_page <= number)
        return bank.host + (number - bank.first_page) * PAGE_SIZE

    def code_pages(self) -> Iterator[int]:
        """Physical addresses of the pages of which something was decoded."""
        flags = ctypes.string_at(self._code, self._pages)
        for region in self._regions:
            if region.bank is not None:
                first = region.page_number(region.start)
                for page in range(region.start, region.end, PAGE_SIZE):
                    if flags[first + (page - region.start) // PAGE_SIZE]:
                        yield page

    def note_translations(self, number: int) -> None:
        """There are translations of a page: `on_code_change` tells when it has been stored to."""
        with self.lock:
            ctypes.c_uint8.from_address(self._code + number).value |= CodeFlag.TRANSLATIONS

    def discard_code(self) -> bool:
        """Give back the store of decoded code, but for that of pages with translations.

        What is executed again is decoded again. Does nothing to running CPUs: false if there was one.
        """
        for space in list(self._spaces.values()):
            for first in range(0, space.page_count, _PAGES_AT_ONCE):
                with self.lock:
                    if any(view.is_running for view in list(self._views.values())):
                        return False
                    space.discard(first, first + _PAGES_AT_ONCE, self._has_translations)
        return True

    def _has_translations(self, number: int) -> bool:
        return bool(ctypes.c_uint8.from_address(self._code + number).value & CodeFlag.TRANSLATIONS)

    def _start_over(self) -> None:
        """Forget all decoded code."""
        with self.changing():
            for space in self._spaces.values():
                space.clear()
            for view in list(self._views.values()):
                view.flush()
        self.report_all_code()

    def report_page(self, number: int) -> None:
        """Tell those who have translations that the code of a page has changed."""
        ctypes.c_uint8.from_address(self._code + number).value &= ~CodeFlag.TRANSLATIONS & 0xFF
        for region in self._regions:
            if region.bank is not None:
                start = region.start + (number - region.page_number(region.start)) * PAGE_SIZE
                if region.start <= start < region.end:
                    for listener in self.on_code_change:
                        listener(start, PAGE_SIZE)

    def report_all_code(self) -> None:
        """Tell those who have translations that any code may have changed."""
        for listener in self.on_code_change:
            listener(0, ADDRESS_SPACE)

    # Devices, as compiled code reaches them -------------------------------------------------------------

    def device_read(self, state: int, number: int, offset: int, size: int) -> int:
        """Ask a device on behalf of a CPU."""
        view = self._views[state]
        view.in_device = True
        try:
            return self._devices[number].read(offset, size) & (1 << 8 * size) - 1
        except GuestFault:
            view.fail(Access.READ)
        except BaseException as error:
            view.keep(error)
        finally:
            with self.lock:
                view.in_device = False
        return 0

    def device_write(self, state: int, number: int, offset: int, size: int, value: int) -> int:
        """Tell a device on behalf of a CPU."""
        view = self._views[state]
        view.in_device = True
        try:
            self._devices[number].write(offset, size, value)
        except GuestFault:
            view.fail(Access.WRITE)
        except BaseException as error:
            view.keep(error)
        finally:
            with self.lock:
                view.in_device = False
        return 0

    def _set(self, offset: int, value: int) -> None:
        ctypes.c_uint64.from_address(self.map_address + offset).value = value


def _device_calls(memory: weakref.ref[MachineMemory]) -> tuple[ctypes._FuncPointer, ctypes._FuncPointer]:
    """C functions for the two directions, which do not keep the memory alive."""

    def read(state: int, number: int, offset: int, size: int, _: int) -> int:
        found = memory()
        return 0 if found is None else found.device_read(state, number, offset, size)

    def write(state: int, number: int, offset: int, size: int, value: int) -> int:
        found = memory()
        return 0 if found is None else found.device_write(state, number, offset, size, value)

    return _DEVICE_CALL(read), _DEVICE_CALL(write)


def runs_of_pages(marks: bytes) -> Iterator[tuple[int, int]]:
    """The stretches of pages that are marked, in bytes."""
    return ((start * PAGE_SIZE, end * PAGE_SIZE) for start, end in runs(marks))


def _check_pages(address: int, size: int) -> None:
    if address % PAGE_SIZE or size % PAGE_SIZE or size <= 0 or not 0 <= address <= ADDRESS_SPACE - size:
        raise OSError(errno.EINVAL, f"RAM and ROM are whole pages of {PAGE_SIZE} bytes")


def _zero(start: int, length: int) -> None:
    """Zero host memory; whole pages of it are given back."""
    low, high = min(page_ceiling(start), start + length), (start + length) & -PAGE_SIZE
    if high <= low:
        ctypes.memset(start, 0, length)
        return
    ctypes.memset(start, 0, low - start)
    ctypes.memset(high, 0, start + length - high)
    host_discard(low, high - low)
