"""Signals of the host while guest code runs: noted by a native handler, which makes every guest stop.

Python's own handlers run only between byte codes, so they cannot end compiled code. A signal installed here
is kept from Python instead: running guests stop with INTERRUPTED, a blocking `Interpreter.system_call` ends
with EINTR (or is not begun), and `drain` tells what arrived. All of this is per process.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from anyvirt.cpu.host import SignalAction, host
from anyvirt.jit.host_layout import RING_ENTRIES, RING_ENTRY, Data

_previous: dict[int, SignalAction] = {}


@dataclass(frozen=True, slots=True)
class ArrivedSignal:
    """A signal the host delivered to this process."""

    number: int
    information: bytes
    """The host's `siginfo_t`, 128 bytes."""

    @property
    def code(self) -> int:
        """Where it came from: SI_USER, SI_KERNEL, CLD_EXITED, ... (sigaction(2))."""
        return int.from_bytes(self.information[8:12], "little", signed=True)


def install(number: int) -> None:
    """Collect a signal from now on. Raises OSError for signals that cannot be caught."""
    previous = host().catch(number, "on_signal")
    _previous.setdefault(number, previous)


def uninstall(number: int) -> None:
    """Give a signal back to whoever had it before `install`; does nothing if it is not installed."""
    previous = _previous.pop(number, None)
    if previous is not None:
        host().replace_action(number, previous)


def installed() -> frozenset[int]:
    """The signals that are being collected."""
    return frozenset(_previous)


def drain() -> list[ArrivedSignal]:
    """The signals that have arrived since the last call, oldest first."""
    base = host().word(Data.RING)
    start = ctypes.addressof(base)
    arrived = []
    for position in range(RING_ENTRIES):
        address = start + position * RING_ENTRY
        sequence, number = (ctypes.c_uint64 * 2).from_address(address)
        if sequence:
            arrived.append((sequence, ArrivedSignal(number, ctypes.string_at(address + 16, RING_ENTRY - 16))))
            ctypes.c_uint64.from_address(address).value = 0
    return [signal for _, signal in sorted(arrived, key=lambda item: item[0])]


def lost() -> int:
    """How many signals found no room since the process began, because nobody called `drain`."""
    return host().word(Data.RING_LOST).value
