"""The translator engine: a whole machine whose CPUs' code is translated into the host's."""

from __future__ import annotations

from anyvirt.engines.engine import Architecture, Execution
from anyvirt.engines.machine_engine import MachineEngine


class TranslatorEngine(MachineEngine):
    """A machine on all tiers."""

    name = "translator"
    summary = "a whole RISC-V machine, translated: a kernel of its own on emulated hardware"
    architecture = Architecture.EMULATION
    execution = Execution.TRANSLATED
    weight = 40
    tier = "auto"
