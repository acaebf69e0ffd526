"""`anyvirt engines`: what engines there are, whether they work here, and what they can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from anyvirt.engines.listing import EngineInfo


@click.command()
@click.option("--matrix", is_flag=True, help="Show which engine has which capability.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(matrix: bool, as_json: bool) -> None:
    """List the engines: available here or not, with the reason and the remedy where not."""
    from anyvirt.engines.listing import capability_matrix, list_engines

    if as_json:
        import json

        data = capability_matrix() if matrix else [engine.as_dict() for engine in list_engines()]
        click.echo(json.dumps(data, indent=2))
        return
    from rich.console import Console

    console = Console(highlight=False)
    if matrix:
        _print_matrix(console)
    else:
        for engine in list_engines():
            _print_engine(console, engine)


def _print_engine(console: Console, engine: EngineInfo) -> None:
    from rich.markup import escape

    mark = "[green]available[/]" if engine.available else "[red]not available[/]"
    console.print(
        f"[bold]{engine.name}[/]  {mark}  [dim]{engine.architecture}, {engine.world}, {engine.execution}[/]"
    )
    console.print(f"    {escape(engine.summary)}")
    if not engine.available:
        console.print(f"    reason: {escape(engine.reason)}")
        if engine.remedy:
            console.print(f"    remedy: {escape(engine.remedy)}")
    for name, value in engine.details.items():
        console.print(f"    [dim]{escape(name)}: {escape(value)}[/]")


def _print_matrix(console: Console) -> None:
    from rich.table import Table

    from anyvirt.engines.engine import Capability
    from anyvirt.engines.listing import capability_matrix

    matrix = capability_matrix()
    table = Table("capability", *next(iter(matrix.values())), box=None, pad_edge=False)
    table.add_column("what it means", style="dim")
    for capability, engines in matrix.items():
        ticks = ("[green]yes[/]" if has else "[dim]-[/]" for has in engines.values())
        table.add_row(capability, *ticks, Capability(capability).summary)
    console.print(table)
