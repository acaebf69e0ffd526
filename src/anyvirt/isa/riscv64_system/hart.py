"""The privileged hart: `riscv64` with modes M, S and U, control and status registers, and their declaration.

Follows The RISC-V Instruction Set Manual, Volume II: Privileged Architecture (version 20240411, called
"Privileged" below); chapter names are given where things are described.

A register that is a plain value lives in the register file `csr`; what of it can be written is data here.
Those that are views of others, or count, or decide about memory, have functions in `registers.py`.
"""

# The compiler resolves annotations at run time.
# ruff: noqa: TC001

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from anyvirt.isa.processor import Registers
from anyvirt.isa.riscv64 import riscv64
from anyvirt.isa.riscv64.hart import Hart
from anyvirt.isa.system import SystemProcessor
from anyvirt.typed import u8, u64


class SystemHart(Hart, SystemProcessor, Protocol):
    """What privileged instructions work on."""

    csr: Registers
    """Control and status registers by their places (`place`)."""
    privilege: u64
    lines: u64
    """Interrupt lines from outside, by number."""
    walk_fault: u64
    """What the last translation ran into: `WalkFault`."""
    spaces: Registers
    """The satp of each remembered address space, plus 1."""
    next_space: u64
    """Which of them is replaced next."""
    large: Registers
    """First and last page covered by large pages that were remembered, in each half of the address space."""
    pmp_first: Registers
    pmp_last: Registers
    pmp_count: u64
    """Entries of physical memory protection up to the last one that is in use."""
    cycle_base: u64
    """What mcycle has more than the counter of the processor."""
    instret_base: u64


class Privilege(IntEnum):
    """Modes of a hart."""

    USER = 0
    SUPERVISOR = 1
    MACHINE = 3


class WalkFault(IntEnum):
    """Why an address could not be translated."""

    NONE = 0
    """It could be; what fails then is the access to physical memory."""
    PAGE = 1
    """The page tables do not allow it."""
    ACCESS = 2
    """The page tables themselves cannot be accessed."""


rv = riscv64.derive(
    "riscv64_system",
    "RISC-V RV64GC with M, S and U modes",
    address_bits=64,
    keep=lambda pattern: True,
)
for _name, _meaning in (
    ("Machine", "machine-level instructions"),
    ("Supervisor", "supervisor-level instructions"),
    ("Svinval", "fine-grained address-translation cache invalidation"),
    ("Zicbom", "cache-block management"),
    ("Zicboz", "cache-block zero"),
    ("Zawrs", "wait on reservation set"),
):
    rv.extension(_name, _meaning)


def _show_control_register(number: int) -> str:
    register = rv.control_registers.get(number)
    return register.name if register else f"{number:#x}"


rv.number_field("csr", 12, show=_show_control_register)

PMP_ENTRIES = 16
SPACES = 4
"""Address spaces whose translations are remembered at a time."""

rv.state("privilege", Privilege.MACHINE, "the mode: 0 user, 1 supervisor, 3 machine")
rv.state("lines", 0, "interrupt lines from outside")
rv.state("walk_fault", 0, "why the last address could not be translated")
rv.state("next_space", 0, "which remembered address space is replaced next")
rv.state("pmp_count", 0, "entries of physical memory protection in use")
rv.state("cycle_base", 0, "what mcycle has more than the processor's counter")
rv.state("instret_base", 0, "what minstret has more than the processor's counter")
rv.registers("spaces", [f"space{number}" for number in range(SPACES)])
rv.registers("large", ["large_low_first", "large_low_last", "large_high_first", "large_high_last"])
rv.registers("pmp_first", [f"pmp_first{number}" for number in range(PMP_ENTRIES)])
rv.registers("pmp_last", [f"pmp_last{number}" for number in range(PMP_ENTRIES)])


# Control and status registers -------------------------------------------------------------------------------

_ALL = (1 << 64) - 1
_NUMBERS = 4096


@dataclass(frozen=True)
class Csr:
    """A control and status register that is a plain value."""

    number: int
    name: str
    writable: int
    initial: int


_plain: list[Csr] = []
_functions: set[int] = set()


def plain(number: int, name: str, meaning: str, *, writable: int = _ALL, initial: int = 0) -> int:
    """Declare a register that is a value of which the `writable` bits can be changed; returns its place."""
    rv.control_register(number, name, meaning)
    _plain.append(Csr(number, name, writable, initial))
    return len(_plain)


def special(number: int, name: str, meaning: str) -> int:
    """Declare a register that has functions of its own; returns its number."""
    rv.control_register(number, name, meaning)
    _functions.add(number)
    return number


class Status(IntEnum):
    """Fields of mstatus and sstatus. "Machine Status (mstatus and mstatush) Registers"."""

    SIE = 1 << 1
    MIE = 1 << 3
    SPIE = 1 << 5
    MPIE = 1 << 7
    SPP = 1 << 8
    MPP = 3 << 11
    FS = 3 << 13
    MPRV = 1 << 17
    SUM = 1 << 18
    MXR = 1 << 19
    TVM = 1 << 20
    TW = 1 << 21
    TSR = 1 << 22
    UXL = 3 << 32
    SXL = 3 << 34
    SD = 1 << 63


MPP_SHIFT, SPP_SHIFT, FS_SHIFT = 11, 8, 13
_WIDTHS = 2 << 32 | 2 << 34
"""UXL and SXL: 64 bits."""


class Environment(IntEnum):
    """Fields of menvcfg and senvcfg."""

    FIOM = 1 << 0
    CBIE = 3 << 4
    CBCFE = 1 << 6
    CBZE = 1 << 7
    ADUE = 1 << 61
    PBMTE = 1 << 62
    STCE = 1 << 63


class Interrupt(IntEnum):
    """Numbers of interrupts: bits of mip and mie."""

    SUPERVISOR_SOFTWARE = 1
    MACHINE_SOFTWARE = 3
    SUPERVISOR_TIMER = 5
    MACHINE_TIMER = 7
    SUPERVISOR_EXTERNAL = 9
    MACHINE_EXTERNAL = 11


class Cause(IntEnum):
    """Exceptions: values of mcause and scause."""

    FETCH_MISALIGNED = 0
    FETCH_ACCESS = 1
    ILLEGAL_INSTRUCTION = 2
    BREAKPOINT = 3
    LOAD_MISALIGNED = 4
    LOAD_ACCESS = 5
    STORE_MISALIGNED = 6
    STORE_ACCESS = 7
    USER_CALL = 8
    SUPERVISOR_CALL = 9
    MACHINE_CALL = 11
    FETCH_PAGE = 12
    LOAD_PAGE = 13
    STORE_PAGE = 15


INTERRUPT = 1 << 63
"""The bit of mcause and scause."""
SUPERVISOR_LINES = sum(
    1 << line
    for line in (Interrupt.SUPERVISOR_SOFTWARE, Interrupt.SUPERVISOR_TIMER, Interrupt.SUPERVISOR_EXTERNAL)
)
_MACHINE_LINES = sum(
    1 << line for line in (Interrupt.MACHINE_SOFTWARE, Interrupt.MACHINE_TIMER, Interrupt.MACHINE_EXTERNAL)
)
_ENVIRONMENT = Environment.FIOM | Environment.CBIE | Environment.CBCFE | Environment.CBZE
_EXTENDED = Environment.ADUE | Environment.PBMTE | Environment.STCE
_COUNTERS = 7
"""cycle, time and instret: bits of mcounteren and scounteren."""
_DELEGABLE = 0x3FF | 1 << Cause.FETCH_PAGE | 1 << Cause.LOAD_PAGE | 1 << Cause.STORE_PAGE

MSTATUS = plain(
    0x300,
    "mstatus",
    "machine status",
    writable=Status.SIE | Status.MIE | Status.SPIE | Status.MPIE | Status.SPP | Status.MPP | Status.FS
    | Status.MPRV | Status.SUM | Status.MXR | Status.TVM | Status.TW | Status.TSR,
    initial=_WIDTHS,
)  # fmt: skip
SSTATUS_READ = (
    Status.SIE | Status.SPIE | Status.SPP | Status.FS | Status.SUM | Status.MXR | Status.UXL | Status.SD
)
SSTATUS_WRITABLE = Status.SIE | Status.SPIE | Status.SPP | Status.FS | Status.SUM | Status.MXR
_EXTENSIONS = sum(1 << ord(letter) - ord("A") for letter in "ACDFIMSU")
MISA = plain(0x301, "misa", "extensions of the instruction set", writable=0, initial=2 << 62 | _EXTENSIONS)
MEDELEG = plain(0x302, "medeleg", "exceptions delegated to S-mode", writable=_DELEGABLE)
MIDELEG = plain(0x303, "mideleg", "interrupts delegated to S-mode", writable=SUPERVISOR_LINES)
MIE = plain(0x304, "mie", "interrupts enabled", writable=SUPERVISOR_LINES | _MACHINE_LINES)
MTVEC = plain(0x305, "mtvec", "address of the handler of traps to M-mode", writable=_ALL & ~2)
MCOUNTEREN = plain(0x306, "mcounteren", "counters that S-mode may read", writable=_COUNTERS)
MENVCFG = plain(
    0x30A,
    "menvcfg",
    "environment of S- and U-mode",
    writable=_ENVIRONMENT | _EXTENDED,
    # What kernels that do not know of these would miss is there from the start.
    initial=Environment.ADUE | Environment.PBMTE,
)
plain(0x320, "mcountinhibit", "counters that stand still: none", writable=0)
MSCRATCH = plain(0x340, "mscratch", "for the handler of traps to M-mode")
MEPC = plain(0x341, "mepc", "address of the instruction that was trapped to M-mode", writable=_ALL & ~1)
MCAUSE = plain(0x342, "mcause", "cause of the last trap to M-mode")
MTVAL = plain(0x343, "mtval", "what belongs to that cause")
MVENDORID = plain(0xF11, "mvendorid", "vendor", writable=0)
MARCHID = plain(0xF12, "marchid", "architecture", writable=0)
MIMPID = plain(0xF13, "mimpid", "implementation", writable=0)
MHARTID = plain(0xF14, "mhartid", "number of the hart", writable=0)
MCONFIGPTR = plain(0xF15, "mconfigptr", "address of a description of the hart", writable=0)
STVEC = plain(0x105, "stvec", "address of the handler of traps to S-mode", writable=_ALL & ~2)
SCOUNTEREN = plain(0x106, "scounteren", "counters that U-mode may read", writable=_COUNTERS)
SENVCFG = plain(0x10A, "senvcfg", "environment of U-mode", writable=_ENVIRONMENT)
SSCRATCH = plain(0x140, "sscratch", "for the handler of traps to S-mode")
SEPC = plain(0x141, "sepc", "address of the instruction that was trapped to S-mode", writable=_ALL & ~1)
SCAUSE = plain(0x142, "scause", "cause of the last trap to S-mode")
STVAL = plain(0x143, "stval", "what belongs to that cause")
for _number, _name in ((0x7A0, "tselect"), (0x7A1, "tdata1"), (0x7A2, "tdata2"), (0x7A3, "tdata3")):
    plain(_number, _name, "debug triggers: there are none", writable=0)
# "If the currently selected trigger doesn't exist, this field contains 1" (Debug Specification, tinfo).
plain(0x7A4, "tinfo", "types of debug triggers: none", writable=0, initial=1)
for _counter in range(3, 32):
    plain(0xB00 + _counter, f"mhpmcounter{_counter}", "counts nothing", writable=0)
    plain(0x320 + _counter, f"mhpmevent{_counter}", "what it would count", writable=0)
    plain(0xC00 + _counter, f"hpmcounter{_counter}", "counts nothing", writable=0)

MIP = len(_plain) + 1
"""The place of what software has written to mip."""
_plain.append(Csr(_NUMBERS, "mip_software", 0, 0))
SATP = len(_plain) + 1
"""The place of satp, which is written by a function."""
_plain.append(Csr(_NUMBERS, "satp_value", 0, 0))
STIMECMP = len(_plain) + 1
_plain.append(Csr(_NUMBERS, "stimecmp_value", 0, _ALL))
PMPCFG = len(_plain) + 1
"""The place of pmpcfg0; pmpcfg2 follows."""
_plain += [Csr(_NUMBERS, f"pmpcfg{number}_value", 0, 0) for number in (0, 2)]
PMPADDR = len(_plain) + 1
"""The place of pmpaddr0; the others follow."""
_plain += [Csr(_NUMBERS, f"pmpaddr{number}_value", 0, 0) for number in range(PMP_ENTRIES)]

SSTATUS_NUMBER = special(0x100, "sstatus", "what of mstatus S-mode sees")
SIE_NUMBER = special(0x104, "sie", "what of mie is delegated to S-mode")
SIP_NUMBER = special(0x144, "sip", "what of mip is delegated to S-mode")
STIMECMP_NUMBER = special(0x14D, "stimecmp", "time from which on the supervisor's timer interrupt is pending")
SATP_NUMBER = special(0x180, "satp", "translation of addresses: mode, address space, page of the table")
MIP_NUMBER = special(0x344, "mip", "interrupts pending")
PMPCFG_NUMBER = special(0x3A0, "pmpcfg0", "configuration of physical memory protection 0 to 7")
special(0x3A2, "pmpcfg2", "configuration of physical memory protection 8 to 15")
PMPADDR_NUMBER = 0x3B0
for _entry in range(PMP_ENTRIES):
    special(PMPADDR_NUMBER + _entry, f"pmpaddr{_entry}", "address of physical memory protection")
MCYCLE_NUMBER = special(0xB00, "mcycle", "clock cycles")
MINSTRET_NUMBER = special(0xB02, "minstret", "instructions executed")
for _number in (0x001, 0x002, 0x003, 0xC00, 0xC01, 0xC02):
    _functions.add(_number)

rv.registers("csr", ["none", *(register.name for register in _plain)])

SPECIAL = 255
"""In PLACE: the register has functions of its own."""


def _places() -> tuple[u8, ...]:
    table = [0] * _NUMBERS
    for position, register in enumerate(_plain):
        if register.number < _NUMBERS:
            table[register.number] = position + 1
    for number in _functions:
        table[number] = SPECIAL
    return tuple(map(u8, table))


PLACE: tuple[u8, ...] = _places()
"""By number: where a register is in the file `csr`; 0 if there is no such register."""
WRITABLE: tuple[u64, ...] = (u64(0), *(u64(register.writable) for register in _plain))
"""By place: the bits that writing changes."""
INITIAL: tuple[u64, ...] = (u64(0), *(u64(register.initial) for register in _plain))
"""By place: values after a reset."""
PLACES = len(INITIAL)
CONTROL: dict[str, tuple[str, int]] = {
    register.name: ("csr", position + 1)
    for position, register in enumerate(_plain)
    if register.number < _NUMBERS
}
