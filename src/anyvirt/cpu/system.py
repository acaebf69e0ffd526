"""What the CPU of a machine has besides registers: interrupt lines, a timer, control registers, waiting.

Compiled code takes exceptions and interrupts itself (`anyvirt.jit.system_handlers`); here is what others want
of the CPU while it runs or stands.
"""

from __future__ import annotations

import ctypes
import threading
import time
from typing import TYPE_CHECKING, Any

from anyvirt.errors import UsageError
from anyvirt.jit.layout import Request, Slot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyvirt.cpu.host import MappedBlob

NEVER = (1 << 64) - 1
"""A deadline that does not come."""
TIME_UNIT = 100
"""Nanoseconds for which the time counter grows by one."""


class InterruptLines:
    """The levels of a CPU's interrupt lines, which any thread may set, and waiting for a change."""

    def __init__(self) -> None:
        self._changed = threading.Condition()

    def set_interrupt(self, number: int, level: bool) -> None:
        """Set the level of a line. Any thread may; a CPU that runs takes the interrupt at its next jump."""
        with self._changed:
            lines = self.lines
            self.lines = lines | 1 << number if level else lines & ~(1 << number)
            if level:
                self.request()
                self._changed.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until a line is raised or `wake` is called, at most `timeout` seconds; whether there was one.

        What was raised since the CPU stopped as IDLE counts, so nothing is missed in between.
        """
        with self._changed:
            return self._changed.wait_for(self.is_wanted, timeout)

    def wake(self) -> None:
        """Let a `wait` look again."""
        with self._changed:
            self._changed.notify_all()

    @property
    def lines(self) -> int:
        """The levels by number."""
        raise NotImplementedError

    @lines.setter
    def lines(self, value: int) -> None:
        raise NotImplementedError

    def request(self) -> None:
        """Let the CPU look at its lines."""
        raise NotImplementedError

    def is_wanted(self) -> bool:
        """Whether the CPU has something to look at."""
        raise NotImplementedError


class SystemSide(InterruptLines):
    """Of one virtual CPU of the compiled tiers."""

    def __init__(self, state: int, interpreter: MappedBlob, scalars: Mapping[str, tuple[int, int]]) -> None:
        super().__init__()
        self.on_timer: Callable[[int | None], None] | None = None
        """Called in the CPU's thread with the time (in nanoseconds, as `set_time` counts) at which
        `timer_due` should be called; None if at no time. Without it the timer's line follows only where
        time goes on with instructions, and when a run begins."""
        notes: Any = interpreter.blob.notes["system"]
        files: Any = interpreter.blob.notes["files"]
        self._state = state
        self._timer: int = notes["timer"]
        self._control: dict[str, tuple[str, int]] = notes["control"]
        self._offsets: dict[str, int] = {name: offset for name, (offset, _) in files.items()}
        self._lines = ctypes.c_uint64.from_address(state + scalars[notes["lines"]][0])
        self._requests = (ctypes.c_uint8 * len(Request)).from_address(state + Slot.PENDING)
        self._base = ctypes.c_int64.from_address(state + Slot.TIME_BASE)
        self._counts = ctypes.c_uint64.from_address(state + Slot.TIME_COUNTS)
        clock = ctypes.cast(ctypes.CDLL(None).clock_gettime, ctypes.c_void_p).value
        ctypes.c_uint64.from_address(state + Slot.CLOCK).value = clock or 0
        self._refresh = _function(None, interpreter["refresh"])
        self._deadline = _function(ctypes.c_uint64, interpreter["deadline"])
        self._due_at = NEVER
        self._told = NEVER
        self._base.value = -time.monotonic_ns()
        _function(None, interpreter["reset"])(state)

    # Interrupts -----------------------------------------------------------------------------------------

    @property
    def lines(self) -> int:
        """See InterruptLines."""
        return self._lines.value

    @lines.setter
    def lines(self, value: int) -> None:
        self._lines.value = value

    def request(self) -> None:
        """See InterruptLines."""
        self._requests[Request.INTERRUPT] = 1

    def is_wanted(self) -> bool:
        """See InterruptLines."""
        return bool(self._requests[Request.INTERRUPT] or self._requests[Request.STOP])

    def is_interrupt_wanted(self) -> bool:
        """Whether an interrupt may have become possible; what else somebody wants does not count."""
        return bool(self._requests[Request.INTERRUPT])

    # Time -----------------------------------------------------------------------------------------------

    def set_time(self, now: int, *, instructions: int | None = None) -> None:
        """Let the machine's time be `now` nanoseconds now.

        It goes on with the host's clock, or with the instructions of runs with a budget, of which
        `instructions` have been executed so far: one takes a nanosecond.
        """
        self._counts.value = instructions is not None
        self._base.value = now - (time.monotonic_ns() if instructions is None else instructions)

    @property
    def counts(self) -> bool:
        """Whether the machine's time goes on with instructions."""
        return bool(self._counts.value)

    def time(self) -> int:
        """The machine's time in nanoseconds, if it goes on with the host's clock."""
        return time.monotonic_ns() + self._base.value

    def settle_alarm(self) -> None:
        """Let the timer's line be right for now, and have somebody wait for when it has to change."""
        deadline: int = self._deadline(self._state)
        due = deadline == NEVER or self.time() // TIME_UNIT < deadline
        self._raise(not due)
        told = deadline if due else NEVER
        if told != self._told and self.on_timer is not None:
            self._told = told
            self.on_timer(None if told == NEVER else told * TIME_UNIT)

    def forget_alarm(self) -> None:
        """Nobody waits for the timer any more: whoever was told has forgotten."""
        self._told = NEVER

    def timer_due(self, now: int) -> None:
        """The time that `on_timer` was told has come: it is `now`. Any thread may call it."""
        if now // TIME_UNIT >= self._deadline(self._state):
            self._told = NEVER
            self.set_interrupt(self._timer, True)

    def instructions_to_deadline(self, executed: int) -> int:
        """How many more instructions may be executed until the timer's line is raised; it is, if it is time.

        For runs with a budget, of which `executed` instructions have been executed.
        """
        deadline: int = self._deadline(self._state)
        left = NEVER if deadline == NEVER else deadline * TIME_UNIT - self._base.value - executed
        self._raise(left <= 0)
        return left if left > 0 else NEVER

    def _raise(self, level: bool) -> None:
        if bool(self.lines >> self._timer & 1) is not level:
            self.set_interrupt(self._timer, level)

    # Control registers ----------------------------------------------------------------------------------

    def control(self, name: str) -> int:
        """A control register that is a plain value. Raises UsageError."""
        return self._register(name).value

    def set_control(self, name: str, value: int) -> None:
        """Set a control register as it is, whatever the guest could write. Raises UsageError."""
        self._register(name).value = value
        self.refresh()

    def refresh(self) -> None:
        """Let everything follow that follows from the state, which was changed; the CPU must not run."""
        self._refresh(self._state)

    def _register(self, name: str) -> ctypes.c_uint64:
        if name not in self._control:
            raise UsageError(f"{name} is no control register with a value of its own")
        file, index = self._control[name]
        return ctypes.c_uint64.from_address(self._state + self._offsets[file] + 8 * index)


def _function(result: Any, address: int) -> Callable[[int], Any]:  # noqa: ANN401 - a type of ctypes
    """A C function of the state block."""
    function: Callable[[int], Any] = ctypes.CFUNCTYPE(result, ctypes.c_void_p)(address)
    return function
