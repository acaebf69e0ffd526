"""The monitor: a machine that is debugged by commands, one line each, with what they need to know.

It shows nothing by itself: `execute` returns text, and what the guest prints goes to whoever listens to the
console. So it serves a terminal, a script, and gdb's command `monitor` alike.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from anyvirt.cpu.disassembly import instruction_at
from anyvirt.devices.bus import BusError
from anyvirt.errors import AnyvirtError, UsageError
from anyvirt.isa.riscv64_system import riscv64_system
from anyvirt.machines.debugging.commands.table import find_command
from anyvirt.machines.debugging.expressions import Expression
from anyvirt.machines.debugging.points import Points
from anyvirt.machines.debugging.symbols import Symbols
from anyvirt.machines.ending import Ending, Reason

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterable, Iterator

    from anyvirt.machines.debugging.recording import Recording
    from anyvirt.machines.hart import Hart
    from anyvirt.machines.machine import Machine

INTEGERS = {name: number for number, name in enumerate(riscv64_system.register_files["x"].names)} | {
    "fp": riscv64_system.register_files["x"].names.index("s0")
}
FLOATS = {name: number for number, name in enumerate(riscv64_system.register_files["f"].names)}
CONTROLS = {register.name for register in riscv64_system.control_registers.values()}
_MODES = {0: "U", 1: "S", 3: "M"}
_ENDINGS = {
    Reason.POWEROFF: "the guest has turned the machine off",
    Reason.RESET: "the guest asks for a reset: `reset` does it",
    Reason.STOPPED: "stopped",
    Reason.LIMIT: "the limit is reached",
    Reason.IDLE: "all harts wait, and nothing is going to happen that wakes one",
    Reason.CONDITION: "it has happened",
    Reason.BEGINNING: "the history begins here",
}
_WHOLE = 1 << 62


class Monitor:
    """One machine and its user."""

    def __init__(self, machine: Machine, *, counted: bool = False) -> None:
        """With `counted`, the machine's time is instructions, so that every run shows the same."""
        self.machine = machine
        self.is_counted = counted
        self.symbols = Symbols()
        self.points = Points(self)
        self.number = 0
        """The hart that commands are about."""
        self.recording: Recording | None = None
        self.is_done = False
        """Whether the user has had enough."""
        self.show: Callable[[str], object] = lambda text: None
        """Shows what cannot wait until a command has ended."""
        self.is_console_shown = True
        """Whether the user wants to see what the guest prints."""
        self.attach: Callable[[], str] | None = None
        """Lets the user type to the guest while the machine runs; None without a terminal."""
        self.is_going_back = False
        """Whether it is on the way back in the machine's history."""
        self._is_interrupted = False

    # Commands -------------------------------------------------------------------------------------------

    def execute(self, line: str, *, only_looking: bool = False) -> str:
        """Do what a line says, and return what is to be shown. Raises AnyvirtError."""
        line = line.partition("#")[0].strip()
        if not line:
            return ""
        name, _, rest = line.partition(" ")
        name, slash, form = name.partition("/")
        found = find_command(name)
        if only_looking and not found.looks:
            raise UsageError(f"gdb runs the machine itself: {found.names[0]} is not for `monitor`")
        return found.function(self, f"/{form} {rest.strip()}" if slash else rest.strip())

    def execute_for(self, hart: Hart, line: str) -> str:
        """Do what gdb's `monitor` asks of a hart."""
        self.number = hart.number
        shown = self.execute(line, only_looking=True)
        return shown + "\n" if shown else ""

    # What commands use ----------------------------------------------------------------------------------

    @property
    def hart(self) -> Hart:
        """The hart that commands are about."""
        return self.machine.harts[self.number]

    def value(self, text: str) -> int:
        """The value of an expression. Raises UsageError, BusError."""
        return Expression(text).value(self.names(self.hart))

    def names(self, hart: Hart) -> HartNames:
        """What names stand for on a hart."""
        return HartNames(hart, self.symbols)

    def place(self, address: int) -> str:
        """An address, with the symbol that it belongs to."""
        symbol = self.symbols.at(address)
        return f"{address:#x} <{symbol}>" if symbol else f"{address:#x}"

    def where(self, hart: Hart) -> str:
        """A line about where a hart is."""
        instruction = instruction_at(hart.cpu, hart.pc)
        return (
            f"hart {hart.number} {_MODES[hart.privilege]} {self.place(hart.pc)}: "
            f"{instruction.code.hex()}  {instruction.shown}"
        )

    # Running --------------------------------------------------------------------------------------------

    def run(
        self,
        *,
        seconds: float | None = None,
        until: Callable[[], object] | None = None,
    ) -> str:
        """Run the machine until something stops it, and say what and where."""
        while True:
            _, shown = self.run_once(seconds=seconds, until=until)
            if shown is not None:
                return shown

    def run_once(
        self, *, seconds: float | None = None, until: Callable[[], object] | None = None
    ) -> tuple[Ending, str | None]:
        """As `run`, but return also for hooks that are not the user's: then there is nothing to be told."""
        is_counted = self.is_counted or self.machine.history is not None
        counted = _WHOLE if is_counted and seconds is None else None
        ending = self.machine.run(seconds=seconds, instructions=counted, until=until)
        if ending.reason is not Reason.HOOK:
            return ending, self.told(ending)
        stopped = self.points.stopped(ending)
        if stopped is None:
            return ending, None
        if ending.hart is not None:
            self.number = ending.hart
        return ending, f"{stopped}\n{self.where(self.hart)}"

    def expect(self, pattern: re.Pattern[str], seconds: float) -> str:
        """Run until the guest prints what matches, behind what was expected before."""
        console = self.machine.console
        deadline = time.monotonic() + seconds
        while console.find(pattern) is None:
            left = max(deadline - time.monotonic(), 0.001)
            _, shown = self.run_once(
                seconds=left if self.machine.history is None else None,
                until=lambda: console.find(pattern) is not None or time.monotonic() > deadline,
            )
            if console.find(pattern) is None and shown is not None:
                raise UsageError(f"{pattern.pattern!r} was not printed: {shown}")
        return f"the guest has printed {console.expect(pattern)[0]!r}"

    def told(self, ending: Ending) -> str:
        """What an ending other than of a breakpoint means, and where the hart is then."""
        if ending.reason is Reason.FAILURE:
            return f"the guest has turned the machine off for a failure (code {ending.code})"
        if ending.is_final:
            return _ENDINGS[ending.reason]
        return f"{_ENDINGS[ending.reason]}\n{self.where(self.hart)}"

    def step(self) -> str | None:
        """Execute one instruction of the hart; what stopped it if that was not done."""
        hart = self.hart
        others = [other for other in self.machine.harts if other is not hart]
        before = hart.cpu.instructions
        while hart.cpu.instructions == before:
            ending = self.machine.step(hart, others=others)
            if ending.reason is Reason.LIMIT:
                break
            if ending.reason is not Reason.HOOK:
                return self.told(ending)
            # A breakpoint where the hart stands already is passed.
            if ending.hart != hart.number or hart.cpu.instructions != before:
                stopped = self.points.stopped(ending)
                if stopped is not None:
                    self.number = hart.number if ending.hart is None else ending.hart
                    return stopped
        return None

    # Going back -----------------------------------------------------------------------------------------

    def step_back(self, count: int) -> str:
        """Go back by some instructions of the hart, and say where it is. Raises UsageError."""
        with self._going_back():
            ending = self.machine.reverse_step(count, hart=self.hart)
        return self.where(self.hart) if ending.reason is Reason.LIMIT else self.told(ending)

    def continue_back(self) -> str:
        """Go back to where a point was last reached, and say which and where. Raises UsageError."""
        with self._going_back():
            while True:
                ending = self.machine.reverse_continue(until=lambda: self._is_interrupted)
                if ending.reason is Reason.CONDITION:
                    return self.told(Ending(Reason.STOPPED))
                if ending.reason is not Reason.HOOK:
                    return self.told(ending)
                stopped = self.points.stopped(ending)
                if stopped is not None:
                    self.number = self.number if ending.hart is None else ending.hart
                    return f"{stopped}\n{self.where(self.hart)}"

    @contextmanager
    def _going_back(self) -> Iterator[None]:
        self.is_going_back, self._is_interrupted = True, False
        try:
            yield
        finally:
            self.is_going_back = False
            self.points.look()

    def interrupt(self) -> bool:
        """Let the machine stop, from a signal's handler; whether it does anything that can be stopped."""
        if self.is_going_back:
            self._is_interrupted = True
        elif self.machine.is_running:
            self.machine.stop()
        else:
            return False
        return True

    def reset(self) -> None:
        """Begin anew, with the same points; a history begins anew, too."""
        keeps_history = self.machine.history is not None
        self.machine.reset()
        if keeps_history:
            self.machine.keep_history()
        self.number = min(self.number, len(self.machine.harts) - 1)
        self.points.renew()


class HartNames:
    """Registers of a hart, and symbols. Satisfies `anyvirt.machines.debugging.expressions.Names`."""

    def __init__(self, hart: Hart, symbols: Symbols) -> None:
        self._hart = hart
        self._symbols = symbols

    def register(self, name: str) -> int | None:
        """See Names."""
        if name == "pc":
            return self._hart.pc
        if name == "priv":
            return self._hart.privilege
        if name in INTEGERS:
            return self._hart.x[INTEGERS[name]]
        if name in FLOATS:
            return self._hart.f[FLOATS[name]]
        return self._hart.csr[name] if name in CONTROLS else None

    def set_register(self, name: str, value: int) -> None:
        """Change a register. Raises UsageError."""
        hart = self._hart
        if name == "pc":
            hart.pc = value
        elif name == "priv":
            hart.privilege = value
        elif name in INTEGERS:
            hart.x[INTEGERS[name]] = value if INTEGERS[name] else 0
        elif name in FLOATS:
            hart.f[FLOATS[name]] = value
        else:
            hart.csr[name] = value

    def symbol(self, name: str) -> int | None:
        """See Names."""
        return self._symbols.address(name)

    def load(self, address: int, size: int) -> int:
        """See Names."""
        try:
            return int.from_bytes(self._hart.memory.read(address, size), "little")
        except OverflowError:
            raise BusError(f"there is no memory at {address:#x}") from None


def all_names(monitor: Monitor, beginning: str) -> Iterable[str]:
    """Registers and symbols that begin so."""
    sigil = "$" if beginning.startswith("$") else ""
    registers = (sigil + name for name in ("pc", "priv", *INTEGERS, *FLOATS, *sorted(CONTROLS)))
    yield from (name for name in registers if name.startswith(beginning))
    if not sigil:
        yield from monitor.symbols.names(beginning)


def guarded(function: Callable[[], str]) -> str:
    """What a function returns, or what was wrong."""
    try:
        return function()
    except AnyvirtError as error:
        return str(error)
