"""Running a guest to its end: streams, timeouts, bounds and errors, on the native engine."""

import os
import time

import pytest

import anyvirt
from anyvirt.instance import own_peak_memory
from anyvirt.running import GuestFailedError, run_guest


def shell(script, **options):
    return run_guest(anyvirt.Guest(command=["sh", "-c", script]), on="native", **options)


def test_output_status_and_usage_come_back():
    completed = shell("echo out; echo err >&2; exit 3", capture_output=True)
    assert (completed.stdout, completed.stderr, completed.returncode) == (b"out\n", b"err\n", 3)
    assert completed.engine == "native"
    assert 0 < completed.seconds < 30


def test_peak_memory_is_the_guest_s_or_unknown_but_never_its_starter_s():
    assert shell("true").usage.peak_memory is None
    size = 2 * own_peak_memory()
    large = anyvirt.run(["python3", "-c", f"x = bytearray(b'x') * {size}"], on="native")
    assert size < large.usage.peak_memory < size + (100 << 20)


def test_input_larger_than_any_pipe_is_carried_while_output_is_read():
    data = os.urandom(1 << 22)
    assert shell("cat", input=data, capture_output=True).stdout == data


def test_a_guest_that_does_not_read_its_input_is_no_error():
    assert shell("exec 0<&-; exit 0", input=bytes(1 << 20), capture_output=True).returncode == 0


def test_a_flood_is_bounded_and_counted():
    completed = shell("head -c 10000000 /dev/zero", capture_output=True, output_limit=1000)
    assert (len(completed.stdout), completed.discarded) == (1000, 10000000 - 1000)


@pytest.mark.parametrize("script", ["sleep 100", "while :; do :; done", "yes", "exec >&- 2>&-; sleep 100"])
def test_a_guest_that_hangs_is_killed_when_its_time_is_up(script):
    began = time.monotonic()
    with pytest.raises(anyvirt.GuestTimeoutError, match=r"after 0\.3 seconds"):
        shell(script, capture_output=True, output_limit=1000, timeout=0.3)
    assert time.monotonic() - began < 10


def test_check_raises_for_any_failure_and_keeps_the_run():
    with pytest.raises(GuestFailedError, match="killed by SIGSEGV") as caught:
        shell("kill -SEGV $$", capture_output=True, check=True)
    assert caught.value.exit_code == 128 + 11
    assert caught.value.completed.status.signal == 11


def test_nothing_is_left_open():
    before = set(os.listdir("/proc/self/fd"))
    shell("true", input=b"x", capture_output=True)
    with pytest.raises(anyvirt.GuestTimeoutError):
        shell("sleep 9", input=b"x", capture_output=True, timeout=0.05)
    with pytest.raises(anyvirt.CommandNotFoundError):
        run_guest(anyvirt.Guest(command=["nope"]), on="native", input=b"x", capture_output=True)
    assert set(os.listdir("/proc/self/fd")) == before


def test_the_python_api_takes_values_as_users_write_them(tmp_path):
    completed = anyvirt.run(
        ["sh", "-c", "echo $A"], on="native", env={"A": "1"}, capture_output=True, check=True
    )
    assert completed.stdout == b"1\n"
    with pytest.raises(anyvirt.UnsupportedError):
        anyvirt.run(["true"], on="native", memory="64M", mounts=[f"{tmp_path}:/data:ro"])


def test_an_idle_guest_runs_commands_until_it_is_closed():
    with anyvirt.start(anyvirt.Guest(), on="native") as instance:
        assert instance.state is anyvirt.State.RUNNING
        assert instance.exec(["sh", "-c", "exit 5"]).wait().code == 5
        assert instance.stop(1).signal == 15
        assert instance.state is anyvirt.State.STOPPED


def test_what_a_guest_leaves_running_does_not_hold_up_its_end():
    began = time.monotonic()
    completed = shell("echo out; sleep 20 & exit 4", capture_output=True)
    assert (completed.stdout, completed.returncode) == (b"out\n", 4)
    assert time.monotonic() - began < 10
