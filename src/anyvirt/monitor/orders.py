"""What an instance asks of its monitor, as data that a channel carries.

The first message on the control channel is ("make", MachineOrder, CommandOrder or None, time) with the
descriptors of the main command's channel and streams. Further ones are answered one by one:

    ("run", CommandOrder) and descriptors   ("done",), and then ("started", number in the guest) on the
                                            command's own channel, or ("failed", kind, text)
    ("pause",), ("resume",)                 ("done",)

A command's channel carries ("signal", number) and ("resize", rows, columns) towards the monitor, and at the
end ("ended", ...) or ("failed", ...) from it. The end of the control channel is the end of the machine.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any, TypeAlias

Message: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True)
class Share:
    """A file or directory of the host, and where the guest sees it."""

    source: str
    target: str
    read_only: bool


@dataclass(frozen=True)
class DiskOrder:
    """A disk of the guest's."""

    path: str
    format: str
    read_only: bool


@dataclass(frozen=True)
class MachineOrder:
    """The machine to make."""

    tier: str
    """How its CPUs execute code (`anyvirt.cpu.tiers`)."""
    memory: int
    """Bytes of RAM."""
    cpus: int
    root: str | None
    """Directory that the guest sees as its root; changes to it are thrown away.

    None: the initial file system."""
    host_name: str
    shares: tuple[Share, ...] = ()
    disks: tuple[DiskOrder, ...] = ()
    kernel: str | None = None
    initrd: str | None = None
    """Archive for the initial file system."""
    append: str = ""
    seed: int | None = None
    """For a machine that is run by counted instructions, with this as its entropy."""
    gdb: str | None = None
    """Where to wait for gdb before the first instruction."""

    def message(self) -> Message:
        """As a channel carries it."""
        return astuple(self)

    @classmethod
    def of(cls, message: Message) -> MachineOrder:
        """From what `message` returned."""
        tier, memory, cpus, root, host_name, shares, disks, *rest = message
        return cls(
            tier,
            memory,
            cpus,
            root,
            host_name,
            tuple(Share(*share) for share in shares),
            tuple(DiskOrder(*disk) for disk in disks),
            *rest,
        )


@dataclass(frozen=True)
class CommandOrder:
    """A command to run in the guest."""

    words: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    directory: str
    terminal: tuple[int, int] | None = None
    """Rows and columns; None for three pipes."""

    def message(self) -> Message:
        """As a channel carries it."""
        return astuple(self)

    @classmethod
    def of(cls, message: Message) -> CommandOrder:
        """From what `message` returned."""
        return cls(*message)
