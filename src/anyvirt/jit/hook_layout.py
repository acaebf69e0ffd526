"""What compiled code and the run-time agree on for hooks: tables of hooked addresses, and instruments.

Each space of decoded code has a cell that holds the address of its table, or 0. A table is never changed, but
for the records that the decoder puts aside in it: another one takes its place. Instruments belong to one CPU;
only the instrumented interpreter looks at them.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

BLOCK_EVENT = 13
"""Like a stop reason, for hooks: the instruction to come begins a block."""
ACCESS_EVENT = 14
"""Like a stop reason, for hooks: the instruction to come makes the access that the instruments describe."""


EVENTS = (BLOCK_EVENT, ACCESS_EVENT)


class Table(IntEnum):
    """Offsets in a table and in its entries, which ascend by address."""

    HANDLER = 0x00
    """Code of the handler that hooked records have."""
    COUNT = 0x08
    RECORD_SIZE = 0x10
    """Bytes of a record."""
    ENTRIES = 0x18
    ENTRY = 0x30
    """Bytes of an entry."""
    ADDRESS = 0x00
    """In an entry: the guest address."""
    RECORD = 0x08
    """In an entry: the record as it would be without the hook; its handler is 0 before it is decoded."""


MOST_RANGES = 16
"""Ranges of watched memory that compiled code tells apart."""


class Instrument(IntEnum):
    """Offsets of the 64-bit fields of a CPU's instruments."""

    BLOCK = 0x00
    """`BlockStart`: whether the next instruction begins a block."""
    BLOCKS_WANTED = 0x08
    """1 if the CPU is to leave at the beginning of each block."""
    SEEN = 0x10
    """Memory accesses that the present instruction has come to."""
    KNOWN = 0x18
    """How many of them the hooks have been told of."""
    KNOWN_NEXT = 0x20
    """The same for the instruction that is begun next."""
    RANGE_COUNT = 0x28
    """How many ranges are watched."""
    ACCESS_ADDRESS = 0x40
    ACCESS_SIZE = 0x48
    """Bytes."""
    ACCESS_KIND = 0x50
    ACCESS_VALUE = 0x58
    """What is to be stored, in the host's byte order."""
    COVERED = 0x60
    """Host address of one byte for each place where an instruction can start (`Covered`); 0: none wanted."""
    COVERED_LOW = 0x68
    """Guest address of the first of them."""
    COVERED_COUNT = 0x70
    COVERED_SHIFT = 0x78
    """log2 of the distance between such places, in bytes of guest code."""
    COVERED_PAGES = 0x80
    """Host address of one byte for each page of the coverage map: 1 where something is noted."""
    RANGES = 0x88
    """Three words for each watched range: its first and last address, and which accesses (`AccessKind`)."""
    SIZE = 0x88 + 24 * MOST_RANGES


class BlockStart(IntEnum):
    """Values of `Instrument.BLOCK`."""

    NO = 0
    YES = 1
    TOLD = 2
    """Yes, and the hooks know."""


class AccessKind(IntFlag):
    """What a memory access does; atomic read-modify-write operations do both."""

    READ = 1
    WRITE = 2


class Covered(IntEnum):
    """What a byte of a coverage map says; 0: nothing has been executed there."""

    EXECUTED = 1
    BLOCK = 3
    """Executed, and a block began there."""
