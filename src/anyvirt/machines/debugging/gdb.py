"""Letting gdb have a machine: waiting for it, and serving it until one of both leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.debug.connection import Address, Listener
from anyvirt.debug.server import serve
from anyvirt.machines.debugging.monitor import Monitor
from anyvirt.machines.debugging.target import MachineTarget

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.debug.session import Departure
    from anyvirt.debug.target import Ended
    from anyvirt.machines.ending import Ending
    from anyvirt.machines.machine import Machine


def serve_gdb(
    machine: Machine,
    address: str,
    *,
    on_listening: Callable[[str], object] | None = None,
    run: Callable[..., Ending] | None = None,
) -> Departure | Ended:
    """Wait for gdb at an address, and let it have the machine. Raises UsageError for an address.

    `on_listening` is called with the address once gdb can come; `run` is used instead of `Machine.run`.
    """
    listener = Listener(Address.parse(address))
    if on_listening is not None:
        on_listening(str(listener.address))
    target = MachineTarget(machine, run=run, execute=Monitor(machine).execute_for)
    return serve(target, listener.accept())
