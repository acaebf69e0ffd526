"""The resources of a virtio-gpu: surfaces on the host, filled from memory of the guest, within a limit."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

from anyvirt.devices.surface import PIXEL_SIZE, PixelFormat, Rectangle, Surface

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anyvirt.devices.bus import DirectMemory, State

MOST_MEMORY = 256 << 20
"""Bytes of the host's that the resources of one guest may take, with all that they cost.

A saved state has a copy of the pixels, which it shares with others that were saved while they were the same.
"""
MOST_PIXELS = 16384
"""Of a resource in each direction."""
MOST_ENTRIES = 16384
"""Of a resource's backing."""
RESOURCE_COST = 2048
"""Bytes that a resource takes beside its pixels."""
ENTRY_COST = 512
"""Bytes that a piece of backing takes."""


class Backing:
    """Pieces of the guest's memory, one behind the other, from which a resource is filled."""

    def __init__(self, memory: DirectMemory, entries: Sequence[tuple[int, int]]) -> None:
        """`entries` are (address, length). Raises BusError for what is not in RAM."""
        self.entries = [(address, length) for address, length in entries if length]
        self._views = [memory.view(address, length) for address, length in self.entries]
        self._starts = list(accumulate((length for _, length in self.entries), initial=0))
        self.size = self._starts.pop()
        """Bytes."""
        self.cost = ENTRY_COST * len(self.entries)

    def copy_to(self, target: memoryview, start: int) -> None:
        """Copy as much as there is room for in `target`; all of it has to be there."""
        number = bisect_right(self._starts, start) - 1
        at, done, length = start - self._starts[number], 0, len(target)
        while done < length:
            piece = self._views[number][at : at + length - done]
            target[done : done + len(piece)] = piece
            done += len(piece)
            number, at = number + 1, 0


class Resource:
    """A surface with the memory that backs it, if any is attached."""

    def __init__(self, surface: Surface) -> None:
        self.surface = surface
        self.backing: Backing | None = None
        self._content: bytes | None = None

    @property
    def cost(self) -> int:
        """Bytes of the host's memory."""
        backing = 0 if self.backing is None else self.backing.cost
        return resource_cost(self.surface.width, self.surface.height) + backing

    @property
    def content(self) -> bytes:
        """The pixels; the same object as long as they are the same, so that states share it."""
        if self._content is None:
            self._content = bytes(self.surface.pixels)
        return self._content

    def transfer(self, backing: Backing, part: Rectangle, start: int) -> bool:
        """Fill a part from backing, where its first pixel is at `start` and rows are the surface's.

        Whether the backing has all of it; nothing is copied otherwise.
        """
        surface = self.surface
        length = (part.height - 1) * surface.stride + part.width * PIXEL_SIZE
        if start + length > backing.size:
            return False
        self._content = None
        if part.width == surface.width:
            backing.copy_to(surface.band(part), start)
            return True
        for row in surface.rows(part):
            backing.copy_to(row, start)
            start += surface.stride
        return True


class Resources:
    """All of one guest's, by the numbers that it has given them."""

    def __init__(self, memory: DirectMemory) -> None:
        self._memory = memory
        self._all: dict[int, Resource] = {}
        self.cost = 0
        """Bytes of the host's memory."""

    def get(self, number: int) -> Resource | None:
        """A resource; None if there is none of that number."""
        return self._all.get(number)

    def __iter__(self) -> Iterator[int]:
        return iter(self._all)

    def has_room(self, cost: int) -> bool:
        """Whether so many bytes more are within the limit."""
        return self.cost + cost <= MOST_MEMORY

    def create(self, number: int, width: int, height: int, format: PixelFormat) -> None:
        """A new one, for which there is room."""
        self._add(number, Resource(Surface(width, height, format)))

    def _add(self, number: int, resource: Resource) -> None:
        self._all[number] = resource
        self.cost += resource.cost

    def remove(self, number: int) -> None:
        """Forget one."""
        self.cost -= self._all.pop(number).cost

    def clear(self) -> None:
        """Forget all."""
        self._all.clear()
        self.cost = 0

    def attach(self, resource: Resource, entries: Sequence[tuple[int, int]]) -> None:
        """Give a resource, which has none, its backing, for which there is room. Raises BusError."""
        resource.backing = Backing(self._memory, entries)
        self.cost += resource.backing.cost

    def detach(self, resource: Resource) -> None:
        """Take its backing away."""
        if resource.backing is not None:
            self.cost -= resource.backing.cost
            resource.backing = None

    def save_state(self) -> list[State]:
        """Plain values."""
        return [
            {
                "number": number,
                "format": str(resource.surface.format),
                "size": [resource.surface.width, resource.surface.height],
                "pixels": resource.content,
                "backing": None
                if resource.backing is None
                else [part for entry in resource.backing.entries for part in entry],
            }
            for number, resource in self._all.items()
        ]

    @classmethod
    def load_state(cls, memory: DirectMemory, state: Sequence[State]) -> Resources:
        """Raises KeyError, TypeError, ValueError and BusError for what does not fit."""
        found = cls(memory)
        for saved in state:
            width, height = map(int, saved["size"])
            pixels, format, number = saved["pixels"], PixelFormat(saved["format"]), int(saved["number"])
            if number in found._all or not 0 < number < 1 << 32:
                raise ValueError("a resource without a number of its own")
            if not has_possible_size(width, height) or not found.has_room(resource_cost(width, height)):
                raise ValueError("a resource of a size that is not possible")
            if not isinstance(pixels, bytes) or len(pixels) != PIXEL_SIZE * width * height:
                raise ValueError("a resource with other pixels than it has room for")
            resource = Resource(Surface(width, height, format, pixels))
            found._add(number, resource)
            if saved["backing"] is not None:
                parts = list(map(int, saved["backing"]))
                if len(parts) > 2 * MOST_ENTRIES:
                    raise ValueError("a resource with too many pieces of backing")
                found.attach(resource, list(zip(parts[::2], parts[1::2], strict=True)))
        return found


def has_possible_size(width: int, height: int) -> bool:
    """Whether a resource may be of that size."""
    return 0 < width <= MOST_PIXELS and 0 < height <= MOST_PIXELS


def resource_cost(width: int, height: int) -> int:
    """What a resource takes of the host's memory without its backing, in bytes."""
    return RESOURCE_COST + PIXEL_SIZE * width * height
