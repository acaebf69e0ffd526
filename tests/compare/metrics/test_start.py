"""Start-up times, and what is told when there is no start."""

import subprocess
import sys
import time

import pytest

from anyvirt.compare.bench import Bench
from anyvirt.compare.guest_run import MeasurementError
from anyvirt.compare.metrics.start import (
    cold_start,
    command_start,
    measure_start,
    run_command,
    warm_start,
)
from anyvirt.compare.results import Measured, Unmeasured
from anyvirt.compare.turns import Budget
from anyvirt.guest import Guest, Mount
from anyvirt.instance import Streams

from ..conftest import FakeEngine

NATIVE = FakeEngine("native")


def shell(script):
    return Guest(command=("sh", "-c", script))


def test_a_cold_start_ends_with_the_first_byte():
    assert 0.2 <= cold_start(["sh", "-c", "sleep 0.2; echo x; sleep 0.2"], 10) < 0.4


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo first >&2; echo anyvirt: no such thing >&2; exit 2", "status 2: no such thing"),
        ("exit 5", "it ended before its first output, exit status 5$"),
    ],
)
def test_a_cold_start_that_fails_says_what_the_command_said(script, reason):
    with pytest.raises(MeasurementError, match=reason):
        cold_start(["sh", "-c", script], 10)


def test_a_cold_start_that_hangs_is_killed():
    began = time.monotonic()
    with pytest.raises(MeasurementError, match=r"nothing came within 0\.2 s"):
        cold_start(["sh", "-c", "sleep 30; echo x"], 0.2)
    with pytest.raises(MeasurementError, match=r"it had not ended after 0\.2 s"):
        cold_start(["sh", "-c", "echo x; sleep 30"], 0.2)
    assert time.monotonic() - began < 5


def test_a_warm_start_ends_with_the_first_byte():
    assert 0.2 <= warm_start(NATIVE, shell("sleep 0.2; echo x; sleep 0.2"), 10) < 0.4


def test_a_warm_start_that_fails():
    with pytest.raises(MeasurementError, match="it ended before its first output, exit status 4: broken"):
        warm_start(NATIVE, shell("echo broken >&2; exit 4"), 10)
    with pytest.raises(MeasurementError, match=r"it had not ended after 0\.2 s"):
        warm_start(NATIVE, shell("sleep 30"), 0.2)
    with pytest.raises(MeasurementError, match=r"it had not ended after 0\.2 s"):
        warm_start(NATIVE, shell("echo x; sleep 30"), 0.2)


def test_the_command_line_says_everything_about_the_guest(tmp_path):
    guest = Guest(command=("/x/program", "1"), workdir="/x", mounts=(Mount(tmp_path, "/x"),))
    words = run_command(NATIVE, guest)
    assert words[:3] == [sys.executable, "-m", "anyvirt"]
    assert words[3:] == [
        "run", "--on", "native", "--mount", f"{tmp_path}:/x", "--workdir", "/x", "--", "/x/program", "1",
    ]  # fmt: skip


def test_the_command_line_runs():
    words = run_command(NATIVE, shell("echo it runs"))
    assert subprocess.run(words, capture_output=True, timeout=60).stdout == b"it runs\n"


def test_all_rows():
    class Broken(FakeEngine):
        def create(self, guest, streams, terminal):
            raise MeasurementError("it never starts")

    engines = [NATIVE, Broken("broken")]
    with Bench(engines) as bench:
        cold, warm, command = measure_start(
            bench,
            engines,
            timeout=30,
            baseline="native",
            step=lambda engine: None,
            cold_budget=Budget(most=2),
            warm_budget=Budget(most=3),
            command_budget=Budget(most=4),
        )
    assert [len(row.cells["native"].samples) for row in (cold, warm, command)] == [2, 3, 4]
    assert cold.cells["native"].median > warm.cells["native"].median
    assert isinstance(cold.cells["native"], Measured)
    assert "there is no engine 'broken'" in cold.cells["broken"].reason
    assert warm.cells["broken"] == command.cells["broken"] == Unmeasured("it never starts")


def test_a_command_in_a_running_guest(tmp_path):
    guest = Guest(command=("sh", "-c", "sleep 0.2; pwd; sleep 0.2"), workdir=str(tmp_path))
    with NATIVE.start(Guest(), Streams()) as instance:
        assert 0.2 <= command_start(instance, guest, 10) < 0.4
        with pytest.raises(MeasurementError, match="it ended before its first output, exit status 4: broken"):
            command_start(instance, shell("echo broken >&2; exit 4"), 10)
        with pytest.raises(MeasurementError, match=r"it had not ended after 0\.2 s"):
            command_start(instance, shell("sleep 30"), 0.2)
