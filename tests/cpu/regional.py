"""An executor that has LLVM compile the region at whatever it comes to begin at, before it runs it."""

from dataclasses import replace
from pathlib import Path

from anyvirt.cpu.profile import IMAGE_ENTRY, Profile
from anyvirt.cpu.translation import translation_space
from anyvirt.cpu.translator import Translator
from anyvirt.jit.compile_server import GuestPages, compile_image


class Regional(Translator):
    """Heat is not waited for."""

    def _run(self, max_instructions):
        counted = max_instructions is not None
        if not self._instrumented and 0 <= self.pc < self.memory.size and self.pc % 2 == 0:
            space = translation_space(self.memory, self.isa, counted=counted)
            if space.at(self.pc) is None:
                self.translate(self.pc, counted=counted)
        return super()._run(max_instructions)


def compile_region(memory, isa, entry, *, counted, rounding=0, indirect=None, arrivals=()):
    """The reply and image of the region around an entry, compiled in this process."""
    space = translation_space(memory, isa, counted=counted)
    request = Profile(isa, space, Path(), counted=counted).request(entry, [], rounding)
    code = GuestPages()
    code.read_code = space.code.read
    known = replace(request, indirect=indirect or {}, arrivals=list(arrivals))
    return compile_image(code, known)


def publish(memory, isa, entry, *, counted, **known):
    """Compile the region around an entry and let CPUs enter it; None if there is no region."""
    reply, image = compile_region(memory, isa, entry, counted=counted, **known)
    if not image:
        return None
    space = translation_space(memory, isa, counted=counted)
    return space.publish(
        reply.entry,
        reply.ranges,
        reply.digest,
        image,
        IMAGE_ENTRY,
        others=reply.others,
        instructions=reply.instructions,
    )
