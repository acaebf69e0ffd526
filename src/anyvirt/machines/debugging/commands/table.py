"""The table of commands: what they are called, how they are used, and where `help` lists them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING

from anyvirt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from anyvirt.machines.debugging.monitor import Monitor

    Function: TypeAlias = Callable[["Monitor", str], str]
    """Called with what is behind the command's name; returns what is shown."""


class Section(StrEnum):
    """Where `help` lists a command, in this order."""

    RUNNING = "Running"
    POINTS = "Breakpoints and watchpoints"
    REGISTERS = "Registers and harts"
    MEMORY = "Memory and code"
    DEVICES = "Devices and the console"
    SESSION = "Records, symbols, help"


_MODULES = ("running", "points", "registers", "memory", "devices", "seat", "session")


class Completion(StrEnum):
    """What the words behind a command are."""

    NOTHING = "nothing"
    EXPRESSION = "expression"
    """Registers and symbols."""
    REGISTER = "register"
    DEVICE = "device"
    COMMAND = "command"
    FILE = "file"


@dataclass(frozen=True)
class Command:
    """One command."""

    names: tuple[str, ...]
    """The name and its abbreviations."""
    usage: str
    section: Section
    function: Function
    completion: Completion
    repeats: bool
    """Whether an empty line does it again."""
    looks: bool
    """Whether it leaves the run of the machine alone, so that gdb's `monitor` may have it, too."""

    @property
    def summary(self) -> str:
        """What it does, in a sentence."""
        return (self.function.__doc__ or "").partition("\n")[0]

    @property
    def text(self) -> str:
        """All that `help` says."""
        lines = [line.strip() for line in (self.function.__doc__ or "").strip().splitlines()]
        also = f"\nAlso: {', '.join(self.names[1:])}" if len(self.names) > 1 else ""
        return "\n".join([f"{self.names[0]} {self.usage}".rstrip(), "", *lines]) + also


_commands: dict[str, Command] = {}


def command(
    *names: str,
    usage: str = "",
    section: Section,
    completion: Completion = Completion.EXPRESSION,
    repeats: bool = False,
    looks: bool = True,
) -> Callable[[Function], Function]:
    """Register a function as a command; its docstring is the help."""

    def register(function: Function) -> Function:
        made = Command(names, usage, section, function, completion, repeats, looks)
        for name in names:
            assert name not in _commands, name
            _commands[name] = made
        return function

    return register


def commands() -> dict[str, Command]:
    """All commands by each of their names."""
    for module in _MODULES:
        import_module(f"anyvirt.machines.debugging.commands.{module}")
    return _commands


def find_command(name: str) -> Command:
    """The command of a name, or of the beginning of one if that is clear. Raises UsageError."""
    known = commands()
    if name in known:
        return known[name]
    found = {known[other].names[0]: known[other] for other in known if other.startswith(name)}
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise UsageError(f"{name} is the beginning of several commands: {', '.join(sorted(found))}")
    raise UsageError(f"there is no command {name}: `help` lists them")
