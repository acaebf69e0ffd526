"""Making fresh guests for tests: containers are started, machines booted once and copied from then on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from anyvirt.engines.machine_engine import MachineEngine
from anyvirt.instance import Streams
from anyvirt.testing.booted import BootedKind, boot
from anyvirt.testing.guest import FreshGuest

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from anyvirt.engines.engine import Engine
    from anyvirt.guest import Guest
    from anyvirt.machines.machine import Machine


class GuestMaker:
    """Makes guests that nobody has used before. As a context manager it is closed at the end."""

    def __init__(self, *, use_kept: bool = True) -> None:
        """`use_kept`: whether machines may go on from snapshots that earlier runs have kept."""
        self._use_kept = use_kept

    def guest(self, engine: Engine, guest: Guest) -> FreshGuest:
        """An idle guest on an engine; commands are run in it. Raises what `Engine.start` raises.

        A machine for which no root is named gets one with busybox.
        """
        if isinstance(engine, MachineEngine):
            host = boot(BootedKind.of(engine, guest, shell=False))
            host.resume()
            return FreshGuest(engine.name, host, machine=host.machine)
        null = os.open(os.devnull, os.O_RDWR)
        try:
            return FreshGuest(engine.name, engine.start(guest, Streams(null, null, null)))
        finally:
            os.close(null)

    def machine(self, engine: MachineEngine, guest: Guest) -> Machine:
        """A machine that has booted to a shell on its console, where it stands still."""
        return boot(BootedKind.of(engine, guest, shell=True)).machine

    def close(self) -> None:
        """Let go of what copies are made from."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
