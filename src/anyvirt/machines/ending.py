"""How a run of a machine ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anyvirt.cpu.executor import Stop


class Reason(StrEnum):
    """Why a run ended."""

    POWEROFF = "poweroff"
    """The guest has turned the machine off."""
    RESET = "reset"
    """The guest wants the machine to begin anew: `Machine.reset` does it."""
    FAILURE = "failure"
    """The guest has turned the machine off for a failure; `code` is its own."""
    LIMIT = "limit"
    """The time or the instructions that were given are used up."""
    CONDITION = "condition"
    """What was waited for has happened."""
    HOOK = "hook"
    """A breakpoint, a watchpoint or a hook; `stop` says which, `hart` on which CPU."""
    STOPPED = "stopped"
    """`Machine.stop` was called."""
    BEGINNING = "beginning"
    """Going back has come to where the machine's history begins."""
    IDLE = "idle"
    """In a counted run: all CPUs wait for interrupts, and nothing is going to happen that makes one."""


@dataclass(frozen=True)
class Ending:
    """Why a run ended, with what belongs to that."""

    reason: Reason
    code: int = 0
    """Of a FAILURE."""
    hart: int | None = None
    """Of a HOOK."""
    stop: Stop | None = None
    """Of a HOOK."""

    @property
    def is_final(self) -> bool:
        """Whether the machine has ended: it can be reset, not be run on."""
        return self.reason in (Reason.POWEROFF, Reason.RESET, Reason.FAILURE)
