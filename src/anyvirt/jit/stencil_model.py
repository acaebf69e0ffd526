"""What a stencil leaves to the model of the guest's memory, besides what a handler leaves to it."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from anyvirt.jit.memory_model import MemoryModel
from anyvirt.jit.stencil_layout import Shape

if TYPE_CHECKING:
    from anyvirt.jit.handlers import HandlerCompiler
    from anyvirt.jit.stencil import StencilCompiler


class StencilError(Exception):
    """Semantics that have no stencil: the interpreter executes them."""


class StencilModel(MemoryModel):
    """A memory model for one stencil."""

    def __init__(self, stencil: StencilCompiler) -> None:
        self._stencil = stencil

    @abstractmethod
    def address_behind(self) -> str:
        """The address behind the instruction."""

    def note_count(self, handler: HandlerCompiler) -> None:
        """Whole blocks are counted."""

    def branch(self, handler: HandlerCompiler, offset: str) -> None:
        """To a place that the translator knows."""
        self._stencil.branch_taken()

    def end_block(self) -> None:
        """The instruction jumps, so all that its block has counted has been executed."""
        self._stencil.shape |= Shape.JUMP
        self._stencil.remaining = "%counter"
