"""The table of system calls of one ABI: its numbers joined with the handlers and what is passed through."""

from __future__ import annotations

from typing import TYPE_CHECKING

# Importing these modules registers their handlers.
from anyvirt.linux.emulation import (  # noqa: F401
    events,
    files,
    identity,
    memory_calls,
    processes,
    signals,
    sockets,
    terminals,
    thread_calls,
)
from anyvirt.linux.emulation.passthrough import PASS_THROUGH, pass_through
from anyvirt.linux.emulation.table import HANDLED, SystemCall

if TYPE_CHECKING:
    from anyvirt.linux.emulation.abi import Abi


class Table(dict[int, SystemCall]):
    """System calls by number; those that are passed through are made when they are first wanted."""

    def __init__(self, abi: Abi) -> None:
        super().__init__()
        self._names = {number: name for name, number in abi.numbers.items()}

    def __missing__(self, number: int) -> SystemCall:
        """The call of that number. Raises KeyError for one that does not exist or is not served."""
        name = self._names[number]
        call = HANDLED.get(name) or pass_through(name)
        self[number] = call
        return call

    def name(self, number: int) -> str:
        """What the call is called, whether it is served or not."""
        return self._names.get(number, f"syscall_{number}")

    def served(self) -> list[tuple[int, SystemCall]]:
        """All that is served, by number."""
        names = sorted(self._names.items())
        return [(number, self[number]) for number, name in names if name in HANDLED or name in PASS_THROUGH]
