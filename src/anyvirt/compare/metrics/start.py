"""Start-up: from the request to start a guest until its first instruction's output arrives.

Cold: the request is a fresh `anyvirt run` process, with everything it reads in the host's page cache. Warm:
it is a call of `Engine.start` in this process, which has started guests before. Where a kernel is booted,
that is part of both, and shown alone, too; what each further command in a running guest costs is another row.
The guest writes one byte as its first act; its arrival is what is timed.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyvirt.compare.booted import boots
from anyvirt.compare.guest_run import MeasurementError, complaint, error_output
from anyvirt.compare.results import Cell, Group, Measured, Row, Unit, Unmeasured
from anyvirt.compare.turns import Budget, cells, take_turns
from anyvirt.compare.workloads import FIRST_INSTRUCTION
from anyvirt.engines.engine import Capability
from anyvirt.instance import Streams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from anyvirt.compare.bench import Bench
    from anyvirt.engines.engine import Engine
    from anyvirt.guest import Guest
    from anyvirt.instance import Instance, Process

COLD_BUDGET = Budget(most=20, least=5, seconds=4.0, patience=6.0)
WARM_BUDGET = Budget(most=100, least=10, seconds=3.0, patience=6.0)
COMMAND_BUDGET = Budget(most=100, least=10, seconds=2.0)
_NO_KERNEL = "it boots no kernel of its own"
_NO_COMMANDS = "it runs no further commands in a running guest"


def measure_start(
    bench: Bench,
    engines: Sequence[Engine],
    *,
    timeout: float,
    baseline: str | None,
    step: Callable[[Engine], None],
    cold_budget: Budget = COLD_BUDGET,
    warm_budget: Budget = WARM_BUDGET,
    command_budget: Budget = COMMAND_BUDGET,
) -> Iterator[Row]:
    """The rows of cold and warm starts, of boots where there are any, of commands in running guests."""
    boot_times: dict[str, list[float]] = {engine.name: [] for engine in engines if boots(engine)}

    def cold(engine: Engine) -> float:
        return cold_start(run_command(engine, bench.guest(engine, FIRST_INSTRUCTION)), timeout)

    def warm(engine: Engine) -> float:
        guest = bench.guest(engine, FIRST_INSTRUCTION)
        start = timed_start(lambda streams: engine.start(guest, streams), timeout)
        if boots(engine):
            boot_times[engine.name].append(start.arrived - start.returned)
        return start.arrived

    def command(engine: Engine) -> float:
        return command_start(bench.running(engine), bench.guest(engine, FIRST_INSTRUCTION), timeout)

    for engine in engines:
        step(engine)
        # The machine that the workloads will run in is a start like those that follow.
        _warm_up(engine, command if boots(engine) else cold)
    taken = take_turns(engines, cold, cold_budget, step=step)
    yield _row(
        "cold-start",
        "start, cold",
        "from starting a fresh `anyvirt run` (files in the page cache) to the guest's first byte",
        cells(taken, baseline),
    )
    for engine in engines:
        if not boots(engine):
            _warm_up(engine, warm)
    taken = take_turns(engines, warm, warm_budget, step=step)
    yield _row(
        "warm-start",
        "start, warm",
        "from the call in a process that has started guests before to the guest's first byte",
        cells(taken, baseline),
    )
    if boot_times:
        yield _row(
            "boot",
            "boot alone",
            "the part of a warm start from the machine's power-on, when it is complete, to the first byte",
            _boot_cells(taken, boot_times),
        )
    able = [engine for engine in engines if Capability.EXEC in engine.capabilities]
    for engine in able:
        _warm_up(engine, command)
    taken = take_turns(able, command, command_budget, step=step)
    for engine in able:
        bench.let_go(engine)
    unable = {engine.name: Unmeasured(_NO_COMMANDS) for engine in engines if engine not in able}
    yield _row(
        "command-start",
        "command in a running guest",
        "from the request for a further command in an idle guest, booted long ago, to its first byte",
        {**cells(taken, baseline), **unable},
    )


def _row(name: str, title: str, description: str, found: Mapping[str, Cell]) -> Row:
    return Row(name, title, Group.START, Unit.SECONDS, description, found, tail=True)


def _boot_cells(
    starts: Mapping[str, tuple[float, ...] | str], boot_times: Mapping[str, Sequence[float]]
) -> dict[str, Cell]:
    """The boots of the starts that succeeded; nothing is a baseline that boots nothing."""
    found: dict[str, Cell] = {}
    for name, start in starts.items():
        if name not in boot_times:
            found[name] = Unmeasured(_NO_KERNEL)
        elif isinstance(start, str):
            found[name] = Unmeasured(start)
        else:
            found[name] = Measured(tuple(boot_times[name]))
    return found


def _warm_up(engine: Engine, sample: Callable[[Engine], float]) -> None:
    """Fill caches. A failure is not lost: the first real sample meets it again."""
    take_turns([engine], sample, Budget(most=1))


def run_command(engine: Engine, guest: Guest) -> list[str]:
    """The words of the command line that runs `guest` on `engine`."""
    words = [sys.executable, "-m", "anyvirt", "run", "--on", engine.name]
    for mount in guest.mounts:
        words += ["--mount", f"{mount.source}:{mount.target}"]
    if guest.workdir:
        words += ["--workdir", guest.workdir]
    return [*words, "--", *guest.command]


def cold_start(command: Sequence[str], timeout: float) -> float:
    """Seconds from starting the process `command` to its first byte. Raises MeasurementError."""
    with ExitStack() as stack:
        reader, writer = os.pipe()
        stack.callback(os.close, reader)
        began = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=writer, stderr=subprocess.PIPE, process_group=0
        )
        stack.callback(_end, process)
        os.close(writer)
        arrived = _first_byte(reader, began + timeout)
        if arrived is None:
            raise MeasurementError(_complaint(process, timeout))
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise MeasurementError(f"it had not ended after {timeout:g} s and was killed") from None
        return arrived - began


@dataclass(frozen=True)
class TimedStart:
    """A start, in seconds since the request."""

    returned: float
    """When the engine had made the guest."""
    arrived: float
    """When the guest's first byte arrived, which may have been before that."""


def warm_start(engine: Engine, guest: Guest, timeout: float) -> float:
    """Seconds from calling `engine.start` to the guest's first byte. Raises MeasurementError."""
    return timed_start(lambda streams: engine.start(guest, streams), timeout).arrived


def command_start(instance: Instance, guest: Guest, timeout: float) -> float:
    """Seconds from asking a running guest for the command of `guest` to the command's first byte.

    Raises MeasurementError.
    """
    return timed_start(
        lambda streams: instance.exec(guest.command, env=guest.env, workdir=guest.workdir, streams=streams),
        timeout,
    ).arrived


def timed_start(start: Callable[[Streams], Process], timeout: float) -> TimedStart:
    """Start something with no input, and wait for its first byte and its end. Raises MeasurementError.

    The byte may arrive before `start` returns, so a thread waits for it.
    """
    with ExitStack() as stack:
        reader, writer = os.pipe()
        stack.callback(os.close, reader)
        null = os.open(os.devnull, os.O_RDONLY)
        stack.callback(os.close, null)
        errors, read_errors = stack.enter_context(error_output())
        arrival = _Arrival(reader, timeout)
        try:
            began = time.perf_counter()
            process = start(Streams(null, writer, errors))
            returned = time.perf_counter()
            stack.callback(_give_back, process)
        finally:
            os.close(writer)
            stack.callback(arrival.join)
        try:
            status = process.wait(max(0.0, began + timeout - time.perf_counter()))
        except TimeoutError:
            process.signal(signal.SIGKILL)
            process.wait()
            raise MeasurementError(f"it had not ended after {timeout:g} s and was killed") from None
        arrival.join()
        if arrival.time is None:
            raise MeasurementError(complaint(f"it ended before its first output, {status}", read_errors()))
        return TimedStart(returned - began, arrival.time - began)


def _give_back(process: Process) -> None:
    close = getattr(process, "close", None)
    if close is not None:
        close()


class _Arrival(threading.Thread):
    """Waits for the first byte on a pipe and notes the time."""

    def __init__(self, reader: int, timeout: float) -> None:
        super().__init__(daemon=True)
        self.time: float | None = None
        self._reader = reader
        self._deadline = time.perf_counter() + timeout
        self.start()

    def run(self) -> None:
        """See Thread.run."""
        self.time = _first_byte(self._reader, self._deadline)


def _first_byte(reader: int, deadline: float) -> float | None:
    """When the byte arrived; None when the deadline passed or the writers went without writing."""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    if not poll.poll(max(0.0, deadline - time.perf_counter()) * 1000):
        return None
    arrived = time.perf_counter()
    return arrived if os.read(reader, 1) else None


def _complaint(process: subprocess.Popen[bytes], timeout: float) -> str:
    """What a process that wrote nothing has to say: the last line of its error output."""
    try:
        _, errors = process.communicate(timeout=1)
    except subprocess.TimeoutExpired:
        return f"nothing came within {timeout:g} s"
    return complaint(f"it ended before its first output, exit status {process.returncode}", errors)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stderr:
        process.stderr.close()
