"""How the machine code of a translation lies in memory, as compilers write it and fault handlers read it.

An image is a header, code, constants, and two tables. The fault table pairs each memory access with the place
to go on at if it faults. The exit table tells for each exit where the guest's state is to be found; an exit
is a call through the header of code that puts that state together (`anyvirt.jit.exits`). All distances are
from the beginning of the image.
"""

from __future__ import annotations

import struct
from enum import IntEnum


class Header(IntEnum):
    """Offsets in the header."""

    FAULTS = 0x00
    """Number of entries of the fault table, 32 bits."""
    FAULT_TABLE = 0x04
    EXITS = 0x08
    """Number of entries of the exit table."""
    EXIT_TABLE = 0x0C
    EXIT_CODE = 0x10
    """Address of the code that exits call; filled in when the image is placed."""
    PAGES = 0x18
    """Number of entries of the table of pages, 32 bits."""
    PAGE_TABLE = 0x1C
    """For each page that the translation was made from, in ascending order, 64 bits: how far the base of its
    records has to be from that of the page of the entry. Filled in when the image is placed."""
    SIZE = 0x20


HEADER = struct.Struct("<IIIIQII")
PAIR = struct.Struct("<II")
"""Fault table: access, where to go on. Exit table: address behind the call, the exit's description."""
EXIT = struct.Struct("<IIQQq")
"""Description of an exit: reason, number of values, pc, source, budget to be given back; then the values."""
VALUE = struct.Struct("<HBBi")
"""Offset in the state block, kind of place, number of a register or nothing, distance or constant."""


class Place(IntEnum):
    """Where a value is when an exit is taken; registers have their DWARF numbers (psABI, figure 3.36)."""

    REGISTER = 1
    """In a register: 0 to 15 are general ones, 17 to 32 are the low halves of XMM registers."""
    MEMORY = 3
    """At a distance from what a register holds."""
    CONSTANT = 4
    """The number itself, sign-extended."""
    POOL = 5
    """64 bits in the image."""
