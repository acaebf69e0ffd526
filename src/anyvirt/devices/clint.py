"""The SiFive core-local interruptor (CLINT): software interrupts between harts, the time, and timers.

RISC-V Advanced Core Local Interruptor Specification 1.0-rc4, sections 2 (MTIMER) and 3 (MSWI), at the
addresses that its section 1.1 gives them for compatibility with SiFive's CLINT.
"""

from __future__ import annotations

from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING

from anyvirt.devices.clock import SECOND
from anyvirt.devices.saved_state import SavedState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyvirt.devices.bus import State, Wire
    from anyvirt.devices.clock import Alarm, Clock

SIZE = 0x10000
FREQUENCY = 10_000_000
"""Of mtime, in Hz, as on QEMU's boards."""
MOST_HARTS = 4095
_VERSION = 1
_LOW, _ALL = (1 << 32) - 1, (1 << 64) - 1
_FARTHEST = 1 << 63
"""Nanoseconds; no machine runs for 292 years."""


class Register(IntEnum):
    """Where the registers begin; there is one MSIP and one MTIMECMP for each hart."""

    MSIP = 0x0
    MTIMECMP = 0x4000
    MTIME = 0xBFF8


class Clint:
    """A CLINT. MSIP is 32 bits wide; the others are 64 bits, read and written whole or by halves."""

    def __init__(
        self, clock: Clock, *, software: Sequence[Wire], timers: Sequence[Wire], frequency: int = FREQUENCY
    ) -> None:
        """Drive the machine software and machine timer interrupts of each hart, by its number."""
        if len(software) != len(timers) or not 1 <= len(timers) <= MOST_HARTS:
            raise ValueError(f"a CLINT has two wires for each of 1 to {MOST_HARTS} harts")
        self._clock = clock
        self._frequency = frequency
        self._software = list(software)
        self._timers = list(timers)
        self._alarms: list[Alarm | None] = [None] * len(timers)
        self._compare = [_ALL] * len(timers)
        self._distance = 0
        """What mtime is ahead of the clock, in ticks."""
        self.reset()

    def reset(self) -> None:
        """See BusDevice.reset. MTIME is 0 (section 2.2); no timer is due."""
        self._distance = -self._ticks()
        self._compare = [_ALL] * len(self._timers)
        for wire in self._software:
            wire.set(False)
        self._look_at_all()

    def mtime(self) -> int:
        """The time in ticks, which is also what the counter `time` of every hart shows."""
        return (self._ticks() + self._distance) & _ALL

    # Registers ------------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """See BusDevice.read."""
        if size not in (4, 8) or offset % size:
            return 0
        value = self._load(offset & ~7) >> 8 * (offset & 4)
        return value if size == 8 else value & _LOW

    def write(self, offset: int, size: int, value: int) -> None:
        """See BusDevice.write."""
        if size not in (4, 8) or offset % size:
            return
        if offset < Register.MTIMECMP:
            self._write_software(offset // 4, value)
            if size == 8:
                self._write_software(offset // 4 + 1, value >> 32)
            return
        if size == 4:
            shift = 8 * (offset & 4)
            value = self._load(offset & ~7) & ~(_LOW << shift) | (value & _LOW) << shift
        if offset & ~7 == Register.MTIME:
            self._distance = (value & _ALL) - self._ticks()
            self._look_at_all()
        elif (hart := (offset - Register.MTIMECMP) // 8) < len(self._timers):
            self._compare[hart] = value & _ALL
            self._look_at(hart)

    def _load(self, offset: int) -> int:
        """The 64 bits at a multiple of 8."""
        if offset < Register.MTIMECMP:
            return self._software_level(offset // 4) | self._software_level(offset // 4 + 1) << 32
        if offset == Register.MTIME:
            return self.mtime()
        hart = (offset - Register.MTIMECMP) // 8
        return self._compare[hart] if hart < len(self._timers) else 0

    def _software_level(self, hart: int) -> int:
        return int(hart < len(self._software) and self._software[hart].level)

    def _write_software(self, hart: int, value: int) -> None:
        if hart < len(self._software):
            self._software[hart].set(bool(value & 1))

    # Time -----------------------------------------------------------------------------------------------

    def _ticks(self) -> int:
        return self._clock.now() * self._frequency // SECOND

    def _look_at_all(self) -> None:
        for hart in range(len(self._timers)):
            self._look_at(hart)

    def _look_at(self, hart: int) -> None:
        """Drive a timer's wire, and have it looked at again when that may change."""
        compare = self._compare[hart]
        ticks = self._ticks()
        mtime = (ticks + self._distance) & _ALL
        is_due = mtime >= compare
        self._timers[hart].set(is_due)
        # A timer that is due is so until MTIME wraps.
        change = ticks - mtime + (_ALL + 1 if is_due else compare)
        when = -(-change * SECOND // self._frequency)
        alarm = self._alarms[hart]
        if alarm is not None and alarm.is_pending:
            if alarm.when <= when:
                return
            alarm.cancel()
        self._alarms[hart] = None
        if when < _FARTHEST:
            self._alarms[hart] = self._clock.call_at(when, partial(self._look_at, hart))

    # State ----------------------------------------------------------------------------------------------

    def save_state(self) -> State:
        """See BusDevice.save_state."""
        return {
            "version": _VERSION,
            "mtime": self.mtime(),
            "mtimecmp": list(self._compare),
            "msip": [int(wire.level) for wire in self._software],
        }

    def load_state(self, state: State) -> None:
        """See BusDevice.load_state. The time goes on from where it was saved."""
        saved = SavedState(state, _VERSION, "the CLINT")
        mtime = saved.number("mtime", 64)
        compare = saved.numbers("mtimecmp", len(self._timers), 64)
        pending = saved.numbers("msip", len(self._software), 1)
        self._distance = mtime - self._ticks()
        self._compare = compare
        for wire, level in zip(self._software, pending, strict=True):
            wire.set(bool(level))
        self._look_at_all()
