"""The SiFive platform-level interrupt controller (PLIC): wires of devices in, external interrupts out.

RISC-V Platform-Level Interrupt Controller Specification 1.0.0; the priorities are those of SiFive's
FU540-C000 manual, chapter 10: 7 levels, and 0 for "never". Gateways (section 1.2) are level-triggered, or
edge-triggered as all of QEMU's are.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING

from anyvirt.devices.bus import Wire
from anyvirt.devices.saved_state import SavedState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anyvirt.devices.bus import State

HIGHEST_PRIORITY = 7
MOST_SOURCES = 1023
_VERSION = 1


class Block(IntEnum):
    """Where the parts of the register map begin (section 3, memory map)."""

    PRIORITY = 0x0
    PENDING = 0x1000
    ENABLE = 0x2000
    CONTEXT = 0x200000


class ContextRegister(IntEnum):
    """Registers of a context, from where its page begins (sections 7 to 9)."""

    THRESHOLD = 0
    CLAIM_COMPLETE = 4


ENABLE_STRIDE = 0x80
CONTEXT_STRIDE = 0x1000


@dataclass(slots=True)
class _Context:
    """One target of interrupts: a hart in one of its privilege modes."""

    wire: Wire
    enabled: int = 0
    threshold: int = 0


class Plic:
    """A PLIC. Its registers are 32 bits wide; smaller accesses read as 0 and change nothing."""

    def __init__(self, contexts: Sequence[Wire], *, sources: int, edges: Iterable[int] = ()) -> None:
        """Drive a wire for each context; `sources` is the largest interrupt number.

        Of `edges` each rise is a request, while one is served until the level falls; a level that stays is
        none. Of the others a level that is still there at completion is another request.
        """
        if not 1 <= sources <= MOST_SOURCES:
            raise ValueError(f"a PLIC has 1 to {MOST_SOURCES} sources, not {sources}")
        self.sources = tuple(Wire(partial(self._level_changed, number)) for number in range(sources + 1))
        """The wires that devices drive, by interrupt number; number 0 is none."""
        self._contexts = [_Context(wire) for wire in contexts]
        self._all = (1 << sources + 1) - 2
        self._edges = sum(1 << source for source in edges) & self._all
        self._levels = 0
        """Bit n: source n is active. This and the following are sets of sources, one bit for each."""
        self._pending = 0
        self._in_service = 0
        """Claimed and not completed: their gateways forward nothing."""
        self._of_priority = [0] * (HIGHEST_PRIORITY + 1)
        self.reset()

    @staticmethod
    def size(contexts: int) -> int:
        """Bytes of address space with so many contexts."""
        return Block.CONTEXT + contexts * CONTEXT_STRIDE

    def reset(self) -> None:
        """See BusDevice.reset. What devices drive stays; a source that is active becomes pending."""
        self._in_service = 0
        self._pending = self._levels
        self._of_priority = [self._all] + [0] * HIGHEST_PRIORITY
        for context in self._contexts:
            context.enabled = context.threshold = 0
        self._update()

    # Registers ------------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """See BusDevice.read. Reading CLAIM_COMPLETE claims an interrupt."""
        if size == 8:
            return self.read(offset, 4) | self.read(offset + 4, 4) << 32
        if size != 4 or offset % 4:
            return 0
        if offset >= Block.CONTEXT:
            return self._read_context(*divmod(offset - Block.CONTEXT, CONTEXT_STRIDE))
        if offset >= Block.ENABLE:
            number, position = divmod(offset - Block.ENABLE, ENABLE_STRIDE)
            return _word(self._contexts[number].enabled, position) if number < len(self._contexts) else 0
        if offset >= Block.PENDING:
            return _word(self._pending, offset - Block.PENDING)
        return self._priority(offset // 4)

    def write(self, offset: int, size: int, value: int) -> None:
        """See BusDevice.write. Writing CLAIM_COMPLETE completes an interrupt."""
        if size == 8:
            self.write(offset, 4, value)
            self.write(offset + 4, 4, value >> 32)
            return
        if size != 4 or offset % 4:
            return
        if offset >= Block.CONTEXT:
            self._write_context(*divmod(offset - Block.CONTEXT, CONTEXT_STRIDE), value & 0xFFFF_FFFF)
        elif offset >= Block.ENABLE:
            self._write_enable(*divmod(offset - Block.ENABLE, ENABLE_STRIDE), value & 0xFFFF_FFFF)
        elif offset < Block.PENDING:
            self._set_priority(offset // 4, value & HIGHEST_PRIORITY)

    def _read_context(self, number: int, register: int) -> int:
        if number < len(self._contexts):
            if register == ContextRegister.CLAIM_COMPLETE:
                return self._claim(self._contexts[number])
            if register == ContextRegister.THRESHOLD:
                return self._contexts[number].threshold
        return 0

    def _write_context(self, number: int, register: int, value: int) -> None:
        if number < len(self._contexts):
            if register == ContextRegister.CLAIM_COMPLETE:
                self._complete(self._contexts[number], value)
            elif register == ContextRegister.THRESHOLD:
                self._contexts[number].threshold = value & HIGHEST_PRIORITY
                self._update()

    def _write_enable(self, number: int, position: int, value: int) -> None:
        if number < len(self._contexts):
            context, shift = self._contexts[number], position * 8
            kept = context.enabled & ~(0xFFFF_FFFF << shift)
            context.enabled = (kept | value << shift) & self._all
            self._update()

    def _priority(self, source: int) -> int:
        bit = 1 << source & self._all
        return next((level for level, members in enumerate(self._of_priority) if members & bit), 0)

    def _set_priority(self, source: int, priority: int) -> None:
        bit = 1 << source & self._all
        self._of_priority = [members & ~bit for members in self._of_priority]
        self._of_priority[priority] |= bit
        self._update()

    # Interrupts -----------------------------------------------------------------------------------------

    def _level_changed(self, source: int, level: bool) -> None:
        """The gateway of a source: forward one request until it is completed (section 1.2)."""
        bit = 1 << source & self._all
        if not level:
            self._levels &= ~bit
            # What came while the source is served has not been forwarded yet.
            self._pending &= ~(bit & self._in_service)
        elif bit & ~self._levels:
            self._levels |= bit
            if bit & (self._edges | ~self._in_service) & ~self._pending:
                self._pending |= bit
                self._update()

    def _claim(self, context: _Context) -> int:
        """The claim process, which the threshold does not affect (section 8)."""
        source = self._first(context, 0)
        if source:
            self._pending &= ~(1 << source)
            self._in_service |= 1 << source
            self._update()
        return source

    def _complete(self, context: _Context, source: int) -> None:
        """Completion, ignored unless the source is enabled for the target (section 9)."""
        bit = 1 << source if source <= MOST_SOURCES else 0
        if bit & context.enabled:
            self._in_service &= ~bit
            self._pending |= bit & self._levels & ~self._edges
            self._update()

    def _first(self, context: _Context, threshold: int) -> int:
        """The pending source of the highest priority above a threshold, the lowest number among equals."""
        candidates = self._pending & context.enabled & ~self._in_service
        if candidates:
            for priority in range(HIGHEST_PRIORITY, threshold, -1):
                if found := candidates & self._of_priority[priority]:
                    return (found & -found).bit_length() - 1
        return 0

    def _update(self) -> None:
        for context in self._contexts:
            context.wire.set(self._first(context, context.threshold) != 0)

    # State ----------------------------------------------------------------------------------------------

    def save_state(self) -> State:
        """See BusDevice.save_state."""
        return {
            "version": _VERSION,
            "levels": self._levels,
            "pending": self._pending,
            "in_service": self._in_service,
            "priorities": [self._priority(source) for source in range(len(self.sources))],
            "enabled": [context.enabled for context in self._contexts],
            "thresholds": [context.threshold for context in self._contexts],
        }

    def load_state(self, state: State) -> None:
        """See BusDevice.load_state. The devices behind the wires may be restored before or after."""
        saved = SavedState(state, _VERSION, "the PLIC")
        bits, count = len(self.sources), len(self._contexts)
        sets = [saved.number(name, bits) & self._all for name in ("levels", "pending", "in_service")]
        priorities = saved.numbers("priorities", len(self.sources), HIGHEST_PRIORITY.bit_length())
        enabled = saved.numbers("enabled", count, bits)
        thresholds = saved.numbers("thresholds", count, HIGHEST_PRIORITY.bit_length())
        self._levels, self._pending, self._in_service = sets
        self._of_priority = [
            sum(1 << source for source, priority in enumerate(priorities) if priority == level) & self._all
            for level in range(HIGHEST_PRIORITY + 1)
        ]
        for context, sources, threshold in zip(self._contexts, enabled, thresholds, strict=True):
            context.enabled, context.threshold = sources & self._all, threshold
        self._update()


def _word(sources: int, position: int) -> int:
    """The 32 bits at a byte position of a set of sources."""
    return sources >> position * 8 & 0xFFFF_FFFF
