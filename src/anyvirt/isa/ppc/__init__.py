"""PowerPC with 32-bit registers, big-endian: the fixed-point and branch instructions of user mode.

Follows the Power ISA, Book I chapters 2 and 3, and Book II for storage control, restricted to 32-bit
implementations. What is not described yet: floating point, vectors, strings and the supervisor's registers.
"""

from pathlib import Path

from anyvirt.isa.ppc import branches, integer, memory, rotate
from anyvirt.isa.ppc.core import isa

__all__ = ["branches", "integer", "memory", "ppc", "rotate"]

isa.sources = sorted(str(path) for path in Path(__file__).parent.glob("*.py"))
ppc = isa.build()
