"""What a debugger works on: threads with registers, memory, and points to stop at.

A target is whatever can be stopped and looked at: one executor, a process of the user engine, a machine with
several CPUs. The protocol's side (`anyvirt.debug.session`) knows nothing else of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Protocol

from anyvirt.errors import AnyvirtError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyvirt.debug.registers import TargetDescription


class TargetError(AnyvirtError):
    """The target cannot do what the debugger asked: no memory there, no such register."""


class PointKind(IntEnum):
    """What stops the target, numbered as the protocol's Z packets number them."""

    SOFTWARE_BREAKPOINT = 0
    HARDWARE_BREAKPOINT = 1
    WRITE = 2
    READ = 3
    ACCESS = 4

    @property
    def is_watchpoint(self) -> bool:
        """Whether it watches data."""
        return self >= PointKind.WRITE


class Object(Enum):
    """Whole objects that a debugger may read (qXfer)."""

    AUXILIARY_VECTOR = "auxv"
    EXECUTABLE = "exec-file"
    MEMORY_MAP = "memory-map"


class HistoryEdge(Enum):
    """Where what a target remembers of its past, or knows of its future, is over."""

    BEGINNING = "begin"
    END = "end"


@dataclass(frozen=True)
class Resume:
    """How one thread is to go on."""

    step: bool = False
    """Stop again after one instruction."""
    signal: int = 0
    """Signal to deliver first, in the host's numbering; 0: none."""
    within: tuple[int, int] | None = None
    """With `step`: go on stepping while the program counter is in [start, end)."""
    backwards: bool = False
    """Go back in the target's history instead of on."""


@dataclass(frozen=True)
class Stopped:
    """A thread stopped, and so did all others."""

    thread: int
    signal: int
    """In the host's numbering: SIGTRAP for what the debugger itself asked for."""
    point: PointKind | None = None
    """Which kind of point was hit, if one was."""
    address: int = 0
    """For a watchpoint, the data's address."""
    executed: bytes | None = None
    """The path of the program that the target has just become (execve), if that is the reason."""
    edge: HistoryEdge | None = None
    """Where its history is over, if that is the reason."""


@dataclass(frozen=True)
class Ended:
    """The target is gone: it exited with a status, or a signal (of the host's numbering) killed it."""

    status: int = 0
    signal: int = 0


class DebugTarget(Protocol):
    """What a debugger may do while the target is stopped.

    Threads have numbers from 1. All methods may raise TargetError, which the debugger's user gets to see.
    """

    description: TargetDescription
    attached: bool
    """Whether the target was there before the debugger (so that quitting lets it live)."""

    @property
    def keeps_history(self) -> bool:
        """Whether it can go backwards."""

    @property
    def objects(self) -> Mapping[Object, bytes]:
        """The objects that can be read, as they are now."""

    def threads(self) -> Sequence[int]:
        """The numbers of all threads."""

    def thread_name(self, thread: int) -> str:
        """What to call a thread in listings."""

    def read_register(self, thread: int, number: int) -> int:
        """A register by its place in the description, unsigned."""

    def write_register(self, thread: int, number: int, value: int) -> None:
        """Set a register."""

    def read_memory(self, thread: int, address: int, length: int) -> bytes:
        """Up to `length` bytes as a thread sees them, fewer where the rest cannot be read."""

    def write_memory(self, thread: int, address: int, data: bytes) -> None:
        """Store bytes, also where the guest itself may not write; code is noticed."""

    def add_point(self, kind: PointKind, address: int, length: int) -> None:
        """Stop there from now on; adding what is there already changes nothing."""

    def remove_point(self, kind: PointKind, address: int, length: int) -> None:
        """No longer stop there; removing what is not there changes nothing."""

    def packet(self, thread: int, packet: bytes) -> bytes:
        """The answer to a packet that is the target's own; empty for what is not supported."""


class ResumableTarget(DebugTarget, Protocol):
    """A target that a server can run by itself."""

    def resume(self, plan: Mapping[int, Resume], wake: int) -> Stopped | Ended | None:
        """Run the threads of `plan` until something happens; None if descriptor `wake` became readable.

        Raises TargetError if it cannot; it stands then where it has come to.
        """

    def detach(self) -> None:
        """The debugger is gone: remove all points. The target goes on without it."""

    def kill(self) -> None:
        """End the target."""
