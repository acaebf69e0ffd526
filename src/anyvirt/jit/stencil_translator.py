"""The translator of the stencil tier: from decoded records to machine code, in machine code.

It walks the records from an entry on, breadth-first through branches, calls and what is behind them, copies
the stencils of the instructions one behind the other and fills in their holes. All it knows of an instruction
set are the tables of its stencils. Like a handler it runs on a state block, so that a fault while it decodes
ends it as it would end a run.
"""

from __future__ import annotations

from anyvirt.jit.handlers import CONVENTION, PARAMETERS
from anyvirt.jit.host_x86_64 import HostTarget, call
from anyvirt.jit.image_layout import Header as ImageHeader
from anyvirt.jit.layout import HANDLER_FIELD, Slot
from anyvirt.jit.records import LENGTH_FIELD
from anyvirt.jit.stencil_layout import (
    AT_INTERPRETER,
    AT_STUB,
    FIRST_CODE,
    FIXUP_SIZE,
    HASH_FACTOR,
    HEADER_SIZE,
    INDEX_SHIFT,
    INSTRUCTION_SIZE,
    LARGEST_STENCIL,
    LITERAL_SIZE,
    PATCH_SIZE,
    Fixup,
    Glue,
    Header,
    Hole,
    Instruction,
    Job,
    Mark,
    Patch,
    Shape,
)
from anyvirt.typed import (
    load8,
    load16,
    load32,
    load64,
    range,
    s32,
    s64,
    store8,
    store32,
    store64,
    u8,
    u32,
    u64,
)

_INDEX_ENTRIES = 1 << 64 - INDEX_SHIFT
_ROOM = LARGEST_STENCIL + 8


def translate(state: u64, job: u64) -> None:
    """Leave an image of what is around an entry and its size, or 0 if nothing can be translated."""
    begin(job)
    discover(state, job, load64(job + Job.ENTRY))
    make_image(state, job)


def translate_page(state: u64, job: u64) -> None:
    """The same of all that is decoded in a page, and around that, and is not covered."""
    begin(job)
    record = load64(job + Job.ENTRY)
    covered = load64(job + Job.COVERED)
    while record != load64(job + Job.UNTIL) and load64(job + Job.INSTRUCTION_COUNT) < load64(job + Job.LIMIT):
        if load64(record + HANDLER_FIELD) != 0 and load8(covered) == 0 and find(job, record) == 0:
            discover(state, job, record)
        record += load64(job + Job.STRIDE)
        covered += 1
    store64(job + Job.ENTRY, record)
    make_image(state, job)


def begin(job: u64) -> None:
    """Nothing has been found yet."""
    store64(job + Job.SIZE, u64(0))
    store64(job + Job.ENTRY_COUNT, u64(0))
    store64(job + Job.RANGE_COUNT, u64(0))
    store64(job + Job.INSTRUCTION_COUNT, u64(0))
    for position in range(u64(0), u64(_INDEX_ENTRIES * 4), 8):
        store64(job + Job.INDEX + position, u64(0))


def make_image(state: u64, job: u64) -> None:
    """Lay out what has been found."""
    if load64(job + Job.INSTRUCTION_COUNT) == 0:
        return
    mark_leaders(state, job)
    if load64(job + Job.COUNTED) != 0:
        measure_blocks(state, job)
    store64(job + Job.OUT, job + Job.IMAGE + FIRST_CODE)
    store64(job + Job.FIXUP_COUNT, u64(0))
    store64(job + Job.FAULT_COUNT, u64(0))
    if emit_instructions(state, job) and resolve(state, job):
        finish_image(job)


# Records ----------------------------------------------------------------------------------------------------


def address_of(state: u64, record: u64) -> u64:
    """The guest address of a record."""
    return u64(s64(record - load64(state + Slot.RECORDS)) >> load64(state + Slot.RECORD_SHIFT))


def record_at(state: u64, job: u64, address: u64) -> u64:
    """The record of a guest address; 0 if a region cannot have it."""
    if address - load64(job + Job.FIRST) >= load64(job + Job.SPAN):
        return u64(0)
    return load64(state + Slot.RECORDS) + (address << load64(state + Slot.RECORD_SHIFT))


def header_of(job: u64, handler: u64) -> u64:
    """The header of the stencil for what a handler does; 0 for code that is none of the interpreter's."""
    table = load64(job + Job.HANDLERS)
    shift = load64(job + Job.HANDLERS_SHIFT)
    slot = (handler * HASH_FACTOR) >> shift
    mask = (u64(1) << (64 - shift)) - 1
    while True:
        known = load64(table + slot * 16)
        if known == handler:
            return load64(table + slot * 16 + 8)
        if known == 0:
            return u64(0)
        slot = (slot + 1) & mask


def index_slot(job: u64, record: u64) -> u64:
    """Where the index has, or would have, the instruction of a record."""
    slot = (record * HASH_FACTOR) >> INDEX_SHIFT
    while True:
        place = job + Job.INDEX + slot * 4
        number = load32(place)
        if number == 0 or load64(instruction_at(job, u64(number) - 1) + Instruction.RECORD) == record:
            return place
        slot = (slot + 1) % _INDEX_ENTRIES


def instruction_at(job: u64, number: u64) -> u64:
    """The entry of an instruction by its number."""
    return job + Job.INSTRUCTIONS + number * INSTRUCTION_SIZE


def find(job: u64, record: u64) -> u64:
    """The entry of the instruction at a record; 0 if it is not in the region."""
    number = load32(index_slot(job, record))
    if number == 0:
        return u64(0)
    return instruction_at(job, u64(number) - 1)


def length_of(instruction: u64) -> u64:
    """Bytes of an instruction."""
    length = load8(load64(instruction + Instruction.HEADER) + Header.LENGTH)
    if length == 0:
        length = load8(load64(instruction + Instruction.RECORD) + LENGTH_FIELD)
    return u64(length)


def next_record(state: u64, job: u64, instruction: u64) -> u64:
    """The record behind an instruction; 0 if a region cannot have it."""
    address = address_of(state, load64(instruction + Instruction.RECORD))
    return record_at(state, job, address + length_of(instruction))


def target_record(state: u64, job: u64, instruction: u64) -> u64:
    """The record that the branch of an instruction leads to; 0 if a region cannot have it."""
    record = load64(instruction + Instruction.RECORD)
    operand = u64(load8(load64(instruction + Instruction.HEADER) + Header.TARGET))
    return record_at(state, job, address_of(state, record) + u64(s32(load32(record + operand))))


def shape_of(instruction: u64) -> u64:
    """How an instruction can be left."""
    if load32(instruction + Instruction.FLAGS) & Mark.INTERPRETED != 0:
        return u64(Shape.INTERPRETED | Shape.NEXT)
    return u64(load16(load64(instruction + Instruction.HEADER) + Header.SHAPE))


def is_call(instruction: u64) -> bool:
    """Whether an instruction keeps the address behind it and goes elsewhere."""
    header = load64(instruction + Instruction.HEADER)
    if shape_of(instruction) & Shape.LINKS == 0:
        return False
    operand = u64(load8(header + Header.LINK))
    if operand == 0:
        return True
    return load8(load64(instruction + Instruction.RECORD) + operand) != load8(header + Header.SINK)


# Discovery --------------------------------------------------------------------------------------------------


def discover(state: u64, job: u64, entry: u64) -> None:
    """Find the instructions around an entry, run after run, in the order in which they will lie."""
    store64(job + Job.QUEUE, entry)
    store64(job + Job.QUEUE_COUNT, u64(1))
    looked = u64(0)
    while looked < load64(job + Job.QUEUE_COUNT):
        discover_run(state, job, load64(job + Job.QUEUE + looked * 8))
        looked += 1
    mark(find(job, entry), u32(Mark.LEADER))


def discover_run(state: u64, job: u64, first: u64) -> None:
    """Add instructions until control leaves, they are known, or there is no stencil for them."""
    record = first
    while record != 0 and load64(job + Job.INSTRUCTION_COUNT) < load64(job + Job.LIMIT):
        place = index_slot(job, record)
        if load32(place) != 0:
            return
        instruction = add_instruction(state, job, record, place)
        if instruction == 0:
            return
        shape = shape_of(instruction)
        if shape & Shape.TAKEN != 0:
            enqueue(job, target_record(state, job, instruction))
        following = next_record(state, job, instruction)
        if is_call(instruction):
            enqueue(job, following)
        if shape & Shape.NEXT == 0:
            return
        record = following


def enqueue(job: u64, record: u64) -> None:
    """Have a record looked at later."""
    count = load64(job + Job.QUEUE_COUNT)
    store64(job + Job.QUEUE + count * 8, record)
    store64(job + Job.QUEUE_COUNT, count + 1)


def add_instruction(state: u64, job: u64, record: u64, place: u64) -> u64:
    """Take the instruction at a record into the region; 0 if it is none that can be."""
    handler = load64(record + HANDLER_FIELD)
    if handler == 0 and load64(job + Job.DECODE) != 0:
        call(load64(job + Job.DECODE), state, record, load64(state + Slot.RECORDS))
        handler = load64(record + HANDLER_FIELD)
    if handler == 0:
        return u64(0)
    header = header_of(job, handler)
    if header == 0:
        return u64(0)
    number = load64(job + Job.INSTRUCTION_COUNT)
    instruction = instruction_at(job, number)
    store64(instruction + Instruction.RECORD, record)
    store64(instruction + Instruction.HANDLER, handler)
    store64(instruction + Instruction.HEADER, header)
    store32(instruction + Instruction.POSITION, u32(0))
    store32(instruction + Instruction.FLAGS, u32(0))
    store32(instruction + Instruction.LEFT, u32(0))
    store32(instruction + Instruction.STUB, u32(0))
    if leads_outside(state, job, instruction):
        # The interpreter knows what happens at the end of memory, or of a page of it.
        store32(instruction + Instruction.FLAGS, u32(Mark.INTERPRETED))
    store32(place, u32(number) + 1)
    store64(job + Job.INSTRUCTION_COUNT, number + 1)
    return instruction


def leads_outside(state: u64, job: u64, instruction: u64) -> bool:
    """Whether no region can have what is behind an instruction, or the target of its branch."""
    shape = shape_of(instruction)
    if shape & Shape.TAKEN != 0 and target_record(state, job, instruction) == 0:
        return True
    return (shape & Shape.NEXT != 0 or is_call(instruction)) and next_record(state, job, instruction) == 0


# Blocks -----------------------------------------------------------------------------------------------------


def is_adjacent(state: u64, job: u64, number: u64) -> bool:
    """Whether the instruction behind this one in memory is also the next one in the region."""
    if number + 1 == load64(job + Job.INSTRUCTION_COUNT):
        return False
    following = load64(instruction_at(job, number + 1) + Instruction.RECORD)
    return following == next_record(state, job, instruction_at(job, number))


def mark(instruction: u64, flags: u32) -> None:
    """Add flags to an instruction, if it is one."""
    if instruction != 0:
        place = instruction + Instruction.FLAGS
        store32(place, load32(place) | flags)


def mark_leaders(state: u64, job: u64) -> None:
    """Find where blocks begin."""
    for number in range(load64(job + Job.INSTRUCTION_COUNT)):
        instruction = instruction_at(job, number)
        shape = shape_of(instruction)
        if shape & Shape.TAKEN != 0:
            mark(find(job, target_record(state, job, instruction)), u32(Mark.LEADER))
        if shape & Shape.INTERPRETED != 0 or is_call(instruction):
            following = next_record(state, job, instruction)
            if following != 0:
                mark(find(job, following), u32(Mark.LEADER))
        elif shape & Shape.NEXT != 0 and (shape & Shape.TAKEN != 0 or not is_adjacent(state, job, number)):
            mark(find(job, next_record(state, job, instruction)), u32(Mark.LEADER))


def ends_block(state: u64, job: u64, number: u64) -> bool:
    """Whether the next instruction of the region is not all that follows, or follows others as well."""
    if shape_of(instruction_at(job, number)) != Shape.NEXT or not is_adjacent(state, job, number):
        return True
    return load32(instruction_at(job, number + 1) + Instruction.FLAGS) & Mark.LEADER != 0


def measure_blocks(state: u64, job: u64) -> None:
    """Count for each instruction how many its block has from it on; what is interpreted counts by itself."""
    left = u32(0)
    number = load64(job + Job.INSTRUCTION_COUNT)
    while number != 0:
        number -= 1
        instruction = instruction_at(job, number)
        if shape_of(instruction) & Shape.INTERPRETED != 0:
            left = u32(0)
        elif ends_block(state, job, number):
            left = u32(1)
        else:
            left += 1
        store32(instruction + Instruction.LEFT, left)


# Emission ---------------------------------------------------------------------------------------------------


def has_room(job: u64) -> bool:
    """Whether the image can take another stencil."""
    return load64(job + Job.OUT) + _ROOM < job + Job.IMAGE + load64(job + Job.CAPACITY)


def distance(job: u64, place: u64) -> u32:
    """How far a place in the image is from its beginning."""
    return u32(place - job - Job.IMAGE)


def emit_instructions(state: u64, job: u64) -> bool:
    """Lay all instructions out; false if there is not enough room."""
    for number in range(load64(job + Job.INSTRUCTION_COUNT)):
        instruction = instruction_at(job, number)
        note_range(state, job, number)
        position = distance(job, load64(job + Job.OUT))
        store32(instruction + Instruction.POSITION, position)
        flags = load32(instruction + Instruction.FLAGS)
        record = load64(instruction + Instruction.RECORD)
        if flags & Mark.LEADER != 0:
            # Control may come to it from other translations, too.
            note_entry(job, record, position)
        if shape_of(instruction) & Shape.INTERPRETED != 0:
            store32(instruction + Instruction.STUB, position)
            emit(state, job, glue(job, u64(Glue.INTERPRET)), instruction, record, u64(0))
        else:
            if flags & Mark.LEADER != 0 and load64(job + Job.COUNTED) != 0:
                emit(state, job, glue(job, u64(Glue.COUNT)), instruction, record, u64(1))
            header = load64(instruction + Instruction.HEADER)
            emit(state, job, header, instruction, record, u64(is_adjacent(state, job, number)))
        if not has_room(job):
            return False
    return True


def note_entry(job: u64, record: u64, position: u32) -> None:
    """A record that shall lead into the image."""
    count = load64(job + Job.ENTRY_COUNT)
    store64(job + Job.ENTRIES + count * 16, record)
    store64(job + Job.ENTRIES + count * 16 + 8, u64(position))
    store64(job + Job.ENTRY_COUNT, count + 1)


def note_range(state: u64, job: u64, number: u64) -> None:
    """The guest code of an instruction is translated."""
    instruction = instruction_at(job, number)
    start = address_of(state, load64(instruction + Instruction.RECORD))
    end = start + length_of(instruction)
    count = load64(job + Job.RANGE_COUNT)
    if count == 0 or load64(job + Job.RANGES + count * 16 - 8) != start:
        store64(job + Job.RANGES + count * 16, start)
        count += 1
        store64(job + Job.RANGE_COUNT, count)
    store64(job + Job.RANGES + count * 16 - 8, end)


def glue(job: u64, number: u64) -> u64:
    """The header of a stencil that belongs to no instruction."""
    return load64(job + Job.TABLES) + number * HEADER_SIZE


def emit(state: u64, job: u64, header: u64, instruction: u64, record: u64, falls: u64) -> None:
    """Copy a stencil to the end of the image and fill in its holes.

    `falls` is not 0 if what follows is what it would jump to at its end.
    """
    tables = load64(job + Job.TABLES)
    out = load64(job + Job.OUT)
    code = tables + u64(load32(header + Header.CODE))
    size = u64(load16(header + Header.SIZE))
    patch = tables + u64(load32(header + Header.PATCHES))
    end = patch + u64(load16(header + Header.PATCH_COUNT)) * PATCH_SIZE
    fall = u64(load16(header + Header.FALL))
    if falls != 0 and fall != size:
        size = fall
        end -= PATCH_SIZE
    position = u64(0)
    while position < size:
        store64(out + position, load64(code + position))
        position += 8
    while patch < end:
        fill(state, job, patch, out, instruction, record)
        patch += PATCH_SIZE
    store64(job + Job.OUT, out + size)


def fill(state: u64, job: u64, patch: u64, out: u64, instruction: u64, record: u64) -> None:
    """Fill in one hole of a stencil that has been copied to `out`."""
    hole = u64(load8(patch + Patch.HOLE))
    place = out + u64(load16(patch + Patch.OFFSET))
    addend = u64(s32(load32(patch + Patch.ADDEND)))
    if hole == Hole.REGISTER:
        number = u64(load8(record + u64(load8(patch + Patch.OPERAND))))
        store32(place, u32(number * 8 + addend))
    elif hole == Hole.ACCESS:
        note_access(job, place, instruction, addend, out)
    elif hole == Hole.LITERAL:
        store32(place, u32(addend))
        note_fixup(job, place, hole, load64(job + Job.TABLES) + u64(load32(patch + Patch.LITERAL)))
    elif hole >= Hole.NEXT:
        store32(place, u32(addend))
        note_fixup(job, place, hole, instruction)
    else:
        operand = record + u64(load8(patch + Patch.OPERAND))
        value = addend + value_of(state, job, hole, operand, instruction, record)
        put(place, value, load8(patch + Patch.WIDTH))


def put(place: u64, value: u64, width: u8) -> None:
    """Store the low bytes of a value."""
    if width == 8:
        store64(place, value)
    elif width == 4:
        store32(place, u32(value))
    else:
        store8(place, u8(value))


def value_of(state: u64, job: u64, hole: u64, operand: u64, instruction: u64, record: u64) -> u64:
    """The number that belongs into a hole."""
    value = u64(0)
    if hole == Hole.SMALL:
        value = u64(load8(operand))
    elif hole == Hole.WIDE:
        value = u64(s32(load32(operand)))
    elif hole == Hole.WHOLE:
        value = load64(operand)
    elif hole == Hole.PC:
        value = address_of(state, record)
    elif hole == Hole.RECORD:
        value = record
    elif hole == Hole.HANDLER:
        value = load64(instruction + Instruction.HANDLER)
    elif hole == Hole.LOOKUP:
        value = load64(job + Job.LOOKUP)
    else:
        value = u64(load32(instruction + Instruction.LEFT)) - u64(hole == Hole.AFTER)
    return value


def note_fixup(job: u64, place: u64, hole: u64, target: u64) -> None:
    """A distance to be filled in when all places are known."""
    count = load64(job + Job.FIXUP_COUNT)
    fixup = job + Job.FIXUPS + count * FIXUP_SIZE
    store64(fixup + Fixup.PLACE, place)
    store64(fixup + Fixup.HOLE, hole)
    store64(fixup + Fixup.TARGET, target)
    store64(job + Job.FIXUP_COUNT, count + 1)


def note_access(job: u64, place: u64, instruction: u64, landing: u64, out: u64) -> None:
    """An entry of the fault table; accesses are met in the order of their places, as the table wants them."""
    count = load64(job + Job.FAULT_COUNT)
    entry = job + Job.FAULTS + count * 8
    store32(entry, distance(job, place))
    if u32(landing) == AT_INTERPRETER:
        number = (instruction - job - Job.INSTRUCTIONS) // INSTRUCTION_SIZE
        store32(entry + 4, u32(number) | AT_STUB)
    else:
        store32(entry + 4, distance(job, out + landing))
    store64(job + Job.FAULT_COUNT, count + 1)


# Ways out ---------------------------------------------------------------------------------------------------


def resolve(state: u64, job: u64) -> bool:
    """Give every jump its distance, with the code that it leads to if that is not there yet."""
    for number in range(load64(job + Job.FIXUP_COUNT)):
        if not has_room(job):
            return False
        fixup = job + Job.FIXUPS + number * FIXUP_SIZE
        place = load64(fixup + Fixup.PLACE)
        goal = goal_of(state, job, load64(fixup + Fixup.HOLE), load64(fixup + Fixup.TARGET))
        store32(place, load32(place) + u32(goal - place))
    for number in range(load64(job + Job.FAULT_COUNT)):
        if not has_room(job):
            return False
        entry = job + Job.FAULTS + number * 8
        landing = load32(entry + 4)
        if landing & AT_STUB != 0:
            instruction = instruction_at(job, u64(landing ^ AT_STUB))
            store32(entry + 4, distance(job, stub(state, job, instruction)))
    return True


def goal_of(state: u64, job: u64, hole: u64, target: u64) -> u64:
    """Where a jump leads."""
    if hole == Hole.LITERAL:
        return literal(job, target)
    if hole == Hole.NEXT:
        return arrival(state, job, target, next_record(state, job, target), u64(Glue.EXIT))
    if hole == Hole.TAKEN:
        record = target_record(state, job, target)
        if record <= load64(target + Instruction.RECORD) and find(job, record) != 0:
            return checked(state, job, record)
        return arrival(state, job, target, record, u64(Glue.ARRIVE))
    return stub(state, job, target)


def arrival(state: u64, job: u64, source: u64, record: u64, way: u64) -> u64:
    """Where the instruction at a record is, or where the image is left for it."""
    inside = find(job, record)
    if inside != 0:
        return job + Job.IMAGE + u64(load32(inside + Instruction.POSITION))
    place = load64(job + Job.OUT)
    emit(state, job, glue(job, way), source, record, u64(0))
    return place


def checked(state: u64, job: u64, record: u64) -> u64:
    """Code that goes on in the image unless somebody wants the run to end: every loop passes through such."""
    place = load64(job + Job.OUT)
    inside = find(job, record)
    count = load64(job + Job.FIXUP_COUNT)
    emit(state, job, glue(job, u64(Glue.CHECK)), inside, record, u64(0))
    # Its own jump leads to the instruction itself.
    while load64(job + Job.FIXUP_COUNT) != count:
        left = load64(job + Job.FIXUP_COUNT) - 1
        store64(job + Job.FIXUP_COUNT, left)
        jump = load64(job + Job.FIXUPS + left * FIXUP_SIZE + Fixup.PLACE)
        goal = job + Job.IMAGE + u64(load32(inside + Instruction.POSITION))
        store32(jump, load32(jump) + u32(goal - jump))
    return place


def stub(state: u64, job: u64, instruction: u64) -> u64:
    """Code that has the interpreter execute an instruction, one for all that want it."""
    known = load32(instruction + Instruction.STUB)
    if known != 0:
        return job + Job.IMAGE + u64(known)
    place = load64(job + Job.OUT)
    store32(instruction + Instruction.STUB, distance(job, place))
    record = load64(instruction + Instruction.RECORD)
    emit(state, job, glue(job, u64(Glue.INTERPRET)), instruction, record, u64(0))
    return place


def literal(job: u64, source: u64) -> u64:
    """A copy of a constant, aligned as the host's instructions want it."""
    place = (load64(job + Job.OUT) + LITERAL_SIZE - 1) // LITERAL_SIZE * LITERAL_SIZE
    for position in range(u64(0), u64(LITERAL_SIZE), 8):
        store64(place + position, load64(source + position))
    store64(job + Job.OUT, place + LITERAL_SIZE)
    return place


def finish_image(job: u64) -> None:
    """Put the fault table behind the code, and its size before it."""
    start = job + Job.IMAGE
    table = (load64(job + Job.OUT) + 7) // 8 * 8
    count = load64(job + Job.FAULT_COUNT)
    if table + count * 8 > start + load64(job + Job.CAPACITY):
        return
    store32(start + ImageHeader.FAULTS, u32(count))
    store32(start + ImageHeader.FAULT_TABLE, u32(table - start))
    store64(start + ImageHeader.EXITS, u64(0))
    store64(start + ImageHeader.EXIT_CODE, u64(0))
    for number in range(count):
        store64(table + number * 8, load64(job + Job.FAULTS + number * 8))
    store64(job + Job.SIZE, table + count * 8 - start)


# Records of other code --------------------------------------------------------------------------------------


def decode(state: u64, job: u64) -> None:
    """Decode what the empty ones among the records in the queue stand for."""
    for position in range(load64(job + Job.QUEUE_COUNT)):
        record = load64(job + Job.QUEUE + position * 8)
        if load64(record + HANDLER_FIELD) == 0:
            call(load64(job + Job.DECODE), state, record, load64(state + Slot.RECORDS))


# The module -------------------------------------------------------------------------------------------------


def translator_module() -> str:
    """LLVM IR of the translator, entered as `translate`, `translate_page` and `decode`."""
    from anyvirt.jit.frontend import Module

    module = Module(HostTarget())
    for name, served in (("translate", translate), ("translate_page", translate_page), ("decode", decode)):
        function = module.add(served, attributes="nounwind")
        module.define(
            _ENTRY.format(name=name, convention=CONVENTION, parameters=PARAMETERS, function=function)
        )
    return module.text()


_ENTRY = f"""
define dso_local {{convention}} void @{{name}}({{parameters}}) nounwind {{{{
  %s = ptrtoint ptr %state to i64
  %r = ptrtoint ptr %record to i64
  call void {{function}}(i64 %s, i64 %r)
  %reason = getelementptr i8, ptr %state, i64 {int(Slot.REASON)}
  store i64 0, ptr %reason
  %slot = getelementptr i8, ptr %state, i64 {int(Slot.LEAVE)}
  %leave = load ptr, ptr %slot
  musttail call {{convention}} void %leave(ptr %state, ptr %record, ptr %memory, i64 %count, ptr %records)
  ret void
}}}}
"""
