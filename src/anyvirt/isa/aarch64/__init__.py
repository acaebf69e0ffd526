"""A64, the 64-bit instruction set of ARMv8-A: the base instructions of user mode.

Follows the Arm Architecture Reference Manual for A-profile (DDI 0487), part C. What is not described yet:
floating point and SIMD, pointer authentication, and what later versions added.
"""

from pathlib import Path

from anyvirt.isa.aarch64 import bits, control, integer, memory
from anyvirt.isa.aarch64.core import isa

__all__ = ["aarch64", "bits", "control", "integer", "memory"]

isa.sources = sorted(str(path) for path in Path(__file__).parent.glob("*.py"))
aarch64 = isa.build()
