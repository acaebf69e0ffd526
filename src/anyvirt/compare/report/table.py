"""The comparison in the terminal: a table for each group of metrics, one column for each engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from anyvirt.compare.report.wording import READING, cell_text, headline
from anyvirt.compare.results import Comparison, Group

if TYPE_CHECKING:
    from rich.console import Console

    from anyvirt.compare.results import Row


def render(comparison: Comparison, console: Console) -> None:
    """Print headline, table, reasons and notes."""
    console.print(Text(headline(comparison), style="bold"))
    console.print(Text(str(comparison.host), style="dim"))
    reasons = _Reasons()
    if comparison.rows:
        console.print(_table(comparison, reasons))
    if any(row.cells for row in comparison.rows):
        console.print(Text(READING, style="dim"))
    for number, reason in enumerate(reasons.found, 1):
        console.print(Text(f"[{number}] {reason}"))
    for note in comparison.notes:
        if not any(reason and reason in note for reason in reasons.found):
            console.print(Text(note))


class _Reasons:
    """The reasons of cells without a value, each told once below the table."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def mark(self, reason: str) -> str:
        """The number by which a cell refers to `reason`."""
        if reason not in self.found:
            self.found.append(reason)
        return f"not measured [{self.found.index(reason) + 1}]"


def _table(comparison: Comparison, reasons: _Reasons) -> Table:
    table = Table(pad_edge=False, header_style="bold")
    table.add_column("")
    for column in comparison.engines:
        table.add_column(escape(column.name))
    for group in Group:
        rows = [row for row in comparison.rows if row.group is group]
        if not rows:
            continue
        if group is not Group.COMMAND:
            table.add_row(Text(group, style="italic"))
        for row in rows:
            table.add_row(Text(row.title), *_cells(row, comparison, reasons))
        table.add_section()
    return table


def _cells(row: Row, comparison: Comparison, reasons: _Reasons) -> list[Text]:
    cells = []
    for column in comparison.engines:
        words = cell_text(row, column.name, comparison.baseline)
        if words.reason:
            cells.append(Text(reasons.mark(words.reason), style="dim"))
            continue
        cell = Text(words.headline)
        if words.detail:
            cell.append(f"\n{words.detail}", style="dim")
        cells.append(cell)
    return cells
