"""virtio-blk: a disk (VIRTIO 1.2, section 5.2).

Requests are served at once: the host's page cache answers most of them, and what does not reach the medium
before the driver asks for a flush need not.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, Any

from anyvirt.devices.disk import SECTOR
from anyvirt.devices.virtio.device import DeviceId, VirtioDevice
from anyvirt.devices.virtio.queue import MOST_DESCRIPTORS, QueueError
from anyvirt.devices.virtio.views import copy_in, copy_out, split, total

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.devices.bus import DirectMemory
    from anyvirt.devices.disk import Disk
    from anyvirt.devices.virtio.queue import Chain
    from anyvirt.devices.virtio.views import Views

SERIAL_SIZE = 20
"""Bytes (section 5.2.6, GET_ID)."""
MOST_SEGMENTS = 32
"""Of a request to discard or to write zeroes."""
MOST_SECTORS = 1 << 22
"""2 GiB of a segment to discard or to write zeroes."""

_CONFIG = struct.Struct("<QII4sIBBHIBBHIIIIIB3x")
_HEADER = struct.Struct("<IIQ")
_SEGMENT = struct.Struct("<QII")
_UNMAP = 1


class BlkFeature(IntFlag):
    """Section 5.2.3."""

    SEG_MAX = 1 << 2
    RO = 1 << 5
    BLK_SIZE = 1 << 6
    FLUSH = 1 << 9
    TOPOLOGY = 1 << 10
    CONFIG_WCE = 1 << 11
    MQ = 1 << 12
    DISCARD = 1 << 13
    WRITE_ZEROES = 1 << 14


class Request(IntEnum):
    """Section 5.2.6."""

    IN = 0
    OUT = 1
    FLUSH = 4
    GET_ID = 8
    DISCARD = 11
    WRITE_ZEROES = 13


class BlkStatus(IntEnum):
    """How a request ended (section 5.2.6)."""

    OK = 0
    IOERR = 1
    UNSUPP = 2


_WRITEBACK_OFFSET = 32


class VirtioBlk(VirtioDevice):
    """See the module."""

    device_id = DeviceId.BLOCK
    pci_class = 0x010000

    def __init__(
        self,
        memory: DirectMemory,
        disk: Disk,
        *,
        serial: str = "",
        queues: int = 1,
        queue_size: int = 256,
        post: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        """`serial` is what the guest finds as the disk's serial number, up to 20 bytes."""
        features = BlkFeature.SEG_MAX | BlkFeature.BLK_SIZE | BlkFeature.TOPOLOGY
        if disk.read_only:
            features |= BlkFeature.RO
        else:
            features |= BlkFeature.FLUSH | BlkFeature.CONFIG_WCE
            features |= BlkFeature.DISCARD | BlkFeature.WRITE_ZEROES
        if queues > 1:
            features |= BlkFeature.MQ
        super().__init__(memory, queue_sizes=[queue_size] * queues, features=features, post=post)
        self.disk = disk
        self._serial = serial.encode()[:SERIAL_SIZE].ljust(SERIAL_SIZE, b"\0")
        self._writeback = True

    def resized(self) -> None:
        """The disk has another size now."""
        self.change_config()

    def config(self) -> bytes:
        """Section 5.2.4."""
        size = self.settings[0].maximum
        exponent = (self.disk.block_size // SECTOR).bit_length() - 1
        alignment = self.disk.block_size // SECTOR
        return _CONFIG.pack(
            self.disk.size // SECTOR,
            0,
            max(min(size, MOST_DESCRIPTORS) - 2, 1),
            bytes(4),
            SECTOR,
            exponent,
            0,
            alignment,
            0,
            self._writeback,
            0,
            len(self.settings),
            MOST_SECTORS,
            MOST_SEGMENTS,
            alignment,
            MOST_SECTORS,
            MOST_SEGMENTS,
            1,
        )

    def config_written(self, offset: int, data: bytes) -> None:
        """A driver may choose a cache mode (section 5.2.5)."""
        if offset == _WRITEBACK_OFFSET and len(data) == 1 and self.has(BlkFeature.CONFIG_WCE):
            self._writeback = bool(data[0] & 1)

    def stopped(self) -> None:
        """See VirtioDevice.stopped."""
        self._writeback = True

    def handle(self, index: int, chain: Chain) -> int:
        """One request: a header, data in one direction, a byte of status at the very end."""
        room = total(chain.writable)
        header = copy_out(chain.readable, _HEADER.size)
        if len(header) < _HEADER.size or not room:
            raise QueueError("a request to a disk without its header or without room for its status")
        kind, _, sector = _HEADER.unpack(header)
        answer, last = split(chain.writable, room - 1)
        try:
            status, written = self._execute(kind, sector, chain, answer)
        except OSError:
            status, written = BlkStatus.IOERR, 0
        last[0][0] = status
        return written + 1 if written == room - 1 else written

    def _execute(self, kind: int, sector: int, chain: Chain, answer: Views) -> tuple[BlkStatus, int]:
        """How it ended, and how many bytes of the answer are there."""
        match kind:
            case Request.IN:
                return self._read(sector, answer)
            case Request.FLUSH:
                self.disk.flush()
                return BlkStatus.OK, 0
            case Request.GET_ID:
                return BlkStatus.OK, copy_in(answer, self._serial)
            case Request.OUT | Request.DISCARD | Request.WRITE_ZEROES:
                if self.disk.read_only:
                    return BlkStatus.IOERR, 0
                data = split(chain.readable, _HEADER.size)[1]
                return self._change(kind, sector, data), 0
        return BlkStatus.UNSUPP, 0

    def _fits(self, sector: int, length: int) -> bool:
        return length % SECTOR == 0 and sector * SECTOR + length <= self.disk.size

    def _read(self, sector: int, answer: Views) -> tuple[BlkStatus, int]:
        length = total(answer)
        if not self._fits(sector, length):
            return BlkStatus.IOERR, 0
        self.disk.preadv(answer, sector * SECTOR)
        return BlkStatus.OK, length

    def _change(self, kind: int, sector: int, data: Views) -> BlkStatus:
        if kind == Request.OUT:
            if not self._fits(sector, total(data)):
                return BlkStatus.IOERR
            self.disk.pwritev(data, sector * SECTOR)
        else:
            status = self._clear(kind, data)
            if status is not BlkStatus.OK:
                return status
        if not (self.has(BlkFeature.FLUSH | BlkFeature.CONFIG_WCE) and self._writeback):
            self.disk.flush()
        return BlkStatus.OK

    def _clear(self, kind: int, data: Views) -> BlkStatus:
        """Discard or write zeroes: several segments, all of which are checked before any is touched."""
        length = total(data)
        if not length or length % _SEGMENT.size:
            return BlkStatus.IOERR
        if length > _SEGMENT.size * MOST_SEGMENTS:
            return BlkStatus.IOERR
        segments = list(_SEGMENT.iter_unpack(copy_out(data, length)))
        for sector, count, flags in segments:
            if flags & ~_UNMAP or (flags and kind == Request.DISCARD):
                return BlkStatus.UNSUPP
            if count > MOST_SECTORS or not self._fits(sector, count * SECTOR):
                return BlkStatus.IOERR
        for sector, count, flags in segments:
            if kind == Request.WRITE_ZEROES and count:
                self.disk.write_zeroes(sector * SECTOR, count * SECTOR, may_unmap=bool(flags))
            elif count:
                self.disk.discard(sector * SECTOR, count * SECTOR)
        return BlkStatus.OK

    def save_fields(self) -> dict[str, Any]:
        """See VirtioDevice.save_fields. What the guest has stored lasts then."""
        if not self.disk.read_only:
            self.disk.flush()
        return {"writeback": self._writeback, "size": self.disk.size}

    def load_fields(self, fields: dict[str, Any]) -> None:
        """See VirtioDevice.load_fields."""
        if fields["size"] != self.disk.size:
            raise ValueError(f"its disk had {fields['size']} bytes, not {self.disk.size}")
        self._writeback = bool(fields["writeback"])
