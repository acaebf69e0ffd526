"""The agent's program for an ISA: compiled once, then taken from the cache of programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anyvirt.isa.names import Isa


def agent_program(isa: Isa) -> bytes:
    """The static executable. Raises UsageError for an ISA that programs cannot be built for."""
    from anyvirt.agent.guest.program import main
    from anyvirt.jit.program import build_program

    return build_program(main, isa)
