"""The comparison: which engines are measured, relative to which, by which metrics, within which time."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from anyvirt.compare.bench import Bench, workload_refusal
from anyvirt.compare.booted import BootedGuests, boots
from anyvirt.compare.host import host_facts
from anyvirt.compare.metrics.command import BUDGET as COMMAND_BUDGET
from anyvirt.compare.metrics.command import measure_command
from anyvirt.compare.metrics.memory import BUDGET as MEMORY_BUDGET
from anyvirt.compare.metrics.memory import measure_memory
from anyvirt.compare.metrics.run_time import RunTimePlan, measure_workload, system_call_row
from anyvirt.compare.metrics.start import COLD_BUDGET, WARM_BUDGET, measure_start
from anyvirt.compare.metrics.start import COMMAND_BUDGET as COMMAND_START_BUDGET
from anyvirt.compare.results import Comparison, EngineColumn, Measured, Row, Unmeasured
from anyvirt.compare.turns import Budget
from anyvirt.compare.workloads import WORKLOADS
from anyvirt.engines import engine_names, get
from anyvirt.engines.engine import Capability
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
_FEW = 4
"""Samples below which a note says so."""


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
    roots: Sequence[Path | str] = (),
    fetch: bool = False,
    progress: Callable[[Step], None] | None = None,
) -> Comparison:
    """Measure `command`, or the built-in workloads, on `engines` (all of them) and relate them to native.

    A command is run in the host's root, unless an engine can execute that of one of the root file systems
    `roots`, which may be for other instruction sets. What an engine lacks (a kernel) is fetched from the
    network if it is among `engines` or `fetch` is true.

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
    if roots and command is None:
        raise UsageError("the workloads bring their programs: root file systems are for a command")
    chosen = [get(name) for name in _unique(engines or engine_names())]
    limits = _Limits(repeat, timeout or TIMEOUT)
    measure = _Workloads(limits, progress) if command is None else _Command(command, roots, limits, progress)
    return measure.run(chosen, tuple(command or ()), fetch=fetch or bool(engines))


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

    def __init__(self, limits: _Limits, progress: Callable[[Step], None] | None) -> None:
        self.limits = limits
        self._listener = progress

    def run(self, engines: Sequence[Engine], command: tuple[str, ...], *, fetch: bool) -> Comparison:
        """Measure on all engines that work here; those that do not get their reason in every cell.

        `fetch` says whether what they lack may be fetched.
        """
        began = time.monotonic()
        started = datetime.now(UTC).astimezone().isoformat(timespec="seconds")
        refused = {engine.name: Unmeasured(reason) for engine in engines if (reason := self.refusal(engine))}
        columns = [self._column(engine, fetch=fetch) for engine in engines]
        able = [
            engine
            for engine, column in zip(engines, columns, strict=True)
            if not column.reason and engine.name not in refused
        ]
        baseline = _baseline(able)
        measured = self.measure(able, baseline, _Progress(self._listener, self.whole(able)))
        rows = [replace(row, cells={**refused, **row.cells}) for row in measured]
        return Comparison(
            command=command,
            host=host_facts(),
            started=started,
            duration=time.monotonic() - began,
            engines=tuple(columns),
            baseline=baseline,
            rows=tuple(_with_all(row, columns) for row in rows),
            notes=(*_notes(columns, baseline, able), *self.notes(able), *_few_samples(able, rows)),
        )

    def _column(self, engine: Engine, *, fetch: bool) -> EngineColumn:
        """The engine's description, with its own reason when it does not work here."""
        reason = ""
        try:
            availability = engine.probe()
            if not availability.available:
                reason = "; ".join(part for part in (availability.reason, availability.remedy) if part)
            elif self.refusal(engine) is None:
                reason = self._fetched(engine, fetch=fetch)
        except AnyvirtError as error:
            reason = str(error)
        return EngineColumn(engine.name, engine.summary, engine.architecture, engine.execution, reason)

    def _fetched(self, engine: Engine, *, fetch: bool) -> str:
        """Have there what the engine needs from the network, or the reason why it is not there."""
        what = engine.to_fetch()
        if what is None:
            return ""
        if not fetch:
            return f"it needs {what}, which is fetched once if you allow it: --fetch, or --on {engine.name}"
        if self._listener is not None:
            self._listener(Step(f"fetching {what}", 0.0))
        try:
            engine.fetch()
        except AnyvirtError as error:
            return f"it needs {what}, which could not be fetched: {error}"
        return ""

    def whole(self, engines: Sequence[Engine]) -> float:
        """The sum of the shares of all stages, about in seconds."""
        raise NotImplementedError

    def measure(self, engines: Sequence[Engine], baseline: str | None, progress: _Progress) -> Iterable[Row]:
        """The rows, with a cell for each engine; `baseline` names the one that ratios relate to."""
        raise NotImplementedError

    def refusal(self, engine: Engine) -> str | None:
        """Why an engine cannot execute what is measured, or None when it can."""
        raise NotImplementedError

    def notes(self, engines: Sequence[Engine]) -> Iterable[str]:
        """What there is to say of the engines that have been measured."""
        return ()


class _Workloads(_Measurement):
    _build, _start, _boots, _run, _memory = 2.0, 5.0, 20.0, 3.0, 5.0

    def whole(self, engines: Sequence[Engine]) -> float:
        """See _Measurement.whole."""
        each = self._run * len(WORKLOADS) + self._memory
        return self._build + self._starting(engines) + each * len(engines)

    def _starting(self, engines: Sequence[Engine]) -> float:
        return sum(self._boots if boots(engine) else self._start for engine in engines)

    def refusal(self, engine: Engine) -> str | None:
        """See _Measurement.refusal."""
        return workload_refusal(engine)

    def measure(self, engines: Sequence[Engine], baseline: str | None, progress: _Progress) -> Iterable[Row]:
        """Start-up, run time of each workload, system calls, memory."""
        if not engines:
            return []
        progress.stage("building the workloads", self._build, 1)(None)
        with Bench(engines) as bench:
            return list(self._rows(bench, engines, baseline, progress))

    def _rows(
        self, bench: Bench, engines: Sequence[Engine], baseline: str | None, progress: _Progress
    ) -> Iterable[Row]:
        timeout, count = self.limits.timeout, len(engines)
        cold, warm, command = map(self.limits.budget, (COLD_BUDGET, WARM_BUDGET, COMMAND_START_BUDGET))
        yield from measure_start(
            bench,
            engines,
            timeout=timeout,
            baseline=baseline,
            cold_budget=cold,
            warm_budget=warm,
            command_budget=command,
            step=progress.stage(
                "start-up", self._starting(engines), count * (1 + cold.most + warm.most + command.most)
            ),
        )
        plan = RunTimePlan(timeout=timeout)
        plan = replace(plan, budget=self.limits.budget(plan.budget))
        for workload in WORKLOADS:
            step = progress.stage(workload.title, self._run * count, count * (plan.budget.most + 1))
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
            step=progress.stage("memory of idle instances", self._memory * count, count * budget.most),
        )


class _Command(_Measurement):
    def __init__(
        self,
        command: Sequence[str],
        roots: Sequence[Path | str],
        limits: _Limits,
        progress: Callable[[Step], None] | None,
    ) -> None:
        super().__init__(limits, progress)
        self._on_host = Guest(command=command, workdir=os.getcwd())
        self._on_roots = [Guest(command=command, rootfs=Path(root)) for root in roots]
        self._choices: dict[str, Guest | str] = {}

    @cached_property
    def _programs(self) -> list[tuple[Guest, Program | AnyvirtError]]:
        """What the command names in each of the roots and, last, in the host's. Raises the error of
        `find_program` if it is nowhere.
        """
        found = [(guest, _program(guest)) for guest in (*self._on_roots, self._on_host)]
        if all(isinstance(program, AnyvirtError) for _, program in found):
            raise next(program for _, program in found if isinstance(program, AnyvirtError))
        return found

    def _choice(self, engine: Engine) -> Guest | str:
        """The guest whose command an engine can execute, or the reason why it can none. Found out once."""
        if engine.name not in self._choices:
            self._choices[engine.name] = self._choose(engine)
        return self._choices[engine.name]

    def _choose(self, engine: Engine) -> Guest | str:
        reason = ""
        for guest, program in self._programs:
            missing = [option for _, option in engine.missing(guest)]
            if missing:
                continue
            reason = str(program) if isinstance(program, AnyvirtError) else engine.refusal(program) or ""
            if not reason:
                return guest
        if Capability.ROOTFS in engine.capabilities and Capability.FOREIGN_ISA in engine.capabilities:
            reason += "; give it a root file system of its own: --rootfs DIR"
        return reason

    def _guest(self, engine: Engine) -> Guest:
        choice = self._choice(engine)
        assert isinstance(choice, Guest)
        return choice

    def whole(self, engines: Sequence[Engine]) -> float:
        """See _Measurement.whole."""
        return 1.0

    def refusal(self, engine: Engine) -> str | None:
        """See _Measurement.refusal."""
        choice = self._choice(engine)
        return choice if isinstance(choice, str) else None

    def notes(self, engines: Sequence[Engine]) -> Iterable[str]:
        """Who runs another program than the host's."""
        for engine in engines:
            root = self._guest(engine).rootfs
            if root is not None:
                yield f"{engine.name} runs the command of the root file system {root}."

    def measure(self, engines: Sequence[Engine], baseline: str | None, progress: _Progress) -> Iterable[Row]:
        """The command's time, memory and end on the engines that can run it."""
        budget = self.limits.budget(COMMAND_BUDGET)
        with BootedGuests() as booted:
            return measure_command(
                self._guest,
                engines,
                starter=lambda engine: booted.starter(engine, self._guest(engine)),
                timeout=self.limits.timeout,
                baseline=baseline,
                budget=budget,
                step=progress.stage(self._on_host.command[0], 1.0, len(engines) * (budget.most + 1)),
            )


def _program(guest: Guest) -> Program | AnyvirtError:
    from anyvirt.linux.program import find_program

    try:
        return find_program(guest)
    except AnyvirtError as error:
        return error


def _baseline(engines: Sequence[Engine]) -> str | None:
    """Native where it takes part, else the first that does."""
    names = [engine.name for engine in engines]
    return BASELINE if BASELINE in names else next(iter(names), None)


def _with_all(row: Row, columns: Sequence[EngineColumn]) -> Row:
    """The row with a cell for every engine, in the engines' order."""
    cells = {column.name: row.cells.get(column.name) or Unmeasured(column.reason) for column in columns}
    return replace(row, cells=cells)


def _notes(columns: Sequence[EngineColumn], baseline: str | None, able: Sequence[Engine]) -> Iterable[str]:
    if baseline is None:
        yield "No engine could be measured."
    elif baseline != BASELINE:
        yield f"Ratios relate to {baseline}, because {BASELINE} took no part or cannot run this."
    for column in columns:
        if column.reason:
            yield f"{column.name} does not work here: {column.reason}."
    for engine in able:
        if boots(engine):
            yield f"{engine.name} has booted a kernel once for everything but starts and idle instances."


def _few_samples(engines: Sequence[Engine], rows: Sequence[Row]) -> Iterable[str]:
    """Of which engines few samples were taken, and fewer than of others, because each takes long."""
    found = []
    for engine in engines:
        counts: dict[str, list[int]] = {}
        for row in rows:
            taken = {name: len(c.samples) for name, c in row.cells.items() if isinstance(c, Measured)}
            if taken.get(engine.name, _FEW) < min(_FEW, max(taken.values(), default=0)):
                counts.setdefault(row.group, []).append(taken[engine.name])
        words = ", ".join(f"{group}: {_range(numbers)}" for group, numbers in counts.items())
        if words:
            found.append(f"{engine.name} ({words})")
    if found:
        yield f"Few samples were taken where one takes long: {'; '.join(found)}."


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"
