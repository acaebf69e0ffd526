"""Breakpoints: addresses at which a run stops before the instruction there is executed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.cpu.hooks import AddressHook

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyvirt.cpu.hooks import Hooks


class Breakpoint(AddressHook):
    """An address at which runs stop; the next run goes on behind it."""

    is_stop = True

    def __init__(self, hooks: Hooks, address: int) -> None:
        super().__init__(hooks, address, lambda _cpu, _address: True)


class Breakpoints:
    """The breakpoints of one CPU: `cpu.breakpoints`."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks

    def add(self, address: int) -> Breakpoint:
        """Stop at an address from now on, with a `Stop` whose `hit` is the breakpoint.

        It may be removed by its `remove`, or be used as a context manager.
        """
        breakpoint = Breakpoint(self._hooks, address)
        self._hooks.add(breakpoint)
        return breakpoint

    def remove(self, address: int) -> None:
        """Remove all breakpoints at an address; there may be none."""
        for breakpoint in self:
            if breakpoint.address == address:
                breakpoint.remove()

    def clear(self) -> None:
        """Remove all."""
        for breakpoint in self:
            breakpoint.remove()

    def __iter__(self) -> Iterator[Breakpoint]:
        return iter([hook for hook in self._hooks if isinstance(hook, Breakpoint)])

    def __contains__(self, address: object) -> bool:
        return any(breakpoint.address == address for breakpoint in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)
