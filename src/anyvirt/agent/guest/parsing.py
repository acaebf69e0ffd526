"""Reading texts out of requests, within their bounds."""

from anyvirt.jit.texts import length
from anyvirt.typed import load8, u64


def count_texts(start: u64, end: u64) -> u64:
    """How many texts lie behind one another from `start` to `end`; 0 if the last one has no end."""
    if start >= end or load8(end - 1) != 0:
        return u64(0)
    count = u64(0)
    place = start
    while place < end:
        place = text_behind(place)
        count += 1
    return count


def text_behind(place: u64) -> u64:
    """Where the text behind the one at `place` begins."""
    return place + length(place) + 1
