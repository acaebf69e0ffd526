"""What compiled code and the run-time agree on for machine memory: its map, the TLBs, and pages of records.

A guest address becomes a physical one by the translation of the instruction set, a physical one becomes RAM
or a device by the list of regions in the map. Results are kept in the TLBs of each CPU, of which compiled
code looks at one entry inline.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

from anyvirt.jit.layout import PAGE_SIZE

PAGE_BITS = PAGE_SIZE.bit_length() - 1
MOST_PAGES = 1 << 28
"""Pages of RAM and ROM that one memory can have: a tebibyte. They are numbered in the order of banks."""
NO_TAG = (1 << 64) - 1
"""A tag that is no page's address, so that no access matches it."""


DATA_ENTRIES = 4096
"""Fewer would be filled again and again where arrays lie a power of two apart: each entry is for one page in
so many."""
CODE_ENTRIES = 256
CODE_TABLE = DATA_ENTRIES * 32
"""Offset of the code entries; the data entries are at the beginning, where the slot MEMORY points."""
CHANGES = CODE_TABLE + CODE_ENTRIES * 16
"""Offset of the list of pages whose translations the CPU has to have forgotten."""


class DataEntry(IntEnum):
    """Offsets in an entry for data; the TLB is direct-mapped.

    An address is compared as a page's, and it is that of the access's last byte: an access that reaches into
    the next page never matches.
    """

    READ = 0
    """Address of the page if loads may use the entry, otherwise NO_TAG."""
    WRITE = 8
    """The same for stores: not before the page is marked dirty, and never while it has decoded code."""
    ADDEND = 16
    """Host address minus guest address."""
    PAGE = 24
    """The page's number, or NO_TAG."""
    SIZE = 32


class CodeEntry(IntEnum):
    """Offsets in an entry for code."""

    TAG = 0
    """Address of the page if it has records, otherwise NO_TAG."""
    RECORDS = 8
    """What the slot RECORDS is for them."""
    SIZE = 16


class Change(IntEnum):
    """Offsets in the list of changes."""

    COUNT = 0
    """How many there are; CAPACITY + 1 if some did not fit in."""
    PAGES = 8
    """Their page numbers."""
    CAPACITY = 15
    SIZE = 128


USUAL_ADDEND = CHANGES + Change.SIZE
"""Offset of the addend of the page that the TLB for data was told of last."""
FILLED = USUAL_ADDEND + 64
"""Offset of the list of entries that have been filled since the TLB was last emptied."""


class Filled(IntEnum):
    """Offsets in that list."""

    COUNT = 0
    """How many there are; CAPACITY + 1 if some did not fit in."""
    ENTRIES = 8
    """Numbers of entries, 16 bits each: those for code follow those for data."""
    CAPACITY = 2048
    SIZE = 8 + 2 * 2048


AREA_SIZE = -(-(FILLED + Filled.SIZE) // PAGE_SIZE) * PAGE_SIZE
"""Bytes of one TLB. A CPU with modes has several; the list of changes is in its first one."""


class Map(IntEnum):
    """Offsets in the map of a memory, which all its CPUs share; it changes only while none of them runs."""

    REGIONS = 0x00
    """Address of the regions, ascending and disjoint."""
    COUNT = 0x08
    DIRTY = 0x10
    """Address of one byte for each page: 1 if it was written since the last `clear_dirty`."""
    CODE = 0x18
    """Address of one byte for each page: `CodeFlag`."""
    WRITES = 0x20
    """Address of one byte for each page: stores since something was last decoded in it."""
    DEVICE_READ = 0x28
    """C function: state, device, offset, size -> value."""
    DEVICE_WRITE = 0x30
    """C function: state, device, offset, size, value."""
    SPACE_COUNT = 0x38
    SPACES = 0x40
    """Stores of decoded code: address of the pages of records by page number, shift, size of a record."""
    SPACE = 24
    MOST_SPACES = 16
    END = 0x40 + 16 * 24


class Region(IntEnum):
    """Offsets in an entry of the list of regions."""

    FIRST = 0
    """Physical address."""
    LAST = 8
    """Physical address of the last byte."""
    FLAGS = 16
    ADDEND = 24
    """What makes a physical address a host address, or the offset in a device."""
    PAGE = 32
    """Page number minus that of the physical address."""
    DEVICE = 40
    END = 48


class RegionFlag(IntFlag):
    """What can be done with a region."""

    READ = 1
    WRITE = 2
    EXECUTE = 4
    DEVICE = 8
    DISCARD = 16
    """Stores have no effect."""


class CodeFlag(IntFlag):
    """What is kept of the instructions in a page."""

    RECORDS = 1
    TRANSLATIONS = 2
    """Whoever has them wants to hear of changes before the CPU that made one goes on."""


class RecordPage(IntEnum):
    """Offsets in the second half of a page of records, relative to its beginning.

    The records of a page of code fill the first half of a stride, to which pages of records are aligned. The
    second half begins with records for what runs over the end of the page.
    """

    LOST = 1024
    """In the area for instructions across pages: a record that leads to the address in TARGET, which no other
    record can stand for."""
    HOST = 2048
    """Host address of the code."""
    FLAG = 2056
    """Address of the page's CodeFlag."""
    NUMBER = 2064
    """The page's number."""
    KEPT = 2072
    """In the area for instructions across pages: the record that is decoded now, or 0."""
    OUTSIDE = 2080
    """In that area: the handler of all other records."""
    WINDOW = 2088
    """In that area: the bytes of the instruction, and what follows them."""


CROSSING, LOOKUP, OUTSIDE, FAILED = "crossing", "lookup", "outside", "failed"
"""Handlers: of instructions that cross the end of a page; of the address in TARGET; of records that are
elsewhere; of what ends with an OUTCOME."""
APART = "apart"
"""Handler that executes the instruction of a record, whatever that record leads into."""
END_RECORDS = 16
"""Bytes of guest code, at the end of a page of records, for which there are records that lead outside."""
TOLERATED_WRITES = 32
"""After this many stores into a page of which nothing was decoded meanwhile it is data again."""
