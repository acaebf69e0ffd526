"""virtio-vsock: stream sockets between guest and host without a network (VIRTIO 1.2, section 5.10).

Each side says how many bytes of a connection it takes (credit, section 5.10.6.3), so that a slow reader holds
up its own connection and nothing else. What the guest sends beyond what the host's stream takes is kept here,
within the credit that was given; what the host sends stays in its stream until the guest has room.
"""

from __future__ import annotations

import struct
from collections import deque
from enum import Enum, IntEnum, IntFlag
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from anyvirt.devices.virtio.device import ROUNDS, DeviceId, VirtioDevice
from anyvirt.devices.virtio.queue import QueueError
from anyvirt.devices.virtio.views import copy_in, copy_out, split, total

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anyvirt.devices.bus import DirectMemory, State
    from anyvirt.devices.virtio.queue import Chain, Virtqueue

HOST_CID = 2
"""The host's context identifier (section 5.10.4)."""
LEAST_CID = 3
"""The first that a guest can have."""
HEADER = struct.Struct("<QQIIIHHIII")
"""CIDs and ports of source and destination, length, type, operation, flags, buffer size, bytes forwarded."""
MOST_PAYLOAD = 1 << 16
"""Bytes of a packet; Linux sends as many."""
CREDIT = 1 << 18
"""Bytes of a connection that are kept for the host's stream."""
MOST_CONNECTIONS = 1024
MOST_REPLIES = 256
"""Packets that wait for room in the guest; beyond, what the guest sends is left with it."""

_CONFIG = struct.Struct("<Q")
_EVENT = struct.Struct("<I")
_TRANSPORT_RESET = 0
_STREAM = 1
"""The type of packets."""
_FIRST_PORT = 1 << 30
"""Of the host's ports that are given to connections of its own, the first."""
_WORD = 0xFFFFFFFF


class VsockFeature(IntFlag):
    """Section 5.10.3."""

    STREAM = 1 << 0


class VsockQueue(IntEnum):
    """Section 5.10.2."""

    RECEIVE = 0
    TRANSMIT = 1
    EVENT = 2


class Operation(IntEnum):
    """Section 5.10.6.1."""

    REQUEST = 1
    RESPONSE = 2
    RST = 3
    SHUTDOWN = 4
    RW = 5
    CREDIT_UPDATE = 6
    CREDIT_REQUEST = 7


class Shutdown(IntFlag):
    """Flags of a shutdown: what its sender does no more (section 5.10.6.5)."""

    RECEIVE = 1
    SEND = 2


class HostStream(Protocol):
    """The host's end of a connection. Nothing here raises."""

    def read(self, limit: int, /) -> bytes | None:
        """Up to `limit` bytes for the guest, none at the end of the stream.

        None if there are none yet, and `Connection.input_ready` later.
        """

    def write(self, data: bytes, /) -> int | None:
        """Take what the guest sends and say how much of it; after less than all, `Connection.output_ready`.

        None if nobody will ever take anything again.
        """

    def opened(self, port: int, /) -> None:
        """The guest has accepted the connection, whose port on the host's side is `port`."""

    def end_of_input(self) -> None:
        """The guest sends nothing more."""

    def close(self) -> None:
        """The connection is over, or was refused."""


class HostSide(Protocol):
    """Who listens on the host."""

    def open(self, port: int, /) -> HostStream | None:
        """A stream to whoever listens at `port`, None if nobody does."""

    def established(self, stream: HostStream, connection: Connection, /) -> None:
        """A stream of `open` belongs to a connection."""


class Phase(Enum):
    """Where a connection is."""

    ASKING = "the guest has not answered"
    OPEN = "both sides send"
    OVER = "it was reset"


class Connection:
    """A connection of a guest and the host."""

    def __init__(self, device: VirtioVsock, stream: HostStream, host_port: int, guest_port: int) -> None:
        self.stream = stream
        self.host_port, self.guest_port = host_port, guest_port
        self.phase = Phase.ASKING
        self.credit = 0
        """Bytes that the guest takes beyond those that it has taken."""
        self.kept = bytearray()
        """What the guest has sent and the stream has not taken."""
        self._device = device
        self._pending: dict[Operation, int] = {}
        """Packets that are to be sent, with their flags."""
        self._sent = self._received = self._told = 0
        """Bytes sent to the guest, and received from it; how many of these the guest was told are done."""
        self._guest_ends = self._host_ends = Shutdown(0)
        self._input_told = False

    # The host's side ------------------------------------------------------------------------------------

    def input_ready(self) -> None:
        """The stream has bytes for the guest, or has ended."""
        self._device.has_packets(self)

    def output_ready(self) -> None:
        """The stream has room."""
        if self.phase is Phase.OPEN:
            self._flush()

    def reset(self) -> None:
        """End the connection at once."""
        self.over(tell=True)

    # What the device asks -------------------------------------------------------------------------------

    @property
    def forwarded(self) -> int:
        """Bytes that the stream has taken, as packets say it."""
        return (self._received - len(self.kept)) & _WORD

    def send(self, operation: Operation, flags: int = 0) -> None:
        """Send a packet without payload, when the guest has room."""
        self._pending[operation] = flags
        self._device.has_packets(self)

    def next_packet(self, room: int) -> tuple[Operation, int, bytes] | None:
        """What to say next, with up to `room` bytes of payload."""
        if self._pending:
            operation = next(iter(self._pending))
            return operation, self._pending.pop(operation), b""
        ended = bool(self._host_ends & Shutdown.SEND or self._guest_ends & Shutdown.RECEIVE)
        limit = min(room, self.credit, MOST_PAYLOAD)
        if self.phase is not Phase.OPEN or ended or limit <= 0:
            return None
        data = self.stream.read(limit)
        if data is None:
            return None
        if not data:
            self._host_ends |= Shutdown.SEND
            return None if self._end_if_both_have() else (Operation.SHUTDOWN, self._host_ends, b"")
        self._sent += len(data)
        self.credit -= len(data)
        return Operation.RW, 0, data

    def told(self) -> None:
        """A packet is on its way, and says how much was forwarded."""
        self._told = self.forwarded

    def note_credit(self, size: int, forwarded: int) -> None:
        """The guest says how many bytes it keeps, and how many it has taken (section 5.10.6.3).

        One that takes back what it has promised is given nothing until it has kept that promise.
        """
        on_the_way = (self._sent - forwarded) & _WORD
        self.credit = max(size - on_the_way, 0)
        self._device.has_packets(self)

    def take(self, operation: int, flags: int, payload: bytes) -> None:
        """Do what a packet of the guest's says; one that makes no sense here ends the connection."""
        is_open = self.phase is Phase.OPEN
        if operation == Operation.RESPONSE and self.phase is Phase.ASKING:
            self.phase = Phase.OPEN
            self.stream.opened(self.host_port)
            self._device.has_packets(self)
        elif operation == Operation.RW and is_open and self._has_room_for(payload):
            self._received = (self._received + len(payload)) & _WORD
            self.kept += payload
            self._flush()
        elif operation == Operation.SHUTDOWN and is_open:
            self._guest_ends |= Shutdown(flags & (Shutdown.RECEIVE | Shutdown.SEND))
            self._flush()
        elif operation == Operation.CREDIT_REQUEST and is_open:
            self.send(Operation.CREDIT_UPDATE)
        elif operation == Operation.RST:
            self.over(tell=False)
        elif operation != Operation.CREDIT_UPDATE or not is_open:
            self.over(tell=True)

    def _has_room_for(self, payload: bytes) -> bool:
        return len(self.kept) + len(payload) <= CREDIT and not self._guest_ends & Shutdown.SEND

    def _flush(self) -> None:
        """Give the stream what it takes of what is kept, and tell the guest when that is much."""
        if self.kept:
            taken = self.stream.write(bytes(self.kept))
            if taken is None:
                self.over(tell=True)
                return
            del self.kept[:taken]
        if (self.forwarded - self._told) & _WORD >= CREDIT // 2:
            self.send(Operation.CREDIT_UPDATE)
        if self._guest_ends & Shutdown.SEND and not self.kept and not self._input_told:
            self._input_told = True
            self.stream.end_of_input()
        self._end_if_both_have()

    def _end_if_both_have(self) -> bool:
        """A connection on which nobody will send any more is over, and the guest waits to hear so."""
        host_is_done = self._host_ends & Shutdown.SEND or self._guest_ends & Shutdown.RECEIVE
        is_over = bool(self.phase is Phase.OPEN and self._input_told and host_is_done)
        if is_over:
            self.over(tell=True)
        return is_over

    def over(self, *, tell: bool) -> None:
        """Let go of the stream, and tell the guest unless it has told us."""
        if self.phase is Phase.OVER:
            return
        self.phase = Phase.OVER
        self._pending.clear()
        self.kept.clear()
        self._device.remove(self, tell=tell)
        self.stream.close()


class VirtioVsock(VirtioDevice):
    """See the module."""

    device_id = DeviceId.VSOCK
    pci_class = 0x028000

    def __init__(
        self,
        memory: DirectMemory,
        host: HostSide,
        *,
        cid: int = LEAST_CID,
        queue_size: int = 128,
        post: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        """`cid` is the guest's context identifier, from 3 on."""
        if not LEAST_CID <= cid < _WORD:
            raise ValueError(f"a guest's context identifier is from {LEAST_CID} to 2**32 - 2, not {cid}")
        super().__init__(
            memory, queue_sizes=[queue_size, queue_size, 8], features=VsockFeature.STREAM, post=post
        )
        self.cid = cid
        self._host = host
        self._connections: dict[tuple[int, int], Connection] = {}
        """By the ports of host and guest."""
        self._speakers: dict[Connection, None] = {}
        """Those that may have something to say, in the order in which they are asked."""
        self._replies: deque[tuple[int, int, int]] = deque()
        """Connections that are none: the host's CID as the guest sees it, and the ports."""
        self._next_port = _FIRST_PORT
        self._reset_owed = False

    # The host's side ------------------------------------------------------------------------------------

    def connect(self, stream: HostStream, port: int) -> Connection | None:
        """Ask who listens at `port` in the guest; `opened` or `close` of the stream is the answer.

        None if there is no driver, or no room for another connection.
        """
        if not self.is_live or len(self._connections) >= MOST_CONNECTIONS:
            return None
        while (self._next_port, port) in self._connections:
            self._next_port = _after(self._next_port)
        connection = self._add(stream, self._next_port, port)
        self._next_port = _after(self._next_port)
        connection.send(Operation.REQUEST)
        return connection

    @property
    def connections(self) -> tuple[Connection, ...]:
        """Those that there are."""
        return tuple(self._connections.values())

    # What connections use -------------------------------------------------------------------------------

    def has_packets(self, connection: Connection) -> None:
        """A connection may have something to say."""
        self._speakers[connection] = None
        self.poll(VsockQueue.RECEIVE)

    def remove(self, connection: Connection, *, tell: bool) -> None:
        """Forget a connection that is over."""
        del self._connections[connection.host_port, connection.guest_port]
        self._speakers.pop(connection, None)
        if tell:
            self._refuse(HOST_CID, connection.host_port, connection.guest_port)

    # The driver's side ----------------------------------------------------------------------------------

    def config(self) -> bytes:
        """Section 5.10.4."""
        return _CONFIG.pack(self.cid)

    def serve(self, index: int, queue: Virtqueue) -> None:
        """See VirtioDevice.serve."""
        if index != VsockQueue.RECEIVE:
            super().serve(index, queue)
            return
        count = 0
        while count < ROUNDS * queue.size or self._post is None:
            if not self._send_next(queue):
                self.publish(index, queue)
                self.poll(VsockQueue.TRANSMIT)
                return
            count += 1
        self.publish(index, queue)
        self.serve_later(index)

    def handle(self, index: int, chain: Chain) -> int | None:
        """See VirtioDevice.handle."""
        if index == VsockQueue.EVENT:
            return self._tell_event(chain)
        if len(self._replies) >= MOST_REPLIES:
            return None
        self._receive(chain)
        return 0

    def _tell_event(self, chain: Chain) -> int | None:
        """Section 5.10.6.7: after a restored state no connection is there any more."""
        if not self._reset_owed:
            return None
        self._reset_owed = False
        return copy_in(chain.writable, _EVENT.pack(_TRANSPORT_RESET))

    # To the guest ---------------------------------------------------------------------------------------

    def _send_next(self, queue: Virtqueue) -> bool:
        """Put a packet into the guest's next buffer, if there are both."""
        if not self._replies and not self._speakers:
            return False
        chain = queue.pop()
        while chain is None:
            if not queue.enable_notifications():
                return False
            chain = queue.pop()
        room = total(chain.writable) - HEADER.size
        if room <= 0:
            raise QueueError("a buffer for packets of a virtual socket without room for more than a header")
        packet = next(self._packets(room), None)
        if packet is None:
            queue.put_back(chain)
            return False
        queue.push(chain, copy_in(chain.writable, packet))
        return True

    def _packets(self, room: int) -> Iterator[bytes]:
        """What there is to send now, with up to `room` bytes of payload; connections take turns."""
        if self._replies:
            source, host_port, guest_port = self._replies.popleft()
            yield HEADER.pack(source, self.cid, host_port, guest_port, 0, _STREAM, Operation.RST, 0, 0, 0)
        while self._speakers:
            connection = next(iter(self._speakers))
            del self._speakers[connection]
            said = connection.next_packet(room)
            if said is None:
                continue
            if connection.phase is not Phase.OVER:
                self._speakers[connection] = None
            operation, flags, payload = said
            connection.told()
            yield self._header(connection, operation, flags, len(payload)) + payload

    def _header(self, connection: Connection, operation: Operation, flags: int, length: int) -> bytes:
        return HEADER.pack(
            HOST_CID,
            self.cid,
            connection.host_port,
            connection.guest_port,
            length,
            _STREAM,
            operation,
            flags,
            CREDIT,
            connection.forwarded,
        )

    def _refuse(self, source: int, host_port: int, guest_port: int) -> None:
        """Send a reset for what is no connection (any more)."""
        self._replies.append((source, host_port, guest_port))
        self.poll(VsockQueue.RECEIVE)

    # From the guest -------------------------------------------------------------------------------------

    def _receive(self, chain: Chain) -> None:
        header = copy_out(chain.readable, HEADER.size)
        if len(header) < HEADER.size:
            raise QueueError("a packet of a virtual socket without its header")
        source, to, guest_port, host_port, length, kind, operation, flags, *credit = HEADER.unpack(header)
        if source != self.cid:
            return
        connection = self._connections.get((host_port, guest_port)) if to == HOST_CID else None
        fits = length <= MOST_PAYLOAD and length <= total(chain.readable) - HEADER.size
        if kind != _STREAM or not fits or to != HOST_CID:
            self._reject(connection, operation, to, host_port, guest_port)
        elif connection is not None:
            payload = copy_out(split(chain.readable, HEADER.size)[1], length) if length else b""
            connection.note_credit(*credit)
            connection.take(operation, flags, payload)
        elif operation == Operation.REQUEST:
            self._accept(host_port, guest_port, *credit)
        else:
            self._reject(None, operation, to, host_port, guest_port)

    def _reject(
        self, connection: Connection | None, operation: int, to: int, host_port: int, guest_port: int
    ) -> None:
        """Answer what makes no sense by a reset, unless it is one itself."""
        if connection is not None:
            connection.over(tell=True)
        elif operation != Operation.RST:
            self._refuse(to, host_port, guest_port)

    def _accept(self, host_port: int, guest_port: int, size: int, forwarded: int) -> None:
        """The guest wants to be connected with who listens on the host (section 5.10.6.4)."""
        full = len(self._connections) >= MOST_CONNECTIONS
        stream = None if full else self._host.open(host_port)
        if stream is None:
            self._refuse(HOST_CID, host_port, guest_port)
            return
        connection = self._add(stream, host_port, guest_port)
        connection.phase = Phase.OPEN
        self._host.established(stream, connection)
        connection.note_credit(size, forwarded)
        connection.send(Operation.RESPONSE)

    def _add(self, stream: HostStream, host_port: int, guest_port: int) -> Connection:
        connection = self._connections[host_port, guest_port] = Connection(
            self, stream, host_port, guest_port
        )
        return connection

    # Life -----------------------------------------------------------------------------------------------

    def stopped(self) -> None:
        """See VirtioDevice.stopped: the driver has forgotten its connections."""
        self._forget()
        self._reset_owed = False

    def _forget(self) -> None:
        for connection in self.connections:
            connection.over(tell=False)
        self._replies.clear()
        self._speakers.clear()

    def save_fields(self) -> dict[str, Any]:
        """See VirtioDevice.save_fields. Connections end where the state is loaded."""
        return {"cid": self.cid, "reset": self._reset_owed or bool(self._connections)}

    def load_fields(self, fields: dict[str, Any]) -> None:
        """See VirtioDevice.load_fields."""
        cid, owed = int(fields["cid"]), bool(fields["reset"])
        if not LEAST_CID <= cid < _WORD:
            raise ValueError(f"no context identifier: {cid}")
        self._forget()
        self.cid, self._reset_owed = cid, owed

    def load_state(self, state: State, /) -> None:
        """See VirtioDevice.load_state; a driver that had connections is told that they are gone."""
        super().load_state(state)
        if self._post is not None:
            self._post(partial(self.poll, VsockQueue.EVENT))


def _after(port: int) -> int:
    return port + 1 if port + 1 < _WORD else _FIRST_PORT
