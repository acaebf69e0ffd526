"""The choice of an engine for a guest when the user names none: the lightest that can run it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyvirt.engines import engine_names, get
from anyvirt.engines.engine import Architecture
from anyvirt.errors import NotExecutableError, UsageError
from anyvirt.linux.program import find_program

if TYPE_CHECKING:
    from anyvirt.engines.engine import Engine
    from anyvirt.guest import Guest
    from anyvirt.linux.program import Program


@dataclass(frozen=True)
class Verdict:
    """Why one engine was chosen or passed over."""

    engine: str
    chosen: bool
    reason: str


@dataclass(frozen=True)
class Choice:
    """The engine chosen, and the verdict on each engine that was considered on the way to it."""

    engine: Engine
    verdicts: tuple[Verdict, ...]


def choose(guest: Guest) -> Choice:
    """The lightest engine that can run `guest` here.

    The native engine is never chosen, only named: it is the baseline of comparisons and isolates nothing.
    Raises CommandNotFoundError or NotExecutableError for the command itself, and an error that carries every
    engine's reason when none can run it.
    """
    program = _program(guest)
    verdicts: list[Verdict] = []
    for engine in sorted((get(name) for name in engine_names()), key=lambda engine: engine.weight):
        obstacle = _obstacle(engine, guest, program)
        verdicts.append(
            Verdict(
                engine.name, obstacle is None, obstacle or f"the lightest that can run it: {engine.summary}"
            )
        )
        if obstacle is None:
            return Choice(engine, tuple(verdicts))
    raise _no_engine(guest, program, verdicts)


def obstacle(engine: Engine, guest: Guest) -> str | None:
    """Why `engine` cannot run `guest` on this host, or None when it can."""
    return _obstacle(engine, guest, _program(guest), named=True)


def _program(guest: Guest) -> Program | None:
    """What the guest's command names, unless that is to be seen only in the guest."""
    return find_program(guest) if guest.command and guest.initrd is None else None


def _obstacle(engine: Engine, guest: Guest, program: Program | None, *, named: bool = False) -> str | None:
    if engine.architecture is Architecture.NONE and not named:
        return "isolates nothing, so it is used only when named with --on native"
    missing = ", ".join(f"{option} (no {capability})" for capability, option in engine.missing(guest))
    if missing:
        return f"cannot honour {missing}"
    refusal = engine.refusal(program) if program else None
    if refusal is not None:
        return refusal
    availability = engine.probe_for(guest)
    if not availability.available:
        return f"not available here: {availability.reason}"
    return None


def _no_engine(guest: Guest, program: Program | None, verdicts: list[Verdict]) -> Exception:
    reasons = "; ".join(f"{verdict.engine}: {verdict.reason}" for verdict in verdicts)
    what = guest.command[0] if guest.command else "an idle guest"
    if program is not None and all(get(verdict.engine).refusal(program) for verdict in verdicts):
        return NotExecutableError(f"no engine can execute {what} ({program.isa} program): {reasons}")
    return UsageError(f"no engine can run {what} as asked: {reasons}")
