"""Fetching from flat memory: what runs where a record is still empty, and decodes ahead from there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.jit.handlers import CONVENTION, PARAMETERS
from anyvirt.jit.hooked_records import decoding_place, finish_record
from anyvirt.jit.layout import HANDLER_FIELD, PAGE_SIZE, Access, Slot, StopReason
from anyvirt.typed import load8, load64, store8, store64, u8, u16, u64

if TYPE_CHECKING:
    from anyvirt.jit.frontend import Module

LONGEST_RUN = 64
"""Most instructions that are decoded ahead."""


def instruction_length(parcel: u16) -> u8:
    """What the instruction set says; bound when the decoder is compiled."""
    raise NotImplementedError(parcel)


def decode_instruction(word: u64, length: u64, pc: u64, record: u64) -> u64:
    """Write one record; not 0 if decoding on would be in vain. Bound when the decoder is compiled."""
    raise NotImplementedError(word, length, pc, record)


def instruction_start(pc: u64) -> u64:
    """Where the instruction of a record begins: without the bit for a delay slot. Bound likewise."""
    raise NotImplementedError(pc)


def parcel_size() -> u64:
    """Bytes of a parcel. Bound likewise."""
    raise NotImplementedError


def fetch_parcel(address: u64) -> u64:
    """A parcel at an address of the host, in the guest's byte order. Bound likewise."""
    raise NotImplementedError(address)


def decode_run(state: u64, record: u64) -> u64:
    """Decode from a record on until control leaves, the page ends, or it is known; 0 if there is nothing."""
    memory = load64(state + Slot.MEMORY)
    executable = load64(state + Slot.EXECUTABLE)
    pc = (record - load64(state + Slot.RECORDS)) >> load64(state + Slot.RECORD_SHIFT)
    store64(state + Slot.FAULT_RECORD, record)
    if load8(executable + pc // PAGE_SIZE) == 0:
        return refuse(state, pc)
    store64(state + Slot.INTENT, u64(1 + Access.EXECUTE))
    decoded = load64(state + Slot.DECODED) + pc // PAGE_SIZE
    store8(decoded, u8(1))
    place = record
    left = u64(LONGEST_RUN)
    while True:
        word = fetch_parcel(memory + instruction_start(pc))
        length = u64(instruction_length(u16(word)))
        if length > parcel_size():
            if pc % PAGE_SIZE == PAGE_SIZE - 2:
                if place != record:
                    break
                beyond = pc + 2
                if beyond >= load64(state + Slot.MEMORY_SIZE):
                    return refuse(state, beyond)
                if load8(executable + beyond // PAGE_SIZE) == 0:
                    return refuse(state, beyond)
            word |= fetch_parcel(memory + pc + 2) << 16
        target = decoding_place(state, pc, place)
        ends = decode_instruction(word, length, pc, target)
        finish_record(state, target, place)
        if ends != 0:
            break
        pc += length
        place += length << load64(state + Slot.RECORD_SHIFT)
        left -= 1
        if left == 0 or pc % PAGE_SIZE < length or load64(place + HANDLER_FIELD) != 0:
            break
    store64(state + Slot.INTENT, u64(0))
    # Once more, in case another thread forgot the page meanwhile.
    store8(decoded, u8(1))
    return u64(1)


def refuse(state: u64, address: u64) -> u64:
    """Note that code cannot be fetched from an address."""
    store64(state + Slot.INTENT, u64(0))
    store64(state + Slot.FAULT_ADDRESS, address)
    store64(state + Slot.FAULT_ACCESS, u64(Access.EXECUTE))
    return u64(0)


def add_flat_fetch(module: Module) -> None:
    """Compile `@undecoded`; the decoder must have been added before."""
    run = module.add(decode_run, name="decode_run", linkage="dso_local ", attributes="noinline nounwind")
    add_undecoded(module, run)


def add_undecoded(module: Module, run: str) -> None:
    """Compile `@undecoded`, which calls a function that decodes from a record on."""
    module.define(_UNDECODED.format(convention=CONVENTION, parameters=PARAMETERS, run=run))


_UNDECODED = f"""
define dso_local {{convention}} void @undecoded({{parameters}}) nounwind {{{{
entry:
  %s = ptrtoint ptr %state to i64
  %r = ptrtoint ptr %record to i64
  %there = call i64 {{run}}(i64 %s, i64 %r)
  %ok = icmp ne i64 %there, 0
  br i1 %ok, label %go, label %stop
go:
  %handler = load ptr, ptr %record
  musttail call {{convention}} void %handler(ptr %state, ptr %record, ptr %memory, i64 %count, ptr %records)
  ret void
stop:
  %reason = getelementptr i8, ptr %state, i64 {int(Slot.REASON)}
  store i64 {int(StopReason.ACCESS_FAULT)}, ptr %reason
  %leave = getelementptr i8, ptr %state, i64 {int(Slot.LEAVE)}
  %exit = load ptr, ptr %leave
  musttail call {{convention}} void %exit(ptr %state, ptr %record, ptr %memory, i64 %count, ptr %records)
  ret void
}}}}
"""
