"""The stencil tier in a process: machine code for guest code in microseconds, without a compiler.

The translator (`anyvirt.jit.stencil_translator`) is native code. It reads the records of a space of decoded
code and makes an image of them, position-independent but bound to that space.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from anyvirt.cpu.host import MappedBlob, host
from anyvirt.cpu.memory import PAGE_SIZE, FlatMemory, host_munmap, reserve
from anyvirt.cpu.view import FlatView
from anyvirt.jit.cache import load_or_compile
from anyvirt.jit.layout import STATE_SIZE, Slot
from anyvirt.jit.machine_layout import LOOKUP
from anyvirt.jit.stencil_blob import DECODE, TABLES, TRANSLATE, TRANSLATE_PAGE
from anyvirt.jit.stencil_layout import (
    HASH_FACTOR,
    HEADER_SIZE,
    JOB_SIZE,
    LARGEST_PAGE,
    LARGEST_REGION,
    Glue,
    Job,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anyvirt.cpu.code import CodeSpace
    from anyvirt.cpu.machine_code import MachineCodeSpace
    from anyvirt.jit.blob import Blob

_MASK = (1 << 64) - 1
_SEEN = (
    Slot.RECORDS, Slot.MAP, Slot.RECORD_SIZE, Slot.PAGES, Slot.HOOKS, Slot.CROSSING, Slot.TRANSLATION
)  # fmt: skip
"""What decoding needs to know of a CPU's view of machine memory."""


@dataclass(frozen=True)
class StencilImage:
    """Machine code for a piece of guest code, to be placed in the arena."""

    image: bytes
    entries: list[tuple[int, int]]
    """Host addresses of records that should lead into the image, the first of which was asked for, and the
    distance of each one's code from the beginning of the image."""
    ranges: list[tuple[int, int]]
    """The guest's instructions in it: addresses, as (start, end)."""
    instructions: int


class StencilTier:
    """Translates code of one space of decoded code. Any thread may use it."""

    _state = 0
    _job = 0

    def __init__(self, isa: str, code: CodeSpace | MachineCodeSpace, *, counted: bool, machine: bool) -> None:
        """`counted` and `machine` (memory) as the space's interpreter is. Raises UnsupportedError."""
        blob = _blob(isa, counted=counted, machine=machine)
        self._code = code
        self._lock = threading.Lock()
        self._host = host()
        self._handlers, shift = _handler_table(code.interpreter, blob)
        self._state = self._host.take_state()
        self._slots = (ctypes.c_uint64 * (Slot.END // 8)).from_address(self._state)
        self._slots[Slot.LEAVE // 8] = self._slots[Slot.ATTEND // 8] = self._host.leave
        self._slots[Slot.RECORD_SHIFT // 8] = code.layout.shift
        self._job = reserve(JOB_SIZE, mmap.PROT_READ | mmap.PROT_WRITE)
        self._blob = blob
        self._set(Job.TABLES, blob[TABLES])
        self._set(Job.HANDLERS, ctypes.addressof(self._handlers))
        self._set(Job.HANDLERS_SHIFT, shift)
        self._set(Job.CAPACITY, JOB_SIZE - Job.IMAGE)
        self._set(Job.COUNTED, int(counted))
        self._set(Job.STRIDE, code.layout.size)
        self._set(Job.LOOKUP, code.interpreter[LOOKUP] if machine else 0)

    def __del__(self) -> None:
        if self._job:
            host_munmap(self._job, JOB_SIZE)
        if self._state:
            self._host.give_state(self._state)

    def see(self, memory: FlatMemory, code: CodeSpace) -> None:
        """Translate code of a flat memory from now on, anywhere in it."""
        FlatView(self._state, memory, code).use(code)
        self._set(Job.SPAN, memory.size)

    def see_page(self, address: int, state: int) -> None:
        """Translate code of the page at a guest address, as the CPU with a state block sees it."""
        slots = (ctypes.c_uint64 * (Slot.END // 8)).from_address(state)
        for slot in _SEEN:
            self._slots[slot // 8] = slots[slot // 8]
        self._set(Job.FIRST, address & -PAGE_SIZE)
        self._set(Job.SPAN, PAGE_SIZE)

    def see_records(self, address: int, page: int) -> None:
        """Translate code as if the page that these records are of were at a guest address."""
        self._slots[Slot.RECORDS // 8] = page - (address << self._code.layout.shift) & _MASK
        self._set(Job.FIRST, address)
        self._set(Job.SPAN, PAGE_SIZE)

    def adopt(self, state: int) -> None:
        """Decode as the CPU with a state block would: how may depend on its mode."""
        ctypes.memmove(self._state + Slot.END, state + Slot.END, STATE_SIZE - Slot.END)

    def record_at(self, address: int) -> int:
        """Host address of the record for a guest address; 0 for one where nothing can be translated."""
        if not 0 <= address - self._get(Job.FIRST) < self._get(Job.SPAN):
            return 0
        return self._slots[Slot.RECORDS // 8] + (address << self._slots[Slot.RECORD_SHIFT // 8]) & _MASK

    def decode(self, records: Sequence[int]) -> None:
        """Decode the instructions of empty records, as many as fit into a translation at most."""
        with self._lock:
            (ctypes.c_uint64 * len(records)).from_address(self._job + Job.QUEUE)[:] = list(records)
            self._set(Job.QUEUE_COUNT, len(records))
            self._set(Job.DECODE, self._code.interpreter["decode_run"])
            self._serve(DECODE)

    def translate(
        self, record: int, *, limit: int = LARGEST_REGION, decode: bool = False
    ) -> StencilImage | None:
        """Machine code for the instructions around that of a record; None if there is no stencil for it.

        At most `limit` instructions are translated. Instructions that have never been decoded are left out
        (they are never executed, or rarely) unless `decode` is set.
        """
        with self._lock:
            self._set(Job.ENTRY, record)
            self._set(Job.LIMIT, min(limit, LARGEST_REGION))
            self._set(Job.DECODE, self._code.interpreter["decode_run"] if decode else 0)
            self._set(Job.SIZE, 0)
            self._serve(TRANSLATE)
            return self._result()

    def translate_page(self, page: int, covered: bytearray) -> Iterator[StencilImage]:
        """Machine code for what is decoded in the page at an address, and for what is around that.

        `covered` has a byte for each record of the page; those with another value than 0 are left out.
        """
        layout = self._code.layout
        first = record = self.record_at(page)
        end = first + (PAGE_SIZE << layout.shift)
        marks = (ctypes.c_uint8 * len(covered)).from_buffer(covered)
        while record != end:
            with self._lock:
                self._set(Job.ENTRY, record)
                self._set(Job.UNTIL, end)
                self._set(Job.COVERED, ctypes.addressof(marks) + (record - first) // layout.size)
                self._set(Job.LIMIT, LARGEST_PAGE)
                self._set(Job.DECODE, 0)
                self._serve(TRANSLATE_PAGE)
                record = self._get(Job.ENTRY)
                image = self._result()
            if image is None:
                return
            yield image

    def _serve(self, symbol: str) -> None:
        self._set(Job.HANDLER, self._blob[symbol])
        self._slots[Slot.RECORD // 8] = self._job
        self._host.enter(self._state)

    def _result(self) -> StencilImage | None:
        size = self._get(Job.SIZE)
        if not size:
            return None
        return StencilImage(
            ctypes.string_at(self._job + Job.IMAGE, size),
            self._pairs(Job.ENTRIES, self._get(Job.ENTRY_COUNT)),
            self._pairs(Job.RANGES, self._get(Job.RANGE_COUNT)),
            self._get(Job.INSTRUCTION_COUNT),
        )

    def _pairs(self, offset: int, count: int) -> list[tuple[int, int]]:
        words = memoryview(ctypes.string_at(self._job + offset, 16 * count)).cast("Q").tolist()
        return list(zip(words[::2], words[1::2], strict=True))

    def _get(self, offset: int) -> int:
        return ctypes.c_uint64.from_address(self._job + offset).value

    def _set(self, offset: int, value: int) -> None:
        ctypes.c_uint64.from_address(self._job + offset).value = value


@cache
def _blob(isa: str, *, counted: bool, machine: bool) -> MappedBlob:
    name = f"{isa}-machine-stencils" if machine else f"{isa}-stencils"
    name = f"{name}-counting" if counted else name
    return MappedBlob(load_or_compile(name, lambda: _compile(isa, counted=counted, machine=machine)))


def _compile(isa: str, *, counted: bool, machine: bool) -> Blob:
    from anyvirt.jit.ahead import instruction_set
    from anyvirt.jit.stencil_blob import stencil_blob

    return stencil_blob(instruction_set(isa), counted=counted, memory="machine" if machine else "flat")


def _handler_table(
    interpreter: MappedBlob, stencils: MappedBlob
) -> tuple[ctypes.Array[ctypes.c_uint64], int]:
    """The translator's hash table from handlers to headers, and its shift."""
    base = interpreter["handlers"]
    count = stencils.blob.notes["forms"]
    assert isinstance(count, int)
    bits = (4 * count).bit_length()
    table = (ctypes.c_uint64 * (2 << bits))()
    for form, distance in enumerate((ctypes.c_int32 * count).from_address(base)):
        handler = base + distance
        slot = (handler * HASH_FACTOR & _MASK) >> 64 - bits
        while table[2 * slot]:
            slot = (slot + 1) % (1 << bits)
        table[2 * slot] = handler
        table[2 * slot + 1] = stencils[TABLES] + (len(Glue) + form) * HEADER_SIZE
    return table, 64 - bits
