"""Signals of the host while guest code runs: noted by a native handler, which makes every guest stop.

Python's own handlers run only between byte codes, so they cannot end compiled code. A signal installed here
is kept from Python instead: running guests stop with INTERRUPTED, a blocking `Interpreter.system_call` ends
with EINTR (or is not begun), and `drain` tells what arrived. All of this is per process.
"""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass

from anyvirt.cpu.host import SignalAction, host
from anyvirt.jit.host_layout import RING_ENTRIES, RING_ENTRY, Data

_previous: dict[int, SignalAction] = {}
_ENTRY = struct.Struct(f"<QQQ{RING_ENTRY - 24}s")


@dataclass(frozen=True, slots=True)
class ArrivedSignal:
    """A signal the host delivered to this process."""

    number: int
    information: bytes
    """The host's `siginfo_t`, 128 bytes."""
    thread: int = 0
    """The host's number of the thread that it came to."""

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


def drain(wanted: int | None = None) -> list[ArrivedSignal]:
    """The signals that have arrived since the last call, oldest first; of one thread if it is `wanted`."""
    base = host().word(Data.RING)
    start = ctypes.addressof(base)
    arrived = []
    for position, entry in enumerate(_ENTRY.iter_unpack(ctypes.string_at(start, RING_ENTRIES * RING_ENTRY))):
        sequence, number, thread, information = entry
        if sequence and wanted in (None, thread):
            arrived.append((sequence, ArrivedSignal(number, information, thread)))
            ctypes.c_uint64.from_address(start + position * RING_ENTRY).value = 0
    return [signal for _, signal in sorted(arrived, key=lambda item: item[0])]


def lost() -> int:
    """How many signals found no room since the process began, because nobody called `drain`."""
    return host().word(Data.RING_LOST).value
