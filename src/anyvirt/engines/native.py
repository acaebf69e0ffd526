"""The native engine: the host itself, without isolation. The baseline of every comparison."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from anyvirt.engines.engine import Architecture, Availability, Capability, Engine, Execution, World
from anyvirt.engines.host_process import HostProcessInstance
from anyvirt.linux.program import host_refusal

if TYPE_CHECKING:
    from anyvirt.guest import Guest
    from anyvirt.instance import Instance, Streams, TerminalSize
    from anyvirt.linux.program import Program


class NativeEngine(Engine):
    """Starts the guest's command as a child process and nothing more."""

    name = "native"
    summary = "the host itself: no isolation, the baseline of comparisons"
    architecture = Architecture.NONE
    world = World.PROCESS
    execution = Execution.NATIVE
    capabilities = frozenset({Capability.TERMINAL, Capability.EXEC, Capability.PAUSE})
    weight = 0
    joins_terminal = True

    def probe(self) -> Availability:
        """The host is always there."""
        return Availability(available=True)

    def refusal(self, program: Program) -> str | None:
        """The host's CPU runs its own instruction sets only."""
        return host_refusal(program)

    def create(self, guest: Guest, streams: Streams, terminal: TerminalSize | None) -> Instance:
        """See Engine.create."""
        env = {**os.environ, **guest.env}
        return HostProcessInstance(self, guest, prefix=(), env=env, streams=streams, terminal=terminal)
