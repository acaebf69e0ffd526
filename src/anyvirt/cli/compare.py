"""`anyvirt compare`: measure the built-in workloads, or the user's command, on every engine."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from anyvirt.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anyvirt.compare.comparison import Comparison, Step

_REPORT = "anyvirt-report"


@click.command(context_settings={"allow_interspersed_args": False})
@click.option(
    "--on", "engines", multiple=True, metavar="ENGINE", help="Measure this engine only (repeatable)."
)
@click.option("--repeat", type=click.IntRange(min=1), metavar="N", help="Samples of each cell.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Most that one run may take.",
)
@click.option(
    "--rootfs",
    "roots",
    multiple=True,
    metavar="DIR",
    help="Run COMMAND in this root on engines that can (repeatable: roots for several ISAs).",
)
@click.option("--fetch", is_flag=True, help="Fetch what engines lack: Debian's kernel, once, 112 MB.")
@click.option(
    "--report",
    metavar="PATH",
    default=_REPORT,
    show_default=True,
    help="Write PATH.html and PATH.json.",
)
@click.option("--no-report", is_flag=True, help="Write no files.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON and write no files.")
@click.argument("command_line", metavar="[COMMAND [ARGS...]]", nargs=-1, type=click.UNPROCESSED)
def command(
    engines: tuple[str, ...],
    repeat: int | None,
    timeout: float | None,
    roots: tuple[str, ...],
    fetch: bool,
    report: str,
    no_report: bool,
    as_json: bool,
    command_line: tuple[str, ...],
) -> int:
    """Measure COMMAND, or the built-in workloads, on every engine that works here.

    The table shows medians and ratios to the native engine; the HTML page and the JSON hold every sample. An
    engine that cannot run something shows its reason.
    """
    targets = () if no_report or as_json else _targets(report)
    from anyvirt.compare.comparison import compare

    with _progress() as progress:
        comparison = compare(
            command_line or None,
            engines=engines or None,
            repeat=repeat,
            timeout=timeout,
            roots=roots,
            fetch=fetch,
            progress=progress,
        )
    if as_json:
        from anyvirt.compare.report.data import to_json

        click.echo(to_json(comparison), nl=False)
    else:
        _show(comparison, targets)
    return 0 if comparison.measured else ExitCode.FAILURE


def _targets(report: str) -> tuple[Path, ...]:
    """The files to write; refused now rather than after minutes of measuring."""
    directory = Path(report).parent
    if not directory.is_dir():
        raise UsageError(f"the report cannot be written to {report}.html: there is no directory {directory}")
    if not os.access(directory, os.W_OK):
        raise UsageError(
            f"the report cannot be written to {directory.resolve()}: it is not writable; name another "
            "place with --report, or none with --no-report"
        )
    return Path(f"{report}.html"), Path(f"{report}.json")


def _show(comparison: Comparison, targets: tuple[Path, ...]) -> None:
    from rich.console import Console

    from anyvirt.compare.report import render_table, write_html, write_json

    render_table(comparison, Console(highlight=False))
    if targets:
        page, data = targets
        write_html(comparison, page)
        write_json(comparison, data)
        print(f"anyvirt: wrote {page} and {data}", file=sys.stderr)


@contextmanager
def _progress() -> Iterator[Callable[[Step], None] | None]:
    """A progress bar on a terminal; nothing in a pipe."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda step: bar.update(task, completed=step.done, description=step.label)
