"""Host signals while guest code runs or waits in a system call."""

import ctypes
import os
import signal
import struct
import threading
import time

import pytest

from anyvirt.cpu import signals
from anyvirt.cpu.executor import StopReason
from anyvirt.cpu.host import host
from anyvirt.cpu.interpreter import Interpreter
from anyvirt.cpu.memory import FlatMemory

# Python 3.12 and later warn of what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

CODE = 0x10000
LOOP = (0x6F).to_bytes(4, "little")
CLOCK_NANOSLEEP, GETPID, NANOSLEEP = 230, 39, 35
NOT_STARTED = -512


@pytest.fixture
def cpu():
    memory = FlatMemory()
    memory.map(CODE, 4096, 7)
    memory.write(CODE, LOOP)
    cpu = Interpreter("riscv64", memory)
    cpu.pc = CODE
    return cpu


@pytest.fixture
def collected():
    numbers = (signal.SIGUSR1, signal.SIGUSR2)
    signals.drain()
    for number in numbers:
        signals.install(number)
    yield numbers
    for number in numbers:
        signals.uninstall(number)
    signals.drain()


def later(action, seconds=0.1):
    threading.Timer(seconds, action).start()


def test_a_signal_stops_an_endless_loop(cpu, collected):
    later(lambda: os.kill(os.getpid(), signal.SIGUSR1))
    assert cpu.run().reason == StopReason.INTERRUPTED
    (arrived,) = signals.drain()
    assert arrived.number == signal.SIGUSR1
    assert arrived.code == 0  # SI_USER
    assert struct.unpack_from("<iii", arrived.information, 0)[0] == signal.SIGUSR1
    assert struct.unpack_from("<i", arrived.information, 16)[0] == os.getpid()
    assert signals.drain() == []


def test_signals_keep_their_order(collected):
    for number in (signal.SIGUSR2, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(os.getpid(), number)
    assert [item.number for item in signals.drain()] == [signal.SIGUSR2, signal.SIGUSR1, signal.SIGUSR2]


def test_a_signal_ends_a_blocking_call(cpu, collected):
    later(lambda: os.kill(os.getpid(), signal.SIGUSR1))
    interval = ctypes.create_string_buffer(struct.pack("<qq", 10, 0))
    start = time.monotonic()
    assert cpu.system_call(NANOSLEEP, ctypes.addressof(interval), 0) == -4
    assert time.monotonic() - start < 5


def test_a_call_is_not_begun_while_something_is_pending(cpu, collected):
    os.kill(os.getpid(), signal.SIGUSR1)
    assert cpu.system_call(GETPID) == NOT_STARTED
    assert cpu.run().reason == StopReason.INTERRUPTED
    assert cpu.system_call(GETPID) == os.getpid()


def test_no_signal_is_missed_between_check_and_call(cpu, collected):
    """Signals at random moments around the beginning of a call that would otherwise last forever."""
    process, stop = os.getpid(), threading.Event()

    def pester():
        while not stop.is_set():
            os.kill(process, signal.SIGUSR1)
            time.sleep(0.0005)

    thread = threading.Thread(target=pester)
    thread.start()
    interval = ctypes.create_string_buffer(struct.pack("<qq", 100, 0))
    try:
        for _ in range(300):
            assert cpu.system_call(NANOSLEEP, ctypes.addressof(interval), 0) in (-4, NOT_STARTED)
            assert cpu.run().reason == StopReason.INTERRUPTED
            signals.drain()
    finally:
        stop.set()
        thread.join()


def test_results_and_errors_of_calls_are_the_kernels(cpu):
    assert cpu.system_call(GETPID) == os.getpid()
    assert cpu.system_call(3, 987654) == -9  # close: EBADF


def test_a_flood_loses_signals_but_nothing_else(cpu, collected):
    before = signals.lost()
    for _ in range(1000):
        os.kill(os.getpid(), signal.SIGUSR1)
    arrived = signals.drain()
    assert 0 < len(arrived) < 1000
    assert signals.lost() - before == 1000 - len(arrived)
    assert cpu.run().reason == StopReason.INTERRUPTED


def test_uninstalling_gives_the_signal_back_to_python():
    seen = []
    previous = signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    try:
        signals.install(signal.SIGUSR1)
        assert signal.SIGUSR1 in signals.installed()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert not seen
        signals.uninstall(signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert seen == [signal.SIGUSR1]
        assert signal.SIGUSR1 not in signals.installed()
    finally:
        signal.signal(signal.SIGUSR1, previous)
        signals.drain()


def test_signals_that_cannot_be_caught_are_refused():
    with pytest.raises(OSError, match="Invalid argument"):
        signals.install(signal.SIGKILL)


def test_a_child_does_not_inherit_what_arrived(cpu, collected):
    os.kill(os.getpid(), signal.SIGUSR1)
    child = os.fork()
    if child == 0:
        os._exit(len(signals.drain()))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(signals.drain()) == 1


def test_a_cpu_that_belongs_to_a_thread_is_stopped_for_its_signals_alone(cpu, collected):
    """The thread that runs it, and another one of which it knows nothing."""
    cpu.belong_to(threading.get_native_id())
    ready, stop = threading.Event(), threading.Event()
    other = threading.Thread(target=lambda: (ready.set(), stop.wait(10)))
    other.start()
    ready.wait()
    try:
        signal.pthread_kill(other.ident, signal.SIGUSR1)
        deadline = time.monotonic() + 10
        while not (arrived := signals.drain(other.native_id)) and time.monotonic() < deadline:
            time.sleep(0.001)
        assert [(item.number, item.thread) for item in arrived] == [(signal.SIGUSR1, other.native_id)]
        assert cpu.system_call(GETPID) == os.getpid()
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)
        assert cpu.system_call(GETPID) == NOT_STARTED
        assert signals.drain(other.native_id) == []
        assert [item.number for item in signals.drain(threading.get_native_id())] == [signal.SIGUSR2]
        assert cpu.run().reason == StopReason.INTERRUPTED
    finally:
        stop.set()
        other.join()


@pytest.mark.parametrize("number", [32, 33])
def test_signals_that_the_c_library_keeps_to_itself_are_collected_too(number):
    signals.install(number)
    try:
        assert ctypes.CDLL(None).syscall(234, os.getpid(), threading.get_native_id(), number) == 0  # tgkill
        assert [item.number for item in signals.drain()] == [number]
    finally:
        signals.uninstall(number)


def test_a_word_is_added_to_atomically():
    word = ctypes.c_uint32(0xFFFF_FFFF)
    host().add_word(ctypes.addressof(word), 3)
    assert word.value == 2
