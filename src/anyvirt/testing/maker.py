"""Making fresh guests for tests: containers are started, machines booted once and copied from then on."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from anyvirt.engines.machine_engine import MachineEngine
from anyvirt.instance import Streams
from anyvirt.testing.guest import FreshGuest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

    from anyvirt.engines.engine import Engine
    from anyvirt.guest import Guest
    from anyvirt.machines.machine import Machine
    from anyvirt.testing.machine_host import MachineHost
    from anyvirt.testing.template import Template


class GuestMaker:
    """Makes guests that nobody has used before. As a context manager it is closed at the end."""

    def __init__(self, *, use_kept: bool = True) -> None:
        """`use_kept`: whether machines may go on from snapshots that earlier runs have kept."""
        self._use_kept = use_kept
        self._templates: dict[object, Template] = {}

    def guest(self, engine: Engine, guest: Guest) -> FreshGuest:
        """An idle guest on an engine; commands are run in it. Raises what `Engine.start` raises.

        A machine for which no root is named gets one with busybox.
        """
        if isinstance(engine, MachineEngine):
            host = self._machine(engine, guest, shell=False)
            host.resume()
            host.connect()
            return FreshGuest(engine.name, host, machine=host.machine)
        null = os.open(os.devnull, os.O_RDWR)
        try:
            return FreshGuest(engine.name, engine.start(guest, Streams(null, null, null)))
        finally:
            os.close(null)

    @contextmanager
    def machine(self, engine: MachineEngine, guest: Guest) -> Iterator[Machine]:
        """A machine that has booted to a shell on its console, where it stands still; for a `with` block."""
        host = self._machine(engine, guest, shell=True)
        try:
            yield host.machine
        finally:
            host.close()

    def _machine(self, engine: MachineEngine, guest: Guest, *, shell: bool) -> MachineHost:
        from anyvirt.testing.booted import BootedKind
        from anyvirt.testing.template import Template

        kind = BootedKind.of(engine, guest, shell=shell)
        template = self._templates.get(kind.identity)
        if template is None:
            template = self._templates[kind.identity] = Template(kind, use_kept=self._use_kept)
        return template.copy(kind)

    def close(self) -> None:
        """Let go of what copies are made from."""
        while self._templates:
            self._templates.popitem()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
