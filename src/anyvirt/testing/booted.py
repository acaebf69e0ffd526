"""Booting a machine for tests: with an agent for commands, and a shell on its console."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from anyvirt.agent.protocol import Run, RunFlag
from anyvirt.images.kernels import find_kernel
from anyvirt.images.roots import INSTALL_TOOLS, busybox_root
from anyvirt.isa.names import Isa
from anyvirt.monitor.build import build_machine, initial_file_system
from anyvirt.monitor.phases import Phases
from anyvirt.testing.command import RunningCommand
from anyvirt.testing.machine_host import BOOT_LIMIT, MachineHost

if TYPE_CHECKING:
    from anyvirt.engines.machine_engine import MachineEngine
    from anyvirt.guest import Guest
    from anyvirt.monitor.build import VirtMachine
    from anyvirt.monitor.orders import CommandOrder, MachineOrder

PROMPT = "# "
"""Of the shell on the console."""
_HOST_NAME = "guest"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CONSOLE_SHELL = Run(
    ("/bin/sh", "-i"),
    {"PATH": _PATH, "HOME": "/root", "TERM": "vt100", "PS1": PROMPT},
    flags=RunFlag.CONSOLE | RunFlag.MAIN,
)
"""When it ends, the machine is turned off."""


@dataclass(frozen=True)
class BootedKind:
    """What is booted, and how commands are run in it."""

    order: MachineOrder
    command: CommandOrder
    """Environment and working directory of commands that are not given others."""
    has_busybox: bool
    """Whether its root is the one with busybox."""
    has_shell: bool
    """Whether there is a shell on its console."""

    @classmethod
    def of(cls, engine: MachineEngine, guest: Guest, *, shell: bool) -> BootedKind:
        """For a guest; one without a root gets one with busybox. `shell`: there has to be one on its console.

        Raises what `Engine.check` raises.
        """
        guest = replace(guest, hostname=guest.hostname or _HOST_NAME)
        has_busybox = guest.rootfs is None and guest.initrd is None
        if has_busybox:
            guest = replace(guest, rootfs=busybox_root(Isa.RISCV64))
        engine.check(guest)
        command = engine.command_order(guest, (), env=guest.env, workdir=guest.workdir, terminal=None)
        return cls(engine.machine_order(guest), command, has_busybox, shell or has_busybox)

    @property
    def identity(self) -> object:
        """The same for all that boot the same, whichever way their code is executed."""
        return replace(self.order, tier=""), self.has_busybox, self.has_shell

    @property
    def console_command(self) -> Run | None:
        """What runs on its console."""
        return _CONSOLE_SHELL if self.has_shell else None

    def host(self, built: VirtMachine) -> MachineHost:
        """A machine with what its commands are run with."""
        return MachineHost(built, dict(self.command.environment), self.command.directory)


def boot(kind: BootedKind) -> MachineHost:
    """A machine that has booted, and stands still. Raises what `Engine.start` raises, and GuestStartError."""
    host = kind.host(build_machine(kind.order, Phases(time.monotonic()), run=kind.console_command))
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


def boot_inputs(kind: BootedKind, scratch: Path) -> tuple[Path, Path]:
    """The kernel and the initial file system, written to a directory, that `boot` begins with."""
    path = Path(kind.order.kernel) if kind.order.kernel is not None else None
    kernel = find_kernel(Isa.RISCV64, path=path)
    return kernel.path, initial_file_system(kind.order, kernel, kind.console_command, scratch)
