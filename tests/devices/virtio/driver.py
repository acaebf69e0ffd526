"""A driver as the standard describes it: rings in guest memory, devices by a transport.

Written from the driver's sections of VIRTIO 1.2, and of nothing else of the devices under test.
"""

import itertools
import struct

from anyvirt.devices.bus import BusError, Wire
from anyvirt.devices.pci.bus import Window
from anyvirt.devices.pci.ecam import EcamHost
from anyvirt.devices.virtio.mmio import VirtioMmio
from anyvirt.devices.virtio.pci import VirtioPci

BASE = 0x8000_0000
INDIRECT, EVENT_IDX, VERSION_1, PACKED = 1 << 28, 1 << 29, 1 << 32, 1 << 34
RING_RESET = 1 << 40
NEXT, WRITE, INDIRECT_FLAG, AVAIL, USED = 1, 2, 4, 1 << 7, 1 << 15
NEEDS_RESET = 64


class FakeMemory:
    """RAM of a machine, as devices see it; knows which changes devices did not own up to."""

    def __init__(self, size=1 << 20, base=BASE):
        self.base, self.content = base, bytearray(size)
        self.known = bytearray(size)
        self.free = base

    def _offset(self, address, length):
        offset = address - self.base
        if not (offset >= 0 and length > 0 and offset + length <= len(self.content)):
            raise BusError(f"nothing is at {address:#x}")
        return offset

    def read(self, address, length):
        offset = self._offset(address, length)
        return bytes(self.content[offset : offset + length])

    def write(self, address, data):
        offset = self._offset(address, len(data))
        self.content[offset : offset + len(data)] = data
        self.known[offset : offset + len(data)] = data

    def view(self, address, length, *, writable=False):
        offset = self._offset(address, length)
        window = memoryview(self.content)[offset : offset + length]
        return window if writable else window.toreadonly()

    def wrote(self, address, length):
        offset = self._offset(address, length)
        self.known[offset : offset + length] = self.content[offset : offset + length]

    def check(self):
        """Every change was reported."""
        assert self.known == self.content


class Allocator:
    """Gives out guest memory."""

    def __init__(self, memory, start=BASE, size=1 << 20):
        self.memory, self.start, self.end = memory, start, start + size

    def take(self, size, alignment=16):
        address = -(-self.start // alignment) * alignment
        self.start = address + size
        assert self.start <= self.end, "the tests' guest has no memory left"
        return address

    def zeros(self, size, alignment=16):
        address = self.take(size, alignment)
        self.memory.write(address, bytes(size))
        return address


class Buffers:
    """What a driver remembers of a request."""

    def __init__(self, readable, writable, allocator):
        self.parts = []
        for data in readable:
            address = allocator.take(max(len(data), 1))
            if data:
                allocator.memory.write(address, data)
            self.parts.append((address, len(data), 0))
        self.writable = [(allocator.take(max(size, 1)), size) for size in writable]
        self.parts += [(address, size, WRITE) for address, size in self.writable]
        self.memory = allocator.memory

    def answer(self):
        return b"".join(self.memory.read(address, size) for address, size in self.writable if size)


class SplitDriver:
    """Section 2.7."""

    def __init__(self, allocator, size, features):
        self.allocator, self.memory, self.size, self.features = allocator, allocator.memory, size, features
        self.descriptors = allocator.zeros(16 * size)
        self.driver = allocator.zeros(6 + 2 * size, 2)
        self.device = allocator.zeros(6 + 8 * size, 4)
        self.free = list(range(size))
        self.index = self.seen = 0
        self.kicked = 0
        self.waiting = {}

    def table(self, parts, at, indices):
        for position, (address, length, flags) in enumerate(parts):
            last = position == len(parts) - 1
            following = 0 if last else indices[position + 1]
            entry = struct.pack("<QIHH", address, length, flags | (0 if last else NEXT), following)
            self.memory.write(at + 16 * indices[position], entry)

    def add(self, readable=(), writable=(), *, indirect=False):
        buffers = Buffers(readable, writable, self.allocator)
        parts = buffers.parts
        if indirect:
            at = self.allocator.take(16 * len(parts))
            self.table(parts, at, list(range(len(parts))))
            parts = [(at, 16 * len(parts), INDIRECT_FLAG)]
        indices = [self.free.pop(0) for _ in parts]
        self.table(parts, self.descriptors, indices)
        self.waiting[indices[0]] = buffers, indices
        self.offer(indices[0])
        return buffers

    def offer(self, head):
        self.memory.write(self.driver + 4 + 2 * (self.index % self.size), struct.pack("<H", head))
        self.index = (self.index + 1) & 0xFFFF
        self.memory.write(self.driver + 2, struct.pack("<H", self.index))

    def wants_kick(self):
        old, self.kicked = self.kicked, self.index
        if self.features & EVENT_IDX:
            (event,) = struct.unpack("<H", self.memory.read(self.device + 4 + 8 * self.size, 2))
            return (self.index - event - 1) & 0xFFFF < (self.index - old) & 0xFFFF
        return not self.memory.read(self.device, 1)[0] & 1

    def want_interrupt(self, wanted=True, after=0):
        """For the next used buffer, or the one `after` that many more."""
        event = (self.seen + after) & 0xFFFF if wanted else (self.seen - 1) & 0xFFFF
        self.memory.write(self.driver + 4 + 2 * self.size, struct.pack("<H", event))
        self.memory.write(self.driver, struct.pack("<H", int(not wanted)))

    def used(self):
        result = []
        (index,) = struct.unpack("<H", self.memory.read(self.device + 2, 2))
        while self.seen != index:
            at = self.device + 4 + 8 * (self.seen % self.size)
            head, written = struct.unpack("<II", self.memory.read(at, 8))
            buffers, indices = self.waiting.pop(head)
            self.free += indices
            self.seen = (self.seen + 1) & 0xFFFF
            result.append((buffers, written))
        return result


class PackedDriver:
    """Section 2.8."""

    def __init__(self, allocator, size, features):
        self.allocator, self.memory, self.size, self.features = allocator, allocator.memory, size, features
        self.descriptors = allocator.zeros(16 * size)
        self.driver, self.device = allocator.zeros(4, 4), allocator.zeros(4, 4)
        self.index, self.wrap = 0, 1
        self.seen, self.seen_wrap = 0, 1
        self.kicked = 0
        self.added = 0
        self.identifiers = list(range(size))
        self.waiting = {}

    def add(self, readable=(), writable=(), *, indirect=False):
        buffers = Buffers(readable, writable, self.allocator)
        parts = buffers.parts
        if indirect:
            at = self.allocator.take(16 * len(parts))
            for position, (address, length, flags) in enumerate(parts):
                self.memory.write(at + 16 * position, struct.pack("<QIHH", address, length, 0, flags))
            parts = [(at, 16 * len(parts), INDIRECT_FLAG)]
        identifier = self.identifiers.pop(0)
        self.waiting[identifier] = buffers, len(parts)
        entries = []
        for position, (address, length, flags) in enumerate(parts):
            round_flags = (0 if position == len(parts) - 1 else NEXT) | (AVAIL if self.wrap else USED)
            entry = struct.pack("<QIHH", address, length, identifier, flags | round_flags)
            entries.append((self.index, entry))
            self.index += 1
            if self.index == self.size:
                self.index, self.wrap = 0, self.wrap ^ 1
        for index, entry in reversed(entries):
            self.memory.write(self.descriptors + 16 * index, entry)
        self.added += len(parts)
        return buffers

    def wants_kick(self):
        event, flags = struct.unpack("<HH", self.memory.read(self.device, 4))
        added, self.added = self.added, 0
        if flags != 2:
            return flags == 0
        offset = event & 0x7FFF
        if event >> 15 != self.wrap:
            offset -= self.size
        return (self.index - offset - 1) & 0xFFFF < added

    def want_interrupt(self, wanted=True, after=0):
        if wanted and self.features & EVENT_IDX:
            position, wrap = self.seen + after, self.seen_wrap
            if position >= self.size:
                position, wrap = position - self.size, wrap ^ 1
            self.memory.write(self.driver, struct.pack("<HH", position | wrap << 15, 2))
        else:
            self.memory.write(self.driver, struct.pack("<HH", 0, int(not wanted)))

    def used(self):
        result = []
        while True:
            entry = self.memory.read(self.descriptors + 16 * self.seen, 16)
            _, written, identifier, flags = struct.unpack("<QIHH", entry)
            if bool(flags & AVAIL) != bool(flags & USED) or bool(flags & USED) != bool(self.seen_wrap):
                return result
            buffers, count = self.waiting.pop(identifier)
            self.identifiers.append(identifier)
            self.seen += count
            if self.seen >= self.size:
                self.seen, self.seen_wrap = self.seen - self.size, self.seen_wrap ^ 1
            result.append((buffers, written))


class MmioPort:
    """The registers of section 4.2."""

    def __init__(self, device):
        self.wire = Wire()
        self.transport = VirtioMmio(device, interrupt=self.wire)

    def get(self, offset):
        return self.transport.read(offset, 4)

    def put(self, offset, value):
        self.transport.write(offset, 4, value)

    def features(self):
        self.put(0x14, 0)
        low = self.get(0x10)
        self.put(0x14, 1)
        return low | self.get(0x10) << 32

    def accept(self, features):
        for select in (0, 1):
            self.put(0x24, select)
            self.put(0x20, features >> 32 * select & 0xFFFFFFFF)

    @property
    def status(self):
        return self.get(0x70)

    @status.setter
    def status(self, value):
        self.put(0x70, value)

    def maximum(self, queue):
        self.put(0x30, queue)
        return self.get(0x34)

    def enable(self, queue, size, *areas):
        self.put(0x30, queue)
        self.put(0x38, size)
        for offset, address in zip((0x80, 0x90, 0xA0), areas, strict=True):
            self.put(offset, address & 0xFFFFFFFF)
            self.put(offset + 4, address >> 32)
        self.put(0x44, 1)

    def reset_queue(self, queue):
        self.put(0x30, queue)
        self.put(0xC0, 1)
        return self.get(0xC0), self.get(0x44)

    def notify(self, queue):
        self.put(0x50, queue)

    def config(self, offset, size):
        return self.transport.read(0x100 + offset, size)

    def set_config(self, offset, size, value):
        self.transport.write(0x100 + offset, size, value)

    def interrupts(self):
        """Causes since the last time: 1 for used buffers, 2 for the configuration."""
        causes = self.get(0x60)
        assert self.wire.level == bool(causes)
        self.put(0x64, causes)
        assert not self.wire.level
        return causes


class FakeMap:
    """The memory map of a machine."""

    def __init__(self):
        self.regions = {}

    def place(self, address, size, device):
        for start, (length, _) in self.regions.items():
            assert start + length <= address or address + size <= start
        self.regions[address] = size, device

    def remove(self, address, size):
        assert self.regions.pop(address)[0] == size

    def find(self, address):
        for start, (size, device) in self.regions.items():
            if start <= address < start + size:
                return device, address - start
        raise BusError(f"nothing is at {address:#x}")

    def read(self, address, size):
        device, offset = self.find(address)
        return device.read(offset, size)

    def write(self, address, size, value):
        device, offset = self.find(address)
        device.write(offset, size, value)


WINDOW_32, WINDOW_64 = 0x4000_0000, 0x4_0000_0000


class PciPort:
    """Section 4.1, as an operating system goes about it: capabilities, BARs, MSI-X or INTx."""

    def __init__(self, device, *, msix=True, slot=1):
        self.map = FakeMap()
        self.messages = []
        self.wires = [Wire() for _ in range(4)]
        self.host = EcamHost(
            memory_map=self.map,
            windows=[Window(WINDOW_32, 0x4000_0000), Window(WINDOW_64, 0x4_0000_0000)],
            interrupts=self.wires,
            send_message=lambda address, data: self.messages.append((address, data)),
        )
        self.transport = VirtioPci(device)
        self.slot = self.host.bus.add(self.transport.function, slot)
        self.msix = msix
        self.set_up()

    def config_read(self, offset, size):
        return self.host.read(self.slot << 15 | offset, size)

    def config_write(self, offset, size, value):
        self.host.write(self.slot << 15 | offset, size, value)

    def set_up(self):
        """What firmware and kernel do."""
        addresses = iter((WINDOW_32 + 0x10000, WINDOW_64 + 0x10000))
        self.bars = {}
        index = 0
        while index < 6:
            at = 0x10 + 4 * index
            self.config_write(at, 4, 0xFFFFFFFF)
            flags = self.config_read(at, 4)
            if flags & 4:
                self.config_write(at + 4, 4, 0xFFFFFFFF)
            if flags & ~0xF:
                address = next(addresses)
                self.bars[index] = address
                self.config_write(at, 4, address & 0xFFFFFFFF)
                if flags & 4:
                    self.config_write(at + 4, 4, address >> 32)
            index += 2 if flags & 4 else 1
        self.config_write(4, 2, 0x0006)
        self.parts = {}
        self.vector_control = None
        at = self.config_read(0x34, 1)
        while at:
            identifier, following = self.config_read(at, 1), self.config_read(at + 1, 1)
            if identifier == 9:
                kind, bar = self.config_read(at + 3, 1), self.config_read(at + 4, 1)
                start = self.bars.get(bar, 0) + self.config_read(at + 8, 4)
                self.parts.setdefault(kind, start)
                if kind == 2:
                    self.multiplier = self.config_read(at + 16, 4)
                if kind == 5:
                    self.window = at
            elif identifier == 0x11:
                self.vector_control = at
            at = following
        if self.msix:
            self.enable_msix()

    def enable_msix(self):
        control = self.config_read(self.vector_control + 2, 2)
        self.vectors = (control & 0x7FF) + 1
        table = self.config_read(self.vector_control + 4, 4)
        self.table = self.bars[table & 7] + (table & ~7)
        for vector in range(self.vectors):
            self.map.write(self.table + 16 * vector, 8, 0xFEE0_0000)
            self.map.write(self.table + 16 * vector + 8, 4, vector)
            self.map.write(self.table + 16 * vector + 12, 4, 0)
        self.config_write(self.vector_control + 2, 2, 0x8000)

    def get(self, offset, size):
        return self.map.read(self.parts[1] + offset, size)

    def put(self, offset, size, value):
        self.map.write(self.parts[1] + offset, size, value)

    def features(self):
        self.put(0, 4, 0)
        low = self.get(4, 4)
        self.put(0, 4, 1)
        return low | self.get(4, 4) << 32

    def accept(self, features):
        for select in (0, 1):
            self.put(8, 4, select)
            self.put(12, 4, features >> 32 * select & 0xFFFFFFFF)

    @property
    def status(self):
        return self.get(20, 1)

    @status.setter
    def status(self, value):
        self.put(20, 1, value)
        if self.msix and value & 2 and not value & 8:
            self.put(16, 2, 0)

    def maximum(self, queue):
        self.put(22, 2, queue)
        return self.get(24, 2)

    def enable(self, queue, size, *areas):
        self.put(22, 2, queue)
        self.put(24, 2, size)
        for offset, address in zip((32, 40, 48), areas, strict=True):
            self.put(offset, 4, address & 0xFFFFFFFF)
            self.put(offset + 4, 4, address >> 32)
        if self.msix:
            self.put(26, 2, 1 + queue)
            assert self.get(26, 2) == 1 + queue or not self.get(24, 2)
        self.put(28, 2, 1)

    def reset_queue(self, queue):
        self.put(22, 2, queue)
        self.put(58, 2, 1)
        return self.get(58, 2), self.get(28, 2)

    def notify(self, queue):
        self.put(22, 2, queue)
        self.map.write(self.parts[2] + self.get(30, 2) * self.multiplier, 2, queue)

    def config(self, offset, size):
        return self.map.read(self.parts[4] + offset, size)

    def set_config(self, offset, size, value):
        self.map.write(self.parts[4] + offset, size, value)

    def interrupts(self):
        if self.msix:
            vectors = {data for _, data in self.messages}
            self.messages.clear()
            return (2 if 0 in vectors else 0) | (1 if vectors - {0} else 0)
        level = self.wires[self.slot % 4].level
        causes = self.map.read(self.parts[3], 1)
        assert level == bool(causes)
        assert not any(wire.level for wire in self.wires)
        return causes


class Guest:
    """A driver that has found its device and made it ready."""

    def __init__(
        self, device, memory=None, *, port=MmioPort, features=0, queues=None, sizes=None, always=VERSION_1
    ):
        self.device = device
        self.memory = memory or device.memory
        self.allocator = Allocator(self.memory)
        self.port = port(device)
        self.features = features | always
        self.queues = {}
        self.start(queues, sizes)

    def start(self, queues=None, sizes=None):
        """Section 3.1.1."""
        port = self.port
        port.status = 0
        assert port.status == 0
        port.status = 1
        port.status = 3
        offered = port.features()
        self.features &= offered
        port.accept(self.features)
        port.status = 11
        assert port.status == 11, "the device does not agree"
        for index in range(64) if queues is None else queues:
            maximum = port.maximum(index)
            if maximum:
                self.set_up(index, min(maximum, (sizes or {}).get(index, maximum)))
        port.status = 15
        assert port.status == 15

    def set_up(self, index, size):
        kind = PackedDriver if self.features & PACKED else SplitDriver
        queue = self.queues[index] = kind(self.allocator, size, self.features)
        self.port.enable(index, size, queue.descriptors, queue.driver, queue.device)

    def request(self, queue, readable=(), writable=(), **options):
        """Ask and wait for the answer: (bytes of the writable buffers, how many were written)."""
        self.queues[queue].add(readable, writable, **options)
        self.port.notify(queue)
        ((buffers, written),) = self.queues[queue].used()
        return buffers.answer(), written


RINGS = list(itertools.product((0, PACKED), (0, EVENT_IDX), (0, INDIRECT)))
