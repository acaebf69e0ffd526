"""virtio-net: a network card (VIRTIO 1.2, section 5.1), with merged receive buffers and a control queue.

There are no offloads: frames are complete in both directions. Frames for the guest are pulled from the
backend when the guest has room for them, and frames of the guest stay with it while the backend has none, so
that the slower side slows the other one down and nothing is lost here.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, Any, Protocol

from anyvirt.devices.virtio.device import ROUNDS, DeviceId, Feature, VirtioDevice
from anyvirt.devices.virtio.queue import QueueError
from anyvirt.devices.virtio.views import copy_in, copy_out, split, total

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.devices.bus import DirectMemory
    from anyvirt.devices.virtio.queue import Chain, Virtqueue
    from anyvirt.devices.virtio.views import Views

MOST_FRAME = 65550
"""Bytes: the largest that a driver's buffers hold (section 5.1.6.3.1)."""
LEAST_FRAME = 14
"""Bytes: an Ethernet header."""
HEADER = struct.Struct("<BBHHHHH")
"""Flags, GSO type, header length, GSO size, checksum start, checksum offset, number of buffers (5.1.6)."""
_HEADER_WITHOUT_COUNT = HEADER.size - 2
"""Bytes of it where there is no number of buffers (section 5.1.6.1)."""

_CONFIG = struct.Struct("<6sHHH")
_LINK_UP = 1
_OK, _ERROR = 0, 1


class NetFeature(IntFlag):
    """Section 5.1.3."""

    MTU = 1 << 3
    MAC = 1 << 5
    MRG_RXBUF = 1 << 15
    STATUS = 1 << 16
    CTRL_VQ = 1 << 17
    CTRL_RX = 1 << 18
    CTRL_MAC_ADDR = 1 << 23


class NetQueue(IntEnum):
    """Queues (section 5.1.2)."""

    RECEIVE = 0
    TRANSMIT = 1
    CONTROL = 2


class ControlClass(IntEnum):
    """Classes of commands (section 5.1.6.5)."""

    RX = 0
    MAC = 1


_MAC_TABLE_SET, _MAC_ADDR_SET = 0, 1
_RX_COMMANDS = 2
"""Promiscuous and all-multicast; the extra modes are not offered."""


class NetBackend(Protocol):
    """What a card is plugged into."""

    def send(self, frame: Views, /) -> bool:
        """Take a frame of the guest, which is in its memory: what is kept has to be copied.

        False if there is no room now: the guest keeps it until `VirtioNet.output_ready`. Does not raise; a
        frame that nobody will ever take is taken, and lost.
        """

    def receive(self) -> bytes | None:
        """The next frame for the guest; None if there is none, and `VirtioNet.input_ready` later."""


class VirtioNet(VirtioDevice):
    """See the module."""

    device_id = DeviceId.NETWORK
    pci_class = 0x020000

    def __init__(
        self,
        memory: DirectMemory,
        backend: NetBackend,
        *,
        mac: bytes,
        mtu: int | None = None,
        queue_size: int = 256,
        post: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        """`mac` has six bytes; `mtu` is the largest payload in bytes, if not the usual 1500."""
        if len(mac) != 6 or mac[0] & 1:
            raise ValueError("the address of a network card is six bytes, and not one of a group")
        features = NetFeature.MAC | NetFeature.MRG_RXBUF | NetFeature.STATUS
        features |= NetFeature.CTRL_VQ | NetFeature.CTRL_RX | NetFeature.CTRL_MAC_ADDR
        if mtu is not None:
            features |= NetFeature.MTU
        super().__init__(memory, queue_sizes=[queue_size, queue_size, 64], features=features, post=post)
        self.mac = mac
        """The address the guest uses; it may have chosen another one."""
        self._initial_mac, self._mtu = mac, mtu or 0
        self._backend = backend
        self._link_up = True
        self._waiting: bytes | None = None

    # The host's side ------------------------------------------------------------------------------------

    def input_ready(self) -> None:
        """The backend has frames."""
        self.poll(NetQueue.RECEIVE)

    def output_ready(self) -> None:
        """The backend has room for frames again."""
        self.poll(NetQueue.TRANSMIT)

    @property
    def link_up(self) -> bool:
        """Whether the cable is plugged in."""
        return self._link_up

    def set_link(self, up: bool) -> None:
        """Plug the cable in, or pull it."""
        if up is not self._link_up:
            self._link_up = up
            self.change_config()
            self.poll(NetQueue.TRANSMIT)
            self.poll(NetQueue.RECEIVE)

    # The driver's side ----------------------------------------------------------------------------------

    def config(self) -> bytes:
        """Section 5.1.4."""
        return _CONFIG.pack(self.mac, _LINK_UP if self._link_up else 0, 1, self._mtu)

    def serve(self, index: int, queue: Virtqueue) -> None:
        """See VirtioDevice.serve; one frame may take several chains."""
        if index != NetQueue.RECEIVE:
            super().serve(index, queue)
            return
        count = 0
        while count < ROUNDS * queue.size or self._post is None:
            count += 1
            frame = self._next_frame()
            if frame is None or not self._deliver(queue, frame):
                self._waiting = frame
                self.publish(index, queue)
                return
        self.publish(index, queue)
        self.serve_later(index)

    def _next_frame(self) -> bytes | None:
        if not self._link_up:
            return None
        frame, self._waiting = self._waiting, None
        return self._backend.receive() if frame is None else frame

    def _deliver(self, queue: Virtqueue, frame: bytes) -> bool:
        """Give a frame to the guest (section 5.1.6.4); whether it is done with, delivered or lost."""
        if not LEAST_FRAME <= len(frame) <= MOST_FRAME:
            return True
        chains: list[Chain] = []
        rooms: list[int] = []
        header_size = self._header_size
        needed = header_size + len(frame)
        while sum(rooms) < needed:
            chain = queue.pop()
            if chain is None:
                if queue.enable_notifications():
                    continue
                return self._give_up(queue, chains, done=False)
            chains.append(chain)
            rooms.append(total(chain.writable))
            if rooms[0] < header_size or len(chains) > queue.size:
                raise QueueError("buffers too small for what is received")
            if not self.has(NetFeature.MRG_RXBUF) and rooms[0] < needed:
                return self._give_up(queue, chains, done=True)
        header = HEADER.pack(0, 0, 0, 0, 0, 0, len(chains))[:header_size]
        rest = memoryview(header + frame)
        for chain, room in zip(chains, rooms, strict=True):
            queue.push(chain, copy_in(chain.writable, rest[:room]))
            rest = rest[room:]
        return True

    @staticmethod
    def _give_up(queue: Virtqueue, chains: list[Chain], *, done: bool) -> bool:
        for chain in reversed(chains):
            queue.put_back(chain)
        return done

    def handle(self, index: int, chain: Chain) -> int | None:
        """See VirtioDevice.handle."""
        if index == NetQueue.TRANSMIT:
            return 0 if self._transmit(chain) else None
        return self._command(chain)

    def _transmit(self, chain: Chain) -> bool:
        """Section 5.1.6.2; False if the frame has to wait."""
        length = total(chain.readable) - self._header_size
        if not self._link_up or not LEAST_FRAME <= length <= MOST_FRAME:
            return True
        return self._backend.send(split(chain.readable, self._header_size)[1])

    @property
    def _header_size(self) -> int:
        """Bytes in front of each frame (section 5.1.6.1)."""
        counts = self.has(Feature.VERSION_1 | NetFeature.MRG_RXBUF)
        return HEADER.size if counts else _HEADER_WITHOUT_COUNT

    def _command(self, chain: Chain) -> int:
        """Section 5.1.6.5: a class, a command, its data, and a byte for the answer."""
        request = copy_out(chain.readable, 8)
        if not chain.writable:
            raise QueueError("a command to a network card without room for its answer")
        done = len(request) >= 2 and self._execute(request[0], request[1], request[2:])
        return copy_in(chain.writable, bytes([_OK if done else _ERROR]))

    def _execute(self, kind: int, command: int, data: bytes) -> bool:
        """The card lets every frame through, so filters need nothing done."""
        if kind == ControlClass.RX:
            return command < _RX_COMMANDS
        if kind == ControlClass.MAC and command == _MAC_ADDR_SET and len(data) == 6:
            self.mac = data
            return True
        return kind == ControlClass.MAC and command == _MAC_TABLE_SET

    # Life -----------------------------------------------------------------------------------------------

    def stopped(self) -> None:
        """See VirtioDevice.stopped."""
        self.mac, self._waiting = self._initial_mac, None

    def save_fields(self) -> dict[str, Any]:
        """See VirtioDevice.save_fields."""
        return {"mac": self.mac, "link": self._link_up, "waiting": self._waiting}

    def load_fields(self, fields: dict[str, Any]) -> None:
        """See VirtioDevice.load_fields."""
        mac, link, waiting = bytes(fields["mac"]), bool(fields["link"]), fields["waiting"]
        if len(mac) != 6 or not isinstance(waiting, bytes | None):
            raise ValueError("no address, or no frame")
        self.mac, self._link_up, self._waiting = mac, link, waiting
