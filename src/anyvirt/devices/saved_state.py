"""Saved states, read with suspicion: each value is checked before a device changes anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.devices.bus import StateError, expect_version

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anyvirt.devices.bus import State


class SavedState:
    """The state of one device on its way back. All methods raise StateError for what does not fit."""

    def __init__(self, state: State, version: int, device: str) -> None:
        """`device` is what messages call it."""
        expect_version(state, version, device)
        self._state = state
        self._device = device

    def number(self, name: str, bits: int) -> int:
        """An unsigned number."""
        return self._checked(self.value(name), name, bits)

    def numbers(self, name: str, count: int, bits: int) -> list[int]:
        """So many unsigned numbers."""
        found = self.some_numbers(name, count, bits)
        if len(found) != count:
            raise self.misfit(name)
        return found

    def some_numbers(self, name: str, most: int, bits: int) -> list[int]:
        """At most so many unsigned numbers."""
        value = self.value(name)
        if not isinstance(value, list) or len(value) > most:
            raise self.misfit(name)
        return [self._checked(element, name, bits) for element in value]

    def flag(self, name: str) -> bool:
        """A truth value."""
        value = self.value(name)
        if not isinstance(value, bool):
            raise self.misfit(name)
        return value

    def data(self, name: str, length: int) -> bytes:
        """So many bytes."""
        value = self.value(name)
        if not isinstance(value, bytes) or len(value) != length:
            raise self.misfit(name)
        return value

    def part(self, name: str, keys: Iterable[str]) -> SavedState:
        """A part with values by exactly these names."""
        value = self.value(name)
        if not isinstance(value, dict) or value.keys() != set(keys):
            raise self.misfit(name)
        return SavedState(value | {"version": 0}, 0, self._device)

    def value(self, name: str) -> object:
        """Whatever was saved by a name, for those who check it themselves."""
        if name not in self._state:
            raise self.misfit(name)
        return self._state[name]

    def misfit(self, name: str) -> StateError:
        """What to raise for a value that does not fit."""
        return StateError(f"the saved state of {self._device} has no {name} that fits")

    def _checked(self, value: object, name: str, bits: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << bits:
            raise self.misfit(name)
        return int(value)
