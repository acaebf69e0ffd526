"""The workloads on every real engine: the same programs, the same results, the same line."""

import os

import pytest

from anyvirt.compare.bench import Bench
from anyvirt.compare.booted import boots
from anyvirt.compare.guest_run import run_guest
from anyvirt.compare.metrics.memory import memory_of_idle
from anyvirt.compare.metrics.start import cold_start, run_command, warm_start
from anyvirt.compare.processes import descendants
from anyvirt.compare.workloads import FIRST_INSTRUCTION, WORKLOADS
from anyvirt.engines import engine_names, get

SLOW = (pytest.mark.slow, pytest.mark.timeout(600))
ENGINES = [pytest.param(name, marks=SLOW if boots(get(name)) else ()) for name in engine_names()]


@pytest.fixture(scope="module", params=ENGINES)
def engine(request):
    found = get(request.param)
    if boots(found):
        request.getfixturevalue("stored_kernel")
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
    run = run_guest(bench.starter(engine), bench.guest(engine, workload, "2"), timeout=100, hold=True)
    assert run.stdout.decode() == f"{workload.name} 2 rounds correct\n"
    assert run.stderr == b""
    assert run.status.code == 0
    assert 0 < run.released < run.last_output <= run.ended


def test_starts_end_with_the_first_instruction(engine, bench):
    guest = bench.guest(engine, FIRST_INSTRUCTION)
    limit, count = (300, 1) if boots(engine) else (30, 5)
    warm_start(engine, guest, limit)
    warm = min(warm_start(engine, guest, limit) for _ in range(count))
    cold = cold_start(run_command(engine, guest), limit)
    assert 0 < cold < limit
    assert 0 < warm < (limit if boots(engine) else cold)


def test_idle_instances_come_and_go(engine, bench):
    guest = bench.guest(engine, FIRST_INSTRUCTION)
    limit = 300 if boots(engine) else 30
    warm_start(engine, guest, limit)
    before = descendants(os.getpid())
    _, processes = memory_of_idle(engine, guest, limit)
    assert processes > 1 << 10
    assert descendants(os.getpid()) == before
