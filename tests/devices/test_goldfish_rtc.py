"""The Goldfish real-time clock: a time read in halves, an alarm, its interrupt."""

import pytest

from anyvirt.devices.bus import Wire
from anyvirt.devices.clock import SECOND, VirtualClock
from anyvirt.devices.goldfish_rtc import GoldfishRtc, Register

START = 1_767_225_600 * SECOND


@pytest.fixture
def rtc():
    clock, wire = VirtualClock(), Wire()
    chip = GoldfishRtc(clock, wire, start=START)
    chip.clock, chip.wire = clock, wire
    return chip


def set_alarm(rtc, when):
    rtc.write(Register.IRQ_ENABLED, 4, 1)
    rtc.write(Register.ALARM_HIGH, 4, when >> 32)
    rtc.write(Register.ALARM_LOW, 4, when & 0xFFFF_FFFF)


def test_the_high_half_is_of_when_the_low_one_was_read(rtc):
    rtc.clock.advance_to((1 << 32) - 1 - START % (1 << 32))
    assert rtc.read(Register.TIME_LOW, 4) == 0xFFFF_FFFF
    rtc.clock.advance_to(rtc.clock.now() + 1)
    assert rtc.read(Register.TIME_HIGH, 4) == START >> 32
    assert rtc.read(Register.TIME_LOW, 4) == 0
    assert rtc.read(Register.TIME_HIGH, 4) == (START >> 32) + 1


def test_linux_sets_the_time_high_half_first(rtc):
    rtc.write(Register.TIME_HIGH, 4, 5)
    rtc.write(Register.TIME_LOW, 4, 6)
    rtc.clock.advance_to(10)
    assert rtc.time() == (5 << 32) + 16


def test_an_alarm_rings_once_until_it_is_cleared(rtc):
    set_alarm(rtc, START + 1000)
    assert rtc.read(Register.ALARM_STATUS, 4) == 1
    rtc.clock.advance_to(999)
    assert not rtc.wire.level
    rtc.clock.advance_to(1000)
    assert rtc.wire.level
    assert rtc.read(Register.ALARM_STATUS, 4) == 0
    rtc.write(Register.CLEAR_INTERRUPT, 4, 1)
    rtc.clock.advance_to(10_000)
    assert not rtc.wire.level


def test_an_alarm_in_the_past_rings_at_once(rtc):
    set_alarm(rtc, START - 1)
    assert rtc.wire.level


def test_the_interrupt_can_be_disabled_and_the_alarm_cleared(rtc):
    set_alarm(rtc, START + 10)
    rtc.write(Register.IRQ_ENABLED, 4, 0)
    rtc.clock.advance_to(20)
    assert not rtc.wire.level
    rtc.write(Register.IRQ_ENABLED, 4, 1)
    assert rtc.wire.level
    rtc.write(Register.CLEAR_INTERRUPT, 4, 1)
    set_alarm(rtc, START + 30)
    rtc.write(Register.CLEAR_ALARM, 4, 1)
    rtc.clock.advance_to(40)
    assert not rtc.wire.level


def test_setting_the_time_past_the_alarm_rings(rtc):
    set_alarm(rtc, START + SECOND)
    rtc.write(Register.TIME_HIGH, 4, (START >> 32) + 1)
    assert rtc.wire.level


def test_the_time_wraps_and_nothing_spins(rtc):
    rtc.write(Register.TIME_HIGH, 4, 0xFFFF_FFFF)
    rtc.write(Register.TIME_LOW, 4, 0xFFFF_FFFF)
    set_alarm(rtc, 1 << 63)
    rtc.write(Register.CLEAR_INTERRUPT, 4, 1)
    set_alarm(rtc, (1 << 64) - 1)
    rtc.clock.advance_to(100)
    assert rtc.time() == 99


def test_reset_leaves_the_time(rtc):
    set_alarm(rtc, START - 1)
    rtc.reset()
    assert not rtc.wire.level
    assert rtc.time() == START
