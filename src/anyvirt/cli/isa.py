"""`anyvirt isa`: the instruction sets described here, and the reference page of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from anyvirt.errors import AnyvirtError, UsageError

if TYPE_CHECKING:
    from typing import Any

    from rich.console import Console

    from anyvirt.isa.description import InstructionSet
    from anyvirt.isa.reference_page import Instruction, Page


@click.command()
@click.argument("name", required=False)
@click.argument("words", metavar="[MNEMONIC|EXTENSION]...", nargs=-1)
@click.option("--decode", metavar="CODE", help="Disassemble an encoded instruction: 0x00b50533.")
@click.option("--assemble", metavar="TEXT", help="Assemble a line, or several separated by semicolons.")
@click.option("--pc", default="0", metavar="ADDRESS", help="Address of the code, 0 by default.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the page as Markdown.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    name: str | None,
    words: tuple[str, ...],
    decode: str | None,
    assemble: str | None,
    pc: str,
    as_markdown: bool,
    as_json: bool,
) -> None:
    """List instruction sets, or show the reference page of one: registers, encodings, semantics.

    With mnemonics or extensions only those instructions are shown.
    """
    if name is None:
        if decode is not None or assemble is not None or as_markdown:
            raise UsageError("this needs the name of an instruction set; `anyvirt isa` lists them")
        _list(as_json)
        return
    from anyvirt.isa.catalogue import description

    isa = description(name)
    address = _number(pc, "--pc")
    if decode is not None:
        _decode(isa, decode, address, as_json)
    elif assemble is not None:
        _assemble(isa, assemble, address, as_json)
    elif as_markdown:
        from anyvirt.isa.reference_page import markdown

        click.echo(markdown(isa, words), nl=False)
    else:
        _show(isa, words, as_json)


def _number(text: str, option: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise UsageError(f"{option} {text}: this is no number, such as 0x10000") from None


# The list ---------------------------------------------------------------------------------------------------


def _list(as_json: bool) -> None:
    from anyvirt.isa.catalogue import described, description

    rows = [_summary(description(name)) for name in described()]
    if as_json:
        _print_json(rows)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "what it is", "instructions", "encodings", "registers", "runs in", box=None)
    for row in rows:
        files = ", ".join(f"{file['count']} {file['name']}" for file in row["registers"])
        counts = (str(row["instructions"]), str(row["encodings"]))
        table.add_row(row["name"], row["title"], *counts, files, ", ".join(row["executors"]))
    Console(highlight=False).print(table)


def _summary(isa: InstructionSet) -> dict[str, Any]:
    from anyvirt.cpu.support import executors_of

    return {
        "name": isa.name,
        "title": isa.title,
        "instructions": len({pattern.mnemonic for pattern in isa.patterns}),
        "encodings": len(isa.patterns),
        "registers": [
            {"name": file.name, "count": file.count, "width": file.width}
            for file in isa.register_files.values()
        ],
        "executors": executors_of(isa),
    }


def _print_json(data: object) -> None:
    import json

    click.echo(json.dumps(data, indent=2))


# One instruction --------------------------------------------------------------------------------------------


def _decode(isa: InstructionSet, text: str, pc: int, as_json: bool) -> None:
    code = _code(isa, text)
    found = isa.decode(code)
    if found is None or found.length > len(code):
        raise AnyvirtError(f"{text} is no instruction of {isa.name}")
    shown = isa.disassemble(found.word, found.length, pc)
    pattern = isa.find(found.word, found.length)
    assert pattern is not None
    if as_json:
        _print_json(
            {
                "assembly": shown,
                "bytes": found.length,
                "encoding": pattern.source,
                "extension": pattern.extension,
                "operands": pattern.decode(found.word),
            }
        )
        return
    click.echo(shown)


def _code(isa: InstructionSet, text: str) -> bytes:
    """The bytes that a number stands for; of instruction sets that are streams of bytes, those in order."""
    digits = text.lower().removeprefix("0x").replace("_", "").replace(" ", "")
    try:
        number = int(digits, 16)
        stream = bytes.fromhex(digits.zfill(len(digits) + len(digits) % 2))
    except ValueError:
        raise UsageError(f"--decode {text}: this is no hexadecimal number, such as 0x00b50533") from None
    if isa.context is not None:
        return stream
    from anyvirt.isa.encoding import instruction_bytes

    parcels = max(-(-len(stream) // isa.parcel), 1)
    return instruction_bytes(isa, number, parcels * isa.parcel)


def _assemble(isa: InstructionSet, text: str, pc: int, as_json: bool) -> None:
    code = isa.assemble(text, pc)
    if as_json:
        _print_json({"address": pc, "code": code.hex()})
        return
    position = 0
    while position < len(code):
        found = isa.decode(code[position:])
        length = found.length if found else isa.parcel
        shown = isa.disassemble(found.word, found.length, pc + position) if found else ""
        click.echo(f"{pc + position:#x}: {code[position : position + length].hex(' '):24} {shown}".rstrip())
        position += length


# The page ---------------------------------------------------------------------------------------------------


def _show(isa: InstructionSet, words: tuple[str, ...], as_json: bool) -> None:
    from anyvirt.isa.reference_page import page

    whole = page(isa, words)
    if as_json:
        _print_json(whole.as_dict())
        return
    from rich.console import Console

    console = Console(highlight=False)
    if not words:
        _print_machine(console, whole)
    for instruction in whole.instructions:
        _print_instruction(console, instruction)


def _print_machine(console: Console, whole: Page) -> None:
    from rich.markup import escape

    console.print(f"[bold]{escape(whole.title)}[/]  [dim]{escape(whole.name)}[/]")
    for name, value in whole.properties.items():
        console.print(f"    {name}: {escape(value)}")
    for file in whole.registers:
        console.print(f"\n[bold]registers {file['file']}[/]  [dim]{file['width']} bits[/]")
        console.print(f"    {escape(' '.join(file['names']))}")
    for title, items in (("state", whole.state), ("control registers", whole.control_registers)):
        if items:
            console.print(f"\n[bold]{title}[/]")
        for item in items:
            number = f"{item['number']:#05x}  " if "number" in item else ""
            console.print(f"    {number}{escape(item['name']):20} {escape(item['meaning'])}")
    if whole.extensions:
        console.print("\n[bold]extensions[/]")
        for name, meaning in whole.extensions.items():
            console.print(f"    {escape(name):10} {escape(meaning)}")


def _print_instruction(console: Console, instruction: Instruction) -> None:
    from rich.markup import escape

    console.print(f"\n[bold]{escape(', '.join(instruction.mnemonics))}[/]  [dim]{instruction.file}[/]")
    for encoding in instruction.encodings:
        console.print(f"    {escape(encoding.assembly):34} [dim]{escape(encoding.extension)}[/]")
        console.print(f"        {escape(encoding.bits)}", style="cyan")
    for name, value in instruction.given.items():
        console.print(f"    [dim]{escape(name)} = {escape(value)}[/]")
    for line in instruction.semantics.splitlines():
        console.print(f"    {escape(line)}", soft_wrap=True)
