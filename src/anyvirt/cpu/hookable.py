"""What every executor has for debugging: hooks, breakpoints, watchpoints; and a run that serves them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from anyvirt.cpu.executor import StopReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.cpu.breakpoints import Breakpoints
    from anyvirt.cpu.executor import Stop
    from anyvirt.cpu.hooks import Hooks
    from anyvirt.cpu.instruments import Instruments
    from anyvirt.cpu.watchpoints import Watchpoints


class Hookable(ABC):
    """An executor that can be hooked. As long as `hooks` is not asked for, nothing of it is there."""

    isa: str
    memory: Any
    pc: int
    instructions: int
    seen_memory: Callable[[int, int], bytes] | None = None
    """Reads memory at the addresses that instructions use, where these are not the memory's own."""
    _hooks: Hooks | None = None

    @property
    def is_hook_unpassed(self) -> bool:
        """Whether the last run ended in front of the instruction whose hook it had been told to pass."""
        return False

    @property
    def hooks(self) -> Hooks:
        """Python functions that are called at addresses, blocks and memory accesses."""
        if self._hooks is None:
            from anyvirt.cpu.hooks import Hooks

            self._hooks = Hooks(self)
        return self._hooks

    def adopt_hooks(self, hooks: Hooks | None) -> None:
        """Have these hooks from now on: for `Hooks.move_to`."""
        self._hooks = hooks

    @property
    def has_hooks(self) -> bool:
        """Whether anybody has asked for `hooks`."""
        return self._hooks is not None

    @property
    def breakpoints(self) -> Breakpoints:
        """Addresses at which runs stop."""
        return self.hooks.breakpoints

    @property
    def watchpoints(self) -> Watchpoints:
        """Memory at whose accesses runs stop."""
        return self.hooks.watchpoints

    def look(self, address: int, length: int) -> bytes:
        """Bytes at an address as instructions use it. Raises GuestFault or OverflowError."""
        read = self.memory.read if self.seen_memory is None else self.seen_memory
        return bytes(read(address, length))

    def run(self, max_instructions: int | None = None) -> Stop:
        """Run from `pc` until something stops the CPU; with a budget, at most that many instructions."""
        if self._hooks is not None:
            return self._hooks.run(max_instructions)
        before = self.instructions
        stop = self._run(max_instructions)
        if stop.reason is not StopReason.HOOK:
            return stop
        # Another CPU of this memory has a hook here; ours know that they have none.
        executed = self.instructions - before
        return self.hooks.run(None if max_instructions is None else max_instructions - executed)

    @abstractmethod
    def _run(self, max_instructions: int | None) -> Stop:
        """Run without serving hooks."""

    @abstractmethod
    def run_to_event(self, max_instructions: int | None, *, passed: int | None, instrumented: bool) -> Stop:
        """Run until something stops the CPU or a hook has to be served: for `anyvirt.cpu.hooks`.

        `passed` is the address of the next instruction if its hook has been served. `instrumented` runs
        look for what the instruments say, and need a budget. A stop with the reason HOOK is an event: its
        `address` is BLOCK_EVENT or ACCESS_EVENT (`anyvirt.jit.hook_layout`), otherwise the instruction is
        hooked.
        """

    @abstractmethod
    def instrument(self, instruments: Instruments) -> None:
        """Use these instruments in instrumented runs; they stay the caller's to keep."""

    @abstractmethod
    def interrupt(self) -> None:
        """See Executor."""

    @abstractmethod
    def invalidate(self, start: int, length: int) -> None:
        """See Executor."""

    def redecode(self, address: int, length: int) -> None:
        """Decode the code at an address, as instructions use it, anew: what it is to do has changed."""
        self.invalidate(address, length)
