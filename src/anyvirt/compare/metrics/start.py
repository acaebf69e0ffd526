"""Start-up: from the request to start a guest until its first instruction's output arrives.

Cold: the request is a fresh `anyvirt run` process, with everything it reads in the host's page cache. Warm:
it is a call of `Engine.start` in this process, which has started guests before. The guest writes one byte as
its first act; its arrival is what is timed.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from anyvirt.compare.booted import boots
from anyvirt.compare.guest_run import MeasurementError, complaint, error_output
from anyvirt.compare.results import Group, Row, Unit
from anyvirt.compare.turns import Budget, cells, take_turns
from anyvirt.compare.workloads import FIRST_INSTRUCTION
from anyvirt.errors import AnyvirtError
from anyvirt.instance import Streams

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anyvirt.compare.bench import Bench
    from anyvirt.engines.engine import Engine
    from anyvirt.guest import Guest

COLD_BUDGET = Budget(most=20, least=5, seconds=4.0, patience=6.0)
WARM_BUDGET = Budget(most=100, least=10, seconds=3.0, patience=6.0)


def measure_start(
    bench: Bench,
    engines: Sequence[Engine],
    *,
    timeout: float,
    baseline: str | None,
    step: Callable[[Engine], None],
    cold_budget: Budget = COLD_BUDGET,
    warm_budget: Budget = WARM_BUDGET,
) -> tuple[Row, Row]:
    """The rows of cold and of warm starts."""

    def cold(engine: Engine) -> float:
        return cold_start(run_command(engine, bench.guest(engine, FIRST_INSTRUCTION)), timeout)

    def warm(engine: Engine) -> float:
        return warm_start(engine, bench.guest(engine, FIRST_INSTRUCTION), timeout)

    rows = []
    for name, title, sample, budget, description in (
        (
            "cold-start",
            "start, cold",
            cold,
            cold_budget,
            "from starting a fresh `anyvirt run` (files in the page cache) to the guest's first byte",
        ),
        (
            "warm-start",
            "start, warm",
            warm,
            warm_budget,
            "from the call in a process that has started guests before to the guest's first byte",
        ),
    ):
        for engine in engines:
            if sample is warm and boots(engine):
                # The machine that the workloads will run in is a start like those that follow.
                with suppress(AnyvirtError):
                    bench.boot(engine)
            else:
                _warm_up(engine, sample)
        taken = take_turns(engines, sample, budget, step=step)
        rows.append(
            Row(name, title, Group.START, Unit.SECONDS, description, cells(taken, baseline), tail=True)
        )
    return rows[0], rows[1]


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


def warm_start(engine: Engine, guest: Guest, timeout: float) -> float:
    """Seconds from calling `engine.start` to the guest's first byte. Raises MeasurementError.

    The byte may arrive before `engine.start` returns, so a thread waits for it.
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
            instance = stack.enter_context(engine.start(guest, Streams(null, writer, errors)))
        finally:
            os.close(writer)
            stack.callback(arrival.join)
        try:
            status = instance.wait(max(0.0, began + timeout - time.perf_counter()))
        except TimeoutError:
            raise MeasurementError(f"it had not ended after {timeout:g} s and was killed") from None
        arrival.join()
        if arrival.time is None:
            raise MeasurementError(complaint(f"it ended before its first output, {status}", read_errors()))
        return arrival.time - began


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
