"""RISC-V with 64-bit registers: RV64GC, that is I, M, A, F, D, C, Zicsr and Zifencei, in user mode.

Follows The RISC-V Instruction Set Manual, Volume I: Unprivileged Architecture (version 20240411); chapter
names are given where instructions are described. `riscv64` is the complete description.
"""

from pathlib import Path

from anyvirt.isa.riscv64 import atomic, floating, integer, multiply
from anyvirt.isa.riscv64.hart import rv

__all__ = ["atomic", "floating", "integer", "multiply", "riscv64"]

rv.sources = sorted(str(path) for path in Path(__file__).parent.glob("*.py"))
riscv64 = rv.build()
