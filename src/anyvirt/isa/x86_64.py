"""x86-64: see `anyvirt.isa.x86`."""

from anyvirt.isa.x86 import x86_64

__all__ = ["x86_64"]
