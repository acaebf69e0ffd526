"""The platform chips against QEMU's: the same accesses, the same answers, the same interrupts."""

import random

import pytest

from anyvirt.devices.bus import Wire
from anyvirt.devices.cfi_flash import BLOCK_SIZE, CfiFlash
from anyvirt.devices.clint import Clint
from anyvirt.devices.clock import VirtualClock
from anyvirt.devices.goldfish_rtc import GoldfishRtc
from anyvirt.devices.plic import Plic
from anyvirt.devices.uart16550 import Uart16550

from .qtest import Qtest

PLIC, CLINT, UART, RTC, FLASH = 0xC000000, 0x2000000, 0x10000000, 0x101000, 0x20000000
SEEDS = range(4)
WORD = 2**32 - 1


@pytest.fixture
def qemu(tmp_path):
    machine = Qtest(tmp_path)
    yield machine
    machine.close()


class Pair:
    """A chip of QEMU's and one of ours, which are told the same."""

    def __init__(self, qemu, base, device):
        self.qemu, self.base, self.device = qemu, base, device
        self.history = []

    def read(self, offset, size=4, mask=-1):
        """Load from both; they must agree."""
        theirs, ours = self.qemu.read(self.base + offset, size), self.device.read(offset, size)
        self.history.append(f"read {offset:#x} {size} -> {theirs:#x}")
        assert ours & mask == theirs & mask, f"{ours:#x} after {self.recent()}"
        return ours

    def write(self, offset, value, size=4):
        """Store to both."""
        self.history.append(f"write {offset:#x} {size} {value:#x}")
        self.qemu.write(self.base + offset, size, value)
        self.device.write(offset, size, value)

    def recent(self):
        """What came before a difference."""
        return "; ".join(self.history[-14:])

    def lines(self, expected):
        """Compare what is driven: QEMU's numbers of the lines, and ours."""
        theirs = {number: level for number, level in self.qemu.lines.items() if level}
        ours = {number: True for number, wire in expected.items() if wire.level}
        assert ours == theirs, self.recent()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("edges", [False, True], ids=["levels", "edges"])
def test_plic(qemu, seed, edges):
    choose = random.Random(seed)
    path = qemu.path("riscv.sifive.plic")
    qemu.watch_outputs(path)
    wires = [Wire() for _ in range(4)]
    # Contexts are M and S mode of each hart; QEMU numbers the lines by modes.
    lines = {2: wires[0], 0: wires[1], 3: wires[2], 1: wires[3]}
    pair = Pair(qemu, PLIC, Plic(wires, sources=95, edges=range(96) if edges else ()))
    sources = (1, 2, 10, 11, 31, 32, 35, 63, 64, 95)
    claimed = {}

    def drive(source, level):
        if edges and level:
            # There every level that is set is an edge.
            pair.device.sources[source].set(False)
        pair.history.append(f"drive {source} {level}")
        qemu.drive(path, source, level)
        pair.device.sources[source].set(level)

    for _ in range(700):
        context, source = choose.randrange(4), choose.choice(sources)
        match choose.randrange(7):
            case 0:
                pair.write(4 * source, choose.randrange(8))
            case 1:
                # There source 0 can be enabled.
                word = choose.randrange(3)
                pair.write(
                    0x2000 + 0x80 * context + 4 * word, choose.getrandbits(32) & (~1 if word == 0 else -1)
                )
                # QEMU 7.2 looks again when a threshold is written.
                pair.write(0x200000, pair.read(0x200000))
            case 2:
                pair.write(0x200000 + 0x1000 * context, choose.choice((0, 0, 1, 3, 7)))
            case 3 if edges or source not in claimed:
                # There an edge counts even if the level falls before completion.
                drive(source, source in claimed or choose.random() < 0.8)
            # QEMU 7.2 lets the threshold hold back claims, too, unlike the specification.
            case 4 if wires[context].level:
                number = pair.read(0x200004 + 0x1000 * context)
                claimed[number] = context
                if not edges:
                    # There it takes another edge, not the level, to become pending again.
                    drive(number, False)
            case 5 if claimed:
                number, context = claimed.popitem()
                enabled = pair.read(0x2000 + 0x80 * context + number // 32 * 4)
                if enabled >> number % 32 & 1:
                    pair.write(0x200004 + 0x1000 * context, number)
                else:
                    claimed[number] = context
            case _:
                pair.read(choose.choice((4 * source, 0x1000, 0x1004, 0x1008, 0x2000 + 0x80 * context)))
                pair.read(0x200000 + 0x1000 * context)
        pair.lines(lines)


@pytest.mark.parametrize(("kind", "seed"), [(kind, seed) for kind in ("mtimer", "swi") for seed in SEEDS])
def test_clint(qemu, kind, seed):
    choose = random.Random(seed)
    qemu.watch_outputs(qemu.path(f"riscv.aclint.{kind}"))
    software, timers = [Wire(), Wire()], [Wire(), Wire()]
    pair = Pair(qemu, CLINT, Clint(VirtualClock(), software=software, timers=timers))
    for register in (0x4000, 0x4008):
        pair.write(register, 2**64 - 1, 8)
    for _ in range(400):
        hart, size = choose.randrange(2), choose.choice((4, 8))
        half = choose.choice((0, 8 - size))
        value = choose.choice((0, 1, 5, 1 << 32, (1 << 32) + 5, choose.getrandbits(63)))
        match choose.randrange(5):
            case 0:
                pair.write(4 * hart, choose.getrandbits(32))
            case 1:
                pair.write(0x4000 + 8 * hart + half, value & (1 << 8 * size) - 1, size)
                if kind == "mtimer":
                    pair.lines(dict(enumerate(timers)))
            case 2:
                pair.write(0xBFF8 + half, value & (1 << 8 * size) - 1, size)
                # QEMU compares when MTIMECMP is written.
                for register in (0x4000, 0x4008):
                    pair.write(register, pair.read(register, 8), 8)
                if kind == "mtimer":
                    pair.lines(dict(enumerate(timers)))
            case _:
                for register in (0, 0x4000, 0x4008, 0xBFF8):
                    pair.read(register, 8)
                for register in (4, 8, 0x4000 + 4 * choose.randrange(4), 0x4010, 0xBFF8, 0xBFFC):
                    pair.read(register, 4)
        if kind == "swi":
            pair.lines(dict(enumerate(software)))


@pytest.mark.parametrize("seed", range(8))
def test_uart(qemu, seed):
    choose = random.Random(seed)
    qemu.watch_inputs(qemu.path("riscv.sifive.plic"))
    wire, printed = Wire(), bytearray()
    pair = Pair(qemu, UART, Uart16550(VirtualClock(), wire, output=printed.extend))
    pair.write(4, 0, 1)
    for _ in range(1500):
        register = choose.choice((0, 0, 0, 1, 1, 2, 2, 3, 4, 5, 5, 6, 7))
        if choose.randrange(2):
            value = choose.getrandbits(8)
            if register == 1:
                # Ours have changes of the modem's lines in loopback, as the data sheet says.
                value &= 0x7
            if register == 3 and choose.randrange(3):
                value &= 0x7F
            if register == 4 and choose.randrange(3):
                value |= 0x10
            pair.write(register, value, 1)
        else:
            pair.read(register, 1, mask=0xF0 if register == 6 else 0xFF)
        pair.lines({10: wire})


@pytest.mark.parametrize("seed", SEEDS)
def test_real_time_clock(qemu, seed):
    choose = random.Random(seed)
    qemu.watch_inputs(qemu.path("riscv.sifive.plic"))
    wire, clock = Wire(), VirtualClock()
    pair = Pair(qemu, RTC, GoldfishRtc(clock, wire, start=0))
    for _ in range(600):
        register = choose.choice((0x08, 0x0C, 0x10, 0x10, 0x14, 0x1C))
        value = choose.choice((0, 1, 0x1700_0000, choose.getrandbits(32), WORD >> 1))
        match choose.randrange(6):
            case 0:
                # QEMU's alarm does not notice that the time is changed.
                pair.write(0x14, 1)
                for part in (4, 0):
                    pair.write(part, choose.choice((0x1700_0000, value & WORD >> 1)))
                pair.read(0)
                pair.read(4)
            case 1 | 2:
                pair.write(register, value & (WORD >> 1 if register == 0x0C else WORD))
            case _:
                for part in (0x08, 0x0C, 0x10, 0x18, 0x1C, 0x14):
                    pair.read(part)
        pair.lines({11: wire})


def test_flash(qemu):
    choose = random.Random(0)
    size = 32 << 20
    # QEMU's bank without an image is all zeros.
    pair = Pair(qemu, FLASH, CfiFlash(bytearray(size)))
    both = 0x10001

    def command(offset, value):
        pair.write(offset, value * both)

    def finish():
        assert pair.read(0) == 0x80 * both
        command(0, 0xFF)

    command(0x55 * 4, 0x98)
    for word in (*range(0x10, 0x1B), 0x27, 0x28, 0x2C, 0x2D, 0x2E, 0x2F, 0x30, *range(0x31, 0x34)):
        pair.read(word * 4)
    command(0, 0xFF)
    command(0, 0x90)
    pair.read(0)
    pair.read(4)
    command(0, 0xFF)
    for block in (0, 5, 127):
        start = block * BLOCK_SIZE
        command(start, 0x20)
        command(start, 0xD0)
        finish()
        for offset in (0, 4, BLOCK_SIZE - 4):
            assert pair.read(start + offset) == WORD
            command(start + offset, 0x40)
            pair.write(start + offset, choose.getrandbits(32))
            finish()
        command(start, 0xE8)
        pair.read(start)
        command(start, 15)
        for word in range(16):
            pair.write(start + 0x100 + 4 * word, choose.getrandbits(32))
        command(start, 0xD0)
        finish()
        for offset in (*range(0, 0x150, 4), BLOCK_SIZE - 8, BLOCK_SIZE - 4):
            pair.read(start + offset)
        for width in (1, 2, 4, 8):
            pair.read(start + 0x100 + width, width)
