"""The system side in compiled code: exceptions and interrupts are taken without leaving it.

Whatever would end the run of a program's CPU is an exception of a machine's: handlers go to `@deliver`,
which has the instruction set change the state (`anyvirt.isa.system.System`) and goes on at the address that
it says. Where compiled code looks at the slot PENDING it goes to `@attend`, which takes interrupts and leaves
for everything else. An exception uses up one instruction of a budget, so that no run is without end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.jit.exits import place_at
from anyvirt.jit.handlers import CONVENTION, PARAMETERS, guard_name
from anyvirt.jit.layout import NO_CODE, PAGE_SIZE, Access, Request, Slot, StopReason
from anyvirt.jit.machine_access import full_fence
from anyvirt.jit.machine_fetch import header, page_of_records, program_counter, word_at
from anyvirt.jit.machine_layout import LOOKUP, RecordPage
from anyvirt.jit.routines import add_routine, call_routine
from anyvirt.typed import load8, load64, store8, store64, u8, u64

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from anyvirt.isa.description import InstructionSet
    from anyvirt.isa.system import Guard
    from anyvirt.jit.frontend import FunctionCompiler, Module
    from anyvirt.jit.handlers import Features
    from anyvirt.jit.target import Argument

DELIVER, ATTEND, RESUME = "deliver", "attend", "resume"
"""Handlers: of what an instruction has run into; of requests in PENDING; of going on in another mode."""
LEAVE, GO_ON, GO_ELSEWHERE = 0, 1, 2
"""What the functions here tell their handlers: leave compiled code, go on, go on at TARGET."""


def take_exception(state: u64, event: u64, pc: u64, address: u64, access: u64, instruction: u64) -> u64:
    """`System.take_exception`. Bound when compiled."""
    raise NotImplementedError(state, event, pc, address, access, instruction)


def take_interrupt(state: u64, pc: u64) -> tuple[u64, bool]:
    """`System.take_interrupt`. Bound when compiled."""
    raise NotImplementedError(state, pc)


def is_counting() -> bool:
    """Whether instructions are counted. Bound when compiled."""
    raise NotImplementedError


def instruction_at(state: u64, record: u64) -> u64:
    """The word of the instruction of a record."""
    page = page_of_records(state, record)
    about = header(state, page)
    offset = (record - page) >> load64(state + Slot.RECORD_SHIFT)
    if page == load64(state + Slot.CROSSING):
        word, _ = word_at(about + RecordPage.WINDOW, u64(8))
    else:
        word, _ = word_at(load64(about + RecordPage.HOST) + offset, PAGE_SIZE - offset)
    return word


def deliver(state: u64, record: u64, records: u64, count: u64) -> u64:
    """Take the exception that REASON and the slots about faults say."""
    reason, access = load64(state + Slot.REASON), load64(state + Slot.FAULT_ACCESS)
    address = load64(state + Slot.FAULT_ADDRESS)
    pc = program_counter(state, record, records)
    if reason == StopReason.ACCESS_FAULT and access == NO_CODE:
        pc, access = address, u64(Access.EXECUTE)
    if is_counting():
        store64(state + Slot.COUNT, count)
        if count == 0:
            store64(state + Slot.REASON, u64(StopReason.BUDGET))
            place_at(state, pc)
            return u64(LEAVE)
    unfetched = reason == StopReason.ACCESS_FAULT and access == Access.EXECUTE
    if unfetched and load8(state + Slot.PENDING + Request.INTERRUPT) != 0:
        # An interrupt comes before what cannot be fetched.
        store8(state + Slot.PENDING + Request.INTERRUPT, u8(0))
        full_fence()
        target, taken = take_interrupt(state, pc)
        if taken:
            store64(state + Slot.TARGET, target)
            return u64(GO_ELSEWHERE)
    if is_counting():
        store64(state + Slot.COUNT, count - 1)
    instruction = u64(0)
    if reason in (StopReason.ILLEGAL_INSTRUCTION, StopReason.MISALIGNED):
        instruction = instruction_at(state, record)
    target = take_exception(state, reason, pc, address, access, instruction)
    store64(state + Slot.TARGET, target)
    others = load64(state + Slot.PENDING) & ~(u64(0xFF) << 8 * Request.INTERRUPT)
    if others != 0:
        # An exception may be followed by the next one forever.
        store64(state + Slot.REASON, u64(StopReason.INTERRUPTED))
        place_at(state, target)
        return u64(LEAVE)
    return u64(GO_ELSEWHERE)


def attend(state: u64, record: u64, records: u64, count: u64) -> u64:
    """Leave for whoever wants something; otherwise take an interrupt, if there is one and a budget for it."""
    if load64(state + Slot.PENDING) & ~(u64(0xFF) << 8 * Request.INTERRUPT) != 0:
        store64(state + Slot.REASON, u64(StopReason.INTERRUPTED))
        return u64(LEAVE)
    if is_counting():
        store64(state + Slot.COUNT, count)
        if count == 0:
            store64(state + Slot.REASON, u64(StopReason.BUDGET))
            return u64(LEAVE)
    store8(state + Slot.PENDING + Request.INTERRUPT, u8(0))
    # Who raises a line does it before the request.
    full_fence()
    target, taken = take_interrupt(state, program_counter(state, record, records))
    if taken:
        store64(state + Slot.TARGET, target)
        return u64(GO_ELSEWHERE)
    return u64(GO_ON)


def bind_system_words(module: Module, isa: InstructionSet, features: Features) -> None:
    """Give the functions that are open here their meaning."""
    system = isa.system
    assert system is not None
    module.target.intrinsics[take_exception] = routine_emitter(module, isa, features, system.take_exception)
    module.target.intrinsics[take_interrupt] = routine_emitter(module, isa, features, system.take_interrupt)

    def emit_counting(compiler: FunctionCompiler, arguments: list[Argument]) -> bool:
        compiler.typed_arguments(arguments, [])
        return features.counted

    module.target.intrinsics[is_counting] = emit_counting


def routine_emitter(
    module: Module, isa: InstructionSet, features: Features, function: Callable[..., Any]
) -> Callable[[FunctionCompiler, list[Argument]], Argument]:
    """An emitter for a function that takes the address of the state block instead of the processor."""

    def emit(compiler: FunctionCompiler, arguments: list[Argument]) -> Argument:
        (state,) = compiler.typed_arguments(arguments[:1], [u64])
        pointer = compiler.body.emit(f"inttoptr i64 {state.text} to ptr")
        symbol = add_routine(module, isa, features, function)
        return call_routine(compiler, symbol, function, pointer, arguments[1:])

    return emit


def add_system(module: Module, isa: InstructionSet, features: Features) -> None:
    """Compile the handlers of the system side, and what is called from outside."""
    system = isa.system
    assert system is not None
    module.define(
        _HANDLERS.format(
            convention=CONVENTION,
            parameters=PARAMETERS,
            deliver_function=module.add(deliver, attributes="noinline nounwind"),
            attend_function=module.add(attend, attributes="noinline nounwind"),
        )
    )
    for guard in dict.fromkeys(system.guards.values()):
        module.define(_guard(module, isa, features, guard))
    for name, function in (
        ("reset", system.reset), ("refresh", system.refresh), ("deadline", system.deadline),
    ):  # fmt: skip
        module.define(_exported(name, add_routine(module, isa, features, function), function))


def _guard(module: Module, isa: InstructionSet, features: Features, guard: Guard) -> str:
    symbol = add_routine(module, isa, features, guard.prepare)
    return f"""
define internal {CONVENTION} void @{guard_name(guard)}({PARAMETERS}) nounwind {{
  %again = call i1 {symbol}(ptr %state)
  br i1 %again, label %go, label %refuse
go:
  %handler = load ptr, ptr %record
  {_go("%handler")}
refuse:
  %reason = getelementptr i8, ptr %state, i64 {int(Slot.REASON)}
  store i64 {int(StopReason.ILLEGAL_INSTRUCTION)}, ptr %reason
  {_go(f"@{DELIVER}")}
}}
"""


def _exported(name: str, symbol: str, function: Callable[..., Any]) -> str:
    """A C function of the state block."""
    result = "i64" if function.__annotations__["return"] not in (None, "None") else "void"
    returned = f"%result = call i64 {symbol}(ptr %state)\n  ret i64 %result"
    if result == "void":
        returned = f"call void {symbol}(ptr %state)\n  ret void"
    return f"define dso_local {result} @{name}(ptr %state) nounwind {{\n  {returned}\n}}\n"


def _go(
    function: str,
    record: str = "%record",
    records: str = "%records",
    memory: str = "%memory",
    count: str = "%count",
) -> str:
    arguments = f"ptr %state, ptr {record}, ptr {memory}, i64 {count}, ptr {records}"
    return f"musttail call {CONVENTION} void {function}({arguments})\n  ret void"


_HANDLERS = f"""
define dso_local {{convention}} void @{DELIVER}({{parameters}}) nounwind {{{{
  %s = ptrtoint ptr %state to i64
  %r = ptrtoint ptr %record to i64
  %b = ptrtoint ptr %records to i64
  %way = call i64 {{deliver_function}}(i64 %s, i64 %r, i64 %b, i64 %count)
  %count.slot = getelementptr i8, ptr %state, i64 {int(Slot.COUNT)}
  %left = load i64, ptr %count.slot
  %stays = icmp eq i64 %way, {LEAVE}
  br i1 %stays, label %stop, label %go
go:
  {_go(f"@{LOOKUP}", count="%left")}
stop:
  %record.slot = getelementptr i8, ptr %state, i64 {int(Slot.RECORD)}
  %new = load ptr, ptr %record.slot
  %records.slot = getelementptr i8, ptr %state, i64 {int(Slot.RECORDS)}
  %base = load ptr, ptr %records.slot
  %leave.slot = getelementptr i8, ptr %state, i64 {int(Slot.LEAVE)}
  %leave = load ptr, ptr %leave.slot
  {_go("%leave", "%new", "%base", count="%left")}
}}}}

define dso_local {{convention}} void @{ATTEND}({{parameters}}) nounwind {{{{
  %s = ptrtoint ptr %state to i64
  %r = ptrtoint ptr %record to i64
  %b = ptrtoint ptr %records to i64
  %way = call i64 {{attend_function}}(i64 %s, i64 %r, i64 %b, i64 %count)
  switch i64 %way, label %stop [i64 {GO_ON}, label %go i64 {GO_ELSEWHERE}, label %away]
go:
  %handler = load ptr, ptr %record
  {_go("%handler")}
away:
  {_go(f"@{LOOKUP}")}
stop:
  %leave.slot = getelementptr i8, ptr %state, i64 {int(Slot.LEAVE)}
  %leave = load ptr, ptr %leave.slot
  {_go("%leave")}
}}}}

define dso_local {{convention}} void @{RESUME}({{parameters}}) nounwind {{{{
  %memory.slot = getelementptr i8, ptr %state, i64 {int(Slot.MEMORY)}
  %tlb = load ptr, ptr %memory.slot
  %pending = load atomic i64, ptr %state monotonic, align 8
  %on = icmp eq i64 %pending, 0
  br i1 %on, label %go, label %stop
go:
  %handler = load ptr, ptr %record
  {_go("%handler", memory="%tlb")}
stop:
  {_go(f"@{ATTEND}", memory="%tlb")}
}}}}
"""
