"""A driver of virtio-gpu as the standard describes it, for tests of devices.

Written from section 5.7 of VIRTIO 1.2, and of nothing else of the device under test.
"""

import random
import struct

from tests.devices.virtio.driver import BASE, FakeMemory, Guest

from anyvirt.devices.virtio.gpu import VirtioGpu

INFO, CREATE, UNREF, SCANOUT, FLUSH, TRANSFER, ATTACH, DETACH = range(0x100, 0x108)
EDID, UPDATE_CURSOR, MOVE_CURSOR = 0x10A, 0x300, 0x301
OK, OK_INFO, OK_EDID = 0x1100, 0x1101, 0x1104
UNSPEC, NO_MEMORY, NO_SCANOUT, NO_RESOURCE, NO_CONTEXT, BAD_PARAMETER = range(0x1200, 0x1206)
FORMATS = {1: "BGRA", 2: "BGRX", 3: "ARGB", 4: "XRGB", 67: "RGBA", 68: "XBGR", 121: "ABGR", 134: "RGBX"}
EDID_FEATURE = 1 << 1
MEMORY = 1 << 21


class Driver:
    """Section 5.7.6."""

    def __init__(self, displays=((64, 32),), *, ring=0, features=EDID_FEATURE, memory=None, **options):
        self.updates = []
        self.device = VirtioGpu(
            memory or FakeMemory(MEMORY), displays, on_update=lambda: self.updates.append(1), **options
        )
        self.guest = Guest(self.device, features=features | ring)
        self.guest.allocator.end = BASE + MEMORY
        self.at = self.guest.allocator.start
        self.picture = BASE + (1 << 20)
        """Where drivers draw."""

    def ask(self, command, body=b"", *, queue=0, fence=None, room=1200, cut=()):
        """(type, flags, fence, body) of the answer."""
        self.guest.allocator.start = self.at
        flags, number = (0, 77) if fence is None else (1, fence)
        request = struct.pack("<IIQIB3x", command, flags, number, 5, 0) + body
        pieces, before = [], 0
        for place in (*cut, len(request)):
            pieces.append(request[before:place])
            before = place
        answer, written = self.guest.request(queue, pieces, [10, room])
        kind, flags, number, context, _ = struct.unpack_from("<IIQIB3x", answer)
        assert context == (5 if flags else 0)
        return kind, flags, number, answer[24:written]

    def do(self, command, layout="", *values, queue=0, expected=OK):
        kind, _, _, body = self.ask(command, struct.pack("<" + layout, *values), queue=queue)
        assert kind == expected, hex(kind)
        return body

    def create(self, number=1, width=64, height=32, format=1, **options):
        self.do(CREATE, "4I", number, format, width, height, **options)

    def attach(self, number, *entries, **options):
        flat = [part for entry in entries for part in entry]
        self.do(ATTACH, "II" + "QI4x" * len(entries), number, len(entries), *flat, **options)

    def show(self, number=1, part=(0, 0, 64, 32), scanout=0, **options):
        self.do(SCANOUT, "6I", *part, scanout, number, **options)

    def transfer(self, part, offset, number=1, **options):
        self.do(TRANSFER, "4IQI4x", *part, offset, number, **options)

    def flush(self, part=(0, 0, 64, 32), number=1, **options):
        self.do(FLUSH, "5I4x", *part, number, **options)

    def cursor(self, command=UPDATE_CURSOR, scanout=0, x=0, y=0, number=0, hot=(0, 0), **options):
        self.do(command, "Iii4x3I4x", scanout, x, y, number, *hot, queue=1, **options)

    def draw(self, content, at=None):
        self.device.memory.write(at or self.picture, content)


def noise(length, seed=1):
    return random.Random(seed).randbytes(length)


def ready(**options):
    """A driver with a picture of its own that is shown."""
    driver = Driver(**options)
    driver.create()
    driver.attach(1, (driver.picture, 64 * 32 * 4))
    driver.show()
    return driver
