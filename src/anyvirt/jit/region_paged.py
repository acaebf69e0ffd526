"""Regions of code whose addresses are translated: for any address, and of pages that are checked on the way.

Records belong to physical pages, and so does what is made of them. A region is entered through the record of
its first instruction, from whatever address the page of that is mapped at, so its code is independent of
that address: `%delta` is how far it is from the one that it was compiled for. Control goes from page to page
of the region only where the TLB for code says that the other page is what it was made from, which is what
the interpreter would look at, too; whatever makes the TLB forget is an instruction that leaves the region, or
an interrupt. What is not there is left for, and looked up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from anyvirt.jit.ir import LIKELY
from anyvirt.jit.layout import PAGE_SIZE, Slot
from anyvirt.jit.machine_layout import CODE_ENTRIES, CODE_TABLE, PAGE_BITS, CodeEntry, RecordPage
from anyvirt.jit.region import PAGES, RegionFunction

if TYPE_CHECKING:
    from anyvirt.isa.description import InstructionSet
    from anyvirt.jit.region_plan import Plan, Step

_MASK = (1 << 64) - 1
_Fact = TypeVar("_Fact")


class PagedRegionFunction(RegionFunction):
    """The LLVM function of a region of translated code."""

    def __init__(self, isa: InstructionSet, plan: Plan, *, counted: bool) -> None:
        super().__init__(isa, plan, counted=counted, memory="machine")
        needed = (page for step in plan.steps.values() for page in _pages(step))
        self.pages = tuple(sorted({page * PAGE_SIZE for page in needed}))
        self._home = plan.entry // PAGE_SIZE
        self._known_pages: dict[int, frozenset[int]] = {}
        """Numbers of pages that are known to be the right ones at the beginning of a block."""
        self._known_guards: dict[int, frozenset[str]] = {}
        """Guards that are known to hold there."""
        self._holding: set[str] = set()
        """Those that are known to hold at the current instruction."""
        self._block = plan.entry
        self._checks = 0

    # What is known --------------------------------------------------------------------------------------

    def _starts(self, step: Step, before: Step) -> bool:
        return _pages(step) != _pages(before)

    def _solve(self) -> None:
        super()._solve()
        home = frozenset({self._home})
        arriving = {start: frozenset(_pages(block[0])) for start, block in self._blocks.items()}
        self._known_pages = self._known(home, arriving, arriving)
        guards = {
            start: frozenset(step.template.guard_name for step in block if step.template.guard)
            for start, block in self._blocks.items()
        }
        self._known_guards = self._known(frozenset(), {}, guards)

    def _known(
        self,
        first: frozenset[_Fact],
        arriving: dict[int, frozenset[_Fact]],
        gained: dict[int, frozenset[_Fact]],
    ) -> dict[int, frozenset[_Fact]]:
        """What is true at the beginning of each block, whichever way control came: `first` on entry.

        `arriving` at a block makes something true, `gained` is so behind it.
        """
        known: dict[int, frozenset[_Fact]] = {self._plan.entry: first}
        work = [self._plan.entry]
        while work:
            start = work.pop()
            behind = known[start] | gained.get(start, frozenset())
            for goal in self._successors(self._blocks[start]):
                facts = behind | arriving.get(goal, frozenset())
                if goal in known:
                    facts &= known[goal]
                if known.get(goal) != facts:
                    known[goal] = facts
                    work.append(goal)
        return known

    # Addresses ------------------------------------------------------------------------------------------

    def _find_entry(self) -> list[str]:
        """There is one; what is at its address is what the record belongs to."""
        return [
            "  %here = ptrtoint ptr %record to i64",
            "  %base = ptrtoint ptr %records to i64",
            "  %scaled = sub i64 %here, %base",
            f"  %begin.pc = ashr exact i64 %scaled, {self._shift}",
            f"  %delta = sub i64 %begin.pc, {_signed(self._plan.entry)}",
            f"  br label %{self._label(self._plan.entry)}",
        ]

    def _addresses(self, step: Step) -> dict[str, object]:
        values: dict[str, object] = {}
        for name, address in (("pc", step.pc), ("next_pc", step.next)):
            if name in step.template.uses:
                values[name] = f"%{name}.{step.pc:x}"
                self._lines.append(f"  {values[name]} = add i64 %delta, {_signed(address)}")
        return values

    def _base_value(self) -> str:
        return "i64 %delta"

    def _compiled_address(self, address: str, unique: str) -> list[str]:
        return [f"  %as.compiled.{unique} = sub i64 {address}, %delta"]

    # Instructions ---------------------------------------------------------------------------------------

    def _emit_block(self, block: list[Step]) -> None:
        self._block = block[0].pc
        self._holding = set(self._known_guards.get(self._block, ()))
        super()._emit_block(block)

    def _guard(self, step: Step, values: dict[str, object], begin: str) -> tuple[str, str]:
        template = step.template
        if not template.guard or template.guard_name in self._holding:
            return "", begin
        self._holding.add(template.guard_name)
        text = template.guard % values
        return f"{text}\n", text.rpartition("\n")[2].removesuffix(":")

    # Ways -----------------------------------------------------------------------------------------------

    def _inside(self, pc: int, dirty: int, unused: int) -> str:
        label = self._label(pc)
        for page in _pages(self._plan.steps[pc]) - self._known_pages.get(self._block, frozenset()):
            label = self._checked(page, pc, label, dirty, unused)
        return label

    def _checked(self, page: int, pc: int, onward: str, dirty: int, unused: int) -> str:
        """The label of code that goes on if a page is the one that the region was made from."""
        self._checks += 1
        unique = f"p{self._checks}"
        otherwise = self._chain(pc, dirty, unused)
        position = self.pages.index(page * PAGE_SIZE)
        scale = CodeEntry.SIZE.bit_length() - 1
        self._side += [
            f"{unique}:",
            f"  %page.{unique} = add i64 %delta, {_signed(page * PAGE_SIZE)}",
            f"  %shifted.{unique} = lshr i64 %page.{unique}, {PAGE_BITS - scale}",
            f"  %index.{unique} = and i64 %shifted.{unique}, {(CODE_ENTRIES - 1) << scale}",
            f"  %table.{unique} = getelementptr i8, ptr %memory, i64 {CODE_TABLE}",
            f"  %entry.{unique} = getelementptr i8, ptr %table.{unique}, i64 %index.{unique}",
            f"  %tag.{unique} = load i64, ptr %entry.{unique}",
            f"  %known.{unique} = icmp eq i64 %tag.{unique}, %page.{unique}",
            f"  br i1 %known.{unique}, label %same{unique}, label %{otherwise}{LIKELY}",
            f"same{unique}:",
            f"  %place.{unique} = getelementptr i8, ptr %entry.{unique}, i64 {int(CodeEntry.RECORDS)}",
            f"  %there.{unique} = load i64, ptr %place.{unique}",
            f"  %cell.{unique} = getelementptr i64, ptr @{PAGES}, i64 {position}",
            f"  %away.{unique} = load i64, ptr %cell.{unique}",
            f"  %wanted.{unique} = add i64 %base, %away.{unique}",
            f"  %right.{unique} = icmp eq i64 %there.{unique}, %wanted.{unique}",
            f"  br i1 %right.{unique}, label %{onward}, label %{otherwise}{LIKELY}",
        ]
        return unique

    def _record(self, pc: int, unique: str) -> str:
        name = f"%record.{unique}"
        distance = pc - self._plan.entry << self._shift
        self._side.append(f"  {name} = getelementptr i8, ptr %record, i64 {distance}")
        return name

    def _go(self, pc: int, left: str, unique: str) -> None:
        if pc // PAGE_SIZE == self._home:
            self._dispatch(self._record(pc, unique), left, unique)
            return
        self._side.append(f"  %goal.{unique} = add i64 %delta, {_signed(pc)}")
        self._look_up(f"%goal.{unique}", left, unique)

    def _asking(self, address: str, unique: str) -> list[str]:
        """The record that leads to the address in TARGET: no other can stand for any address."""
        distance = (PAGE_SIZE << self._shift) + RecordPage.LOST
        return [
            *self._store(Slot.TARGET, address, f"target.{unique}"),
            f"  %area.{unique} = getelementptr i8, ptr %state, i64 {int(Slot.CROSSING)}",
            f"  %crossing.{unique} = load ptr, ptr %area.{unique}",
            f"  %asking.{unique} = getelementptr i8, ptr %crossing.{unique}, i64 {distance}",
            f"  %back.{unique} = sub i64 0, %offset.{unique}",
            f"  %asked.{unique} = getelementptr i8, ptr %asking.{unique}, i64 %back.{unique}",
        ]

    def _leap_in_machine(self, step: Step, address: str, unique: str) -> None:
        """Leave for any address; whoever looks it up also looks at requests."""
        self._wish(unique, f"onward{unique}", f"stop{unique}")
        self._side.append(f"onward{unique}:")
        self._look_up(address, self._left(0, f"o{unique}"), f"o{unique}")
        asking = f"q{unique}"
        self._side += [
            f"stop{unique}:",
            f"  %from.{unique} = add i64 %delta, {_signed(step.pc)}",
            *self._store(Slot.SOURCE, f"%from.{unique}", f"source.{unique}"),
            f"  %offset.{asking} = shl i64 {address}, {self._shift}",
            *self._asking(address, asking),
        ]
        self._dispatch(f"%asking.{asking}", self._left(0, f"l{unique}"), f"l{unique}", f"%asked.{asking}")

    @staticmethod
    def can_begin(plan: Plan) -> bool:
        """Whether the first instruction lies in one page: only what leads to an instruction checks others."""
        return plan.entry in plan.steps and len(_pages(plan.steps[plan.entry])) == 1

    def text(self) -> str:
        """See RegionFunction.text."""
        return f"@{PAGES} = external hidden global [{len(self.pages)} x i64]\n{super().text()}"


def _pages(step: Step) -> frozenset[int]:
    """Numbers of the pages that an instruction lies in."""
    return frozenset({step.pc // PAGE_SIZE, (step.next - 1) // PAGE_SIZE})


def _signed(number: int) -> int:
    """A 64-bit pattern as LLVM writes it."""
    number &= _MASK
    return number - (1 << 64) if number >> 63 else number
