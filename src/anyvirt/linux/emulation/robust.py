"""Robust futexes: what a thread holds at its end is released, so that who waits learns of its death.

The kernel walks the list of a thread that ends (`exit_robust_list` in kernel/futex/core.c), but the one that
it knows is that of the emulator's thread: a guest's list holds guest addresses.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import TYPE_CHECKING

from anyvirt.cpu.host import host as native_host
from anyvirt.cpu.memory import GuestFault
from anyvirt.linux.emulation import host

if TYPE_CHECKING:
    from anyvirt.cpu.memory import FlatMemory

HEAD = struct.Struct("<QqQ")
"""`struct robust_list_head`: the first entry, the distance from an entry to its futex, one in the making."""
_NEXT = struct.Struct("<Q")
_MOST_ENTRIES = 2048
_OWNER, _OWNER_DIED, _WAITERS = 0x3FFF_FFFF, 0x4000_0000, 0x8000_0000
_FUTEX_WAKE = 1
_PRIORITY_INHERITANCE = 1
"""Bit of an entry's address."""


def release(memory: FlatMemory, head: int, owner: int) -> None:
    """Release what the thread `owner` has in its list; one that leads nowhere is followed so far."""
    if not head:
        return
    with suppress(GuestFault, OSError):
        entry, distance, making = HEAD.unpack(memory.read(head, HEAD.size))
        for _ in range(_MOST_ENTRIES):
            address = entry & ~_PRIORITY_INHERITANCE
            if address == head:
                break
            (following,) = _NEXT.unpack(memory.read(address, _NEXT.size))
            if address != making & ~_PRIORITY_INHERITANCE:
                _release_one(memory, address + distance, owner, entry)
            entry = following
        if making:
            _release_one(memory, (making & ~_PRIORITY_INHERITANCE) + distance, owner, making, making=True)


def _release_one(memory: FlatMemory, futex: int, owner: int, entry: int, *, making: bool = False) -> None:
    """Mark a futex that the thread holds, and wake one who waits for it."""
    inherits = bool(entry & _PRIORITY_INHERITANCE)
    if futex % 4:
        raise OSError
    with memory.lock:
        value = int.from_bytes(memory.read(futex, 4), "little")
        if making and not inherits and not value & _OWNER:
            _wake(memory, futex)
        if value & _OWNER != owner:
            return
        # The guest must be able to write there. That another bit is set meanwhile must not be undone.
        memory.view(futex, 4, writable=True)
        died = 0 if value & _OWNER_DIED else _OWNER_DIED
        native_host().add_word(memory.host_address(futex, 4), died - owner & 0xFFFF_FFFF)
    if not inherits:
        _wake(memory, futex)


def _wake(memory: FlatMemory, futex: int) -> None:
    host.named("futex", memory.host_address(futex, 4), _FUTEX_WAKE, 1, 0, 0, 0)
