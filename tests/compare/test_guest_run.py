"""Runs watched from outside: times, ends, and guests that hang, flood or leave things behind."""

import os
import time
from pathlib import Path

import pytest

from anyvirt.compare.guest_run import KEPT, MeasurementError, run_guest
from anyvirt.engines.host_process import HostProcessInstance
from anyvirt.guest import Guest

from .conftest import FakeEngine

NATIVE = FakeEngine("native")


def run(script, **options):
    return run_guest(NATIVE, Guest(command=("sh", "-c", script)), **{"timeout": 20.0, **options})


def alive(marker):
    """Processes that have `marker` among their words."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if marker.encode() in words:
            found.append(path)
    return found


def assert_ends(marker):
    """A process whose group was killed, or that writes for nobody, has its end before it."""
    deadline = time.monotonic() + 60
    while alive(marker):
        assert time.monotonic() < deadline, marker
        time.sleep(0.01)


def test_output_status_and_usage():
    result = run("echo out; echo err >&2; exit 3")
    assert (result.stdout, result.stderr, result.status.code) == (b"out\n", b"err\n", 3)
    assert result.stdout_size == 4
    assert 0 <= result.usage.user_seconds < 10
    assert result.complaint() == "exit status 3: err"


def test_times_are_those_of_the_outputs():
    result = run("sleep 0.1; echo first; sleep 0.3; echo last; sleep 0.2", hold=True)
    assert 0.1 <= result.released < 0.3
    assert result.last_output - result.released == pytest.approx(0.3, abs=0.1)
    assert result.ended - result.last_output == pytest.approx(0.2, abs=0.1)


def test_silence_has_no_times():
    result = run("exit 0")
    assert (result.released, result.last_output) == (None, None)
    assert result.complaint() == "exit status 0"


def test_a_death_by_signal_is_told():
    assert run("kill -SEGV $$").complaint() == "killed by SIGSEGV"


def test_what_a_guest_says_cannot_reach_the_terminal_raw():
    result = run(r"printf 'first\n\033]0;title\007\033[2Jred\tend\n' >&2; exit 1")
    assert result.complaint() == "exit status 1: ?]0;title??[2Jred end"


def test_input_is_empty():
    assert run("cat; echo end").stdout == b"end\n"


def test_a_held_guest_goes_on_when_it_has_written():
    result = run("echo ready; read line; echo went on $?", hold=True)
    assert result.stdout == b"ready\nwent on 0\n"
    assert 0 < result.released < result.last_output


def test_a_held_guest_that_does_not_wait():
    assert run("echo gone; exec <&-; sleep 0.1", hold=True).status.code == 0
    assert run("exit 0", hold=True).released is None


def test_a_held_guest_that_never_writes_is_killed():
    with pytest.raises(MeasurementError, match="it had not ended after"):
        run("read line", timeout=0.3, hold=True)


def test_a_guest_that_hangs_is_killed():
    began = time.monotonic()
    with pytest.raises(MeasurementError, match=r"it had not ended after 0\.3 s and was killed"):
        run("sleep 98765.25 & wait", timeout=0.3)
    assert time.monotonic() - began < 5
    assert_ends("98765.25")


def test_a_flood_is_stopped():
    with pytest.raises(MeasurementError, match=r"more than 1\.0 MiB to its standard output and was killed"):
        run("yes floods-outputs", output_limit=1 << 20)
    assert_ends("floods-outputs")
    with pytest.raises(MeasurementError, match="to its standard error"):
        run("yes floods-outputs >&2", output_limit=1 << 20)


def test_what_is_kept_is_bounded():
    result = run("head -c 1000000 /dev/zero")
    assert result.stdout == bytes(KEPT)
    assert result.stdout_size == 1000000


def test_a_guest_that_closes_its_outputs_is_awaited():
    result = run("exec >&- 2>&-; sleep 0.3; exit 5")
    assert result.ended >= 0.3
    assert result.status.code == 5


def test_a_process_left_behind_does_not_hold_up_the_end():
    result = run("sleep 97531.5 & echo done")
    try:
        assert result.ended < 5
        assert result.stdout == b"done\n"
    finally:
        for path in alive("97531.5"):
            os.kill(int(path.parent.name), 9)


def test_an_instance_without_an_end_descriptor_is_asked(monkeypatch):
    monkeypatch.setattr(HostProcessInstance, "end_fd", property(lambda _: None, lambda _, value: None))
    result = run("echo x; sleep 0.1; exit 4")
    assert (result.stdout, result.status.code) == (b"x\n", 4)
    with pytest.raises(MeasurementError, match="had not ended"):
        run("sleep 10", timeout=0.1)


def test_no_descriptor_is_left_open():
    run("true")
    before = sorted(os.listdir("/proc/self/fd"))
    run("echo x")
    with pytest.raises(MeasurementError):
        run("sleep 10", timeout=0.1)
    assert sorted(os.listdir("/proc/self/fd")) == before
