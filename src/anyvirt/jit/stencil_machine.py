"""Machine memory in stencils: the same look at the TLB as in handlers; what misses it is the interpreter's.

Records belong to physical pages, which can be seen at several addresses, so a stencil knows its record but
not its address: that follows from the base of the records of its page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.jit.machine_model import MachineModel
from anyvirt.jit.stencil_model import StencilError, StencilModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.jit.handlers import HandlerCompiler
    from anyvirt.jit.stencil import StencilCompiler


class StencilMachineModel(StencilModel, MachineModel):
    """`%memory` is the address of the CPU's TLBs, and `%records` belongs to the page of the instruction."""

    def __init__(self, stencil: StencilCompiler) -> None:
        StencilModel.__init__(self, stencil)
        MachineModel.__init__(self)

    def address_behind(self) -> str:
        """Computed from the record."""
        stencil = self._stencil
        return stencil.body.emit(f"add i64 {self.program_counter(stencil)}, {stencil.length_text()}")

    def jump(self, handler: HandlerCompiler, address: str) -> None:
        """As in the interpreter."""
        self.end_block()
        MachineModel.jump(self, handler, address)

    def _call(self, handler: HandlerCompiler, function: Callable[..., object], *arguments: str) -> str:
        raise StencilError("it accesses memory after it has changed something")
