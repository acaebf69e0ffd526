"""The CLINT: software interrupts, the time by halves and whole, timers that are due."""

import pytest

from anyvirt.devices.bus import Wire
from anyvirt.devices.clint import Clint
from anyvirt.devices.clock import VirtualClock

MTIME = 0xBFF8
TICK = 100
"""Nanoseconds."""


@pytest.fixture
def clint():
    clock, software, timers = VirtualClock(), [Wire(), Wire()], [Wire(), Wire()]
    chip = Clint(clock, software=software, timers=timers)
    chip.clock, chip.software, chip.timers = clock, software, timers
    return chip


def test_software_interrupts_have_one_bit(clint):
    clint.write(4, 4, 0xFFFF_FFFF)
    assert clint.read(4, 4) == 1
    assert clint.read(0, 8) == 1 << 32
    assert [wire.level for wire in clint.software] == [False, True]
    clint.write(0, 8, 1)
    assert [wire.level for wire in clint.software] == [True, False]


def test_the_time_goes_at_ten_megahertz(clint):
    clint.clock.advance_to(12_345_678)
    assert clint.read(MTIME, 8) == 123_456
    clint.clock.advance_to((5 << 32) * TICK)
    assert (clint.read(MTIME, 4), clint.read(MTIME + 4, 4)) == (0, 5)


def test_a_timer_is_due_as_long_as_its_time_has_come(clint):
    clint.write(0x4008, 8, 50)
    clint.clock.advance_to(50 * TICK - 1)
    assert not clint.timers[1].level
    clint.clock.advance_to(50 * TICK)
    assert clint.timers[1].level
    clint.write(0x4008, 8, 51)
    assert not clint.timers[1].level
    clint.clock.advance_to(51 * TICK)
    assert [wire.level for wire in clint.timers] == [False, True]


def test_a_timer_may_be_set_earlier_and_later(clint):
    clint.write(0x4000, 8, 1000)
    clint.write(0x4000, 8, 10)
    clint.write(0x4000, 8, 500)
    for tick, level in ((10, False), (499, False), (500, True)):
        clint.clock.advance_to(tick * TICK)
        assert clint.timers[0].level is level


def test_a_comparison_value_is_written_by_halves(clint):
    clint.write(0x4000, 4, 7)
    assert clint.read(0x4000, 8) == 0xFFFF_FFFF_0000_0007
    clint.write(0x4004, 4, 0)
    assert (clint.read(0x4000, 4), clint.read(0x4004, 4)) == (7, 0)
    clint.clock.advance_to(7 * TICK)
    assert clint.timers[0].level


def test_the_time_can_be_set(clint):
    clint.write(0x4000, 8, 1000)
    clint.write(MTIME, 8, 999)
    assert not clint.timers[0].level
    clint.clock.advance_to(TICK)
    assert clint.timers[0].level
    clint.write(MTIME, 4, 0)
    assert not clint.timers[0].level
    clint.write(MTIME + 4, 4, 1)
    assert clint.timers[0].level


def test_the_time_wraps_and_nothing_spins(clint):
    clint.write(MTIME, 8, 2**64 - 1)
    clint.write(0x4000, 8, 2**63)
    clint.clock.advance_to(10 * TICK)
    assert clint.read(MTIME, 8) == 9
    assert not clint.timers[0].level


def test_reset_begins_the_time_anew(clint):
    clint.write(0, 4, 1)
    clint.write(0x4000, 8, 3)
    clint.clock.advance_to(1_000_000)
    clint.reset()
    assert clint.read(MTIME, 8) == 0
    assert not any(wire.level for wire in (*clint.software, *clint.timers))


def test_a_guest_that_sets_timers_all_the_time_fills_no_agenda(clint):
    for deadline in range(2**62, 2**62 - 5000, -1):
        clint.write(0x4000, 8, deadline)
    for deadline in range(50_000, 45_000, -1):
        clint.write(0x4000, 8, deadline)
    assert len(clint.clock._agenda) < 200


def test_each_hart_has_two_wires():
    with pytest.raises(ValueError, match="two wires"):
        Clint(VirtualClock(), software=[Wire()], timers=[])
