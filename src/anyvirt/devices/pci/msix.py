"""MSI-X: a table of messages, one for each vector, and an array of those that are pending.

PCI Local Bus Specification 3.0, section 6.8.2.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from anyvirt.devices.bus import StateError, expect_version
from anyvirt.devices.pci.function import Bar

if TYPE_CHECKING:
    from anyvirt.devices.bus import State
    from anyvirt.devices.pci.function import PciFunction

CAPABILITY = 0x11
ENABLE, FUNCTION_MASK = 1 << 15, 1 << 14
"""Bits of message control."""
ENTRY = struct.Struct("<QII")
"""Address, data, vector control."""
MASKED = 1
"""Bit of vector control."""
STATE_VERSION = 1

_PENDING_ARRAY = 0x800
_BAR_SIZE = 0x1000
MOST_VECTORS = _PENDING_ARRAY // ENTRY.size


class MsiX:
    """The capability of a function, with a BAR of its own."""

    def __init__(self, function: PciFunction, *, vectors: int, bar: int) -> None:
        """Give a function `vectors` vectors, whose table is in the BAR with that index."""
        if not 0 < vectors <= MOST_VECTORS:
            raise ValueError(f"between 1 and {MOST_VECTORS} vectors are possible")
        self.vectors = vectors
        self._function = function
        self._table = bytearray(ENTRY.size * vectors)
        self._pending: set[int] = set()
        body = struct.pack("<HII", vectors - 1, bar, _PENDING_ARRAY | bar)
        offset = function.add_capability(CAPABILITY, body, (ENABLE | FUNCTION_MASK).to_bytes(2, "little"))
        self._control = offset + 2
        function.add_bar(Bar(bar, _BAR_SIZE, self))
        function.on_change.append(self._retry)
        self.reset()

    @property
    def is_enabled(self) -> bool:
        """Whether the function uses messages instead of INTx."""
        return bool(self._function.get(self._control, 2) & ENABLE)

    def notify(self, vector: int) -> None:
        """Send a vector's message, or keep it pending while that is masked."""
        if not 0 <= vector < self.vectors or not self.is_enabled:
            return
        address, data, control = ENTRY.unpack_from(self._table, ENTRY.size * vector)
        masked = control & MASKED or self._function.get(self._control, 2) & FUNCTION_MASK
        if masked or not self._function.send_message(address & ~3, data):
            self._pending.add(vector)
        else:
            self._pending.discard(vector)

    def _retry(self) -> None:
        """Masks and the command register may have changed."""
        for vector in sorted(self._pending):
            self.notify(vector)

    # The BAR --------------------------------------------------------------------------------------------

    def read(self, offset: int, size: int, /) -> int:
        """See BusDevice.read."""
        if offset < _PENDING_ARRAY:
            return int.from_bytes(self._table[offset : offset + size], "little")
        pending = sum(1 << vector for vector in self._pending)
        return pending >> 8 * (offset - _PENDING_ARRAY) & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int, /) -> None:
        """See BusDevice.write. Entries are stored to by words or double words; the array is not."""
        if size < 4 or offset % size or offset + size > len(self._table):
            return
        self._table[offset : offset + size] = value.to_bytes(size, "little")
        vector = offset // ENTRY.size
        if vector in self._pending:
            self.notify(vector)

    # Life -----------------------------------------------------------------------------------------------

    def forget(self, vector: int) -> None:
        """Let a vector no longer be pending: its cause is gone."""
        self._pending.discard(vector)

    def reset(self) -> None:
        """Mask all vectors."""
        self._pending.clear()
        for vector in range(self.vectors):
            ENTRY.pack_into(self._table, ENTRY.size * vector, 0, 0, MASKED)

    def save_state(self) -> State:
        """See BusDevice.save_state."""
        return {"version": STATE_VERSION, "table": bytes(self._table), "pending": sorted(self._pending)}

    def load_state(self, state: State, /) -> None:
        """See BusDevice.load_state."""
        expect_version(state, STATE_VERSION, "MSI-X")
        table, pending = state.get("table"), state.get("pending")
        if not isinstance(table, bytes) or len(table) != len(self._table) or not isinstance(pending, list):
            raise StateError("the saved state of MSI-X is of a function with other vectors")
        self._table[:] = table
        self._pending = {vector for vector in pending if vector in range(self.vectors)}
