"""Memory of idle instances, against amounts that are known."""

import os
import subprocess
import sys

import pytest

from anyvirt.compare.bench import Bench
from anyvirt.compare.guest_run import MeasurementError
from anyvirt.compare.metrics import memory
from anyvirt.compare.metrics.memory import (
    measure_memory,
    memory_in_use,
    memory_of_idle,
    proportional_memory,
)
from anyvirt.compare.processes import descendants
from anyvirt.compare.turns import Budget
from anyvirt.guest import Guest

from ..conftest import FakeEngine

NATIVE = FakeEngine("native")
BIG = 40 << 20
HOARDER = f"import sys, time; hoard = b'x' * {BIG}; print(1, flush=True); sys.stdin.read()"


@pytest.fixture
def hoarder():
    """A process that holds memory of a known size."""
    process = subprocess.Popen([sys.executable, "-c", HOARDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def test_descendants_are_children_and_their_children():
    command = ["sh", "-c", "sleep 30 & echo $!; wait"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, process_group=0)
    grandchild = int(process.stdout.readline())
    try:
        found = descendants(os.getpid())
        assert {os.getpid(), process.pid, grandchild} <= found
        assert os.getppid() not in found
        assert descendants(process.pid) == {process.pid, grandchild}
    finally:
        os.killpg(process.pid, 9)
        process.communicate()


def test_proportional_memory_counts_what_a_process_holds(hoarder):
    assert BIG < proportional_memory(hoarder.pid) < BIG + (30 << 20)


def test_a_process_that_is_gone_counts_nothing():
    process = subprocess.Popen(["true"])
    process.wait()
    assert memory._pss(process.pid, "Pss") == 0


def growth_of_memory_in_use():
    """By how much the host's memory in use grows with a process that holds memory of a known size."""
    before = memory_in_use()
    process = subprocess.Popen([sys.executable, "-c", HOARDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    try:
        return memory_in_use() - before
    finally:
        process.kill()
        process.communicate()


def test_memory_in_use_sees_what_a_process_holds():
    # What else runs on the host may give memory back in the same moment, but not each time.
    assert any(growth_of_memory_in_use() > BIG * 0.7 for _ in range(3))


def test_instances_of_a_known_size(monkeypatch):
    monkeypatch.setattr(memory, "MOST_INSTANCES", 3)
    monkeypatch.setattr(memory, "LEAST_INSTANCES", 3)
    guest = Guest(command=(sys.executable, "-c", HOARDER))
    measured = [memory_of_idle(NATIVE, guest, 30) for _ in range(3)]
    assert all(BIG < processes < BIG + (30 << 20) for _, processes in measured)
    assert max(host for host, _ in measured) > BIG * 0.7


def test_an_instance_that_does_not_come_up():
    with pytest.raises(MeasurementError, match="an idle instance did not come up: why not"):
        memory_of_idle(NATIVE, Guest(command=("sh", "-c", "echo why not >&2")), 10)
    with pytest.raises(MeasurementError, match="an idle instance did not come up"):
        memory_of_idle(NATIVE, Guest(command=("sleep", "20")), 0.2)


def test_processes_that_may_not_be_read_leave_one_row_without_values(monkeypatch):
    def forbidden(process, parts):
        raise PermissionError

    monkeypatch.setattr(memory, "_pss", forbidden)
    assert proportional_memory(os.getpid()) is None
    with Bench([NATIVE]) as bench:
        host, processes = measure_memory(
            bench, [NATIVE], timeout=20, baseline="native", step=lambda engine: None, budget=Budget(most=1)
        )
    assert len(host.cells["native"].samples) == 1
    assert "may not be read" in processes.cells["native"].reason


def test_no_instance_and_no_descriptor_stays():
    before = sorted(os.listdir("/proc/self/fd")), descendants(os.getpid())
    with Bench([NATIVE]) as bench:
        rows = measure_memory(
            bench,
            [NATIVE],
            timeout=20,
            baseline="native",
            step=lambda engine: None,
            budget=Budget(most=2),
        )
    assert (sorted(os.listdir("/proc/self/fd")), descendants(os.getpid())) == before
    host, processes = rows
    assert len(host.cells["native"].samples) == len(processes.cells["native"].samples) == 2
    assert 1 << 10 < processes.cells["native"].median < 1 << 20


@pytest.mark.parametrize(
    ("count", "seconds", "are_enough"),
    [
        (0, 60, False),
        (1, 5, True),
        (1, 3, False),
        (2, 1, False),
        (2, 5, True),
        (8, 1, False),
        (8, 2, True),
        (99, 1, False),
        (100, 0, True),
    ],
)
def test_few_instances_are_enough_of_what_starts_slowly(count, seconds, are_enough):
    assert memory._are_enough(count, seconds) is are_enough
