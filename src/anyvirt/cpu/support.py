"""Which executors can run an instruction set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.cpu.tiers import Tier

if TYPE_CHECKING:
    from anyvirt.isa.description import InstructionSet

REFERENCE = "reference"
"""The reference executor: CPython runs the semantics as they stand."""


def executors_of(isa: InstructionSet) -> list[str]:
    """Names of executors: the reference, and the tiers if every instruction can be compiled."""
    return [REFERENCE, *((tier.value for tier in Tier) if is_compiled(isa) else ())]


def is_compiled(isa: InstructionSet) -> bool:
    """Whether handlers can be generated: tried, without LLVM, for one handler of each function."""
    from anyvirt.isa.description import DescriptionError
    from anyvirt.jit.frontend import Module
    from anyvirt.jit.handlers import Features
    from anyvirt.jit.interpreter import InterpreterTarget
    from anyvirt.typed import TypedPythonError

    target = InterpreterTarget(isa, Features(counted=False, fma=True))
    module = Module(target)
    forms = {form.semantics: form for form, _ in isa.handlers()}
    try:
        for number, form in enumerate(forms.values()):
            target.handler(module, form, f"do.{number}")
    except (DescriptionError, TypedPythonError):
        return False
    return True
