"""What a guest's command names: a program found through PATH in the guest's root, and its ISA."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from anyvirt.errors import CommandNotFoundError, NotExecutableError
from anyvirt.isa.names import Isa
from anyvirt.linux.elf import ElfError, parse_elf

if TYPE_CHECKING:
    from anyvirt.guest import Guest

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_HEADER = 4096
_MAXIMUM_LINKS = 40
_MAXIMUM_SCRIPTS = 5
_COMPATIBLE = {Isa.X86_64: (Isa.X86_64, Isa.I386), Isa.AARCH64: (Isa.AARCH64, Isa.ARM)}


@dataclass(frozen=True)
class Program:
    """An executable file: the guest's command, or the interpreter of the script that the command names."""

    path: str
    """Absolute path in the guest."""
    host_path: str
    isa: Isa
    dynamic: bool
    """Whether it needs a dynamic linker and shared libraries from its root filesystem."""


@cache
def host_isas() -> tuple[Isa, ...]:
    """The instruction sets that the host's kernel executes itself, its own first."""
    return _COMPATIBLE.get(Isa.host(), (Isa.host(),))


def host_refusal(program: Program) -> str | None:
    """Why the host's CPU cannot execute `program`, or None when it can."""
    if program.isa in host_isas():
        return None
    return f"it is a {program.isa} program and this host runs {' and '.join(host_isas())}"


def find_program(guest: Guest) -> Program:
    """The program that `guest.command` starts, looked up as execvp(3) does in the guest's root filesystem.

    Raises CommandNotFoundError and NotExecutableError with the reason.
    """
    root = os.fspath(guest.rootfs) if guest.rootfs else "/"
    name = guest.command[0]
    workdir = guest.workdir or ("/" if guest.rootfs else os.getcwd())
    overlay = _MountedView(root, tuple((mount.target, os.fspath(mount.source)) for mount in guest.mounts))
    search = guest.env.get("PATH") or (DEFAULT_PATH if guest.rootfs else os.environ.get("PATH", DEFAULT_PATH))
    return _load(overlay, _search(overlay, name, workdir, search), name)


@dataclass(frozen=True)
class _MountedView:
    """A root filesystem as the guest sees it: a host directory with host paths mounted over it."""

    root: str
    mounts: tuple[tuple[str, str], ...]

    def host_path(self, path: str) -> str:
        """The host's name for the guest's absolute `path`, before the last component's links are followed."""
        for target, source in sorted(self.mounts, key=lambda mount: -len(mount[0])):
            if path == target or path.startswith(target + "/"):
                return source + path[len(target) :]
        return self.root.rstrip("/") + path

    def resolve(self, path: str) -> str:
        """Follow all symbolic links in the guest's absolute `path` without ever leaving the root."""
        resolved, rest, links = "", path.split("/"), 0
        while rest:
            part = rest.pop(0)
            if part in ("", "."):
                continue
            if part == "..":
                resolved = resolved.rpartition("/")[0]
                continue
            candidate = f"{resolved}/{part}"
            try:
                target = os.readlink(self.host_path(candidate))
            except OSError:
                resolved = candidate
                continue
            links += 1
            if links > _MAXIMUM_LINKS:
                raise NotExecutableError(f"{path} cannot be executed: too many levels of symbolic links")
            if target.startswith("/"):
                resolved = ""
            rest[:0] = target.split("/")
        return resolved or "/"


def _search(view: _MountedView, name: str, workdir: str, search: str) -> str:
    if "/" in name:
        path = os.path.join(workdir, name)
        if not os.path.lexists(view.host_path(view.resolve(path))):
            raise CommandNotFoundError(f"{name}: no such file{_where(view)}")
        return path
    unusable = None
    for directory in search.split(":"):
        path = os.path.join(workdir, directory, name)
        host_path = view.host_path(view.resolve(path))
        if os.path.isfile(host_path):
            if os.access(host_path, os.X_OK):
                return path
            unusable = path
    if unusable is not None:
        return unusable
    raise CommandNotFoundError(f"{name}: command not found{_where(view)}; PATH is {search}")


def _where(view: _MountedView) -> str:
    return "" if view.root == "/" else f" in root filesystem {view.root}"


def _load(view: _MountedView, path: str, name: str, depth: int = 0) -> Program:
    host_path = view.host_path(view.resolve(path))
    data, size = _read_header(host_path, name)
    if data[:2] == b"#!":
        interpreter = _script_interpreter(data, name)
        if depth == _MAXIMUM_SCRIPTS:
            raise NotExecutableError(f"{name} cannot be executed: its interpreters are scripts without end")
        try:
            return _load(view, interpreter, interpreter, depth + 1)
        except CommandNotFoundError:
            raise CommandNotFoundError(
                f"{name}: its interpreter {interpreter} does not exist{_where(view)}"
            ) from None
    try:
        elf = parse_elf(data, size)
    except ElfError as error:
        raise NotExecutableError(f"{name} cannot be executed: it is {error}") from None
    return Program(path, host_path, elf.isa, elf.interpreter is not None)


def _script_interpreter(data: bytes, name: str) -> str:
    line = data[2:].split(b"\n", 1)[0].strip()
    words = line.split(None, 1)
    if not words or b"\0" in words[0]:
        raise NotExecutableError(f"{name} cannot be executed: its first line names no interpreter")
    return "/" + os.fsdecode(words[0]).lstrip("/")


def _read_header(host_path: str, name: str) -> tuple[bytes, int]:
    try:
        status = os.stat(host_path)
        if stat.S_ISDIR(status.st_mode):
            raise NotExecutableError(f"{name} cannot be executed: it is a directory")
        if not stat.S_ISREG(status.st_mode):
            raise NotExecutableError(f"{name} cannot be executed: it is not a regular file")
        if not os.access(host_path, os.X_OK):
            raise NotExecutableError(f"{name} cannot be executed: permission denied (it may lack `chmod +x`)")
        with open(host_path, "rb") as file:
            data = file.read(_HEADER)
    except FileNotFoundError:
        raise CommandNotFoundError(f"{name}: no such file") from None
    except PermissionError:
        # A program may be executable and yet not readable; only the kernel can then say what it is.
        raise NotExecutableError(f"{name} cannot be executed: it may not be read") from None
    if not data:
        raise NotExecutableError(f"{name} cannot be executed: it is an empty file")
    return data, status.st_size
