"""What the engines of whole machines have in common: a guest becomes orders to a monitor process."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from anyvirt.engines.engine import Availability, Capability, Engine, World, needed_capabilities
from anyvirt.errors import EngineUnavailableError, UsageError
from anyvirt.isa.names import Isa
from anyvirt.linux.program import DEFAULT_PATH

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyvirt.engines.machine_instance import MachineInstance
    from anyvirt.guest import Guest
    from anyvirt.instance import Streams, TerminalSize
    from anyvirt.linux.program import Program
    from anyvirt.monitor.orders import CommandOrder, MachineOrder

DEFAULT_MEMORY = 512 << 20
LEAST_MEMORY = 128 << 20
"""Debian's kernel needs it to unpack its initial file system."""
MOST_CPUS = 8
_PAGE = 0x1000
_MONITOR = Path(__file__).parents[1] / "monitor" / "__main__.py"


class MachineEngine(Engine):
    """Boots a Linux kernel on a RISC-V board and runs the guest's command on its root by an agent."""

    world = World.MACHINE
    capabilities = frozenset(
        {
            Capability.TERMINAL,
            Capability.EXEC,
            Capability.PAUSE,
            Capability.SNAPSHOT,
            Capability.ISOLATION,
            Capability.ROOTFS,
            Capability.SHARE,
            Capability.HOSTNAME,
            Capability.LIMITS,
            Capability.KERNEL,
            Capability.DISKS,
            Capability.NETWORK,
            Capability.VSOCK,
            Capability.DETERMINISM,
            Capability.FOREIGN_ISA,
            Capability.DEBUG,
        }
    )
    joins_terminal = False
    tier: ClassVar[str]
    """How the CPUs execute code (`anyvirt.cpu.tiers`)."""
    monitor: Sequence[str] = (sys.executable, "-I", os.fspath(_MONITOR))
    """The words that start a monitor process; the number of a descriptor is put behind them."""

    def probe(self) -> Availability:
        """The host has to be x86-64 Linux; a kernel has to be in the store, or Debian's to be had."""
        return _host_obstacle() or _kernel_source()

    def probe_for(self, guest: Guest) -> Availability:
        """See Engine.probe_for: a guest that brings its kernel needs none of the store's."""
        if guest.kernel is None:
            return self.probe()
        return _host_obstacle() or Availability(available=True)

    def to_fetch(self) -> str | None:
        """See Engine.to_fetch: a kernel for guests that bring none, unless it is in the store."""
        from anyvirt.images.kernels import stored_kernels
        from anyvirt.images.store import Store

        return None if stored_kernels(Isa.RISCV64, Store()) else f"Debian's kernel for {Isa.RISCV64} (112 MB)"

    def fetch(self) -> None:
        """See Engine.fetch."""
        from anyvirt.images.kernels import debian_kernel

        debian_kernel(Isa.RISCV64)

    def check(self, guest: Guest) -> None:
        """See Engine.check; a machine has whole CPUs, and enough memory to boot."""
        super().check(guest)
        if guest.gdb is not None:
            from anyvirt.debug.connection import Address

            Address.parse(guest.gdb)
        if guest.seed is not None:
            _check_determined(guest)
        _memory(self.name, guest)
        _cpus(self.name, guest)

    def check_program(self, guest: Guest) -> None:
        """See Engine.check_program; what is in an initial file system is found when it is there."""
        if guest.initrd is None:
            super().check_program(guest)

    def refusal(self, program: Program) -> str | None:
        """The machine's CPUs are RISC-V ones."""
        if program.isa is not Isa.RISCV64:
            return f"it is a program for {program.isa}, and this engine's machines are {Isa.RISCV64}"
        return None

    def create(self, guest: Guest, streams: Streams, terminal: TerminalSize | None) -> MachineInstance:
        """See Engine.create. The kernel boots after it has returned."""
        if guest.seed is not None and terminal is not None:
            raise UsageError(
                "a deterministic guest has no terminal: nobody types the same at the same moment again"
            )
        from anyvirt.engines.machine_instance import MachineInstance

        command = None
        if guest.command:
            command = self.command_order(
                guest, guest.command, env=guest.env, workdir=guest.workdir, terminal=terminal
            )
        return MachineInstance(self, guest, self.machine_order(guest), command, streams, terminal)

    def restore(
        self, directory: Path, streams: Streams, terminal: TerminalSize | None = None
    ) -> MachineInstance:
        """See Engine.restore. The main command goes on with new streams; those of `exec` have ended."""
        from anyvirt.engines.machine_instance import MachineInstance
        from anyvirt.engines.saved_guest import SavedGuest

        obstacle = _host_obstacle()
        if obstacle is not None:
            raise EngineUnavailableError(
                f"engine {self.name} is not available here: {obstacle.reason}; {obstacle.remedy}"
            )
        saved = SavedGuest.read(directory)
        saved.check_terminal(terminal)
        command = None
        if saved.guest.command:
            command = self.command_order(
                saved.guest,
                saved.guest.command,
                env=saved.guest.env,
                workdir=saved.guest.workdir,
                terminal=terminal,
            )
        order = replace(saved.order, tier=self.tier, gdb=None, snapshot=os.path.abspath(directory))
        return MachineInstance(self, saved.guest, order, command, streams, terminal)

    def machine_order(self, guest: Guest) -> MachineOrder:
        """The machine for a guest."""
        from anyvirt.monitor.orders import DiskOrder, MachineOrder, Share, network_order

        return MachineOrder(
            tier=self.tier,
            memory=_memory(self.name, guest),
            cpus=_cpus(self.name, guest),
            root=os.fspath(guest.rootfs or "/") if guest.initrd is None else None,
            host_name=guest.hostname or self.name,
            shares=tuple(Share(os.fspath(m.source), m.target, m.read_only) for m in guest.mounts),
            disks=tuple(DiskOrder(os.fspath(d.path), d.format.value, d.read_only) for d in guest.disks),
            kernel=os.fspath(guest.kernel) if guest.kernel is not None else None,
            initrd=os.fspath(guest.initrd) if guest.initrd is not None else None,
            append=guest.append,
            gdb=guest.gdb,
            network=network_order(guest.network, guest.published),
            vsock=os.fspath(guest.vsock) if guest.vsock is not None else None,
            seed=guest.seed,
        )

    @staticmethod
    def command_order(
        guest: Guest,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        workdir: str | None,
        terminal: TerminalSize | None,
    ) -> CommandOrder:
        """A command with a clean environment, as in a container."""
        from anyvirt.monitor.orders import CommandOrder

        on_host_root = guest.rootfs is None and guest.initrd is None
        environment = {
            "PATH": (os.environ.get("PATH") if on_host_root else None) or DEFAULT_PATH,
            "HOME": os.path.expanduser("~") if on_host_root else "/root",
        }
        if terminal is not None:
            environment["TERM"] = os.environ.get("TERM") or "xterm"
        environment |= env
        return CommandOrder(
            words=tuple(command),
            environment=tuple(environment.items()),
            directory=workdir or (os.getcwd() if on_host_root else "/"),
            terminal=(terminal.rows, terminal.columns) if terminal is not None else None,
        )


def _check_determined(guest: Guest) -> None:
    """A guest that is the same in each run has to do with nobody who is not. Raises UsageError."""
    others = {
        Capability.NETWORK: "has no network",
        Capability.VSOCK: "has no virtual sockets",
        Capability.DEBUG: "is not debugged by gdb",
    }
    for capability in needed_capabilities(guest):
        if capability in others:
            raise UsageError(f"a deterministic guest {others[capability]}: nobody does the same again there")


def _memory(engine: str, guest: Guest) -> int:
    memory = guest.limits.memory or DEFAULT_MEMORY
    if memory < LEAST_MEMORY:
        raise UsageError(
            f"engine {engine} boots a kernel, for which {memory >> 20} MiB of memory are too few: "
            f"give at least {LEAST_MEMORY >> 20}M"
        )
    return -(-memory // _PAGE) * _PAGE


def _cpus(engine: str, guest: Guest) -> int:
    cpus = guest.limits.cpus or 1
    if cpus != int(cpus) or not 1 <= cpus <= MOST_CPUS:
        raise UsageError(f"engine {engine} gives a guest 1 to {MOST_CPUS} whole CPUs, not {cpus:g}")
    return int(cpus)


def _host_obstacle() -> Availability | None:
    """Why machine code cannot be made or run here. llvmlite is looked for, not imported."""
    from importlib.util import find_spec

    machine = os.uname()
    if machine.sysname != "Linux" or machine.machine != "x86_64":
        return Availability(
            available=False,
            reason=f"it runs on x86-64 Linux and this is {machine.machine} {machine.sysname}",
            remedy="use a host with an x86-64 CPU and Linux",
        )
    if find_spec("llvmlite") is None:
        return Availability(
            available=False,
            reason="the compiler that makes the interpreter, llvmlite, is not installed",
            remedy="install it: pip install llvmlite",
        )
    return None


def _kernel_source() -> Availability:
    """Whether a kernel is there, or can be fetched; nothing is fetched here."""
    from anyvirt.images.debian import PackageError
    from anyvirt.images.kernels import debian_archive, stored_kernels
    from anyvirt.images.store import Store

    details = {"isa": Isa.RISCV64.value, "board": "virt"}
    store = Store()
    stored = stored_kernels(Isa.RISCV64, store)
    if stored:
        return Availability(available=True, details={**details, "kernel": stored[0].path.name})
    try:
        debian_archive(Isa.RISCV64, store)
    except PackageError as error:
        return Availability(
            available=False,
            reason=f"there is no kernel for {Isa.RISCV64} in the store, and Debian's cannot be had: {error}",
            remedy="name one with --kernel",
        )
    return Availability(available=True, details={**details, "kernel": "Debian's, fetched when first needed"})
