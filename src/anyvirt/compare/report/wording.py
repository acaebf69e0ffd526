"""How cells read, in the terminal and on the page alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyvirt.compare.results import Measured, Reported, Row, Unit, percentile
from anyvirt.quantities import format_duration, format_size

if TYPE_CHECKING:
    from anyvirt.compare.results import Cell, Comparison

READING = "In each cell: the median ratio to the baseline and the median; below them the range of the ratios."


@dataclass(frozen=True)
class CellText:
    """A cell's words: what matters, what stands below it, and the reason if there is no value."""

    headline: str = ""
    detail: str = ""
    reason: str = ""


def cell_text(row: Row, engine: str, baseline: str | None) -> CellText:
    """The words of a row's cell for `engine`."""
    cell: Cell = row.cells[engine]
    if isinstance(cell, Reported):
        return CellText(cell.text, cell.note)
    if not isinstance(cell, Measured):
        return CellText(reason=cell.reason)
    value = format_value(cell.median, row.unit)
    details = [f"p99 {format_value(percentile(cell.samples, 99), row.unit)}"] if row.tail else []
    if cell.ratio is not None and engine != baseline:
        value = f"{format_ratio(cell.ratio)}x  {value}"
        details.insert(0, f"{format_ratio(min(cell.ratios))} to {format_ratio(max(cell.ratios))}")
    return CellText(value, ", ".join([*details, *([cell.note] if cell.note else [])]))


def format_value(value: float, unit: Unit) -> str:
    """A sample or a median with its unit."""
    if value == 0 and unit is Unit.SECONDS:
        return "0 s"
    return format_duration(value) if unit is Unit.SECONDS else format_size(value)


def format_ratio(ratio: float) -> str:
    """A ratio with three digits."""
    if abs(ratio) >= 100:
        return f"{ratio:.0f}"
    return f"{ratio:.1f}" if abs(ratio) >= 10 else f"{ratio:.2f}"


def headline(comparison: Comparison) -> str:
    """What was compared, in one line."""
    subject = " ".join(comparison.command) if comparison.command else "The built-in workloads"
    base = f", relative to {comparison.baseline}" if comparison.baseline else ""
    return f"{subject} on {len(comparison.engines)} engines{base}"
