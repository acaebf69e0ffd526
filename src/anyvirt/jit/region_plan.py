"""Which instructions around a hot address are compiled together.

They are found breadth-first from the entry through branches, direct calls and the targets that indirect
jumps have been seen to take. A function is not left for its caller, unless that is the only one and calls it
again: else each of the functions that a loop calls would have a copy of the loop.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from anyvirt.jit.region_template import Way

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from anyvirt.isa.description import InstructionSet, Pattern
    from anyvirt.jit.region_template import Template, Templates

LARGEST_REGION = 320
"""Most guest instructions of a region."""
_LONGEST = 4
"""Most bytes of an instruction that says from its first parcel how many it has."""
_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction of a region."""

    pc: int
    length: int
    pattern: Pattern
    operands: dict[str, int]
    template: Template
    target: int | None
    """Where Way.TAKEN leads."""
    indirect: tuple[int, ...] = ()
    """Where Way.JUMP is expected to lead, within the region."""

    @property
    def next(self) -> int:
        """Address of the instruction behind it."""
        return self.pc + self.length


@dataclass
class Plan:
    """The instructions of a region and how control flows between them."""

    entry: int
    steps: dict[int, Step] = field(default_factory=dict)
    leaders: set[int] = field(default_factory=set)
    """Instructions that are arrived at from elsewhere than the one before."""

    is_cut: bool = False
    """The limit on its size has kept instructions out."""
    others: tuple[int, ...] = ()
    """Instructions at which control comes in besides `entry`."""

    def ranges(self) -> list[tuple[int, int]]:
        """Addresses covered, as (start, end), ascending and disjoint."""
        result: list[tuple[int, int]] = []
        for pc in sorted(self.steps):
            end = self.steps[pc].next
            if result and result[-1][1] >= pc:
                result[-1] = (result[-1][0], max(end, result[-1][1]))
            else:
                result.append((pc, end))
        return result


@dataclass(frozen=True)
class Hints:
    """What is known of a program besides its code."""

    indirect: Mapping[int, Iterable[int]] = field(default_factory=dict)
    """Targets that indirect jumps have been seen to have, by their addresses."""
    barriers: frozenset[int] = frozenset()
    """Instructions to be left out."""
    has_run: Callable[[int], bool] = lambda pc: True
    """Whether an instruction may have been executed before; branches to others are not followed."""
    arrivals: frozenset[int] = frozenset()
    """Where control has been seen to come from elsewhere."""


class _Found(NamedTuple):
    length: int
    pattern: Pattern
    operands: dict[str, int]
    template: Template

    def target(self, pc: int) -> int | None:
        """Where Way.TAKEN leads from `pc`."""
        if Way.TAKEN not in self.template.ways:
            return None
        return pc + self.operands[self.template.target_operand or ""] & _MASK


class _Discovery:
    """The search for the instructions of a region."""

    def __init__(
        self, templates: Templates, read_code: Callable[[int, int], bytes | None], entry: int, hints: Hints
    ) -> None:
        self._isa = templates.isa
        self._templates = templates
        self._read_code = read_code
        self._hints = hints
        self._found: dict[int, _Found] = {}
        self._returns: set[int] = set()
        """Instructions behind calls."""
        self._work = deque([entry])
        self._callers: deque[int] = deque()
        """Where functions of the region return to outside of it."""
        self._leads_back = False
        """Control has been found to come to the region from what is being looked at."""
        self._inside: frozenset[int] = frozenset()
        """The region, while a caller is looked at."""
        self._plan = Plan(entry, leaders={entry})

    def plan(self, limit: int) -> Plan:
        """The region with at most `limit` instructions."""
        self._explore(limit)
        looked_at: set[int] = set()
        while self._callers and len(self._found) < limit:
            caller = self._callers.popleft()
            if caller not in looked_at:
                looked_at.add(caller)
                self._take_in_caller(caller, limit)
        for pc, found in self._found.items():
            operands, expected = found.operands, self._expected(pc, found)
            self._plan.steps[pc] = Step(
                pc, found.length, found.pattern, operands, found.template, found.target(pc), expected
            )
        self._plan.is_cut |= bool(self._work)
        self._plan.others = tuple(sorted(self._hints.arrivals & self._found.keys() - {self._plan.entry}))
        self._plan.leaders.update(self._plan.others)
        return self._plan

    def _explore(self, limit: int) -> None:
        """Take in what is known to be wanted."""
        while self._work and len(self._found) < limit:
            self._follow(self._work.popleft(), limit)

    def _take_in_caller(self, pc: int, limit: int) -> None:
        """Take in what is behind a call, if control comes back to the region from there."""
        was_cut, others = self._plan.is_cut, self._callers.copy()
        self._inside, self._leads_back = frozenset(self._found), False
        self._lead(pc, True)
        self._explore(limit)
        if not self._leads_back:
            self._found = {pc: found for pc, found in self._found.items() if pc in self._inside}
            self._work.clear()
            self._callers, self._plan.is_cut = others, was_cut

    def _follow(self, pc: int, limit: int) -> None:
        """Take in instructions one after the other until control leaves."""
        hints = self._hints
        while pc not in self._found and pc not in hints.barriers:
            if len(self._found) >= limit:
                self._plan.is_cut = True
                return
            found = _decode(self._isa, self._templates, self._read_code, pc)
            if found is None:
                return
            self._found[pc] = found
            following, target = pc + found.length, found.target(pc)
            if target is not None:
                self._lead(target, hints.has_run(target))
                self._plan.leaders.add(following)
            is_call = _is_call(self._isa, found.template, found.operands)
            if is_call:
                self._returns.add(following)
                self._lead(following, hints.has_run(following))
            if Way.JUMP in found.template.ways:
                self._lead_far(tuple(hints.indirect.get(pc, ())), is_call)
            if Way.NEXT not in found.template.ways:
                return
            pc = following

    def _lead_far(self, goals: tuple[int, ...], is_call: bool) -> None:
        """Where an indirect jump leads."""
        for goal in goals:
            if is_call or not self._is_behind_call(goal):
                self._lead(goal, True)
            elif len(goals) == 1:
                self._callers.append(goal)

    def _is_behind_call(self, pc: int) -> bool:
        """Whether the instruction before may be a call, so that who jumps there returns."""
        return any(
            before is not None
            and before.length == length
            and _is_call(self._isa, before.template, before.operands)
            for length in range(self._isa.parcel, _longest(self._isa) + 1, self._isa.parcel)
            for before in [_decode(self._isa, self._templates, self._read_code, pc - length)]
        )

    def _lead(self, pc: int, wanted: bool) -> None:
        self._plan.leaders.add(pc)
        self._leads_back |= wanted and pc in self._inside
        if wanted:
            self._work.append(pc)

    def _expected(self, pc: int, found: _Found) -> tuple[int, ...]:
        """Where an indirect jump may lead within the region; what is no call may return."""
        if Way.JUMP not in found.template.ways:
            return ()
        seen = [goal for goal in self._hints.indirect.get(pc, ()) if goal in self._found]
        if not _is_call(self._isa, found.template, found.operands):
            seen += sorted(self._returns & self._found.keys())
        return tuple(dict.fromkeys(seen))


def discover(
    templates: Templates,
    read_code: Callable[[int, int], bytes | None],
    entry: int,
    hints: Hints,
    limit: int = LARGEST_REGION,
) -> Plan:
    """The region around `entry`; without any instruction if the first one cannot be part of one.

    `read_code` returns bytes that may be executed, or None.
    """
    return _Discovery(templates, read_code, entry, hints).plan(limit)


def _is_call(isa: InstructionSet, template: Template, operands: Mapping[str, int]) -> bool:
    """Whether an instruction leaves and keeps the address behind it somewhere: control may come back."""
    if not template.links or not template.ways & {Way.TAKEN, Way.JUMP} or Way.NEXT in template.ways:
        return False
    for file, selector in template.writes:
        number = operands[selector] if isinstance(selector, str) and file else selector
        if not file or number != isa.register_files[file].count:
            return True
    return False


def _decode(
    isa: InstructionSet, templates: Templates, read_code: Callable[[int, int], bytes | None], pc: int
) -> _Found | None:
    if pc % isa.parcel:
        # In a delay slot: the interpreter's variant of the instruction knows where it leads.
        return None
    decoded = isa.decode(_window(isa, read_code, pc))
    if decoded is None or read_code(pc, decoded.length) is None:
        return None
    pattern, length = decoded.pattern, decoded.length
    operands = pattern.decode(decoded.word)
    template = templates.get(pattern, operands)
    if template is None or not template.ways - {Way.INTERPRET, Way.ODD, Way.FAULT}:
        return None
    for name in template.sunk:
        file = isa.register_files[pattern.by_name[name].field.registers or ""]
        if operands[name] == file.zero:
            operands[name] = file.count
    return _Found(length, pattern, operands, template)


def _longest(isa: InstructionSet) -> int:
    """Most bytes of an instruction."""
    return isa.context.longest if isa.context is not None else _LONGEST


def _window(isa: InstructionSet, read_code: Callable[[int, int], bytes | None], pc: int) -> bytes:
    """As many bytes from `pc` on as an instruction may have and as can be executed."""
    for length in range(_longest(isa), 0, -isa.parcel):
        code = read_code(pc, length)
        if code is not None:
            return code
    return b""
