"""What belongs to the session: records to files, symbols, scripts, and help."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from anyvirt.errors import UsageError
from anyvirt.machines.debugging.commands.table import Completion, Section, command, commands, find_command
from anyvirt.machines.debugging.recording import Recording

if TYPE_CHECKING:
    from anyvirt.machines.debugging.monitor import Monitor


@command("trace", usage="FILE [LINES] | off", section=Section.SESSION, completion=Completion.FILE)
def trace(monitor: Monitor, text: str) -> str:
    """Write a line about each instruction that is executed from now on to a file, or end that.

    A line has the address, the bytes, the assembly, the registers that changed and the memory that was
    accessed; with several harts also the hart. With LINES it ends after so many of a hart.
    """
    if text == "off":
        if monitor.recording is None:
            raise UsageError("nothing is traced")
        lines, monitor.recording = monitor.recording.close(), None
        return f"{lines} lines were written"
    if monitor.recording is not None:
        raise UsageError("the machine is traced already: `trace off` ends that")
    path, _, limit = text.partition(" ")
    if not path:
        raise UsageError("write `trace FILE` or `trace off`")
    monitor.recording = Recording(
        monitor.machine, path, limit=monitor.value(limit) if limit.strip() else None
    )
    return ""


@command(
    "symbols", "symbol-file", "file", usage="[FILE]", section=Section.SESSION, completion=Completion.FILE
)
def load_symbols(monitor: Monitor, text: str) -> str:
    """Add the symbols of an ELF file, a System.map or a copy of /proc/kallsyms; or say how many there are."""
    if not text:
        return f"{len(monitor.symbols)} symbols are known"
    return f"{monitor.symbols.load(text)} symbols are from {text}"


@command("symbol", usage="ADDRESS", section=Section.SESSION)
def show_symbol(monitor: Monitor, text: str) -> str:
    """Show which symbol an address belongs to."""
    return monitor.place(monitor.value(text))


@command("source", usage="FILE", section=Section.SESSION, completion=Completion.FILE, looks=False)
def run_script(monitor: Monitor, text: str) -> str:
    """Do the commands of a file, one a line; # begins a comment."""
    try:
        lines = Path(text).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"commands cannot be read from {text}: {getattr(error, 'strerror', error)}"
        ) from None
    for line in lines:
        shown = monitor.execute(line)
        if shown:
            monitor.show(shown)
        if monitor.is_done:
            break
    return ""


@command("echo", usage="TEXT", section=Section.SESSION, completion=Completion.NOTHING)
def echo(monitor: Monitor, text: str) -> str:
    """Show a text, for scripts."""
    return text


@command(
    "info",
    "i",
    usage="harts|registers|csr|breakpoints|devices|symbols|...",
    section=Section.SESSION,
    completion=Completion.COMMAND,
)
def info(monitor: Monitor, text: str) -> str:
    """Do the command of that name, for those who are used to gdb and QEMU: `info registers`, `info mtree`."""
    word, _, rest = text.partition(" ")
    if not word:
        raise UsageError("write `info` and what about: " + ", ".join(sorted(commands())))
    found = find_command(word)
    if not found.looks:
        raise UsageError(f"there is no information {word}")
    return found.function(monitor, rest.strip())


@command("help", "h", "?", usage="[COMMAND]", section=Section.SESSION, completion=Completion.COMMAND)
def show_help(monitor: Monitor, text: str) -> str:
    """Show all commands, or how one is used."""
    if text:
        return find_command(text).text
    lines = []
    unique = {found.names[0]: found for found in commands().values()}
    for section in Section:
        lines.append(f"{section}:")
        for name, found in unique.items():
            if found.section is section:
                also = f" ({', '.join(found.names[1:])})" if len(found.names) > 1 else ""
                lines.append(f"  {name}{also}: {found.summary}")
    return "\n".join(
        [*lines, "", "`help COMMAND` says more. The beginning of a name is enough if it is clear."]
    )
