"""virtio-rng: buffers are filled, repeatably if the source is."""

import random

from tests.devices.virtio.driver import NEEDS_RESET, FakeMemory, Guest

from anyvirt.devices.virtio.rng import MOST_BYTES, VirtioRng


def test_buffers_are_filled_from_the_source():
    answers = []
    for _ in range(2):
        guest = Guest(VirtioRng(FakeMemory(), source=random.Random(7).randbytes))
        answers.append(guest.request(0, [], [10, 54]))
    assert answers[0] == answers[1] == (random.Random(7).randbytes(64), 64)


def test_the_host_s_entropy_is_the_usual_source():
    guest = Guest(VirtioRng(FakeMemory()))
    assert len({guest.request(0, [], [16])[0] for _ in range(4)}) == 4


def test_one_request_gets_so_much_at_most():
    guest = Guest(VirtioRng(FakeMemory()))
    assert guest.request(0, [], [MOST_BYTES + 1])[1] == MOST_BYTES


def test_buffers_that_cannot_be_written_to():
    guest = Guest(VirtioRng(FakeMemory()))
    guest.queues[0].add([b"x"], [1])
    guest.port.notify(0)
    assert guest.port.status & NEEDS_RESET
