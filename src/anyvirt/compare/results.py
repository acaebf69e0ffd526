"""What a comparison found: rows of cells, each with all its raw samples, as frozen data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyvirt.compare.host import HostFacts


class Unit(StrEnum):
    """What the samples of a row count."""

    SECONDS = "seconds"
    BYTES = "bytes"


class Group(StrEnum):
    """The sections of a comparison, in their order."""

    START = "start"
    RUN_TIME = "run time of one round"
    EXIT_PATHS = "cost of leaving the guest"
    MEMORY = "memory"
    COMMAND = "command"


@dataclass(frozen=True)
class Measured:
    """A cell with a value."""

    samples: tuple[float, ...]
    """In the row's unit, in the order they were taken."""
    ratios: tuple[float, ...] = ()
    """Each sample relative to the baseline's of the same turn; empty where there is none to relate to."""
    rounds: int | None = None
    """How many rounds of the workload each sample was taken over, where samples are per round."""
    note: str = ""

    @property
    def median(self) -> float:
        """The middle sample (the mean of the two middle ones)."""
        return percentile(self.samples, 50)

    @property
    def ratio(self) -> float | None:
        """The median of the ratios."""
        return percentile(self.ratios, 50) if self.ratios else None


@dataclass(frozen=True)
class Reported:
    """A cell with a text, such as an exit status."""

    text: str
    note: str = ""


@dataclass(frozen=True)
class Unmeasured:
    """A cell without a value, and why."""

    reason: str


Cell: TypeAlias = Measured | Reported | Unmeasured


@dataclass(frozen=True)
class Row:
    """One metric on every engine."""

    name: str
    title: str
    group: Group
    unit: Unit
    description: str
    """How it was measured, for the reader of a report."""
    cells: Mapping[str, Cell]
    """By the engine's name."""
    tail: bool = False
    """Whether the slowest samples matter too, so that reports show the 99th percentile."""


@dataclass(frozen=True)
class EngineColumn:
    """An engine that was to be compared."""

    name: str
    summary: str
    architecture: str
    execution: str
    reason: str = ""
    """Why it does not work here; empty where it does."""


@dataclass(frozen=True)
class Comparison:
    """What was measured, on what, and everything that was found."""

    command: tuple[str, ...]
    """The user's command; empty when the built-in workloads were measured."""
    host: HostFacts
    started: str
    """When, as ISO 8601 with time zone."""
    duration: float
    """Seconds that the measurement took in all."""
    engines: tuple[EngineColumn, ...]
    baseline: str | None
    """The engine that ratios relate to; None when no engine could be measured."""
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = field(default=())
    """What a reader has to know to read the numbers right."""

    @property
    def measured(self) -> bool:
        """Whether there is any value at all."""
        return any(not isinstance(cell, Unmeasured) for row in self.rows for cell in row.cells.values())

    def row(self, name: str) -> Row:
        """The row called `name`. Raises KeyError."""
        return {row.name: row for row in self.rows}[name]

    def __str__(self) -> str:
        """The table of `anyvirt compare`, as plain text."""
        from anyvirt.compare.report import table_text

        return table_text(self)


def percentile(samples: Sequence[float], percent: float) -> float:
    """The value below which `percent` of the samples lie, interpolated between the two nearest.

    Raises ValueError without samples.
    """
    if not samples:
        raise ValueError("no samples")
    ordered = sorted(samples)
    position = (len(ordered) - 1) * percent / 100
    below, above = math.floor(position), math.ceil(position)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def ratios(samples: Sequence[float], baseline: Sequence[float]) -> tuple[float, ...]:
    """Each sample relative to the baseline's of the same turn; empty when a baseline's is not positive."""
    pairs = list(zip(samples, baseline, strict=False))
    if any(base <= 0 for _, base in pairs):
        return ()
    return tuple(sample / base for sample, base in pairs)
