"""Blocking, awaiting and resetting all signals at once, without what Python's signal module adds.

That module turns each number into a member of an enumeration, which for all signals takes a tenth of the
time a container needs to start.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import signal as signals

ALL_SIGNALS = tuple(sorted(map(int, signals.valid_signals())))
_FIXED = (signals.SIGKILL, signals.SIGSTOP)


def block_all() -> None:
    """Let no signal but SIGKILL and SIGSTOP through until `unblock_all`."""
    _signal.pthread_sigmask(signals.SIG_BLOCK, ALL_SIGNALS)


def unblock_all() -> None:
    """Let every signal through."""
    _signal.pthread_sigmask(signals.SIG_SETMASK, ())


def await_any() -> int:
    """Wait for a blocked signal and take it."""
    return int(_signal.sigwait(ALL_SIGNALS))


def reset_all() -> None:
    """Give every signal its default effect, which a program that is executed keeps."""
    for number in ALL_SIGNALS:
        if number not in _FIXED:
            _signal.signal(number, _signal.SIG_DFL)
