"""Guests in snapshots of the machines that they run in: what has to be known to go on with them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyvirt.errors import UsageError
from anyvirt.guest import Disk, DiskFormat, Guest, Limits, Mount, Network, NetworkMode, Published
from anyvirt.monitor.orders import MachineOrder

if TYPE_CHECKING:
    from anyvirt.instance import TerminalSize

_FILE = "instance.json"
"""Of a snapshot; the monitor checks that it is what was written (`anyvirt.machines.snapshot`)."""


def described(engine: str, guest: Guest, *, has_terminal: bool) -> tuple[Any, ...]:
    """What an order does not say of a guest, as plain values."""
    return engine, tuple(guest.command), tuple(guest.env.items()), guest.workdir, has_terminal


@dataclass(frozen=True)
class SavedGuest:
    """What is in a snapshot of a guest and of its machine."""

    engine: str
    """The name of the one that took it."""
    guest: Guest
    order: MachineOrder
    has_terminal: bool
    """Whether the guest's command is on a terminal."""

    @classmethod
    def read(cls, directory: Path) -> SavedGuest:
        """From a directory. Raises UsageError, also for what the guest needs of the host and is not there."""
        if not directory.is_dir():
            raise UsageError(f"there is no snapshot {directory}")
        try:
            instance = json.loads((directory / _FILE).read_bytes())
            order = MachineOrder.of(tuple(instance["order"]))
            engine, command, env, workdir, has_terminal = instance["conversation"]["guest"]
            words, variables = tuple(map(str, command)), {str(name): str(value) for name, value in env}
        except FileNotFoundError:
            raise UsageError(f"the snapshot {directory} is not one of a guest that an engine runs") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"the snapshot {directory} is damaged: {_FILE}: {error}") from None
        return cls(str(engine), _guest(order, words, variables, workdir), order, bool(has_terminal))

    def check_terminal(self, terminal: TerminalSize | None) -> None:
        """Raises UsageError if the command is on a terminal and is not to be, or the other way round."""
        if self.has_terminal and terminal is None:
            raise UsageError("the command in the snapshot is on a terminal: say how large that is")
        if terminal is not None and not self.has_terminal:
            raise UsageError("the command in the snapshot is not on a terminal, and cannot be put on one")


def _guest(order: MachineOrder, command: tuple[str, ...], env: dict[str, str], workdir: str | None) -> Guest:
    """The guest of a machine; what it was booted with is not needed any more, and may be gone."""
    joined = order.network
    return Guest(
        command=command,
        rootfs=None if order.root in (None, "/") else Path(order.root),
        env=env,
        workdir=workdir,
        hostname=order.host_name,
        limits=Limits(memory=order.memory, cpus=order.cpus),
        mounts=tuple(Mount(Path(share.source), share.target, share.read_only) for share in order.shares),
        disks=tuple(Disk(Path(disk.path), DiskFormat(disk.format), disk.read_only) for disk in order.disks),
        initrd=None if order.initrd is None else Path(order.initrd),
        append=order.append,
        network=None if joined is None else Network(NetworkMode(joined.mode), joined.tap),
        published=tuple(
            Published(port.host, port.guest, port.address, port.protocol)
            for port in (() if joined is None else joined.ports)
        ),
        vsock=None if order.vsock is None else Path(order.vsock),
    )
