"""IA-32: see `anyvirt.isa.x86`."""

from anyvirt.isa.x86 import i386

__all__ = ["i386"]
