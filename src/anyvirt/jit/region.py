"""Regions: the LLVM function that the instructions around a hot address become.

It is entered and left like a handler of the interpreter: registers live in SSA values inside, and every way
out first stores those that may have changed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from anyvirt.jit.handlers import CONVENTION, PARAMETERS
from anyvirt.jit.ir import METADATA
from anyvirt.jit.layout import (
    INSIDE,
    INTERPRET,
    NO_CODE,
    PAGE_SIZE,
    UNFIT,
    RecordLayout,
    Slot,
    StateLayout,
    StopReason,
)
from anyvirt.jit.machine_layout import CODE_ENTRIES, CODE_TABLE, PAGE_BITS, USUAL_ADDEND, CodeEntry
from anyvirt.jit.region_sharing import USUAL, Span, find_spans, has_pages
from anyvirt.jit.region_template import Way, register_name, scalar_name

if TYPE_CHECKING:
    from anyvirt.isa.description import InstructionSet
    from anyvirt.jit.region_plan import Plan, Step

_MASK = (1 << 64) - 1


class _Register(NamedTuple):
    """A register or a piece of declared state, as a region sees it."""

    offset: int
    """In the state block."""
    type: str


@dataclass(frozen=True, slots=True)
class Exit:
    """A way out that is hardly ever taken: no code stores registers, a table says where they are."""

    reason: int
    """Why the run ends; 0 if the fault handler has noted that."""
    pc: int
    """Where it can go on."""
    source: int
    """For the slot SOURCE."""
    unused: int
    """Instructions to be given back to the budget."""
    offsets: tuple[int, ...]
    """In the state block, of the values that the table finds after those of `EXIT_VALUES`."""


EXIT_VALUES = 3
"""The first values of each exit: state block, base of records (in a machine how far the code is from where it
was when it was compiled), budget left."""
PAGES = "pages"
"""The symbol of the table of pages (`anyvirt.jit.image_layout.Header.PAGE_TABLE`)."""
EXIT_BYTES = 6
"""Length of the instruction that takes an exit; the linker puts it there."""


class RegionFunction:
    """The LLVM function of a region."""

    def __init__(
        self, isa: InstructionSet, plan: Plan, *, counted: bool, memory: str = "flat", memory_size: int = 0
    ) -> None:
        """`memory` is the memory model, `memory_size` the size of a flat one."""
        self._isa = isa
        self._plan = plan
        self._counted = counted
        self._machine = memory == "machine"
        self._memory_size = memory_size
        self._layout = StateLayout.of(isa)
        self._shift = RecordLayout.of(isa).shift
        self._lines: list[str] = []
        self._side: list[str] = []
        self._allocas: list[str] = []
        self._registers: dict[str, _Register] = {}
        self._bits: dict[str, int] = {}
        self._in_memory = frozenset().union(*(step.template.dynamic_files for step in plan.steps.values()))
        self._dirty: dict[int, int] = {}
        self._written = {pc: self._writes(step) for pc, step in plan.steps.items()}
        self._entries = frozenset((plan.entry, *plan.others))
        self._blocks = self._find_blocks()
        self.spans: dict[int, Span] = {}
        """For each access that shares a look at the TLB, those that it does with."""
        self._chains = 0
        self.exits: list[Exit] = []
        """By their numbers in the LLVM code."""
        self.pages: tuple[int, ...] = ()
        """Addresses of the pages in the table of pages."""

    def text(self) -> str:
        """LLVM IR of the module, in which the function is `region`."""
        self._solve()
        if self._machine:
            spans = find_spans(self._blocks.values(), self._base, self._keeps)
            self.spans = {pc: span for span in spans for pc in span.members}
            self._allocas += [f"  {span.variable} = alloca i64" for span in spans]
        for block in self._blocks.values():
            self._emit_block(block)
        body = "\n".join([*self._lines, *self._side])
        strict = any(step.template.strict for step in self._plan.steps.values())
        attributes = 'nounwind noredzone "no-jump-tables"="true"' + (" strictfp" if strict else "")
        parameters = PARAMETERS.replace("ptr %state", "ptr noalias %state")
        return (
            f"define {CONVENTION} void @region({parameters}) {attributes} {{\n"
            f"{self._prologue(body)}\n{body}\n}}\n"
            f"declare void @llvm.experimental.stackmap(i64, i32, ...)\n{METADATA}"
        )

    # Registers ------------------------------------------------------------------------------------------

    def _register(self, file: str, number: int) -> str | None:
        """The variable of a register, None for those whose value is never wanted outside."""
        declared = self._isa.register_files[file]
        if number in (declared.count, declared.zero) and declared.zero is not None:
            return None
        if file in self._in_memory:
            return None
        return register_name(file, number)

    def _writes(self, step: Step) -> int:
        """Variables an instruction may change, as a set of bits."""
        written = 0
        for file, selector in step.template.writes:
            if not file:
                name: str | None = scalar_name(str(selector))
            else:
                number = step.operands[selector] if isinstance(selector, str) else selector
                name = self._register(file, number)
            if name is not None:
                written |= 1 << self._bits.setdefault(name, len(self._bits))
        return written

    def _base(self, step: Step) -> str | None:
        """The variable of the register that the address of an instruction's only access is based on."""
        access = step.template.access
        if access is None:
            return None
        number = step.operands[access.register] if isinstance(access.register, str) else access.register
        return self._register(access.file, number)

    def _keeps(self, step: Step, name: str) -> bool:
        """Whether an instruction leaves a variable as it is."""
        return name not in self._bits or not self._written[step.pc] >> self._bits[name] & 1

    def _prologue(self, body: str) -> str:
        """Variables with their values on entry, and what the templates expect to be there."""
        lines = [
            "entry:",
            "  %jump.target = alloca i64",
            "  %left = alloca i64",
            "  store i64 %count, ptr %left",
            *self._allocas,
        ]
        named = set(re.findall(r"%[rs]\.[\w.]+", body))
        for file, (offset, count) in self._layout.files.items():
            declared = self._isa.register_files[file]
            kind = "double" if file == "f" else "i64"
            for number in range(count + (declared.zero is not None)):
                name = register_name(file, number)
                if name not in named:
                    continue
                place = f"%p{name[2:]}"
                lines.append(f"  {place} = getelementptr i8, ptr %state, i64 {offset + 8 * number}")
                if file in self._in_memory:
                    lines.append(f"  {name} = getelementptr i8, ptr %state, i64 {offset + 8 * number}")
                    continue
                lines.append(f"  {name} = alloca {kind}")
                if number == declared.zero:
                    lines.append(f"  store i64 0, ptr {name}")
                elif number < count:
                    lines.append(f"  %e{name[2:]} = load {kind}, ptr {place}")
                    lines.append(f"  store {kind} %e{name[2:]}, ptr {name}")
        for name_, (offset, _) in self._layout.scalars.items():
            name = scalar_name(name_)
            if name in named:
                lines.append(f"  %p{name[2:]} = getelementptr i8, ptr %state, i64 {offset}")
                lines.append(f"  {name} = alloca i64")
                lines.append(f"  %e{name[2:]} = load i64, ptr %p{name[2:]}")
                lines.append(f"  store i64 %e{name[2:]}, ptr {name}")
        if self._machine:
            lines += [
                f"  %usual.slot = getelementptr i8, ptr %memory, i64 {USUAL_ADDEND}",
                f"  {USUAL} = alloca i64",
                "  %usual.entry = load i64, ptr %usual.slot",
                f"  store i64 %usual.entry, ptr {USUAL}",
            ]
        lines += self._check_rounding()
        lines += self._find_entry()
        return "\n".join(lines)

    def _check_rounding(self) -> list[str]:
        """Code that depends on the rounding mode is compiled for one of them."""
        modes = {step.template.rounding for step in self._plan.steps.values()} - {None}
        if not modes:
            return []
        return [
            f"  %mode.slot = getelementptr i8, ptr %state, i64 {int(Slot.FLOAT_ROUNDING)}",
            "  %mode = load i64, ptr %mode.slot",
            f"  %fits = icmp eq i64 %mode, {modes.pop()}",
            "  br i1 %fits, label %fit, label %unfit, !prof !0",
            *self._refuse("unfit", UNFIT),
            "fit:",
        ]

    def _refuse(self, label: str, reason: int) -> list[str]:
        """Leave before anything has been done."""
        return [
            f"{label}:",
            *self._store(Slot.REASON, reason, f"{label}.reason"),
            f"  %{label}.out = getelementptr i8, ptr %state, i64 {int(Slot.LEAVE)}",
            f"  %{label}.leave = load ptr, ptr %{label}.out",
            f"  musttail call {CONVENTION} void %{label}.leave"
            "(ptr %state, ptr %record, ptr %memory, i64 %count, ptr %records)",
            "  ret void",
        ]

    def _find_entry(self) -> list[str]:
        """Go to the instruction whose record has led here.

        Code of a machine can be executed at several addresses; a region is for one of them.
        """
        start = self._label(self._plan.entry)
        if not self._plan.others and not self._machine:
            return [f"  br label %{start}"]
        places = " ".join(
            f"i64 {_signed(pc << self._shift & _MASK)}, label %{self._label(pc)}"
            for pc in (self._plan.entry, *self._plan.others)
        )
        return [
            "  %here = ptrtoint ptr %record to i64",
            "  %base = ptrtoint ptr %records to i64",
            "  %scaled = sub i64 %here, %base",
            f"  switch i64 %scaled, label %elsewhere [{places}]",
            *self._refuse("elsewhere", INTERPRET),
        ]

    def _variable(self, name: str) -> _Register:
        """What a variable of the function stands for."""
        known = self._registers.get(name)
        if known is None:
            kind, _, rest = name[1:].partition(".")
            if kind == "s":
                known = _Register(self._layout.scalars[rest][0], "i64")
            else:
                file, _, number = rest.partition(".")
                offset = self._layout.files[file][0] + 8 * int(number)
                known = _Register(offset, "double" if file == "f" else "i64")
            self._registers[name] = known
        return known

    def _flush(self, dirty: int, unique: str) -> list[str]:
        """Store the variables of a set back to the state block."""
        lines = []
        for name, bit in self._bits.items():
            if dirty >> bit & 1:
                kind = self._variable(name).type
                lines.append(f"  %d{name[2:]}.{unique} = load {kind}, ptr {name}")
                lines.append(f"  store {kind} %d{name[2:]}.{unique}, ptr %p{name[2:]}")
        return lines

    # Control flow ---------------------------------------------------------------------------------------

    def _find_blocks(self) -> dict[int, list[Step]]:
        blocks: dict[int, list[Step]] = {}
        current: list[Step] | None = None
        order = sorted(self._plan.steps)
        # Instructions may overlap: what comes after one of them need not be the next in order.
        starts = self._plan.leaders | {
            self._plan.steps[pc].next for pc, after in pairwise(order) if self._plan.steps[pc].next > after
        }
        for pc in order:
            step = self._plan.steps[pc]
            if current is None or pc in starts or current[-1].next != pc or self._starts(step, current[-1]):
                current = blocks[pc] = []
            current.append(step)
            if step.template.ways & {Way.TAKEN, Way.JUMP} or Way.NEXT not in step.template.ways:
                current = None
        return blocks

    def _starts(self, step: Step, before: Step) -> bool:
        """Whether a block has to begin with an instruction, although control comes from the one before."""
        return False

    def _successors(self, block: list[Step]) -> list[int]:
        last = block[-1]
        goals = list(last.indirect)
        if last.target is not None:
            goals.append(last.target)
        if Way.NEXT in last.template.ways:
            goals.append(last.next)
        return [goal for goal in goals if goal in self._blocks]

    def _solve(self) -> None:
        """Which variables may differ from the state block at the beginning of each block."""
        gained = {}
        for start, block in self._blocks.items():
            total = 0
            for step in block:
                total |= self._written[step.pc]
            gained[start] = total
        self._dirty = dict.fromkeys(self._blocks, 0)
        work = list(self._blocks)
        while work:
            start = work.pop()
            out = self._dirty[start] | gained[start]
            for goal in self._successors(self._blocks[start]):
                if out | self._dirty[goal] != self._dirty[goal]:
                    self._dirty[goal] |= out
                    work.append(goal)

    # Instructions ---------------------------------------------------------------------------------------

    def _label(self, pc: int) -> str:
        return f"i{pc:x}"

    def _emit_block(self, block: list[Step]) -> None:
        start = block[0].pc
        self._lines.append(f"{self._label(start)}:")
        dirty = self._dirty[start]
        if self._counted:
            self._count(block, dirty)
        for position, step in enumerate(block):
            if position:
                self._lines.append(f"{self._label(step.pc)}:")
            self._emit_step(step, dirty, len(block) - position)
            dirty |= self._written[step.pc]

    def _count(self, block: list[Step], dirty: int) -> None:
        """Use up the budget for a whole block, or leave it to the interpreter if there is not enough."""
        unique, number = f"{block[0].pc:x}", len(block)
        self._lines += [
            f"  %c.{unique} = load i64, ptr %left",
            f"  %enough.{unique} = icmp uge i64 %c.{unique}, {number}",
            f"  br i1 %enough.{unique}, label %n{unique}, label %short{unique}, !prof !0",
        ]
        self._exit(f"short{unique}", Exit(INTERPRET, block[0].pc, 0, 0, ()), dirty)
        self._lines += [
            f"n{unique}:",
            f"  %m.{unique} = sub i64 %c.{unique}, {number}",
            f"  store i64 %m.{unique}, ptr %left",
            f"  br label %t{unique}",
            f"t{unique}:",
        ]

    def _emit_step(self, step: Step, dirty: int, unused: int) -> None:
        """An instruction; `unused` ones of its block, itself included, are counted but not executed."""
        template, unique = step.template, f"{step.pc:x}"
        after = dirty | self._written[step.pc]
        label = self._label(step.pc)
        values: dict[str, object] = dict(step.operands)
        values.update(u=unique, memory_size=self._memory_size, **self._addresses(step))
        span, begin = self.spans.get(step.pc), label
        if self._counted and step.pc in self._blocks:
            begin = f"t{unique}"
        if span is not None and span.leader == step.pc:
            lines, begin = span.look(predicted=not has_pages(self._isa))
            self._lines += lines
        text, begin = self._guard(step, values, begin)
        if span is None:
            text += template.format % values
        else:
            text += template.shared % (values | {"span": span.variable})
        if template.allocas:
            self._allocas.append(template.allocas % values)
        for way in template.ways:
            goal = self._way(way, step, dirty, after, unused)
            text = text.replace(f"label %{way}{unique}", f"label %{goal}")
        # Phis of the template name the block it begins in.
        text = text.replace(f"%{label}]", f"%{begin}]")
        self._lines.append(text)

    def _addresses(self, step: Step) -> dict[str, object]:
        """What the placeholders for addresses become."""
        return {"pc": _signed(step.pc), "next_pc": _signed(step.next)}

    def _guard(self, step: Step, values: dict[str, object], begin: str) -> tuple[str, str]:
        """The look whether an instruction's guard holds, and the label of the block that follows."""
        return "", begin

    def _way(self, way: Way, step: Step, dirty: int, after: int, unused: int) -> str:
        """The label that a way out of an instruction leads to; emits what is there."""
        unique = f"{step.pc:x}"
        before = after if step.template.early_writes else dirty
        match way:
            case Way.NEXT:
                label = self._onward(step.next, after, unused - 1)
            case Way.TAKEN:
                label = self._branch(step, after, unused - 1)
            case Way.JUMP:
                label = self._indirect(step, after, unique)
            case Way.INTERPRET if step.pc not in self._entries:
                label = f"interpret{unique}"
                self._side += [f"{label}:", *self._flush(before, f"i{unique}")]
                self._go(step.pc, self._left(unused, f"i{unique}"), f"i{unique}")
            case Way.ODD if Way.FAULT in step.template.ways:
                # The guest's state is to be found in the same places as after a fault.
                label = f"odd{unique}"
                self._side += [
                    f"{label}:",
                    *self._store(Slot.REASON, INTERPRET, f"why{unique}"),
                    f"  br label %{Way.FAULT}{unique}",
                ]
            case Way.INTERPRET | Way.ODD | Way.FAULT:
                label = f"{way}{unique}"
                reason = 0 if way is Way.FAULT else INTERPRET
                self._exit(label, Exit(reason, step.pc, 0, unused, ()), before)
        return label

    def _onward(self, pc: int, dirty: int, unused: int) -> str:
        """Where the next instruction is, in the region or out of it."""
        return self._inside(pc, dirty, unused) if pc in self._plan.steps else self._chain(pc, dirty, unused)

    def _inside(self, pc: int, dirty: int, unused: int) -> str:
        """The label of an instruction of the region, as control comes to it from the current one."""
        return self._label(pc)

    def _branch(self, step: Step, dirty: int, unused: int) -> str:
        """Where a taken branch leads."""
        target = step.target or 0
        if target not in self._blocks:
            return self._chain(target, dirty, unused, source=step.pc)
        if target > step.pc:
            return self._inside(target, dirty, unused)
        return self._back_edge(target, dirty, f"{step.pc:x}")

    # Ways out -------------------------------------------------------------------------------------------

    def _record(self, pc: int, unique: str) -> str:
        name = f"%record.{unique}"
        self._side.append(
            f"  {name} = getelementptr i8, ptr %records, i64 {_signed(pc << self._shift & _MASK)}"
        )
        return name

    def _left(self, unused: int, unique: str) -> str:
        """The budget left, with `unused` instructions given back."""
        if not self._counted:
            return "%count"
        self._side.append(f"  %left.{unique} = load i64, ptr %left")
        if not unused:
            return f"%left.{unique}"
        self._side.append(f"  %kept.{unique} = add i64 %left.{unique}, {unused}")
        return f"%kept.{unique}"

    def _tail(self, function: str, record: str, left: str, records: str = "%records") -> None:
        arguments = f"ptr %state, ptr {record}, ptr %memory, i64 {left}, ptr {records}"
        self._side += [f"  musttail call {CONVENTION} void {function}({arguments})", "  ret void"]

    def _dispatch(self, record: str, left: str, unique: str, records: str = "%records") -> None:
        self._side.append(f"  %handler.{unique} = load ptr, ptr {record}")
        self._tail(f"%handler.{unique}", record, left, records)

    def _exit(self, label: str, kind: Exit, dirty: int) -> None:
        """Leave in a way that is hardly ever taken."""
        number, values, offsets = len(self.exits), [], []
        left = "%count"
        self._side.append(f"{label}:")
        if self._counted:
            left = f"%left.e{number}"
            self._side.append(f"  {left} = load i64, ptr %left")
        for name, bit in self._bits.items():
            if dirty >> bit & 1:
                register = self._variable(name)
                value = f"%v{name[2:]}.e{number}"
                self._side.append(f"  {value} = load {register.type}, ptr {name}")
                values.append(f", {register.type} {value}")
                offsets.append(register.offset)
        self._side += [
            f"  call void (i64, i32, ...) @llvm.experimental.stackmap(i64 {number}, i32 {EXIT_BYTES}, "
            f"ptr %state, {self._base_value()}, i64 {left}{''.join(values)})",
            # Never reached; but LLVM would take away what leads to a place that cannot be.
            "  ret void",
        ]
        self.exits.append(replace(kind, offsets=tuple(offsets)))

    def _base_value(self) -> str:
        """The second of `EXIT_VALUES`."""
        return "i64 0" if self._machine else "ptr %records"

    def _chain(self, pc: int, dirty: int, unused: int, *, source: int = 0) -> str:
        """Leave for an instruction outside of the region; `source` is a branch that leads there, if one does.

        The run can be stopped on the way: what is behind a region that has been cut off may be hot, too.
        """
        self._chains += 1
        unique = f"x{self._chains}"
        self._side.append(f"{unique}:")
        if not self._machine and pc >= self._memory_size:
            self._leave_memory(str(_signed(pc)), dirty, unused, unique)
            return unique
        self._check_pending(pc, dirty, unused, unique, f"go.{unique}", source)
        self._side.append(f"go.{unique}:")
        self._side += self._flush(dirty, unique)
        self._go(pc, self._left(unused, unique), unique)
        return unique

    def _go(self, pc: int, left: str, unique: str) -> None:
        """Go on at the record of an address."""
        if self._machine and pc // PAGE_SIZE != self._plan.entry // PAGE_SIZE:
            self._look_up(str(_signed(pc)), left, unique)
        else:
            self._dispatch(self._record(pc, unique), left, unique)

    def _look_up(self, address: str, left: str, unique: str) -> None:
        """Go on at an address of a machine: where the TLB says its records are, or the record that asks."""
        scale = CodeEntry.SIZE.bit_length() - 1
        offset = f"  %offset.{unique} = shl i64 {address}, {self._shift}"
        self._side += [
            f"  %shifted.{unique} = lshr i64 {address}, {PAGE_BITS - scale}",
            f"  %index.{unique} = and i64 %shifted.{unique}, {(CODE_ENTRIES - 1) << scale}",
            f"  %table.{unique} = getelementptr i8, ptr %memory, i64 {CODE_TABLE}",
            f"  %entry.{unique} = getelementptr i8, ptr %table.{unique}, i64 %index.{unique}",
            f"  %tag.{unique} = load i64, ptr %entry.{unique}",
            f"  %page.{unique} = and i64 {address}, {-PAGE_SIZE}",
            f"  %known.{unique} = icmp eq i64 %tag.{unique}, %page.{unique}",
            offset,
            f"  br i1 %known.{unique}, label %known{unique}, label %ask{unique}, !prof !0",
            f"known{unique}:",
            f"  %place.{unique} = getelementptr i8, ptr %entry.{unique}, i64 {int(CodeEntry.RECORDS)}",
            f"  %records.{unique} = load ptr, ptr %place.{unique}",
            f"  %there.{unique} = getelementptr i8, ptr %records.{unique}, i64 %offset.{unique}",
        ]
        self._dispatch(f"%there.{unique}", left, f"k{unique}", f"%records.{unique}")
        self._side += [f"ask{unique}:", *self._asking(address, unique)]
        self._dispatch(f"%asking.{unique}", left, f"a{unique}", f"%asked.{unique}")

    def _asking(self, address: str, unique: str) -> list[str]:
        """The record that looks an address up, and a base that makes it mean the address (`RecordPage`)."""
        return [
            f"  %area.{unique} = getelementptr i8, ptr %state, i64 {int(Slot.CROSSING)}",
            f"  %crossing.{unique} = load ptr, ptr %area.{unique}",
            f"  %asking.{unique} = getelementptr i8, ptr %crossing.{unique}, i64 {PAGE_SIZE << self._shift}",
            f"  %back.{unique} = sub i64 0, %offset.{unique}",
            f"  %asked.{unique} = getelementptr i8, ptr %asking.{unique}, i64 %back.{unique}",
        ]

    def _leave_memory(self, address: str, dirty: int, unused: int, unique: str) -> None:
        """Stop because control goes to where no code can be."""
        self._side += [
            *self._store(Slot.FAULT_ADDRESS, address, f"where.{unique}"),
            *self._store(Slot.FAULT_ACCESS, NO_CODE, f"how.{unique}"),
            f"  br label %lost{unique}",
        ]
        self._exit(f"lost{unique}", Exit(StopReason.ACCESS_FAULT, self._plan.entry, 0, unused, ()), dirty)

    def _check_pending(
        self, pc: int, dirty: int, unused: int, unique: str, onward: str, source: int = 0
    ) -> None:
        """Let the run be stopped on the way to `pc`."""
        self._wish(unique, onward, f"stop.{unique}")
        self._exit(f"stop.{unique}", Exit(StopReason.INTERRUPTED, pc, source, unused, ()), dirty)

    def _wish(self, unique: str, onward: str, stopped: str) -> None:
        """Look whether somebody wants the run to end."""
        self._side += [
            f"  %wish.{unique} = getelementptr i8, ptr %state, i64 {int(Slot.PENDING)}",
            f"  %pending.{unique} = load volatile i64, ptr %wish.{unique}",
            f"  %quiet.{unique} = icmp eq i64 %pending.{unique}, 0",
            f"  br i1 %quiet.{unique}, label %{onward}, label %{stopped}, !prof !0",
        ]

    def _back_edge(self, target: int, dirty: int, unique: str) -> str:
        """A loop can be stopped where it begins again."""
        label, goal = f"back{unique}", self._inside(target, dirty, 0)
        self._side.append(f"{label}:")
        self._check_pending(target, dirty, 0, f"b{unique}", goal, INSIDE)
        return label

    def _indirect(self, step: Step, dirty: int, unique: str) -> str:
        """A computed jump: to places in the region that it is expected to reach, or out."""
        label = f"jump{unique}"
        goals = [goal for goal in step.indirect if goal in self._blocks]
        cases = " ".join(f"i64 {_signed(goal)}, label %{self._goal(goal, step, dirty)}" for goal in goals)
        address = f"%to.{unique}"
        self._side += [
            f"{label}:",
            f"  {address} = load i64, ptr %jump.target",
            *self._compiled_address(address, unique),
            f"  switch i64 %as.compiled.{unique}, label %out{unique} [{cases}]",
            f"out{unique}:",
            *self._flush(dirty, f"j{unique}"),
        ]
        if self._machine:
            self._leap_in_machine(step, address, unique)
        else:
            self._leap(step, address, unique)
        return label

    def _compiled_address(self, address: str, unique: str) -> list[str]:
        """Let `%as.compiled` be an address as the region knows it."""
        return [f"  %as.compiled.{unique} = add i64 {address}, 0"]

    def _leap(self, step: Step, address: str, unique: str) -> None:
        """Leave for any address of a flat memory."""
        self._side += [
            f"  %inside.{unique} = icmp ult i64 {address}, {self._memory_size}",
            f"  br i1 %inside.{unique}, label %far{unique}, label %nowhere{unique}, !prof !0",
            f"nowhere{unique}:",
            *self._store(Slot.FAULT_ADDRESS, address, f"where.{unique}"),
            *self._store(Slot.FAULT_ACCESS, NO_CODE, f"how.{unique}"),
            f"  br label %lost{unique}",
        ]
        self._exit(f"lost{unique}", Exit(StopReason.ACCESS_FAULT, step.pc, 0, 0, ()), 0)
        self._side += [
            f"far{unique}:",
            f"  %offset.{unique} = shl i64 {address}, {self._shift}",
            f"  %record.{unique} = getelementptr i8, ptr %records, i64 %offset.{unique}",
        ]
        self._wish(unique, f"onward{unique}", f"stop{unique}")
        self._stop_at(step, f"%record.{unique}", "%records", unique)
        self._side.append(f"onward{unique}:")
        self._dispatch(f"%record.{unique}", self._left(0, f"o{unique}"), f"o{unique}")

    def _leap_in_machine(self, step: Step, address: str, unique: str) -> None:
        """Leave for any address of a machine."""
        self._wish(unique, f"onward{unique}", f"stop{unique}")
        self._side.append(f"onward{unique}:")
        self._look_up(address, self._left(0, f"o{unique}"), f"o{unique}")
        asking = f"q{unique}"
        self._side += [f"stop{unique}:", f"  %offset.{asking} = shl i64 {address}, {self._shift}"]
        self._side += self._asking(address, asking)
        self._side.append(f"  br label %halt{unique}")
        self._stop_at(step, f"%asking.{asking}", f"%asked.{asking}", unique, f"halt{unique}")

    def _stop_at(self, step: Step, record: str, records: str, unique: str, label: str = "") -> None:
        """End the run on the way from a computed jump to a record."""
        self._side += [
            f"{label or f'stop{unique}'}:",
            *self._store(Slot.SOURCE, _signed(step.pc), f"source.{unique}"),
            *self._store(Slot.REASON, int(StopReason.INTERRUPTED), f"reason.{unique}"),
            f"  %out.{unique} = getelementptr i8, ptr %state, i64 {int(Slot.LEAVE)}",
            f"  %leave.{unique} = load ptr, ptr %out.{unique}",
        ]
        self._tail(f"%leave.{unique}", record, self._left(0, f"l{unique}"), records)

    @staticmethod
    def _store(slot: Slot, value: str | int, unique: str) -> list[str]:
        return [
            f"  %{unique} = getelementptr i8, ptr %state, i64 {int(slot)}",
            f"  store volatile i64 {value}, ptr %{unique}",
        ]

    def _goal(self, goal: int, step: Step, dirty: int) -> str:
        """Backward, an indirect jump closes a loop as any other does."""
        if goal > step.pc:
            return self._inside_once(goal, dirty)
        return self._back_edge_once(goal, dirty, f"{step.pc:x}.{goal:x}")

    def _inside_once(self, goal: int, dirty: int) -> str:
        waiting, self._side = self._side, []
        label = self._inside(goal, dirty, 0)
        self._side = waiting + self._side
        return label

    def _back_edge_once(self, goal: int, dirty: int, unique: str) -> str:
        waiting, self._side = self._side, []
        label = self._back_edge(goal, dirty, unique)
        self._side = waiting + self._side
        return label


def _signed(number: int) -> int:
    """A 64-bit pattern as LLVM writes it."""
    return number - (1 << 64) if number >> 63 else number
