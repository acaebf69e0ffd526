"""Which executors can run an instruction set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.cpu.tiers import Tier

if TYPE_CHECKING:
    from anyvirt.isa.description import InstructionSet

REFERENCE = "reference"
"""The reference executor: CPython runs the semantics as they stand."""


def executors_of(isa: InstructionSet) -> list[str]:
    """Names of executors: the reference, and the tiers for which every instruction can be compiled."""
    return [REFERENCE, *(_tiers() if is_compiled(isa) else [])]


def _tiers() -> list[str]:
    return [tier.value for tier in Tier]


def is_compiled(isa: InstructionSet) -> bool:
    """Whether handlers and decoder of an instruction set can be generated."""
    return not isa.delay_slots and isa.context is None
