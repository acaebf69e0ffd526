"""What the builder of stencils, the native translator and the run-time agree on: tables and jobs.

A stencil is the machine code of one instruction form with holes: places that depend on the occurrence of the
instruction. The tables of an instruction set hold a header for each stencil, then patches, then code, then
constants; all distances count from the beginning of the tables.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag

from anyvirt.jit.image_layout import Header as ImageHeader

LARGEST_REGION = 512
"""Most instructions that are translated at once from an entry on."""
LARGEST_PAGE = 2048
"""Most instructions that are translated at once because they are in a page."""
LARGEST_STENCIL = 2048
"""Most bytes of a stencil: forms that need more are left to the interpreter."""
MOST_JUMPS = 24
"""Most distances of a stencil to be filled in when all places are known."""
MOST_ACCESSES = 16
"""Most accesses to memory of a stencil."""


class Hole(IntEnum):
    """What fills a hole."""

    SMALL = 0
    """An operand of 8 bits, zero-extended."""
    REGISTER = 1
    """8 times such an operand: the distance of a register from the first of its file."""
    WIDE = 2
    """An operand of 32 bits, sign-extended."""
    PC = 3
    """The address of the instruction."""
    RECORD = 4
    """The address of its record; in glue, of the record to go on at."""
    BEFORE = 5
    """Instructions of the block that have been counted but not executed, this one included."""
    AFTER = 6
    """The same without this one."""
    HANDLER = 7
    """The interpreter's handler of the instruction."""
    LOOKUP = 8
    """The interpreter's code that looks up the address in the slot TARGET."""
    WHOLE = 9
    """An operand of 64 bits."""
    NEXT = 10
    """To the instruction behind it, as all that follow a distance of 32 bits to somewhere else."""
    TAKEN = 11
    """To the target of its branch."""
    INTERPRET = 12
    """To code that executes it in the interpreter."""
    FAULT = 13
    """The same, for an access to memory that the host refused."""
    LITERAL = 14
    """To a constant."""
    ACCESS = 15
    """Nothing to fill in: an access that may fault, with the place in the stencil to go on at then."""


JUMPS = range(Hole.NEXT, Hole.LITERAL)
AT_INTERPRETER = 0xFFFFFFFF
"""Of an ACCESS, instead of a place in the stencil: where the interpreter executes the instruction."""
AT_STUB = 0x80000000
"""In a fault table that is not finished: the number of an instruction is meant."""
LITERAL_SIZE = 16


class Shape(IntFlag):
    """How a form can be left, and what else decides about its place in a region."""

    NEXT = 1
    TAKEN = 2
    JUMP = 4
    LINKS = 8
    """It computes the address behind it and goes elsewhere: a call."""
    INTERPRETED = 16
    """There is no code: the interpreter executes it."""


class Header(IntEnum):
    """Offsets in the header of a stencil."""

    CODE = 0
    """32 bits: distance of the code from the beginning of the tables."""
    PATCHES = 4
    """32 bits: distance of the first patch."""
    SIZE = 8
    """16 bits: size of the code."""
    FALL = 10
    """16 bits: its size without the jump to the next instruction at its end; SIZE if there is none."""
    PATCH_COUNT = 12
    """16 bits."""
    SHAPE = 14
    """16 bits."""
    LENGTH = 16
    """8 bits: bytes of the instruction; 0 if its record says."""
    TARGET = 17
    """8 bits: offset in the record of the operand (32 bits) that says how far TAKEN leads."""
    LINK = 18
    """8 bits: offset of the operand that selects the register for the address behind; 0 if there is none."""
    SINK = 19
    """8 bits: the value of that operand if nobody wants the address."""


HEADER = struct.Struct("<IIHHHHBBBB4x")
HEADER_SIZE = HEADER.size


class Patch(IntEnum):
    """Offsets in a patch."""

    OFFSET = 0
    """16 bits: place in the code."""
    HOLE = 2
    """8 bits."""
    WIDTH = 3
    """8 bits: bytes to be written."""
    OPERAND = 4
    """8 bits: offset of the operand in the record."""
    ADDEND = 8
    """32 bits, signed; of an ACCESS the place to go on at."""
    LITERAL = 12
    """32 bits: distance of the constant from the beginning of the tables."""


PATCH = struct.Struct("<HBBB3xiI")
PATCH_SIZE = PATCH.size


class Glue(IntEnum):
    """Stencils that belong to no instruction; their headers come first, in this order."""

    EXIT = 0
    """Go on at a record."""
    ARRIVE = 1
    """The same after a branch: unless somebody wants the run to end."""
    CHECK = 2
    """Go on at NEXT unless somebody wants the run to end."""
    INTERPRET = 3
    """Let the interpreter execute an instruction."""
    COUNT = 4
    """Use up the budget of a block, or give it back and let the interpreter go on."""


class Job(IntEnum):
    """Offsets in a job of the translator: what is wanted, then what came of it, then its own notes."""

    HANDLER = 0x00
    """What serves the job: it is entered like a record."""
    ENTRY = 0x08
    """The record to begin at; afterwards, of a page, the one to go on at."""
    TABLES = 0x10
    HANDLERS = 0x18
    """A hash table from handlers to headers."""
    HANDLERS_SHIFT = 0x20
    """64 minus the binary logarithm of the number of its entries."""
    DECODE = 0x28
    """A function (state, record, records) that decodes; 0 to end a region where nothing is decoded yet."""
    LIMIT = 0x30
    """Most instructions."""
    CAPACITY = 0x38
    """Bytes of room for the image."""
    COUNTED = 0x48
    """Not 0: blocks count their instructions."""
    SIZE = 0x50
    """Result: bytes of the image; 0 if there is no translation."""
    INSTRUCTION_COUNT = 0x58
    ENTRY_COUNT = 0x60
    RANGE_COUNT = 0x68
    OUT = 0x70
    """Where the next stencil goes."""
    FIXUP_COUNT = 0x78
    FAULT_COUNT = 0x80
    QUEUE_COUNT = 0x88
    LOOKUP = 0x90
    """What fills the hole of this name."""
    FIRST = 0x98
    """The lowest address whose instruction may be taken into the region."""
    SPAN = 0xA0
    """How many addresses from there on may be."""
    UNTIL = 0xA8
    """The record at which a page ends."""
    STRIDE = 0xB0
    """Bytes from one record to the next."""
    COVERED = 0xB8
    """Of a page, from `ENTRY` on, one byte for each record: not 0 if it belongs to a translation already."""
    INDEX = 0x1000
    """32 bits each: 1 + the number of the instruction at a record, by the record's hash."""
    INSTRUCTIONS = 0x5000
    QUEUE = 0x1_9000
    """Records to be looked at."""
    ENTRIES = 0x2_2000
    """Result: pairs of a record and the distance of its entry from the beginning of the image."""
    RANGES = 0x2_A000
    """Result: pairs of first and last address (exclusive) of guest code."""
    FAULTS = 0x3_2000
    """The fault table of the image."""
    FIXUPS = 0x7_2000
    """Jumps whose place is known and whose target is not."""
    IMAGE = 0x20_0000


INDEX_SHIFT = 64 - 12
JOB_SIZE = 0x40_0000
"""The image has the rest."""


class Instruction(IntEnum):
    """Offsets in the entry of an instruction."""

    RECORD = 0
    HANDLER = 8
    HEADER = 16
    """Address of its stencil's header."""
    POSITION = 24
    """32 bits: distance of its code from the beginning of the image; 0 if it has none yet."""
    LEFT = 28
    """32 bits: instructions of its block from here on."""
    FLAGS = 32
    """32 bits."""
    STUB = 36
    """32 bits: distance of the code that executes it in the interpreter; 0 if there is none yet."""


INSTRUCTION_SIZE = 40


class Mark(IntFlag):
    """Flags of an instruction."""

    LEADER = 1
    """Arrived at from elsewhere than the instruction before: its record leads into the translation."""
    INTERPRETED = 2
    """The interpreter executes it."""


class Fixup(IntEnum):
    """Offsets in a fixup."""

    PLACE = 0
    """Address of the 32 bits."""
    HOLE = 8
    TARGET = 16
    """Address of the entry of the instruction it belongs to; of a LITERAL, that of the constant."""


FIXUP_SIZE = 24
FIRST_CODE = int(ImageHeader.SIZE)
"""Images begin with a header."""
HASH_FACTOR = 0x9E3779B97F4A7C15
