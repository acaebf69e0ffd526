"""Machines that stand where another one stood: gone on with from a snapshot, copied, or in another tier."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from anyvirt.devices.bus import StateError
from anyvirt.errors import UsageError
from anyvirt.machines.disks.board import copies_of, machine_disks
from anyvirt.machines.moment import Moment
from anyvirt.machines.origin import Origin
from anyvirt.machines.snapshot import SnapshotError, read_snapshot, write_snapshot
from anyvirt.machines.state import save_machine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anyvirt.boards.virt import VirtBoard
    from anyvirt.cpu.tiers import Tier
    from anyvirt.devices.bus import State
    from anyvirt.machines.machine import Machine
    from anyvirt.machines.snapshot import Snapshot

    M = TypeVar("M", bound=Machine)


def write_machine(
    machine: Machine, directory: Path, *, compress: bool, instance: State | None = None
) -> None:
    """See Machine.snapshot; the machine stands. `instance` is what whoever runs it adds."""
    state, memory = save_machine(machine), machine.board.memory
    write_snapshot(
        directory,
        machine.configuration,
        state,
        memory.shape,
        memory.stretches(),
        machine_disks(machine.board),
        compress=compress,
        instance=instance,
    )


def read_machine(
    kind: type[M], directory: Path, tier: Tier | None, attach: Callable[[VirtBoard], object] | None
) -> M:
    """See Machine.restore."""
    return go_on(kind, read_snapshot(directory), tier, attach)


def go_on(
    kind: type[M], snapshot: Snapshot, tier: Tier | None, attach: Callable[[VirtBoard], object] | None
) -> M:
    """The one machine that a snapshot, as it was read, is made into. Raises SnapshotError."""
    try:
        return kind.standing(snapshot.origin, tier, attach)
    except (StateError, UsageError, OSError) as error:
        raise SnapshotError(f"the snapshot {snapshot.directory} cannot be restored: {error}") from None


def copy_machine(machine: M, tier: Tier | str | None, attach: Callable[[VirtBoard], object] | None) -> M:
    """See Machine.clone."""
    moment = machine.while_standing(lambda: Moment.of(machine))
    disks = copies_of(machine_disks(machine.board), moment.disks)
    origin = Origin(machine.configuration, moment.state, moment.memory, disks)
    try:
        return type(machine).standing(origin, tier or machine.tier, attach)
    except StateError as error:
        raise UsageError(f"the machine cannot be cloned: {error}") from None
