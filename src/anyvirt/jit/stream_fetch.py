"""Fetching byte streams from flat memory: a window of 16 bytes, with care where executable pages end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.jit.fetch import LONGEST_RUN, add_undecoded, refuse
from anyvirt.jit.hooked_records import decoding_place, finish_record
from anyvirt.jit.layout import HANDLER_FIELD, PAGE_SIZE, Access, Slot
from anyvirt.typed import load8, load64, range, store8, store64, u8, u64

if TYPE_CHECKING:
    from anyvirt.jit.frontend import Module

WINDOW = 16
DECODED_ENDS = 0x100
"""In the result of `decode_window`: decoding on behind the instruction would be in vain."""


def decoding_mode(state: u64) -> u64:
    """The bits of the context that the mode of a CPU gives. Bound when the decoder is compiled."""
    raise NotImplementedError(state)


def decode_window(low: u64, high: u64, available: u64, mode: u64, record: u64) -> u64:
    """Write one record for the first of 16 bytes; its length and DECODED_ENDS.

    Nothing is written if the instruction has more than the bytes available, or if it cannot be known for lack
    of them (length 0). Bound when the decoder is compiled.
    """
    raise NotImplementedError(low, high, available, mode, record)


def gather(address: u64, count: u64) -> u64:
    """Up to eight bytes of the host's memory, the rest 0."""
    value = u64(0)
    for position in range(min(count, u64(8))):
        value |= u64(load8(address + position)) << (position * 8)
    return value


def code_available(state: u64, pc: u64) -> u64:
    """Bytes of the window at an executable address that can be executed."""
    here = PAGE_SIZE - pc % PAGE_SIZE
    if here >= WINDOW:
        return u64(WINDOW)
    beyond = pc + here
    if beyond >= load64(state + Slot.MEMORY_SIZE):
        return here
    if load8(load64(state + Slot.EXECUTABLE) + beyond // PAGE_SIZE) == 0:
        return here
    return u64(WINDOW)


def decode_one(state: u64, pc: u64, record: u64, available: u64) -> u64:
    """Decode the instruction at an address into a record, as `decode_window` does."""
    address = load64(state + Slot.MEMORY) + pc
    if available >= WINDOW:
        return decode_window(load64(address), load64(address + 8), available, decoding_mode(state), record)
    low, high = gather(address, available), u64(0)
    if available > 8:
        high = gather(address + 8, available - 8)
    return decode_window(low, high, available, decoding_mode(state), record)


def decode_stream(state: u64, record: u64) -> u64:
    """Decode from a record on until control leaves, the page ends, or it is known; 0 if there is nothing."""
    pc = (record - load64(state + Slot.RECORDS)) >> load64(state + Slot.RECORD_SHIFT)
    store64(state + Slot.FAULT_RECORD, record)
    if load8(load64(state + Slot.EXECUTABLE) + pc // PAGE_SIZE) == 0:
        return refuse(state, pc)
    store64(state + Slot.INTENT, u64(1 + Access.EXECUTE))
    decoded = load64(state + Slot.DECODED) + pc // PAGE_SIZE
    store8(decoded, u8(1))
    place = record
    left = u64(LONGEST_RUN)
    while True:
        target = decoding_place(state, pc, place)
        available = code_available(state, pc)
        found = decode_one(state, pc, target, available)
        length = found & (DECODED_ENDS - 1)
        if length > available or found == 0:
            if place != record:
                break
            return refuse(state, pc + available)
        finish_record(state, target, place)
        pc += length
        place += length << load64(state + Slot.RECORD_SHIFT)
        left -= 1
        # An instruction in another page is decoded when it is reached.
        if found >= DECODED_ENDS or left == 0 or pc % PAGE_SIZE < length:
            break
        if load64(place + HANDLER_FIELD) != 0:
            break
    store64(state + Slot.INTENT, u64(0))
    # Once more, in case another thread forgot the page meanwhile.
    store8(decoded, u8(1))
    return u64(1)


def add_flat_stream_fetch(module: Module) -> None:
    """Compile `@undecoded`; the decoder must have been added before."""
    run = module.add(decode_stream, name="decode_run", linkage="dso_local ", attributes="noinline nounwind")
    add_undecoded(module, run)
