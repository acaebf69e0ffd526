"""An executor that translates by stencils whatever it comes to begin at, before it runs it."""

from anyvirt.cpu.stencil_executor import StencilExecutor


class Stenciled(StencilExecutor):
    """Heat is not waited for."""

    def _run(self, max_instructions):
        if not self._instrumented:
            self.translate_now([self.pc], counted=max_instructions is not None)
        return super()._run(max_instructions)
