"""The instruction sets that are described here, by name."""

from __future__ import annotations

import importlib
from difflib import get_close_matches
from importlib.util import find_spec
from typing import TYPE_CHECKING

from anyvirt.errors import UsageError
from anyvirt.isa.names import Isa

if TYPE_CHECKING:
    from anyvirt.isa.description import InstructionSet


def described() -> list[str]:
    """Names of instruction sets that have a description: a module of that name in this package."""
    return [name for name in Isa if find_spec(f"anyvirt.isa.{name}") is not None]


def description(name: str) -> InstructionSet:
    """The description of an instruction set. Raises UsageError for one that is not described."""
    names = described()
    if name not in names:
        close = get_close_matches(name, names, 1)
        meant = f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"
        raise UsageError(f"no instruction set {name} is described here; {meant}")
    found: InstructionSet = getattr(importlib.import_module(f"anyvirt.isa.{name}"), name)
    return found
