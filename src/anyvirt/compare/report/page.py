"""The comparison as one self-contained page: summary, plots, tables with every cell, and how it was measured.

Whatever comes from a guest, a user or an engine is escaped; the page loads nothing and runs nothing.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from anyvirt.compare.report import plots
from anyvirt.compare.report.wording import READING, cell_text, format_ratio, format_value, headline
from anyvirt.compare.results import Group, Measured

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyvirt.compare.results import Comparison, Row

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2733; --paper: #ffffff; --soft: #5b6b7b; --line: #d8dee5;
  --band: #f4f6f9; --accent: #2f6690; }
@media (prefers-color-scheme: dark) { :root { --ink: #dde5ee; --paper: #12181f; --soft: #93a3b3;
  --line: #2b3743; --band: #1a222b; --accent: #7fb4dc; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .8rem; }
p { margin: .4rem 0; max-width: 46rem; }
.soft, .detail, td .reason { color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .5rem .9rem .5rem 0;
  border-bottom: 1px solid var(--line); }
thead th { border-bottom: 2px solid var(--ink); }
tbody th { font-weight: 500; min-width: 9rem; }
td { min-width: 8rem; }
.group th { color: var(--accent); font-weight: 600; padding-top: 1.3rem; }
.value { font-weight: 600; white-space: pre; }
.detail, .reason { font-size: .85rem; display: block; }
figure { margin: 0 0 1.6rem; }
figcaption { font-weight: 600; margin-bottom: .4rem; }
figure svg { width: 100%; height: auto; display: block; min-width: 34rem; }
details { border-top: 1px solid var(--line); padding: .7rem 0; }
summary { cursor: pointer; font-weight: 500; }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .85em; overflow-wrap: anywhere; }
.samples { background: var(--band); border-radius: .4rem; padding: .6rem .8rem; margin: .6rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) { main { padding-top: 1.4rem; } dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; } }
"""


def page(comparison: Comparison) -> str:
    """The page's text."""
    title = escape(headline(comparison))
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>anyvirt: {title}</title><style>{_STYLE}</style></head><body><main>",
        *_summary(comparison),
        *_table(comparison),
        *_plots(comparison),
        *_details(comparison),
        *_engines(comparison),
        "</main></body></html>",
    ]
    return "\n".join(parts) + "\n"


def _summary(comparison: Comparison) -> Iterator[str]:
    yield f"<h1>{escape(headline(comparison))}</h1>"
    yield f'<p class="soft">{escape(str(comparison.host))}</p>'
    yield (
        f'<p class="soft">{escape(comparison.started)}; measuring took {comparison.duration:.0f} s. '
        f"anyvirt {escape(comparison.host.anyvirt)}, Python {escape(comparison.host.python)}.</p>"
    )
    for note in comparison.notes:
        yield f"<p>{escape(note)}</p>"


def _table(comparison: Comparison) -> Iterator[str]:
    if not comparison.rows:
        return
    yield "<h2>Results</h2>"
    yield f'<p class="soft">{escape(READING)}</p>'
    heads = "".join(f'<th scope="col">{escape(column.name)}</th>' for column in comparison.engines)
    yield f'<div class="scroll"><table><thead><tr><td></td>{heads}</tr></thead><tbody>'
    for group in Group:
        rows = [row for row in comparison.rows if row.group is group]
        if rows and group is not Group.COMMAND:
            span = len(comparison.engines) + 1
            yield f'<tr class="group"><th colspan="{span}" scope="colgroup">{escape(group)}</th></tr>'
        for row in rows:
            cells = "".join(_cell(row, column.name, comparison) for column in comparison.engines)
            yield f'<tr><th scope="row">{escape(row.title)}</th>{cells}</tr>'
    yield "</tbody></table></div>"


def _cell(row: Row, engine: str, comparison: Comparison) -> str:
    words = cell_text(row, engine, comparison.baseline)
    if words.reason:
        return f'<td><span class="reason">not measured: {escape(words.reason)}</span></td>'
    detail = f'<span class="detail">{escape(words.detail)}</span>' if words.detail else ""
    return f'<td><span class="value">{escape(words.headline)}</span>{detail}</td>'


def _plots(comparison: Comparison) -> Iterator[str]:
    yield "<h2>Plots</h2>"
    if not plots.available():
        yield "<p>The plots need matplotlib: <code>pip install 'anyvirt[report]'</code></p>"
        return
    for title, svg in plots.plots(comparison):
        yield (f'<figure><figcaption>{escape(title)}</figcaption><div class="scroll">{svg}</div></figure>')


def _details(comparison: Comparison) -> Iterator[str]:
    yield "<h2>How it was measured, and every sample</h2>"
    for row in comparison.rows:
        yield f"<details><summary>{escape(row.title)}</summary><p>{escape(row.description)}</p>"
        for column in comparison.engines:
            cell = row.cells[column.name]
            if isinstance(cell, Measured):
                name = f"<strong>{escape(column.name)}</strong>"
                yield f'<div class="samples">{name}{_samples(row, cell)}</div>'
        yield "</details>"


def _samples(row: Row, cell: Measured) -> str:
    over = f", each over {cell.rounds} rounds" if cell.rounds else ""
    values = ", ".join(format_value(sample, row.unit) for sample in cell.samples)
    lines = f'<span class="detail">{len(cell.samples)} samples{over}: {escape(values)}</span>'
    if cell.ratios:
        related = ", ".join(format_ratio(ratio) for ratio in cell.ratios)
        lines += f'<span class="detail">ratios: {escape(related)}</span>'
    return lines


def _engines(comparison: Comparison) -> Iterator[str]:
    yield "<h2>Engines</h2><dl>"
    for column in comparison.engines:
        state = f" Not available: {column.reason}." if column.reason else ""
        about = f"{column.summary} ({column.architecture}, {column.execution}).{state}"
        yield f"<dt>{escape(column.name)}</dt><dd>{escape(about)}</dd>"
    yield "</dl>"
