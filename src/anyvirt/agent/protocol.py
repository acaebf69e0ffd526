"""Frames: what the host and the agent in a guest say to each other, over any channel that carries bytes.

A frame is a header (HEADER: size of the payload, identity, kind, zero) and at most PAYLOAD_LIMIT bytes of
payload. All numbers are little-endian; a text is UTF-8 or whatever bytes the file system has, ended by a
zero byte. The same requests, written one behind the other into the file PLAN of the initial file system,
are what the agent does before it listens: one interpreter serves both.

The host asks; `identity` is a number it chooses, and the answer bears it. Every request but INPUT, CREDIT,
SIGNAL and RESIZE is answered by DONE, RUN by STARTED if it went well. The identity of a RUN stays the
command's until ENDED.

The streams of a command have windows: a side sends at most WINDOW bytes of a stream beyond what the other
has granted it by CREDIT frames (stream, count), so that a slow reader stops one stream and not the channel.
An empty INPUT, OUTPUT or ERRORS frame is the stream's end. ENDED comes behind all output that the command had
written when it ended.

A host that comes anew (after a restart, say) sends HELLO with 8 bytes of its choice, and skips what arrives
until the answer that repeats them. The commands of the host before it are killed; those of the plan remain.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, ClassVar, Protocol

from anyvirt.errors import UsageError

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Interface

VERSION = 1
HEADER = struct.Struct("<IIHH")
HEADER_SIZE = 12
PAYLOAD_LIMIT = 1 << 16
WINDOW = 1 << 16
"""Bytes of a stream that may be on their way without having been granted."""
NONCE_SIZE = 8
PLAN = "/anyvirt/plan"
"""Where the agent looks for the requests that it begins with."""
PORT_NAME = "org.anyvirt.agent"
"""The name of the virtio-console port that is the agent's channel in a machine."""
PLAN_IDENTITY = 1 << 31
"""The requests of the plan bear this number and those behind it; a host counts below."""
COMMAND_LIMIT = 64
"""Commands that can run at a time."""


class Kind(IntEnum):
    """What a frame is; up to 63 from the host, from 64 on from the agent."""

    HELLO = 1  # nonce
    CHANNEL = 2  # text: a port's name, a path, or the number of a descriptor; in a plan only
    MAKE_DIRECTORY = 3  # u32 mode, text; parents are made too, one that is there is left alone
    LINK = 4  # texts: target, path
    MOUNT = 5  # u64 flags, u32 milliseconds to wait for the source, texts: source, target, type, options
    LOAD_MODULE = 6  # texts: path, parameters; one that is loaded is left alone
    SWITCH_ROOT = 7  # text: the directory that becomes the root
    HOST_NAME = 8  # text
    RUN = 9  # see Run
    INPUT = 10  # bytes
    CREDIT = 11  # u32 stream, u32 bytes; in both directions
    SIGNAL = 12  # u32 signal, u32: 1 to its process group
    RESIZE = 13  # u16 rows, u16 columns, 4 zero bytes (struct winsize)
    SHUTDOWN = 14  # u32 Shutdown, u32 milliseconds between SIGTERM and SIGKILL
    INTERFACE_UP = 15  # text: a network interface, such as lo
    ADDRESS = 16  # address and mask, 4 bytes each as packets have them, text: a network interface
    GATEWAY = 17  # address, 4 bytes, text: a network interface; where all goes that has no other route
    WRITE_FILE = 18  # u32 mode, texts: path, content; a file or link that is there is replaced

    WELCOME = 64  # nonce, u32 version, u32 steps of the plan done, u32 error of the next, u32 its kind, uname
    DONE = 65  # u32 error number or 0, u32 Step
    STARTED = 66  # u32 process number in the guest
    OUTPUT = 67  # bytes
    ERRORS = 68  # bytes of the standard error stream
    ENDED = 69  # u32 wait status, u32 zero, u64 user and system time (us), u64 peak memory (bytes)


class Step(IntEnum):
    """What a RUN was at when it failed."""

    REQUEST = 0
    RESOURCES = 1
    SESSION = 2
    TERMINAL = 3
    GROUPS = 4
    USER = 5
    DIRECTORY = 6
    EXECUTE = 7


class RunFlag(IntFlag):
    """How a command is run."""

    TERMINAL = 1
    """On a pseudo-terminal, which carries INPUT and OUTPUT; otherwise there are three pipes."""
    CONSOLE = 2
    """On the agent's own standard streams, the kernel's console; there are no streams to carry."""
    MAIN = 4
    """The machine is powered off once the command has ended."""


class Shutdown(IntEnum):
    """How a machine is shut down."""

    POWER_OFF = 0
    REBOOT = 1
    HALT = 2


class Stream(IntEnum):
    """The streams of a command in CREDIT frames, by their file descriptors."""

    INPUT = 0
    OUTPUT = 1
    ERRORS = 2


def frame(kind: Kind, identity: int, payload: bytes = b"") -> bytes:
    """One frame. Raises UsageError when the payload is too large."""
    if len(payload) > PAYLOAD_LIMIT:
        raise UsageError(f"a request to the guest's agent has {len(payload)} bytes: {PAYLOAD_LIMIT} at most")
    return HEADER.pack(len(payload), identity, kind, 0) + payload


def texts(*words: str | bytes) -> bytes:
    """Words as texts one behind the other. Raises UsageError for one with a zero byte."""
    encoded = [os.fsencode(word) for word in words]
    if any(b"\0" in word for word in encoded):
        raise UsageError("a word for the guest holds a zero byte, which no command or path can have")
    return b"".join(word + b"\0" for word in encoded)


class Request(Protocol):
    """Something that the agent is asked to do and answers with DONE."""

    kind: ClassVar[Kind]

    def payload(self) -> bytes:
        """The bytes of the frame behind its header."""


@dataclass(frozen=True)
class Channel:
    """Listen on a virtio-console port by its name, on a device by its path, or on an open descriptor."""

    kind: ClassVar = Kind.CHANNEL
    name: str = PORT_NAME

    def payload(self) -> bytes:
        """See Request."""
        return texts(self.name)


@dataclass(frozen=True)
class MakeDirectory:
    """Make a directory and those above it."""

    kind: ClassVar = Kind.MAKE_DIRECTORY
    path: str
    mode: int = 0o755

    def payload(self) -> bytes:
        """See Request."""
        return struct.pack("<I", self.mode) + texts(self.path)


@dataclass(frozen=True)
class Link:
    """Make a symbolic link."""

    kind: ClassVar = Kind.LINK
    target: str
    path: str

    def payload(self) -> bytes:
        """See Request."""
        return texts(self.target, self.path)


class MountFlag(IntFlag):
    """Of mount(2): MS_RDONLY and so on (Linux, include/uapi/linux/mount.h)."""

    READ_ONLY = 1
    NO_SETUID = 2
    NO_DEVICES = 4
    NO_EXECUTE = 8
    REMOUNT = 32
    BIND = 4096
    RECURSIVE = 16384


@dataclass(frozen=True)
class Mount:
    """Mount a file system on a directory that is there; `wait` seconds for its device to appear."""

    kind: ClassVar = Kind.MOUNT
    source: str
    target: str
    type: str
    flags: MountFlag = field(default=MountFlag(0))
    options: str = ""
    wait: float = 0.0

    def payload(self) -> bytes:
        """See Request."""
        head = struct.pack("<QI", self.flags, int(self.wait * 1000))
        return head + texts(self.source, self.target, self.type, self.options)


@dataclass(frozen=True)
class LoadModule:
    """Load a kernel module from an uncompressed file."""

    kind: ClassVar = Kind.LOAD_MODULE
    path: str
    parameters: str = ""

    def payload(self) -> bytes:
        """See Request."""
        return texts(self.path, self.parameters)


@dataclass(frozen=True)
class SwitchRoot:
    """Make a mounted directory the root; what is mounted on /proc, /sys, /dev and /run moves along."""

    kind: ClassVar = Kind.SWITCH_ROOT
    path: str

    def payload(self) -> bytes:
        """See Request."""
        return texts(self.path)


@dataclass(frozen=True)
class HostName:
    """Set the guest's host name."""

    kind: ClassVar = Kind.HOST_NAME
    name: str

    def payload(self) -> bytes:
        """See Request."""
        return texts(self.name)


@dataclass(frozen=True)
class InterfaceUp:
    """Let a network interface, such as `lo`, carry packets."""

    kind: ClassVar = Kind.INTERFACE_UP
    name: str

    def payload(self) -> bytes:
        """See Request."""
        return texts(self.name)


@dataclass(frozen=True)
class Address:
    """Give a network interface its IPv4 address, which has a prefix for those that are reached directly."""

    kind: ClassVar = Kind.ADDRESS
    name: str
    address: IPv4Interface

    def payload(self) -> bytes:
        """See Request."""
        return self.address.ip.packed + self.address.netmask.packed + texts(self.name)


@dataclass(frozen=True)
class Gateway:
    """Send by a gateway on an interface what there is no other route for."""

    kind: ClassVar = Kind.GATEWAY
    name: str
    address: IPv4Address

    def payload(self) -> bytes:
        """See Request."""
        return self.address.packed + texts(self.name)


@dataclass(frozen=True)
class WriteFile:
    """Write a text into a file, which replaces the file or link that is there; its directory has to be."""

    kind: ClassVar = Kind.WRITE_FILE
    path: str
    content: str
    mode: int = 0o644

    def payload(self) -> bytes:
        """See Request."""
        return struct.pack("<I", self.mode) + texts(self.path, self.content)


@dataclass(frozen=True)
class Run:
    """Run a command. Without a slash in it, it is looked for on the PATH of `environment`."""

    kind: ClassVar = Kind.RUN
    command: tuple[str | bytes, ...]
    environment: dict[str, str] = field(default_factory=dict)
    directory: str = "/"
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    flags: RunFlag = field(default=RunFlag(0))
    rows: int = 24
    columns: int = 80

    def payload(self) -> bytes:
        """u32 flags, uid, gid, number of groups, words, variables; u16 rows, columns; groups; texts."""
        if not self.command:
            raise UsageError("there is no command to run in the guest")
        head = struct.pack(
            "<6I2H",
            self.flags,
            self.uid,
            self.gid,
            len(self.groups),
            len(self.command),
            len(self.environment),
            self.rows,
            self.columns,
        )
        groups = struct.pack(f"<{len(self.groups)}I", *self.groups)
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        return head + groups + texts(self.directory, *self.command, *variables)


RUN_HEAD_SIZE = 28


def plan(requests: list[Request]) -> bytes:
    """The content of the file PLAN."""
    numbered = enumerate(requests, PLAN_IDENTITY)
    return b"".join(frame(request.kind, number, request.payload()) for number, request in numbered)
