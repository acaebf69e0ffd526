"""SPARC V8: the integer instructions of user mode.

Follows The SPARC Architecture Manual, Version 8 (appendix B). What is not described yet: floating point,
coprocessors, alternate spaces and the supervisor's registers.
"""

from pathlib import Path

from anyvirt.isa.sparc import control, integer, memory, windows
from anyvirt.isa.sparc.core import isa

__all__ = ["control", "integer", "memory", "sparc", "windows"]

isa.sources = sorted(str(path) for path in Path(__file__).parent.glob("*.py"))
sparc = isa.build()
