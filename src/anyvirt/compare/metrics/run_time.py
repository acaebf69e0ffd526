"""Run time of the workloads: from the moment when the host lets a started workload go to its last output.

The engine's start-up is not in it, and nothing is subtracted. The number of rounds is chosen for each engine,
so that a slow one finishes too; samples are per round.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from anyvirt.compare.guest_run import MeasurementError, printable, run_guest
from anyvirt.compare.results import Group, Measured, Row, Unit
from anyvirt.compare.turns import Budget, cells, take_turns
from anyvirt.compare.workloads.system_calls import CALLS_OF_ROUND
from anyvirt.errors import AnyvirtError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anyvirt.compare.bench import Bench
    from anyvirt.compare.workloads import Workload
    from anyvirt.engines.engine import Engine

_OUTPUT_LIMIT = 1 << 16
_GROWTH = 16
"""Most by which the number of rounds grows from one trial to the next."""


_BUDGET = Budget(most=6, seconds=2.4)


@dataclass(frozen=True)
class RunTimePlan:
    """How long and how often workloads run. Times are in seconds."""

    target: float = 0.15
    """What a run should take on the fastest engine."""
    longest: float = 0.6
    """What a run may take: a slower engine gets fewer rounds than the fastest."""
    budget: Budget = _BUDGET
    timeout: float = 60.0


def measure_workload(
    bench: Bench,
    engines: Sequence[Engine],
    workload: Workload,
    plan: RunTimePlan,
    *,
    baseline: str | None,
    step: Callable[[Engine], None],
) -> Row:
    """The row of one workload. `baseline` names the engine that ratios relate to."""
    runner = _Runner(bench, workload, plan.timeout)
    rounds: dict[str, int] = {}
    failures: dict[str, str] = {}
    for engine in sorted(engines, key=lambda engine: engine.name != baseline):
        step(engine)
        first = next(iter(rounds.values()), None)
        try:
            rounds[engine.name] = calibrate(partial(runner.seconds, engine), plan, first)
        except AnyvirtError as error:
            failures[engine.name] = str(error)
    able = [engine for engine in engines if engine.name in rounds]
    taken = take_turns(
        able,
        lambda engine: runner.seconds(engine, rounds[engine.name]) / rounds[engine.name],
        plan.budget,
        step=step,
    )
    ordered = {engine.name: taken.get(engine.name) or failures[engine.name] for engine in engines}
    return Row(
        workload.name,
        workload.title,
        Group.RUN_TIME,
        Unit.SECONDS,
        f"one round: {workload.summary}",
        cells(ordered, baseline, rounds=rounds),
    )


def calibrate(seconds: Callable[[int], float], plan: RunTimePlan, limit: int | None) -> int:
    """How many rounds to run, by trials with a growing number of rounds. At most `limit`, at least 1.

    Without a limit, the rounds that take about the target time; with one, as many as the longest time allows.
    A run that takes long is repeated: an engine may have prepared something for the first time.
    """
    wanted = plan.target if limit is None else plan.longest
    rounds = 1
    while True:
        took = seconds(rounds)
        if limit is not None and rounds >= limit:
            return limit
        if took >= wanted / 4:
            took = min(took, seconds(rounds))
        if took >= wanted / 4:
            fitting = max(1, int(rounds * wanted / took))
            return fitting if limit is None else min(limit, fitting)
        grown = rounds * max(2, min(_GROWTH, int(wanted / 2 / took) if took > 0 else _GROWTH))
        rounds = grown if limit is None else min(limit, grown)


def system_call_row(row: Row) -> Row:
    """The cost of one system call, from the run time of the workload that makes nothing else."""
    per_call = {
        name: Measured(
            tuple(sample / CALLS_OF_ROUND for sample in cell.samples), cell.ratios, cell.rounds, cell.note
        )
        if isinstance(cell, Measured)
        else cell
        for name, cell in row.cells.items()
    }
    return Row(
        "system-call",
        "one system call",
        Group.EXIT_PATHS,
        Unit.SECONDS,
        f"the run time of the workload {row.name} divided by its {CALLS_OF_ROUND} calls per round: "
        "the call itself and the way out of the guest and back",
        per_call,
    )


class _Runner:
    """Runs one workload and takes its time."""

    def __init__(self, bench: Bench, workload: Workload, timeout: float) -> None:
        self._bench = bench
        self._workload = workload
        self._timeout = timeout

    def seconds(self, engine: Engine, rounds: int) -> float:
        """From the release to the last output. Raises MeasurementError for a bad end."""
        guest = self._bench.guest(engine, self._workload, str(rounds))
        starter = self._bench.starter(engine)
        run = run_guest(starter, guest, timeout=self._timeout, output_limit=_OUTPUT_LIMIT, hold=True)
        expected = f"{self._workload.name} {rounds} rounds correct\n".encode()
        if run.status.code != 0 or run.released is None or run.last_output is None:
            said = printable(run.stdout.decode(errors="replace").removeprefix(f"{self._workload.name} "))
            raise MeasurementError(f"{said}: {run.complaint()}" if said else run.complaint())
        if run.stdout != expected:
            raise MeasurementError(f"its output is not {expected!r} but {run.stdout[:100]!r}")
        return run.last_output - run.released
