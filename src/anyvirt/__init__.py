"""One guest, every architecture of virtualization, measured side by side."""

from anyvirt.errors import AnyvirtError

__all__ = ["AnyvirtError"]
