"""Which accesses of a region share one look at the TLB: those near each other, from one value of a register.

What the TLB says of a page stays true for as long as a CPU is in a region: whoever changes the memory or
decodes code waits until all CPUs have left compiled code, and an instruction that changed how addresses are
translated would be the interpreter's. So the first of the accesses looks at once for the
whole span that all of them can touch; where that is not in one page, or not open to them, each looks for
itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from anyvirt.jit.layout import PAGE_SIZE, Access, Slot
from anyvirt.jit.machine_layout import DATA_ENTRIES, PAGE_BITS, DataEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from anyvirt.isa.description import InstructionSet
    from anyvirt.jit.region_plan import Step

USUAL = "%usual"
"""The variable of regions with the addend of the last load: the next one hardly ever has another."""
LONGEST_SPAN = 256
"""Bytes: the longer a span, the more often it reaches from one page into the next."""


@dataclass(frozen=True, slots=True)
class BasedAccess:
    """A memory access at the address in a register, plus an operand."""

    file: str
    register: str | int
    """The operand that selects the register, or its number."""
    offset: str
    """The operand that is added, or ""."""
    size: int
    access: Access


class SharedLook(NamedTuple):
    """A look at the TLB, and what takes its place where several accesses share one."""

    access: BasedAccess | None
    start: int
    end: int
    """Where in the body it is."""
    lines: list[str]
    """What takes its place."""


@dataclass(slots=True)
class Span:
    """The bytes around the address in a register that a group of accesses touches."""

    name: str
    """The register's variable."""
    low: int
    end: int
    """Distances from the address, of the first byte and from behind the last one."""
    access: Access
    members: list[int]
    """Addresses of the instructions, in their order."""

    @property
    def leader(self) -> int:
        """The instruction that looks for all."""
        return self.members[0]

    @property
    def variable(self) -> str:
        """What is to be added to the guest's addresses; -1 if each access has to look for itself."""
        return f"%span.{self.leader:x}"

    def look(self, *, predicted: bool = True) -> tuple[list[str], str]:
        """LLVM IR that sets the variable, in front of the leader, and the label of its last block.

        `predicted` as what was loaded last, where pages of RAM follow each other: see `has_pages`.
        """
        unique = f"{self.leader:x}.s"
        scale = DataEntry.SIZE.bit_length() - 1
        field = DataEntry.READ if self.access is Access.READ else DataEntry.WRITE
        lines = [
            f"  %base.{unique} = load i64, ptr {self.name}",
            f"  %low.{unique} = add i64 %base.{unique}, {self.low}",
            f"  %shifted.{unique} = lshr i64 %low.{unique}, {PAGE_BITS - scale}",
            f"  %index.{unique} = and i64 %shifted.{unique}, {(DATA_ENTRIES - 1) << scale}",
            f"  %entry.{unique} = getelementptr i8, ptr %memory, i64 %index.{unique}",
            f"  %last.{unique} = add i64 %base.{unique}, {self.end - 1}",
            f"  %page.{unique} = and i64 %last.{unique}, {-PAGE_SIZE}",
            f"  %field.{unique} = getelementptr i8, ptr %entry.{unique}, i64 {int(field)}",
            f"  %tag.{unique} = load i64, ptr %field.{unique}",
            f"  %known.{unique} = icmp eq i64 %page.{unique}, %tag.{unique}",
            f"  br i1 %known.{unique}, label %hit.{unique}, label %miss.{unique}, !prof !0",
            f"miss.{unique}:",
            f"  %slot.{unique} = getelementptr i8, ptr %state, i64 {int(Slot.REFILL)}",
            f"  %refill.{unique} = load ptr, ptr %slot.{unique}",
            f"  %filled.{unique} = call preserve_mostcc i64 %refill.{unique}"
            f"(ptr %state, i64 %low.{unique}, i64 {self.end - self.low}, i64 {int(self.access)})",
            f"  store i64 %filled.{unique}, ptr {self.variable}",
            f"  br label %done.{unique}",
            f"hit.{unique}:",
            f"  %place.{unique} = getelementptr i8, ptr %entry.{unique}, i64 {int(DataEntry.ADDEND)}",
            f"  %found.{unique} = load i64, ptr %place.{unique}",
            *(self._as_usual(unique) if predicted else self._as_found(unique)),
            f"done.{unique}:",
        ]
        return lines, f"done.{unique}"

    def _as_found(self, unique: str) -> list[str]:
        return [f"  store i64 %found.{unique}, ptr {self.variable}", f"  br label %done.{unique}"]

    def _as_usual(self, unique: str) -> list[str]:
        return [
            f"  %usual.{unique} = load i64, ptr {USUAL}",
            f"  store i64 %usual.{unique}, ptr {self.variable}",
            f"  %same.{unique} = icmp eq i64 %found.{unique}, %usual.{unique}",
            f"  br i1 %same.{unique}, label %done.{unique}, label %other.{unique}, !prof !0",
            f"other.{unique}:",
            f'  %hidden.{unique} = call i64 asm "", "=r,0"(i64 %found.{unique})',
            f"  store i64 %hidden.{unique}, ptr {USUAL}",
            f"  store i64 %hidden.{unique}, ptr {self.variable}",
            f"  br label %done.{unique}",
        ]

    def admit(self, pc: int, low: int, end: int, access: Access) -> bool:
        """Take in another access, if it is not too far away."""
        low, end = min(low, self.low), max(end, self.end)
        if end - low > LONGEST_SPAN:
            return False
        self.low, self.end, self.access = low, end, max(access, self.access)
        self.members.append(pc)
        return True


def has_pages(isa: InstructionSet) -> bool:
    """Whether neighbouring pages can be anywhere, so that what is added to an address is seldom the same."""
    return isa.system is not None


def find_spans(
    blocks: Iterable[list[Step]], variable: Callable[[Step], str | None], keeps: Callable[[Step, str], bool]
) -> list[Span]:
    """The groups of two and more accesses in each block.

    `variable` is that of the register that an instruction's access is based on, None if there is none;
    `keeps` says whether an instruction leaves a variable as it is.
    """
    spans: list[Span] = []
    for block in blocks:
        known: dict[str, Span] = {}
        for step in block:
            name, based = variable(step), step.template.access
            if name is not None and based is not None:
                low = step.operands[based.offset] if based.offset else 0
                end = low + based.size
                span = known.get(name)
                if span is None or not span.admit(step.pc, low, end, based.access):
                    known[name] = span = Span(name, low, end, based.access, [step.pc])
                    spans.append(span)
            known = {name: span for name, span in known.items() if keeps(step, name)}
    return [span for span in spans if len(span.members) > 1]
