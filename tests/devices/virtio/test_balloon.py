"""virtio-balloon: pages given up and taken back, free pages reported, statistics on demand."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.devices.virtio.driver import PACKED, FakeMemory, Guest

from anyvirt.devices.virtio.balloon import Statistic, VirtioBalloon

STATS, REPORTING = 1 << 1, 1 << 5


@pytest.fixture(params=[0, PACKED], ids=["split", "packed"])
def ring(request):
    return request.param


def make(features=STATS | REPORTING):
    discarded = []
    device = VirtioBalloon(FakeMemory(), discard=lambda address, length: discarded.append((address, length)))
    return device, Guest(device, features=features), discarded


def pages(*numbers):
    return struct.pack(f"<{len(numbers)}I", *numbers)


def test_neighbouring_pages_are_discarded_together():
    _, guest, discarded = make()
    guest.request(0, [pages(7, 5, 6), pages(9, 2**32 - 1)])
    assert discarded == [(5 << 12, 3 << 12), (9 << 12, 1 << 12), ((2**32 - 1) << 12, 1 << 12)]
    guest.request(1, [pages(5, 6)])
    assert len(discarded) == 3


@given(st.lists(st.integers(0, 40), max_size=40))
@settings(deadline=None)
def test_every_page_is_discarded_and_no_other(numbers):
    _, guest, discarded = make()
    guest.request(0, [pages(*numbers) + b"odd"])
    found = [page for address, length in discarded for page in range(address >> 12, address + length >> 12)]
    assert found == sorted(set(numbers))


def test_the_target_and_how_far_the_guest_is():
    device, guest, _ = make()
    device.inflate_to(1000)
    assert guest.port.interrupts() == 2
    assert guest.port.config(0, 4) == 1000
    guest.port.set_config(4, 4, 600)
    assert device.actual == guest.port.config(4, 4) == 600
    guest.port.set_config(0, 4, 5)
    assert device.target == 1000


@pytest.mark.parametrize(("features", "queue"), [(STATS | REPORTING, 3), (REPORTING, 2)])
def test_free_pages_are_reported(features, queue):
    _, guest, discarded = make(features)
    guest.request(queue, [], [4096, 8192])
    assert sum(length for _, length in discarded) == 3 * 4096


def test_statistics_come_when_they_are_wanted(ring):
    device, guest, _ = make(STATS | ring)
    answers = []
    queue = guest.queues[2]

    def statistic(value):
        queue.add([struct.pack("<HQHQ", 4, value, 0xFFFF, 1)])
        guest.port.notify(2)

    statistic(111)
    assert not queue.used()
    assert device.statistics == {Statistic.FREE_MEMORY: 111}
    for value in (222, 333):
        device.ask_for_statistics(lambda: answers.append(dict(device.statistics)))
        assert len(queue.used()) == 1
        statistic(value)
        assert answers.pop() == {Statistic.FREE_MEMORY: value}
        assert not queue.used()


def test_a_reset_gives_the_memory_back():
    device, guest, _ = make()
    guest.port.set_config(4, 4, 600)
    guest.port.status = 0
    assert device.actual == 0
