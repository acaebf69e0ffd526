"""Which tiers of the CPU core an executor uses, chosen by name."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import TYPE_CHECKING, TypeGuard

from anyvirt.errors import UsageError

if TYPE_CHECKING:
    from anyvirt.cpu.interpreter import Interpreter
    from anyvirt.cpu.machine_memory import MachineMemory
    from anyvirt.cpu.memory import FlatMemory


TIER_VARIABLE = "ANYVIRT_TIER"
"""Environment variable with the name of the tier to use instead of all."""


class Tier(StrEnum):
    """How code is executed."""

    INTERPRETER = "interpreter"
    """Decoded records and one handler for each instruction form; no compiler at run time."""
    STENCIL = "stencil"
    """Interpreted for a moment, then translated by copying prepared code; no compiler at run time."""
    REGION = "region"
    """Interpreted until it is hot, then compiled by LLVM."""
    AUTO = "auto"
    """All of them: stencils for what is warm, regions for what is hot."""


def chosen_tier() -> Tier:
    """The tier that the environment asks for. Raises UsageError."""
    name = os.environ.get(TIER_VARIABLE) or Tier.AUTO
    try:
        return Tier(name)
    except ValueError:
        known = ", ".join(Tier)
        raise UsageError(f"{TIER_VARIABLE} is {name!r}, which is no tier: use one of {known}") from None


def make_executor(
    isa: str, memory: FlatMemory | MachineMemory, *, tier: Tier | str = Tier.AUTO
) -> Interpreter:
    """A virtual CPU at reset in `memory`. Raises UnsupportedError, and ValueError for an unknown tier."""
    if Tier(tier) is Tier.INTERPRETER:
        from anyvirt.cpu.interpreter import Interpreter

        return Interpreter(isa, memory)
    if Tier(tier) is Tier.STENCIL:
        from anyvirt.cpu.stencil_executor import StencilExecutor

        return StencilExecutor(isa, memory)
    if _is_for_modes(memory, isa):
        from anyvirt.cpu.machine_translator import MachineTranslator

        return MachineTranslator(isa, memory, stencils=Tier(tier) is Tier.AUTO)
    from anyvirt.cpu.translator import Translator

    return Translator(isa, memory, stencils=Tier(tier) is Tier.AUTO)


def _is_for_modes(memory: FlatMemory | MachineMemory, isa: str) -> TypeGuard[MachineMemory]:
    """Whether an instruction set for machines translates addresses."""
    from anyvirt.cpu.code import code_space
    from anyvirt.cpu.memory import FlatMemory

    if isinstance(memory, FlatMemory):
        return False
    return "system" in code_space(memory, isa, counted=False).interpreter.blob.notes
