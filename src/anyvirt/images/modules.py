"""Kernel modules: which files a guest needs for what it names, in the order in which they are loaded.

What depends on what is read from the modules themselves, so that a package that was only unpacked serves as
well as a directory that depmod(8) has been over. modules.builtin(5) names what the kernel has without files.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from anyvirt.images.compression import decompress
from anyvirt.images.errors import ImageError
from anyvirt.images.module_file import ModuleInformation, module_information
from anyvirt.paths import cache_directory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

_FILE = re.compile(r"(.+)\.ko(\.(xz|gz|zst))?")
_OVERRIDES = ("updates", "extra", "weak-updates")
"""Directories whose modules stand before the kernel's own (depmod.d(5), as distributions configure it)."""


@dataclass(frozen=True)
class Module:
    """A module with a file."""

    name: str
    path: Path

    def content(self) -> bytes:
        """The module as it is given to the kernel, uncompressed. Raises ImageError."""
        try:
            packed = self.path.read_bytes()
        except OSError as error:
            raise ImageError(f"module {self.path} cannot be read: {error.strerror}") from None
        return decompress(packed, what=f"module {self.path}")


class ModuleTree:
    """The modules of one kernel: its directory `/lib/modules/VERSION`."""

    def __init__(self, directory: Path) -> None:
        """Raises ImageError if `directory` is none."""
        if not directory.is_dir():
            raise ImageError(f"there is no directory of kernel modules at {directory}")
        self.directory = directory
        self.version = directory.name
        self._information: dict[str, ModuleInformation] = {}

    def needed(self, names: Iterable[str], *, optional: Iterable[str] = ()) -> tuple[Module, ...]:
        """The modules that give a guest all of `names`, each after what it depends on.

        A name is a module's or an alias. What is built into the kernel needs no module. Raises ImageError
        for a name that the kernel does not know at all, unless it is one of `optional`.
        """
        order: dict[str, Module] = {}
        for name in names:
            if not self._add(name, order, set()):
                raise ImageError(
                    f"kernel {self.version} has no module {name}, in {self.directory} or built in"
                )
        for name in optional:
            self._add(name, order, set())
        return tuple(order.values())

    def has(self, name: str) -> bool:
        """Whether there is a module of this name or alias, or it is built in."""
        return self._is_built_in(name) or bool(self._found(name))

    def index(self) -> None:
        """Read the aliases of all modules now, which takes some seconds, and keep them for later."""
        _ = self._aliases

    def _add(self, name: str, order: dict[str, Module], visiting: set[str]) -> bool:
        """Append what `name` needs; whether the kernel knows it."""
        if self._is_built_in(name):
            return True
        found = self._found(name)
        for plain in found:
            if plain in order or plain in visiting:
                continue
            visiting.add(plain)
            information = self._inform(plain)
            for other in information.before:
                self._add(other, order, visiting)
            for other in information.depends:
                if not self._add(other, order, visiting):
                    raise ImageError(
                        f"module {plain} of kernel {self.version} needs {other}, which is missing"
                    )
            order[plain] = Module(plain, self._paths[plain])
            for other in information.after:
                self._add(other, order, visiting)
        return bool(found)

    def _is_built_in(self, name: str) -> bool:
        return _plain(name) in self._built_in or _matching(name, self._built_in_aliases) != []

    def _found(self, name: str) -> list[str]:
        plain = _plain(name)
        return [plain] if plain in self._paths else _matching(name, self._aliases)

    def _inform(self, plain: str) -> ModuleInformation:
        if plain not in self._information:
            module = Module(plain, self._paths[plain])
            self._information[plain] = module_information(module.content(), what=f"module {module.path}")
        return self._information[plain]

    @cached_property
    def _paths(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        top = ["kernel", *sorted(os.listdir(self.directory))]
        for directory in sorted(dict.fromkeys(top), key=_OVERRIDES.__contains__):
            for path in sorted(self._files(directory)):
                match = _FILE.fullmatch(path.name)
                if match:
                    found[_plain(match[1])] = path
        return found

    def _files(self, directory: str) -> Iterator[Path]:
        for parent, _, names in os.walk(self.directory / directory):
            for name in names:
                yield self.directory / parent / name

    @cached_property
    def _built_in(self) -> frozenset[str]:
        paths = self._lines("modules.builtin")
        return frozenset(_plain(os.path.basename(path).removesuffix(".ko")) for path in paths)

    @cached_property
    def _built_in_aliases(self) -> dict[str, list[str]]:
        aliases: dict[str, list[str]] = {}
        for statement in self._text("modules.builtin.modinfo").split("\0"):
            key, _, value = statement.partition("=")
            module, _, field = key.partition(".")
            if field == "alias":
                aliases.setdefault(value, []).append(module)
        return aliases

    @cached_property
    def _aliases(self) -> Mapping[str, list[str]]:
        """From modules.alias, which depmod writes, or else from the modules, which takes a few seconds."""
        aliases: dict[str, list[str]] = {}
        for line in self._lines("modules.alias"):
            word, _, rest = line.partition(" ")
            alias, _, module = rest.rpartition(" ")
            if word == "alias" and _plain(module) in self._paths:
                aliases.setdefault(alias, []).append(_plain(module))
        return aliases or self._kept_aliases()

    def _kept_aliases(self) -> Mapping[str, list[str]]:
        status = [(name, path.stat().st_size) for name, path in self._paths.items()]
        key = hashlib.sha256(repr((self.version, status)).encode()).hexdigest()[:32]
        kept = cache_directory() / "modules" / f"{key}.json"
        try:
            aliases: dict[str, list[str]] = json.loads(kept.read_text())
        except (OSError, ValueError):
            aliases = self._read_aliases()
            kept.parent.mkdir(exist_ok=True)
            temporary = kept.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps(aliases))
            temporary.replace(kept)
        return aliases

    def _read_aliases(self) -> dict[str, list[str]]:
        aliases: dict[str, list[str]] = {}
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # what unpacks does not hold the GIL
            found = list(pool.map(self._inform, self._paths))
        for plain, information in zip(self._paths, found, strict=True):
            for alias in information.aliases:
                aliases.setdefault(alias, []).append(plain)
        return aliases

    def _lines(self, name: str) -> list[str]:
        return self._text(name).splitlines()

    def _text(self, name: str) -> str:
        try:
            return (self.directory / name).read_text(errors="replace")
        except OSError:
            return ""


def _plain(name: str) -> str:
    """A module's name as the kernel spells it: the file's may have hyphens."""
    return name.replace("-", "_")


def _matching(name: str, aliases: Mapping[str, list[str]]) -> list[str]:
    """The modules of an alias; aliases are shell patterns (modprobe.d(5)), and `-` is as good as `_`."""
    if name in aliases:
        return aliases[name]
    wanted = _plain(name)
    return list(
        dict.fromkeys(
            module
            for alias, modules in aliases.items()
            if fnmatch.fnmatchcase(wanted, _plain(alias))
            for module in modules
        )
    )
