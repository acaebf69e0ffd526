"""When a machine counts as at rest, and what is given back then."""

import types

import pytest

from anyvirt.machines import rest
from anyvirt.machines.rest import PERIOD, Rest


class Clock:
    """The host's clock, and how much of its time has been taken."""

    def __init__(self):
        self.now = self.spent = 100.0

    def go(self, seconds, share):
        self.now += seconds
        self.spent += seconds * share


class Memory:
    """Takes notice of what is asked of it."""

    def __init__(self):
        self.discards = 0
        self.answer = True

    def discard_code(self):
        self.discards += 1
        return self.answer


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    times = types.SimpleNamespace(monotonic=lambda: clock.now, process_time=lambda: clock.spent)
    monkeypatch.setattr(rest, "time", times)
    return clock


def test_code_is_given_back_once_after_each_busy_time(clock):
    memory = Memory()
    found = Rest(memory)
    for _ in range(2):
        clock.go(PERIOD, 1.0)
        before = memory.discards
        assert found.look() == PERIOD
        assert memory.discards == before
        clock.go(PERIOD / 2, 0.01)
        assert found.look() == pytest.approx(PERIOD / 2)
        for _ in range(3):
            clock.go(PERIOD, 0.01)
            assert found.look() is None
            assert memory.discards == before + 1


def test_it_is_tried_again_if_a_cpu_was_running(clock):
    memory = Memory()
    memory.answer = False
    found = Rest(memory)
    clock.go(PERIOD, 0.01)
    assert found.look() == PERIOD
    memory.answer = True
    clock.go(PERIOD, 0.01)
    assert found.look() is None
    assert memory.discards == 2
