"""Hooks on instructions: their records get another handler, so that nothing else is slower for them.

The decoder asks the table of its code space (`anyvirt.jit.hook_layout`) for each instruction that it decodes.
The true record is kept in the table, so that the instruction can be executed when the hook has been served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.jit.handlers import CONVENTION, PARAMETERS
from anyvirt.jit.hook_layout import Table
from anyvirt.jit.layout import HANDLER_FIELD, OPERAND_FIELDS, Slot, StopReason
from anyvirt.typed import load64, range, s64, store64, u64

if TYPE_CHECKING:
    from anyvirt.jit.frontend import Module

HANDLER = "hooked"
"""Name of the handler of hooked records."""


def find_hook(state: u64, pc: u64) -> u64:
    """The entry of an address in the table of the code space that a CPU runs; 0 if it is not hooked."""
    cell = load64(state + Slot.HOOKS)
    if cell == 0:
        return u64(0)
    table = load64(cell)
    if table == 0:
        return u64(0)
    low, high = u64(0), load64(table + Table.COUNT)
    while low < high:
        middle = (low + high) // 2
        entry = table + Table.ENTRIES + middle * Table.ENTRY
        address = load64(entry + Table.ADDRESS)
        if address == pc:
            return entry
        if address < pc:
            low = middle + 1
        else:
            high = middle
    return u64(0)


def decoding_place(state: u64, pc: u64, record: u64) -> u64:
    """Where to decode an instruction: its record, or if it is hooked the one in the table."""
    entry = find_hook(state, pc)
    if entry == 0:
        return record
    return entry + Table.RECORD


def finish_record(state: u64, place: u64, record: u64) -> None:
    """Make a record of what was decoded at its `decoding_place`: its operands, but the handler of hooks.

    It never has the true handler: another CPU may be waiting for it.
    """
    if place == record:
        return
    table = load64(load64(state + Slot.HOOKS))
    for offset in range(u64(OPERAND_FIELDS), load64(table + Table.RECORD_SIZE), 8):
        store64(record + offset, load64(place + offset))
    store64(record + HANDLER_FIELD, load64(table + Table.HANDLER))


def take_hook(state: u64, record: u64, records: u64) -> u64:
    """Code to go on with at a hooked record; 0 if the hook has to be served first."""
    pc = u64(s64(record - records) >> load64(state + Slot.RECORD_SHIFT))
    passed = load64(state + Slot.HOOK_PASSED)
    store64(state + Slot.HOOK_PASSED, u64(0))
    if passed != pc + 1:
        return u64(0)
    entry = find_hook(state, pc)
    if entry != 0:
        handler = load64(entry + Table.RECORD + HANDLER_FIELD)
        if handler != 0:
            return handler
    # The table is a new one: decoding fills it, and the hook is still to be passed then.
    store64(state + Slot.HOOK_PASSED, passed)
    return load64(state + Slot.UNDECODED)


def add_hooked_handler(module: Module) -> None:
    """Compile `@hooked`, the handler of hooked records."""
    take = module.add(take_hook, attributes="noinline nounwind")
    module.define(_HOOKED.format(convention=CONVENTION, parameters=PARAMETERS, take=take))


_HOOKED = f"""
define dso_local {{convention}} void @{HANDLER}({{parameters}}) nounwind {{{{
entry:
  %s = ptrtoint ptr %state to i64
  %r = ptrtoint ptr %record to i64
  %b = ptrtoint ptr %records to i64
  %code = call i64 {{take}}(i64 %s, i64 %r, i64 %b)
  %on = icmp ne i64 %code, 0
  br i1 %on, label %go, label %stop
go:
  %handler = inttoptr i64 %code to ptr
  musttail call {{convention}} void %handler(ptr %state, ptr %record, ptr %memory, i64 %count, ptr %records)
  ret void
stop:
  %reason = getelementptr i8, ptr %state, i64 {int(Slot.REASON)}
  store i64 {int(StopReason.HOOK)}, ptr %reason
  %leave = getelementptr i8, ptr %state, i64 {int(Slot.LEAVE)}
  %exit = load ptr, ptr %leave
  musttail call {{convention}} void %exit(ptr %state, ptr %record, ptr %memory, i64 %count, ptr %records)
  ret void
}}}}
"""
