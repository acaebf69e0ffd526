"""Fetching from machine memory: records belong to physical pages, and a TLB says which page is where.

Each page of code has a page of records (`RecordPage`). What leaves the page by falling over its end, by an
instruction that crosses it, or by a jump that the TLB for code does not know, comes here.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from anyvirt.jit.fetch import (
    decode_instruction,
    fetch_parcel,
    instruction_length,
    instruction_start,
    parcel_size,
)
from anyvirt.jit.handlers import CONVENTION, PARAMETERS
from anyvirt.jit.hooked_records import decoding_place, finish_record
from anyvirt.jit.layout import HANDLER_FIELD, NEW_CODE, NO_CODE, PAGE_SIZE, Access, Slot, StopReason
from anyvirt.jit.machine_access import (
    LONGEST_INSTRUCTION,
    fail,
    full_fence,
    is_device,
    note_filled,
    resolve,
)
from anyvirt.jit.machine_layout import (
    APART,
    CODE_ENTRIES,
    CODE_TABLE,
    CROSSING,
    DATA_ENTRIES,
    FAILED,
    LOOKUP,
    NO_TAG,
    OUTSIDE,
    PAGE_BITS,
    CodeEntry,
    CodeFlag,
    Map,
    RecordPage,
    Region,
)
from anyvirt.jit.stream_fetch import DECODED_ENDS, WINDOW, decode_window, decoding_mode, gather
from anyvirt.typed import load8, load64, range, s64, store8, store64, u8, u16, u64

if TYPE_CHECKING:
    from anyvirt.jit.frontend import FunctionCompiler, Module
    from anyvirt.jit.ir import Value
    from anyvirt.jit.target import Argument

LONGEST_DECODED = 256
"""Bytes of code that are decoded ahead at most."""
_IN_PAGE = PAGE_SIZE - 1


def crossing_handler() -> u64:
    """Address of the handler of instructions that cross the end of a page. Bound when compiled."""
    raise NotImplementedError


def program_counter(state: u64, record: u64, records: u64) -> u64:
    """Address of the instruction of a record."""
    return u64(s64(record - records) >> load64(state + Slot.RECORD_SHIFT))


def page_of_records(state: u64, record: u64) -> u64:
    """The page of records in which a record is."""
    return record & ~((u64(2 * PAGE_SIZE) << load64(state + Slot.RECORD_SHIFT)) - 1)


def header(state: u64, page: u64) -> u64:
    """What the offsets of RecordPage are relative to."""
    return page + (u64(PAGE_SIZE) << load64(state + Slot.RECORD_SHIFT))


def find_code(state: u64) -> u64:
    """The base of the records for the address in TARGET, noted in the TLB; 0 if there are none (OUTCOME)."""
    address, shift = load64(state + Slot.TARGET), load64(state + Slot.RECORD_SHIFT)
    store64(state + Slot.OUTCOME, u64(0))
    tlb, index = load64(state + Slot.MEMORY), (address >> PAGE_BITS) % CODE_ENTRIES
    entry = tlb + CODE_TABLE + index * CodeEntry.SIZE
    if load64(entry + CodeEntry.TAG) == address & ~_IN_PAGE:
        return load64(entry + CodeEntry.RECORDS)
    physical, region, _ = resolve(state, address, u64(Access.EXECUTE))
    if region == 0:
        return fail(state, address, u64(NO_CODE))
    if u64(s64(address << shift) >> shift) != address:
        return fail(state, address, u64(NO_CODE))
    if is_device(region):
        return fail(state, address, u64(NO_CODE))
    number = load64(region + Region.PAGE) + (physical >> PAGE_BITS)
    page = load64(load64(state + Slot.PAGES) + number * 8)
    if page == 0:
        return new_code(state, number)
    records = page - ((address & ~_IN_PAGE) << shift)
    if load64(entry + CodeEntry.TAG) == NO_TAG:
        note_filled(tlb, DATA_ENTRIES + index)
    store64(entry + CodeEntry.RECORDS, records)
    store64(entry + CodeEntry.TAG, address & ~_IN_PAGE)
    return records


def new_code(state: u64, number: u64) -> u64:
    """Ask for place for the records of a page; TARGET says where to go on."""
    store64(state + Slot.FAULT_ADDRESS, number)
    store64(state + Slot.OUTCOME, u64(NEW_CODE))
    return u64(0)


def word_at(host: u64, available: u64) -> tuple[u64, u64]:
    """The instruction at a host address and its length; incomplete if there are fewer bytes than that."""
    word = fetch_parcel(host)
    length = u64(instruction_length(u16(word)))
    if length > parcel_size() and available >= 4:
        word |= fetch_parcel(host + 2) << 16
    return word, length


def decode_at(state: u64, host: u64, available: u64, place: u64, record: u64) -> u64:
    """Write the record of the instruction at a host address; its length, and DECODED_ENDS.

    Nothing is written if it has more bytes than there are; then the length says so. `place` is the offset
    that the record is for: it may be the instruction as it is in a delay slot. Bound when compiled.
    """
    raise NotImplementedError(state, host, available, place, record)


def decode_parcels(state: u64, host: u64, available: u64, place: u64, record: u64) -> u64:
    """`decode_at` where the first parcel says how long an instruction is."""
    word, length = word_at(host, available)
    if length > available:
        return length
    return length | (u64(DECODED_ENDS) if decode_instruction(word, length, place, record) != 0 else u64(0))


def decode_bytes(state: u64, host: u64, available: u64, place: u64, record: u64) -> u64:
    """`decode_at` where only decoding says how long an instruction is."""
    if available >= WINDOW:
        low, high = load64(host), load64(host + 8)
    else:
        low, high = gather(host, available), u64(0)
        if available > 8:
            high = gather(host + 8, available - 8)
    found = decode_window(low, high, min(available, u64(WINDOW)), decoding_mode(state), record)
    return available + 1 if found == 0 else found


def decode_in_page(state: u64, record: u64, records: u64) -> u64:
    """Decode from a record on until control leaves, the page ends, or it is known; 0 if there is nothing."""
    shift = load64(state + Slot.RECORD_SHIFT)
    page = page_of_records(state, record)
    about = header(state, page)
    flag, host = load64(about + RecordPage.FLAG), load64(about + RecordPage.HOST)
    first = (record - page) >> shift
    store64(state + Slot.TARGET, program_counter(state, record, records))
    store64(state + Slot.OUTCOME, u64(0))
    while u64(load8(flag)) & CodeFlag.RECORDS != 0:
        before = digest(host, first)
        full_fence()
        end = decode_run(state, record, records, host)
        # Who stores to code writes first and forgets then: what was forgotten too early can be seen here.
        full_fence()
        if u64(load8(flag)) & CodeFlag.RECORDS != 0 and digest(host, first) == before:
            number = load64(about + RecordPage.NUMBER)
            store8(load64(load64(state + Slot.MAP) + Map.WRITES) + number, u8(0))
            return u64(1)
        place = first
        while place < end:
            store64(page + (place << shift) + HANDLER_FIELD, u64(0))
            place += load64(state + Slot.RECORD_SIZE) >> shift
    return new_code(state, load64(about + RecordPage.NUMBER))


def decode_run(state: u64, start: u64, records: u64, host: u64) -> u64:
    """Write records from one in a page on; the offset where they end."""
    shift = load64(state + Slot.RECORD_SHIFT)
    page = page_of_records(state, start)
    place = (start - page) >> shift
    limit = place + LONGEST_DECODED
    while True:
        record = page + (place << shift)
        target = decoding_place(state, program_counter(state, record, records), record)
        begin = instruction_start(place)
        found = decode_at(state, host + begin, PAGE_SIZE - begin, place, target)
        length = found & (DECODED_ENDS - 1)
        if begin + length > PAGE_SIZE:
            store64(target + HANDLER_FIELD, crossing_handler())
            finish_record(state, target, record)
            return u64(PAGE_SIZE)
        finish_record(state, target, record)
        place = begin + length
        if found >= DECODED_ENDS or place == PAGE_SIZE or place + LONGEST_INSTRUCTION > limit:
            break
        if load64(page + (place << shift) + HANDLER_FIELD) != 0:
            break
    return place


def digest(host: u64, first: u64) -> u64:
    """A digest of the bytes of a page from an offset on that one run of the decoder can reach."""
    value = u64(0)
    for position in range(first & ~7, min(first + LONGEST_DECODED, u64(PAGE_SIZE)), 8):
        value = value * 31 + load64(host + position)
    return value


def decode_crossing(state: u64, record: u64, records: u64) -> u64:
    """Fetch an instruction that begins in one page and ends in the next; its record, or 0 if it has no end.

    Nothing of it is kept for another time: either page may change, and the next one may become another.
    """
    shift = load64(state + Slot.RECORD_SHIFT)
    area = load64(state + Slot.CROSSING)
    about = header(state, area)
    page = page_of_records(state, record)
    offset = (record - page) >> shift
    host = load64(header(state, page) + RecordPage.HOST)
    store64(state + Slot.OUTCOME, u64(0))
    beyond = program_counter(state, record, records) + PAGE_SIZE - offset
    physical, region, _ = resolve(state, beyond, u64(Access.EXECUTE))
    if region == 0:
        return fail(state, beyond, u64(Access.EXECUTE))
    if is_device(region):
        return fail(state, beyond, u64(Access.EXECUTE))
    window = about + RecordPage.WINDOW
    for position in range(u64(LONGEST_INSTRUCTION)):
        source = host + offset + position
        if offset + position >= PAGE_SIZE:
            source = load64(region + Region.ADDEND) + physical + offset + position - PAGE_SIZE
        store8(window + position, load8(source))
    return decode_window_at(state, offset)


def decode_window_at(state: u64, offset: u64) -> u64:
    """Write the record of the instruction in the window, as for an offset in any page; returns the record."""
    shift, area = load64(state + Slot.RECORD_SHIFT), load64(state + Slot.CROSSING)
    about = header(state, area)
    kept = load64(about + RecordPage.KEPT)
    if kept != 0:
        store64(kept + HANDLER_FIELD, load64(about + RecordPage.OUTSIDE))
    target = area + (offset << shift)
    store64(about + RecordPage.KEPT, target)
    decode_at(state, about + RecordPage.WINDOW, u64(LONGEST_INSTRUCTION), u64(0), target)
    return target


def decode_apart(state: u64, record: u64, records: u64) -> u64:
    """Decode the instruction of a record once more, without what leads from its record into a translation.

    Returns a record that is good for this once, or 0 (OUTCOME).
    """
    page = page_of_records(state, record)
    offset = (record - page) >> load64(state + Slot.RECORD_SHIFT)
    host = load64(header(state, page) + RecordPage.HOST)
    available = min(PAGE_SIZE - offset, u64(LONGEST_INSTRUCTION))
    _, length = word_at(host + offset, available)
    if length > available:
        return decode_crossing(state, record, records)
    window = header(state, load64(state + Slot.CROSSING)) + RecordPage.WINDOW
    for position in range(available):
        store8(window + position, load8(host + offset + position))
    return decode_window_at(state, offset)


def add_machine_fetch(module: Module, *, streams: bool, system: bool = False) -> None:
    """Compile `@undecoded` and the handlers that lead from page to page; the decoder must have been added.

    `streams` says that only decoding tells how long an instruction is, `system` that faults are delivered to
    the guest (`anyvirt.jit.system_handlers`).
    """
    decoder = decode_bytes if streams else decode_parcels
    if streams:
        module.target.intrinsics[instruction_start] = _emit_itself
    module.target.intrinsics[decode_at] = lambda compiler, arguments: compiler.call_function(
        decoder, arguments
    )
    add = functools.partial(module.add, attributes="noinline nounwind")
    module.target.intrinsics[crossing_handler] = _emit_crossing_handler
    module.define(
        _HANDLERS.format(
            convention=CONVENTION,
            parameters=PARAMETERS,
            find=add(find_code),
            run=add(decode_in_page, name="decode_run", linkage="dso_local "),
            cross=add(decode_crossing),
            faulted=_go("@deliver").format(convention=CONVENTION) if system else "unreachable",
            is_fault=f"icmp eq i64 %why, {int(StopReason.ACCESS_FAULT)}" if system else "icmp eq i1 0, 1",
        )
    )
    if system:
        module.define(
            _APART.format(
                convention=CONVENTION, parameters=PARAMETERS, find=add(find_code), decode=add(decode_apart)
            )
        )


def _emit_itself(compiler: FunctionCompiler, arguments: list[Argument]) -> Value:
    """Streams of bytes have no delay slots."""
    return compiler.typed_arguments(arguments, [u64])[0]


def _emit_crossing_handler(compiler: FunctionCompiler, arguments: list[Argument]) -> Value:
    compiler.typed_arguments(arguments, [])
    return compiler.body.value(f"ptrtoint ptr @{CROSSING} to i64", u64)


def _go(function: str, record: str = "%record", records: str = "%records", memory: str = "%memory") -> str:
    arguments = f"ptr %state, ptr {record}, ptr {memory}, i64 %count, ptr {records}"
    return f"musttail call {{convention}} void {function}({arguments})\n  ret void"


_TARGET_HERE = f"""\
  %s = ptrtoint ptr %state to i64
  %r = ptrtoint ptr %record to i64
  %b = ptrtoint ptr %records to i64
  %scaled = sub i64 %r, %b
  %shift.slot = getelementptr i8, ptr %state, i64 {int(Slot.RECORD_SHIFT)}
  %shift = load i64, ptr %shift.slot
  %pc = ashr i64 %scaled, %shift
  %target = getelementptr i8, ptr %state, i64 {int(Slot.TARGET)}
  store i64 %pc, ptr %target
"""
"""What a record is asked to go on at: the address that it says the CPU is at, `%pc`."""
_HANDLERS = f"""
define internal {{convention}} void @{FAILED}({{parameters}}) nounwind {{{{
  %outcome = getelementptr i8, ptr %state, i64 {int(Slot.OUTCOME)}
  %why = load i64, ptr %outcome
  %reason = getelementptr i8, ptr %state, i64 {int(Slot.REASON)}
  store i64 %why, ptr %reason
  %fault = {{is_fault}}
  br i1 %fault, label %faulted, label %stop
faulted:
  {{faulted}}
stop:
  %slot = getelementptr i8, ptr %state, i64 {int(Slot.LEAVE)}
  %leave = load ptr, ptr %slot
  {_go("%leave")}
}}}}

define dso_local {{convention}} void @undecoded({{parameters}}) nounwind {{{{
  %s = ptrtoint ptr %state to i64
  %r = ptrtoint ptr %record to i64
  %b = ptrtoint ptr %records to i64
  %there = call i64 {{run}}(i64 %s, i64 %r, i64 %b)
  %ok = icmp ne i64 %there, 0
  br i1 %ok, label %go, label %stop
go:
  %handler = load ptr, ptr %record
  {_go("%handler")}
stop:
  {_go(f"@{FAILED}")}
}}}}

define internal {{convention}} void @{CROSSING}({{parameters}}) nounwind {{{{
  %s = ptrtoint ptr %state to i64
  %r = ptrtoint ptr %record to i64
  %b = ptrtoint ptr %records to i64
  %there = call i64 {{cross}}(i64 %s, i64 %r, i64 %b)
  %ok = icmp ne i64 %there, 0
  br i1 %ok, label %go, label %stop
go:
  %new = inttoptr i64 %there to ptr
  %distance = sub i64 %there, %r
  %base = getelementptr i8, ptr %records, i64 %distance
  %handler = load ptr, ptr %new
  {_go("%handler", "%new", "%base")}
stop:
  {_go(f"@{FAILED}")}
}}}}

define dso_local {{convention}} void @{LOOKUP}({{parameters}}) nounwind {{{{
  %memory.slot = getelementptr i8, ptr %state, i64 {int(Slot.MEMORY)}
  %tlb = load ptr, ptr %memory.slot
  %s = ptrtoint ptr %state to i64
  %there = call i64 {{find}}(i64 %s)
  %ok = icmp ne i64 %there, 0
  br i1 %ok, label %found, label %stop
found:
  %base = inttoptr i64 %there to ptr
  %target = getelementptr i8, ptr %state, i64 {int(Slot.TARGET)}
  %address = load i64, ptr %target
  %shift.slot = getelementptr i8, ptr %state, i64 {int(Slot.RECORD_SHIFT)}
  %shift = load i64, ptr %shift.slot
  %offset = shl i64 %address, %shift
  %new = getelementptr i8, ptr %base, i64 %offset
  %pending = load atomic i64, ptr %state monotonic, align 8
  %go.on = icmp eq i64 %pending, 0
  br i1 %go.on, label %go, label %leave
go:
  %handler = load ptr, ptr %new
  {_go("%handler", "%new", "%base", "%tlb")}
leave:
  %reason = getelementptr i8, ptr %state, i64 {int(Slot.REASON)}
  store i64 {int(StopReason.INTERRUPTED)}, ptr %reason
  %slot = getelementptr i8, ptr %state, i64 {int(Slot.ATTEND)}
  %exit = load ptr, ptr %slot
  {_go("%exit", "%new", "%base", "%tlb")}
stop:
  {_go(f"@{FAILED}")}
}}}}

define dso_local {{convention}} void @{OUTSIDE}({{parameters}}) nounwind {{{{
{_TARGET_HERE}  {_go(f"@{LOOKUP}")}
}}}}
"""

_APART = f"""
define dso_local {{convention}} void @{APART}({{parameters}}) nounwind {{{{
{_TARGET_HERE}  %base = call i64 {{find}}(i64 %s)
  %known = icmp ne i64 %base, 0
  br i1 %known, label %found, label %stop
found:
  %place = add i64 %base, %scaled
  %there = call i64 {{decode}}(i64 %s, i64 %place, i64 %base)
  %ok = icmp ne i64 %there, 0
  br i1 %ok, label %go, label %stop
go:
  %new = inttoptr i64 %there to ptr
  %distance = sub i64 %there, %scaled
  %records.new = inttoptr i64 %distance to ptr
  %handler = load ptr, ptr %new
  {_go("%handler", "%new", "%records.new")}
stop:
  {_go(f"@{FAILED}")}
}}}}
"""
