"""Sets of pages, as a byte for each by number: what was written since somebody has last asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class PageMarks:
    """Pages that are marked, of those numbered from 0 on."""

    def __init__(self) -> None:
        self._marks = bytearray()

    def add(self, first: int, marks: bytes) -> None:
        """Mark pages from number `first` on, those whose byte is 1."""
        end = first + len(marks)
        self._marks.extend(bytes(max(end - len(self._marks), 0)))
        self._marks[first:end] = self.joined(first, marks)

    def joined(self, first: int, marks: bytes) -> bytes:
        """The bytes of pages from number `first` on, with others joined to them."""
        mine = int.from_bytes(self._marks[first : first + len(marks)], "little")
        return (mine | int.from_bytes(marks, "little")).to_bytes(len(marks), "little")

    def clear(self) -> None:
        """Mark none."""
        self._marks = bytearray()


def runs(marks: bytes) -> Iterator[tuple[int, int]]:
    """The stretches of bytes that are 1, each as (first, the one behind its last)."""
    start = marks.find(1)
    while start >= 0:
        end = marks.find(0, start)
        if end < 0:
            yield start, len(marks)
            return
        yield start, end
        start = marks.find(1, end)
