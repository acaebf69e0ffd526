"""Run times: the number of rounds fits the time there is; what ends badly says how."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyvirt.compare.bench import Bench
from anyvirt.compare.metrics.run_time import RunTimePlan, calibrate, measure_workload, system_call_row
from anyvirt.compare.results import Group, Measured, Unmeasured
from anyvirt.compare.turns import Budget
from anyvirt.compare.workloads import WORKLOADS, find_workload

from ..conftest import FakeEngine

QUICK = RunTimePlan(target=0.002, longest=0.01, budget=Budget(most=2), timeout=10.0)


def costs(per_round, fixed):
    """A guest whose rounds cost the same, and the rounds it was asked for."""
    asked = []

    def seconds(rounds):
        asked.append(rounds)
        return fixed + per_round * rounds

    return seconds, asked


@given(st.floats(1e-9, 10.0), st.floats(0.0, 0.01))
def test_a_run_takes_about_the_target(per_round, fixed):
    plan = RunTimePlan()
    seconds, asked = costs(per_round, fixed)
    rounds = calibrate(seconds, plan, None)
    assert rounds >= 1
    assert rounds == 1 or seconds(rounds) <= 1.3 * plan.target + fixed
    if fixed < 1e-6:
        assert seconds(rounds) >= 0.5 * plan.target
    assert len(asked) < 40


@given(st.floats(1e-9, 10.0), st.integers(1, 10**7))
def test_with_a_limit_no_more_rounds_and_no_more_time(per_round, limit):
    plan = RunTimePlan()
    seconds, asked = costs(per_round, 0.0)
    rounds = calibrate(seconds, plan, limit)
    assert 1 <= rounds <= limit
    assert max(asked) <= limit
    assert rounds == 1 or seconds(rounds) <= 1.3 * plan.longest
    if per_round * limit < plan.longest / 4:
        assert rounds == limit


def test_what_an_engine_prepares_once_does_not_count():
    asked = []

    def seconds(rounds):
        asked.append(rounds)
        return rounds * 1e-5 + (3.0 if max(asked) >= 100 and asked.count(rounds) == 1 else 0.0)

    assert calibrate(seconds, RunTimePlan(), 10_000) == 10_000


def measure(engines, name="integer", baseline="native", plan=QUICK):
    with Bench(engines) as bench:
        return measure_workload(
            bench, engines, find_workload(name), plan, baseline=baseline, step=lambda engine: None
        )


def test_a_row_with_ratios():
    row = measure([FakeEngine("native"), FakeEngine("other")])
    assert row.group is Group.RUN_TIME
    native, other = row.cells["native"], row.cells["other"]
    assert len(native.samples) == len(other.samples) == len(other.ratios) == 2
    assert native.ratios == ()
    assert native.rounds >= other.rounds >= 1
    assert 1e-6 < native.median < 1


def test_the_baseline_sets_the_rounds_wherever_it_stands():
    row = measure([FakeEngine("other"), FakeEngine("native")])
    assert list(row.cells) == ["other", "native"]
    assert row.cells["other"].rounds <= row.cells["native"].rounds


@pytest.mark.parametrize(
    ("prefix", "reason"),
    [
        (("sh", "-c", "echo it broke >&2; exit 3"), "exit status 3: it broke"),
        (("sh", "-c", "kill -ABRT $$"), "killed by SIGABRT"),
        (("sh", "-c", "echo integer 1 rounds, 1 WRONG; exit 1"), "1 rounds, 1 WRONG: exit status 1"),
        (("sh", "-c", "echo something else"), "its output is not"),
        (("sh", "-c", r"printf '\033[2J'; exit 1"), "?[2J: exit status 1"),
        (("sh", "-c", "exit 0"), "exit status 0"),
        (("yes",), "more than 64.0 KiB to its standard output and was killed"),
        (("sleep", "30"), "it had not ended after 0.5 s and was killed"),
    ],
)
def test_a_guest_that_fails_gives_its_reason(prefix, reason):
    engines = [FakeEngine("native"), FakeEngine("broken", prefix=(*prefix, "sh"))]
    if prefix[0] == "sleep":
        engines[1] = FakeEngine("broken", prefix=("sh", "-c", "sleep 30", "sh"))
    row = measure(engines, plan=dataclasses.replace(QUICK, timeout=0.5))
    assert isinstance(row.cells["native"], Measured)
    assert isinstance(row.cells["broken"], Unmeasured)
    assert reason in row.cells["broken"].reason


def test_without_its_baseline_an_engine_is_still_measured():
    engines = [FakeEngine("native", prefix=("false",)), FakeEngine("other")]
    row = measure(engines)
    assert isinstance(row.cells["native"], Unmeasured)
    assert row.cells["other"].ratios == ()
    assert row.cells["other"].median > 0


def test_system_calls_are_told_apart():
    row = measure([FakeEngine("native"), FakeEngine("broken", prefix=("false",))], "system-calls")
    derived = system_call_row(row)
    assert derived.group is Group.EXIT_PATHS
    assert derived.cells["native"].median == pytest.approx(row.cells["native"].median / 3)
    assert derived.cells["broken"] == row.cells["broken"]


def test_every_workload_can_be_measured():
    with Bench([FakeEngine("native")]) as bench:
        for workload in WORKLOADS:
            row = measure_workload(
                bench,
                [FakeEngine("native")],
                workload,
                dataclasses.replace(QUICK, budget=Budget(most=1)),
                baseline="native",
                step=lambda engine: None,
            )
            assert isinstance(row.cells["native"], Measured), row.cells
