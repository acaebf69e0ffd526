"""The comparison: which engines are measured, relative to which, by which metrics, within which time."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

from anyvirt.compare.bench import Bench, choose_isa
from anyvirt.compare.booted import BootedGuests, boots
from anyvirt.compare.host import host_facts
from anyvirt.compare.metrics.command import BUDGET as COMMAND_BUDGET
from anyvirt.compare.metrics.command import measure_command
from anyvirt.compare.metrics.memory import BUDGET as MEMORY_BUDGET
from anyvirt.compare.metrics.memory import measure_memory
from anyvirt.compare.metrics.run_time import RunTimePlan, measure_workload, system_call_row
from anyvirt.compare.metrics.start import COLD_BUDGET, WARM_BUDGET, measure_start
from anyvirt.compare.results import Comparison, EngineColumn, Row, Unmeasured
from anyvirt.compare.turns import Budget
from anyvirt.compare.workloads import WORKLOADS
from anyvirt.engines import engine_names, get
from anyvirt.errors import AnyvirtError, UsageError
from anyvirt.guest import Guest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from anyvirt.engines.engine import Engine
    from anyvirt.linux.program import Program

__all__ = ["Comparison", "Step", "compare"]

BASELINE = "native"
TIMEOUT = 60.0
"""Seconds that one run may take unless the caller says otherwise."""


@dataclass(frozen=True)
class Step:
    """What is being measured now, for whoever shows progress."""

    label: str
    """The metric, and the engine."""
    done: float
    """The part of the whole that lies behind, from 0 to 1."""


def compare(
    command: Sequence[str] | None = None,
    *,
    engines: Sequence[str] | None = None,
    repeat: int | None = None,
    timeout: float | None = None,
    progress: Callable[[Step], None] | None = None,
) -> Comparison:
    """Measure `command`, or the built-in workloads, on `engines` and relate them to native.

    Without `engines` it is all of them whose samples do not take a long start each (Engine.is_compared).

    `repeat` is the number of samples of each cell (None: as many as give a steady median in reasonable
    time), `timeout` the seconds that one run may take, `progress` is told each step. An engine that does not
    work here, or cannot run something, has its reason in its cells. Raises UsageError for arguments that make
    no sense and the error of `find_program` for a command that no engine could run.
    """
    if repeat is not None and repeat < 1:
        raise UsageError(f"{repeat} repetitions measure nothing: give at least 1")
    if timeout is not None and not timeout > 0:
        raise UsageError(f"a timeout of {timeout:g} s leaves no time to run: give more than 0")
    if command is not None and not command:
        raise UsageError("there is no command to measure: name one, or leave it away for the workloads")
    usual = [name for name in engine_names() if get(name).is_compared]
    chosen = [get(name) for name in _unique(engines or usual)]
    left_out = [get(name) for name in engine_names() if not engines and name not in usual]
    limits = _Limits(repeat, timeout or TIMEOUT)
    measure = _Workloads(limits, progress) if command is None else _Command(command, limits, progress)
    return measure.run(chosen, tuple(command or ()), left_out)


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


@dataclass(frozen=True)
class _Limits:
    repeat: int | None
    timeout: float

    def budget(self, default: Budget) -> Budget:
        """The default, or exactly as many samples as the caller asked for."""
        return default if self.repeat is None else Budget(most=self.repeat, least=self.repeat)


class _Progress:
    """Turns the metrics' steps into parts of the whole: each stage has a share of it, a step its part."""

    def __init__(self, listener: Callable[[Step], None] | None, whole: float) -> None:
        self._listener = listener
        self._whole = whole
        self._behind = 0.0

    def stage(self, label: str, share: float, steps: int) -> Callable[[Engine | None], None]:
        """Begin a stage of at most so many steps; returns what to call at each."""
        began = self._behind
        self._behind += share
        taken = 0

        def step(engine: Engine | None = None) -> None:
            nonlocal taken
            on = f" on {engine.name}" if engine is not None else ""
            if self._listener is not None:
                inside = share * min(taken / max(steps, 1), 1.0)
                self._listener(Step(f"{label}{on}", (began + inside) / self._whole))
            taken += 1

        return step


class _Measurement:
    """What measuring the workloads and measuring a command have in common."""

    whole: float
    """The sum of the shares of all stages, about in seconds."""

    def __init__(self, limits: _Limits, progress: Callable[[Step], None] | None) -> None:
        self.limits = limits
        self.progress = _Progress(progress, self.whole)

    def run(
        self, engines: Sequence[Engine], command: tuple[str, ...], left_out: Sequence[Engine]
    ) -> Comparison:
        """Measure on all engines that work here; those that do not get their reason in every cell.

        `left_out` are engines that are only measured if they are named.
        """
        began = time.monotonic()
        started = datetime.now(UTC).astimezone().isoformat(timespec="seconds")
        columns = [_column(engine) for engine in engines]
        working = [engine for engine, column in zip(engines, columns, strict=True) if not column.reason]
        rows, baseline = self.measure(working)
        return Comparison(
            command=command,
            host=host_facts(),
            started=started,
            duration=time.monotonic() - began,
            engines=tuple(columns),
            baseline=baseline,
            rows=tuple(_with_all(row, columns) for row in rows),
            notes=tuple(
                _notes(columns, baseline, [engine.name for engine in left_out if self.can_run(engine)])
            ),
        )

    def measure(self, engines: Sequence[Engine]) -> tuple[list[Row], str | None]:
        """The rows, and the engine that ratios relate to."""
        raise NotImplementedError

    def can_run(self, engine: Engine) -> bool:
        """Whether an engine could execute what is measured."""
        return choose_isa(engine) is not None


class _Workloads(_Measurement):
    _build, _start, _run, _memory = 2.0, 14.0, 5.0, 12.0
    whole = _build + _start + _run * len(WORKLOADS) + _memory

    def measure(self, engines: Sequence[Engine]) -> tuple[list[Row], str | None]:
        """Start-up, run time of each workload, system calls, memory."""
        self.progress.stage("building the workloads", self._build, 1)(None)
        with Bench(engines) as bench:
            able = [engine for engine in engines if bench.refusal(engine) is None]
            baseline = _baseline(able)
            rows: list[Row] = []
            if able:
                rows = list(self._rows(bench, able, baseline))
        reasons = {engine.name: bench.refusal(engine) for engine in engines}
        refused = {name: Unmeasured(reason) for name, reason in reasons.items() if reason is not None}
        return [replace(row, cells={**row.cells, **refused}) for row in rows], baseline

    def _rows(self, bench: Bench, engines: Sequence[Engine], baseline: str | None) -> Iterable[Row]:
        timeout, count = self.limits.timeout, len(engines)
        cold, warm = self.limits.budget(COLD_BUDGET), self.limits.budget(WARM_BUDGET)
        yield from measure_start(
            bench,
            engines,
            timeout=timeout,
            baseline=baseline,
            cold_budget=cold,
            warm_budget=warm,
            step=self.progress.stage("start-up", self._start, count * (cold.most + warm.most)),
        )
        plan = RunTimePlan(timeout=timeout)
        plan = replace(plan, budget=self.limits.budget(plan.budget))
        for workload in WORKLOADS:
            step = self.progress.stage(workload.title, self._run, count * (plan.budget.most + 1))
            row = measure_workload(bench, engines, workload, plan, baseline=baseline, step=step)
            yield row
            if workload.name == "system-calls":
                yield system_call_row(row)
        budget = self.limits.budget(MEMORY_BUDGET)
        yield from measure_memory(
            bench,
            engines,
            timeout=timeout,
            baseline=baseline,
            budget=budget,
            step=self.progress.stage("memory of idle instances", self._memory, count * budget.most),
        )


class _Command(_Measurement):
    whole = 1.0

    def __init__(
        self, command: Sequence[str], limits: _Limits, progress: Callable[[Step], None] | None
    ) -> None:
        super().__init__(limits, progress)
        self._guest = Guest(command=command, workdir=os.getcwd())

    @cached_property
    def _program(self) -> Program:
        from anyvirt.linux.program import find_program

        return find_program(self._guest)

    def can_run(self, engine: Engine) -> bool:
        """See _Measurement.can_run."""
        return engine.refusal(self._program) is None

    def measure(self, engines: Sequence[Engine]) -> tuple[list[Row], str | None]:
        """The command's time, memory and end on the engines that can run it."""
        reasons = {engine.name: engine.refusal(self._program) for engine in engines}
        able = [engine for engine in engines if reasons[engine.name] is None]
        baseline = _baseline(able)
        budget = self.limits.budget(COMMAND_BUDGET)
        with BootedGuests() as booted:
            rows = measure_command(
                self._guest,
                able,
                starter=lambda engine: booted.starter(engine, self._guest),
                timeout=self.limits.timeout,
                baseline=baseline,
                budget=budget,
                step=self.progress.stage(self._guest.command[0], self.whole, len(able) * (budget.most + 1)),
            )
        refused = {name: Unmeasured(reason) for name, reason in reasons.items() if reason is not None}
        return [replace(row, cells={**row.cells, **refused}) for row in rows], baseline


def _column(engine: Engine) -> EngineColumn:
    """The engine's description, with its own reason when it does not work here."""
    reason = ""
    try:
        availability = engine.probe()
        if not availability.available:
            reason = "; ".join(part for part in (availability.reason, availability.remedy) if part)
    except AnyvirtError as error:
        reason = str(error)
    return EngineColumn(engine.name, engine.summary, engine.architecture, engine.execution, reason)


def _baseline(engines: Sequence[Engine]) -> str | None:
    """Native where it takes part, else the first that does."""
    names = [engine.name for engine in engines]
    return BASELINE if BASELINE in names else next(iter(names), None)


def _with_all(row: Row, columns: Sequence[EngineColumn]) -> Row:
    """The row with a cell for every engine, in the engines' order."""
    cells = {column.name: row.cells.get(column.name) or Unmeasured(column.reason) for column in columns}
    return replace(row, cells=cells)


def _notes(columns: Sequence[EngineColumn], baseline: str | None, left_out: Sequence[str]) -> Iterable[str]:
    if baseline is None:
        yield "No engine could be measured."
    elif baseline != BASELINE:
        yield f"Ratios relate to {baseline}, because {BASELINE} took no part or cannot run this."
    for column in columns:
        if column.reason:
            yield f"{column.name} does not work here: {column.reason}."
        elif boots(get(column.name)):
            yield f"{column.name} has booted a kernel once for everything but starts and idle instances."
    if left_out:
        yield (
            f"Not measured unless named with --on, because booting kernels takes minutes in all: "
            f"{', '.join(left_out)}."
        )
