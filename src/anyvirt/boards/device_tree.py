"""Device trees: nodes with properties, and the flattened form that firmware and kernels read.

Devicetree Specification 0.4, chapters 2 (structure and conventions) and 5 (flattened format).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from anyvirt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

Property = int | str | bytes | tuple[int, ...] | list[str] | None
"""A value: one cell, text, bytes as they are, cells, several texts, or nothing but its being there."""

_FORMAT_VERSION = 17


@dataclass
class Node:
    """A node, its properties in their order, and its children."""

    name: str
    """With the unit address, such as "serial@10000000"."""
    properties: dict[str, Property] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)


def cells64(*numbers: int) -> tuple[int, ...]:
    """Numbers of two cells each, the upper half first (section 2.2.4, and addresses of 64 bits)."""
    return tuple(half for number in numbers for half in (number >> 32, number & 0xFFFF_FFFF))


def flatten(root: Node) -> bytes:
    """The tree as a blob (DTB) of version 17. Raises UsageError for text that is not ASCII."""
    from fdt import FDT, Header

    tree = FDT(Header())
    tree.header.version = _FORMAT_VERSION
    tree.root = _converted(root)
    return bytes(tree.to_dtb())


def _converted(node: Node) -> Any:  # noqa: ANN401
    """The node in the terms of the library, which has no types."""
    import fdt

    found = fdt.Node(node.name)
    for name, value in node.properties.items():
        content = _encoded(name, value)
        found.append(fdt.PropBytes(name, data=content) if content else fdt.Property(name))
    for child in node.children:
        found.append(_converted(child))
    return found


def _encoded(name: str, value: Property) -> bytes:
    match value:
        case None:
            return b""
        case bytes():
            return value
        case int():
            return value.to_bytes(4, "big")
        case str():
            return _texts(name, [value])
        case tuple():
            return b"".join(cell.to_bytes(4, "big") for cell in value)
    return _texts(name, value)


def _texts(name: str, values: Iterable[str]) -> bytes:
    try:
        encoded = [value.encode("ascii") for value in values]
    except UnicodeEncodeError:
        raise UsageError(f"{name} of a device tree takes ASCII characters only") from None
    if any(0 in text for text in encoded):
        raise UsageError(f"{name} of a device tree takes no NUL characters")
    return b"".join(text + b"\0" for text in encoded)
