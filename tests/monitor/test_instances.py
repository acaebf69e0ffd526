"""Instances of machines, with a monitor process and an agent, and the host's kernel for the machine's."""

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest

from anyvirt.errors import CommandNotFoundError, GuestStartError, UnsupportedError, UsageError
from anyvirt.guest import Guest, Limits
from anyvirt.instance import ExitStatus, State, Streams, TerminalSize
from anyvirt.pipes import GuestPipes

TIMEOUT = 30


def sh(script, **parts):
    return Guest(command=["sh", "-c", script], **parts)


def run(engine, guest, feed=b"", terminal=None):
    """Status, output, errors, and the instance after its end."""
    with ExitStack() as stack:
        pipes = GuestPipes(stack, feed=feed, capture=True, limit=None)
        instance = stack.enter_context(engine.start(guest, pipes.guest_ends, terminal))
        pipes.started(instance.end_fd)
        pipes.carry(time.monotonic() + TIMEOUT)
        return instance.wait(TIMEOUT), bytes(pipes.stdout), bytes(pipes.stderr), instance


@pytest.fixture
def start(request, engine):
    def start(guest, terminal=None):
        null = os.open(os.devnull, os.O_RDWR)
        instance = engine.start(guest, Streams(null, null, null), terminal)
        os.close(null)
        request.addfinalizer(instance.close)
        return instance

    return start


def test_streams_environment_directory_and_status_come_and_go(engine):
    data = os.urandom(300_000)
    guest = sh(
        "cat; echo $COLOUR in $PWD >&2; hostname >&2; exit 7",
        env={"COLOUR": "red"},
        workdir="/usr",
        hostname="box",
    )
    status, out, errors, instance = run(engine, guest, data)
    assert status == ExitStatus(code=7)
    assert out == data
    assert errors == b"red in /usr\nbox\n"
    assert [name for name, _ in instance.start_phases][-1] == "command"
    assert all(seconds >= 0 for _, seconds in instance.start_phases)
    assert instance.usage().user_seconds > 0
    assert instance.state is State.STOPPED


def test_a_death_by_a_signal(engine):
    assert run(engine, sh("kill -KILL $$"))[0] == ExitStatus(signal=signal.SIGKILL)


def test_who_reads_no_more_ends_who_writes(engine):
    reader, writer = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    with engine.start(Guest(command=["yes"]), Streams(null, writer, null)) as instance:
        os.close(writer)
        os.close(null)
        assert os.read(reader, 2) == b"y\n"
        os.close(reader)
        assert instance.wait(TIMEOUT) == ExitStatus(signal=signal.SIGPIPE)


def test_a_machine_that_cannot_be_made_is_an_error_of_the_start(engine):
    with pytest.raises(UsageError, match="the machine cannot be made"):
        run(engine, sh("true", append="refuse"))


def test_a_monitor_that_crashes_is_an_error_of_the_wait(start):
    instance = start(Guest(append="crash"))
    with pytest.raises(GuestStartError, match="monitor was killed by SIGSEGV"):
        instance.wait(TIMEOUT)
    assert instance.state is State.STOPPED


def test_a_monitor_that_is_killed_is_a_guest_that_is(start):
    instance = start(sh("sleep 100"))
    os.kill(instance.pid, signal.SIGKILL)
    assert instance.wait(TIMEOUT) == ExitStatus(signal=signal.SIGKILL)


def test_a_command_that_is_not_there_is_told_by_the_guest_too(engine, start, tmp_path):
    with pytest.raises(CommandNotFoundError):
        engine.start(Guest(command=["/no/such"]), Streams())
    instance = start(Guest())
    with pytest.raises(CommandNotFoundError, match="there is no command no-such in the guest"):
        instance.exec(["no-such"])
    with pytest.raises(GuestStartError, match="no working directory /no/such"):
        instance.exec(["true"], workdir="/no/such")
    assert instance.state is State.RUNNING


def test_further_commands(start):
    instance = start(Guest(env={"A": "1"}))
    reader, writer = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    words = ["sh", "-c", "echo $A$B; exit 4"]
    process = instance.exec(words, env={"B": "2"}, streams=Streams(null, writer, null))
    os.close(writer)
    os.close(null)
    with os.fdopen(reader) as output:
        assert output.read() == "12\n"
    assert process.wait(TIMEOUT) == ExitStatus(code=4)
    loop = instance.exec(["sleep", "100"], streams=Streams(0, 1, 2))
    loop.signal(signal.SIGTERM)
    assert loop.wait(TIMEOUT) == ExitStatus(signal=signal.SIGTERM)
    left = instance.exec(["sleep", "100"])
    left.close()
    assert left.wait(0).signal == signal.SIGKILL
    assert instance.stop(TIMEOUT) == ExitStatus(signal=signal.SIGTERM)


def test_a_killed_command_whose_output_nobody_reads_ends(start):
    instance = start(Guest())
    reader, writer = os.pipe()
    process = instance.exec(["yes"], streams=Streams(0, writer, writer))
    os.close(writer)
    assert os.read(reader, 2) == b"y\n"
    process.signal(signal.SIGKILL)
    assert process.wait(TIMEOUT) == ExitStatus(signal=signal.SIGKILL)
    os.close(reader)


def test_a_terminal(start):
    instance = start(
        sh(
            "stty size; read x; echo got $x; trap 'stty size; exit 3' WINCH; echo on; "
            "while :; do sleep 0.05; done"
        ),
        TerminalSize(20, 70),
    )
    seen = b""

    def expect(text):
        nonlocal seen
        while text not in seen:
            seen += os.read(instance.terminal, 1000)

    expect(b"20 70\r\n")
    os.write(instance.terminal, b"word\r")
    expect(b"got word\r\non")
    instance.resize(TerminalSize(30, 90))
    expect(b"30 90")
    assert instance.wait(TIMEOUT) == ExitStatus(code=3)


def test_a_terminal_that_goes_away_hangs_up(start):
    instance = start(sh("trap 'exit 9' HUP; echo ready; while :; do sleep 0.05; done"), TerminalSize())
    assert b"ready" in os.read(instance.terminal, 100)
    os.close(instance.terminal)
    instance.terminal = None
    assert instance.wait(TIMEOUT) == ExitStatus(code=9)


def test_pause_and_resume(start):
    instance = start(Guest())
    reader, writer = os.pipe()
    process = instance.exec(
        ["sh", "-c", "while :; do echo tick; sleep 0.01; done"], streams=Streams(0, writer, writer)
    )
    os.close(writer)
    os.read(reader, 100)
    instance.pause()
    assert instance.state is State.PAUSED
    with pytest.raises(GuestStartError, match="paused"):
        instance.exec(["true"])
    time.sleep(0.2)
    os.set_blocking(reader, False)
    while True:
        try:
            os.read(reader, 1 << 16)
        except BlockingIOError:
            break
    time.sleep(0.2)
    with pytest.raises(BlockingIOError):
        os.read(reader, 100)
    os.set_blocking(reader, True)
    instance.resume()
    assert b"tick" in os.read(reader, 100)
    process.close()
    os.close(reader)


def test_signals_before_the_command_end_the_machine(engine, start):
    instance = start(Guest(append="silent"))
    instance.signal(signal.SIGWINCH)
    with pytest.raises(TimeoutError):
        instance.wait(0.2)
    instance.signal(signal.SIGINT)
    assert instance.wait(TIMEOUT) == ExitStatus(signal=signal.SIGINT)


def test_the_machine_ends_with_whoever_started_it(engine, tmp_path):
    script = (
        "import sys, os, time; sys.path.insert(0, sys.argv[1]); from conftest import AgentEngine\n"
        "from anyvirt.guest import Guest; from anyvirt.instance import Streams\n"
        "instance = AgentEngine().start(Guest(), Streams()); print(instance.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    started = subprocess.run(
        [sys.executable, "-c", script, os.path.dirname(__file__)], stdout=subprocess.PIPE, timeout=TIMEOUT
    )
    monitor = int(started.stdout)
    deadline = time.monotonic() + TIMEOUT
    while os.path.exists(f"/proc/{monitor}") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not os.path.exists(f"/proc/{monitor}/exe")


def test_nothing_is_left_behind(engine):
    def host():
        children = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/stat") as file:
                    parent = int(file.read().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == os.getpid():
                children.append(pid)
        return set(os.listdir("/proc/self/fd")), children

    run(engine, sh("true"))
    before = host()
    run(engine, sh("exit 3"))
    with pytest.raises(UsageError):
        run(engine, sh("true", append="refuse"))
    null = os.open(os.devnull, os.O_RDWR)
    with engine.start(sh("sleep 100"), Streams(null, null, null), TerminalSize()):
        pass
    with engine.start(Guest(), Streams(null, null, null)) as instance:
        instance.exec(["sleep", "100"], terminal=TerminalSize())
        with pytest.raises(CommandNotFoundError):
            instance.exec(["no-such"], terminal=TerminalSize())
    os.close(null)
    assert host() == before


def test_machines_have_whole_cpus_and_enough_memory(engine):
    for limits, complaint in (
        (Limits(cpus=1.5), "1 to 8 whole CPUs, not 1.5"),
        (Limits(cpus=9), "1 to 8 whole CPUs, not 9"),
        (Limits(memory=64 << 20), "64 MiB of memory are too few: give at least 128M"),
    ):
        with pytest.raises(UsageError, match=complaint):
            engine.check(Guest(limits=limits))
    with pytest.raises(UnsupportedError, match="--pids"):
        engine.check(Guest(limits=Limits(pids=7)))
    order = engine.machine_order(Guest(limits=Limits(cpus=2, memory=(128 << 20) + 1)))
    assert (order.cpus, order.memory) == (2, (128 << 20) + 4096)


def test_a_machine_that_cannot_be_saved_goes_on(engine, tmp_path):
    reader, writer = os.pipe()
    answer, output = os.pipe()
    with engine.start(Guest(command=["cat"]), Streams(reader, output, output)) as instance:
        for descriptor in (reader, output):
            os.close(descriptor)
        with pytest.raises(UsageError, match="this machine cannot be saved"):
            instance.snapshot(tmp_path / "s")
        os.write(writer, b"still there")
        assert os.read(answer, 100) == b"still there"
        os.close(writer)
        assert instance.wait(TIMEOUT) == ExitStatus(code=0)
        with pytest.raises(GuestStartError, match="cannot be saved: its machine has ended"):
            instance.snapshot(tmp_path / "s")
    os.close(answer)
