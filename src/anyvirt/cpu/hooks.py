"""Hooks: Python functions that a CPU calls at addresses, at the beginnings of blocks, and at memory accesses.

    with cpu.hooks.at(0x10440, lambda cpu, address: print("main", cpu.x[10])):
        cpu.run()

A hook runs between two instructions, before the one that it is about, and may look at and change everything.
The run ends with a `Stop` of the reason HOOK if it returns True. Hooks on addresses replace decoded
instructions, so the rest runs at full speed; those on blocks and memory need the instrumented interpreter,
which the CPU uses while there are any. What is executed is the same in either.
"""

from __future__ import annotations

import weakref
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from anyvirt.cpu.executor import Access, Stop, StopReason
from anyvirt.cpu.hooked import hooked_addresses
from anyvirt.cpu.instruments import Instruments
from anyvirt.cpu.memory import GuestFault
from anyvirt.isa.description import DELAY_SLOT
from anyvirt.jit.ahead import instruction_set
from anyvirt.jit.hook_layout import ACCESS_EVENT, BLOCK_EVENT, AccessKind, BlockStart, Instrument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, Self, TypeAlias

    from anyvirt.cpu.breakpoints import Breakpoints
    from anyvirt.cpu.coverage import Coverage
    from anyvirt.cpu.hookable import Hookable
    from anyvirt.cpu.tracing import Trace
    from anyvirt.cpu.watchpoints import Watchpoints

    AddressFunction: TypeAlias = Callable[[Any, int], object]
    """Called with the CPU and the address of the instruction to come."""
    MemoryFunction: TypeAlias = Callable[[Any, AccessKind, int, int, int | None], object]
    """Called with the CPU, what the access does, its address, its size in bytes, and a value.

    The value is what a write is about to store; otherwise what memory holds, or None if reading it would
    fault or disturb a device.
    """

ADDRESS_SPACE = 1 << 64
_UNLIMITED = 1 << 62
"""Instructions that an instrumented run without a budget may take: those runs always count."""
_KINDS = tuple(map(AccessKind, range(4)))
_LONGEST = 4
"""Bytes that are forgotten of hooked code: a delay slot's second place included."""


class Attention(Enum):
    """Which hooks are called: fewer where a machine does once more what it has done already."""

    ALL = "all"
    STOPS = "stops"
    """Breakpoints and watchpoints."""
    NONE = "none"


class Hook:
    """One hook; it stays until it is removed, or until the `with` block that it was used in ends."""

    is_stop = False
    """Whether it is there to end runs: a breakpoint or a watchpoint."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self.hits = 0
        """How often it has been called."""

    def remove(self) -> None:
        """Do not call it any more; removing twice does nothing."""
        self._hooks.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


class AddressHook(Hook):
    """Called before the instruction at an address."""

    def __init__(self, hooks: Hooks, address: int, function: AddressFunction) -> None:
        super().__init__(hooks)
        self.address = address
        self.function = function


class BlockHook(Hook):
    """Called at the beginning of each block: where control has been transferred to, or could have left."""

    def __init__(self, hooks: Hooks, function: AddressFunction) -> None:
        super().__init__(hooks)
        self.function = function


class MemoryHook(Hook):
    """Called before accesses of some kinds that touch the addresses [start, end)."""

    stops_behind = False
    """It has nothing to call: the run ends when the access has been made."""

    def __init__(
        self, hooks: Hooks, start: int, end: int, kinds: AccessKind, function: MemoryFunction
    ) -> None:
        super().__init__(hooks)
        if not 0 <= start < end <= ADDRESS_SPACE or not kinds:
            raise ValueError(f"no memory to watch: [{start:#x}, {end:#x}), {kinds!r}")
        self.start = start
        self.end = end
        self.kinds = kinds
        self.function = function

    def concerns(self, event: _AccessEvent) -> bool:
        """Whether it has to be called for an access."""
        return (
            bool(self.kinds & event.kind)
            and event.address < self.end
            and self.start < event.address + event.size
        )


class _AccessEvent(NamedTuple):
    """A memory access that an instruction is about to make."""

    kind: AccessKind
    address: int
    size: int
    value: int | None

    @property
    def access(self) -> Access:
        """As stops have it."""
        return Access.WRITE if self.kind & AccessKind.WRITE else Access.READ


_AnyHook = TypeVar("_AnyHook", bound=Hook)


class Hooks:
    """The hooks of one CPU: `cpu.hooks`. Iterating gives all of them, break- and watchpoints included."""

    def __init__(self, cpu: Hookable) -> None:
        from anyvirt.cpu.breakpoints import Breakpoints
        from anyvirt.cpu.watchpoints import Watchpoints

        self._owner = weakref.ref(cpu)
        self._description = instruction_set(cpu.isa)
        self._hooked = hooked_addresses(cpu.memory)
        self._addresses: dict[int, list[AddressHook]] = {}
        self._blocks: list[BlockHook] = []
        self._memory: list[MemoryHook] = []
        self._coverage: Coverage | None = None
        self._trace: Trace | None = None
        self._passed: int | None = None
        """The instruction to come, if its address hooks have been called."""
        self._expected: int | None = None
        """Where the CPU was left in the midst of a block."""
        self.attention = Attention.ALL
        self.instruments = Instruments()
        self.breakpoints: Breakpoints = Breakpoints(self)
        self.watchpoints: Watchpoints = Watchpoints(self)
        cpu.instrument(self.instruments)

    @property
    def _cpu(self) -> Hookable:
        cpu = self._owner()
        if cpu is None:
            raise ReferenceError("the CPU of these hooks is gone")
        return cpu

    def move_to(self, cpu: Hookable) -> None:
        """Be the hooks of another CPU of the same memory, which goes on where this one stands."""
        self._cpu.adopt_hooks(None)
        self._owner = weakref.ref(cpu)
        cpu.adopt_hooks(self)
        cpu.instrument(self.instruments)
        for record in (self._coverage, self._trace):
            if record is not None:
                record.follow(cpu)

    # Setting and removing -------------------------------------------------------------------------------

    def at(self, address: int, function: AddressFunction) -> Hook:
        """Call `function(cpu, address)` each time before the instruction at `address` is executed."""
        return self.add(AddressHook(self, address, function))

    def on_block(self, function: AddressFunction) -> Hook:
        """Call `function(cpu, address)` at the beginning of each block of instructions."""
        return self.add(BlockHook(self, function))

    def on_memory(
        self,
        function: MemoryFunction,
        start: int = 0,
        end: int = ADDRESS_SPACE,
        kinds: AccessKind = AccessKind.READ | AccessKind.WRITE,
    ) -> Hook:
        """Call `function(cpu, kind, address, size, value)` before accesses that touch [start, end).

        Raises ValueError for an empty range.
        """
        return self.add(MemoryHook(self, start, end, kinds, function))

    def add(self, hook: Hook) -> Hook:
        """Have a hook called from now on."""
        match hook:
            case AddressHook():
                self._addresses.setdefault(hook.address, []).append(hook)
                self._hook_code(hook.address)
            case BlockHook():
                self._blocks.append(hook)
            case MemoryHook():
                self._memory.append(hook)
        self._rearm()
        return hook

    def discard(self, hook: Hook) -> None:
        """Have a hook no longer called, if it was."""
        if hook not in list(self):
            return
        match hook:
            case AddressHook():
                self._addresses[hook.address].remove(hook)
                if not self._addresses[hook.address]:
                    del self._addresses[hook.address]
                self._unhook_code(hook.address)
            case BlockHook():
                self._blocks.remove(hook)
            case MemoryHook():
                self._memory.remove(hook)
        self._rearm()

    def clear(self) -> None:
        """Remove all hooks, breakpoints and watchpoints."""
        for hook in list(self):
            hook.remove()

    def __iter__(self) -> Iterator[Hook]:
        for hooks in self._addresses.values():
            yield from hooks
        yield from self._blocks
        yield from self._memory

    def attach_coverage(self, coverage: Coverage) -> None:
        """Let a coverage map be filled; there is one at a time. Raises ValueError."""
        if self._coverage is not None:
            raise ValueError("the coverage of this CPU is being recorded already")
        self._coverage = coverage

    def detach_coverage(self, coverage: Coverage) -> None:
        """Leave a coverage map alone; one that is not being filled already is."""
        if self._coverage is coverage:
            self._coverage = None
            self.instruments[Instrument.COVERED] = 0

    @property
    def granule(self) -> int:
        """Bytes that the addresses of instructions are multiples of."""
        return self._description.parcel

    def attach_trace(self, trace: Trace) -> None:
        """Let instructions be traced; there is one trace at a time. Raises ValueError."""
        if self._trace is not None:
            raise ValueError("this CPU is traced already")
        self._trace = trace

    def detach_trace(self, trace: Trace) -> None:
        """Trace no longer; one that is not attached already is not."""
        if self._trace is trace:
            self._trace = None

    def _places(self, address: int) -> tuple[int, ...]:
        """The values of an executor's `pc` for an instruction."""
        return (address, address | DELAY_SLOT) if self._description.delay_slots else (address,)

    def _hook_code(self, address: int) -> None:
        for place in self._places(address):
            if self._hooked.add(place):
                self._cpu.redecode(address, _LONGEST)

    def _unhook_code(self, address: int) -> None:
        for place in self._places(address):
            if self._hooked.remove(place):
                self._cpu.redecode(address, _LONGEST)

    def _rearm(self) -> None:
        self.instruments.watch((hook.start, hook.end, hook.kinds) for hook in self._memory)
        self.instruments[Instrument.BLOCKS_WANTED] = bool(self._blocks)

    # Running --------------------------------------------------------------------------------------------

    @property
    def _instrumented(self) -> bool:
        return bool(self._blocks or self._memory or self._coverage is not None)

    def run(self, max_instructions: int | None = None) -> Stop:
        """`Executor.run` with all hooks."""
        cpu = self._cpu
        if cpu.pc != self._expected:
            self.instruments[Instrument.BLOCK] = BlockStart.YES
            self.instruments[Instrument.KNOWN_NEXT] = 0
        stop = self._run_traced(cpu, max_instructions)
        ended = stop.reason in (StopReason.BUDGET, StopReason.INTERRUPTED, StopReason.HOOK)
        self._expected = cpu.pc if ended else None
        return stop

    def _run_traced(self, cpu: Hookable, max_instructions: int | None) -> Stop:
        """Run step by step as long as there is a trace."""
        left = _UNLIMITED if max_instructions is None else max_instructions
        while (trace := self._trace) is not None and self.attention is Attention.ALL:
            if not left:
                return Stop(StopReason.BUDGET, cpu.pc)
            before, count = None if trace.skip else trace.before(), cpu.instructions
            stop = self._run(cpu, 1 if before is not None else min(trace.skip, left))
            executed = cpu.instructions - count
            left -= executed
            if before is None:
                trace.skip -= executed
            elif executed:
                trace.after(*before)
            if stop.reason is not StopReason.BUDGET:
                return stop
        return self._run(cpu, None if max_instructions is None else left)

    def _run(self, cpu: Hookable, max_instructions: int | None) -> Stop:
        left = max_instructions
        while True:
            before = cpu.instructions
            stop = self._advance(cpu, left)
            if left is not None:
                left -= cpu.instructions - before
            if stop.reason is not StopReason.HOOK:
                return stop
            if left == 0:
                # The instruction that the hook is about is one too many.
                return Stop(StopReason.BUDGET, stop.pc)
            before = cpu.instructions
            ended = self._serve(cpu, stop)
            if left is not None:
                left -= cpu.instructions - before
            if ended is not None:
                return ended

    def _advance(self, cpu: Hookable, budget: int | None) -> Stop:
        """Run to the next event, passing what has been served."""
        passed = self._passed if self._passed == cpu.pc else None
        self._passed = None
        limit = _UNLIMITED if budget is None and self._instrumented else budget
        stop = cpu.run_to_event(limit, passed=passed, instrumented=self._instrumented)
        if stop.reason is StopReason.INTERRUPTED and stop.pc == passed and cpu.is_hook_unpassed:
            self._passed = passed
        return stop

    def _heeded(self, hooks: Iterable[_AnyHook]) -> tuple[_AnyHook, ...]:
        """Those of some hooks that are called now; they may change the list."""
        if self.attention is Attention.ALL:
            return tuple(hooks)
        return tuple(hook for hook in hooks if hook.is_stop and self.attention is Attention.STOPS)

    def _count(self, hook: Hook) -> None:
        if self.attention is Attention.ALL:
            hook.hits += 1

    def forget_place(self) -> None:
        """The CPU has been put elsewhere: no hook has been served there."""
        self._passed = self._expected = None

    def pass_place(self) -> None:
        """The hooks on the instruction to come have been served."""
        self._passed = self._cpu.pc

    def _serve(self, cpu: Hookable, event: Stop) -> Stop | None:
        """Call the hooks of an event; the stop if one of them ends the run."""
        if event.address == BLOCK_EVENT:
            return self._serve_block(cpu, event.pc)
        if event.address == ACCESS_EVENT:
            return self._serve_access(cpu, event.pc)
        return self._serve_address(cpu, event.pc)

    def _serve_address(self, cpu: Hookable, pc: int) -> Stop | None:
        address = pc & ~DELAY_SLOT if self._description.delay_slots else pc
        self._passed = pc
        hit = None
        for hook in self._heeded(self._addresses.get(address, ())):
            self._count(hook)
            if hook.function(cpu, address):
                hit = hit or hook
        return Stop(StopReason.HOOK, cpu.pc, hit=hit) if hit else None

    def _serve_block(self, cpu: Hookable, pc: int) -> Stop | None:
        # Hooks on the address have been called before.
        self._passed = pc
        self.instruments[Instrument.BLOCK] = BlockStart.TOLD
        hit = None
        for hook in self._heeded(self._blocks):
            self._count(hook)
            if hook.function(cpu, pc):
                hit = hit or hook
        if cpu.pc != pc:
            self.instruments[Instrument.BLOCK] = BlockStart.YES
        return Stop(StopReason.HOOK, cpu.pc, hit=hit) if hit else None

    # Memory accesses ------------------------------------------------------------------------------------

    def _serve_access(self, cpu: Hookable, pc: int) -> Stop | None:
        hit, touched, event = self._tell_access(cpu)
        if hit is not None:
            return Stop(StopReason.HOOK, cpu.pc, address=event.address, access=event.access, hit=hit)
        if touched is None or cpu.pc != pc:
            return None
        return self._finish_instruction(cpu, touched, event)

    def _tell_access(self, cpu: Hookable) -> tuple[Hook | None, MemoryHook | None, _AccessEvent]:
        """Call the hooks of an access: which ends the run, which watchpoint was touched, and the access."""
        pc, event = cpu.pc, self._event(cpu)
        # The instruction begins anew, unless a hook lets the CPU go on elsewhere.
        self._passed = pc
        self.instruments[Instrument.KNOWN_NEXT] = self.instruments[Instrument.SEEN]
        hit: Hook | None = None
        touched: MemoryHook | None = None
        for hook in self._heeded(self._memory):
            if not hook.concerns(event):
                continue
            if hook.stops_behind:
                touched = touched or hook
                continue
            self._count(hook)
            if hook.function(cpu, event.kind, event.address, event.size, event.value):
                hit = hit or hook
        if cpu.pc != pc:
            self.instruments[Instrument.KNOWN_NEXT] = 0
            self.instruments[Instrument.BLOCK] = BlockStart.YES
        return hit, touched, event

    def _event(self, cpu: Hookable) -> _AccessEvent:
        instruments = self.instruments
        kind = _KINDS[instruments[Instrument.ACCESS_KIND]]
        address, size = instruments[Instrument.ACCESS_ADDRESS], instruments[Instrument.ACCESS_SIZE]
        order = self._description.byte_order
        if kind == AccessKind.WRITE:
            stored = instruments[Instrument.ACCESS_VALUE].to_bytes(8, "little")[:size]
            return _AccessEvent(kind, address, size, int.from_bytes(stored, order))
        return _AccessEvent(kind, address, size, _peek(cpu, address, size, order))

    def _finish_instruction(self, cpu: Hookable, watchpoint: MemoryHook, event: _AccessEvent) -> Stop | None:
        """Execute the instruction that touches a watchpoint, and tell it behind that."""
        before = cpu.instructions
        while True:
            passed, self._passed = self._passed, None
            stop = cpu.run_to_event(1, passed=passed, instrumented=True)
            if cpu.instructions != before:
                if stop.reason is StopReason.INTERRUPTED:
                    cpu.interrupt()
                self._count(watchpoint)
                return Stop(
                    StopReason.HOOK, cpu.pc, address=event.address, access=event.access, hit=watchpoint
                )
            if stop.reason is not StopReason.HOOK or stop.address != ACCESS_EVENT:
                return stop
            pc = cpu.pc
            hit, _, further = self._tell_access(cpu)
            if hit is not None:
                return Stop(StopReason.HOOK, cpu.pc, address=further.address, access=further.access, hit=hit)
            if cpu.pc != pc:
                return None


def _peek(cpu: Hookable, address: int, size: int, order: Any) -> int | None:  # noqa: ANN401 - a literal
    try:
        return int.from_bytes(cpu.look(address, size), order)
    except (GuestFault, OverflowError):
        return None
