"""Decoded guest code: the records of one address space, and when they have to be forgotten.

Records are zero until their instruction is reached: jumping to one faults at host address 0, and the fault
handler calls the decoder. So forgetting is zeroing handlers, and threads that run meanwhile decode anew.
The store of records is given back when the address space goes.
"""

from __future__ import annotations

import mmap
import threading
import weakref
from typing import TYPE_CHECKING, cast, overload

from anyvirt.cpu.hooked import HookTable, hooked_addresses
from anyvirt.cpu.host import MappedBlob, host
from anyvirt.cpu.memory import (
    PAGE_SIZE,
    FlatMemory,
    Protection,
    host_munmap,
    host_protect,
    outer_locks,
    reserve,
)
from anyvirt.errors import UnsupportedError, UsageError
from anyvirt.jit.cache import load_or_compile
from anyvirt.jit.layout import BRANCH_REACH, RecordLayout

if TYPE_CHECKING:
    from anyvirt.cpu.machine_code import MachineCodeSpace
    from anyvirt.cpu.machine_memory import MachineMemory
    from anyvirt.jit.blob import Blob

_LONGEST_BEFORE = 16
"""An instruction that starts this many bytes before a change may reach into it."""

_lock = threading.RLock()
outer_locks.append(_lock)

_interpreters: dict[tuple[str, bool, bool, bool], MappedBlob] = {}
_spaces: weakref.WeakKeyDictionary[FlatMemory, dict[tuple[str, bool, bool, bool], CodeSpace]] = (
    weakref.WeakKeyDictionary()
)


class CodeSpace:
    """The records of a guest address space for one interpreter."""

    _reserved = 0
    decoded_pages = 0
    """Host address of one byte a guest page: 1 where there may be records."""

    def __init__(self, memory: FlatMemory, interpreter: MappedBlob) -> None:
        self.interpreter = interpreter
        self._forget = host().forget
        granule, size = cast("list[int]", interpreter.blob.notes["records"])
        self.layout = RecordLayout(granule, size)
        self._size = memory.size * self.layout.scale
        self._guard = BRANCH_REACH * self.layout.scale
        try:
            self._reserved = reserve(self._size + 2 * self._guard)
            self.records = self._reserved + self._guard
            host_protect(self.records, self._size, mmap.PROT_READ | mmap.PROT_WRITE)
            self._pages = memory.size // PAGE_SIZE
            self.decoded_pages = reserve(self._pages, mmap.PROT_READ | mmap.PROT_WRITE)
        except OSError as error:
            raise UnsupportedError(
                "user",
                "address space for decoded code",
                f"the host refuses to reserve {self._size >> 30} GiB ({error.strerror}): "
                "see `ulimit -v` and vm.overcommit_memory",
            ) from None
        self.hooks = HookTable(interpreter["hooked"], size)
        hooked_addresses(memory).attach(self.hooks)
        memory.on_code_change.append(self.forget)

    def __del__(self) -> None:
        if self._reserved:
            host_munmap(self._reserved, self._size + 2 * self._guard)
        if self.decoded_pages:
            host_munmap(self.decoded_pages, self._pages)

    def forget(self, start: int, length: int) -> None:
        """Forget the instructions of [start, start + length) and those that reach into it."""
        granule, shift, size = self.layout.granule, self.layout.shift, self.layout.size
        first = max(start - _LONGEST_BEFORE, 0) & -granule
        self._forget(self.records, self.decoded_pages, first, -(-(start + length) & -granule), shift, size)

    def forget_all(self, memory: FlatMemory) -> None:
        """Forget everything that may be executed now."""
        for mapping in memory.mappings:
            if mapping.protection & Protection.EXECUTE:
                self.forget(mapping.start, mapping.end - mapping.start)


def forget_decoded(memory: FlatMemory) -> None:
    """Forget what all executors have decoded of what may be executed now."""
    with _lock:
        spaces = list(_spaces.get(memory, {}).values())
    for space in spaces:
        space.forget_all(memory)


@overload
def code_space(
    memory: FlatMemory, isa: str, *, counted: bool, translated: bool = ..., instrumented: bool = ...
) -> CodeSpace: ...
@overload
def code_space(
    memory: MachineMemory, isa: str, *, counted: bool, translated: bool = ..., instrumented: bool = ...
) -> MachineCodeSpace: ...
def code_space(
    memory: FlatMemory | MachineMemory,
    isa: str,
    *,
    counted: bool,
    translated: bool = False,
    instrumented: bool = False,
) -> CodeSpace | MachineCodeSpace:
    """The records of an address space, shared by all its executors of a kind; made when first wanted.

    Those of executors that run translations are their own: records lead into translations there. So are
    those of instrumented runs, which let hooks see blocks and memory accesses.
    """
    key = (isa, counted, translated, instrumented)
    flat = isinstance(memory, FlatMemory)
    with _lock:
        interpreter = _interpreter(isa, counted=counted, instrumented=instrumented, machine=not flat)
        if isinstance(memory, FlatMemory):
            spaces = _spaces.setdefault(memory, {})
            if key not in spaces:
                spaces[key] = CodeSpace(memory, interpreter)
            return spaces[key]
    from anyvirt.cpu.machine_code import MachineCodeSpace

    def make() -> MachineCodeSpace:
        space = MachineCodeSpace(interpreter)
        hooked_addresses(memory).attach(space.hooks)
        return space

    return memory.code_space(key, make)


def _interpreter(isa: str, *, counted: bool, instrumented: bool, machine: bool) -> MappedBlob:
    key = (isa, counted, instrumented, machine)
    if key not in _interpreters:
        name = f"{isa}-machine" if machine else isa
        name = f"{name}-instrumented" if instrumented else f"{name}-counting" if counted else name
        blob = MappedBlob(load_or_compile(name, lambda: _compile(*key)))
        host().add_code(blob)
        _interpreters[key] = blob
    return _interpreters[key]


def _compile(isa: str, counted: bool, instrumented: bool, machine: bool) -> Blob:
    from anyvirt.jit.ahead import instruction_set, interpreter_blob

    description = instruction_set(isa)
    if description.system is not None and not machine:
        raise UsageError(f"{isa} is an instruction set of machines: its CPUs need a MachineMemory")
    return interpreter_blob(
        description,
        counted=counted,
        memory="machine" if machine else "flat",
        instrumented=instrumented,
    )
