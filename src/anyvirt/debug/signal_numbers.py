"""Signals as gdb numbers them, whatever the target's own numbers are (gdb's include/gdb/signals.def)."""

from __future__ import annotations

import signal

_NAMES = (
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "EMT", "FPE", "KILL", "BUS", "SEGV", "SYS", "PIPE", "ALRM",
    "TERM", "URG", "STOP", "TSTP", "CONT", "CHLD", "TTIN", "TTOU", "IO", "XCPU", "XFSZ", "VTALRM", "PROF",
    "WINCH", "LOST", "USR1", "USR2", "PWR",
)  # fmt: skip
_UNKNOWN = 143
_REALTIME = {32: 77, 64: 78, **{number: number + 12 for number in range(33, 64)}}
_TO_GDB = {
    **{
        int(getattr(signal, f"SIG{name}")): number
        for number, name in enumerate(_NAMES, 1)
        if hasattr(signal, f"SIG{name}")
    },
    **_REALTIME,
}
_FROM_GDB = {number: own for own, number in _TO_GDB.items()}


def to_gdb(number: int) -> int:
    """gdb's number for a signal of the host's numbering; 143 (unknown) for what it has no name for."""
    return _TO_GDB.get(number, _UNKNOWN) if number else 0


def from_gdb(number: int) -> int | None:
    """The host's number for one of gdb's; 0 stays 0, and None means that there is no such signal here."""
    return _FROM_GDB.get(number) if number else 0
