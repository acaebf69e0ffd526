"""PCI: sizing and placing BARs, capabilities, INTx and MSI-X, and whatever else a guest stores."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from anyvirt.cpu.machine_memory import MachineMemory
from anyvirt.devices.bus import StateError, Wire
from anyvirt.devices.pci.bus import PciBus, Window
from anyvirt.devices.pci.ecam import EcamHost
from anyvirt.devices.pci.function import Bar, PciFunction, Space
from anyvirt.devices.pci.msix import MsiX

WINDOWS = [
    Window(0x4000_0000, 0x4000_0000),
    Window(0x4_0000_0000, 0x4_0000_0000),
    Window(0x300_0000, 0x1_0000, Space.IO, 0),
]
COMMAND, STATUS, BAR = 4, 6, 0x10


class FakeMap:
    def __init__(self):
        self.regions = {}
        self.refuses = None

    def place(self, address, size, device):
        if self.refuses is not None and address <= self.refuses < address + size:
            raise FileExistsError("something is there already")
        assert all(end <= address or address + size <= start for (start, end) in self.regions)
        self.regions[address, address + size] = device

    def remove(self, address, size):
        del self.regions[address, address + size]

    @property
    def starts(self):
        return sorted(start for start, _ in self.regions)


class Registers:
    def read(self, offset, size):
        return 0x5A

    def write(self, offset, size, value):
        pass


def function(device=1, **options):
    return PciFunction(vendor=0x1234, device=device, class_code=0x020000, revision=3, **options)


@pytest.fixture
def wires():
    return [Wire() for _ in range(4)]


@pytest.fixture
def messages():
    return []


@pytest.fixture
def machine_map():
    return FakeMap()


@pytest.fixture
def host(machine_map, wires, messages):
    return EcamHost(
        memory_map=machine_map,
        windows=WINDOWS,
        interrupts=wires,
        send_message=lambda *message: messages.append(message),
    )


def put(host, slot, offset, size, value):
    host.write(slot << 15 | offset, size, value)


def get(host, slot, offset, size):
    return host.read(slot << 15 | offset, size)


def test_what_is_there_and_what_is_not(host):
    host.bus.add(function(0x5678, subsystem_vendor=1, subsystem=2), 5)
    assert get(host, 0, 0, 4) == 0x0008_1B36
    assert get(host, 0, 8, 4) >> 8 == 0x060000
    assert get(host, 5, 0, 4) == 0x5678_1234
    assert get(host, 5, 8, 4) == 0x02000003
    assert get(host, 5, 0x2C, 4) == 0x0002_0001
    for empty in (6 << 15, 5 << 15 | 1 << 12, 1 << 20, 255 << 20):
        assert host.read(empty, 4) == 0xFFFFFFFF
        host.write(empty, 4, 0)
    assert get(host, 5, 0x100, 4) == get(host, 5, 0xFFF, 1) == 0


def test_slots_are_taken_once(host):
    assert host.bus.add(function()) == 1
    assert host.bus.add(function()) == 2
    with pytest.raises(ValueError, match="slot"):
        host.bus.add(function(), 2)
    host.bus.add(function(), 2, 3)
    assert get(host, 2, 0xE, 1) == 0x80
    assert get(host, 1, 0xE, 1) == 0


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({}, 0),
        ({"is_64bit": True}, 4),
        ({"is_64bit": True, "prefetchable": True}, 12),
        ({"space": Space.IO}, 1),
    ],
)
def test_a_bar_tells_its_size_and_goes_where_the_guest_wants_it(host, machine_map, options, flags):
    card, registers = function(), Registers()
    card.add_bar(Bar(2, 0x1000, registers, **options))
    host.bus.add(card, 1)
    at = BAR + 8
    put(host, 1, at, 4, 0xFFFFFFFF)
    assert get(host, 1, at, 4) == 0xFFFFF000 | flags
    put(host, 1, at + 4, 4, 0xFFFFFFFF)
    assert get(host, 1, at + 4, 4) == (0xFFFFFFFF if flags & 4 else 0)
    assert not machine_map.regions
    bus_address, address = {0: (0x4000_5000,) * 2, 4: (0x4_1234_5000,) * 2, 1: (0x6000, 0x300_6000)}[
        flags & 5
    ]
    put(host, 1, at, 4, bus_address & 0xFFFFFFFF)
    put(host, 1, at + 4, 4, bus_address >> 32)
    assert not machine_map.regions
    put(host, 1, COMMAND, 2, 1 if flags & 1 else 2)
    assert machine_map.regions == {(address, address + 0x1000): registers}
    put(host, 1, at, 4, bus_address + 0x1000 & 0xFFFFFFFF)
    assert machine_map.starts == [address + 0x1000]
    put(host, 1, at, 4, 0xFFFFFFFF)
    put(host, 1, at + 4, 4, 0xFFFFFFFF)
    assert not machine_map.regions
    put(host, 1, at, 4, bus_address & 0xFFFFFFFF)
    put(host, 1, at + 4, 4, bus_address >> 32)
    assert machine_map.starts == [address]
    put(host, 1, COMMAND, 2, 0)
    assert not machine_map.regions


def test_bars_that_overlap(host, machine_map):
    for slot in (1, 2):
        card = function()
        card.add_bar(Bar(0, 0x1000, Registers()))
        host.bus.add(card, slot)
        put(host, slot, COMMAND, 2, 2)
    put(host, 2, BAR, 4, 0x5000_0000)
    second = machine_map.regions[0x5000_0000, 0x5000_1000]
    put(host, 1, BAR, 4, 0x5000_0000)
    assert machine_map.regions[0x5000_0000, 0x5000_1000] is not second
    put(host, 1, BAR, 4, 0x6000_0000)
    assert machine_map.regions[0x5000_0000, 0x5000_1000] is second
    machine_map.refuses = 0x7000_0000
    put(host, 2, BAR, 4, 0x7000_0000)
    assert machine_map.starts == [0x6000_0000]
    put(host, 2, BAR, 4, 0x7000_1000)
    assert machine_map.starts == [0x6000_0000, 0x7000_1000]


def test_bars_in_the_memory_of_a_machine():
    memory = MachineMemory()
    memory.add_ram(0x8000_0000, 0x1000)

    class Map:
        place = staticmethod(memory.add_mmio)
        remove = staticmethod(memory.remove)

    host = EcamHost(memory_map=Map, windows=WINDOWS, interrupts=[Wire() for _ in range(4)])
    card = function()
    card.add_bar(Bar(0, 0x1000, Registers()))
    host.bus.add(card, 1)
    memory.add_mmio(0x3000_0000, 1 << 28, host)
    memory.write(0x3000_8000 + BAR, (0x4000_0000).to_bytes(4, "little"))
    memory.write(0x3000_8000 + COMMAND, b"\2\0")
    assert memory.read(0x4000_0010, 4) == b"\x5a\0\0\0"
    host.reset()
    assert memory.mapping_at(0x4000_0010) is None


@pytest.mark.parametrize(
    "wrong",
    [
        Bar(6, 16, Registers()),
        Bar(5, 16, Registers(), is_64bit=True),
        Bar(0, 24, Registers()),
        Bar(0, 8, Registers()),
        Bar(1, 16, Registers()),
    ],
)
def test_bars_that_cannot_be(wrong):
    card = function()
    card.add_bar(Bar(0, 16, Registers(), is_64bit=True))
    with pytest.raises(ValueError, match="BAR"):
        card.add_bar(wrong)


def test_capabilities_are_a_list(host):
    card = function()
    assert get(host, 0, STATUS, 2) & 0x10 == 0
    first = card.add_capability(0x09, bytes(7))
    second = card.add_capability(0x11, b"ab", b"\xf0")
    host.bus.add(card, 1)
    assert get(host, 1, STATUS, 2) & 0x10
    assert (get(host, 1, 0x34, 1), get(host, 1, first, 2), get(host, 1, second, 2)) == (
        first,
        second << 8 | 9,
        0x11,
    )
    put(host, 1, second, 4, 0xFFFFFFFF)
    assert get(host, 1, second, 4) == 0x62F1_0011 | ord("a") << 16 & 0xF0000
    with pytest.raises(ValueError, match="fit"):
        card.add_capability(9, bytes(200))


def test_intx_wires_are_swizzled_and_shared(host, wires):
    cards = {}
    for slot in (1, 2, 5):
        cards[slot] = function(has_interrupt=True)
        host.bus.add(cards[slot], slot)
    assert get(host, 1, 0x3D, 1) == 1
    cards[1].set_interrupt(True)
    cards[5].set_interrupt(True)
    cards[2].set_interrupt(True)
    assert [wire.level for wire in wires] == [False, True, True, False]
    assert get(host, 1, STATUS, 2) & 8
    cards[1].set_interrupt(False)
    assert wires[1].level
    put(host, 5, COMMAND, 2, 1 << 10)
    assert not wires[1].level
    assert get(host, 5, STATUS, 2) & 8
    put(host, 5, COMMAND, 2, 0)
    assert wires[1].level
    host.reset()
    assert not any(wire.level for wire in wires)


class TestMsiX:
    @pytest.fixture
    def card(self, host):
        card = function()
        self.msix = MsiX(card, vectors=3, bar=1)
        host.bus.add(card, 1)
        self.control = get(host, 1, 0x34, 1) + 2
        put(host, 1, COMMAND, 2, 4)
        put(host, 1, self.control, 2, 0x8000)
        return card

    def entry(self, vector, address, data, masked=0):
        self.msix.write(16 * vector, 8, address)
        self.msix.write(16 * vector + 8, 4, data)
        self.msix.write(16 * vector + 12, 4, masked)

    def test_the_capability(self, host, card):
        assert get(host, 1, self.control - 2, 1) == 0x11
        assert get(host, 1, self.control, 2) == 0x8002
        assert get(host, 1, self.control + 2, 4) == 1
        assert get(host, 1, self.control + 6, 4) == 0x801
        put(host, 1, self.control, 2, 0xFFFF)
        assert get(host, 1, self.control, 2) == 0xC002

    def test_messages(self, card, messages):
        self.entry(2, 0x1_FEE0_0003, 77)
        self.msix.notify(2)
        assert messages == [(0x1_FEE0_0000, 77)]
        self.msix.notify(3)
        self.msix.notify(0xFFFF)
        assert len(messages) == 1

    def test_what_is_masked_is_pending(self, host, card, messages):
        self.entry(0, 0x1000, 5, masked=1)
        self.msix.notify(0)
        self.msix.notify(0)
        assert self.msix.read(0x800, 8) == 1
        self.entry(0, 0x1000, 5)
        assert messages == [(0x1000, 5)]
        assert self.msix.read(0x800, 8) == 0
        put(host, 1, self.control, 2, 0xC000)
        self.msix.notify(0)
        assert len(messages) == 1
        put(host, 1, self.control, 2, 0x8000)
        assert len(messages) == 2
        put(host, 1, COMMAND, 2, 0)
        self.msix.notify(0)
        assert len(messages) == 2
        put(host, 1, COMMAND, 2, 4)
        assert len(messages) == 3

    def test_without_being_enabled_it_is_silent(self, host, card, messages):
        put(host, 1, self.control, 2, 0)
        self.entry(0, 0x1000, 5)
        self.msix.notify(0)
        put(host, 1, self.control, 2, 0x8000)
        assert messages == []

    def test_its_state(self, card, messages):
        self.entry(1, 0x2000, 6, masked=1)
        self.msix.notify(1)
        state = self.msix.save_state()
        self.msix.reset()
        assert self.msix.read(0x800, 8) == 0
        self.msix.load_state(state)
        self.msix.write(16 + 12, 4, 0)
        assert messages == [(0x2000, 6)]
        with pytest.raises(StateError):
            self.msix.load_state({**state, "table": b""})
        with pytest.raises(StateError):
            self.msix.load_state({**state, "version": 0})


def test_state_is_loaded_wholly_or_not_at_all(host, machine_map):
    for slot in (1, 2):
        card = function(slot)
        card.add_bar(Bar(0, 0x1000, Registers()))
        host.bus.add(card, slot)
        put(host, slot, BAR, 4, 0x5000_0000 + 0x1000 * slot)
        put(host, slot, COMMAND, 2, 2)
    state = host.save_state()
    host.reset()
    assert not machine_map.regions
    bad = {**state, "functions": {**state["functions"], "2.0": {"version": 1, "space": b""}}}
    for wrong in (bad, {"version": 2}, {"version": 1, "functions": {}}):
        with pytest.raises(StateError):
            host.load_state(wrong)
        assert not machine_map.regions
    host.load_state(state)
    assert machine_map.starts == [0x5000_1000, 0x5000_2000]
    assert get(host, 1, BAR, 4) == 0x5000_1000


class AnyGuest(RuleBasedStateMachine):
    """Whatever a guest stores, the map holds BARs where they are enabled, none twice."""

    def __init__(self):
        super().__init__()
        self.map = FakeMap()
        wires = [Wire() for _ in range(4)]
        self.host = EcamHost(memory_map=self.map, windows=WINDOWS, interrupts=wires)
        self.cards = []
        for slot in (1, 2):
            card = function(has_interrupt=True)
            card.add_bar(Bar(0, 0x1000, Registers()))
            card.add_bar(Bar(1, 0x4000, Registers(), is_64bit=True))
            card.add_bar(Bar(3, 0x20, Registers(), Space.IO))
            MsiX(card, vectors=2, bar=5)
            self.host.bus.add(card, slot)
            self.cards.append(card)

    @rule(
        slot=st.integers(0, 3),
        offset=st.integers(0, 0x110),
        size=st.sampled_from([1, 2, 4, 8]),
        value=st.integers(0, 2**64 - 1),
    )
    def store(self, slot, offset, size, value):
        put(self.host, slot, offset, size, value & (1 << 8 * size) - 1)
        get(self.host, slot, offset, size)

    @rule(
        slot=st.integers(1, 2),
        bar=st.integers(0, 5),
        value=st.sampled_from([0x4000_0000, 0x4000_1000, 0x7FFF_F000, 0x8000_0000, 4, 0, 0xFFFFFFFF, 0x20]),
    )
    def place(self, slot, bar, value):
        put(self.host, slot, BAR + 4 * bar, 4, value)
        put(self.host, slot, COMMAND, 2, 7)

    @rule()
    def save_and_load(self):
        state, before = self.host.save_state(), dict(self.map.regions)
        self.host.reset()
        assert not self.map.regions
        self.host.load_state(state)
        assert self.map.regions == before

    @invariant()
    def the_map_is_what_the_registers_say(self):
        for start, end in self.map.regions:
            assert any(window.address <= start and end <= window.address + window.size for window in WINDOWS)
        for slot, card in enumerate(self.cards, 1):
            assert get(self.host, slot, 0, 4) == 0x0001_1234
            for bar in card.bars.values():
                if card.bar_address(bar) is None:
                    assert bar.registers not in self.map.regions.values()


TestAnyGuest = AnyGuest.TestCase
TestAnyGuest.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(st.integers(0, 2**28 - 1), st.sampled_from([1, 2, 4, 8]), st.integers(0, 2**64 - 1))
def test_any_access_to_the_whole_of_ecam(offset, size, value):
    host = EcamHost(memory_map=FakeMap(), windows=WINDOWS, interrupts=[Wire() for _ in range(4)])
    host.write(offset, size, value)
    assert 0 <= host.read(offset, size) < 1 << 8 * size


def test_a_bus_has_four_wires():
    with pytest.raises(ValueError, match="four"):
        PciBus(memory_map=FakeMap(), windows=[], interrupts=[Wire()])
