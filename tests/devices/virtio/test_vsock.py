"""virtio-vsock: connections both ways, credit, ends, hostile guests, and what a restored state leaves."""

import os
from collections import deque

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.devices.virtio.driver import BASE, NEEDS_RESET, PACKED, FakeMemory, Guest

from anyvirt.devices.virtio import vsock
from anyvirt.devices.virtio.vsock import CREDIT, HEADER, Operation, Phase, Shutdown, VirtioVsock

CID, HOST = 3, 2
REQUEST, RESPONSE, RST, SHUTDOWN, RW, UPDATE, ASK = range(1, 8)


class Stream:
    """A host's stream, in memory."""

    def __init__(self, room=1 << 30):
        self.input, self.output = bytearray(), bytearray()
        self.room = room
        self.ended = self.input_ended = self.closed = False
        self.broken = False
        self.port = None
        self.connection = None

    def read(self, limit):
        assert limit > 0
        assert not self.closed
        data = bytes(self.input[:limit])
        del self.input[:limit]
        return data or (b"" if self.ended else None)

    def write(self, data):
        assert data
        assert not self.closed
        if self.broken:
            return None
        taken = min(len(data), self.room)
        self.room -= taken
        self.output += data[:taken]
        return taken

    def opened(self, port):
        assert self.port is None
        self.port = port

    def end_of_input(self):
        assert not self.input_ended
        self.input_ended = True

    def close(self):
        assert not self.closed
        self.closed = True


class Host:
    """Listens at some ports."""

    def __init__(self, *ports, room=1 << 30):
        self.ports, self.room = set(ports), room
        self.streams = []

    def open(self, port):
        if port not in self.ports:
            return None
        self.streams.append(Stream(self.room))
        return self.streams[-1]

    def established(self, stream, connection):
        stream.connection = connection


class Driver:
    """The guest's side: sends packets, and takes those that arrive."""

    def __init__(self, host, features=0, *, buffers=16, room=4096, post=None, size=2 << 20):
        self.set_up(lambda memory: VirtioVsock(memory, host, post=post), features, buffers, room, size)

    def set_up(self, make, features=0, buffers=16, room=4096, size=2 << 20):
        """Begin with the device that is made of a memory."""
        self.device = make(FakeMemory(size))
        self.guest = Guest(self.device, features=features)
        self.guest.allocator.end = BASE + size
        self.room = room
        self.arrived = deque()
        self.offer(buffers)

    def offer(self, count):
        for _ in range(count):
            self.guest.queues[0].add([], [self.room])
        self.guest.port.notify(0)

    def send(self, operation, ports, payload=b"", *, flags=0, size=1 << 20, taken=0, **other):
        fields = {"source": CID, "to": HOST, "kind": 1, "length": len(payload), **other}
        header = HEADER.pack(
            fields["source"], fields["to"], ports[1], ports[0], fields["length"], fields["kind"], operation,
            flags, size, taken,
        )  # fmt: skip
        self.raw(header + payload)

    def raw(self, data):
        before = self.guest.allocator.start
        self.guest.queues[1].add([data])
        self.guest.port.notify(1)
        if self.guest.queues[1].used():
            self.guest.allocator.start = before

    def packets(self, *, refill=True):
        """(operation, (host's port, guest's port), flags, payload, credit, forwarded) of what has arrived."""
        while used := self.guest.queues[0].used():
            for buffers, count in used:
                data = buffers.answer()[:count]
                source, to, host, guest, length, kind, operation, flags, *credit = HEADER.unpack(data[:44])
                assert (to, kind, length) == (CID, 1, len(data) - 44)
                self.arrived.append((operation, (host, guest), flags, data[44:], *credit, source))
            if refill:
                self.offer(len(used))
        result = list(self.arrived)
        self.arrived.clear()
        return result

    def operations(self):
        return [packet[:4] for packet in self.packets()]


@pytest.fixture(params=[0, PACKED], ids=["split", "packed"])
def ring(request):
    return request.param


def opened(ring=0, **options):
    """A driver with a connection of its own to port 80 of the host, and the host's stream."""
    host = Host(80, **options)
    driver = Driver(host, ring)
    driver.send(REQUEST, (80, 1000))
    assert driver.operations() == [(RESPONSE, (80, 1000), 0, b"")]
    return driver, host.streams[0]


def test_the_guest_connects_to_the_host_and_data_passes_both_ways(ring):
    driver, stream = opened(ring)
    driver.send(RW, (80, 1000), b"to the host")
    assert stream.output == b"to the host"
    stream.input += b"to the guest"
    stream.connection.input_ready()
    assert driver.operations() == [(RW, (80, 1000), 0, b"to the guest")]
    driver.send(SHUTDOWN, (80, 1000), flags=3)
    assert stream.input_ended
    assert stream.closed
    assert driver.operations() == [(RST, (80, 1000), 0, b"")]
    assert not driver.device.connections


def test_the_host_connects_to_the_guest(ring):
    driver = Driver(Host(), ring)
    stream = Stream()
    connection = driver.device.connect(stream, 22)
    ports = (connection.host_port, 22)
    assert driver.operations() == [(REQUEST, ports, 0, b"")]
    stream.input += b"early"
    connection.input_ready()
    assert driver.operations() == [], "nothing may be sent before the guest has answered"
    driver.send(RESPONSE, ports)
    assert stream.port == connection.host_port
    assert driver.operations() == [(RW, ports, 0, b"early")]
    second = driver.device.connect(Stream(), 22)
    assert second.host_port != connection.host_port


def test_who_does_not_listen_refuses(ring):
    driver = Driver(Host(), ring)
    driver.send(REQUEST, (81, 1000))
    assert driver.operations() == [(RST, (81, 1000), 0, b"")]
    stream = Stream()
    connection = driver.device.connect(stream, 22)
    driver.packets()
    driver.send(RST, (connection.host_port, 22))
    assert stream.closed
    assert driver.operations() == [], "a reset is not answered"


def test_without_a_driver_there_is_nobody_to_connect_to():
    device = VirtioVsock(FakeMemory(), Host())
    assert device.connect(Stream(), 22) is None


def test_half_closed_connections(ring):
    driver, stream = opened(ring)
    driver.send(SHUTDOWN, (80, 1000), flags=2)
    assert stream.input_ended
    assert not stream.closed
    stream.input += b"the answer"
    stream.connection.input_ready()
    assert driver.operations() == [(RW, (80, 1000), 0, b"the answer")]
    stream.ended = True
    stream.connection.input_ready()
    assert stream.closed
    assert driver.operations() == [(RST, (80, 1000), 0, b"")]


def test_the_host_ends_first(ring):
    driver, stream = opened(ring)
    stream.ended = True
    stream.connection.input_ready()
    assert driver.operations() == [(SHUTDOWN, (80, 1000), 2, b"")]
    driver.send(RW, (80, 1000), b"more")
    assert stream.output == b"more"
    driver.send(SHUTDOWN, (80, 1000), flags=3)
    assert driver.operations() == [(RST, (80, 1000), 0, b"")]
    assert stream.closed


def test_the_guest_s_credit_is_not_exceeded(ring):
    driver, stream = opened(ring)
    stream.input += os.urandom(10000)
    content = bytes(stream.input)
    driver.send(UPDATE, (80, 1000), size=5000)
    received = b"".join(packet[3] for packet in driver.packets())
    assert received == content[:5000]
    driver.send(UPDATE, (80, 1000), size=5000, taken=2000)
    received += b"".join(packet[3] for packet in driver.packets())
    assert received == content[:7000]
    driver.send(UPDATE, (80, 1000), size=100, taken=2000)
    assert driver.packets() == [], "credit that is taken back stops everything"
    driver.send(UPDATE, (80, 1000), size=1 << 20, taken=7000)
    received += b"".join(packet[3] for packet in driver.packets())
    assert received == content


def test_the_host_s_credit_is_kept_and_given_back(ring):
    driver, stream = opened(ring, room=0)
    piece = os.urandom(CREDIT // 4)
    for _ in range(4):
        driver.send(RW, (80, 1000), piece)
    assert driver.packets() == []
    stream.room = 2 * len(piece)
    stream.connection.output_ready()
    ((operation, _, _, _, size, forwarded, _),) = driver.packets()
    assert (operation, size, forwarded) == (UPDATE, CREDIT, 2 * len(piece))
    driver.send(RW, (80, 1000), piece)
    stream.room = 1 << 30
    stream.connection.output_ready()
    assert stream.output == piece * 5
    driver.send(ASK, (80, 1000))
    assert driver.packets()[-1][5] == 5 * len(piece)


def test_more_than_the_host_s_credit_ends_the_connection(ring):
    driver, stream = opened(ring, room=0)
    for _ in range(4):
        driver.send(RW, (80, 1000), bytes(CREDIT // 4))
    driver.send(RW, (80, 1000), b"x")
    assert stream.closed
    assert driver.operations() == [(RST, (80, 1000), 0, b"")]


def test_a_stream_that_breaks_ends_its_connection(ring):
    driver, stream = opened(ring)
    stream.broken = True
    driver.send(RW, (80, 1000), b"x")
    assert stream.closed
    assert driver.operations() == [(RST, (80, 1000), 0, b"")]


def test_what_was_kept_is_delivered_before_the_end(ring):
    driver, stream = opened(ring, room=0)
    driver.send(RW, (80, 1000), b"last words")
    driver.send(SHUTDOWN, (80, 1000), flags=3)
    assert not stream.closed
    stream.room = 100
    stream.connection.output_ready()
    assert stream.output == b"last words"
    assert stream.closed


@pytest.mark.parametrize(
    "packet",
    [
        {"operation": 0},
        {"operation": 9},
        {"operation": REQUEST},
        {"operation": RESPONSE},
        {"operation": RW, "kind": 2},
        {"operation": RW, "length": 5},
        {"operation": RW, "length": (1 << 16) + 1},
    ],
)
def test_packets_without_sense_end_their_connection(packet):
    driver, stream = opened()
    driver.send(packet.pop("operation"), (80, 1000), **packet)
    assert stream.closed
    assert driver.operations() == [(RST, (80, 1000), 0, b"")]


def test_packets_for_nobody_are_refused_and_those_of_others_dropped():
    driver = Driver(Host(80))
    for operation in (RW, RESPONSE, SHUTDOWN, UPDATE, ASK, 77):
        driver.send(operation, (80, 1000))
        assert driver.operations() == [(RST, (80, 1000), 0, b"")]
    driver.send(REQUEST, (80, 1000), to=7)
    assert driver.packets()[0][-1] == 7, "the answer comes from who was addressed"
    driver.send(REQUEST, (80, 1000), source=4)
    driver.send(RST, (80, 1000))
    assert driver.packets() == []


def test_packets_without_a_header_break_the_device():
    driver = Driver(Host(80))
    driver.raw(bytes(43))
    assert driver.guest.port.status & NEEDS_RESET


def test_buffers_without_room_for_packets_break_the_device():
    driver = Driver(Host(80), room=44)
    driver.send(REQUEST, (80, 1000))
    assert driver.guest.port.status & NEEDS_RESET


def test_a_guest_that_takes_no_answers_is_not_listened_to(monkeypatch):
    monkeypatch.setattr(vsock, "MOST_REPLIES", 10)
    driver = Driver(Host(), buffers=0)
    for port in range(50):
        driver.send(RW, (80, port))
    assert len(driver.device._replies) == 10
    driver.offer(16)
    assert [packet[1][1] for packet in driver.packets()] == list(range(50))


def test_there_are_only_so_many_connections(monkeypatch):
    monkeypatch.setattr(vsock, "MOST_CONNECTIONS", 3)
    driver = Driver(Host(80))
    for port in range(4):
        driver.send(REQUEST, (80, port))
    assert [packet[0] for packet in driver.packets()] == [RESPONSE] * 3 + [RST]
    assert driver.device.connect(Stream(), 22) is None


def test_connections_take_turns():
    driver = Driver(Host(80), buffers=2)
    for port in (1, 2):
        driver.send(REQUEST, (80, port), size=1 << 16)
    driver.packets(refill=False)
    streams = [connection.stream for connection in driver.device.connections]
    for stream in streams:
        stream.input += bytes(100_000)
        stream.connection = None
    for connection in driver.device.connections:
        connection.input_ready()
    driver.offer(8)
    assert [packet[1][1] for packet in driver.packets(refill=False)] in ([1, 2] * 4, [2, 1] * 4)


def test_a_reset_ends_everything():
    driver, stream = opened()
    driver.guest.port.status = 0
    assert stream.closed
    assert not driver.device.connections


def test_a_restored_device_tells_its_driver_that_connections_are_gone():
    posted = []
    driver = Driver(Host(80), post=posted.append)
    driver.send(REQUEST, (80, 1000))
    driver.packets()
    driver.guest.queues[2].add([], [4])
    state = driver.device.save_state()
    stream = driver.device.connections[0].stream
    driver.device.load_state(state)
    assert stream.closed
    while posted:
        posted.pop(0)()
    ((buffers, count),) = driver.guest.queues[2].used()
    assert (buffers.answer(), count) == (bytes(4), 4)
    state = driver.device.save_state()
    assert state["fields"] == {"cid": CID, "reset": False}


def test_what_a_device_says_of_itself():
    driver = Driver(Host())
    assert driver.guest.port.config(0, 8) == CID
    assert driver.device.device_id == 19
    with pytest.raises(ValueError, match="from 3"):
        VirtioVsock(FakeMemory(), Host(), cid=2)


class AnyGuest(RuleBasedStateMachine):
    """Whatever a guest and the host's programs do: nothing raises, and nothing grows without bounds."""

    PORTS = st.tuples(st.sampled_from([80, 81, 1 << 30, (1 << 30) + 1]), st.integers(0, 3))

    def __init__(self):
        super().__init__()
        self.host = Host(80)
        self.posted = []
        self.driver = Driver(self.host, buffers=0, post=self.posted.append, size=2 << 20)
        self.streams = []

    @rule(
        operation=st.one_of(st.integers(0, 8), st.integers(0, 0xFFFF)),
        ports=PORTS,
        payload=st.one_of(st.binary(max_size=50), st.integers(0, 70_000).map(bytes)),
        flags=st.integers(0, 7),
        size=st.one_of(st.integers(0, 100), st.integers(0, 0xFFFFFFFF)),
        taken=st.one_of(st.integers(0, 100), st.integers(0, 0xFFFFFFFF)),
        other=st.sampled_from([{}] * 8 + [{"kind": 2}, {"to": 5}, {"source": 9}, {"length": 1 << 20}]),
    )
    def send(self, operation, ports, payload, flags, size, taken, other):
        if len(self.driver.guest.queues[1].waiting) < 100:
            self.driver.send(operation, ports, payload, flags=flags, size=size, taken=taken, **other)

    @rule(count=st.integers(1, 8), room=st.integers(45, 5000))
    def offer(self, count, room):
        self.driver.room = room
        if len(self.driver.guest.queues[0].waiting) < 100:
            self.driver.offer(count)

    @rule(port=st.integers(0, 3))
    def connect(self, port):
        stream = Stream(room=1000)
        stream.connection = self.driver.device.connect(stream, port)
        self.streams.append(stream)

    @precondition(lambda self: self.driver.device.connections)
    @rule(
        number=st.integers(0, 20), data=st.binary(max_size=5000), change=st.sampled_from(["", "end", "break"])
    )
    def act(self, number, data, change):
        connections = self.driver.device.connections
        connection = connections[number % len(connections)]
        connection.stream.input += data
        connection.stream.ended |= change == "end"
        connection.stream.broken |= change == "break"
        connection.stream.room += len(data)
        connection.output_ready()
        connection.input_ready()

    @rule()
    def go_on(self):
        while self.posted:
            self.posted.pop(0)()

    @rule()
    def reload(self):
        self.driver.device.load_state(self.driver.device.save_state())

    @invariant()
    def is_sound(self):
        device = self.driver.device
        assert device.failure == ""
        self.driver.packets(refill=False)
        for connection in device.connections:
            assert connection.phase is not Phase.OVER
            assert not connection.stream.closed
            assert len(connection.kept) <= CREDIT
            assert connection.credit >= 0
        assert len(device._replies) <= vsock.MOST_REPLIES + vsock.MOST_CONNECTIONS
        assert all(speaker in device.connections for speaker in device._speakers)


class HonestGuest(RuleBasedStateMachine):
    """A guest that keeps the rules: what is sent arrives, in order, whatever is slow."""

    def __init__(self):
        super().__init__()
        self.host = Host(80, room=0)
        self.driver = Driver(self.host, buffers=0, size=16 << 20)
        self.driver.send(REQUEST, (80, 1000), size=0)
        self.driver.offer(1)
        ((operation, *_, self.size, self.forwarded, _),) = self.driver.packets(refill=False)
        assert operation == RESPONSE
        self.stream = self.host.streams[0]
        self.sent = bytearray()
        self.given = bytearray()
        self.received = bytearray()
        self.taken = 0
        self.window = 0

    def collect(self):
        for operation, ports, _, payload, *credit, _ in self.driver.packets(refill=False):
            assert operation in (RW, UPDATE)
            assert ports == (80, 1000)
            self.size, self.forwarded = credit
            self.received += payload
        assert len(self.received) - self.taken <= self.window

    @rule(count=st.integers(1, 60_000))
    def send(self, count):
        count = min(count, self.size - (len(self.sent) - self.forwarded))
        if count > 0 and not self.driver.guest.queues[1].waiting:
            data = os.urandom(count)
            self.sent += data
            self.driver.send(RW, (80, 1000), data, size=self.window, taken=self.taken)
            self.collect()

    @rule(count=st.integers(1, 10), room=st.integers(45, 5000))
    def offer(self, count, room):
        self.driver.room = room
        if len(self.driver.guest.queues[0].waiting) < 100:
            self.driver.offer(count)
        self.collect()

    @rule(count=st.integers(0, 20_000), window=st.integers(0, 20_000))
    def take(self, count, window):
        self.taken = min(self.taken + count, len(self.received))
        self.window = max(window, len(self.received) - self.taken)
        self.driver.send(UPDATE, (80, 1000), size=self.window, taken=self.taken)
        self.collect()

    @rule(count=st.integers(1, 60_000))
    def give(self, count):
        data = os.urandom(count)
        self.given += data
        self.stream.input += data
        self.stream.connection.input_ready()
        self.collect()

    @rule(count=st.integers(1, 200_000))
    def let_the_host_take(self, count):
        self.stream.room += count
        self.stream.connection.output_ready()
        self.collect()

    @invariant()
    def agrees(self):
        assert not self.stream.closed
        assert self.sent.startswith(self.stream.output)
        assert self.given.startswith(self.received)

    def teardown(self):
        self.stream.room = 1 << 30
        self.stream.connection.output_ready()
        assert self.stream.output == self.sent
        for _ in range(2000):
            if len(self.received) == len(self.given):
                return
            self.offer(10, 4096)
            self.take(len(self.received), 20_000)
        raise AssertionError("what the host has sent does not arrive")


@pytest.mark.parametrize(("machine", "examples"), [(AnyGuest, 60), (HonestGuest, 15)])
def test_whatever_guests_do(machine, examples):
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )


def test_the_numbers_are_the_standard_s():
    assert [operation.value for operation in Operation] == list(range(1, 8))
    assert (Shutdown.RECEIVE, Shutdown.SEND, HEADER.size) == (1, 2, 44)
