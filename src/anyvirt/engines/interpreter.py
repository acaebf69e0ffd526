"""The interpreter engine: a whole machine whose CPUs are interpreted, one instruction after the other."""

from __future__ import annotations

from anyvirt.engines.engine import Architecture, Execution
from anyvirt.engines.machine_engine import MachineEngine


class InterpreterEngine(MachineEngine):
    """A machine on the interpreter tier alone."""

    name = "interpreter"
    summary = "a whole RISC-V machine, interpreted: a kernel of its own on emulated hardware"
    architecture = Architecture.EMULATION
    execution = Execution.INTERPRETED
    weight = 50
    tier = "interpreter"
