"""The clock that asks running CPUs where they are."""

import gc
import os
import threading
import time
import weakref

import pytest

from anyvirt.cpu import ticker
from anyvirt.cpu.host import host
from anyvirt.cpu.ticker import LONGEST, SHORTEST, Pace, Ticker
from anyvirt.jit.layout import Request, Slot

PATIENCE = 30.0

# Python 3.12 and later warn of what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


def eventually(condition):
    """Wait for a condition."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.001)


class State:
    """A state block as if its CPU ran, or not."""

    def __init__(self):
        import ctypes

        self.address = host().take_state()
        self.stack = ctypes.c_uint64.from_address(self.address + Slot.STACK)
        self.request = ctypes.c_uint8.from_address(self.address + Slot.PENDING + Request.SAMPLE)


@pytest.fixture
def state():
    state = State()
    yield state
    state.stack.value = 0
    host().give_state(state.address)


def test_only_a_running_cpu_is_asked(state):
    clock = Ticker(state.address)
    assert not clock.look()
    assert state.request.value == 0
    state.stack.value = 1
    assert clock.look()
    assert state.request.value == 1


def test_it_asks_again_and_again(state):
    state.stack.value = 1
    clock = Ticker(state.address)
    clock.start()
    for _ in range(5):
        eventually(lambda: state.request.value)
        state.request.value = 0


def test_it_stops_when_the_cpu_does_not_run_and_starts_again(state):
    clock = Ticker(state.address)
    clock.start()
    eventually(lambda: clock._thread is None)
    state.stack.value = 1
    clock.start()
    eventually(lambda: state.request.value)


def test_a_start_in_the_last_moment_is_not_lost(state, monkeypatch):
    """The CPU looks for the thread, finds it, and begins to run while the thread decides to end."""

    class LastMoment(Ticker):
        def __setattr__(self, name, value):
            if name == "_thread" and value is None and self.__dict__.get("_thread") is not None:
                self.start()
                state.stack.value = 1
            super().__setattr__(name, value)

    monkeypatch.setattr(ticker, "_IDLE_LOOKS", 1)
    clock = LastMoment(state.address)
    clock.start()
    eventually(lambda: state.request.value)
    assert clock._thread is not None


def test_it_ends_with_its_cpu(state):
    state.stack.value = 1
    clock = Ticker(state.address)
    clock.start()
    thread, gone = clock._thread, weakref.ref(clock)
    del clock
    gc.collect()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert gone() is None


def test_it_looks_more_rarely_when_there_is_nothing_new(state):
    clock = Ticker(state.address)
    intervals = []
    for _ in range(8):
        clock.rest(Pace.LATER)
        intervals.append(clock._interval)
    assert intervals == sorted(intervals)
    assert intervals[-1] == LONGEST
    clock.rest(Pace.STEADY)
    assert SHORTEST < clock._interval < LONGEST
    clock.rest(Pace.SOON)
    assert clock._interval == SHORTEST


def test_looks_have_only_a_part_of_the_time(state):
    clock = Ticker(state.address)
    clock.rest(Pace.SOON, 0.05)
    assert clock._interval == SHORTEST
    clock.rest(Pace.SOON, 0.1)
    assert clock._interval > LONGEST
    clock._last -= 60
    clock.rest(Pace.SOON)
    assert clock._interval == SHORTEST
    # A long time without looks is none that can be spent later.
    clock.rest(Pace.SOON, 0.2)
    assert clock._interval > LONGEST


def test_looks_have_as_much_as_they_are_given(state):
    modest, eager = Ticker(state.address), Ticker(state.address, 0.5)
    for clock in (modest, eager):
        clock.rest(Pace.SOON, 0.2)
        clock._last -= 0.3
        clock.rest(Pace.SOON)
    assert eager._interval == SHORTEST
    assert modest._interval > LONGEST


def test_looks_have_the_usual_part_while_there_is_no_news(state):
    clock = Ticker(state.address, 0.5)
    clock.rest(Pace.STEADY, 0.2)
    clock._last -= 0.3
    clock.rest(Pace.STEADY)
    assert clock._interval > LONGEST


def test_it_goes_on_after_a_look_that_was_followed_by_a_long_pause(state):
    """Such as that for what has to be compiled first; the run has not ended for it."""
    clock = Ticker(state.address)
    clock.start()
    eventually(lambda: clock._thread is None)
    state.stack.value = 1
    clock.rest(Pace.SOON)
    eventually(lambda: state.request.value)


def test_its_thread_takes_no_signals(state, monkeypatch):
    """They are for threads that run guests, and one that sleeps would have to wake up."""
    masks = []
    looked = threading.Event()

    def look(self):
        import signal

        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        looked.set()
        return False

    monkeypatch.setattr(Ticker, "look", look)
    monkeypatch.setattr(ticker, "_IDLE_LOOKS", 1)
    Ticker(state.address).start()
    clock = Ticker(state.address)
    clock.start()
    assert looked.wait(PATIENCE)
    eventually(lambda: clock._thread is None)
    import signal

    assert {signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGALRM} <= masks[0]


def test_a_child_starts_its_own(state):
    state.stack.value = 1
    clock = Ticker(state.address)
    clock.start()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if clock._thread is None and threading.active_count() == 1:
                state.request.value = 0
                state.stack.value = 1
                clock.start()
                eventually(lambda: state.request.value)
                status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
