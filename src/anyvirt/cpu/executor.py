"""The line between who runs a virtual CPU and who serves it: `Executor` and the reasons it stops for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from anyvirt.jit.layout import Access, StopReason

if TYPE_CHECKING:
    from collections.abc import MutableSequence

    from anyvirt.cpu.hooks import Hook
    from anyvirt.cpu.memory import FlatMemory


__all__ = ["Access", "Executor", "Stop", "StopReason"]


class Stop(NamedTuple):
    """Where and why a virtual CPU stopped.

    With delay slots, bit 1 of `pc` says that the instruction is in one (`isa.description.DELAY_SLOT`).
    The state is precise: every instruction before `pc` has taken effect and nothing of the instruction
    at `pc` has (a system call or breakpoint included).
    """

    reason: StopReason
    pc: int
    length: int = 0
    """Bytes of the instruction at `pc` where that is known (system call, breakpoint), otherwise 0.

    In a delay slot the distance to where execution goes on, which may be negative.
    """
    address: int = 0
    """Guest address of an ACCESS_FAULT or MISALIGNED; of an instruction fetch, the byte that is missing.

    The number of a TRAP.
    """
    access: Access = Access.READ
    bus_error: bool = False
    """The page is mapped but has no store behind it (a file that was cut off): SIGBUS, not SIGSEGV."""
    hit: Hook | None = None
    """Of a HOOK, which one ended the run: a breakpoint, a watchpoint or a hook."""

    @property
    def is_fetch_failure(self) -> bool:
        """Whether there is no instruction at `pc` that could have been executed."""
        if self.reason == StopReason.ACCESS_FAULT:
            return self.access == Access.EXECUTE
        return self.reason == StopReason.ILLEGAL_INSTRUCTION

    @property
    def next_pc(self) -> int:
        """Address of the instruction after the one at `pc`."""
        return self.pc + self.length


@runtime_checkable
class Executor(Protocol):
    """What advances one virtual CPU. One host thread runs it at a time; several may share a memory."""

    memory: FlatMemory

    @property
    def x(self) -> MutableSequence[int]:
        """The integer registers as unsigned 64-bit values; `x[0]` stays 0."""

    @property
    def f(self) -> MutableSequence[int]:
        """The floating-point registers as raw 64-bit patterns."""

    @property
    def pc(self) -> int:
        """Address of the next instruction."""

    @pc.setter
    def pc(self, value: int) -> None: ...

    @property
    def fcsr(self) -> int:
        """Floating-point control and status: flags in bits 4:0, rounding mode in bits 7:5."""

    @fcsr.setter
    def fcsr(self, value: int) -> None: ...

    def run(self, max_instructions: int | None = None) -> Stop:
        """Run from `pc` until something stops the CPU; with a budget, at most that many instructions.

        The GIL is released meanwhile by every compiled tier. A run with a budget is reproducible bit for bit:
        it stops exactly, and its counters (cycles, time) are derived from the instructions executed.
        """

    def interrupt(self) -> None:
        """Make a running `run` return INTERRUPTED soon; if none is running, the next one does at once.

        May be called from any thread and from Python signal handlers.
        """

    def invalidate(self, start: int, length: int) -> None:
        """Forget what was decoded or translated from [start, start + length): the bytes have changed.

        Needed when Python or the kernel wrote code; `FlatMemory.map`, `unmap`, `protect` and `write`
        do it themselves, and so does the guest's own `fence.i`.
        """
