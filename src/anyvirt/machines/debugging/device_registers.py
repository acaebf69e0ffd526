"""The registers of devices by name: offsets from their enumerations, values from their saved state.

Nothing is read as the guest would read it, which might take something away from it.
"""

from __future__ import annotations

import sys
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_ENUMERATIONS = ("Register", "Block", "ContextRegister", "Common")
"""How devices call the enumerations of what they have where."""
_MOST_ITEMS = 64
_DISTINCT = 5
"""Letters of a name that plurals and participles of it begin with (PRIORITY: priorities)."""


def describe_device(device: Any) -> Iterator[str]:  # noqa: ANN401 - any BusDevice
    """Lines about a device: its registers with what is known of their values, and the rest of its state."""
    state: Mapping[str, Any] = device.save_state()
    named: set[str] = set()
    for enumeration in _register_enumerations(device):
        for register in enumeration:
            keys = [key for key in state if _is_value_of(key, register.name)]
            named.update(keys)
            values = " ".join(f"{key}={_shown(state[key])}" for key in keys)
            yield f"  +{int(register):#06x} {register.name:<20} {values}".rstrip()
    yield from _state_lines(
        {key: value for key, value in state.items() if key not in (*named, "version")}, "  "
    )


def _register_enumerations(device: Any) -> Iterator[type[IntEnum]]:  # noqa: ANN401
    module = sys.modules[type(device).__module__]
    for name in _ENUMERATIONS:
        found = getattr(module, name, None)
        if isinstance(found, type) and issubclass(found, IntEnum):
            yield found


def _is_value_of(key: str, register: str) -> bool:
    """Whether a piece of state holds a register, or one of several at the same place (RBR_THR_DLL)."""
    name, initials = register.lower(), "".join(word[0] for word in key.split("_"))
    parts = name.split("_")
    if key == name or key in parts or f"{initials}r" in parts:
        return True
    return any(len(part) >= _DISTINCT and key.startswith(part[:-1]) for part in parts if part in (name, key))


def _state_lines(state: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, value in state.items():
        if isinstance(value, dict):
            yield f"{indent}{key}:"
            yield from _state_lines(value, indent + "  ")
        elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
            for number, item in enumerate(value):
                yield f"{indent}{key}[{number}]:"
                yield from _state_lines(item if isinstance(item, dict) else {"": item}, indent + "  ")
        else:
            yield f"{indent}{key} = {_shown(value)}"


def _shown(value: Any) -> str:  # noqa: ANN401 - whatever states consist of
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return f"{value:#x}" if value > 9 else str(value)
    if isinstance(value, bytes | bytearray):
        return value[:_MOST_ITEMS].hex() + ("..." if len(value) > _MOST_ITEMS else "") or "empty"
    if isinstance(value, list | tuple):
        return _list(list(value))
    return repr(value)


def _list(values: list[Any]) -> str:
    """Of long lists only what is not 0."""
    if not values:
        return "none"
    if len(values) <= 8:
        return "[" + ", ".join(map(_shown, values)) + "]"
    there = [f"{number}: {_shown(value)}" for number, value in enumerate(values) if value]
    return "{" + ", ".join(there[:_MOST_ITEMS]) + "}" if there else f"{len(values)} times 0"
