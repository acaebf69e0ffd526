"""Running a command as a whole process: its time on the clock, its CPU time as the kernel accounts it."""

import os
import select
import signal
import tempfile
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """One run: seconds, and what it wrote."""

    seconds: float
    user: float = 0.0
    """CPU time of all threads in user mode, in seconds; 0 where it was not measured."""
    system: float = 0.0
    output: bytes = b""


class RunError(Exception):
    """A command failed or did not end in time; the message is one sentence."""


def run_process(command, *, environment=None, stdin=os.devnull, timeout=600.0):
    """Run a command from posix_spawn(3) to its end. Raises RunError unless it succeeds.

    `environment` is added to that of this process, whose Python settings the command does not get.
    """
    words = [os.fspath(word) for word in command]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        actions = (
            (os.POSIX_SPAWN_OPEN, 0, os.fspath(stdin), os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, output.fileno(), 1),
            (os.POSIX_SPAWN_DUP2, errors.fileno(), 2),
        )
        begin = time.perf_counter()
        pid = os.posix_spawnp(words[0], words, {**variables, **(environment or {})}, file_actions=actions)
        status, usage = _wait(pid, timeout)
        seconds = time.perf_counter() - begin
        for file in (output, errors):
            file.seek(0)
        if status != 0:
            lines = errors.read().decode(errors="replace").strip().splitlines()
            reason = f": {lines[-1]}" if lines else ""
            raise RunError(f"{' '.join(words)} ended with {_ending(status, seconds, timeout)}{reason}")
        return Sample(seconds, usage.ru_utime, usage.ru_stime, output.read())


def _wait(pid, timeout):
    """The status and resources of a child, which is killed if it takes longer than `timeout` seconds."""
    descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        if not poll.poll(timeout * 1000):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        return status, usage
    finally:
        os.close(descriptor)


def _ending(status, seconds, timeout):
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGKILL and seconds >= timeout:
        return f"nothing after {timeout:.0f} seconds"
    return f"signal {-code}" if code < 0 else f"status {code}"
