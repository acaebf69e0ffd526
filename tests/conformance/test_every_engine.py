"""What every engine does, whatever its capabilities: statuses, streams, signals, errors, cleaning up."""

import os
import signal
import time
from dataclasses import replace

import pytest

from anyvirt.engines.engine import Capability
from anyvirt.errors import CommandNotFoundError, GuestTimeoutError, NotExecutableError
from anyvirt.instance import ExitStatus, State
from anyvirt.running import run_guest

pytestmark = pytest.mark.capabilities()


@pytest.mark.parametrize("status", [0, 1, 42, 255])
def test_exit_statuses_come_back(subject, status):
    assert subject.run(f"exit {status}").status == ExitStatus(code=status)


def test_a_death_by_signal_comes_back(subject):
    assert subject.run("kill -KILL $$").returncode == 128 + 9
    assert subject.run("kill -TERM $$").returncode == 128 + 15


def test_streams_pass_through(subject):
    data = os.urandom(300_000)
    completed = subject.run("cat; echo oops >&2", input=data)
    assert completed.stdout == data
    assert completed.stderr == b"oops\n"


def test_environment_and_working_directory(subject, tmp_path):
    completed = subject.run("echo $COLOUR; pwd", env={"COLOUR": "blue"}, workdir="/tmp")
    assert completed.stdout == b"blue\n/tmp\n"


def test_processes_pipes_and_files(subject):
    script = "cd /tmp; d=$(mktemp -d); for i in 1 2 3; do echo $i; done | sort -r > $d/x; cat $d/x; rm -r $d"
    assert subject.run(script).stdout == b"3\n2\n1\n"


def test_usage_is_charged_to_the_guest(subject):
    completed = subject.run("x=$(head -c 20000000 /dev/zero | tr '\\0' x); echo ${#x}")
    assert completed.stdout == b"20000000\n"
    assert completed.usage.user_seconds + completed.usage.system_seconds > 0.005
    assert completed.usage.peak_memory is None or completed.usage.peak_memory > 20_000_000


def test_signals_reach_the_guest(subject):
    session = subject.start(
        subject.guest("trap 'echo caught; exit 7' USR1; echo ready; while :; do sleep 0.05; done")
    )
    session.expect(b"ready\n")
    session.instance.signal(signal.SIGUSR1)
    session.expect(b"caught\n")
    assert session.instance.wait(20) == ExitStatus(code=7)


@pytest.mark.fresh
def test_stop_is_a_request_and_kill_is_not(subject):
    session = subject.start(
        subject.guest("trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done")
    )
    session.expect(b"ready\n")
    assert session.instance.stop(20) == ExitStatus(code=0)
    stubborn = subject.start(subject.guest("trap '' TERM; echo ready; while :; do sleep 0.05; done"))
    stubborn.expect(b"ready\n")
    assert stubborn.instance.stop(0.2).shell == 128 + 9


@pytest.mark.fresh
def test_states(subject):
    session = subject.start(subject.guest("echo ready; sleep 100"))
    session.expect(b"ready\n")
    assert session.instance.state is State.RUNNING
    with pytest.raises(TimeoutError):
        session.instance.wait(0.05)
    session.instance.kill()
    session.instance.wait(20)
    assert session.instance.state is State.STOPPED
    session.instance.signal(signal.SIGTERM)


@pytest.mark.fresh
def test_a_guest_that_hangs_is_killed_when_its_time_is_up(subject):
    began = time.monotonic()
    with pytest.raises(GuestTimeoutError):
        subject.run("while :; do :; done", timeout=1)
    assert time.monotonic() - began < 20


@pytest.mark.fresh
def test_a_flood_is_bounded(subject):
    with pytest.raises(GuestTimeoutError):
        run_guest(
            subject.guest("yes"), on=subject.engine.name, capture_output=True, output_limit=1000, timeout=1
        )


def test_mistakes_are_told_apart(subject, tmp_path):
    truncated = tmp_path / "truncated"
    truncated.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(20))
    truncated.chmod(0o755)
    for command, error in (
        ("/no/such/program", CommandNotFoundError),
        ("no-such-program", CommandNotFoundError),
        ("/etc", NotExecutableError),
        ("/etc/passwd", NotExecutableError),
        (str(truncated), NotExecutableError),
    ):
        with pytest.raises(error):
            run_guest(replace(subject.guest("true"), command=[command], rootfs=None), on=subject.engine.name)


@pytest.mark.fresh
def test_nothing_is_left_behind(subject):
    def host():
        children = {pid for pid in os.listdir("/proc") if pid.isdigit() and _parent(pid) == os.getpid()}
        return set(os.listdir("/proc/self/fd")), children, len(open_mounts())

    def open_mounts():
        with open("/proc/self/mounts") as mounts:
            return mounts.readlines()

    subject.run("true")
    before = host()
    for script in ("exit 3", "kill -9 $$"):
        subject.run(script)
    if Capability.ISOLATION in subject.engine.capabilities:
        subject.run("sleep 100 & exit 0")
    with pytest.raises(GuestTimeoutError):
        subject.run("sleep 100", timeout=0.2)
    subject.start(subject.guest("sleep 100")).close()
    assert host() == before


def _parent(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return None
