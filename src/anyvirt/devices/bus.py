"""What a device sees of its machine: accesses to its registers, interrupt wires, and the machine's memory.

Everything a guest supplies comes through here, so a device checks every offset, address and length. Devices
are called by one thread at a time: whoever calls one holds the machine's lock (`anyvirt.boards`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from anyvirt.errors import AnyvirtError

if TYPE_CHECKING:
    from collections.abc import Callable

State = dict[str, Any]
"""What a device saves: names and plain values (numbers, text, bytes, lists and dictionaries of these).

The key "version" says by which layout it was saved.
"""


class BusError(AnyvirtError):
    """There is nothing at an address, or not what was asked for."""


class StateError(AnyvirtError):
    """A saved state is of another version, or does not belong to this device."""


class BusDevice(Protocol):
    """A chip, seen from the bus and from whoever saves and restores the machine."""

    def read(self, offset: int, size: int, /) -> int:
        """The value of `size` (1, 2, 4 or 8) bytes at `offset` bytes from the beginning of its registers.

        What is reserved reads as the data sheet says, or as 0; no guest can make this raise.
        """

    def write(self, offset: int, size: int, value: int, /) -> None:
        """Store a value of `size` bytes; what is reserved is ignored."""

    def reset(self) -> None:
        """Become as after power-on."""

    def save_state(self) -> State:
        """All that `load_state` of a device of the same kind needs to go on from here."""

    def load_state(self, state: State, /) -> None:
        """Go on where another one was saved. Raises StateError and changes nothing if it does not fit."""


class DirectMemory(Protocol):
    """The machine's physical memory, as devices that are bus masters reach it."""

    def read(self, address: int, length: int, /) -> bytes:
        """Bytes. Raises BusError."""

    def write(self, address: int, data: bytes | bytearray | memoryview, /) -> None:
        """Store bytes. Raises BusError; nothing is stored then."""

    def view(self, address: int, length: int, /, *, writable: bool = False) -> memoryview:
        """A window on RAM without copying. Raises BusError unless all of it is RAM.

        Whoever writes through it calls `wrote` afterwards.
        """

    def wrote(self, address: int, length: int, /) -> None:
        """RAM was changed through a view."""


class Wire:
    """An interrupt line, active high; who drives it sets a level, who listens hears of changes only."""

    def __init__(self, listener: Callable[[bool], None] | None = None) -> None:
        """`listener` is called with the new level."""
        self._listener = listener
        self._level = False

    @property
    def level(self) -> bool:
        """Whether it is active."""
        return self._level

    def connect(self, listener: Callable[[bool], None]) -> None:
        """Let somebody listen; there is one listener."""
        self._listener = listener
        if self._level:
            listener(True)

    def set(self, level: bool) -> None:
        """Drive the line."""
        if level is not self._level:
            self._level = level
            if self._listener is not None:
                self._listener(level)

    def pulse(self) -> None:
        """Raise it for a moment, for whoever listens to edges."""
        self.set(True)
        self.set(False)


def expect_version(state: State, version: int, device: str) -> None:
    """Refuse a state that was saved by another layout. Raises StateError."""
    if state.get("version") != version:
        raise StateError(f"the saved state of {device} is version {state.get('version')}, not {version}")
