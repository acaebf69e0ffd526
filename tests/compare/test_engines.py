"""The workloads on every real engine: the same programs, the same results, the same line."""

import os

import pytest

from anyvirt.compare.bench import Bench
from anyvirt.compare.guest_run import run_guest
from anyvirt.compare.metrics.memory import descendants, memory_of_idle
from anyvirt.compare.metrics.start import cold_start, run_command, warm_start
from anyvirt.compare.workloads import FIRST_INSTRUCTION, WORKLOADS
from anyvirt.engines import engine_names, get


@pytest.fixture(scope="module", params=[name for name in engine_names() if get(name).is_compared])
def engine(request):
    found = get(request.param)
    availability = found.probe()
    if not availability.available:
        pytest.skip(f"engine {found.name} is not available: {availability.reason}")
    return found


@pytest.fixture(scope="module")
def bench(engine):
    with Bench([engine]) as made:
        yield made


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_workloads_are_correct(engine, bench, workload):
    run = run_guest(engine, bench.guest(engine, workload, "2"), timeout=60, hold=True)
    assert run.stdout.decode() == f"{workload.name} 2 rounds correct\n"
    assert run.stderr == b""
    assert run.status.code == 0
    assert 0 < run.released < run.last_output <= run.ended


def test_starts_end_with_the_first_instruction(engine, bench):
    guest = bench.guest(engine, FIRST_INSTRUCTION)
    warm_start(engine, guest, 30)
    warm = min(warm_start(engine, guest, 30) for _ in range(5))
    cold = cold_start(run_command(engine, guest), 30)
    assert 0 < warm < cold < 20


def test_idle_instances_come_and_go(engine, bench):
    guest = bench.guest(engine, FIRST_INSTRUCTION)
    warm_start(engine, guest, 30)
    before = descendants(os.getpid())
    _, processes = memory_of_idle(engine, guest, 30)
    assert processes > 1 << 10
    assert descendants(os.getpid()) == before
