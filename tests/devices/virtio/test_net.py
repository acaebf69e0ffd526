"""virtio-net: frames in both directions, spread over buffers where that was agreed, and the control queue."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.devices.virtio.driver import NEEDS_RESET, PACKED, VERSION_1, FakeMemory, Guest

from anyvirt.devices.virtio.net import HEADER, VirtioNet

MRG_RXBUF, STATUS, CTRL_VQ = 1 << 15, 1 << 16, 1 << 17
MAC = bytes.fromhex("525400123456")
HEADER_SIZE = 12


class Backend:
    def __init__(self):
        self.sent, self.frames = [], []

    def send(self, frame):
        self.sent.append(b"".join(frame))
        return True

    def receive(self):
        return self.frames.pop(0) if self.frames else None


@pytest.fixture
def backend():
    return Backend()


@pytest.fixture(params=[0, PACKED], ids=["split", "packed"])
def ring(request):
    return request.param


def make(backend, features=0, always=VERSION_1, **options):
    device = VirtioNet(FakeMemory(), backend, mac=MAC, **options)
    return device, Guest(device, features=features, always=always)


def received(guest):
    """(number of buffers, frame) of what has arrived."""
    result, used = [], [(buffers.answer()[:count]) for buffers, count in guest.queues[0].used()]
    while used:
        first = used.pop(0)
        count = HEADER.unpack(first[:HEADER_SIZE])[-1]
        result.append((count, first[HEADER_SIZE:] + b"".join(used[: count - 1])))
        del used[: count - 1]
    return result


def test_frames_of_the_guest(backend, ring):
    _, guest = make(backend, ring)
    frame = os.urandom(100)
    guest.request(1, [bytes(HEADER_SIZE), frame])
    guest.request(1, [bytes(5), bytes(7) + frame[:50], frame[50:]])
    assert backend.sent == [frame, frame]
    guest.request(1, [bytes(HEADER_SIZE), b"short"])
    guest.request(1, [bytes(3)])
    guest.request(1, [bytes(HEADER_SIZE), bytes(65551)])
    assert len(backend.sent) == 2


@pytest.mark.parametrize(("features", "size"), [(0, 10), (MRG_RXBUF, 12)])
def test_headers_without_a_number_of_buffers(backend, features, size):
    device, guest = make(backend, features, always=0)
    frame = os.urandom(100)
    guest.request(1, [bytes(size), frame])
    assert backend.sent == [frame]
    guest.queues[0].add([], [size, 200])
    backend.frames.append(frame)
    device.input_ready()
    ((buffers, written),) = guest.queues[0].used()
    assert buffers.answer()[:written] == bytes(10) + b"\1\0"[: size - 10] + frame


def test_frames_wait_for_room(backend, ring):
    device, guest = make(backend, ring)
    frames = [os.urandom(size) for size in (60, 1514)]
    backend.frames = list(frames)
    device.input_ready()
    assert len(backend.frames) == 1
    guest.queues[0].add([], [1526])
    guest.port.notify(0)
    assert received(guest) == [(1, frames[0])]
    state = device.save_state()
    device.load_state(state)
    guest.queues[0].add([], [HEADER_SIZE], indirect=False)
    guest.queues[0].add([], [12, 1514])
    guest.port.notify(0)
    backend.frames = [frames[0]]
    device.input_ready()
    assert not received(guest), "without merged buffers a frame takes one chain, and the first has no room"


@given(
    st.lists(st.integers(14, 3000), min_size=1, max_size=5),
    st.integers(12, 2000),
    st.sampled_from([0, PACKED]),
)
@settings(max_examples=60, deadline=None)
def test_frames_are_spread_over_buffers(sizes, room, ring):
    backend = Backend()
    _, guest = make(backend, MRG_RXBUF | ring)
    frames = [os.urandom(size) for size in sizes]
    backend.frames = list(frames)
    result = []
    for _ in range(20000):
        for _ in range(256 - len(guest.queues[0].waiting)):
            before = guest.allocator.start
            if before > 0x8000_0000 + 0x80000:
                guest.allocator.start = 0x8000_0000 + 0x10000
            guest.queues[0].add([], [room])
        guest.port.notify(0)
        result += received(guest)
        if len(result) == len(frames):
            break
    assert [frame for _, frame in result] == frames
    assert [count for count, _ in result] == [-(-(12 + size) // room) for size in sizes]


def test_too_few_buffers_are_left_alone(backend, ring):
    _, guest = make(backend, MRG_RXBUF | ring)
    frame = os.urandom(100)
    backend.frames = [frame]
    guest.queues[0].add([], [64])
    guest.port.notify(0)
    assert received(guest) == []
    guest.queues[0].add([], [64])
    guest.port.notify(0)
    assert received(guest) == [(2, frame)]


def test_frames_without_end_do_not_hold_the_machine(backend, ring):
    posted = []
    device = VirtioNet(FakeMemory(), backend, mac=MAC, queue_size=2, post=posted.append)
    guest = Guest(device, features=ring)
    backend.receive = lambda: bytes(60)
    publish, publications = device.publish, []
    push = type(device._rings[0]).push

    def refill(queue, chain, written):
        push(queue, chain, written)
        publish(0, queue)
        publications.append(queue)
        guest.queues[0].used()
        before = guest.allocator.start
        guest.queues[0].add([], [100])
        guest.allocator.start = before

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(device._rings[0]), "push", refill)
        guest.queues[0].add([], [100])
        guest.port.notify(0)
        assert len(posted) == 1
        assert device.save_state()["owed"] == [0]
        posted.pop()()
        assert len(publications) == 2 * 16 * 2


def test_buffers_without_room_for_a_header_break_the_device(backend):
    _, guest = make(backend, MRG_RXBUF)
    backend.frames = [bytes(60)]
    guest.queues[0].add([], [11])
    guest.port.notify(0)
    assert guest.port.status & NEEDS_RESET


def test_the_link(backend):
    device, guest = make(backend, STATUS)
    assert guest.port.config(6, 2) == 1
    guest.queues[0].add([], [100])
    guest.port.notify(0)
    device.set_link(False)
    assert guest.port.interrupts() == 2
    assert guest.port.config(6, 2) == 0
    backend.frames = [bytes(60)]
    device.input_ready()
    guest.request(1, [bytes(72)])
    assert not backend.sent
    assert not received(guest)
    device.set_link(True)
    assert received(guest) == [(1, bytes(60))]


def test_what_a_card_says_of_itself(backend):
    _, guest = make(backend, mtu=9000)
    assert guest.port.config(0, 4) == int.from_bytes(MAC[:4], "little")
    assert guest.port.config(10, 2) == 9000
    with pytest.raises(ValueError, match="group"):
        VirtioNet(FakeMemory(), backend, mac=b"\xff" * 6)


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (b"\0\0\1", 0),
        (b"\0\1\0", 0),
        (b"\0\2\0", 1),
        (b"\1\1\2\0\0\0\0\1", 0),
        (b"\1\1\2", 1),
        (b"\1\0" + bytes(8), 0),
        (b"\7\0", 1),
        (b"\0", 1),
        (b"", 1),
    ],
)
def test_commands(backend, command, answer):
    device, guest = make(backend, CTRL_VQ)
    assert guest.request(2, [command], [1]) == (bytes([answer]), 1)
    if command[:2] == b"\1\1" and not answer:
        assert device.mac == bytes.fromhex("020000000001")
        guest.port.status = 0
        assert device.mac == MAC


def test_a_command_without_room_for_its_answer_breaks_the_device(backend):
    _, guest = make(backend, CTRL_VQ)
    guest.queues[2].add([b"\0\0\1"])
    guest.port.notify(2)
    assert guest.port.status & NEEDS_RESET
