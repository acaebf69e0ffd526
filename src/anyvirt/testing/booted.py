"""Booting a machine for tests: with an agent for commands, and a shell on its console."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from anyvirt.agent.protocol import Run, RunFlag
from anyvirt.images.roots import INSTALL_TOOLS, busybox_root
from anyvirt.isa.names import Isa
from anyvirt.monitor.build import build_machine
from anyvirt.monitor.phases import Phases
from anyvirt.testing.command import RunningCommand
from anyvirt.testing.machine_host import BOOT_LIMIT, MachineHost

if TYPE_CHECKING:
    from anyvirt.engines.machine_engine import MachineEngine
    from anyvirt.guest import Guest
    from anyvirt.monitor.build import VirtMachine

PROMPT = "# "
"""Of the shell on the console."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CONSOLE_SHELL = Run(
    ("/bin/sh", "-i"),
    {"PATH": _PATH, "HOME": "/root", "TERM": "vt100", "PS1": PROMPT},
    flags=RunFlag.CONSOLE | RunFlag.MAIN,
)
"""When it ends, the machine is turned off."""


@dataclass(frozen=True)
class BootedKind:
    """What is booted: machines of the same kind are the same when they have booted."""

    engine: MachineEngine
    guest: Guest
    has_busybox: bool
    """Whether its root is the one with busybox."""
    has_shell: bool
    """Whether there is a shell on its console."""

    @classmethod
    def of(cls, engine: MachineEngine, guest: Guest, *, shell: bool) -> BootedKind:
        """For a guest; one without a root gets one with busybox. `shell`: there has to be one on its console.

        Raises what `Engine.check` raises.
        """
        has_busybox = guest.rootfs is None and guest.initrd is None
        if has_busybox:
            guest = replace(guest, rootfs=busybox_root(Isa.RISCV64))
        engine.check(guest)
        return cls(engine, guest, has_busybox, shell or has_busybox)

    def host(self, built: VirtMachine) -> MachineHost:
        """A machine with what its commands are run with."""
        guest = self.guest
        command = self.engine.command_order(guest, (), env=guest.env, workdir=guest.workdir, terminal=None)
        return MachineHost(built, dict(command.environment), command.directory)


def boot(kind: BootedKind) -> MachineHost:
    """A machine that has booted, and stands still. Raises what `Engine.start` raises, and GuestStartError."""
    order = kind.engine.machine_order(kind.guest)
    run = _CONSOLE_SHELL if kind.has_shell else None
    host = kind.host(build_machine(order, Phases(time.monotonic()), run=run))
    try:
        host.resume()
        host.connect()
        host.set_up()
        if kind.has_busybox:
            RunningCommand(host, INSTALL_TOOLS).wait(BOOT_LIMIT)
        host.pause()
        if kind.has_shell:
            host.machine.console.expect(rf"(?m)^{PROMPT}", timeout=BOOT_LIMIT)
    except BaseException:
        host.close()
        raise
    return host
