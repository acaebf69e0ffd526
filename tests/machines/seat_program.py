"""A guest without an operating system that drives virtio devices on PCI, by a list of stores and waits.

What it does with devices is written from the driver's sections of VIRTIO 1.2.
"""

import struct

from anyvirt.isa.riscv64_system import riscv64_system

START, LIST, RINGS, DATA, PICTURE = 0x8000_0000, 0x8000_1000, 0x8001_0000, 0x8004_0000, 0x8010_0000
ECAM, BARS = 0x3000_0000, 0x4000_0000
STEP = 0x10503
"""The difference between neighbouring pixels of a picture."""
NEXT, WRITE = 1, 2
VERSION_1 = 1 << 32
END, WAIT, FILL = 0, 16, 32
EV_SYN, EV_KEY, EV_REL, EV_ABS = range(4)
ENOUGH = 100_000
"""Instructions for everything that guests do here."""

PROGRAM = """
    auipc s0, 1                 # the list: operation, address, value
next:
    ld t0, 0(s0)
    ld a0, 8(s0)
    ld a1, 16(s0)
    addi s0, s0, 24
    beq t0, zero, off
    addi t1, zero, 1
    beq t0, t1, byte
    addi t1, zero, 2
    beq t0, t1, half
    addi t1, zero, 4
    beq t0, t1, word
    addi t1, zero, 8
    beq t0, t1, double
    addi t1, zero, 16
    beq t0, t1, wait
fill:                           # with so many pixels, each of them more than the last
    lui t3, 0x10
    addi t3, t3, 0x503
    addi t2, zero, 0
pixel:
    sw t2, 0(a0)
    add t2, t2, t3
    addi a0, a0, 4
    addi a1, a1, -1
    bne a1, zero, pixel
    jal zero, next
byte:
    sb a1, 0(a0)
    jal zero, next
half:
    sh a1, 0(a0)
    jal zero, next
word:
    sw a1, 0(a0)
    jal zero, next
double:
    sd a1, 0(a0)
    jal zero, next
wait:                           # until that is there
    lhu t1, 0(a0)
    bne t1, a1, wait
    jal zero, next
off:
    lui t0, 0x100
    lui t1, 0x5
    addi t1, t1, 0x555
    sw t1, 0(t0)
stop:
    jal zero, stop
"""


def binary():
    return riscv64_system.assemble(PROGRAM, pc=START)


def picture(count):
    """What FILL stores."""
    return b"".join(struct.pack("<I", number * STEP & 0xFFFFFFFF) for number in range(count))


class Script:
    """What the guest is to do."""

    def __init__(self, machine):
        self.machine = machine
        self.steps = []
        self.data = DATA

    def do(self, operation, address, value):
        self.steps.append(struct.pack("<QQQ", operation, address, value))

    def wait(self, address, value):
        """Until there is a value of 16 bits."""
        self.do(WAIT, address, value)

    def load(self):
        """Put it where the guest looks for it, with power off at its end."""
        self.do(END, 0, 0)
        content = b"".join(self.steps)
        assert LIST + len(content) <= RINGS
        self.machine.memory[LIST : LIST + len(content)] = content

    def place(self, content):
        """Put something into memory, and say where."""
        address = self.data
        if content:
            self.machine.memory[address : address + len(content)] = content
        self.data += -(-max(len(content), 1) // 16) * 16
        return address


class Card:
    """One device: found in its slot, and made ready by steps of a script."""

    def __init__(self, script, slot, *, features=0, queues=2):
        self.script, self.machine = script, script.machine
        config, bar = ECAM + (slot << 15), BARS + 0x10_0000 * slot
        parts = self.parts(config)
        script.do(4, config + 0x10 + 4 * parts[1][0], bar)
        script.do(4, config + 0x14 + 4 * parts[1][0], 0)
        script.do(2, config + 4, 6)
        self.common, self.notify = bar + parts[1][1], bar + parts[2][1]
        self.configuration, self.multiplier = bar + parts[4][1], parts[2][2]
        for status in (0, 1, 3):
            script.do(1, self.common + 20, status)
        for select, word in ((0, features & 0xFFFFFFFF), (1, VERSION_1 >> 32)):
            script.do(4, self.common + 8, select)
            script.do(4, self.common + 12, word)
        script.do(1, self.common + 20, 11)
        self.rings = [RINGS + 0x6000 * slot + 0x2000 * queue for queue in range(queues)]
        self.counts = [0] * queues
        for queue, ring in enumerate(self.rings):
            script.do(2, self.common + 22, queue)
            script.do(2, self.common + 24, 16)
            for offset, area in ((32, ring), (40, ring + 0x800), (48, ring + 0x1000)):
                script.do(8, self.common + offset, area)
            script.do(2, self.common + 28, 1)
        script.do(1, self.common + 20, 15)

    def read(self, address, size):
        return int.from_bytes(self.machine.memory[address : address + size], "little")

    def parts(self, config):
        """By their types: the BAR, the offset in it, and what follows."""
        found, at = {}, self.read(config + 0x34, 1)
        while at:
            if self.read(config + at, 1) == 9:
                kind, bar = self.read(config + at + 3, 1), self.read(config + at + 4, 1)
                offset = self.read(config + at + 8, 4)
                found.setdefault(kind, (bar, offset, self.read(config + at + 16, 4)))
            at = self.read(config + at + 1, 1)
        return found

    def offer(self, queue, readable, writable=0):
        """Make a chain available; where the answer will be."""
        ring, count = self.rings[queue], self.counts[queue]
        assert count < 8, "each chain has descriptors of its own"
        memory, head = self.machine.memory, 2 * count
        answer = self.script.place(bytes(writable))
        entries = []
        if readable:
            entries.append((self.script.place(readable), len(readable), NEXT if writable else 0))
        if writable:
            entries.append((answer, writable, WRITE))
        for number, (address, length, flags) in enumerate(entries, head):
            start = ring + 16 * number
            memory[start : start + 16] = struct.pack("<QIHH", address, length, flags, number + 1)
        start = ring + 0x800 + 4 + 2 * count
        memory[start : start + 2] = struct.pack("<H", head)
        self.counts[queue] += 1
        return answer

    def kick(self, queue):
        """Tell the device of all that was offered."""
        script, ring = self.script, self.rings[queue]
        script.do(2, ring + 0x800 + 2, self.counts[queue])
        script.do(2, self.notify + queue * self.multiplier, queue)

    def finish(self, queue, count=None):
        """Wait until so many chains, or all, have come back."""
        self.script.wait(self.rings[queue] + 0x1000 + 2, self.counts[queue] if count is None else count)


class GpuCard(Card):
    """Section 5.7.6."""

    def __init__(self, script, slot=1):
        super().__init__(script, slot, features=1 << 1)

    def ask(self, command, layout="", *values, room=24, queue=0):
        request = struct.pack("<IIQIB3x" + layout, command, 0, 0, 0, 0, *values)
        return self.offer(queue, request, room)

    def draw(self, width, height, format=1):
        """Make a resource, fill it, and show it."""
        self.ask(0x101, "4I", 1, format, width, height)
        self.ask(0x106, "IIQI4x", 1, 1, PICTURE, 4 * width * height)
        self.ask(0x105, "4IQI4x", 0, 0, width, height, 0, 1)
        self.ask(0x103, "6I", 0, 0, width, height, 0, 1)
        self.ask(0x104, "5I4x", 0, 0, width, height, 1)


def keys_of(machine, card, count):
    """The events that the guest has received."""
    found = []
    for number in range(count):
        (address,) = struct.unpack_from(
            "<Q", machine.memory[card.rings[0] + 32 * number : card.rings[0] + 32 * number + 8]
        )
        found.append(struct.unpack("<HHi", machine.memory[address : address + 8]))
    return found


def listening(machine, slot, count):
    """Let a machine's guest wait for so many events of an input device."""
    script = Script(machine)
    card = Card(script, slot)
    for _ in range(count):
        card.offer(0, b"", 8)
    card.kick(0)
    card.finish(0, count)
    return script, card


def strokes(*keys):
    return [event for key, value in keys for event in ((EV_KEY, key, value), (EV_SYN, 0, 0))]
