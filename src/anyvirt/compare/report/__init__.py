"""Reports of a comparison: a table for the terminal, a page with plots, and everything as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from anyvirt.compare.results import Comparison


def render_table(comparison: Comparison, console: Console) -> None:
    """Print the comparison as tables to a rich console."""
    from anyvirt.compare.report.table import render

    render(comparison, console)


def table_text(comparison: Comparison, *, width: int = 120) -> str:
    """The tables as plain text, `width` characters wide."""
    import io

    from rich.console import Console

    text = io.StringIO()
    render_table(comparison, Console(file=text, width=width, color_system=None))
    return text.getvalue()


def write_html(comparison: Comparison, path: Path) -> None:
    """Write the comparison as one self-contained page. Raises UsageError when `path` cannot be written."""
    from anyvirt.compare.report.files import write_text
    from anyvirt.compare.report.page import page

    write_text(path, page(comparison))


def write_json(comparison: Comparison, path: Path) -> None:
    """Write everything that was measured as JSON. Raises UsageError when `path` cannot be written."""
    from anyvirt.compare.report.data import to_json
    from anyvirt.compare.report.files import write_text

    write_text(path, to_json(comparison))
