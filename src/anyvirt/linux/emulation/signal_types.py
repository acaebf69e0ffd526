"""Signals as data: actions, alternate stacks and `siginfo_t`, with the kernel's layouts.

These layouts are those of include/uapi/asm-generic, the same for x86-64 and riscv64.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntFlag

MASK_SIZE = 8
INFO_SIZE = 128
SIG_DFL, SIG_IGN = 0, 1
SI_USER, SI_TKILL = 0, -6
SS_ONSTACK, SS_DISABLE, SS_AUTODISARM = 1, 2, 1 << 31
STACK = struct.Struct("<Qi4xQ")
"""`stack_t`: address, flags, size."""


def bit(number: int) -> int:
    """The place of a signal in a `sigset_t`."""
    return 1 << (number - 1)


class ActionFlags(IntFlag):
    """`sa_flags` (include/uapi/asm-generic/signal-defs.h)."""

    NOCLDSTOP = 0x1
    NOCLDWAIT = 0x2
    SIGINFO = 0x4
    ONSTACK = 0x0800_0000
    RESTART = 0x1000_0000
    NODEFER = 0x4000_0000
    RESETHAND = 0x8000_0000


@dataclass(frozen=True, slots=True)
class Action:
    """What the guest wants done on a signal."""

    handler: int = SIG_DFL
    flags: int = 0
    mask: int = 0

    @property
    def handled(self) -> bool:
        """Whether a function of the guest is to be called."""
        return self.handler not in (SIG_DFL, SIG_IGN)


@dataclass(frozen=True, slots=True)
class AlternateStack:
    """The stack that handlers with SA_ONSTACK run on (sigaltstack(2))."""

    address: int = 0
    size: int = 0
    flags: int = SS_DISABLE

    def __contains__(self, stack_pointer: int) -> bool:
        return not self.disabled and 0 < stack_pointer - self.address <= self.size

    @property
    def disabled(self) -> bool:
        """Whether there is none."""
        return bool(self.flags & SS_DISABLE)


@dataclass(frozen=True, slots=True)
class Pending:
    """A signal that has arrived and waits for its handler, with its `siginfo_t`."""

    number: int
    info: bytes

    @property
    def is_for_thread(self) -> bool:
        """Whether it was sent to one thread (tgkill(2)); others are for any thread of the process."""
        return int.from_bytes(self.info[8:12], "little", signed=True) == SI_TKILL


def make_info(number: int, code: int, address: int = 0) -> bytes:
    """A `siginfo_t` for a fault at `address` (include/uapi/asm-generic/siginfo.h)."""
    return struct.pack("<iii4xQ", number, 0, code, address).ljust(INFO_SIZE, b"\0")


def stack_bytes(stack: AlternateStack) -> bytes:
    """A `stack_t`."""
    flags = stack.flags - (1 << 32) if stack.flags >> 31 else stack.flags
    return STACK.pack(stack.address, flags, stack.size)
