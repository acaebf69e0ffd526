"""Memory accesses of machines where the inline TLB does not help: the slow path, in typed Python.

It translates, finds the region, and does the access: in RAM (and then lets the TLB know), in a device, or
byte by byte where it reaches from one page or region into another. An access that cannot be made has no
effect; the slot OUTCOME then says why.
"""

from __future__ import annotations

from anyvirt.jit.layout import HANDLER_FIELD, PAGE_SIZE, Access, Request, Slot, StopReason
from anyvirt.jit.machine_layout import (
    AREA_SIZE,
    CHANGES,
    CODE_ENTRIES,
    CODE_TABLE,
    DATA_ENTRIES,
    FILLED,
    NO_TAG,
    PAGE_BITS,
    TOLERATED_WRITES,
    USUAL_ADDEND,
    Change,
    CodeEntry,
    CodeFlag,
    DataEntry,
    Filled,
    Map,
    Region,
    RegionFlag,
)
from anyvirt.typed import (
    load8,
    load16,
    load32,
    load64,
    range,
    store8,
    store16,
    store32,
    store64,
    u8,
    u16,
    u32,
    u64,
)

LONGEST_INSTRUCTION = 16
"""An instruction that starts up to 15 bytes before a change may reach into it."""
_IN_PAGE = PAGE_SIZE - 1
_NO_ATOMICS = int(RegionFlag.DEVICE | RegionFlag.DISCARD)


def translate(state: u64, address: u64, access: u64) -> tuple[u64, u64]:
    """The physical address of a guest address, and a bit for each `Access` that may go there now.

    A bit may be missing as long as that kind of access was not asked for (the page table would have to note
    it). Bound when compiled.
    """
    raise NotImplementedError(state, address, access)


def device_access(function: u64, state: u64, device: u64, offset: u64, size: u64, value: u64) -> u64:
    """Call a device with the host's own floating-point environment. Bound when compiled."""
    raise NotImplementedError(function, state, device, offset, size, value)


def compare_exchange64(host: u64, expected: u64, value: u64) -> bool:
    """Atomically replace a word of the host's memory. Bound when compiled."""
    raise NotImplementedError(host, expected, value)


def full_fence() -> None:
    """Order all accesses before this against all after it. Bound when compiled."""
    raise NotImplementedError


def find_region(memory_map: u64, physical: u64) -> u64:
    """The region that contains a physical address; 0 if none does."""
    regions = load64(memory_map + Map.REGIONS)
    low, high = u64(0), load64(memory_map + Map.COUNT)
    while low < high:
        middle = (low + high) // 2
        if load64(regions + middle * Region.END + Region.LAST) < physical:
            low = middle + 1
        else:
            high = middle
    region = regions + low * Region.END
    if low == load64(memory_map + Map.COUNT) or load64(region + Region.FIRST) > physical:
        return u64(0)
    return region


def resolve(state: u64, address: u64, access: u64) -> tuple[u64, u64, u64]:
    """Physical address, region and rights of a guest address; the region is 0 if the access is not allowed.

    Rights are a bit for each `Access`, as the first flags of a region are.
    """
    physical, rights = translate(state, address, access)
    region = find_region(load64(state + Slot.MAP), physical)
    if region != 0:
        rights &= load64(region + Region.FLAGS)
        if (rights >> access) & 1 == 0:
            region = u64(0)
    return physical, region, rights


def fail(state: u64, address: u64, access: u64) -> u64:
    """Note that an address cannot be accessed."""
    store64(state + Slot.FAULT_ADDRESS, address)
    store64(state + Slot.FAULT_ACCESS, access)
    store64(state + Slot.OUTCOME, u64(StopReason.ACCESS_FAULT))
    return u64(0)


def is_device(region: u64) -> bool:
    """Whether there is a device behind a region."""
    return load64(region + Region.FLAGS) & RegionFlag.DEVICE != 0


def contains(region: u64, physical: u64, size: u64) -> bool:
    """Whether an access that begins in a region also ends there."""
    return load64(region + Region.LAST) - physical >= size - 1


# Loads ------------------------------------------------------------------------------------------------------


def slow_load(state: u64, address: u64, size: u64) -> u64:
    """A load of 1, 2, 4 or 8 bytes."""
    store64(state + Slot.OUTCOME, u64(0))
    if (address & _IN_PAGE) + size > PAGE_SIZE:
        return load_bytewise(state, address, size)
    physical, region, rights = resolve(state, address, u64(Access.READ))
    if region == 0:
        return fail(state, address, u64(Access.READ))
    if not contains(region, physical, size):
        return load_bytewise(state, address, size)
    if is_device(region):
        return device_load(state, region, address, physical, size)
    fill(state, address, physical, region, rights)
    return load_sized(load64(region + Region.ADDEND) + physical, size)


def load_bytewise(state: u64, address: u64, size: u64) -> u64:
    """A load across regions or pages: first all is looked up, then anything is read."""
    for position in range(size):
        _, region, _ = resolve(state, address + position, u64(Access.READ))
        if region == 0:
            return fail(state, address + position, u64(Access.READ))
    value = u64(0)
    for position in range(size):
        physical, region, _ = resolve(state, address + position, u64(Access.READ))
        if region == 0:
            return fail(state, address + position, u64(Access.READ))
        if is_device(region):
            value |= (device_load(state, region, address + position, physical, u64(1)) & 0xFF) << 8 * position
            if load64(state + Slot.OUTCOME) != 0:
                return u64(0)
        else:
            value |= u64(load8(load64(region + Region.ADDEND) + physical)) << 8 * position
    return value


def device_load(state: u64, region: u64, address: u64, physical: u64, size: u64) -> u64:
    """Ask a device, which may fail as the address."""
    store64(state + Slot.FAULT_ADDRESS, address)
    return device_access(
        load64(load64(state + Slot.MAP) + Map.DEVICE_READ),
        state,
        load64(region + Region.DEVICE),
        load64(region + Region.ADDEND) + physical,
        size,
        u64(0),
    )


def load_sized(host: u64, size: u64) -> u64:
    """1, 2, 4 or 8 bytes of the host's memory."""
    if size == 8:
        return load64(host)
    if size == 4:
        return u64(load32(host))
    if size == 2:
        return u64(load16(host))
    return u64(load8(host))


def fill(state: u64, address: u64, physical: u64, region: u64, rights: u64) -> None:
    """Let the TLB know of a page, for reading, and for writing where that needs no attention."""
    memory_map = load64(state + Slot.MAP)
    page = address & ~_IN_PAGE
    number = load64(region + Region.PAGE) + (physical >> PAGE_BITS)
    tlb, index = load64(state + Slot.MEMORY), (address >> PAGE_BITS) % DATA_ENTRIES
    entry = tlb + index * DataEntry.SIZE
    if load64(entry + DataEntry.PAGE) == NO_TAG:
        note_filled(tlb, index)
    addend = load64(region + Region.ADDEND) + physical - address
    store64(entry + DataEntry.ADDEND, addend)
    store64(tlb + USUAL_ADDEND, addend)
    store64(entry + DataEntry.PAGE, number)
    store64(entry + DataEntry.READ, page if rights & RegionFlag.READ != 0 else u64(NO_TAG))
    writable = (
        rights & RegionFlag.WRITE != 0
        and load64(region + Region.FLAGS) & RegionFlag.DISCARD == 0
        and load8(load64(memory_map + Map.DIRTY) + number) != 0
        and load8(load64(memory_map + Map.CODE) + number) == 0
    )
    store64(entry + DataEntry.WRITE, page if writable else u64(NO_TAG))


def note_filled(tlb: u64, number: u64) -> None:
    """An entry of a TLB is not empty any more."""
    count = load64(tlb + FILLED + Filled.COUNT)
    if count < Filled.CAPACITY:
        store16(tlb + FILLED + Filled.ENTRIES + count * 2, u16(number))
    if count <= Filled.CAPACITY:
        store64(tlb + FILLED + Filled.COUNT, count + 1)


def fill_for(state: u64, address: u64, size: u64, access: u64) -> u64:
    """Let the TLB know of the page of an address; its addend if it allows such an access now, or NO_TAG."""
    if (address & _IN_PAGE) + size > PAGE_SIZE:
        return u64(NO_TAG)
    entry = load64(state + Slot.MEMORY) + (address >> PAGE_BITS) % DATA_ENTRIES * DataEntry.SIZE
    field = u64(DataEntry.READ) if access == Access.READ else u64(DataEntry.WRITE)
    if load64(entry + field) != address & ~_IN_PAGE:
        physical, region, rights = resolve(state, address, access)
        if region == 0 or is_device(region) or not contains(region, physical, size):
            return u64(NO_TAG)
        fill(state, address, physical, region, rights)
        if load64(entry + field) != address & ~_IN_PAGE:
            return u64(NO_TAG)
    return load64(entry + DataEntry.ADDEND)


# Stores -----------------------------------------------------------------------------------------------------


def slow_store(state: u64, address: u64, size: u64, value: u64) -> None:
    """A store of 1, 2, 4 or 8 bytes."""
    store64(state + Slot.OUTCOME, u64(0))
    if (address & _IN_PAGE) + size > PAGE_SIZE:
        store_bytewise(state, address, size, value)
        return
    physical, region, rights = resolve(state, address, u64(Access.WRITE))
    if region == 0:
        fail(state, address, u64(Access.WRITE))
    elif not contains(region, physical, size):
        store_bytewise(state, address, size, value)
    elif is_device(region):
        store_in_region(state, region, address, physical, size, value)
    else:
        store_in_region(state, region, address, physical, size, value)
        fill(state, address, physical, region, rights)


def store_bytewise(state: u64, address: u64, size: u64, value: u64) -> None:
    """A store across regions or pages: first all is looked up, then anything is written."""
    for position in range(size):
        _, region, _ = resolve(state, address + position, u64(Access.WRITE))
        if region == 0:
            fail(state, address + position, u64(Access.WRITE))
            return
    for position in range(size):
        physical, region, _ = resolve(state, address + position, u64(Access.WRITE))
        if region == 0:
            fail(state, address + position, u64(Access.WRITE))
            return
        byte = (value >> 8 * position) & 0xFF
        store_in_region(state, region, address + position, physical, u64(1), byte)
        if load64(state + Slot.OUTCOME) != 0:
            return


def store_in_region(state: u64, region: u64, address: u64, physical: u64, size: u64, value: u64) -> None:
    """Write to RAM, or tell a device, which may fail as the address and change the list of regions."""
    if is_device(region):
        store64(state + Slot.FAULT_ADDRESS, address)
        device_access(
            load64(load64(state + Slot.MAP) + Map.DEVICE_WRITE),
            state,
            load64(region + Region.DEVICE),
            load64(region + Region.ADDEND) + physical,
            size,
            value,
        )
    elif load64(region + Region.FLAGS) & RegionFlag.DISCARD == 0:
        host = load64(region + Region.ADDEND) + physical
        if size == 8:
            store64(host, value)
        elif size == 4:
            store32(host, u32(value))
        elif size == 2:
            store16(host, u16(value))
        else:
            store8(host, u8(value))
        written(state, load64(region + Region.PAGE) + (physical >> PAGE_BITS), physical & _IN_PAGE, size)


def written(state: u64, number: u64, offset: u64, size: u64) -> None:
    """What follows from a store to RAM: the page is dirty, and its code has changed."""
    memory_map = load64(state + Slot.MAP)
    store8(load64(memory_map + Map.DIRTY) + number, u8(1))
    flag = u64(load8(load64(memory_map + Map.CODE) + number))
    if flag == 0:
        return
    forget_code(memory_map, number, offset, size)
    # Whoever translates lets this be known first, and then looks at the code.
    if u64(load8(load64(memory_map + Map.CODE) + number)) & CodeFlag.TRANSLATIONS != 0:
        note_change(state, number)


def note_change(state: u64, number: u64) -> None:
    """Have the translations of a page forgotten before this CPU goes on."""
    changes = load64(state + Slot.TLBS) + CHANGES
    count = load64(changes + Change.COUNT)
    if count < Change.CAPACITY:
        store64(changes + Change.PAGES + count * 8, number)
    if count <= Change.CAPACITY:
        store64(changes + Change.COUNT, count + 1)
    store8(state + Slot.PENDING + Request.CHANGED, u8(1))


def atomic_pointer(state: u64, address: u64, size: u64) -> u64:
    """The host pointer for an atomic operation, which only RAM can do, within a page; 0 if it cannot be."""
    store64(state + Slot.OUTCOME, u64(0))
    physical, region, _ = resolve(state, address, u64(Access.WRITE))
    if region == 0 or (address & _IN_PAGE) + size > PAGE_SIZE or not contains(region, physical, size):
        return fail(state, address, u64(Access.WRITE))
    if load64(region + Region.FLAGS) & _NO_ATOMICS != 0:
        return fail(state, address, u64(Access.WRITE))
    return load64(region + Region.ADDEND) + physical


def after_atomic(state: u64, address: u64, size: u64) -> None:
    """What follows from an atomic operation that `atomic_pointer` allowed."""
    physical, region, rights = resolve(state, address, u64(Access.WRITE))
    written(state, load64(region + Region.PAGE) + (physical >> PAGE_BITS), physical & _IN_PAGE, size)
    fill(state, address, physical, region, rights)


# Code and TLBs: compiled for the host as well, where Python calls them --------------------------------------


def forget_code(memory_map: u64, number: u64, offset: u64, size: u64) -> None:
    """Forget the instructions of a page that [offset, offset + size) of it belongs to, in all spaces.

    A page of which nothing is decoded between many stores becomes data again.
    """
    # Whoever decodes at the same time looks at the code once more after having written the record.
    full_fence()
    writes = load64(memory_map + Map.WRITES) + number
    first, end = offset - min(offset, u64(LONGEST_INSTRUCTION - 1)), min(offset + size, u64(PAGE_SIZE))
    count = u64(load8(writes)) + 1
    if count >= TOLERATED_WRITES:
        first, end, count = u64(0), u64(PAGE_SIZE), u64(0)
        flag = load64(memory_map + Map.CODE) + number
        store8(flag, load8(flag) & u8(CodeFlag.TRANSLATIONS))
        full_fence()
    store8(writes, u8(count))
    for index in range(load64(memory_map + Map.SPACE_COUNT)):
        space = memory_map + Map.SPACES + index * Map.SPACE
        records = load64(load64(space) + number * 8)
        if records != 0:
            shift, record_size = load64(space + 8), load64(space + 16)
            place = records + (first << shift) // record_size * record_size
            while place < records + (end << shift):
                store64(place + HANDLER_FIELD, u64(0))
                place += record_size


def flush_tlbs(tlb: u64) -> None:
    """Empty a TLB of a CPU; addends stay, for an access that is under way."""
    count = load64(tlb + FILLED + Filled.COUNT)
    if count > Filled.CAPACITY:
        for number in range(u64(DATA_ENTRIES + CODE_ENTRIES)):
            empty(tlb, number)
    else:
        for position in range(count):
            empty(tlb, u64(load16(tlb + FILLED + Filled.ENTRIES + position * 2)))
    store64(tlb + FILLED + Filled.COUNT, u64(0))


def empty(tlb: u64, number: u64) -> None:
    """Empty one entry of a TLB."""
    if number < DATA_ENTRIES:
        entry = tlb + number * DataEntry.SIZE
        store64(entry + DataEntry.READ, u64(NO_TAG))
        store64(entry + DataEntry.WRITE, u64(NO_TAG))
        store64(entry + DataEntry.PAGE, u64(NO_TAG))
    else:
        store64(tlb + CODE_TABLE + (number - DATA_ENTRIES) * CodeEntry.SIZE + CodeEntry.TAG, u64(NO_TAG))


def flush_page(tlb: u64, address: u64) -> None:
    """Drop what a TLB of a CPU knows of the page of a guest address."""
    entry = tlb + (address >> PAGE_BITS) % DATA_ENTRIES * DataEntry.SIZE
    store64(entry + DataEntry.READ, u64(NO_TAG))
    store64(entry + DataEntry.WRITE, u64(NO_TAG))
    store64(entry + DataEntry.PAGE, u64(NO_TAG))
    code = tlb + CODE_TABLE + (address >> PAGE_BITS) % CODE_ENTRIES * CodeEntry.SIZE
    store64(code + CodeEntry.TAG, u64(NO_TAG))


def use_area(state: u64, area: u64) -> None:
    """Let a CPU use another of its TLBs."""
    store64(state + Slot.MEMORY, load64(state + Slot.TLBS) + area * AREA_SIZE)


def forget_area(state: u64, area: u64) -> None:
    """Empty one of a CPU's TLBs."""
    flush_tlbs(load64(state + Slot.TLBS) + area * AREA_SIZE)


def forget_in_area(state: u64, area: u64, address: u64) -> None:
    """Drop what one of a CPU's TLBs knows of a page."""
    flush_page(load64(state + Slot.TLBS) + area * AREA_SIZE, address)


def load_physical(state: u64, physical: u64) -> tuple[u64, bool]:
    """64 aligned bits of RAM or ROM; false if there is none."""
    region = find_region(load64(state + Slot.MAP), physical)
    if region == 0:
        return u64(0), False
    if load64(region + Region.FLAGS) & (RegionFlag.DEVICE | RegionFlag.READ) != RegionFlag.READ:
        return u64(0), False
    return load64(load64(region + Region.ADDEND) + physical), True


def update_physical(state: u64, physical: u64, expected: u64, value: u64) -> bool:
    """Atomically replace 64 aligned bits of RAM; false if they have changed or cannot be."""
    region = find_region(load64(state + Slot.MAP), physical)
    if region == 0:
        return False
    if load64(region + Region.FLAGS) & (_NO_ATOMICS | RegionFlag.WRITE) != RegionFlag.WRITE:
        return False
    if not compare_exchange64(load64(region + Region.ADDEND) + physical, expected, value):
        return False
    written(state, load64(region + Region.PAGE) + (physical >> PAGE_BITS), physical & _IN_PAGE, u64(8))
    return True


def stop_writing(tlb: u64, number: u64) -> None:
    """Make stores of a CPU through a TLB to a page of RAM take the slow path."""
    count = load64(tlb + FILLED + Filled.COUNT)
    some = count <= Filled.CAPACITY
    for position in range(count if some else u64(DATA_ENTRIES)):
        index = u64(load16(tlb + FILLED + Filled.ENTRIES + position * 2)) if some else position
        entry = tlb + index * DataEntry.SIZE
        if index < DATA_ENTRIES and load64(entry + DataEntry.PAGE) == number:
            store64(entry + DataEntry.WRITE, u64(NO_TAG))
