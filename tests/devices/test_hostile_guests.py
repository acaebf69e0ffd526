"""No guest can make a platform chip raise, hang, or differ from one that was restored from its state."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from anyvirt.devices.bus import StateError, Wire
from anyvirt.devices.cfi_flash import BLOCK_SIZE, CfiFlash
from anyvirt.devices.clint import Clint
from anyvirt.devices.goldfish_rtc import GoldfishRtc
from anyvirt.devices.plic import Plic
from anyvirt.devices.test_finisher import TestFinisher
from anyvirt.devices.uart16550 import Uart16550

from .hostile import Bench, HostileGuest, damaged


class PlicBench(Bench):
    def __init__(self, now=0):
        super().__init__(now)
        self.wires = [Wire() for _ in range(4)]
        self.device = Plic(self.wires, sources=40)


class GuestOfPlic(HostileGuest):
    bench = PlicBench
    size = Plic.size(4)
    interesting = (
        *range(0, 44 * 4, 4),
        *(0xFFC, 0x1000, 0x1004, 0x1008),
        *(0x2000 + 0x80 * context + word for context in range(5) for word in (0, 4, 8)),
        *(0x200000 + 0x1000 * context + word for context in range(5) for word in (0, 4, 8)),
    )

    @rule(source=st.integers(0, 40), level=st.booleans())
    def drive(self, source, level):
        self.all_do(lambda bench: bench.device.sources[source].set(level))

    @rule(context=st.integers(0, 3), source=st.integers(0, 40))
    def complete(self, context, source):
        self.all_do(lambda bench: bench.device.write(0x200004 + 0x1000 * context, 4, source))

    @rule(source=st.integers(1, 40), priority=st.integers(0, 7), context=st.integers(0, 3))
    def let_through(self, source, priority, context):
        offset, bit = 0x2000 + 0x80 * context + source // 32 * 4, 1 << source % 32
        self.all_do(lambda bench: bench.device.write(4 * source, 4, priority))
        self.all_do(lambda bench: bench.device.write(offset, 4, bench.device.read(offset, 4) | bit))

    @rule()
    def migrate(self):
        super().migrate()
        for old, new in zip(self.first.device.sources, self.twin.device.sources, strict=True):
            new.set(old.level)


class ClintBench(Bench):
    def __init__(self, now=0):
        super().__init__(now)
        self.wires = [Wire() for _ in range(6)]
        self.device = Clint(self.clock, software=self.wires[:3], timers=self.wires[3:])


class GuestOfClint(HostileGuest):
    bench = ClintBench
    size = 0x10000
    interesting = (*range(0, 20, 4), *range(0x4000, 0x4020, 4), 0xBFF8, 0xBFFC)

    @rule(hart=st.integers(0, 2), ticks=st.integers(-5, 100_000))
    def set_timer(self, hart, ticks):
        deadline = max(self.first.device.mtime() + ticks, 0)
        self.all_do(lambda bench: bench.device.write(0x4000 + 8 * hart, 8, deadline))


class UartBench(Bench):
    def __init__(self, now=0):
        super().__init__(now)
        self.wires = [Wire()]
        self.printed = bytearray()
        self.asked = 0
        self.device = Uart16550(self.clock, self.wires[0], output=self.printed.extend)
        self.device.on_room = self.note_room

    def note_room(self):
        self.asked += 1
        self.device.input(b"more")


class GuestOfUart(HostileGuest):
    bench = UartBench
    size = 256
    interesting = tuple(range(8))

    @rule(data=st.binary(max_size=20))
    def type(self, data):
        taken = self.all_do(lambda bench: bench.device.input(data))
        assert 0 <= taken <= min(len(data), 16)

    @rule()
    def hang_up(self):
        self.all_do(lambda bench: bench.device.receive_break())

    @rule()
    def migrate(self):
        super().migrate()
        self.twin.printed[:] = self.first.printed
        self.twin.device._refused = self.first.device._refused

    @rule()
    def look_at_the_terminal(self):
        self.all_do(lambda bench: bench.device.flush())
        self.all_do(lambda bench: bytes(bench.printed))


class RtcBench(Bench):
    def __init__(self, now=0):
        super().__init__(now)
        self.wires = [Wire()]
        self.device = GoldfishRtc(self.clock, self.wires[0], start=1_700_000_000 * 10**9)


class GuestOfRtc(HostileGuest):
    bench = RtcBench
    size = 0x1000
    interesting = tuple(range(0, 0x20, 4))

    @rule(delay=st.integers(-10, 1_000_000))
    def set_alarm(self, delay):
        when = max(self.first.device.time() + delay, 0)
        for offset, value in ((0x0C, when >> 32), (0x08, when), (0x10, 1)):
            self.all_do(lambda bench, o=offset, v=value: bench.device.write(o, 4, v & 0xFFFF_FFFF))


class FinisherBench(Bench):
    def __init__(self, now=0):
        super().__init__(now)
        self.finishes = []
        self.device = TestFinisher(self.finishes.append)


class GuestOfFinisher(HostileGuest):
    bench = FinisherBench
    size = 0x1000
    interesting = (0, 1, 2, 4)

    @rule(code=st.integers(0, 2**32 - 1), kind=st.sampled_from((0x3333, 0x5555, 0x7777)))
    def finish(self, code, kind):
        self.all_do(lambda bench: bench.device.write(0, 4, (code << 16 | kind) & 0xFFFF_FFFF))


class FlashBench(Bench):
    def __init__(self, now=0):
        super().__init__(now)
        self.device = CfiFlash(bytearray(bytes(range(256)) * (2 * BLOCK_SIZE // 256)))


class GuestOfFlash(HostileGuest):
    bench = FlashBench
    size = 2 * BLOCK_SIZE
    interesting = (
        *range(0, 24, 2),
        0x40,
        0x44,
        0x48,
        0x54,
        0x4C,
        BLOCK_SIZE - 4,
        BLOCK_SIZE,
        2 * BLOCK_SIZE - 4,
    )

    @rule(
        block=st.integers(0, 1),
        command=st.sampled_from((0xFF, 0x90, 0x98, 0x70, 0x50, 0xE8, 0x40, 0x10, 0x20, 0x60, 0xD0, 1, 2)),
        lanes=st.sampled_from((0x10001, 1, 0x10000)),
        offset=st.integers(0, 3),
    )
    def command(self, block, command, lanes, offset):
        self.all_do(lambda bench: bench.device.write(block * BLOCK_SIZE + 4 * offset, 4, command * lanes))


GUESTS = (GuestOfPlic, GuestOfClint, GuestOfUart, GuestOfRtc, GuestOfFinisher, GuestOfFlash)


@pytest.mark.parametrize("guest", GUESTS, ids=lambda guest: guest.__name__)
def test_guests_that_do_anything(guest):
    examples, steps = (20, 25) if guest is GuestOfFlash else (60, 40)
    run_state_machine_as_test(
        guest,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


@pytest.mark.parametrize("guest", GUESTS, ids=lambda guest: guest.__name__)
def test_states_that_do_not_fit_are_refused_and_change_nothing(guest):
    device = guest.bench().device
    state = device.save_state()
    for wrong in damaged(state):
        with pytest.raises(StateError):
            device.load_state(wrong)
    after = device.save_state()
    assert after == state
