"""Letting the machine run: on, in steps, to a place, for a while; and beginning anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.cpu.disassembly import instruction_at
from anyvirt.errors import UsageError
from anyvirt.machines.debugging.commands.arguments import count_of, number_of
from anyvirt.machines.debugging.commands.table import Completion, Section, command
from anyvirt.machines.debugging.points import Kind

if TYPE_CHECKING:
    from anyvirt.machines.debugging.monitor import Monitor

_CALLS = ("jal ", "jalr ", "c.jal ", "c.jalr ")
_LINK = ("ra", "t0")
_EXCEPTIONS = ("ecall", "ebreak", "c.ebreak", "wfi")


@command("continue", "c", usage="[COUNT]", section=Section.RUNNING, repeats=True, looks=False)
def go_on(monitor: Monitor, text: str) -> str:
    """Run until a breakpoint, a watchpoint, Ctrl-C or the end of the machine.

    With COUNT, pass COUNT - 1 stops.
    """
    shown = ""
    for _ in range(count_of(monitor, text)):
        shown = monitor.run()
    return shown


@command("run", usage="SECONDS", section=Section.RUNNING, looks=False)
def run_for(monitor: Monitor, text: str) -> str:
    """Run for some seconds, or until something stops the machine before.

    `run SECONDS` is in real time, also where time is counted otherwise.
    """
    return monitor.run(seconds=number_of(text, "seconds"))


@command("step", "s", "si", "stepi", usage="[COUNT]", section=Section.RUNNING, repeats=True, looks=False)
def step(monitor: Monitor, text: str) -> str:
    """Execute one instruction of the hart, or COUNT.

    The other harts execute as many. Each takes a nanosecond of the machine's time.
    """
    for _ in range(count_of(monitor, text)):
        stopped = monitor.step()
        if stopped is not None:
            return f"{stopped}\n{monitor.where(monitor.hart)}"
    return monitor.where(monitor.hart)


@command("next", "n", "ni", "nexti", usage="[COUNT]", section=Section.RUNNING, repeats=True, looks=False)
def step_over(monitor: Monitor, text: str) -> str:
    """As `step`, but a call is one step: it runs until it returns.

    So are instructions that wait, or that call another mode.
    """
    for _ in range(count_of(monitor, text)):
        hart = monitor.hart
        instruction = instruction_at(hart.cpu, hart.pc)
        if not _is_call(instruction.text or ""):
            stopped = monitor.step()
            if stopped is not None:
                return f"{stopped}\n{monitor.where(monitor.hart)}"
            continue
        behind = hart.pc + instruction.length
        shown = _run_to(monitor, behind)
        if monitor.hart is not hart or hart.pc != behind:
            return shown
    return monitor.where(monitor.hart)


def _is_call(text: str) -> bool:
    if text in _EXCEPTIONS:
        return True
    if not text.startswith(_CALLS):
        return False
    operands = text.partition(" ")[2]
    return text.startswith("c.") or operands.partition(",")[0].strip() in _LINK


def _run_to(monitor: Monitor, address: int) -> str:
    """Run until this hart is there, or something else stops the machine."""
    hart, stack = monitor.hart, monitor.hart.x[2]
    # A call of itself comes by here as well, but with less of the stack.
    reached = hart.hooks.at(address, lambda _cpu, _address: hart.x[2] >= stack)
    try:
        while True:
            ending, shown = monitor.run_once()
            if shown is not None:
                return shown
            if ending.stop is not None and ending.stop.hit is reached:
                return monitor.where(hart)
    finally:
        reached.remove()


@command("finish", usage="", section=Section.RUNNING, looks=False)
def finish(monitor: Monitor, text: str) -> str:
    """Run until the function that the hart is in returns.

    That is where `ra` says, so it has to be asked at the beginning of a function, or in one that calls none.
    """
    return _run_to(monitor, monitor.hart.x[1])


@command("until", "advance", "u", usage="ADDRESS", section=Section.RUNNING, looks=False)
def advance(monitor: Monitor, text: str) -> str:
    """Run until any hart is at an address, or something else stops the machine."""
    point = monitor.points.add(Kind.BREAK, monitor.value(text), is_temporary=True)
    try:
        return monitor.run()
    finally:
        monitor.points.remove(point)


@command(
    "reverse-step", "rs", "rsi", "reverse-stepi", usage="[COUNT]", section=Section.RUNNING, repeats=True,
    looks=False,
)  # fmt: skip
def step_back(monitor: Monitor, text: str) -> str:
    """Go back by one instruction of the hart, or COUNT, in the history that --history keeps.

    The other harts go back to where they were then. What was changed by commands is not done again.
    """
    return monitor.step_back(count_of(monitor, text))


@command("reverse-continue", "rc", usage="", section=Section.RUNNING, repeats=True, looks=False)
def continue_back(monitor: Monitor, text: str) -> str:
    """Go back to where a breakpoint or watchpoint was last reached, or to where the history begins.

    At a watchpoint the machine stands in front of the access. Conditions count, as they are there; hits are
    not counted, and `ignore` does not hold. Ctrl-C leaves the machine where it was.
    """
    return monitor.continue_back()


@command("reset", "system_reset", usage="", section=Section.RUNNING, completion=Completion.NOTHING)
def reset(monitor: Monitor, text: str) -> str:
    """Begin anew, as after power-on; breakpoints and watchpoints stay."""
    monitor.reset()
    return monitor.where(monitor.hart)


@command("gdb", "gdbserver", usage="[ADDRESS]", section=Section.RUNNING, looks=False)
def serve_gdb(monitor: Monitor, text: str) -> str:
    """Let gdb have the machine until it detaches; ADDRESS is :PORT, HOST:PORT or unix:PATH (:1234)."""
    monitor.machine.serve_gdb(
        text or ":1234", on_listening=lambda address: monitor.show(f"waiting for gdb at {address}")
    )
    return monitor.where(monitor.hart)


@command("quit", "q", "exit", usage="", section=Section.RUNNING, completion=Completion.NOTHING, looks=False)
def leave(monitor: Monitor, text: str) -> str:
    """End the monitor, and the machine with it."""
    if text:
        raise UsageError("`quit` is said alone")
    monitor.is_done = True
    return ""
