"""Alpha: the integer instructions of user mode, with the byte, word and count extensions.

Follows the Alpha Architecture Reference Manual (fourth edition), chapter 4. What is not described yet:
floating point and multimedia instructions.
"""

from pathlib import Path

from anyvirt.isa.alpha import control, integer, memory
from anyvirt.isa.alpha.core import isa

__all__ = ["alpha", "control", "integer", "memory"]

isa.sources = sorted(str(path) for path in Path(__file__).parent.glob("*.py"))
alpha = isa.build()
