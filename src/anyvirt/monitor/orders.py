"""What an instance asks of its monitor, as data that a channel carries.

The first message on the control channel is ("make", MachineOrder, CommandOrder or None, time) with the
descriptors of the main command's channel and streams. Further ones are answered one by one:

    ("run", CommandOrder) and descriptors   ("done",), and then ("started", number in the guest) on the
                                            command's own channel, or ("failed", kind, text)
    ("pause",), ("resume",)                 ("done",)
    ("snapshot", directory, whether to compress, what is known of the guest)
                                            ("done",) or ("failed", kind, text)

A command's channel carries ("signal", number) and ("resize", rows, columns) towards the monitor, and at the
end ("ended", ...) or ("failed", ...) from it. The end of the control channel is the end of the machine.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyvirt.guest import Network, Published

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
class PortOrder:
    """A port of the host's that leads to the guest."""

    host: int
    guest: int
    address: str
    protocol: str


@dataclass(frozen=True)
class NetworkOrder:
    """What the guest's network card is joined with."""

    mode: str
    tap: str | None
    ports: tuple[PortOrder, ...]


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
    gdb: str | None = None
    """Where to wait for gdb before the first instruction."""
    network: NetworkOrder | None = None
    """None: there is no card."""
    vsock: str | None = None
    """Path of the Unix socket for virtual sockets; None: there are none."""
    seed: int | None = None
    """For a machine that is run by counted instructions, with this as its entropy."""
    snapshot: str | None = None
    """Directory with the snapshot of such a machine, to go on from; what was needed to boot is not then."""

    def message(self) -> Message:
        """As a channel carries it."""
        return astuple(self)

    @classmethod
    def of(cls, message: Message) -> MachineOrder:
        """From what `message` returned."""
        tier, memory, cpus, root, host_name, shares, disks, kernel, initrd, append, *rest = message
        gdb, network, vsock, seed, snapshot = rest
        return cls(
            tier,
            memory,
            cpus,
            root,
            host_name,
            tuple(Share(*share) for share in shares),
            tuple(DiskOrder(*disk) for disk in disks),
            kernel,
            initrd,
            append,
            gdb,
            None if network is None else _network(*network),
            vsock,
            seed,
            snapshot,
        )


def _network(mode: str, tap: str | None, ports: tuple[Any, ...]) -> NetworkOrder:
    return NetworkOrder(mode, tap, tuple(PortOrder(*port) for port in ports))


def network_order(network: Network | None, published: Sequence[Published]) -> NetworkOrder | None:
    """For a guest's network."""
    if network is None or network.mode == "none":
        return None
    ports = tuple(PortOrder(port.host, port.guest, port.address, port.protocol) for port in published)
    return NetworkOrder(network.mode.value, network.tap, ports)


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
