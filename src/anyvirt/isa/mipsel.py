"""MIPS32 Release 2, little-endian: the description in `anyvirt.isa.mips` with the other byte order."""

from anyvirt.isa.mips import mipsel

__all__ = ["mipsel"]
