"""How one virtual CPU sees a guest memory: what its state block says of it, and where a `pc` has a record."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Protocol

from anyvirt.jit.layout import SYNCHRONIZE, Slot

if TYPE_CHECKING:
    from anyvirt.cpu.code import CodeSpace
    from anyvirt.cpu.memory import FlatMemory


class View(Protocol):
    """The part of an executor that depends on the memory model."""

    def use(self, code: CodeSpace) -> None:
        """Let the CPU run the decoded code of a space."""

    def place(self, pc: int) -> bool:
        """Make `pc` where compiled code begins; false if no instruction can be there."""

    def program_counter(self) -> int:
        """The `pc` at which compiled code was left."""

    def serve(self, reason: int) -> bool:
        """Do what compiled code wants done before it goes on; false if the reason is not about memory."""


class FlatView:
    """The whole of a flat memory, which all its CPUs see alike."""

    def __init__(self, state: int, memory: FlatMemory, code: CodeSpace) -> None:
        self._memory = memory
        self._code = code
        self._slots = (ctypes.c_uint64 * (Slot.END // 8)).from_address(state)
        self._set(Slot.MEMORY, memory.base)
        self._set(Slot.MEMORY_SIZE, memory.size)
        self._set(Slot.EXECUTABLE, memory.executable_pages)
        self._granule, self._shift = code.layout.granule, code.layout.shift

    def use(self, code: CodeSpace) -> None:
        """Let the CPU run the decoded code of a space."""
        self._code = code
        self._set(Slot.RECORDS, code.records)
        self._set(Slot.RECORD_SHIFT, code.layout.shift)
        self._set(Slot.DECODED, code.decoded_pages)
        self._set(Slot.UNDECODED, code.interpreter["undecoded"])
        self._set(Slot.HOOKS, code.hooks.cell)

    def place(self, pc: int) -> bool:
        """Make `pc` where compiled code begins; false if no instruction can be there."""
        if not 0 <= pc < self._memory.size or pc % self._granule:
            return False
        self._slots[_RECORD] = self._code.records + (pc << self._shift)
        return True

    def program_counter(self) -> int:
        """The `pc` at which compiled code was left."""
        return (self._slots[_RECORD] - self._code.records) >> self._shift

    def serve(self, reason: int) -> bool:
        """Forget decoded code where the guest asks for it."""
        if reason != SYNCHRONIZE:
            return False
        self._code.forget_all(self._memory)
        return True

    def _set(self, slot: Slot, value: int) -> None:
        self._slots[slot // 8] = value


_RECORD = Slot.RECORD // 8
