"""What a kernel module says of itself: its ELF section `.modinfo` (Linux, include/linux/module.h).

Any class and byte order of ELF, since modules are read for guests of every ISA.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyvirt.images.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_RELOCATABLE = 1


@dataclass(frozen=True)
class ModuleInformation:
    """The statements that decide what has to be loaded with a module."""

    depends: tuple[str, ...] = ()
    """Modules whose symbols it uses."""
    before: tuple[str, ...] = ()
    """Modules or aliases that are loaded before it where they exist ("softdep: pre")."""
    after: tuple[str, ...] = ()
    """Modules or aliases that are loaded after it where they exist ("softdep: post")."""
    aliases: tuple[str, ...] = ()
    version_magic: str = ""
    """The kernel it was built for: `vermagic`, which begins with that kernel's version."""


def module_information(content: bytes, *, what: str) -> ModuleInformation:
    """Parse an uncompressed module. Raises ImageError, which calls it `what`, for anything else."""
    try:
        statements = list(_statements(_modinfo(content)))
    except (struct.error, ValueError, IndexError):
        raise ImageError(f"{what} is not a kernel module") from None
    values = {name: [value for key, value in statements if key == name] for name, _ in statements}
    soft = [word for value in values.get("softdep", []) for word in ["", *value.split()]]
    return ModuleInformation(
        depends=tuple(name for value in values.get("depends", []) for name in value.split(",") if name),
        before=tuple(_of_kind(soft, "pre:")),
        after=tuple(_of_kind(soft, "post:")),
        aliases=tuple(values.get("alias", [])),
        version_magic=next(iter(values.get("vermagic", [])), ""),
    )


def _statements(section: bytes) -> Iterator[tuple[str, str]]:
    for statement in section.split(b"\0"):
        name, separator, value = statement.decode(errors="replace").partition("=")
        if separator:
            yield name, value


def _of_kind(words: list[str], wanted: str) -> Iterator[str]:
    """The names behind the word "pre:" or "post:"; an empty word separates statements."""
    kind = ""
    for word in words:
        if word in ("", "pre:", "post:"):
            kind = word
        elif kind == wanted:
            yield word


def _modinfo(content: bytes) -> bytes:
    """The section `.modinfo` (System V ABI, chapter 4: ELF header and section headers)."""
    if content[:4] != b"\x7fELF" or content[4] not in (1, 2) or content[5] not in (1, 2):
        raise ValueError
    order, wide = "<>"[content[5] - 1], content[4] == 2
    header = struct.unpack_from(order + ("HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH"), content, 16)
    kind, table, (entry_size, count, names_index) = header[0], header[5], header[10:]
    if kind != _RELOCATABLE:
        raise ValueError
    section = struct.Struct(order + ("IIQQQQ" if wide else "IIIIII"))
    headers = [section.unpack_from(content, table + index * entry_size) for index in range(count)]
    names = content[headers[names_index][4] :]
    for name, _, _, _, offset, size in headers:
        if names[name : name + len(b".modinfo\0")] == b".modinfo\0" and offset + size <= len(content):
            return content[offset : offset + size]
    raise ValueError
