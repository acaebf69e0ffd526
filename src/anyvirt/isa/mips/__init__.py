"""MIPS32 Release 2, the integer instructions of user mode, in either byte order.

Follows MIPS Architecture for Programmers, Volume II-A: The MIPS32 Instruction Set (revision 5.04). What is
not described yet: floating point, coprocessor 0, and what later releases added.
"""

from pathlib import Path

from anyvirt.isa.mips import control, integer, memory
from anyvirt.isa.mips.core import isa

__all__ = ["control", "integer", "memory", "mips", "mipsel"]

isa.sources = sorted(str(path) for path in Path(__file__).parent.glob("*.py"))
mips = isa.build()
mipsel = mips.variant("mipsel", "MIPS32 Release 2, little-endian", "little")
