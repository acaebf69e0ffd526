"""What the run-time knows of the host's blob and of MXCSR: all it needs once the blob is compiled."""

from __future__ import annotations

from enum import IntEnum

MXCSR_DEFAULT = 0x1F80
"""All exceptions masked, none accrued, round to nearest."""
ROUNDING_CONTROL = (0, 3, 1, 2, 0, 0, 0, 0)
"""MXCSR bits 14:13 for each RISC-V rounding mode; those the hardware lacks get to nearest."""
NOT_STARTED = -512
"""Result of `system_call` when a signal came before the call began (ERESTARTSYS, which the kernel keeps)."""

CODE_RANGES = 64
RING_ENTRIES = 128
SIGNAL_INFO_WORDS = 16
"""A siginfo_t has 128 bytes."""
RING_ENTRY = 8 * (3 + SIGNAL_INFO_WORDS)

ARENA_GRANULE = 64
"""Bytes of the arena, a line of the host's caches, that belong to one image."""


class Data(IntEnum):
    """Offsets in the blob's data."""

    STATES = 0x00
    """Address of the first state block."""
    STATES_END = 0x08
    """End of those ever used."""
    PREVIOUS_SEGV = 0x10
    """The handler that was there before, or 0."""
    PREVIOUS_BUS = 0x18
    RESTART_BEGIN = 0x20
    """Where `system_call` can still be stopped from beginning its call."""
    RESTART_END = 0x28
    RESTART_TARGET = 0x30
    RING_HEAD = 0x38
    """Signals recorded so far."""
    RING_LOST = 0x40
    ZEROS = 0x48
    """Four words: the default action for a signal."""
    ARENA = 0x68
    """First address of the arena of translations."""
    ARENA_SIZE = 0x70
    ARENA_STARTS = 0x78
    """Address of 32 bits for each granule of the arena: how many granules before it its image begins."""
    RANGES = 0x80
    """Pairs of addresses: where compiled code is."""
    RING = 0x80 + 16 * CODE_RANGES
    """Entries: sequence number (0: free), signal number, thread that it came to, siginfo_t."""
    SIZE = 0x80 + 16 * CODE_RANGES + RING_ENTRIES * RING_ENTRY


def has_segment() -> bool:
    """Whether programs of this host may set the base of segment GS: HWCAP2_FSGSBASE in getauxval(3)."""
    import ctypes

    return bool(ctypes.CDLL(None).getauxval(26) & 2)


def exceptions_of(control: int) -> int:
    """RISC-V fflags for an MXCSR: the same mapping as in compiled code."""
    order = (32, 16, 8, 4, 1)
    return sum(1 << position for position, bit in enumerate(order) if control & bit)


def control_for(rounding: int) -> int:
    """An MXCSR with the given rounding mode and no exceptions."""
    return MXCSR_DEFAULT | ROUNDING_CONTROL[rounding & 7] << 13
