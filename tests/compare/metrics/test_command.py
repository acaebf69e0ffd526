"""A user's command on several engines."""

import sys

import pytest

from anyvirt.compare.metrics.command import measure_command
from anyvirt.compare.results import Measured, Reported, Unmeasured
from anyvirt.compare.turns import Budget
from anyvirt.guest import Guest
from anyvirt.instance import own_peak_memory

from ..conftest import FakeEngine


def measure(script, *engines, repeat=2, timeout=20.0):
    rows = measure_command(
        lambda engine: Guest(command=("sh", "-c", script)),
        engines,
        starter=lambda engine: engine,
        timeout=timeout,
        baseline="native",
        budget=Budget(most=repeat, least=repeat),
        step=lambda engine: None,
    )
    return {row.name: row for row in rows}


def test_all_quantities():
    script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 0.1"
    rows = measure(script, FakeEngine("native"), FakeEngine("other"))
    wall, user = rows["wall-time"].cells["native"], rows["user-time"].cells["native"]
    assert len(wall.samples) == 2
    assert 0.1 < wall.median < 5
    assert 0 < user.median < wall.median
    assert rows["exit-status"].cells["native"] == Reported("0")
    assert rows["wall-time"].cells["other"].ratio == pytest.approx(1, abs=0.8)


def test_peak_memory_where_it_is_known():
    size = 3 * own_peak_memory()
    script = f"exec {sys.executable} -c 'x = bytes([1]) * {size}'"
    peak = measure(script, FakeEngine("native"))["peak-memory"].cells["native"]
    assert size < peak.median < 1.5 * size + (50 << 20)


def test_peak_memory_that_the_kernel_hides_is_not_reported():
    peak = measure("exit 0", FakeEngine("native"))["peak-memory"].cells["native"]
    assert "less than the process that started it" in peak.reason


def test_exit_statuses_are_reported_not_refused():
    rows = measure("exit 3", FakeEngine("native"))
    assert isinstance(rows["wall-time"].cells["native"], Measured)
    assert rows["exit-status"].cells["native"].text == "3"


def test_other_output_than_the_baselines_is_noted():
    rows = measure("echo $0", FakeEngine("native"), FakeEngine("other", prefix=("env", "A=1", "nice")))
    assert rows["exit-status"].cells["other"] == Reported("0")
    rows = measure("echo ${A-none}", FakeEngine("native"), FakeEngine("other", prefix=("env", "A=1")))
    assert rows["exit-status"].cells["other"].note == "the output differs from the baseline's"


def test_output_that_changes_is_noted():
    rows = measure("echo $$", FakeEngine("other"))
    assert rows["exit-status"].cells["other"].note == "the output differs from run to run"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("kill -SEGV $$", "killed by SIGSEGV"),
        ("sleep 30", "it had not ended after 0.3 s and was killed"),
        ("yes", "more than 64.0 MiB to its standard output and was killed"),
    ],
)
def test_crashes_hangs_and_floods_are_reasons(script, reason):
    rows = measure(script, FakeEngine("native"), timeout=0.3 if "sleep" in script else 20)
    for row in rows.values():
        assert isinstance(row.cells["native"], Unmeasured)
        assert reason in row.cells["native"].reason


def test_an_engine_that_fails_once_is_measured_no_further(tmp_path):
    count = tmp_path / "count"
    rows = measure(f"echo x >> {count}; kill -9 $$", FakeEngine("native"), repeat=5)
    assert "SIGKILL" in rows["wall-time"].cells["native"].reason
    assert count.read_text().count("x") == 2
