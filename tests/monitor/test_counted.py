"""Machines that are run by counted instructions: one command, its streams, and nothing else from outside."""

import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from anyvirt.errors import GuestStartError, UsageError
from anyvirt.guest import Guest
from anyvirt.instance import ExitStatus, State, Streams, TerminalSize
from anyvirt.pipes import GuestPipes

TIMEOUT = 60


def sh(script, **parts):
    return Guest(command=["sh", "-c", script], seed=1, **parts)


def run(engine, guest, feed=b""):
    """Status, output, errors, and the instance after its end."""
    with ExitStack() as stack:
        pipes = GuestPipes(stack, feed=feed, capture=True, limit=None)
        instance = stack.enter_context(engine.start(guest, pipes.guest_ends))
        pipes.started(instance.end_fd)
        pipes.carry(time.monotonic() + TIMEOUT)
        return instance.wait(TIMEOUT), bytes(pipes.stdout), bytes(pipes.stderr), instance


@pytest.fixture
def start(request, engine):
    def start(guest):
        null = os.open(os.devnull, os.O_RDWR)
        instance = engine.start(guest, Streams(null, null, null))
        os.close(null)
        request.addfinalizer(instance.close)
        return instance

    return start


def test_streams_pass_and_the_count_comes_with_the_status(engine):
    data = os.urandom(300_000)
    status, out, errors, instance = run(engine, sh("cat; echo oops >&2; exit 3"), feed=data)
    assert (status, out, errors) == (ExitStatus(code=3), data, b"oops\n")
    assert instance.instructions == 12345


def test_output_that_nobody_reads_is_dropped(engine):
    reader, writer = os.pipe()
    os.close(reader)
    null = os.open(os.devnull, os.O_RDWR)
    with engine.start(sh("head -c 200000 /dev/zero; exit 4"), Streams(null, writer, null)) as instance:
        os.close(writer)
        assert instance.wait(TIMEOUT) == ExitStatus(code=4)
    os.close(null)


def test_a_command_that_cannot_be_started_is_told(engine):
    with pytest.raises(GuestStartError, match="no working directory /no/such/place"):
        run(engine, sh("true", workdir="/no/such/place"))


def test_a_signal_ends_it(start):
    instance = start(sh("sleep 1000"))
    instance.signal(signal.SIGTERM)
    assert instance.wait(TIMEOUT) == ExitStatus(signal=signal.SIGTERM)
    assert instance.instructions is None


def test_nothing_else_comes_from_outside(start, engine):
    instance = start(sh("sleep 1000"))
    with pytest.raises(UsageError, match="runs its own command"):
        instance.exec(["true"])
    null = os.open(os.devnull, os.O_RDWR)
    with pytest.raises(UsageError, match="has no terminal"):
        engine.start(sh("true"), Streams(null, null, null), TerminalSize())
    os.close(null)


def test_it_stands_still_as_a_whole(start):
    def stands(pid):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    instance = start(sh("sleep 1000"))
    instance.pause()
    assert instance.state is State.PAUSED
    deadline = time.monotonic() + TIMEOUT
    while not stands(instance.pid):
        assert time.monotonic() < deadline
    instance.resume()
    while stands(instance.pid):
        assert time.monotonic() < deadline
    assert instance.state is State.RUNNING
