"""An executor that translates by stencils whatever it comes to begin at, before it runs it."""

from anyvirt.cpu.stencil_executor import StencilExecutor
from anyvirt.cpu.stencil_space import stencil_space


class Stenciled(StencilExecutor):
    """Heat is not waited for."""

    def _run(self, max_instructions):
        counted = max_instructions is not None
        if not self._instrumented and 0 <= self.pc < self.memory.size and self.pc % 2 == 0:
            space = stencil_space(self.memory, self.isa, counted=counted)
            if not space.is_translated(self.pc):
                self.translate_now([self.pc], counted=counted)
        return super()._run(max_instructions)
