"""Packets of gdb's remote serial protocol: framing, checksums, escapes and run lengths.

Follows "Debugging with GDB", appendix "GDB Remote Serial Protocol", section Overview. Nothing here knows
what a packet means.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MAXIMUM_PACKET = 1 << 16
"""Most bytes of a packet between `$` and `#`; longer ones are dropped as damaged."""

_START, _END, _ESCAPE, _RUN = b"$#}*"
_SPECIAL = frozenset((_START, _END, _ESCAPE, _RUN))
_ESCAPED = re.compile(rb"}(.)", re.DOTALL)
_ESCAPE_BIT = 0x20
_RUN_BIAS = 29
_SHORTEST_RUN, _LONGEST_RUN = 3, 97
_FORBIDDEN_RUNS = frozenset((_START - _RUN_BIAS, _END - _RUN_BIAS))
"""Repetitions whose count would look like the start or end of a packet."""


class Control(Enum):
    """What arrives besides packets."""

    ACKNOWLEDGED = auto()
    REFUSED = auto()
    """The last reply arrived damaged: send it again."""
    INTERRUPT = auto()
    """Ctrl-C: byte 0x03 outside of packets."""
    DAMAGED = auto()
    """A packet with a wrong checksum, or one that is too long."""


_CONTROLS = {
    ord("+"): Control.ACKNOWLEDGED,
    ord("-"): Control.REFUSED,
    3: Control.INTERRUPT,
}


class PacketReader:
    """Takes a stream apart, however it is cut into pieces and whatever is in it."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes | Control]:
        """The packets (without framing, escapes undone) and controls that `data` completes."""
        self._buffer += data
        while self._buffer:
            first = self._buffer[0]
            if first != _START:
                del self._buffer[0]
                if first in _CONTROLS:
                    yield _CONTROLS[first]
                continue
            end = self._buffer.find(_END, 1, MAXIMUM_PACKET + 2)
            if end < 0 and len(self._buffer) > MAXIMUM_PACKET:
                del self._buffer[: MAXIMUM_PACKET + 1]
                yield Control.DAMAGED
                continue
            if end < 0 or len(self._buffer) < end + 3:
                return
            body, digits = bytes(self._buffer[1:end]), bytes(self._buffer[end + 1 : end + 3])
            del self._buffer[: end + 3]
            yield _unescape(body) if digits.lower() == b"%02x" % _checksum(body) else Control.DAMAGED

    def clear(self) -> None:
        """Forget what has arrived of an unfinished packet."""
        self._buffer.clear()


def frame(payload: bytes) -> bytes:
    """`payload` as a packet on the wire: runs shortened, special bytes escaped, checksum appended."""
    body = b"".join(_encode_run(byte, len(list(run))) for byte, run in groupby(payload))
    return b"$%s#%02x" % (body, _checksum(body))


def _checksum(body: bytes) -> int:
    return sum(body) % 256


def _unescape(body: bytes) -> bytes:
    return _ESCAPED.sub(lambda match: bytes((match[1][0] ^ _ESCAPE_BIT,)), body)


def _encode_run(byte: int, count: int) -> bytes:
    if byte in _SPECIAL:
        return bytes((_ESCAPE, byte ^ _ESCAPE_BIT)) * count
    encoded = bytearray()
    while count:
        repeats = min(count - 1, _LONGEST_RUN)
        if repeats in _FORBIDDEN_RUNS:
            repeats = min(_FORBIDDEN_RUNS) - 1
        if repeats < _SHORTEST_RUN:
            return bytes(encoded) + bytes((byte,)) * count
        encoded += bytes((byte, _RUN, repeats + _RUN_BIAS))
        count -= repeats + 1
    return bytes(encoded)
