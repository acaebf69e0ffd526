"""Flat memory in stencils: accesses as in regions; jumps go through records as in the interpreter."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from anyvirt.jit.flat_model import FlatModel
from anyvirt.jit.region_flat import RegionFlatModel
from anyvirt.jit.stencil_layout import Hole, Shape

if TYPE_CHECKING:
    from anyvirt.jit.handlers import HandlerCompiler
    from anyvirt.jit.ir import Value
    from anyvirt.jit.region_template import TemplateCompiler
    from anyvirt.jit.stencil import StencilCompiler


class StencilFlatModel(RegionFlatModel):
    """Accesses that fault go on where the interpreter executes the instruction anew."""

    def __init__(self, compiler: StencilCompiler) -> None:
        # Of a template it needs only what stencils have as well.
        super().__init__(cast("TemplateCompiler", compiler))
        self._stencil = compiler

    def program_counter(self, handler: HandlerCompiler) -> str:
        """Known in each occurrence."""
        return self._stencil.body.constant(Hole.PC)

    def jump(self, handler: HandlerCompiler, address: str) -> None:
        """As in the interpreter; a block ends here, so all it has counted has been executed."""
        self._stencil.shape |= Shape.JUMP
        handler.remaining = "%counter"
        FlatModel().jump(handler, address)

    def store(self, handler: HandlerCompiler, value: Value, address: str) -> None:
        """From here on the instruction cannot begin anew."""
        super().store(handler, value, address)
        self._stencil.wrote = True

    def compare_exchange(
        self, handler: HandlerCompiler, address: str, expected: Value, value: Value
    ) -> Value:
        """From here on the instruction cannot begin anew."""
        stored = super().compare_exchange(handler, address, expected, value)
        self._stencil.wrote = True
        return stored

    def exchange(self, handler: HandlerCompiler, operation: str, address: str, value: Value) -> Value:
        """From here on the instruction cannot begin anew."""
        old = super().exchange(handler, operation, address, value)
        self._stencil.wrote = True
        return old
