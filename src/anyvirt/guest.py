"""Guest: what the user wants run, as frozen data that is validated once, here."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from anyvirt.errors import UsageError
from anyvirt.quantities import parse_cpus, parse_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ENVIRONMENT_NAME = re.compile(r"[^=\0]+")
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")
_INTERFACE = re.compile(r"[^\s/:\0]{1,15}")
MINIMUM_MEMORY = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Resources a guest may use at most; None means as much as the host gives."""

    memory: int | None = None
    """Bytes of memory."""
    cpus: float | None = None
    """CPU time per wall-clock time: 1.5 is one and a half CPUs."""
    pids: int | None = None
    """Processes and threads alive at once."""

    def __post_init__(self) -> None:
        if self.memory is not None and self.memory < MINIMUM_MEMORY:
            raise UsageError(
                f"a memory limit of {self.memory} bytes is too small for any guest: give at least 1M"
            )
        if self.cpus is not None and not 0.01 <= self.cpus <= 4096:
            raise UsageError(f"a limit of {self.cpus} CPUs is not between 0.01 and 4096")
        if self.pids is not None and self.pids < 1:
            raise UsageError(
                f"a limit of {self.pids} processes leaves no room for the command: give at least 1"
            )

    def __bool__(self) -> bool:
        return self != Limits()


@dataclass(frozen=True)
class Mount:
    """A host file or directory that the guest sees at a path of its own."""

    source: Path
    target: str
    read_only: bool = False

    def __post_init__(self) -> None:
        if not os.path.lexists(self.source):
            raise UsageError(f"mount source {self.source} does not exist on the host")
        if not self.target.startswith("/") or os.path.normpath(self.target) == "/":
            raise UsageError(f"mount target {self.target!r} must be an absolute path below / in the guest")
        object.__setattr__(self, "source", Path(os.path.abspath(self.source)))
        object.__setattr__(self, "target", os.path.normpath("/" + self.target.lstrip("/")))

    @classmethod
    def parse(cls, text: str) -> Mount:
        """The mount that `SRC:DST` or `SRC:DST:ro` (or `:rw`) describes."""
        source, *rest = text.split(":")
        if not source or len(rest) not in (1, 2) or rest[1:] not in ([], ["ro"], ["rw"]):
            raise UsageError(f"mount {text!r} is not SRC:DST, SRC:DST:ro or SRC:DST:rw")
        return cls(Path(source), rest[0], read_only=rest[1:] == ["ro"])


class DiskFormat(StrEnum):
    """What a disk's file holds."""

    RAW = "raw"
    QCOW2 = "qcow2"


@dataclass(frozen=True)
class Disk:
    """A file or block device of the host that a guest with a kernel of its own has as a disk."""

    path: Path
    format: DiskFormat = DiskFormat.RAW
    """Never guessed from the content, which a guest could have written."""
    read_only: bool = False

    def __post_init__(self) -> None:
        path = Path(os.path.abspath(self.path))
        if not path.exists():
            raise UsageError(f"disk {path} does not exist on the host")
        if not (path.is_file() or path.is_block_device()):
            raise UsageError(f"disk {path} is neither a file nor a block device")
        object.__setattr__(self, "path", path)

    @classmethod
    def parse(cls, text: str) -> Disk:
        """The disk that `FILE` describes, with any of `:ro`, `:raw` and `:qcow2` behind it."""
        path, *words = text.split(":")
        formats = [DiskFormat(word) for word in words if word in tuple(DiskFormat)]
        others = [word for word in words if word not in tuple(DiskFormat)]
        if not path or len(formats) > 1 or others not in ([], ["ro"]):
            raise UsageError(f"disk {text!r} is not FILE, with :ro to read only and :qcow2 for such images")
        return cls(Path(path), formats[0] if formats else DiskFormat.RAW, read_only=bool(others))


class NetworkMode(StrEnum):
    """How a guest is joined with the world."""

    NONE = "none"
    """It has loopback and nothing else."""
    USER = "user"
    """Its connections are made by a program of the caller's on the host, its loopback interface included."""
    TAP = "tap"
    """Its card is at the other end of a network interface of the host's."""


@dataclass(frozen=True)
class Network:
    """A guest's network."""

    mode: NetworkMode
    tap: str | None = None
    """The name of a tap that is there; None makes one, for as long as the guest lives."""

    def __post_init__(self) -> None:
        if self.tap is not None and self.mode is not NetworkMode.TAP:
            raise UsageError(f"a network of mode {self.mode} has no name")
        if self.tap is not None and not _INTERFACE.fullmatch(self.tap):
            raise UsageError(f"{self.tap!r} cannot be the name of a network interface")

    def check_published(self, ports: Sequence[Published]) -> None:
        """Raises UsageError if these ports cannot lead to a guest on this network."""
        if ports and self.mode is not NetworkMode.USER:
            raise UsageError("ports are published by user-mode networking: ask for the network `user`, too")
        if len({(port.protocol, port.address, port.host) for port in ports}) < len(ports):
            raise UsageError("a port of the host can be published once")

    @classmethod
    def parse(cls, text: str) -> Network:
        """The network that `none`, `user`, `tap` or `tap:NAME` describes."""
        mode, separator, name = text.partition(":")
        if mode not in tuple(NetworkMode) or (separator and mode != NetworkMode.TAP):
            raise UsageError(f"network {text!r} is not none, user, tap or tap:NAME")
        return cls(NetworkMode(mode), name if separator else None)


@dataclass(frozen=True)
class Published:
    """A port of the host whose connections are the guest's."""

    host: int
    guest: int
    address: str = "127.0.0.1"
    """The host's address; 0.0.0.0 for all that it has."""
    protocol: str = "tcp"
    """Or udp."""

    def __post_init__(self) -> None:
        for port in (self.host, self.guest):
            if not 1 <= port <= 65535:
                raise UsageError(f"{port} is no port: those are from 1 to 65535")
        if self.protocol not in ("tcp", "udp"):
            raise UsageError(f"ports of {self.protocol} cannot be published: only those of tcp and udp")
        parts = self.address.split(".")
        if len(parts) != 4 or not all(part.isdecimal() and int(part) < 256 for part in parts):
            raise UsageError(f"{self.address!r} is no IPv4 address of the host")

    @classmethod
    def parse(cls, text: str) -> Published:
        """The ports that `[ADDRESS:]HOST:GUEST` describes, with `/udp` behind it for the other protocol."""
        ports, _, protocol = text.partition("/")
        *address, host, guest = ports.split(":") if ports.count(":") in (1, 2) else ("", "", "")
        if not (host.isdecimal() and guest.isdecimal()) or text.endswith("/"):
            raise UsageError(
                f"published port {text!r} is not [ADDRESS:]HOST:GUEST or [ADDRESS:]HOST:GUEST/udp"
            )
        return cls(int(host), int(guest), address[0] if address else "127.0.0.1", protocol or "tcp")


@dataclass(frozen=True, kw_only=True)
class Guest:
    """What the user wants run.

    An empty `command` asks for an idle guest, alive until it is stopped, in which `Instance.exec` runs
    commands.
    """

    command: Sequence[str] = ()
    rootfs: Path | None = None
    """Directory that the guest sees as `/`; None is the host's own root."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables on top of the engine's defaults."""
    workdir: str | None = None
    """Absolute directory in the guest where the command starts."""
    hostname: str | None = None
    limits: Limits = Limits()
    mounts: Sequence[Mount] = ()
    kernel: Path | None = None
    """File with the kernel to boot; None lets the engine find one."""
    initrd: Path | None = None
    """Archive (cpio, as the kernel takes it) that is unpacked into memory and is the guest's root."""
    append: str = ""
    """Words for the kernel's command line, behind the engine's own."""
    disks: Sequence[Disk] = ()
    network: Network | None = None
    """None leaves it to the engine: loopback alone where guests are isolated, else the host's network."""
    published: Sequence[Published] = ()
    """Ports of the host that lead to the guest, in user-mode networking."""
    vsock: Path | None = None
    """Unix socket that is made on the host, through which the guest's virtual sockets are reached."""
    seed: int | None = None
    """Run by counted instructions, with this number in place of entropy: each run is the same.

    None: in real time, with the host's entropy."""
    gdb: str | None = None
    """Where the command, or a machine, waits for gdb before its first instruction.

    `:PORT`, `HOST:PORT` or `unix:PATH`."""

    trace: Path | None = None
    """File for a line about each instruction that the command executes."""
    coverage: Path | None = None
    """File for what the command has executed: JSON or text by its suffix (.json, .txt), drcov otherwise."""

    def __post_init__(self) -> None:
        if isinstance(self.command, str | bytes):
            raise UsageError("a guest's command is a sequence of words, not one string: write ['ls', '-l']")
        object.__setattr__(self, "command", tuple(os.fspath(word) for word in self.command))
        object.__setattr__(self, "mounts", tuple(self.mounts))
        object.__setattr__(self, "disks", tuple(self.disks))
        object.__setattr__(self, "published", tuple(self.published))
        object.__setattr__(self, "env", MappingProxyType(dict(self.env)))
        self._check_strings()
        if self.rootfs is not None:
            object.__setattr__(self, "rootfs", _existing_directory(Path(self.rootfs)))
        if self.hostname is not None and not _HOSTNAME.fullmatch(self.hostname):
            raise UsageError(f"hostname {self.hostname!r} must be 1 to 64 letters, digits, dots and hyphens")
        for name in ("trace", "coverage"):
            self._check_record(name)
        if self.seed is not None and not self.command:
            raise UsageError("an idle guest has nothing to run deterministically: give it a command")
        self._check_kernel()
        if self.vsock is not None:
            object.__setattr__(self, "vsock", Path(os.path.abspath(self.vsock)))
        (self.network or Network(NetworkMode.NONE)).check_published(self.published)
        if self.workdir is not None and not self.workdir.startswith("/"):
            raise UsageError(f"working directory {self.workdir!r} must be an absolute path in the guest")

    def _check_kernel(self) -> None:
        for name, what in (("kernel", "kernel"), ("initrd", "initial file system")):
            path = getattr(self, name)
            if path is not None:
                object.__setattr__(self, name, _existing_file(Path(path), what))
        if self.initrd is not None and self.rootfs is not None:
            raise UsageError("a guest's root is a root filesystem or an initial file system, not both")
        if not self.append.isascii() or not self.append.isprintable():
            raise UsageError(f"the kernel's command line has printable ASCII characters, not {self.append!r}")

    def _check_record(self, name: str) -> None:
        path = getattr(self, name)
        if path is None:
            return
        if not self.command:
            raise UsageError(f"an idle guest has no command whose {name} could be recorded")
        object.__setattr__(self, name, Path(os.path.abspath(path)))

    def _check_strings(self) -> None:
        if self.command and not self.command[0]:
            raise UsageError("the command's name is empty")
        if any("\0" in word for word in (*self.command, *self.env.values(), self.workdir or "")):
            raise UsageError(
                "a command, its environment and its working directory cannot contain NUL characters"
            )
        for name in self.env:
            if not _ENVIRONMENT_NAME.fullmatch(name):
                raise UsageError(f"{name!r} cannot be the name of an environment variable")


def _existing_directory(path: Path) -> Path:
    path = Path(os.path.abspath(path))
    if not path.exists():
        raise UsageError(f"root filesystem {path} does not exist")
    if not path.is_dir():
        raise UsageError(f"root filesystem {path} is not a directory")
    return path


def _existing_file(path: Path, what: str) -> Path:
    path = Path(os.path.abspath(path))
    if not path.exists():
        raise UsageError(f"{what} {path} does not exist")
    if not path.is_file():
        raise UsageError(f"{what} {path} is not a file")
    return path


def make_limits(
    *, memory: str | int | None = None, cpus: str | float | None = None, pids: int | None = None
) -> Limits:
    """Limits from values as users write them: memory as `"512M"` or bytes, cpus as `"1.5"` or a number."""
    return Limits(
        memory=parse_size(memory, what="memory limit") if isinstance(memory, str) else memory,
        cpus=parse_cpus(cpus) if isinstance(cpus, str) else cpus,
        pids=pids,
    )
