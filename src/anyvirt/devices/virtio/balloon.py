"""virtio-balloon: memory that a guest gives back to its host for a while (VIRTIO 1.2, section 5.5)."""

from __future__ import annotations

import array
import struct
import sys
from enum import Enum, IntEnum, IntFlag
from typing import TYPE_CHECKING, Any

from anyvirt.devices.virtio.device import DeviceId, VirtioDevice
from anyvirt.devices.virtio.views import copy_out, total

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anyvirt.devices.bus import DirectMemory
    from anyvirt.devices.virtio.queue import Chain

PAGE_SIZE = 4096
"""Of the balloon, whatever the guest's CPU has (section 5.5.6)."""
MOST_PAGES = 1 << 16
"""In a chain; Linux sends 256."""
MOST_STATISTICS = 64

_STATISTIC = struct.Struct("<HQ")
_CONFIG = struct.Struct("<II")
_ACTUAL_OFFSET = 4


class BalloonFeature(IntFlag):
    """Section 5.5.3."""

    MUST_TELL_HOST = 1 << 0
    STATS_VQ = 1 << 1
    DEFLATE_ON_OOM = 1 << 2
    PAGE_REPORTING = 1 << 5


class Statistic(IntEnum):
    """What a guest tells of its memory (section 5.5.6.4), in bytes, or counted since it was started."""

    SWAP_IN = 0
    SWAP_OUT = 1
    MAJOR_FAULTS = 2
    MINOR_FAULTS = 3
    FREE_MEMORY = 4
    TOTAL_MEMORY = 5
    AVAILABLE = 6
    CACHES = 7
    HUGE_PAGE_ALLOCATIONS = 8
    HUGE_PAGE_FAILURES = 9


class BalloonQueue(IntEnum):
    """Queues with fixed numbers; those of optional features follow without a gap, as in Linux."""

    INFLATE = 0
    DEFLATE = 1


class _Inquiry(Enum):
    """Where a question for statistics is."""

    NONE = 0
    WANTED = 1
    ASKED = 2


class VirtioBalloon(VirtioDevice):
    """See the module."""

    device_id = DeviceId.BALLOON

    def __init__(
        self,
        memory: DirectMemory,
        *,
        discard: Callable[[int, int], None],
        deflate_on_oom: bool = True,
        post: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        """`discard` is told (address, length) of memory the guest does not need; it may read as zeros then.

        The guest chooses both freely: `discard` ignores what is no RAM, and does not raise.
        """
        features = BalloonFeature.STATS_VQ | BalloonFeature.PAGE_REPORTING
        if deflate_on_oom:
            features |= BalloonFeature.DEFLATE_ON_OOM
        super().__init__(memory, queue_sizes=[128] * 4, features=features, post=post)
        self.actual = 0
        """Pages that the guest has given up."""
        self.statistics: dict[Statistic, int] = {}
        """What the guest last told of its memory."""
        self._discard = discard
        self._target = 0
        self._inquiry = _Inquiry.NONE
        self._on_statistics: Callable[[], None] | None = None

    # The host's side ------------------------------------------------------------------------------------

    @property
    def target(self) -> int:
        """Pages that the guest is asked to give up."""
        return self._target

    def inflate_to(self, pages: int) -> None:
        """Ask the guest to give up that many pages of 4096 bytes, or to take back what is more than that."""
        self._target = max(0, min(pages, 0xFFFFFFFF))
        self.change_config()

    def ask_for_statistics(self, done: Callable[[], None] | None = None) -> None:
        """Have `statistics` brought up to date; `done` is called when they are."""
        self._inquiry, self._on_statistics = _Inquiry.WANTED, done
        if self._statistics_queue is not None:
            self.poll(self._statistics_queue)

    # The driver's side ----------------------------------------------------------------------------------

    @property
    def _statistics_queue(self) -> int | None:
        return 2 if self.has(BalloonFeature.STATS_VQ) else None

    @property
    def _reporting_queue(self) -> int | None:
        return 2 + self.has(BalloonFeature.STATS_VQ) if self.has(BalloonFeature.PAGE_REPORTING) else None

    def stopped(self) -> None:
        """See VirtioDevice.stopped: the memory is the guest's again."""
        self.actual, self._inquiry = 0, _Inquiry.NONE

    def config(self) -> bytes:
        """Section 5.5.4."""
        return _CONFIG.pack(self._target, self.actual)

    def config_written(self, offset: int, data: bytes) -> None:
        """The guest says how far it is."""
        if offset == _ACTUAL_OFFSET and len(data) == 4:
            self.actual = int.from_bytes(data, "little")

    def handle(self, index: int, chain: Chain) -> int | None:
        """Pages that are not needed, or needed again."""
        if index == self._statistics_queue:
            return self._statistics(chain)
        if index == BalloonQueue.INFLATE:
            for address, length in _runs(copy_out(chain.readable, 4 * MOST_PAGES)):
                self._discard(address, length)
        elif index == self._reporting_queue:
            for address, length in chain.ranges:
                self._discard(address, length)
        elif index != BalloonQueue.DEFLATE:
            return super().handle(index, chain)
        return 0

    def _statistics(self, chain: Chain) -> int | None:
        """The driver's buffer stays until statistics are wanted; given back, it returns (section 5.5.6.3)."""
        length = min(total(chain.readable), _STATISTIC.size * MOST_STATISTICS)
        content = copy_out(chain.readable, length - length % _STATISTIC.size)
        known = set(Statistic)
        self.statistics = {
            Statistic(tag): value for tag, value in _STATISTIC.iter_unpack(content) if tag in known
        }
        if self._inquiry is _Inquiry.WANTED:
            self._inquiry = _Inquiry.ASKED
            return 0
        if self._inquiry is _Inquiry.ASKED:
            self._inquiry = _Inquiry.NONE
            if self._on_statistics is not None:
                self._on_statistics()
        return None

    def load_fields(self, fields: dict[str, Any]) -> None:
        """See VirtioDevice.load_fields."""
        target, actual = int(fields["target"]), int(fields["actual"])
        self._target, self.actual = target & 0xFFFFFFFF, actual & 0xFFFFFFFF

    def save_fields(self) -> dict[str, Any]:
        """See VirtioDevice.save_fields."""
        return {"target": self._target, "actual": self.actual}


def _runs(content: bytes) -> Iterator[tuple[int, int]]:
    """(address, length) of neighbouring pages, from their numbers."""
    numbers = array.array("I", content[: len(content) & -4])
    if sys.byteorder == "big":
        numbers.byteswap()
    start = end = -1
    for number in sorted(numbers):
        if number > end or start < 0:
            if start >= 0:
                yield start * PAGE_SIZE, (end - start) * PAGE_SIZE
            start = number
        end = max(end, number + 1)
    if start >= 0:
        yield start * PAGE_SIZE, (end - start) * PAGE_SIZE
