"""What compiled code and the run-time agree on in memory: the state block, records, and reasons to stop.

A state block holds one virtual CPU: first what every executor needs (`Slot`), then the registers of its
instruction set. A record is one decoded instruction, at its address times the scale of its instruction set.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anyvirt.isa.description import InstructionSet

PAGE_SIZE = 4096
STATE_SIZE = 1 << 14
"""Distance between state blocks, in bytes."""
HANDLER_FIELD, OPERAND_FIELDS = 0, 8
"""Offsets in a record: the handler (0: not decoded yet), and what is left for operands."""
BRANCH_REACH = 1 << 27
"""No direct branch goes further than this from its instruction, in bytes of guest code."""


class StopReason(IntEnum):
    """Why `Executor.run` came back. The numbers are part of the interface to compiled code."""

    SYSTEM_CALL = 1
    """An environment call. `Stop.pc` is the call itself: serve it, then set `executor.pc = stop.next_pc`."""
    BREAKPOINT = 2
    """A breakpoint instruction at `Stop.pc`, not executed."""
    ILLEGAL_INSTRUCTION = 3
    """The instruction at `Stop.pc` does not exist, is reserved, or is not allowed now."""
    ACCESS_FAULT = 4
    """`Stop.address` cannot be accessed in the way `Stop.access` says."""
    MISALIGNED = 5
    """`Stop.address` is not aligned as the (atomic) access at `Stop.pc` demands."""
    INTERRUPTED = 6
    """`interrupt()` was called, or a signal installed through `anyvirt.cpu.signals` arrived."""
    BUDGET = 7
    """`max_instructions` have been executed; `Stop.pc` is the next one."""
    TRAP = 9
    """An exception of the instruction set's own, not executed; `Stop.address` is its number there."""
    HOOK = 12
    """A breakpoint, watchpoint or hook (`anyvirt.cpu.hooks`) ended the run: `Stop.hit` is it."""
    IDLE = 20
    """The CPU of a machine waits for an interrupt: see `anyvirt.cpu.system.SystemSide.wait`."""


SYNCHRONIZE = 8
"""Like a stop reason, but served by the executor itself: forget what was decoded, go on."""
NEW_CODE = 10
"""Like a stop reason, but served by the executor itself: make place for the code at TARGET, go on there."""
DEVICE_ERROR = 11
"""Like a stop reason, but `run` raises what a device raised."""
ALARM = 21
"""Like a stop reason, but served by the executor itself: the deadline of the timer has changed."""
INTERPRET = 16
"""Like a stop reason, but served by the executor itself: the instruction is one for the interpreter."""
UNFIT = 17
"""Like a stop reason, but served by the executor itself: the translation is for another rounding mode."""


INSIDE = 1
"""In the slot SOURCE: the run was interrupted in a loop within a translation."""


class Access(IntEnum):
    """What a faulting access wanted to do."""

    READ = 0
    WRITE = 1
    EXECUTE = 2


NO_CODE = 3
"""Like `Access.EXECUTE`, but the slot FAULT_ADDRESS holds a `pc` that has no record."""


class Request(IntEnum):
    """The bytes of the slot PENDING: who wants the CPU to leave compiled code."""

    STOP = 0
    """`interrupt()` or a signal: `run` comes back."""
    SAMPLE = 1
    """The manager of translations wants to know where the CPU is; served within `run`."""
    HOLD = 2
    """Somebody changes the memory and waits for its CPUs to stand still; served within `run`."""
    CHANGED = 3
    """The CPU has changed code of which there are translations; served within `run`."""
    INTERRUPT = 4
    """An interrupt of the guest may have become possible; served by compiled code."""


class Slot(IntEnum):
    """Offsets of the first 64-bit fields of a state block."""

    PENDING = 0x00
    """Eight independent bytes (`Request`); if any is not 0 compiled code leaves at the next taken branch."""
    REASON = 0x08
    RECORD = 0x10
    """Address of the record to continue at."""
    MEMORY = 0x18
    """Host address of guest address 0."""
    COUNT = 0x20
    """Instructions left, in counting runs."""
    RECORDS = 0x28
    """Where the record of guest address 0 would be, as seen from RECORD; constant in flat memory."""
    STACK = 0x30
    """The host's stack pointer while compiled code runs; 0 otherwise."""
    FAULT_RECORD = 0x38
    """The record of the instruction whose memory access is under way."""
    FAULT_ADDRESS = 0x40
    """For system calls and breakpoints the length of the instruction."""
    FAULT_ACCESS = 0x48
    FAULT_COUNT = 0x50
    """What COUNT is after the instruction under way, in counting runs."""
    BUS_ERROR = 0x58
    LEAVE = 0x60
    """Code that ends a run."""
    MEMORY_SIZE = 0x68
    EXECUTABLE = 0x70
    """Host address of one byte a guest page: 1 where code may be executed."""
    UNDECODED = 0x78
    """Code that decodes what RECORD points to."""
    INTENT = 0x80
    """What the access under way is for, plus 1, where the host's word for it would mislead; otherwise 0."""
    FLOAT_FLAGS = 0x88
    """Accrued exceptions besides those in the host's own register."""
    FLOAT_ROUNDING = 0x90
    FLOAT_CONTROL = 0x98
    """The host's floating-point control and status register as the guest needs it."""
    RETIRED = 0xA0
    """Instructions executed, plus COUNT, in counting runs."""
    SCRATCH = 0xA8
    """Two words of work space."""
    DECODED = 0xB8
    """Host address of one byte a guest page: 1 where there may be records."""
    SOURCE = 0xC8
    """Address of the jump or branch that a run was interrupted at; 0 if it left a translation, or INSIDE."""
    RECORD_SHIFT = 0xC0
    """log2 of the bytes of records for each byte of guest code."""
    HOOKS = 0xD0
    """Address of the cell with the table of hooked addresses (`anyvirt.jit.hook_layout`), or 0."""
    HOOK_PASSED = 0xD8
    """1 plus the address of the instruction whose hook has been served; 0: none."""
    INSTRUMENTS = 0xE0
    """Address of the CPU's instruments (`anyvirt.jit.hook_layout`)."""
    MAP = 0x100
    """Machine memory: address of its map (`anyvirt.jit.machine_layout`)."""
    TARGET = 0x108
    """Address to continue at, where looking it up needs more than one comparison."""
    PAGES = 0x110
    """Address of the pages of records by page number; 0 where there are none."""
    CROSSING = 0x118
    """Address of the page of records for instructions that cross the end of a page."""
    OUTCOME = 0x120
    """0, or why a memory access could not be made: a reason to leave compiled code."""
    TRANSLATION = 0x128
    """What the translation of addresses works with."""
    RECORD_SIZE = 0x130
    REFILL = 0x138
    """Code that lets the TLB know of a page, for translations."""
    ATTEND = 0x140
    """Code that serves PENDING; what it cannot serve it leaves compiled code for."""
    TLBS = 0x148
    """Address of the first of the CPU's TLBs; MEMORY is that of the one in use."""
    TIME_BASE = 0x150
    """Nanoseconds that the time of a machine is ahead of the host's clock, or of counted instructions."""
    CLOCK = 0x158
    """Address of the host's clock_gettime(3)."""
    APART = 0x160
    """Code that executes one instruction apart from its record, which may lead into a translation; or 0."""
    ONWARD = 0x168
    """Code at which an exit of a translation goes on."""
    TIME_COUNTS = 0x170
    """1 if the time of a machine goes on with the instructions of counting runs; 0: with the host's clock."""
    THREAD = 0x178
    """The host's number of the only thread that runs the CPU, for whose signals alone it is stopped; or 0."""
    END = 0x180


@dataclass(frozen=True)
class RecordLayout:
    """The geometry of the records of an instruction set."""

    granule: int
    """Bytes of guest code for each record: instructions start at multiples of it."""
    size: int
    """Bytes of a record."""

    @classmethod
    def of(cls, isa: InstructionSet) -> RecordLayout:
        """One record for each place where an instruction can start.

        With delay slots there is a second one, half an instruction further on, for the instruction when it
        is in the slot of a taken branch: what follows it then is not the next one.
        """
        from anyvirt.isa.description import DELAY_SLOT

        return cls(DELAY_SLOT if isa.delay_slots else isa.parcel, isa.record_size)

    @property
    def scale(self) -> int:
        """Bytes of records for each byte of guest code."""
        return self.size // self.granule

    @property
    def shift(self) -> int:
        """log2 of the scale."""
        return self.scale.bit_length() - 1


@dataclass(frozen=True)
class StateLayout:
    """Where the registers of an instruction set are in its state block, in bytes."""

    files: dict[str, tuple[int, int]]
    """Register files: offset and number of registers. A file with a zero register is followed by its sink."""
    scalars: dict[str, tuple[int, int]]
    """Other state: offset and start value."""
    zeros: list[int]
    """Offsets of registers that always read 0."""

    @classmethod
    def of(cls, isa: InstructionSet) -> StateLayout:
        """Lay out the registers one after the other."""
        position, files, scalars, zeros = int(Slot.END), {}, {}, []
        for file in isa.register_files.values():
            files[file.name] = (position, file.count)
            if file.zero is not None:
                zeros.append(position + 8 * file.zero)
            position += 8 * (file.count + (file.zero is not None))
        for scalar in isa.scalars.values():
            scalars[scalar.name] = (position, scalar.initial)
            position += 8
        if position > STATE_SIZE:
            raise ValueError(f"the registers of {isa.name} need {position} bytes, {STATE_SIZE} are there")
        return cls(files, scalars, zeros)
