"""The fields of control and status registers by name, for debuggers: what is where, and what values mean.

Privileged (see `anyvirt.isa.riscv64_system.hart`); each entry names the section that it follows. Nothing
that executes instructions depends on this.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anyvirt.isa.riscv64_system.hart import Cause, Environment, Interrupt, Privilege, Status

if TYPE_CHECKING:
    from collections.abc import Mapping
    from enum import IntEnum


@dataclass(frozen=True)
class Field:
    """Some bits of a register that stand beside each other."""

    name: str
    lowest: int
    width: int = 1
    meanings: Mapping[int, str] = field(default_factory=dict)
    """What values stand for, where that is worth a name."""

    def of(self, value: int) -> int:
        """The value of the field in that of the register."""
        return value >> self.lowest & (1 << self.width) - 1

    def shown(self, value: int) -> str:
        """The field in a register's value, with what it means."""
        here = self.of(value)
        meaning = self.meanings.get(here)
        number = str(here) if here < 10 else f"{here:#x}"
        return f"{self.name}={number}({meaning})" if meaning else f"{self.name}={number}"


PRIVILEGES: Mapping[int, str] = {
    Privilege.USER: "user",
    Privilege.SUPERVISOR: "supervisor",
    Privilege.MACHINE: "machine",
}
_UNITS = {0: "off", 1: "initial", 2: "clean", 3: "dirty"}
_WIDTHS = {1: "32", 2: "64", 3: "128"}
_VECTORS = {0: "direct", 1: "vectored"}
MODES = {0: "bare", 8: "Sv39", 9: "Sv48", 10: "Sv57"}
_MATCHING = {0: "off", 1: "TOR", 2: "NA4", 3: "NAPOT"}
_ROUNDING = {0: "to nearest, ties to even", 1: "towards zero", 2: "down", 3: "up", 4: "to nearest, ties away"}
EXCEPTIONS: Mapping[int, str] = {
    Cause.FETCH_MISALIGNED: "instruction address misaligned",
    Cause.FETCH_ACCESS: "instruction access fault",
    Cause.ILLEGAL_INSTRUCTION: "illegal instruction",
    Cause.BREAKPOINT: "breakpoint",
    Cause.LOAD_MISALIGNED: "load address misaligned",
    Cause.LOAD_ACCESS: "load access fault",
    Cause.STORE_MISALIGNED: "store/AMO address misaligned",
    Cause.STORE_ACCESS: "store/AMO access fault",
    Cause.USER_CALL: "environment call from U-mode",
    Cause.SUPERVISOR_CALL: "environment call from S-mode",
    Cause.MACHINE_CALL: "environment call from M-mode",
    Cause.FETCH_PAGE: "instruction page fault",
    Cause.LOAD_PAGE: "load page fault",
    Cause.STORE_PAGE: "store/AMO page fault",
}
INTERRUPTS: Mapping[int, str] = {
    Interrupt.SUPERVISOR_SOFTWARE: "supervisor software interrupt",
    Interrupt.MACHINE_SOFTWARE: "machine software interrupt",
    Interrupt.SUPERVISOR_TIMER: "supervisor timer interrupt",
    Interrupt.MACHINE_TIMER: "machine timer interrupt",
    Interrupt.SUPERVISOR_EXTERNAL: "supervisor external interrupt",
    Interrupt.MACHINE_EXTERNAL: "machine external interrupt",
}


def _bits(fields: type[IntEnum], meanings: Mapping[str, Mapping[int, str]]) -> tuple[Field, ...]:
    """The fields that an enumeration of masks declares, from the lowest up."""
    result = []
    for member in sorted(fields):
        lowest = (member & -member).bit_length() - 1
        result.append(Field(member.name, lowest, member.bit_count(), meanings.get(member.name, {})))
    return tuple(result)


def _numbered(letters: str, names: type[IntEnum]) -> tuple[Field, ...]:
    """One bit for each member, named by the initials of its words and some letters."""
    return tuple(
        Field("".join(word[0] for word in member.name.split("_")) + letters, int(member)) for member in names
    )


# "Machine Status (mstatus and mstatush) Registers".
_STATUS = _bits(
    Status,
    {
        "SPP": PRIVILEGES, "MPP": PRIVILEGES, "FS": _UNITS, "UXL": _WIDTHS, "SXL": _WIDTHS,
    },
)  # fmt: skip
_SUPERVISOR_STATUS = tuple(
    each for each in _STATUS if each.name in ("SIE", "SPIE", "SPP", "FS", "SUM", "MXR", "UXL", "SD")
)
_TRAP_VECTOR = (Field("MODE", 0, 2, _VECTORS), Field("BASE", 2, 62))
_ENABLED, _PENDING = _numbered("IE", Interrupt), _numbered("IP", Interrupt)


def _without_machine(fields: tuple[Field, ...]) -> tuple[Field, ...]:
    return tuple(each for each in fields if each.name.startswith("S"))


_ENVIRONMENT = _bits(Environment, {})
_COUNTERS = (Field("CY", 0), Field("TM", 1), Field("IR", 2))
_PROTECTION: tuple[tuple[int, str, int, Mapping[int, str]], ...] = (
    (0, "R", 1, {}), (1, "W", 1, {}), (2, "X", 1, {}), (3, "A", 2, _MATCHING), (7, "L", 1, {}),
)  # fmt: skip


def _protection(first: int) -> tuple[Field, ...]:
    """Section "Physical Memory Protection CSRs": eight entries of a byte each."""
    return tuple(
        Field(f"{name}{first + entry}", 8 * entry + place, width, meanings)
        for entry in range(8)
        for place, name, width, meanings in _PROTECTION
    )


FIELDS: Mapping[str, tuple[Field, ...]] = {
    "mstatus": _STATUS,
    "sstatus": _SUPERVISOR_STATUS,
    "misa": (
        *(Field(chr(ord("A") + bit), bit) for bit in range(26)),
        Field("MXL", 62, 2, _WIDTHS),
    ),
    "mtvec": _TRAP_VECTOR,
    "stvec": _TRAP_VECTOR,
    "mie": _ENABLED,
    "sie": _without_machine(_ENABLED),
    "mip": _PENDING,
    "sip": _without_machine(_PENDING),
    "mideleg": _numbered("I", Interrupt),
    "medeleg": tuple(Field(member.name, int(member)) for member in Cause),
    "mcounteren": _COUNTERS,
    "scounteren": _COUNTERS,
    "menvcfg": _ENVIRONMENT,
    "senvcfg": tuple(each for each in _ENVIRONMENT if each.lowest < 8),
    # "Supervisor Address Translation and Protection (satp) Register".
    "satp": (Field("PPN", 0, 44), Field("ASID", 44, 16), Field("MODE", 60, 4, MODES)),
    "pmpcfg0": _protection(0),
    "pmpcfg2": _protection(8),
    # Volume I, "Floating-Point Control and Status Register".
    "fcsr": (
        Field("NX", 0), Field("UF", 1), Field("OF", 2), Field("DZ", 3), Field("NV", 4),
        Field("FRM", 5, 3, _ROUNDING),
    ),
    "fflags": (Field("NX", 0), Field("UF", 1), Field("OF", 2), Field("DZ", 3), Field("NV", 4)),
    "frm": (Field("FRM", 0, 3, _ROUNDING),),
}  # fmt: skip
"""By register, from the lowest bit up. Registers that are one number are not here."""


def cause_text(value: int) -> str:
    """What a value of mcause or scause says. Section "Machine Cause (mcause) Register"."""
    interrupt, code = value >> 63, value & (1 << 63) - 1
    named = INTERRUPTS if interrupt else EXCEPTIONS
    return named.get(code, f"{'interrupt' if interrupt else 'exception'} {code}")


def explained(name: str, value: int) -> str:
    """The fields of a register that are not 0, or what the register says; empty for plain numbers."""
    if name in ("mcause", "scause"):
        return cause_text(value)
    fields = FIELDS.get(name, ())
    return " ".join(each.shown(value) for each in reversed(fields) if each.of(value) or each.width > 1)
