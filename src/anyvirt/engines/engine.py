"""Engine: one way to run a guest, with what it offers on this host and the capabilities it claims."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

from anyvirt.errors import EngineUnavailableError, NotExecutableError, UnsupportedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from anyvirt.guest import Guest
    from anyvirt.instance import Instance, Streams, TerminalSize
    from anyvirt.linux.program import Program


class Architecture(StrEnum):
    """The four architectures of virtualization, and the absence of any."""

    NONE = "none"
    EMULATION = "emulation"
    OS_LEVEL = "OS-level"
    HOSTED = "hosted"
    BARE_METAL = "bare metal"


class World(StrEnum):
    """What the guest is given."""

    PROCESS = "process world"
    MACHINE = "machine"


class Execution(StrEnum):
    """How the guest's instructions run."""

    NATIVE = "natively"
    HARDWARE = "hardware virtualization"
    TRANSLATED = "translated"
    INTERPRETED = "interpreted"


class Capability(StrEnum):
    """A named feature that an engine has or has not; each claim is checked by tests/conformance."""

    TERMINAL = "terminal"
    EXEC = "exec"
    PAUSE = "pause"
    SNAPSHOT = "snapshot"
    ISOLATION = "isolation"
    ROOTFS = "rootfs"
    SHARE = "share"
    HOSTNAME = "hostname"
    LIMITS = "limits"
    PIDS = "pids"
    KERNEL = "kernel"
    DISKS = "disks"
    NETWORK = "network"
    VSOCK = "vsock"
    DETERMINISM = "determinism"
    FOREIGN_ISA = "foreign-isa"
    DEBUG = "debug"
    TRACE = "trace"

    @property
    def summary(self) -> str:
        """One line for the reader of the capability matrix."""
        return _SUMMARIES[self]


_SUMMARIES = {
    Capability.TERMINAL: "gives the guest a terminal of its own",
    Capability.EXEC: "runs further commands in a running guest",
    Capability.PAUSE: "pauses and resumes a running guest",
    Capability.SNAPSHOT: "writes a running guest to a directory, and starts guests from there",
    Capability.ISOLATION: "hides the host's processes, network and devices; changes to files are thrown away",
    Capability.ROOTFS: "runs the guest on a root filesystem of its own (--rootfs)",
    Capability.SHARE: "shares host files and directories with the guest (--mount)",
    Capability.HOSTNAME: "gives the guest a host name of its own (--hostname)",
    Capability.LIMITS: "limits memory and CPUs (--memory, --cpus)",
    Capability.PIDS: "limits processes (--pids)",
    Capability.KERNEL: "boots a kernel of the guest's own (--kernel, --initrd, --append)",
    Capability.DISKS: "gives the guest disks (--disk)",
    Capability.NETWORK: "joins the guest with networks (--network, --publish)",
    Capability.VSOCK: "has sockets between guest and host without a network (--vsock)",
    Capability.DETERMINISM: "runs a guest by counted instructions, the same each time (--deterministic)",
    Capability.DEBUG: "lets gdb debug the guest's command, or its whole machine (--gdb)",
    Capability.TRACE: "records what the guest's command executes (--trace, --coverage)",
    Capability.FOREIGN_ISA: "runs programs of other instruction sets than the host's",
}


@dataclass(frozen=True)
class Availability:
    """Whether an engine works on this host; if not, why, and what the user can do about it."""

    available: bool
    reason: str = ""
    remedy: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
    """Facts worth knowing where it works: what it found and chose on this host."""


class Engine(ABC):
    """One row of the table of engines: a description, a probe, and the making of instances.

    An engine class is instantiated once, by the registry; it holds no state about its instances.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    architecture: ClassVar[Architecture]
    world: ClassVar[World]
    execution: ClassVar[Execution]
    capabilities: ClassVar[frozenset[Capability]]
    weight: ClassVar[int]
    """Rank when an engine is chosen for the user: the lightest that can run the guest wins."""
    joins_terminal: ClassVar[bool]
    """Whether a guest can use the caller's terminal as it is (a process of the caller's session), or
    needs a pseudo-terminal of its own to have one at all."""

    @abstractmethod
    def probe(self) -> Availability:
        """Find out, by trying rather than by version numbers, whether the engine works here."""

    def probe_for(self, guest: Guest) -> Availability:
        """As `probe`, for one guest, which may bring what the host lacks."""
        return self.probe()

    def to_fetch(self) -> str | None:
        """What has to be fetched from the network, once, before guests can run, or None."""
        return None

    def fetch(self) -> None:
        """Fetch it. Raises an AnyvirtError that says why it cannot be had."""
        assert self.to_fetch() is None

    @abstractmethod
    def refusal(self, program: Program) -> str | None:
        """Why the engine cannot execute `program`, or None when it can."""

    @abstractmethod
    def create(self, guest: Guest, streams: Streams, terminal: TerminalSize | None) -> Instance:
        """Start `guest`, which has passed `check`. See `start`."""

    def start(self, guest: Guest, streams: Streams, terminal: TerminalSize | None = None) -> Instance:
        """Start `guest` with `streams` as its standard streams, or on a new terminal of the given size.

        With `terminal` the streams are not used and the instance's `terminal` is the host's end.
        Raises EngineUnavailableError, UnsupportedError, CommandNotFoundError, NotExecutableError or
        GuestStartError; then nothing is left behind.
        """
        self.check(guest)
        return self.create(guest, streams, terminal)

    def restore(self, directory: Path, streams: Streams, terminal: TerminalSize | None = None) -> Instance:
        """Start a guest that goes on where the one stood that `Instance.snapshot` was called of.

        Raises UnsupportedError, EngineUnavailableError, UsageError or GuestStartError; then nothing is left
        behind.
        """
        raise self.unsupported(Capability.SNAPSHOT, "its guests are processes of the host's kernel")

    def check(self, guest: Guest) -> None:
        """Raise the error that tells why this engine cannot run `guest`, if it cannot."""
        availability = self.probe_for(guest)
        if not availability.available:
            remedy = f"; {availability.remedy}" if availability.remedy else ""
            raise EngineUnavailableError(
                f"engine {self.name} is not available here: {availability.reason}{remedy}"
            )
        missing = next((capability for capability, _ in self.missing(guest)), None)
        if missing is not None:
            raise self.unsupported(missing, f"it cannot honour {_OPTIONS[missing]}")
        if guest.gdb is not None and not guest.command and self.world is World.PROCESS:
            raise UsageError("an idle guest has no command that gdb could debug")
        if guest.command:
            self.check_program(guest)

    def missing(self, guest: Guest) -> Iterator[tuple[Capability, str]]:
        """The capabilities that `guest` needs and this engine lacks, each with the option that needs it."""
        for capability in needed_capabilities(guest):
            if capability not in self.capabilities:
                yield capability, _OPTIONS[capability]

    def unsupported(self, capability: Capability, reason: str) -> UnsupportedError:
        """The error for a request that needs a capability this engine has not."""
        from anyvirt.engines import engine_names, get

        able = tuple(name for name in engine_names() if capability in get(name).capabilities)
        return UnsupportedError(self.name, capability, reason, alternatives=able)

    def check_program(self, guest: Guest) -> None:
        """Raise the error that tells why `guest.command` cannot be executed by this engine, if it cannot."""
        from anyvirt.linux.program import find_program

        program = find_program(guest)
        refusal = self.refusal(program)
        if refusal is not None:
            raise NotExecutableError(f"engine {self.name} cannot execute {program.path}: {refusal}")


_OPTIONS = {
    Capability.ISOLATION: "--network none",
    Capability.ROOTFS: "--rootfs",
    Capability.SHARE: "--mount",
    Capability.HOSTNAME: "--hostname",
    Capability.LIMITS: "--memory and --cpus",
    Capability.PIDS: "--pids",
    Capability.KERNEL: "--kernel, --initrd and --append",
    Capability.DISKS: "--disk",
    Capability.NETWORK: "--network and --publish",
    Capability.VSOCK: "--vsock",
    Capability.DETERMINISM: "--deterministic",
    Capability.DEBUG: "--gdb",
    Capability.TRACE: "--trace and --coverage",
}


def needed_capabilities(guest: Guest) -> tuple[Capability, ...]:
    """The capabilities that an engine must have to honour what `guest` asks for."""
    from anyvirt.guest import NetworkMode

    asked = {
        Capability.ISOLATION: guest.network is not None and guest.network.mode is NetworkMode.NONE,
        Capability.ROOTFS: guest.rootfs is not None,
        Capability.SHARE: bool(guest.mounts),
        Capability.HOSTNAME: guest.hostname is not None,
        Capability.LIMITS: guest.limits.memory is not None or guest.limits.cpus is not None,
        Capability.PIDS: guest.limits.pids is not None,
        Capability.KERNEL: guest.kernel is not None or guest.initrd is not None or bool(guest.append),
        Capability.DISKS: bool(guest.disks),
        Capability.NETWORK: guest.network is not None and guest.network.mode is not NetworkMode.NONE,
        Capability.VSOCK: guest.vsock is not None,
        Capability.DETERMINISM: guest.seed is not None,
        Capability.DEBUG: guest.gdb is not None,
        Capability.TRACE: guest.trace is not None or guest.coverage is not None,
    }
    return tuple(capability for capability, wanted in asked.items() if wanted)
