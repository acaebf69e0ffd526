"""The hooked addresses of a memory, and their tables in each space of decoded code.

Whoever decodes or translates code of a memory asks here what may not be run without being seen.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from anyvirt.jit.hook_layout import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_KEPT = 256
"""Tables out of use that stay: a CPU may still be reading the last of them."""
_WORD = 8

_lock = threading.RLock()
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


class HookTable:
    """The native table of one space of decoded code (`anyvirt.jit.hook_layout.Table`)."""

    def __init__(self, handler: int, record_size: int) -> None:
        """`handler` is the code of the handler that hooked records get."""
        self._head = (handler, record_size)
        self._cell = ctypes.c_uint64(0)
        self._words: ctypes.Array[ctypes.c_uint64] | None = None
        self._old: deque[ctypes.Array[ctypes.c_uint64]] = deque(maxlen=_KEPT)

    @property
    def cell(self) -> int:
        """Host address of the word that holds the table's address."""
        return ctypes.addressof(self._cell)

    def publish(self, addresses: Sequence[int]) -> None:
        """Replace the table by one of these addresses, which ascend. What was decoded is taken over."""
        old = self._words
        if old is not None:
            self._old.append(old)
        if not addresses:
            self._words, self._cell.value = None, 0
            return
        words = (ctypes.c_uint64 * ((Table.ENTRIES + Table.ENTRY * len(addresses)) // _WORD))()
        for place, value in zip(
            (Table.HANDLER, Table.RECORD_SIZE, Table.COUNT), (*self._head, len(addresses)), strict=True
        ):
            words[place // _WORD] = value
        known = {} if old is None else dict(_entries(old))
        for index, address in enumerate(addresses):
            start = _start(index)
            words[start] = address
            record = known.get(address)
            if record is not None:
                words[start + 1 : start + Table.ENTRY // _WORD] = record  # type: ignore[assignment]
        self._words, self._cell.value = words, ctypes.addressof(words)


def _start(index: int) -> int:
    return (Table.ENTRIES + Table.ENTRY * index) // _WORD


def _entries(words: ctypes.Array[ctypes.c_uint64]) -> Iterator[tuple[int, list[int]]]:
    for index in range(words[Table.COUNT // _WORD]):
        start = _start(index)
        yield words[start], words[start + 1 : start + Table.ENTRY // _WORD]


class HookedAddresses:
    """A set of guest addresses, each counted for as many hooks as there are."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._tables: weakref.WeakSet[HookTable] = weakref.WeakSet()

    def __contains__(self, address: object) -> bool:
        return address in self._counts

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._counts))

    def __len__(self) -> int:
        return len(self._counts)

    def attach(self, table: HookTable) -> None:
        """Keep a table up to date from now on."""
        with _lock:
            self._tables.add(table)
            table.publish(list(self))

    def add(self, address: int) -> bool:
        """Hook an address once more; whether it was not before, so that its code has to be forgotten."""
        with _lock:
            self._counts[address] += 1
            if self._counts[address] > 1:
                return False
            self._publish()
            return True

    def remove(self, address: int) -> bool:
        """Take one hook away; whether it was the last, so that the code has to be forgotten."""
        with _lock:
            self._counts[address] -= 1
            if self._counts[address] > 0:
                return False
            del self._counts[address]
            self._publish()
            return True

    def _publish(self) -> None:
        addresses = list(self)
        for table in self._tables:
            table.publish(addresses)


_hooked: weakref.WeakKeyDictionary[Any, HookedAddresses] = weakref.WeakKeyDictionary()


def hooked_addresses(memory: object) -> HookedAddresses:
    """The hooked addresses of a memory; there is one set for all executors that share it."""
    with _lock:
        return _hooked.setdefault(memory, HookedAddresses())
