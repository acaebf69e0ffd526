"""The clocks of machines: order, cancelling, pauses, and times that can be repeated."""

import time

from anyvirt.devices.clock import SECOND, HostClock, VirtualClock


def test_alarms_ring_in_order_each_at_its_time():
    clock, rung = VirtualClock(100), []
    clock.call_at(300, lambda: rung.append(("c", clock.now())))
    clock.call_at(200, lambda: rung.append(("a", clock.now())))
    clock.call_at(200, lambda: rung.append(("b", clock.now())))
    clock.call_at(50, lambda: rung.append(("late", clock.now())))
    clock.advance_to(250)
    assert rung == [("late", 100), ("a", 200), ("b", 200)]
    assert clock.now() == 250
    assert clock.next_alarm() == 300


def test_an_alarm_may_set_another():
    clock, rung = VirtualClock(), []

    def again():
        rung.append(clock.now())
        if len(rung) < 4:
            clock.call_at(clock.now() + 10, again)

    clock.call_at(10, again)
    clock.advance_to(1000)
    assert rung == [10, 20, 30, 40]


def test_cancelled_alarms_do_not_ring():
    clock, rung = VirtualClock(), []
    alarm = clock.call_at(10, lambda: rung.append(1))
    assert alarm.is_pending
    alarm.cancel()
    assert clock.next_alarm() is None
    clock.advance_to(20)
    assert rung == []
    assert not alarm.is_pending


def test_whoever_waits_hears_of_earlier_alarms_only():
    clock, heard = VirtualClock(), []
    clock.on_earlier = lambda: heard.append(clock.next_alarm())
    for when in (500, 700, 300):
        clock.call_at(when, lambda: None)
    assert heard == [500, 300]


def test_cancelled_alarms_do_not_pile_up():
    clock, rung = VirtualClock(), []
    for when in range(1_000_000, 900_000, -10):
        clock.call_at(when, lambda: rung.append("cancelled")).cancel()
    for when in (300, 100, 200):
        clock.call_at(when, lambda when=when: rung.append(when))
    assert len(clock._agenda) < 200
    clock.advance_to(2_000_000)
    assert rung == [100, 200, 300]


def test_time_does_not_go_back():
    clock = VirtualClock(1000)
    clock.advance_to(10)
    assert clock.now() == 1000


def test_the_hosts_clock_stands_still_during_a_pause():
    clock = HostClock(5 * SECOND)
    assert clock.now() >= 5 * SECOND
    clock.pause()
    stood = clock.now()
    time.sleep(0.02)
    assert clock.now() == stood
    clock.resume()
    assert stood <= clock.now() < stood + 10 * SECOND
    time.sleep(0.02)
    assert clock.now() > stood + SECOND // 100
