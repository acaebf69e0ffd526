"""Ways out of translations: typed Python that runs in the host's blob when something is not as usual.

A fault handler asks `fault_landing` where a faulting access goes on. An exit calls, through the header of its
image, code that saves all registers in a frame and then calls `write_back`, which reads in the exit table
where the guest's registers are and stores them in the state block: so translations carry no code for it.
"""

from __future__ import annotations

from enum import IntEnum

from anyvirt.jit.host_layout import ARENA_GRANULE, Data
from anyvirt.jit.image_layout import EXIT, VALUE, Header, Place
from anyvirt.jit.layout import INSIDE, INTERPRET, PAGE_SIZE, Slot, StopReason
from anyvirt.jit.machine_layout import RecordPage
from anyvirt.typed import load8, load16, load32, load64, range, s32, s64, store64, u64

_LAST_GENERAL = 15
_FIRST_VECTOR = 17
_STACK_POINTER = 7


class Frame(IntEnum):
    """Offsets of what the code that exits call has saved; general registers by their DWARF numbers."""

    GENERAL = 0x00
    VECTOR = 0x80
    """The low halves of XMM registers."""
    RETURN = 0x100
    """Address behind the call."""


def data() -> u64:
    """Address of the host blob's data; `anyvirt.jit.host_x86_64` gives it its meaning."""
    raise NotImplementedError


def image_of(instruction: u64) -> u64:
    """Address of the image that an instruction of the host belongs to; 0 if it is no translation's."""
    arena = load64(data() + Data.ARENA)
    if instruction - arena >= load64(data() + Data.ARENA_SIZE):
        return u64(0)
    granule = (instruction - arena) // ARENA_GRANULE
    start = granule - u64(load32(load64(data() + Data.ARENA_STARTS) + granule * 4))
    return arena + start * ARENA_GRANULE


def look_up(image: u64, count: u64, table: u64, address: u64) -> u64:
    """What a sorted table of an image says of an address; 0 if it is not in the table."""
    low, high = u64(0), count
    while low < high:
        middle = (low + high) // 2
        place = image + u64(load32(table + middle * 8))
        if place == address:
            return image + u64(load32(table + middle * 8 + 4))
        if place < address:
            low = middle + 1
        else:
            high = middle
    return u64(0)


def fault_landing(instruction: u64) -> u64:
    """Where a translation goes on if this instruction of it faults; 0 if it does not say."""
    image = image_of(instruction)
    if image == 0:
        return u64(0)
    count, table = u64(load32(image + Header.FAULTS)), image + u64(load32(image + Header.FAULT_TABLE))
    return look_up(image, count, table, instruction)


def value_at(frame: u64, image: u64, place: u64) -> u64:
    """The value that an exit's description says is at some place."""
    kind, register = load8(place + 2), u64(load8(place + 3))
    distance = u64(s32(load32(place + 4)))
    if kind == Place.CONSTANT:
        return distance
    if kind == Place.POOL:
        return load64(image + distance)
    if register > _LAST_GENERAL:
        return load64(frame + Frame.VECTOR + (register - _FIRST_VECTOR) * 8)
    held = load64(frame + Frame.GENERAL + register * 8)
    return load64(held + distance) if kind == Place.MEMORY else held


def write_back(frame: u64) -> u64:
    """Put together the state of the guest; returns the address of its state block."""
    behind = load64(frame + Frame.RETURN)
    image = image_of(behind)
    count, table = u64(load32(image + Header.EXITS)), image + u64(load32(image + Header.EXIT_TABLE))
    description = look_up(image, count, table, behind)
    values = description + EXIT.size
    state = value_at(frame, image, values)
    base = value_at(frame, image, values + VALUE.size)
    left = value_at(frame, image, values + 2 * VALUE.size)
    for number in range(u64(3), u64(load32(description + 4))):
        place = values + number * VALUE.size
        store64(state + u64(load16(place)), value_at(frame, image, place))
    reason = u64(load32(description))
    if reason != 0:
        store64(state + Slot.REASON, reason)
    store64(state + Slot.ONWARD, way_on(state, reason))
    source = load64(description + 16)
    pc, shift = load64(description + 8), load64(state + Slot.RECORD_SHIFT)
    if load64(state + Slot.CROSSING) != 0:
        # In a machine `base` is how far the code is from where it was when it was compiled.
        place_at(state, pc + base)
        if source > INSIDE:
            source += base
    else:
        store64(state + Slot.RECORD, base + (pc << shift))
        store64(state + Slot.RECORDS, base)
    store64(state + Slot.SOURCE, source)
    store64(state + Slot.COUNT, left + load64(description + 24))
    return state


def way_on(state: u64, reason: u64) -> u64:
    """Code that serves an exit: most end the run, but the CPU of a machine with modes need not be left."""
    if reason == INTERPRET and load64(state + Slot.APART) != 0:
        return load64(state + Slot.APART)
    if reason == StopReason.INTERRUPTED and load64(state + Slot.ATTEND) != 0:
        return load64(state + Slot.ATTEND)
    return load64(state + Slot.LEAVE)


def place_at(state: u64, pc: u64) -> None:
    """Let the CPU of a machine be in front of the instruction at an address, wherever its record may be."""
    shift = load64(state + Slot.RECORD_SHIFT)
    record = load64(state + Slot.CROSSING) + (u64(PAGE_SIZE) << shift)
    if u64(s64(pc << shift) >> shift) != pc:
        store64(state + Slot.TARGET, pc)
        record += RecordPage.LOST
    store64(state + Slot.RECORD, record)
    store64(state + Slot.RECORDS, record - (pc << shift))
