"""How one virtual CPU sees a machine memory: its TLBs, and what of its run concerns others."""

from __future__ import annotations

import ctypes
import mmap
import struct
import threading
import weakref
from typing import TYPE_CHECKING

from anyvirt.cpu.host import host
from anyvirt.cpu.memory import PAGE_SIZE, host_munmap, reserve
from anyvirt.jit.layout import DEVICE_ERROR, NEW_CODE, SYNCHRONIZE, Access, Request, Slot, StopReason
from anyvirt.jit.machine_layout import (
    APART,
    AREA_SIZE,
    CHANGES,
    CODE_ENTRIES,
    CODE_TABLE,
    FILLED,
    NO_TAG,
    PAGE_BITS,
    Change,
    CodeEntry,
    Filled,
    RecordPage,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyvirt.cpu.machine_code import MachineCodeSpace
    from anyvirt.cpu.machine_memory import MachineMemory

_WORD = (1 << 64) - 1
_RECORD, _RECORDS, _TARGET, _OUTCOME, _MEMORY = (
    int(slot) // 8 for slot in (Slot.RECORD, Slot.RECORDS, Slot.TARGET, Slot.OUTCOME, Slot.MEMORY)
)


class MachineView:
    """The TLBs of a CPU, and whether it is running."""

    tlb = 0
    """Host address of the TLBs (`anyvirt.jit.machine_layout`)."""

    def __init__(self, state: int, memory: MachineMemory, areas: int = 1) -> None:
        """`areas` is the number of TLBs: a CPU with modes has several."""
        self._memory = memory
        self._state = state
        self._slots = (ctypes.c_uint64 * (Slot.END // 8)).from_address(state)
        self._requests = (ctypes.c_uint8 * len(Request)).from_address(state + Slot.PENDING)
        self._crossings: weakref.WeakKeyDictionary[MachineCodeSpace, _CrossingPage] = (
            weakref.WeakKeyDictionary()
        )
        self.is_running = False
        self.thread = 0
        """Which runs the CPU: while it does anything else, such as a signal handler, the CPU stands."""
        self.in_device = False
        """A device is at work for the CPU: it runs Python, nothing else."""
        self.error: BaseException | None = None
        """What a device has raised."""
        self._size = areas * AREA_SIZE
        self.tlb = reserve(self._size, mmap.PROT_READ | mmap.PROT_WRITE)
        for tlb in self._areas():
            ctypes.c_uint64.from_address(tlb + FILLED).value = Filled.CAPACITY + 1
        self._set(Slot.TLBS, self.tlb)
        self._set(Slot.MEMORY, self.tlb)
        self._set(Slot.MEMORY_SIZE, 0)
        self._set(Slot.MAP, memory.map_address)
        self.flush()
        memory.admit(self, state)

    def __del__(self) -> None:
        if self.tlb:
            host_munmap(self.tlb, self._size)

    def _areas(self) -> range:
        """Addresses of the TLBs."""
        return range(self.tlb, self.tlb + self._size, AREA_SIZE)

    # What an executor wants of a view -------------------------------------------------------------------

    def use(self, code: MachineCodeSpace) -> None:
        """Let the CPU run the decoded code of a space."""
        if code not in self._crossings:
            self._crossings[code] = _CrossingPage(code)
        self._code = code
        self._shift, self._granule = code.layout.shift, code.layout.granule
        crossing = self._crossings[code].address
        self._entry = crossing + code.half
        self._lost = self._entry + RecordPage.LOST
        self._takes_faults = "system" in code.interpreter.blob.notes
        self._set(Slot.RECORD_SHIFT, self._shift)
        self._set(Slot.RECORD_SIZE, code.layout.size)
        self._set(Slot.PAGES, code.table)
        self._set(Slot.CROSSING, crossing)
        self._set(Slot.UNDECODED, code.interpreter["undecoded"])
        self._set(Slot.REFILL, code.interpreter["refill"])
        self._set(Slot.HOOKS, code.hooks.cell)
        if "system" in code.interpreter.blob.notes:
            self._set(Slot.ATTEND, code.interpreter["attend"])
            self._set(Slot.APART, code.interpreter[APART])
        self.flush()

    def place(self, pc: int) -> bool:
        """Make `pc` where compiled code begins; false if no instruction can be there."""
        limit = 1 << 63 - self._shift
        if pc % self._granule:
            return False
        if limit <= pc < (1 << 64) - limit:
            # No record can stand for it. The CPU of a machine finds out by itself.
            self._slots[_RECORD] = self._slots[_RECORDS] = self._lost
            self._slots[_TARGET] = pc
            return self._takes_faults
        self._slots[_RECORD] = self._entry
        self._slots[_RECORDS] = self._entry - (pc << self._shift) & _WORD
        return True

    def is_lost(self) -> bool:
        """Never: every jump asks first."""
        return False

    def program_counter(self) -> int:
        """The `pc` at which compiled code was left."""
        if self._slots[_RECORD] == self._lost:
            return self._slots[_TARGET]
        scaled = self._slots[_RECORD] - self._slots[_RECORDS] & _WORD
        if scaled >> 63:
            scaled -= 1 << 64
        return scaled >> self._shift & _WORD

    def code_page(self, pc: int) -> int | None:
        """The number of the page of code at a guest address, if the TLB in use knows it."""
        entry = self._slots[_MEMORY] + CODE_TABLE + (pc >> PAGE_BITS) % CODE_ENTRIES * CodeEntry.SIZE
        tag, records = (ctypes.c_uint64 * 2).from_address(entry)
        if tag != pc & -PAGE_SIZE & _WORD:
            return None
        return self._code.page_number(records + (tag << self._shift) & _WORD)

    def record_page(self) -> int | None:
        """The number of the page whose records the CPU is at; None if it is at one of its own."""
        return self._code.page_number(self._slots[_RECORD] & -self._code.stride)

    def known_code(self, middle: int, reach: int) -> Iterator[tuple[int, int]]:
        """The pages of code that the TLB in use knows up to `reach` pages from one: addresses and numbers."""
        table = ctypes.string_at(self._slots[_MEMORY] + CODE_TABLE, CODE_ENTRIES * CodeEntry.SIZE)
        first, span = middle - reach * PAGE_SIZE, 2 * reach * PAGE_SIZE
        for tag, records in struct.iter_unpack("<QQ", table):
            if tag != NO_TAG and tag - first & _WORD <= span:
                number = self._code.page_number(records + (tag << self._shift) & _WORD)
                if number is not None:
                    yield tag, number

    def settle(self) -> None:
        """Be at the record of the instruction, if the TLB knows where that is."""
        if self._slots[_RECORD] == self._entry:
            pc = self.program_counter()
            number = self.code_page(pc)
            if number is not None:
                record = self._code.page(number) + (pc % PAGE_SIZE << self._shift)
                self._slots[_RECORD] = record
                self._slots[_RECORDS] = record - (pc << self._shift) & _WORD

    def enter(self, state: int) -> None:
        """Run compiled code; anybody who changes the memory first waits for it to be left."""
        memory = self._memory
        with memory.lock:
            self._requests[Request.HOLD] = 0
            self.thread = threading.get_ident()
            self.is_running = True
        try:
            host().enter(state)
        finally:
            self.is_running = False

    def serve(self, reason: int) -> bool:
        """Make place for new code, or tell others about changed code."""
        if reason == NEW_CODE:
            self._memory.make_code_page(self._code, self._slots[Slot.FAULT_ADDRESS // 8])
            return self.place(self._slots[_TARGET])
        if reason == StopReason.INTERRUPTED:
            self._report_changes()
            return self.place(self.program_counter())
        return reason == SYNCHRONIZE

    def take_error(self) -> BaseException | None:
        """What a device has raised, once."""
        error, self.error = self.error, None
        return error

    def flush_tlb(self, address: int | None) -> None:
        """Drop translations of addresses: all, or that of one guest address's page."""
        with self._memory.changing():
            self.flush(address)

    def invalidate(self, start: int, length: int) -> None:
        """Let everybody forget what was decoded or translated from a range of physical addresses."""
        self._memory.wrote(start, length)

    # What the memory wants of a view --------------------------------------------------------------------

    def ask_to_hold(self) -> None:
        """Let the CPU leave compiled code at the next jump."""
        self._requests[Request.HOLD] = 1

    def flush(self, address: int | None = None) -> None:
        """Empty the TLBs, or drop the page of a guest address; the CPU must not be running."""
        for tlb in self._areas():
            if address is None:
                host().flush_tlbs(tlb)
            else:
                host().flush_page(tlb, address)

    def stop_writing(self, number: int) -> None:
        """Make stores to a page take the slow path; the CPU must not be running."""
        for tlb in self._areas():
            host().stop_writing(tlb, number)

    def fail(self, access: Access) -> None:
        """Make the access that a device was asked for an access fault."""
        self._set(Slot.FAULT_ACCESS, access)
        self._slots[_OUTCOME] = StopReason.ACCESS_FAULT

    def keep(self, error: BaseException) -> None:
        """Have an exception of a device raised from `run`."""
        self.error = error
        self._slots[_OUTCOME] = DEVICE_ERROR

    def set_translation(self, table: int) -> None:
        """Translate addresses by the table at a host address (`anyvirt.jit.one_level_translation`)."""
        self._set(Slot.TRANSLATION, table)
        self.flush_tlb(None)

    def _report_changes(self) -> None:
        self._requests[Request.CHANGED] = 0
        words = (ctypes.c_uint64 * (1 + Change.CAPACITY)).from_address(self.tlb + CHANGES)
        count, words[0] = words[0], 0
        if count > Change.CAPACITY:
            self._memory.report_all_code()
        for number in words[1 : 1 + min(count, Change.CAPACITY)]:
            self._memory.report_page(number)

    def _set(self, slot: Slot, value: int) -> None:
        self._slots[slot // 8] = value


class _CrossingPage:
    """The page of records for one CPU's instructions that cross the end of a page."""

    address = 0

    def __init__(self, code: MachineCodeSpace) -> None:
        self._size = 2 * code.stride
        self._reserved, self.address = code.crossing_page()

    def __del__(self) -> None:
        if self.address:
            host_munmap(self._reserved, self._size)
