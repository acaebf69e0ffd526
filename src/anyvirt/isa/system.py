"""The system side of an instruction set: exceptions, interrupts, privilege and the translation of addresses.

An instruction set for whole machines has a `System` besides its instructions. Its functions are typed Python
about the processor (`SystemProcessor`), as the semantics of instructions are: compiled tiers take exceptions
and interrupts and walk page tables in machine code made from them, and the reference executor calls them as
they stand. Nothing here says what any of it means: that is the instruction set's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

from anyvirt.isa.processor import Processor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyvirt.typed import u64


class Event(IntEnum):
    """What an instruction can run into, as `System.take_exception` is told.

    The numbers are those of the reasons for which executors of other instruction sets stop
    (`anyvirt.jit.layout.StopReason`).
    """

    SYSTEM_CALL = 1
    BREAKPOINT = 2
    ILLEGAL_INSTRUCTION = 3
    ACCESS_FAULT = 4
    """An access that `translate` or the physical memory does not allow."""
    MISALIGNED = 5
    TRAP = 9
    """`Processor.trap`; the address is its number."""


class AccessType(IntEnum):
    """What an access is for; the numbers are those of `anyvirt.jit.layout.Access`."""

    READ = 0
    WRITE = 1
    EXECUTE = 2


class SystemProcessor(Processor, Protocol):
    """What instructions and the functions of a `System` can do besides what every processor does.

    `attend`, `enter`, `wait` and `set_alarm` stand last on their path, as jumps do.
    """

    def attend(self) -> None:
        """Go on behind this instruction, after taking an interrupt if one has become possible."""

    def enter(self, target: u64, /) -> None:
        """Go on at an address; how addresses are translated may have changed."""

    def wait(self) -> None:
        """Go on behind this instruction once there is an interrupt, or at any other time."""

    def set_alarm(self) -> None:
        """Go on behind this instruction; `System.deadline` has changed."""

    def want_attention(self) -> None:
        """An interrupt can be taken now: let `attend` and all jumps look."""

    def load_physical(self, address: u64, /) -> tuple[u64, bool]:
        """64 bits of RAM or ROM at a physical address that is a multiple of 8; false if there is none."""

    def update_physical(self, address: u64, expected: u64, value: u64, /) -> bool:
        """Atomically replace what `load_physical` read in RAM; false if it has changed or cannot."""

    def use_area(self, area: u64, /) -> None:
        """Let translations be remembered in this one of `System.areas` from now on, and taken from it.

        The areas are there so that what is true in one mode of the processor need not be forgotten in
        another: in each of them an address stands for the same thing until it is told to forget.
        """

    def forget_area(self, area: u64, /) -> None:
        """Forget the translations remembered in an area."""

    def forget_page(self, area: u64, address: u64, /) -> None:
        """Forget what is remembered in an area of the page with an address."""


@dataclass(frozen=True, slots=True)
class Guard:
    """A condition that instructions have besides their own, such as a unit that can be switched off."""

    name: str
    holds: Callable[..., bool]
    """Typed function of the processor. It only looks."""
    prepare: Callable[..., bool]
    """Typed function of the processor, called where the condition does not hold: whether the instruction may
    be tried again (then it holds) or is illegal."""


@dataclass(frozen=True)
class System:
    """The functions that make an instruction set one for machines. `cpu` is a `SystemProcessor`."""

    translate: Callable[..., tuple[u64, u64]]
    """(cpu, address, access): the physical address, and a bit for each `AccessType` that is allowed. A bit
    may be missing as long as that kind of access was not asked for."""
    take_exception: Callable[..., u64]
    """(cpu, event, pc, address, access, instruction): change the state, return where to go on."""
    take_interrupt: Callable[..., tuple[u64, bool]]
    """(cpu, pc): where to go on and true if there was one to be taken, before the instruction at `pc`."""
    is_awake: Callable[..., bool]
    """(cpu): whether `wait` is not to wait."""
    deadline: Callable[..., u64]
    """(cpu): the value of the time counter from which on the line `timer` is raised; all ones for never."""
    reset: Callable[..., None]
    """(cpu): the state after a reset, beyond what states declare."""
    refresh: Callable[..., None]
    """(cpu): make everything that follows from the state follow: it was changed from outside."""
    lines: str
    """Name of the state whose bits are the levels of interrupt lines. Only executors write it."""
    timer: int
    """Number of the line that follows `deadline`."""
    areas: int
    """Places for translations; the one in use after a reset is number 0."""
    guards: Mapping[Callable[..., None], Guard] = field(default_factory=dict)
    """By semantics of instructions."""
    routines: tuple[Callable[..., object], ...] = ()
    """Further functions of the processor that are compiled once and called, not expanded where they are
    used."""
    control: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Control registers that are kept as they are read: register file and index by name."""

    @property
    def compiled(self) -> tuple[Callable[..., object], ...]:
        """All functions that are compiled once."""
        own = (
            self.translate, self.take_exception, self.take_interrupt, self.is_awake, self.deadline,
            self.reset, self.refresh,
        )  # fmt: skip
        prepared = tuple(dict.fromkeys(guard.prepare for guard in self.guards.values()))
        return (*own, *prepared, *self.routines)
