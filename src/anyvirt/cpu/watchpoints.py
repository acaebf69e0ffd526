"""Watchpoints: memory at whose accesses a run stops, behind the instruction that made one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.cpu.hooks import MemoryHook
from anyvirt.jit.hook_layout import AccessKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyvirt.cpu.hooks import Hooks

__all__ = ["AccessKind", "Watchpoint", "Watchpoints"]


class Watchpoint(MemoryHook):
    """A range of memory. Runs stop when it has been accessed; the `Stop` says at which address and how."""

    stops_behind = True
    is_stop = True

    def __init__(self, hooks: Hooks, start: int, length: int, kinds: AccessKind) -> None:
        super().__init__(hooks, start, start + length, kinds, lambda *_: False)

    @property
    def length(self) -> int:
        """Bytes that are watched."""
        return self.end - self.start


class Watchpoints:
    """The watchpoints of one CPU: `cpu.watchpoints`."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks

    def add(self, start: int, length: int = 1, kinds: AccessKind = AccessKind.WRITE) -> Watchpoint:
        """Stop behind each access of these kinds to [start, start + length). Raises ValueError."""
        watchpoint = Watchpoint(self._hooks, start, length, kinds)
        self._hooks.add(watchpoint)
        return watchpoint

    def clear(self) -> None:
        """Remove all."""
        for watchpoint in self:
            watchpoint.remove()

    def __iter__(self) -> Iterator[Watchpoint]:
        return iter([hook for hook in self._hooks if isinstance(hook, Watchpoint)])

    def __len__(self) -> int:
        return sum(1 for _ in self)
