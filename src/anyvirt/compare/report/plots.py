"""The page's plots as SVG text, drawn by matplotlib where it is installed.

Text stays text and takes the page's colour, so that the plots follow its light and its dark look.
"""

from __future__ import annotations

import io
import math
import os
import re
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from anyvirt.compare.report.wording import format_ratio, format_value
from anyvirt.compare.results import Group, Measured, Unit
from anyvirt.paths import cache_directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anyvirt.compare.results import Comparison, EngineColumn, Row

PALETTE = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
"""Colours that people with any colour vision can tell apart (Paul Tol, "bright")."""
_INK = "#123456"
"""Stands for the page's own text colour until the SVG is done."""
_WIDTH = 7.6
_SETTINGS: Any = {
    "font.size": 10,
    "font.family": "sans-serif",
    "svg.fonttype": "none",
    "svg.hashsalt": "anyvirt",
    "text.parse_math": False,
}


def available() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def plots(comparison: Comparison) -> list[tuple[str, str]]:
    """Title and SVG text of each plot that the comparison has values for."""
    # Its font cache belongs to our state directory, not to the user's configuration.
    os.environ.setdefault("MPLCONFIGDIR", str(cache_directory() / "matplotlib"))
    import matplotlib as mpl

    with mpl.rc_context(rc=_SETTINGS):
        return list(_draw(comparison))


def _draw(comparison: Comparison) -> Iterator[tuple[str, str]]:
    run_times = [row for row in comparison.rows if row.group is Group.RUN_TIME and _related(row)]
    if run_times:
        title = f"Run time relative to {comparison.baseline} (shorter is faster)"
        yield title, _ratios(comparison, run_times)
    starts = [row for row in comparison.rows if row.group is Group.START and _measured(row)]
    if starts:
        yield "Start-up: every sample, and the median", _samples(comparison, starts)
    memory = [row for row in comparison.rows if row.group is Group.MEMORY and _measured(row)]
    if memory:
        yield "Memory of an idle instance", _samples(comparison, memory)
    command = [row for row in comparison.rows if row.group is Group.COMMAND and _measured(row)]
    if command:
        yield "Every run of the command, and the median", _samples(comparison, command[:1])


def _measured(row: Row) -> bool:
    """Whether there is anything to show on a logarithmic scale."""
    return any(isinstance(cell, Measured) and max(cell.samples) > 0 for cell in row.cells.values())


def _related(row: Row) -> bool:
    return any(isinstance(cell, Measured) and cell.ratios for cell in row.cells.values())


def _ratios(comparison: Comparison, rows: Sequence[Row]) -> str:
    """Bars from 1 to the median ratio on a logarithmic scale, with the range of all ratios."""
    columns = [
        column
        for column in comparison.engines
        if any(isinstance(cell := row.cells[column.name], Measured) and cell.ratios for row in rows)
    ]
    figure, axes = _figure(0.9 + len(rows) * (0.22 + 0.2 * len(columns)))
    height = 0.8 / max(len(columns), 1)
    for index, column in enumerate(columns):
        for position, row in enumerate(rows):
            cell = row.cells[column.name]
            if not isinstance(cell, Measured) or cell.ratio is None:
                continue
            at = position + (index - (len(columns) - 1) / 2) * height
            axes.barh(at, cell.ratio - 1, height * 0.86, left=1, color=_colour(comparison, column))
            axes.plot([min(cell.ratios), max(cell.ratios)], [at, at], color=_INK, linewidth=1.2)
            end = max(1.0, *cell.ratios)
            axes.annotate(
                f"{format_ratio(cell.ratio)}x",
                (end, at),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                color=_INK,
                fontsize=9,
            )
    axes.set_xscale("log")
    _ratio_axis(axes, [ratio for row in rows for ratio in _all_ratios(row)])
    axes.axvline(1, color=_INK, linewidth=0.8)
    axes.set_yticks(range(len(rows)), [row.title for row in rows])
    axes.invert_yaxis()
    _legend(comparison, axes, columns)
    return _svg(figure)


def _all_ratios(row: Row) -> list[float]:
    return [ratio for cell in row.cells.values() if isinstance(cell, Measured) for ratio in cell.ratios]


def _ratio_axis(axes: Any, values: Sequence[float]) -> None:  # noqa: ANN401 (matplotlib has no types here)
    low, high = min([0.8, *(value * 0.9 for value in values)]), max([1.6, *(value * 1.9 for value in values)])
    axes.set_xlim(low, high)
    ticks = [
        step * 10.0**power
        for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for step in (1, 2, 5)
    ]
    inside = [tick for tick in ticks if low <= tick <= high]
    if len(inside) > 8:
        inside = [tick for tick in inside if math.log10(tick).is_integer()]
    axes.set_xticks(inside, [f"{tick:g}x" for tick in inside])
    axes.minorticks_off()


def _samples(comparison: Comparison, rows: Sequence[Row]) -> str:
    """Every sample as a dot and the median as a line, for each row and engine, on a logarithmic scale."""
    lines = [
        (row, column, cell)
        for row in rows
        for column in comparison.engines
        if isinstance(cell := row.cells[column.name], Measured) and max(cell.samples) > 0
    ]
    figure, axes = _figure(0.9 + 0.36 * len(lines))
    for position, (row, column, cell) in enumerate(lines):
        positive = [sample for sample in cell.samples if sample > 0]
        offsets = [position + 0.24 * math.sin(index * 2.4) for index in range(len(positive))]
        colour = _colour(comparison, column)
        axes.scatter(positive, offsets, s=11, color=colour, alpha=0.55, linewidths=0)
        if cell.median > 0:
            axes.plot([cell.median] * 2, [position - 0.36, position + 0.36], color=_INK, linewidth=1.6)
            axes.annotate(
                format_value(cell.median, row.unit),
                (max(positive), position),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                color=_INK,
                fontsize=9,
            )
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * (high / low) ** 0.18)
    axes.xaxis.set_major_formatter(lambda value, _: format_value(value, rows[0].unit))
    _sparse_ticks(axes, rows[0].unit)
    axes.set_yticks(range(len(lines)), [f"{row.title}, {column.name}" for row, column, _ in lines])
    axes.set_ylim(len(lines) - 0.5, -0.5)
    return _svg(figure)


def _sparse_ticks(axes: Any, unit: Unit) -> None:  # noqa: ANN401
    """Ticks at powers of ten (of four for sizes), with two more between when that leaves fewer than three."""
    low, high = axes.get_xlim()
    base = 10.0 if unit is Unit.SECONDS else 4.0
    powers = range(math.floor(math.log(low, base)), math.ceil(math.log(high, base)) + 1)
    steps = (1.0,) if math.log(high / low, base) > 2.5 else (1.0, 2.0) if base == 4.0 else (1.0, 2.0, 5.0)
    ticks = [step * base**power for power in powers for step in steps]
    axes.set_xticks([tick for tick in ticks if low <= tick <= high])
    axes.minorticks_off()


def _figure(height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_INK)
    axes.tick_params(colors=_INK, left=False)
    axes.grid(visible=True, axis="x", color=_INK, alpha=0.13, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _legend(comparison: Comparison, axes: Any, columns: Sequence[EngineColumn]) -> None:  # noqa: ANN401
    from matplotlib.patches import Patch

    handles = [Patch(color=_colour(comparison, column), label=column.name) for column in columns]
    axes.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, labelcolor=_INK
    )


def _colour(comparison: Comparison, column: EngineColumn) -> str:
    return PALETTE[comparison.engines.index(column) % len(PALETTE)]


def _svg(figure: Any) -> str:  # noqa: ANN401
    """The figure as an SVG element that scales with the page and takes its text colour."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1 role="img"', svg, count=1)
    return svg.replace(_INK, "currentColor")
