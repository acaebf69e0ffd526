"""The Goldfish real-time clock: nanoseconds since 1970, and an alarm.

Android emulator, docs/GOLDFISH-VIRTUAL-HARDWARE.TXT, with the registers that Linux's
rtc-goldfish driver knows besides.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from anyvirt.devices.saved_state import SavedState

if TYPE_CHECKING:
    from anyvirt.devices.bus import State, Wire
    from anyvirt.devices.clock import Alarm, Clock

SIZE = 0x1000
_VERSION = 1
_LOW, _ALL = (1 << 32) - 1, (1 << 64) - 1
_FARTHEST = 1 << 63


class Register(IntEnum):
    """Offsets of the registers, each 32 bits wide."""

    TIME_LOW = 0x00
    """Reading it keeps the high half for TIME_HIGH."""
    TIME_HIGH = 0x04
    ALARM_LOW = 0x08
    """Writing it sets the alarm, with the ALARM_HIGH written before."""
    ALARM_HIGH = 0x0C
    IRQ_ENABLED = 0x10
    CLEAR_ALARM = 0x14
    ALARM_STATUS = 0x18
    CLEAR_INTERRUPT = 0x1C


class GoldfishRtc:
    """A clock that goes as the machine's does, from a time of day that is given."""

    def __init__(self, clock: Clock, wire: Wire, *, start: int) -> None:
        """`start`: what it shows when the machine's clock shows 0, in nanoseconds since 1970, UTC."""
        self._clock = clock
        self._wire = wire
        self._distance = start
        """What it is ahead of the machine's clock, in nanoseconds."""
        self._bell: Alarm | None = None
        self._time_high = 0
        self._alarm = 0
        self._due = 0
        """What the alarm was when it was set."""
        self._is_set = False
        self._is_enabled = False
        self._has_rung = False

    def reset(self) -> None:
        """See BusDevice.reset. It has a battery: the time goes on."""
        self._time_high = 0
        self._alarm = self._due = 0
        self._is_set = self._is_enabled = self._has_rung = False
        self._update()

    def time(self) -> int:
        """What it shows: nanoseconds since 1970."""
        return (self._clock.now() + self._distance) & _ALL

    def read(self, offset: int, size: int) -> int:
        """See BusDevice.read."""
        if size != 4:
            return 0
        if offset == Register.TIME_LOW:
            time = self.time()
            self._time_high = time >> 32
            return time & _LOW
        values: dict[int, int] = {
            Register.TIME_HIGH: self._time_high,
            Register.ALARM_LOW: self._alarm & _LOW,
            Register.ALARM_HIGH: self._alarm >> 32,
            Register.IRQ_ENABLED: int(self._is_enabled),
            Register.ALARM_STATUS: int(self._is_set),
        }
        return values.get(offset, 0)

    def write(self, offset: int, size: int, value: int) -> None:
        """See BusDevice.write."""
        if size != 4:
            return
        value &= _LOW
        match offset:
            case Register.TIME_LOW:
                self._set_time(self.time() & ~_LOW | value)
            case Register.TIME_HIGH:
                self._set_time(self.time() & _LOW | value << 32)
            case Register.ALARM_LOW:
                self._alarm = self._alarm & ~_LOW | value
                self._due, self._is_set = self._alarm, True
            case Register.ALARM_HIGH:
                self._alarm = self._alarm & _LOW | value << 32
            case Register.IRQ_ENABLED:
                self._is_enabled = bool(value & 1)
            case Register.CLEAR_ALARM:
                self._is_set = False
            case Register.CLEAR_INTERRUPT:
                self._has_rung = False
        self._update()

    def _set_time(self, time: int) -> None:
        self._distance = time - self._clock.now()

    def _update(self) -> None:
        """Ring if it is time, drive the wire, and look again when the alarm is due."""
        if self._is_set and self.time() >= self._due:
            self._is_set, self._has_rung = False, True
        self._wire.set(self._has_rung and self._is_enabled)
        if self._is_set:
            self._wait(self._clock.now() + self._due - self.time())

    def _wait(self, when: int) -> None:
        if self._bell is not None and self._bell.is_pending:
            if self._bell.when <= when:
                return
            self._bell.cancel()
        self._bell = self._clock.call_at(when, self._update) if when < _FARTHEST else None

    def save_state(self) -> State:
        """See BusDevice.save_state."""
        return {
            "version": _VERSION,
            "time": self.time(),
            "time_high": self._time_high,
            "alarm": self._alarm,
            "due": self._due,
            "is_set": self._is_set,
            "is_enabled": self._is_enabled,
            "has_rung": self._has_rung,
        }

    def load_state(self, state: State) -> None:
        """See BusDevice.load_state. The time goes on from where it was saved."""
        saved = SavedState(state, _VERSION, "the real-time clock")
        time, alarm, due = (saved.number(name, 64) for name in ("time", "alarm", "due"))
        time_high = saved.number("time_high", 32)
        flags = [saved.flag(name) for name in ("is_set", "is_enabled", "has_rung")]
        self._set_time(time)
        self._time_high, self._alarm, self._due = time_high, alarm, due
        self._is_set, self._is_enabled, self._has_rung = flags
        self._update()
