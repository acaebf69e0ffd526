"""Buffers that lie in pieces: lists of memoryviews, as preadv(2) and pwritev(2) take them.

Drivers may cut a message into pieces as they like (VIRTIO 1.2, section 2.7.4.1), so devices never ask which
piece holds what. What decides anything is copied out once (`copy_out`), because the guest may change it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Views = list[memoryview]
"""Of bytes; none of them empty."""


def total(views: Iterable[memoryview]) -> int:
    """How many bytes there are."""
    return sum(map(len, views))


def split(views: Sequence[memoryview], at: int) -> tuple[Views, Views]:
    """The first `at` bytes, or all if there are fewer, and the rest."""
    first: Views = []
    for index, view in enumerate(views):
        if at < len(view):
            rest = [view[at:], *views[index + 1 :]]
            return ([*first, view[:at]], rest) if at else (first, rest)
        first.append(view)
        at -= len(view)
    return first, []


def copy_out(views: Sequence[memoryview], count: int) -> bytes:
    """A copy of the first `count` bytes, or of all if there are fewer."""
    if views and len(views[0]) >= count:
        return bytes(views[0][:count])
    return b"".join(split(views, count)[0])


def copy_in(views: Iterable[memoryview], data: bytes | bytearray | memoryview) -> int:
    """Store data at the beginning; how much of it found room."""
    source, position = memoryview(data), 0
    for view in views:
        count = min(len(view), len(source) - position)
        view[:count] = source[position : position + count]
        position += count
        if position == len(source):
            break
    return position


def fill(views: Iterable[memoryview], byte: int = 0) -> None:
    """Store the same byte everywhere."""
    for view in views:
        view[:] = bytes([byte]) * len(view)
