"""What a disk is to the device in front of it, and how its buffers in guest memory are taken apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class Disk(Protocol):
    """A disk's content. One thread at a time uses it; what fails raises ImageError or OSError."""

    @property
    def size(self) -> int:
        """In bytes."""

    def preadv(self, views: Sequence[memoryview], offset: int, /) -> None:
        """Fill `views` from `offset` on; all of it lies on the disk."""

    def pwritev(self, views: Sequence[memoryview], offset: int, /) -> None:
        """Store `views` from `offset` on; it is on stable storage after the next `flush`."""

    def flush(self) -> None:
        """Return when everything written so far survives a crash of the host."""

    def discard(self, offset: int, length: int, /) -> None:
        """The content is not needed any more; it may read as it was or as zeros."""

    def share(self) -> None:
        """Flush, and let others open it for reading; nobody writes to it any more."""

    def close(self) -> None:
        """Flush, and let go of all files."""


class Buffers:
    """Views one behind the other, as one range of bytes."""

    def __init__(self, views: Sequence[memoryview]) -> None:
        self._views = [view.cast("B") for view in views]
        self.size = sum(len(view) for view in self._views)

    def part(self, start: int, length: int) -> list[memoryview]:
        """The views of `length` bytes from `start` on."""
        parts = []
        for view in self._views:
            if start < len(view) and length > 0:
                parts.append(view[start : start + length])
                length -= len(parts[-1])
            start = max(0, start - len(view))
        return parts

    def fill(self, start: int, data: bytes) -> None:
        """Copy `data` in at `start`."""
        for view in self.part(start, len(data)):
            view[:] = data[: len(view)]
            data = data[len(view) :]

    def take(self, start: int, length: int) -> bytes:
        """A copy of `length` bytes from `start` on."""
        return b"".join(self.part(start, length))
