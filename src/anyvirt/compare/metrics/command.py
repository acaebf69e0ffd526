"""The user's own command on every engine: wall-clock time, CPU time, peak memory and exit status."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyvirt.compare.guest_run import MeasurementError, run_guest
from anyvirt.compare.results import Cell, Group, Reported, Row, Unit, Unmeasured
from anyvirt.compare.turns import Budget, cells, take_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anyvirt.compare.booted import Starter
    from anyvirt.compare.guest_run import GuestRun
    from anyvirt.engines.engine import Engine
    from anyvirt.guest import Guest

BUDGET = Budget(most=10, least=3, seconds=20.0)


@dataclass(frozen=True)
class _Quantity:
    name: str
    title: str
    unit: Unit
    description: str
    of: Callable[[GuestRun], float | None]
    unknown: str = ""
    """Why a run may have no figure."""


_QUANTITIES = (
    _Quantity(
        "wall-time",
        "wall-clock time",
        Unit.SECONDS,
        "from the request to start until the end",
        lambda run: run.ended,
    ),
    _Quantity(
        "user-time",
        "CPU time, user",
        Unit.SECONDS,
        "in user mode, of the engine's and the guest's processes",
        lambda run: run.usage.user_seconds,
    ),
    _Quantity(
        "system-time",
        "CPU time, system",
        Unit.SECONDS,
        "in the host's kernel, of the engine's and the guest's processes",
        lambda run: run.usage.system_seconds,
    ),
    _Quantity(
        "peak-memory",
        "peak memory",
        Unit.BYTES,
        "the largest resident set of any one process",
        lambda run: run.usage.peak_memory,
        unknown="it needed less than the process that started it, which the kernel counts too",
    ),
)


def measure_command(
    guest: Callable[[Engine], Guest],
    engines: Sequence[Engine],
    *,
    starter: Callable[[Engine], Starter],
    timeout: float,
    baseline: str | None,
    step: Callable[[Engine], None],
    budget: Budget = BUDGET,
) -> tuple[Row, ...]:
    """The rows of the command in what `guest` is for an engine. One run before the first turn fills caches.

    `starter` says who starts the command on an engine.
    """
    runs: dict[str, list[GuestRun]] = {engine.name: [] for engine in engines}

    def sample(engine: Engine) -> float:
        run = run_guest(starter(engine), guest(engine), timeout=timeout)
        if run.status.signal is not None:
            raise MeasurementError(run.complaint())
        runs[engine.name].append(run)
        return run.ended

    for engine in engines:
        step(engine)
        take_turns([engine], sample, Budget(most=1))
        runs[engine.name].clear()
    taken = take_turns(engines, sample, budget, step=step)
    rows = []
    for quantity in _QUANTITIES:
        values = {
            name: found if isinstance(found, str) else _figures(quantity, runs[name])
            for name, found in taken.items()
        }
        made = cells(values, baseline)
        rows.append(
            Row(quantity.name, quantity.title, Group.COMMAND, quantity.unit, quantity.description, made)
        )
    reference = runs.get(baseline or "") or None
    ends = {
        name: Unmeasured(found) if isinstance(found, str) else _end(runs[name], reference)
        for name, found in taken.items()
    }
    description = "how the command ended, and whether its output was that of the baseline"
    return (*rows, Row("exit-status", "exit status", Group.COMMAND, Unit.SECONDS, description, ends))


def _figures(quantity: _Quantity, runs: Sequence[GuestRun]) -> tuple[float, ...] | str:
    """The figure of each run, or the reason why there is none."""
    figures = [quantity.of(run) for run in runs]
    known = tuple(figure for figure in figures if figure is not None)
    return known if len(known) == len(figures) else quantity.unknown


def _end(runs: Sequence[GuestRun], reference: Sequence[GuestRun] | None) -> Cell:
    """The command's exit status, the same in all runs or each one's, with what its output gives to notice."""
    statuses = sorted({run.status.shell for run in runs})
    note = ""
    if reference is not None and any(_differs(run, reference[0]) for run in runs):
        note = "the output differs from the baseline's"
    elif any(_differs(run, runs[0]) for run in runs):
        note = "the output differs from run to run"
    return Reported(", ".join(map(str, statuses)), note)


def _differs(run: GuestRun, reference: GuestRun) -> bool:
    return (run.stdout, run.stdout_size) != (reference.stdout, reference.stdout_size)
