"""An executor that translates by stencils whatever it comes to begin at, before it runs it."""

import ctypes

from anyvirt.cpu.arena import arena
from anyvirt.cpu.code import code_space
from anyvirt.cpu.interpreter import Interpreter
from anyvirt.cpu.stencil import StencilTier


class Stenciled(Interpreter):
    """Translations live until any code changes."""

    def __init__(self, isa, memory):
        super().__init__(isa, memory)
        self.limit = 512
        self.eager = True
        self.images = []
        self._published = {}
        self._tiers = {}
        memory.on_code_change.append(lambda start, length: self.give_up())

    def translate_now(self, addresses, counted=False):
        """Translate from each address on, with code that has never been decoded; how many had a stencil."""
        space = code_space(self.memory, self.isa, counted=counted, translated=True)
        if counted not in self._tiers:
            self._tiers[counted] = StencilTier(self.memory, self.isa, space, counted=counted)
        images = [self._tiers[counted].translate(pc, limit=self.limit, decode=True) for pc in addresses]
        for image in filter(None, images):
            self.images.append(image)
            placement = arena().place(image.image)
            for pc, offset in image.entries:
                handler = ctypes.c_uint64.from_address(space.records + (pc << space.layout.shift))
                self._published[counted, pc] = handler, placement.address + offset, placement
                handler.value = placement.address + offset
        return sum(image is not None for image in images)

    def give_up(self):
        """Forget all translations."""
        placements = {}
        for handler, code, placement in self._published.values():
            if handler.value == code:
                handler.value = 0
            placements[id(placement)] = placement
        for placement in placements.values():
            arena().retire(placement)
        self._published.clear()

    def run(self, max_instructions=None):
        counted = max_instructions is not None
        known = self._published.get((counted, self.pc))
        inside = 0 <= self.pc < self.memory.size and self.pc % 2 == 0
        if self.eager and inside and (known is None or known[0].value != known[1]):
            self.translate_now([self.pc], counted)
        return super().run(max_instructions)

    def _select(self, counted):
        self._counted = counted
        self._view.use(code_space(self.memory, self.isa, counted=counted, translated=True))
