"""RISC-V with 64-bit registers: RV64GC with Zba, Zbb, Zbs and Zicond, in user mode.

G is I, M, A, F, D, Zicsr and Zifencei. Follows The RISC-V Instruction Set Manual, Volume I: Unprivileged
Architecture (version 20240411); chapter names are given where instructions are described. `riscv64` is the
complete description.
"""

from pathlib import Path

from anyvirt.isa.riscv64 import atomic, bits, control, floating, integer, multiply, pseudo, words
from anyvirt.isa.riscv64.hart import rv

__all__ = ["atomic", "bits", "control", "floating", "integer", "multiply", "pseudo", "riscv64", "words"]

rv.sources = sorted(str(path) for path in Path(__file__).parent.glob("*.py"))
riscv64 = rv.build()
