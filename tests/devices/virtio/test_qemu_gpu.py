"""virtio-gpu against QEMU's: the same requests, the same answers, the same pictures.

Where ours differs on purpose, requests are not made here. QEMU shows nothing that is narrower than 16 pixels
or has no backing, copies what there is of backing that is too short, and calls backing outside of memory an
unspecified error; its screendump has bytes too many in rows whose length is no multiple of four pixels.
"""

import random
import re
import struct
import time

import pytest
from tests.devices.qtest import Qtest
from tests.devices.virtio.driver import BASE, FakeMemory, Guest, PciPort
from tests.devices.virtio.gpu_driver import (
    ATTACH,
    CREATE,
    DETACH,
    EDID,
    FLUSH,
    FORMATS,
    INFO,
    MOVE_CURSOR,
    OK,
    SCANOUT,
    TRANSFER,
    UNREF,
    UPDATE_CURSOR,
    noise,
)

from anyvirt.devices.virtio.gpu import VirtioGpu
from anyvirt.machines.seat.picture import Picture

ECAM, SLOT, PATIENCE = 0x3000_0000, 1, 60
WIDTH, HEIGHT = 320, 200
PICTURE = BASE + (1 << 20)


class QemuMemory:
    """Memory of QEMU's machine."""

    def __init__(self, qemu):
        self.read, self._store = qemu.load, qemu.store

    def write(self, address, data):
        if data:
            self._store(address, bytes(data))


class QemuPort(PciPort):
    """A device of QEMU's machine, on its bus."""

    def __init__(self, qemu):
        self.qemu, self.map, self.msix, self.slot = qemu, qemu, False, SLOT
        self.set_up()

    def config_read(self, offset, size):
        return self.qemu.read(ECAM | self.slot << 15 | offset, size)

    def config_write(self, offset, size, value):
        self.qemu.write(ECAM | self.slot << 15 | offset, size, value)


class Side:
    """A device with its driver."""

    def __init__(self, guest):
        self.guest, self.memory = guest, guest.memory
        self.guest.allocator.end = PICTURE
        self.start = guest.allocator.start

    def ask(self, queue, request, room=1200):
        """The whole answer; QEMU takes its time."""
        self.guest.allocator.start = self.start
        ring = self.guest.queues[queue]
        ring.add([request], [room])
        self.guest.port.notify(queue)
        ending = time.monotonic() + PATIENCE
        while not (used := ring.used()):
            assert time.monotonic() < ending
        ((buffers, written),) = used
        return buffers.answer()[:written]


class Both:
    """QEMU's device and ours."""

    def __init__(self, directory):
        self.directory = directory
        self.qemu = Qtest(directory, "-device", f"virtio-gpu-pci,xres={WIDTH},yres={HEIGHT},addr={SLOT}")
        theirs = Guest(None, QemuMemory(self.qemu), port=lambda _: QemuPort(self.qemu), features=2)
        self.device = VirtioGpu(FakeMemory(4 << 20), [(WIDTH, HEIGHT)])
        ours = Guest(self.device, port=lambda device: PciPort(device, msix=False), features=2)
        assert ours.features == theirs.features
        self.sides = Side(theirs), Side(ours)

    def ask(self, command, layout="", *values, queue=0, flags=0, fence=0):
        """What both answer."""
        request = struct.pack("<IIQIB3x" + layout, command, flags, fence, 0, 0, *values)
        theirs, ours = (side.ask(queue, request) for side in self.sides)
        if queue:
            # QEMU gives requests about cursors back without an answer, as drivers let it.
            assert theirs == b""
            return b""
        assert ours[:24] == theirs[:24], (hex(command), values)
        assert len(ours) == len(theirs)
        if command != EDID:
            assert ours == theirs
        return ours

    def draw(self, content, address=PICTURE):
        for side in self.sides:
            side.memory.write(address, content)

    def compare(self):
        """The pictures."""
        path = self.directory / "shown.ppm"
        self.qemu.command("screendump", filename=str(path))
        content = path.read_bytes()
        header = re.match(rb"P6\s+(\d+)\s+(\d+)\s+255\s", content)
        shown = Picture(int(header[1]), int(header[2]), content[header.end() :])
        assert shown == Picture.of(self.device.frame())


@pytest.fixture
def both(tmp_path):
    pair = Both(tmp_path)
    yield pair
    pair.qemu.close()


def test_what_the_devices_say_of_themselves(both):
    ours, theirs = (
        [side.guest.port.config(4 * word, 4) for word in range(4)] for side in reversed(both.sides)
    )
    assert ours == theirs
    both.ask(INFO)
    both.ask(INFO, flags=1, fence=2**63 + 5)
    both.ask(EDID, "I4x", 0)


@pytest.mark.parametrize("number", FORMATS)
def test_pictures_in_every_format(both, number):
    both.draw(noise(WIDTH * HEIGHT * 4))
    both.ask(CREATE, "4I", 1, number, WIDTH, HEIGHT)
    both.ask(ATTACH, "IIQI4xQI4x", 1, 2, PICTURE, 1000, PICTURE + 1000, WIDTH * HEIGHT * 4 - 1000)
    both.ask(TRANSFER, "4IQI4x", 0, 0, WIDTH, HEIGHT, 0, 1)
    both.ask(SCANOUT, "6I", 0, 0, WIDTH, HEIGHT, 0, 1)
    assert both.ask(FLUSH, "5I4x", 0, 0, WIDTH, HEIGHT, 1)[:4] == struct.pack("<I", OK)
    both.compare()


@pytest.mark.parametrize("seed", range(3))
def test_any_requests_have_the_same_answers(both, seed):
    chance = random.Random(seed)
    sizes = {}

    def number():
        return chance.choice([1, 2, 3])

    def part(of):
        width, height = sizes.get(of, (64, 64))
        x, y = chance.randrange(width), chance.randrange(height)
        beyond = chance.choice([0] * 8 + [1])
        return x, y, chance.randint(1, width - x) + beyond * width, chance.randint(1, height - y)

    for step in range(120):
        match chance.randrange(10):
            case 0 | 1:
                new, size = number(), (4 * chance.randint(4, 50), chance.randint(16, 100))
                answer = both.ask(CREATE, "4I", new, chance.choice([*FORMATS, 5]), *size)
                if answer[:4] == struct.pack("<I", OK):
                    sizes[new] = size
            case 2 | 3:
                both.draw(noise(80_000, seed=step))
                both.ask(ATTACH, "IIQI4xQI4x", number(), 2, PICTURE, 4096, PICTURE + 8192, 200 * 100 * 4)
            case 4:
                both.ask(chance.choice([DETACH, UNREF]), "I4x", number())
            case 5 | 6:
                which = number()
                x, y, width, height = part(which)
                stride = 4 * sizes.get(which, (64, 64))[0]
                both.ask(
                    TRANSFER, "4IQI4x", x, y, width, height, y * stride + 4 * x, which, flags=1, fence=step
                )
            case 7 | 8:
                which = number()
                width, height = sizes.get(which, (64, 64))
                resource = both.device.resources.get(which)
                if resource is None or resource.backing is None:
                    continue
                both.ask(SCANOUT, "6I", 0, 0, width, height, chance.choice([0, 0, 0, 1]), which)
            case _:
                which = number()
                both.ask(FLUSH, "5I4x", *part(which), which)
        if step % 5 == 4 and both.device.frame() is not None:
            both.compare()


def test_cursors_are_taken(both):
    both.ask(CREATE, "4I", 7, 1, 64, 64)
    both.ask(UPDATE_CURSOR, "Iii4x3I4x", 0, 5, 6, 7, 1, 1, queue=1)
    both.ask(MOVE_CURSOR, "Iii4x3I4x", 0, 7, 8, 0, 0, 0, queue=1)
    both.ask(UPDATE_CURSOR, "Iii4x3I4x", 0, 5, 6, 0, 0, 0, queue=1)
    both.ask(0x999)
