"""What the Linux ABI of one guest ISA is made of: registers, numbers, layouts of structures, as data.

The host is taken to be x86-64. Layouts are `struct` formats with explicit padding; riscv64's are those of
include/uapi/asm-generic and of arch/riscv/include/uapi/asm in Linux.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING

from anyvirt.isa.names import Isa
from anyvirt.linux.system_calls import system_call_numbers

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class StatLayout:
    """`struct stat` and the order of its fields; padding is `x` in the format."""

    structure: Struct
    fields: tuple[str, ...]


_TIMES = ("atime", "atime_nsec", "mtime", "mtime_nsec", "ctime", "ctime_nsec")

HOST_STAT = StatLayout(
    Struct("<QQQIII4xQqqqqQqQqQ24x"),
    ("dev", "ino", "nlink", "mode", "uid", "gid", "rdev", "size", "blksize", "blocks", *_TIMES),
)
"""arch/x86/include/uapi/asm/stat.h."""

GENERIC_STAT = StatLayout(
    Struct("<QQIIIIQ8xqi4xqqQqQqQ8x"),
    ("dev", "ino", "mode", "nlink", "uid", "gid", "rdev", "size", "blksize", "blocks", *_TIMES),
)
"""include/uapi/asm-generic/stat.h on 64-bit."""


def _order(guest: StatLayout) -> tuple[int, ...]:
    return tuple(HOST_STAT.fields.index(name) for name in guest.fields)


HOST_EPOLL_EVENT = Struct("<IQ")
"""Packed on x86-64 alone (EPOLL_PACKED in include/uapi/linux/eventpoll.h)."""


@dataclass(frozen=True)
class Abi:
    """One guest ISA under Linux."""

    isa: Isa
    machine: bytes
    """What uname(2) reports."""
    numbers: Mapping[str, int]
    stack_register: int
    number_register: int
    argument_registers: slice
    result_register: int
    call_length: int
    """Bytes of the instruction that makes a system call."""
    thread_register: int
    tls_argument: int
    """Which argument of clone(2) is the thread pointer; it differs (CONFIG_CLONE_BACKWARDS)."""
    child_tid_argument: int
    stat: StatLayout
    stat_order: tuple[int, ...]
    """For each of the guest's fields of a status, its place among the host's."""
    epoll_event: Struct
    hwcap: int
    """AT_HWCAP; for RISC-V one bit for each single-letter extension."""


def _extensions(letters: str) -> int:
    return sum(1 << (ord(letter) - ord("A")) for letter in letters)


RISCV64 = Abi(
    isa=Isa.RISCV64,
    machine=b"riscv64",
    numbers=system_call_numbers("riscv64"),
    stack_register=2,
    number_register=17,
    argument_registers=slice(10, 16),
    result_register=10,
    call_length=4,
    thread_register=4,
    tls_argument=3,
    child_tid_argument=4,
    stat=GENERIC_STAT,
    stat_order=_order(GENERIC_STAT),
    epoll_event=Struct("<I4xQ"),
    hwcap=_extensions("IMAFDC"),
)
