"""Transports: what the registers say, steps of the status, and hypothesis as the driver of every device."""

import os
import random
import struct
import tempfile

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from tests.devices.virtio.driver import (
    BASE,
    EVENT_IDX,
    INDIRECT,
    PACKED,
    VERSION_1,
    FakeMemory,
    Guest,
    MmioPort,
    PciPort,
)

from anyvirt.devices.bus import BusError, StateError, Wire
from anyvirt.devices.disk import RawDisk
from anyvirt.devices.virtio.balloon import VirtioBalloon
from anyvirt.devices.virtio.blk import VirtioBlk
from anyvirt.devices.virtio.console import PortSettings, VirtioConsole
from anyvirt.devices.virtio.gpu import VirtioGpu
from anyvirt.devices.virtio.input import KEYBOARD, VirtioInput
from anyvirt.devices.virtio.mmio import VirtioMmio
from anyvirt.devices.virtio.net import VirtioNet
from anyvirt.devices.virtio.rng import VirtioRng

ANY = 0xFFFFFFFF_FFFFFFFF
FEATURES_OK, DRIVER_OK = 8, 4


@pytest.fixture(
    params=[MmioPort, PciPort, lambda device: PciPort(device, msix=False)], ids=["mmio", "msix", "intx"]
)
def port(request):
    return request.param


def rng(memory=None):
    return VirtioRng(memory or FakeMemory(), source=random.Random(1).randbytes)


def test_the_registers_of_mmio():
    port = MmioPort(rng())
    assert [port.get(offset) for offset in (0, 4, 8, 0xC)] == [0x74726976, 2, 4, 0x554D4551]
    assert port.get(0xB0) == port.get(0xB4) == 0xFFFFFFFF
    assert port.transport.read(0, 1) == port.transport.read(2, 4) == 0
    empty = VirtioMmio(None, interrupt=Wire())
    assert [empty.read(offset, 4) for offset in (0, 4, 8)] == [0x74726976, 2, 0]
    empty.write(0x70, 4, 1)
    assert empty.read(0x70, 4) == empty.read(0x100, 1) == 0
    empty.reset()
    empty.load_state(empty.save_state())


def test_a_function_of_virtio_pci():
    port = PciPort(VirtioBlk(FakeMemory(), FakeDisk()))
    assert port.config_read(0, 4) == 0x1042_1AF4
    assert port.config_read(8, 4) == 0x0100_0001
    assert set(port.parts) == {1, 2, 3, 4, 5}
    assert port.vectors == 2


class FakeDisk:
    size, read_only, block_size = 1 << 20, False, 512


def test_features_must_be_agreed_on(port):
    port = port(rng())
    port.status = 1
    port.status = 3
    port.accept(INDIRECT | 1 << 60)
    port.status = 11
    assert not port.status & FEATURES_OK
    port.status = 15
    assert not port.status & (FEATURES_OK | DRIVER_OK)
    port.accept(VERSION_1 | 1 << 60)
    port.status = 11
    assert not port.status & FEATURES_OK
    port.accept(VERSION_1)
    port.status = 11
    assert port.status & FEATURES_OK
    port.accept(0)
    port.status = 15
    assert port.status == 15
    assert port.transport.device.accepted == VERSION_1
    port.status = 1
    assert port.status == 15
    port.status = 128
    assert port.status == 143
    port.status = 0
    assert port.status == 0


def test_a_driver_that_looks_at_the_first_features_only_is_served(port):
    guest = Guest(rng(), port=port, features=INDIRECT, always=0)
    assert guest.device.accepted == INDIRECT
    assert len(guest.request(0, [], [16])[0]) == 16


def test_queues_are_silent_before_the_driver_is_ready(port):
    device = rng()
    guest = Guest(device, port=port)
    state = guest.queues[0]
    guest.port.status = 0
    guest.port.status = 3
    guest.port.accept(VERSION_1)
    guest.port.status = 11
    guest.set_up(0, 8)
    guest.queues[0].add([], [4])
    guest.port.notify(0)
    assert not guest.queues[0].used()
    guest.port.status = 15
    assert len(guest.queues[0].used()) == 1
    assert state is not guest.queues[0]


def test_a_function_that_is_no_bus_master_touches_no_memory():
    guest = Guest(rng(), port=PciPort)
    guest.port.config_write(4, 2, 2)
    guest.queues[0].add([], [4])
    guest.port.notify(0)
    assert not guest.queues[0].used()
    guest.port.config_write(4, 2, 6)
    assert len(guest.queues[0].used()) == 1


def test_vectors_that_are_not_there(port):
    guest = Guest(rng(), port=PciPort)
    guest.port.put(22, 2, 0)
    guest.port.put(26, 2, 7)
    assert guest.port.get(26, 2) == 0xFFFF
    guest.port.put(16, 2, 0xFFFF)
    assert guest.port.get(16, 2) == 0xFFFF
    guest.request(0, [], [4])
    assert not guest.port.messages


def test_the_window_in_the_configuration_space():
    guest = Guest(rng(), port=PciPort)
    port, at = guest.port, guest.port.window

    def aim(bar, offset, length):
        port.config_write(at + 4, 1, bar)
        port.config_write(at + 8, 4, offset)
        port.config_write(at + 12, 4, length)

    aim(4, 20, 1)
    assert port.config_read(at + 16, 1) == 15
    port.config_write(at + 16, 1, 0)
    assert port.status == 0
    for wrong in ((4, 20, 3), (4, 21, 2), (4, 0x4000, 1), (4, 2**32 - 4, 4), (0, 0, 4), (9, 0, 4)):
        aim(*wrong)
        port.config_read(at + 16, 4)
        port.config_write(at + 16, 4, 1)


def test_a_change_of_the_configuration_is_told(port):
    device = VirtioBalloon(FakeMemory(), discard=lambda *_: None)
    guest = Guest(device, port=port)
    device.inflate_to(5)
    assert guest.port.interrupts() == 2
    assert guest.port.config(0, 4) == 5
    assert guest.port.interrupts() == 0


def test_states_that_do_not_fit_change_nothing(port):
    guest = Guest(rng(), port=port, features=INDIRECT)
    transport = guest.port.transport
    state = transport.save_state()
    device = state["device"]
    queue = device["queues"][0]
    for wrong in (
        {**state, "version": 9},
        {**state, "device": {**device, "version": 9}},
        {**state, "device": {**device, "device": 77}},
        {**state, "device": {**device, "accepted": 1 << 63}},
        {**state, "device": {**device, "queues": []}},
        {**state, "device": {**device, "queues": [{**queue, "areas": [0, 0, 0]}]}},
        {**state, "device": {**device, "queues": [{**queue, "size": 7}]}},
        {**state, "device": {**device, "queues": [{**queue, "ring": {}}]}},
        {**state, "device": {**device, "queues": [{"size": 1}]}},
        {key: value for key, value in state.items() if key != "selected"},
    ):
        with pytest.raises(StateError):
            transport.load_state(wrong)
        assert transport.save_state() == state
    assert guest.request(0, [], [4])[1] == 4


# Anything goes -------------------------------------------------------------------------------------------


class Backend:
    """Of a port, and of a card: sends back what it gets."""

    def __init__(self):
        self.data = []

    def read(self, limit):
        return self.data.pop()[:limit] if self.data else b""

    def write(self, data):
        self.data = [*self.data, bytes(data[:100])][-4:]
        return min(len(data), 3)

    def guest_opened(self, is_open):
        pass

    def send(self, frame):
        self.data = [*self.data, b"".join(frame)[:2000]][-4:]

    def receive(self):
        return self.data.pop() if self.data else None


def make_disk(memory):
    with tempfile.NamedTemporaryFile() as file:
        os.truncate(file.name, 1 << 16)
        return VirtioBlk(memory, RawDisk(file.name), queue_size=16)


DEVICES = {
    "blk": make_disk,
    "rng": rng,
    "balloon": lambda memory: VirtioBalloon(memory, discard=lambda address, length: None),
    "net": lambda memory: VirtioNet(memory, Backend(), mac=bytes(6), queue_size=16),
    "console": lambda memory: VirtioConsole(
        memory, [PortSettings(Backend()), PortSettings(Backend(), "name")], queue_size=16
    ),
    "gpu": lambda memory: VirtioGpu(memory, [(64, 64)]),
    "input": lambda memory: VirtioInput(memory, KEYBOARD),
}
HEADERS = [
    struct.pack("<IIQ", kind, 0, sector) for kind in (0, 1, 4, 8, 11, 13) for sector in (0, 127, 128, 2**60)
] + [struct.pack("<IHH", port, event, 1) for port in (0, 1, 5) for event in range(8)]
HEADERS += [
    struct.pack("<IIQIB3x6I", command, 1, 5, 0, 0, *values)
    for command in (*range(0x100, 0x108), 0x10A, 0x300)
    for values in ((1, 1, 64, 64, 0, 1), (0, 0, 8, 8, 0, 1))
]


class AnyDriver(RuleBasedStateMachine):
    """A driver out of its mind: no exception, no change outside of what is reported, and a reset helps."""

    kind = "rng"
    make_port = MmioPort

    @initialize(
        features=st.integers(0, ANY), ring=st.sampled_from([0, PACKED, EVENT_IDX, PACKED | EVENT_IDX])
    )
    def begin(self, features, ring):
        self.memory = FakeMemory(1 << 17)
        self.device = DEVICES[self.kind](self.memory)
        self.guest = Guest(self.device, port=type(self).make_port, features=features & ~PACKED | ring)
        self.guest.allocator.end = BASE + (1 << 17)

    def start(self):
        self.guest.allocator.start = BASE
        self.guest.start()

    @rule(
        queue=st.integers(0, 5),
        head=st.sampled_from(HEADERS),
        data=st.binary(max_size=64),
        room=st.lists(st.integers(0, 600), max_size=3),
        kick=st.booleans(),
    )
    def ask(self, queue, head, data, room, kick):
        ring = self.guest.queues.get(queue)
        if ring is None or self.guest.allocator.start > BASE + 0x10000:
            self.start()
            return
        if len(ring.waiting) < 2 and (head or room):
            ring.add([head, data], room)
        if kick:
            self.guest.port.notify(queue)
        if not self.device.failure:
            ring.used()

    @rule(queue=st.integers(0, 5), offset=st.integers(0, 400), data=st.binary(min_size=1, max_size=16))
    def scribble(self, queue, offset, data):
        ring = self.guest.queues.get(queue)
        if ring is not None:
            self.memory.write(ring.descriptors + offset, data)
            self.guest.port.notify(queue)
            self.start()

    @rule(queue=st.integers(0, 5), seed=st.integers(0, 2**32))
    def noise(self, queue, seed):
        self.memory.write(BASE, random.Random(seed).randbytes(0x2000))
        self.guest.port.notify(queue)
        self.memory.write(BASE, bytes(0x2000))
        self.start()

    @rule(
        offset=st.integers(0, 0x120),
        size=st.sampled_from([1, 2, 4, 8]),
        value=st.integers(0, ANY) | st.integers(0, 20) | st.integers(BASE, BASE + 0x10000),
    )
    def register(self, offset, size, value):
        self.access(offset, size, value & (1 << 8 * size) - 1)

    @rule(
        area=st.sampled_from([0x80, 0x90, 0xA0]),
        address=st.integers(BASE, BASE + 0x20000),
        queue=st.integers(0, 6),
    )
    def set_up_anywhere(self, area, address, queue):
        self.guest.port.status = 0
        self.guest.port.status = 3
        self.guest.port.accept(VERSION_1)
        self.guest.port.status = 11
        self.guest.port.enable(queue, 8, BASE, address & ~3, address + 0x100 & ~3)
        self.guest.port.status = 15
        self.guest.port.notify(queue)
        self.start()

    @rule()
    def save_and_load(self):
        state = self.guest.port.transport.save_state()
        try:
            self.guest.port.transport.load_state(state)
        except StateError:
            assert self.device.failure or not self.guest.port.status
        else:
            assert self.guest.port.transport.save_state() == state

    @rule()
    def reset(self):
        self.start()
        assert self.guest.port.status == 15
        assert not self.device.failure

    def access(self, offset, size, value):
        self.guest.port.transport.write(offset, size, value)
        assert 0 <= self.guest.port.transport.read(offset, size) < 1 << 8 * size

    def teardown(self):
        if hasattr(self, "memory"):
            self.memory.check()
            self.start()
            self.memory.check()
            if self.kind == "blk":
                self.device.disk.close()


class AnyPciDriver(AnyDriver):
    make_port = PciPort

    def access(self, offset, size, value):
        part = offset >> 6
        if part == 4:
            self.guest.port.config_write(offset & 0x3F | 0x40, size, value)
            self.guest.port.config_read(offset & 0x3F | 0x40, size)
        else:
            address = self.guest.port.bars[4] + (part % 4 << 12) + (offset & 0x3F)
            try:
                self.guest.port.map.write(address, size, value)
                assert 0 <= self.guest.port.map.read(address, size) < 1 << 8 * size
            except BusError:
                pass
        self.guest.port.set_up()


@pytest.mark.parametrize("machine", [AnyDriver, AnyPciDriver], ids=["mmio", "pci"])
@pytest.mark.parametrize("kind", DEVICES)
def test_any_driver_is_survived(kind, machine):
    from hypothesis.stateful import run_state_machine_as_test

    chosen = type(f"Any{kind}", (machine,), {"kind": kind})
    run_state_machine_as_test(
        chosen, settings=settings(max_examples=25, stateful_step_count=25, deadline=None)
    )
