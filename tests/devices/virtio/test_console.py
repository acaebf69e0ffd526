"""virtio-console: ports by name, flow control in both directions, resizing, output of last resort."""

import struct

import pytest
from tests.devices.virtio.driver import NEEDS_RESET, PACKED, FakeMemory, Guest, PciPort

from anyvirt.devices.virtio.console import PortSettings, VirtioConsole

SIZE, MULTIPORT, EMERG_WRITE = 1, 2, 4
READY, ADD, REMOVE, PORT_READY, CONSOLE, RESIZE, OPEN, NAME = range(8)


class Backend:
    """Takes as much as it has room for."""

    def __init__(self):
        self.input, self.output, self.room, self.opened = b"", b"", 1 << 20, []

    def read(self, limit):
        data, self.input = self.input[:limit], self.input[limit:]
        return data

    def write(self, data):
        count = min(len(data), self.room)
        self.room -= count
        self.output += bytes(data[:count])
        return count

    def guest_opened(self, is_open):
        self.opened.append(is_open)


@pytest.fixture
def console():
    return Backend()


@pytest.fixture
def agent():
    return Backend()


@pytest.fixture
def device(console, agent):
    return VirtioConsole(
        FakeMemory(),
        [PortSettings(console, is_console=True), PortSettings(agent, name="org.example.agent")],
    )


@pytest.fixture(params=[0, PACKED], ids=["split", "packed"])
def ring(request):
    return request.param


def boot(device, ring=0):
    """What a driver of several ports does first; (guest, messages of the device)."""
    guest = Guest(device, features=MULTIPORT | SIZE | ring, port=PciPort)
    for _ in range(8):
        guest.queues[2].add([], [64])
    guest.port.notify(2)
    control(guest, 0, READY, 1)
    return guest, messages(guest)


def control(guest, port, event, value):
    guest.request(3, [struct.pack("<IHH", port, event, value)])


def messages(guest):
    result = []
    for buffers, written in guest.queues[2].used():
        content = buffers.answer()[:written]
        result.append((*struct.unpack("<IHH", content[:8]), content[8:]))
        guest.queues[2].add([], [64])
        guest.port.notify(2)
    return result


def test_a_driver_of_one_port_needs_no_control(device, console, ring):
    guest = Guest(device, features=ring, queues=[0, 1])
    guest.request(1, [b"hel", b"lo"])
    assert console.output == b"hello"
    guest.queues[0].add([], [3])
    guest.queues[0].add([], [30])
    guest.port.notify(0)
    assert not guest.queues[0].used()
    console.input = b"typed"
    device.ports[0].input_ready()
    assert [(buffers.answer()[:count]) for buffers, count in guest.queues[0].used()] == [b"typ", b"ed"]


def test_ports_introduce_themselves(device, agent, console, ring):
    guest, sent = boot(device, ring)
    assert sent == [(0, ADD, 1, b""), (1, ADD, 1, b"")]
    control(guest, 0, PORT_READY, 1)
    assert messages(guest) == [
        (0, CONSOLE, 1, b""),
        (0, RESIZE, 0, struct.pack("<HH", 25, 80)),
        (0, OPEN, 1, b""),
    ]
    control(guest, 1, PORT_READY, 1)
    assert messages(guest) == [(1, NAME, 1, b"org.example.agent"), (1, OPEN, 1, b"")]
    control(guest, 1, OPEN, 1)
    assert agent.opened == [True]
    assert console.opened == []
    guest.memory.check()


def test_input_waits_until_the_guest_has_opened_the_port_and_given_room(device, agent, ring):
    guest, _ = boot(device, ring)
    agent.input = b"request"
    device.ports[1].input_ready()
    guest.queues[4].add([], [4])
    guest.port.notify(4)
    assert not guest.queues[4].used()
    control(guest, 1, OPEN, 1)
    ((buffers, count),) = guest.queues[4].used()
    assert buffers.answer()[:count] == b"requ"
    assert agent.input == b"est"
    guest.queues[4].add([], [4])
    guest.port.notify(4)
    ((buffers, count),) = guest.queues[4].used()
    assert buffers.answer()[:count] == b"est"


def test_output_waits_until_the_backend_has_room(device, agent, ring):
    guest, _ = boot(device, ring)
    agent.room = 5
    guest.queues[5].add([b"abc", b"defg"])
    guest.queues[5].add([b"hij"])
    guest.port.notify(5)
    assert agent.output == b"abcde"
    assert not guest.queues[5].used()
    agent.room = 3
    device.ports[1].output_ready()
    assert agent.output == b"abcdefgh"
    assert len(guest.queues[5].used()) == 1
    state = device.save_state()
    device.load_state(state)
    agent.room = 100
    device.ports[1].output_ready()
    assert agent.output == b"abcdefghij"
    assert len(guest.queues[5].used()) == 1


def test_a_backend_may_say_that_it_has_room_while_it_is_asked(device, agent):
    guest, _ = boot(device)

    def write(data):
        device.ports[1].output_ready()
        agent.output += bytes(data[:2])
        return min(2, len(data))

    agent.write = write
    guest.request(5, [b"abcdefg"])
    assert agent.output == b"abcdefg"


def test_output_is_lost_while_nobody_is_connected(device, agent):
    guest, _ = boot(device)
    device.ports[1].connect(False)
    assert messages(guest) == [(1, OPEN, 0, b"")]
    guest.request(5, [b"lost"])
    device.ports[1].connect(True)
    guest.request(5, [b"found"])
    assert agent.output == b"found"


@pytest.mark.parametrize("columns_first", [False, True])
def test_resizing(console, columns_first):
    device = VirtioConsole(
        FakeMemory(), [PortSettings(console, is_console=True)], columns_first=columns_first
    )
    guest, _ = boot(device)
    guest.port.interrupts()
    device.resize(132, 43)
    assert guest.port.interrupts() & 2
    assert (guest.port.config(0, 2), guest.port.config(2, 2), guest.port.config(4, 4)) == (132, 43, 1)
    size = (132, 43) if columns_first else (43, 132)
    assert messages(guest) == [(0, RESIZE, 0, struct.pack("<HH", *size))]


def test_output_of_last_resort(device, console):
    guest = Guest(device, queues=[])
    for character in b"oops":
        guest.port.set_config(8, 4, character)
    assert console.output == b"oops"


def test_messages_without_room_do_not_pile_up(device):
    guest = Guest(device, features=MULTIPORT)
    for _ in range(1000):
        control(guest, 0, PORT_READY, 1)
        control(guest, 1, PORT_READY, 1)
    for _ in range(20):
        guest.queues[2].add([], [64])
    guest.port.notify(2)
    assert len(guest.queues[2].used()) == 5


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"short",
        struct.pack("<IHH", 2, OPEN, 1),
        struct.pack("<IHH", 2**32 - 1, PORT_READY, 1),
        b"\xff" * 8,
    ],
)
def test_messages_that_make_no_sense_are_ignored(device, agent, message):
    guest, _ = boot(device)
    guest.request(3, [message])
    assert messages(guest) == []
    assert not guest.port.status & NEEDS_RESET


def test_other_ports_do_not_exist_for_a_driver_of_one(device):
    guest = Guest(device)
    guest.queues[5].add([b"x"])
    guest.port.notify(5)
    assert guest.port.status & NEEDS_RESET


def test_a_reset_closes_ports(device, agent):
    guest, _ = boot(device)
    control(guest, 1, OPEN, 1)
    guest.port.status = 0
    assert agent.opened == [True, False]
