"""Host processes as instances: streams, groups, terminals, signals, usage, and nothing left behind."""

import os
import signal
import time
from pathlib import Path

import pytest

from anyvirt.engines.host_process import HostProcess
from anyvirt.errors import CommandNotFoundError, NotExecutableError, UsageError
from anyvirt.instance import ExitStatus, Streams, TerminalSize


@pytest.fixture
def start():
    """Starts processes with /dev/null as their streams, and closes them."""
    null = os.open(os.devnull, os.O_RDWR)
    started = []

    def start(*command, **options):
        options = {"env": dict(os.environ), "workdir": None, "streams": Streams(null, null, null), **options}
        started.append(HostProcess(command, **options))
        return started[-1]

    yield start
    for process in started:
        process.close()
    os.close(null)


def read_all(fd):
    """What a terminal shows until its other side is gone."""
    output = b""
    while True:
        try:
            data = os.read(fd, 4096)
        except OSError:
            return output
        if not data:
            return output
        output += data


def test_exit_codes_and_signals_are_told_apart(start):
    assert start("sh", "-c", "exit 7").wait() == ExitStatus(code=7)
    assert start("sh", "-c", "kill -9 $$").wait() == ExitStatus(signal=9)


def test_wait_may_be_repeated_and_times_out(start):
    process = start("sleep", "0.2")
    with pytest.raises(TimeoutError):
        process.wait(0.01)
    assert process.wait() == process.wait() == ExitStatus(code=0)
    process.signal(signal.SIGTERM)


def test_usage_is_what_the_kernel_accounted(start):
    process = start("python3", "-c", 'x = bytearray(b"x") * 50_000_000\nfor i in range(2_000_000): pass')
    process.wait()
    usage = process.usage()
    assert usage.user_seconds > 0.01
    assert usage.peak_memory is None or usage.peak_memory > 50_000_000


def test_killing_takes_the_process_s_children_along(start):
    reader, writer = os.pipe()
    process = start("sh", "-c", "sleep 1000 & echo $!; wait", streams=Streams(0, writer, 2))
    os.close(writer)
    child = int(os.read(reader, 100))
    os.close(reader)
    process.close()
    for _ in range(100):
        try:
            state = Path(f"/proc/{child}/stat").read_text().split()[2]
        except FileNotFoundError:
            break
        if state == "Z":
            break
        time.sleep(0.01)
    else:
        pytest.fail("the child of a killed process still runs")


def test_a_terminal_of_its_own_has_a_size_and_is_controlling(start):
    process = start("sh", "-c", "stty size; tty; ps -o tty= -p $$ </dev/tty", terminal=TerminalSize(33, 101))
    output = read_all(process.terminal).decode()
    assert process.wait() == ExitStatus(code=0)
    assert output.splitlines()[0] == "33 101"
    assert "/dev/pts/" in output


def test_resizing_reaches_the_process(start):
    process = start(
        "sh",
        "-c",
        "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.01; done",
        terminal=TerminalSize(10, 20),
    )
    assert b"ready" in os.read(process.terminal, 100)
    process.resize(TerminalSize(50, 60))
    assert b"50 60" in read_all(process.terminal)


def test_control_c_is_typed_not_sent(start):
    process = start("sleep", "100", terminal=TerminalSize())
    time.sleep(0.1)
    os.write(process.terminal, b"\x03")
    assert process.wait(5) == ExitStatus(signal=signal.SIGINT)


@pytest.mark.parametrize(
    ("command", "options", "error"),
    [
        ("no-such-command", {}, CommandNotFoundError),
        ("/etc/passwd", {}, NotExecutableError),
        ("true", {"workdir": "/no/such/directory"}, UsageError),
    ],
)
@pytest.mark.parametrize("terminal", [None, TerminalSize()])
def test_a_failed_start_is_one_error_and_leaks_nothing(start, command, options, error, terminal):
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(error):
        start(command, terminal=terminal, **options)
    assert set(os.listdir("/proc/self/fd")) == before
