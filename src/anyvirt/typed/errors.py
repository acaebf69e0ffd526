"""The one error of typed Python: a construct or a mixture of types that the language does not have."""

from __future__ import annotations

from anyvirt.errors import AnyvirtError


class TypedPythonError(AnyvirtError):
    """What is refused and what to write instead; raised by the compiler it starts with `FILE:LINE: `."""
