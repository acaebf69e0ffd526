"""The instruments of one CPU: what its instrumented runs look for, and what they have come to."""

from __future__ import annotations

import ctypes
from itertools import pairwise
from typing import TYPE_CHECKING

from anyvirt.jit.hook_layout import MOST_RANGES, AccessKind, BlockStart, Instrument

if TYPE_CHECKING:
    from collections.abc import Iterable

_RANGES = Instrument.RANGES // 8


class Instruments:
    """The 64-bit fields of `anyvirt.jit.hook_layout.Instrument`, by item."""

    def __init__(self) -> None:
        self._words = (ctypes.c_uint64 * (Instrument.SIZE // 8))()
        self.address = ctypes.addressof(self._words)
        """Where compiled code finds them."""
        self[Instrument.BLOCK] = BlockStart.YES

    def __getitem__(self, field: Instrument) -> int:
        return self._words[field // 8]

    def __setitem__(self, field: Instrument, value: int) -> None:
        self._words[field // 8] = value

    def watch(self, ranges: Iterable[tuple[int, int, AccessKind]]) -> None:
        """Leave before accesses of these kinds that touch one of the ranges [start, end).

        Too many ranges for compiled code become fewer that contain them: hooks look exactly.
        """
        merged = _merged(sorted(ranges))
        self[Instrument.RANGE_COUNT] = 0
        for index, (start, end, kinds) in enumerate(merged):
            self._words[_RANGES + 3 * index : _RANGES + 3 * index + 3] = [start, end - 1, kinds]
        self[Instrument.RANGE_COUNT] = len(merged)


def _merged(ranges: list[tuple[int, int, AccessKind]]) -> list[tuple[int, int, AccessKind]]:
    """At most MOST_RANGES ranges: those with the least space between them are joined."""
    merged = list(ranges)
    while len(merged) > MOST_RANGES:
        gaps = [after[0] - before[1] for before, after in pairwise(merged)]
        index = gaps.index(min(gaps))
        first, second = merged[index], merged[index + 1]
        merged[index : index + 2] = [(first[0], max(first[1], second[1]), first[2] | second[2])]
    return merged
