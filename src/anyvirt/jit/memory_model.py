"""What of a handler depends on the guest's memory: how addresses become places in the host's memory.

There are two models, chosen by `Features.memory` when handlers are compiled. "flat" is the address space of a
process (`anyvirt.cpu.memory`): data and records are one addition away and the host's page tables decide.
"machine" is the physical memory of a machine (`anyvirt.cpu.machine_memory`), reached through caches of
translations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anyvirt.jit import ir
    from anyvirt.jit.handlers import HandlerCompiler
    from anyvirt.jit.ir import Value


class MemoryModel(ABC):
    """Emits the code of memory accesses and of control transfers; addresses are names of LLVM i64 values."""

    @abstractmethod
    def program_counter(self, handler: HandlerCompiler) -> str:
        """Address of the instruction of a record."""

    @abstractmethod
    def note_count(self, handler: HandlerCompiler) -> None:
        """Keep what is left of the budget where a fault can find it."""

    @abstractmethod
    def jump(self, handler: HandlerCompiler, address: str) -> None:
        """Continue at an address, which may be anything."""

    @abstractmethod
    def branch(self, handler: HandlerCompiler, offset: str) -> None:
        """Continue at a distance from this instruction that is within BRANCH_REACH."""

    @abstractmethod
    def load(self, handler: HandlerCompiler, kind: ir.ValueType, address: str) -> Value:
        """Bytes of any alignment in the host's order."""

    @abstractmethod
    def store(self, handler: HandlerCompiler, value: Value, address: str) -> None:
        """Store bytes at any alignment in the host's order."""

    @abstractmethod
    def exchange(self, handler: HandlerCompiler, operation: str, address: str, value: Value) -> Value:
        """LLVM's atomicrmw; the old content."""

    @abstractmethod
    def compare_exchange(
        self, handler: HandlerCompiler, address: str, expected: Value, value: Value
    ) -> Value:
        """LLVM's cmpxchg; whether it stored."""

    def begin(self, handler: HandlerCompiler) -> None:  # noqa: B027 - nothing is what most models do
        """Do what comes before each instruction; nothing, unless hooks may want to see it."""

    def pass_by(self, handler: HandlerCompiler) -> None:  # noqa: B027
        """Do what comes before the next instruction in memory, where no jump has been taken."""

    def toward_slot(self, now: bool) -> None:  # noqa: B027
        """What is emitted from now on (or no longer) leads to a delay slot, which belongs to its branch."""

    def leave_block(self, handler: HandlerCompiler) -> None:  # noqa: B027
        """Do what comes before an instruction elsewhere that is reached without a jump."""


def memory_model(name: str) -> MemoryModel:
    """The model called "flat" or "machine"."""
    if name == "flat":
        from anyvirt.jit.flat_model import FlatModel

        return FlatModel()
    from anyvirt.jit.machine_model import MachineModel

    return MachineModel()


def slow_model(name: str) -> MemoryModel:
    """The model of the slow twins of handlers."""
    from anyvirt.jit.machine_model import MachineModel

    assert name == "machine", name
    return MachineModel(slow=True)


def atomic_exchange(handler: HandlerCompiler, operation: str, pointer: str, value: Value) -> Value:
    """An atomic read-modify-write through a host pointer."""
    size = _bytes(value)
    text = f"atomicrmw volatile {operation} ptr {pointer}, {value.operand} seq_cst, align {size}"
    return handler.body.value(text, value.type)


def atomic_compare_exchange(handler: HandlerCompiler, pointer: str, expected: Value, value: Value) -> Value:
    """An atomic compare-and-swap through a host pointer; whether it stored."""
    size = _bytes(value)
    pair = handler.body.emit(
        f"cmpxchg volatile ptr {pointer}, {expected.operand}, {value.operand} seq_cst seq_cst, align {size}"
    )
    return handler.body.value(f"extractvalue {{ i{8 * size}, i1 }} {pair}, 1", bool)


def _bytes(value: Value) -> int:
    from anyvirt.jit.ir import bit_width

    return bit_width(value.type) // 8
