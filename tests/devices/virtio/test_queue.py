"""Both formats of virtqueues against a driver made from the standard: order, wrapping, events, mischief."""

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.devices.virtio.driver import (
    BASE,
    EVENT_IDX,
    INDIRECT,
    INDIRECT_FLAG,
    NEEDS_RESET,
    NEXT,
    PACKED,
    RING_RESET,
    RINGS,
    WRITE,
    FakeMemory,
    Guest,
    MmioPort,
    PciPort,
)

from anyvirt.cpu.machine_memory import MachineMemory
from anyvirt.devices.virtio.device import DeviceId, VirtioDevice
from anyvirt.devices.virtio.views import copy_in, copy_out, total


class Echo(VirtioDevice):
    """Answers with what it is told, backwards."""

    device_id = DeviceId.ENTROPY

    def __init__(self, memory, size=8, queues=1, **options):
        super().__init__(memory, queue_sizes=[size] * queues, **options)
        self.requests = []
        self.is_busy = False

    def handle(self, index, chain):
        if self.is_busy:
            return None
        request = copy_out(chain.readable, total(chain.readable))
        self.requests.append(request)
        return copy_in(chain.writable, request[::-1])


def make_memory(kind):
    if kind == "fake":
        return FakeMemory()
    memory = MachineMemory()
    memory.add_ram(BASE, 1 << 20)
    return memory


def ring_name(features):
    names = {PACKED: "packed", EVENT_IDX: "event", INDIRECT: "indirect"}
    return "-".join(name for bit, name in names.items() if features & bit) or "plain"


@pytest.fixture(params=[sum(bits) for bits in RINGS], ids=ring_name)
def features(request):
    return request.param


@pytest.fixture(
    params=[MmioPort, PciPort, lambda device: PciPort(device, msix=False)], ids=["mmio", "msix", "intx"]
)
def port(request):
    return request.param


@pytest.mark.parametrize("kind", ["fake", "machine"])
def test_requests_are_answered_in_place_and_in_order(kind, features, port):
    guest = Guest(Echo(make_memory(kind)), features=features, port=port)
    assert guest.features & (PACKED | EVENT_IDX | INDIRECT) == features
    for number in range(50):
        words = [b"%d" % number, b"", b"word"]
        indirect = bool(features & INDIRECT and number % 2)
        answer, written = guest.request(0, words, [3, 20], indirect=indirect)
        assert written == len(b"".join(words))
        assert answer[:written] == b"".join(words)[::-1]
        assert not any(answer[written:])
        assert guest.port.interrupts() == 1 or features & EVENT_IDX
    if kind == "fake":
        guest.memory.check()


def test_a_full_ring_is_served_at_once_with_one_interrupt(features):
    guest = Guest(Echo(FakeMemory()), features=features)
    queue = guest.queues[0]
    for turn in range(5):
        queue.want_interrupt()
        for number in range(4):
            queue.add([b"%d%d" % (turn, number)], [8])
        guest.port.notify(0)
        assert [buffers.answer()[:2] for buffers, _ in queue.used()] == [
            b"%d%d" % (number, turn) for number in range(4)
        ]
        assert guest.port.interrupts() == 1
    guest.memory.check()


def test_interrupts_can_be_suppressed(features):
    guest = Guest(Echo(FakeMemory()), features=features)
    guest.queues[0].want_interrupt(False)
    for _ in range(3):
        guest.request(0, [b"x"], [1])
        assert guest.port.interrupts() == 0


@pytest.mark.parametrize("packed", [0, PACKED])
def test_with_event_indices_an_interrupt_can_be_wanted_later(packed):
    guest = Guest(Echo(FakeMemory()), features=packed | EVENT_IDX)
    queue = guest.queues[0]
    for _ in range(20):
        parts = 2 if packed else 1
        queue.want_interrupt(after=2 * parts)
        happened = []
        for _ in range(3):
            guest.request(0, [b"x"], [1])
            happened.append(guest.port.interrupts())
        assert happened == [0, 0, 1]


def test_the_driver_need_not_notify_while_nothing_is_expected(features):
    """After each answer the device expects a notification for the very next chain."""
    guest = Guest(Echo(FakeMemory()), features=features)
    queue = guest.queues[0]
    for _ in range(20):
        queue.add([b"x"], [1])
        assert queue.wants_kick()
        guest.port.notify(0)
        queue.used()


def test_a_device_that_is_not_ready_leaves_chains_where_they_are(features):
    device = Echo(FakeMemory())
    guest = Guest(device, features=features)
    for number in range(20):
        device.is_busy = True
        guest.queues[0].add([b"%d" % number], [4])
        guest.port.notify(0)
        assert not guest.queues[0].used()
        device.is_busy = False
        device.poll(0)
        assert len(guest.queues[0].used()) == 1
    assert device.requests == [b"%d" % number for number in range(20)]


def test_indices_wrap_around(features):
    guest = Guest(Echo(FakeMemory(1 << 24), size=2), features=features)
    guest.allocator.end = BASE + (1 << 24)
    for number in range(1000 if features & (PACKED | INDIRECT) else 0x10000 + 10):
        before = guest.allocator.start
        answer, _ = guest.request(0, [struct.pack("<H", number & 0xFFFF)], [2] if not number % 3 else [1])
        assert answer[0] == number >> 8 & 0xFF
        guest.allocator.start = before


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_cut_of_messages_is_the_same_message(data):
    features = data.draw(st.sampled_from([sum(bits) for bits in RINGS]))
    size = data.draw(st.sampled_from([1, 2, 4, 8, 16]))
    guest = Guest(Echo(FakeMemory(), size=16), features=features, sizes={0: size})
    for _ in range(data.draw(st.integers(1, 8))):
        message = data.draw(st.binary(max_size=40))
        room = data.draw(st.integers(0, 50))
        indirect = bool(features & INDIRECT) and data.draw(st.booleans())
        limit = 20 if indirect else size
        reads = cut(data, len(message), max(limit - 1, 1))
        writes = cut(data, room, limit - len(reads))
        pieces = [message[start:end] for start, end in reads]
        sizes = [end - start for start, end in writes]
        answer, written = guest.request(0, pieces, sizes, indirect=indirect)
        room = sum(sizes)
        assert written == min(len(message), room)
        assert answer == message[::-1][:room].ljust(room, b"\0")
    guest.memory.check()


def cut(data, length, most):
    """Up to `most` pieces that make up a length."""
    if most <= 0:
        return []
    count = data.draw(st.integers(1, most))
    ends = sorted(data.draw(st.lists(st.integers(0, length), min_size=count - 1, max_size=count - 1)))
    return list(zip([0, *ends], [*ends, length], strict=True))


# Mischief ------------------------------------------------------------------------------------------------


def broken(guest):
    """The device says it needs a reset, with an interrupt; a reset brings it back."""
    assert guest.port.status & NEEDS_RESET
    assert guest.port.interrupts() & 2
    assert guest.device.failure
    handled = len(guest.device.requests)
    guest.port.notify(0)
    assert len(guest.device.requests) == handled
    guest.start()
    assert guest.request(0, [b"ab"], [2]) == (b"ba", 2)
    return True


def descriptor(guest, index, address, length, flags, following=0):
    guest.memory.write(
        guest.queues[0].descriptors + 16 * index, struct.pack("<QIHH", address, length, flags, following)
    )


@pytest.mark.parametrize(
    ("address", "length"),
    [(0, 1), (BASE - 1, 2), (BASE + (1 << 20) - 1, 2), (2**64 - 1, 2), (BASE, 2**32 - 1), (2**64 - 8, 8)],
)
@pytest.mark.parametrize("kind", ["fake", "machine"])
@pytest.mark.parametrize("flags", [0, WRITE, INDIRECT_FLAG])
def test_split_buffers_outside_of_memory(address, length, kind, flags):
    guest = Guest(Echo(make_memory(kind)), features=INDIRECT)
    descriptor(guest, 0, address, length & ~15 or 16 if flags == INDIRECT_FLAG else length, flags)
    guest.queues[0].offer(0)
    guest.port.notify(0)
    assert broken(guest)


def test_split_loops_end():
    guest = Guest(Echo(FakeMemory()))
    descriptor(guest, 0, BASE, 1, NEXT, 1)
    descriptor(guest, 1, BASE, 1, NEXT, 0)
    guest.queues[0].offer(0)
    guest.port.notify(0)
    assert broken(guest)


@pytest.mark.parametrize(
    "entries",
    [
        [(BASE, 1, NEXT, 8)],
        [(BASE, 1, WRITE | NEXT, 1), (BASE, 1, 0, 0)],
        [(BASE, 16, INDIRECT_FLAG, 0)],
        [(BASE + 0x8000, 15, INDIRECT_FLAG, 0)],
        [(BASE + 0x8000, 0, INDIRECT_FLAG, 0)],
        [(BASE + 0x8000, 16, INDIRECT_FLAG | NEXT, 1), (BASE, 1, 0, 0)],
    ],
    ids=["next", "order", "nested", "length", "empty", "flags"],
)
def test_split_chains_that_break_the_rules(entries):
    guest = Guest(Echo(FakeMemory()), features=INDIRECT)
    assert guest.queues[0].descriptors == BASE
    for index, entry in enumerate(entries):
        descriptor(guest, index, *entry)
    guest.queues[0].offer(0)
    guest.port.notify(0)
    assert broken(guest)


@pytest.mark.parametrize("head", [8, 0xFFFF])
def test_split_heads_that_are_not_in_the_table(head):
    guest = Guest(Echo(FakeMemory()))
    guest.queues[0].offer(head)
    guest.port.notify(0)
    assert broken(guest)


def test_more_available_than_there_can_be():
    guest = Guest(Echo(FakeMemory()))
    guest.memory.write(guest.queues[0].driver + 2, struct.pack("<H", 9))
    guest.port.notify(0)
    assert broken(guest)


def test_indirect_tables_need_the_feature():
    guest = Guest(Echo(FakeMemory()))
    guest.queues[0].add([b"x"], indirect=True)
    guest.port.notify(0)
    assert broken(guest)


def test_an_indirect_table_as_long_as_readv_takes_and_no_longer():
    guest = Guest(Echo(FakeMemory()), features=INDIRECT)
    answer, _ = guest.request(0, [b"x"] * 1023, [1], indirect=True)
    assert answer == b"x"
    assert guest.device.requests == [b"x" * 1023]
    guest.queues[0].add([b"x"] * 1025, indirect=True)
    guest.port.notify(0)
    assert broken(guest)


@pytest.mark.parametrize("flags", [INDIRECT_FLAG, INDIRECT_FLAG | NEXT, NEXT])
def test_packed_chains_that_break_the_rules(flags):
    guest = Guest(Echo(FakeMemory()), features=PACKED | INDIRECT)
    for index in range(8):
        guest.memory.write(
            guest.queues[0].descriptors + 16 * index,
            struct.pack("<QIHH", BASE + 0x9000, 15, 0, flags | 1 << 7),
        )
    guest.port.notify(0)
    assert broken(guest)


@pytest.mark.parametrize("area", [0, 1, 2])
@pytest.mark.parametrize("address", [1, 0, BASE + 1, 2**64 - 16, BASE + (1 << 20) - 2])
@pytest.mark.parametrize("packed", [0, PACKED])
def test_rings_outside_of_memory(area, address, packed, port):
    guest = Guest(Echo(FakeMemory()), queues=[], features=packed, port=port)
    areas = [guest.allocator.take(256) for _ in range(3)]
    areas[area] = address
    guest.port.interrupts()
    guest.port.enable(0, 8, *areas)
    assert broken(guest)


@pytest.mark.parametrize("size", [0, 3, 16, 0x8000, 0xFFFF])
def test_rings_of_impossible_sizes(size):
    guest = Guest(Echo(FakeMemory()), queues=[])
    guest.port.enable(0, size, *(guest.allocator.take(1024) for _ in range(3)))
    assert broken(guest)


@pytest.mark.parametrize("packed", [0, PACKED])
@given(seed=st.integers(0, 2**32), kicks=st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_any_content_of_rings_is_survived(packed, seed, kicks):
    noise = random.Random(seed).randbytes(4096)
    guest = Guest(Echo(FakeMemory(1 << 16)), features=packed | INDIRECT | EVENT_IDX)
    for _ in range(kicks):
        guest.memory.write(BASE, noise)
        guest.port.notify(0)
        noise = noise[1:] + noise[:1]
    guest.memory.write(BASE, bytes(4096))
    guest.start()
    assert guest.request(0, [b"ab"], [2]) == (b"ba", 2)
    guest.memory.check()


@pytest.mark.parametrize("packed", [0, PACKED])
@given(st.data())
@settings(max_examples=150, deadline=None)
def test_nearly_sound_rings_are_survived(packed, data):
    """Descriptors whose every field is plausible reach farther than noise does."""
    guest = Guest(Echo(FakeMemory(1 << 16)), features=packed | INDIRECT | EVENT_IDX)
    addresses = st.sampled_from([BASE, BASE + 16, BASE + 0x8000, BASE + 0xFFF0, BASE + 0xFFFF, 0, 2**64 - 16])
    lengths = st.sampled_from([0, 1, 15, 16, 32, 0x1000, 0x10000, 2**32 - 1])
    flags = st.integers(0, 7)
    for _ in range(data.draw(st.integers(1, 3))):
        for index in range(8):
            fields = data.draw(addresses), data.draw(lengths), data.draw(flags), data.draw(st.integers(0, 9))
            address, length, flag, following = fields
            if packed:
                flag, following = following, flag | data.draw(st.sampled_from([0x80, 0x8000, 0, 0x8080]))
            entry = struct.pack("<QIHH", address, length, flag, following)
            guest.memory.write(guest.queues[0].descriptors + 16 * index, entry)
        if not packed:
            guest.queues[0].offer(data.draw(st.integers(0, 8)))
        guest.port.notify(0)
    guest.start()
    assert guest.request(0, [b"ab"], [2]) == (b"ba", 2)
    guest.memory.check()


# Life ----------------------------------------------------------------------------------------------------


def test_a_queue_goes_on_in_another_device_after_its_state_was_loaded(features, port):
    memory = FakeMemory()
    first = Guest(Echo(memory), features=features, port=port)
    for number in range(11):
        first.request(0, [b"%d" % number], [4])
    first.device.is_busy = True
    first.queues[0].add([b"late"], [4])
    first.port.notify(0)
    second = Guest.__new__(Guest)
    second.__dict__.update(first.__dict__)
    second.device = Echo(memory)
    second.port = port(second.device)
    if isinstance(second.port, PciPort):
        second.port.host.load_state(first.port.host.save_state())
    second.port.transport.load_state(first.port.transport.save_state())
    second.device.poll(0)
    ((buffers, _),) = second.queues[0].used()
    assert buffers.answer() == b"etal"
    for number in range(11):
        assert second.request(0, [b"%d" % number], [2], indirect=bool(features & INDIRECT))[1]
        assert second.port.interrupts() or features & EVENT_IDX


def test_one_queue_can_be_reset_and_set_up_again(features, port):
    guest = Guest(Echo(FakeMemory(), queues=2), features=features | RING_RESET, port=port)
    guest.request(1, [b"x"], [1])
    guest.request(0, [b"x"], [1])
    assert guest.port.reset_queue(0) == (0, 0)
    guest.port.notify(0)
    guest.set_up(0, 4)
    assert guest.request(0, [b"ab"], [2]) == (b"ba", 2)
    assert guest.request(1, [b"ab"], [2]) == (b"ba", 2)


@pytest.mark.parametrize("packed", [0, PACKED])
def test_a_driver_that_fills_a_queue_for_ever_does_not_hold_the_machine(packed):
    posted = []
    device = Echo(FakeMemory(), post=posted.append)
    guest = Guest(device, features=packed)
    publish = device.publish

    def refill(index, queue):
        publish(index, queue)
        before = guest.allocator.start
        guest.queues[0].used()
        guest.queues[0].add([b"more"])
        guest.allocator.start = before

    device.publish = refill
    guest.queues[0].add([b"x"])
    guest.port.notify(0)
    assert len(posted) == 1
    count = len(device.requests)
    posted.pop()()
    assert len(device.requests) > count
    assert len(posted) == 1
