"""RISC-V RV64GC for machines: `riscv64` with M, S and U modes, traps, and translation of addresses.

Sv39, Sv48 and Sv57 with hardware updating of A and D (Svadu), Svinval, Svpbmt, 16 entries of physical memory
protection, Sstc, Zicntr, Zicbom, Zicboz and Zawrs. `riscv64_system` is the complete description; it shares
the unprivileged instructions of `riscv64`.
"""

from pathlib import Path

from anyvirt.isa.riscv64 import riscv64
from anyvirt.isa.riscv64_system import (
    floating,
    instructions,
    protection,
    registers,
    translation,
    traps,
)
from anyvirt.isa.riscv64_system.hart import CONTROL, Interrupt, rv
from anyvirt.isa.system import System

rv.sources = [*riscv64.sources, *sorted(str(path) for path in Path(__file__).parent.glob("*.py"))]
rv.system = System(
    translate=translation.translate,
    take_exception=traps.take_exception,
    take_interrupt=traps.take_interrupt,
    is_awake=traps.is_awake,
    deadline=traps.deadline,
    reset=registers.reset,
    refresh=registers.refresh,
    lines="lines",
    timer=Interrupt.SUPERVISOR_TIMER,
    areas=translation.AREAS,
    guards=floating.guards(),
    routines=(
        registers.access,
        protection.physical_rights,
        translation.walk,
        translation.select_area,
        translation.forget,
        translation.forget_everything,
        traps.return_from_machine,
        traps.return_from_supervisor,
        traps.notice_interrupts,
    ),
    control=CONTROL,
)
riscv64_system = rv.build()

DEVICE_TREE_ISA = "_".join(
    (
        "rv64imafdc", "zicbom", "zicboz", "zicntr", "zicond", "zicsr", "zifencei", "zihintpause", "zawrs",
        "zba", "zbb", "zbs", "sstc", "svadu", "svinval", "svpbmt",
    )
)  # fmt: skip
"""The property `riscv,isa` of a hart; blocks of caches have `BLOCK` bytes."""
BLOCK = instructions.BLOCK

__all__ = ["BLOCK", "DEVICE_TREE_ISA", "riscv64_system"]
