"""virtio-input against a driver made from the standard: what devices say of themselves, events, lights."""

import struct

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from tests.devices.hostile import is_plain
from tests.devices.virtio.driver import NEEDS_RESET, PACKED, FakeMemory, Guest

from anyvirt.devices.bus import StateError
from anyvirt.devices.virtio import input as virtio_input
from anyvirt.devices.virtio.input import KEYBOARD, TABLET, VirtioInput

EV_SYN, EV_KEY, EV_REL, EV_ABS, EV_LED = 0, 1, 2, 3, 17
NAME, SERIAL, IDENTIFIERS, PROPERTIES, BITS, AXIS = 1, 2, 3, 16, 17, 18


class Driver:
    """Section 5.8.5."""

    def __init__(self, kind=KEYBOARD, *, ring=0, buffers=8):
        self.device = VirtioInput(FakeMemory(), kind)
        self.guest = Guest(self.device, features=ring)
        self.offer(buffers)

    def offer(self, count):
        for _ in range(count):
            self.guest.queues[0].add([], [8])
        self.guest.port.notify(0)

    def events(self):
        found = []
        for buffers, written in self.guest.queues[0].used():
            assert written == 8
            found.append(struct.unpack("<HHi", buffers.answer()))
        self.offer(len(found))
        return found

    def query(self, select, subselect=0):
        self.guest.port.set_config(0, 1, select)
        self.guest.port.set_config(1, 1, subselect)
        size = self.guest.port.config(2, 1)
        return bytes(self.guest.port.config(8 + at, 1) for at in range(size))


def codes(bitmap):
    return [number for number in range(8 * len(bitmap)) if bitmap[number // 8] >> number % 8 & 1]


def test_a_keyboard_says_what_it_is():
    driver = Driver()
    assert driver.device.device_id == 18
    assert driver.query(NAME) == b"anyvirt keyboard"
    assert struct.unpack("<4H", driver.query(IDENTIFIERS))[:3] == (6, 0x1AF4, 1)
    assert codes(driver.query(BITS, EV_KEY))[:14] == list(range(1, 15))
    assert codes(driver.query(BITS, EV_LED)) == [0, 1, 2]
    assert not codes(driver.query(BITS, EV_ABS))
    for nothing in ((0, 0), (NAME, 1), (SERIAL, 0), (PROPERTIES, 0), (BITS, 99), (AXIS, 0), (77, 0)):
        assert driver.query(*nothing) == b""


def test_a_tablet_says_what_it_is():
    driver = Driver(TABLET)
    assert codes(driver.query(BITS, EV_KEY)) == [0x110, 0x111, 0x112, 0x113, 0x114]
    assert codes(driver.query(BITS, EV_ABS)) == [0, 1]
    assert codes(driver.query(BITS, EV_REL)) == [6, 8]
    for axis in (0, 1):
        assert struct.unpack("<5i", driver.query(AXIS, axis)) == (0, 0x7FFF, 0, 0, 0)
    assert driver.query(AXIS, 2) == b""


def test_both_questions_in_one_store_and_no_other_field():
    driver = Driver()
    driver.guest.port.set_config(0, 4, BITS | EV_LED << 8 | 0xFFFF0000)
    assert driver.guest.port.config(0, 4) == BITS | EV_LED << 8 | 1 << 16
    driver.guest.port.set_config(2, 2, 0xFFFF)
    assert driver.guest.port.config(0, 4) == BITS | EV_LED << 8 | 1 << 16


@pytest.mark.parametrize("ring", [0, PACKED])
def test_events_come_together_and_in_order(ring):
    driver = Driver(ring=ring, buffers=3)
    assert driver.device.send([(EV_KEY, 42, 1), (EV_KEY, 30, 1)])
    assert driver.device.send([(EV_KEY, 30, 0)])
    assert driver.events() == [(EV_KEY, 42, 1), (EV_KEY, 30, 1), (EV_SYN, 0, 0)]
    assert driver.events() == [(EV_KEY, 30, 0), (EV_SYN, 0, 0)]
    assert driver.device.send([(EV_REL, 8, -1)])
    assert driver.events() == [(EV_REL, 8, -1), (EV_SYN, 0, 0)]


def test_without_a_driver_what_is_typed_is_lost():
    device = VirtioInput(FakeMemory(), KEYBOARD)
    assert not device.send([(EV_KEY, 30, 1)])
    driver = Driver()
    driver.guest.port.status = 0
    assert not driver.device.send([(EV_KEY, 30, 1)])


def test_what_a_driver_leaves_is_limited(monkeypatch):
    monkeypatch.setattr(virtio_input, "MOST_EVENTS", 10)
    driver = Driver(buffers=0)
    assert [driver.device.send([(EV_KEY, 30, n % 2)]) for n in range(7)] == [True] * 5 + [False] * 2
    driver.offer(20)
    assert len(driver.events()) == 10
    assert driver.device.send([(EV_KEY, 30, 1)])


def test_lights():
    driver = Driver()
    for code, value in ((1, 1), (0, 1), (1, 0)):
        driver.guest.request(1, [struct.pack("<HHi", EV_LED, code, value)])
    for unknown in (struct.pack("<HHi", EV_LED, 9, 1), struct.pack("<HHi", EV_KEY, 30, 1), b"short"):
        driver.guest.request(1, [unknown])
    assert driver.device.told == {(EV_LED, 1): 0, (EV_LED, 0): 1}
    driver.guest.port.status = 0
    assert driver.device.told == {}


def test_a_buffer_has_room_for_an_event():
    driver = Driver(buffers=0)
    driver.guest.queues[0].add([], [7])
    driver.guest.port.notify(0)
    driver.device.send([(EV_KEY, 30, 1)])
    assert driver.guest.port.status & NEEDS_RESET


def test_what_waits_goes_on_elsewhere():
    driver = Driver(buffers=1)
    driver.device.send([(EV_KEY, 30, 1), (EV_REL, 8, -1)])
    driver.guest.request(1, [struct.pack("<HHi", EV_LED, 1, 1)])
    driver.query(BITS, EV_KEY)
    state = driver.device.save_state()
    assert is_plain(state)
    driver.device.load_state(state)
    assert driver.device.save_state() == state
    twin = VirtioInput(driver.device.memory, KEYBOARD)
    twin.load_state(state)
    assert twin.save_state() == state
    for wrong in (
        {"product": 2},
        {"waiting": b"1234567"},
        {"waiting": bytes(8 * 65537)},
        {"told": [[EV_LED, 9, 1]]},
        {"told": [[99, 0, 1]]},
        {"select": [1]},
    ):
        with pytest.raises(StateError):
            twin.load_state({**state, "fields": {**state["fields"], **wrong}})
    assert twin.save_state() == state
    with pytest.raises(StateError):
        VirtioInput(driver.device.memory, TABLET).load_state(state)


class AnyGuest(RuleBasedStateMachine):
    """Whatever a guest does: nothing raises, events stay whole and in order."""

    def __init__(self):
        super().__init__()
        self.driver = Driver(buffers=0)
        self.sent, self.seen = [], []

    @rule(count=st.integers(1, 5))
    def offer(self, count):
        if len(self.driver.guest.queues[0].waiting) < 30:
            self.driver.offer(count)

    @rule(keys=st.lists(st.integers(0, 0xFFFF), max_size=4), value=st.integers(-(2**31), 2**31 - 1))
    def send(self, keys, value):
        events = [(EV_KEY, key, value) for key in keys]
        if self.driver.device.send(events):
            self.sent += [*events, (EV_SYN, 0, 0)]

    @rule(content=st.binary(max_size=12), kind=st.sampled_from([b"", b"\x11\0", b"\x11\0\1\0"]))
    def tell(self, content, kind):
        if kind + content:
            self.driver.guest.request(1, [kind + content])

    @rule(offset=st.integers(0, 200), size=st.sampled_from([1, 2, 4]), value=st.integers(0, 2**32 - 1))
    def configure(self, offset, size, value):
        self.driver.guest.port.set_config(offset, size, value)
        assert 0 <= self.driver.guest.port.config(offset, size) < 1 << 8 * size

    @rule()
    def reload(self):
        state = self.driver.device.save_state()
        self.driver.device.load_state(state)
        assert self.driver.device.save_state() == state

    @invariant()
    def is_sound(self):
        device = self.driver.device
        assert device.failure == ""
        assert len(device.told) <= 3
        for buffers, written in self.driver.guest.queues[0].used():
            assert written == 8
            self.seen.append(struct.unpack("<HHi", buffers.answer()))
        assert self.seen == self.sent[: len(self.seen)]


def test_whatever_guests_do():
    run_state_machine_as_test(
        AnyGuest,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
