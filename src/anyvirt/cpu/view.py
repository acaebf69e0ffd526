"""How one virtual CPU sees a guest memory: what its state block says of it, and where a `pc` has a record."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Protocol

from anyvirt.cpu.code import forget_decoded
from anyvirt.cpu.host import host
from anyvirt.cpu.memory import FlatMemory
from anyvirt.jit.layout import BRANCH_REACH, SYNCHRONIZE, Slot, StopReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.cpu.code import CodeSpace
    from anyvirt.cpu.machine_memory import MachineMemory

_WORD = (1 << 64) - 1


class View(Protocol):
    """The part of an executor that depends on the memory model."""

    def use(self, code: Any, /) -> None:  # noqa: ANN401 - a space of its memory's kind
        """Let the CPU run the decoded code of a space."""

    def place(self, pc: int) -> bool:
        """Make `pc` where compiled code begins; false if no instruction can be there."""

    def is_lost(self) -> bool:
        """Whether a near branch has led to where no instruction can be; compiled code has yet to say so."""

    def enter(self, state: int, /) -> None:
        """Run compiled code on the state block."""

    def program_counter(self) -> int:
        """The `pc` at which compiled code was left."""

    def serve(self, reason: int) -> bool:
        """Do what compiled code wants done before it goes on; false if the reason is not about memory.

        With the reason INTERRUPTED the requests other than STOP and SAMPLE are served.
        """

    def take_error(self) -> BaseException | None:
        """What a device has raised, once."""

    def flush_tlb(self, address: int | None) -> None:
        """Drop translations of addresses: all, or that of one guest address's page."""

    def invalidate(self, start: int, length: int) -> None:
        """Let everybody forget what was decoded or translated from a range of the memory."""


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
        self.enter: Callable[[int], None] = host().enter
        """Run compiled code on the state block."""

    def use(self, code: CodeSpace) -> None:
        """Let the CPU run the decoded code of a space."""
        self._code = code
        self._set(Slot.RECORDS, code.records)
        self._set(Slot.RECORD_SHIFT, code.layout.shift)
        self._set(Slot.DECODED, code.decoded_pages)
        self._set(Slot.UNDECODED, code.interpreter["undecoded"])
        self._set(Slot.HOOKS, code.hooks.cell)

    def place(self, pc: int) -> bool:
        """Make `pc` where compiled code begins; false if no instruction can be there.

        Within reach of a branch it is made so even then: compiled code stops there as it would anyway.
        """
        distance = pc - (pc >> 63 << 64)
        if not -BRANCH_REACH <= distance < self._memory.size + BRANCH_REACH or pc % self._granule:
            return False
        self._slots[_RECORD] = self._code.records + (distance << self._shift)
        return not self.is_lost()

    def is_lost(self) -> bool:
        """See View.is_lost."""
        return self.program_counter() >= self._memory.size

    def program_counter(self) -> int:
        """The `pc` at which compiled code was left."""
        return (self._slots[_RECORD] - self._code.records) >> self._shift & _WORD

    def serve(self, reason: int) -> bool:
        """Forget decoded code where the guest asks for it."""
        if reason == SYNCHRONIZE:
            forget_decoded(self._memory)
        return reason in (SYNCHRONIZE, StopReason.INTERRUPTED)

    def take_error(self) -> BaseException | None:
        """There are no devices."""
        return None

    def flush_tlb(self, address: int | None) -> None:
        """There are no translations of addresses."""

    def invalidate(self, start: int, length: int) -> None:
        """Let everybody forget what was decoded or translated from a range of the memory."""
        start, end = max(start, 0), min(start + length, self._memory.size)
        if start < end:
            for listener in self._memory.on_code_change:
                listener(start, end - start)

    def _set(self, slot: Slot, value: int) -> None:
        self._slots[slot // 8] = value


_RECORD = Slot.RECORD // 8


def view_of(memory: FlatMemory | MachineMemory, state: int, code: Any) -> View:  # noqa: ANN401 - its space
    """The view of a CPU with this state block on a memory of either kind, with a space of its code."""
    if isinstance(memory, FlatMemory):
        return FlatView(state, memory, code)
    from anyvirt.cpu.machine_view import MachineView

    system = code.interpreter.blob.notes.get("system")
    return MachineView(state, memory, areas=1 if system is None else system["areas"])
