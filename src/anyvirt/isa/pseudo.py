"""Pseudo-instructions: lines of assembly text that stand for others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Values(Protocol):
    """What the expansion of a pseudo-instruction may ask for."""

    @property
    def pc(self) -> int:
        """Address of the first instruction."""

    def __call__(self, text: str, /) -> int:
        """The value of an operand that is an expression."""


@dataclass(frozen=True)
class PseudoInstruction:
    """What a line of some form stands for."""

    expand: Callable[[Mapping[str, str], Values], list[str]]
    """From the texts of the form's operands to lines."""


def template(lines: tuple[str, ...]) -> PseudoInstruction:
    """A pseudo-instruction whose operands are put into other lines as they stand."""
    return PseudoInstruction(lambda operands, values: [line.format(**operands) for line in lines])
