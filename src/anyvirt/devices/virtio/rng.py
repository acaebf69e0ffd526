"""virtio-rng: an entropy device (VIRTIO 1.2, section 5.4)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from anyvirt.devices.virtio.device import DeviceId, VirtioDevice
from anyvirt.devices.virtio.queue import QueueError
from anyvirt.devices.virtio.views import copy_in, total

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.devices.bus import DirectMemory
    from anyvirt.devices.virtio.queue import Chain

MOST_BYTES = 1 << 16
"""For one request, whatever its size."""


class VirtioRng(VirtioDevice):
    """See the module."""

    device_id = DeviceId.ENTROPY

    def __init__(
        self,
        memory: DirectMemory,
        *,
        source: Callable[[int], bytes] = os.urandom,
        post: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        """`source` gives that many bytes; a generator with a seed makes runs repeatable."""
        super().__init__(memory, queue_sizes=[64], post=post)
        self._source = source

    def handle(self, index: int, chain: Chain) -> int:
        """Fill a buffer."""
        if chain.readable:
            raise QueueError("a buffer for entropy that cannot be written to")
        return copy_in(chain.writable, self._source(min(total(chain.writable), MOST_BYTES)))
