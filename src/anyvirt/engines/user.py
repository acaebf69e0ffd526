"""The user engine: one Linux program of another CPU, translated, its system calls made on the host."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from anyvirt.engines.engine import Architecture, Availability, Capability, Engine, Execution, World
from anyvirt.engines.host_process import HostProcessInstance
from anyvirt.errors import GuestStartError, UnsupportedError
from anyvirt.instance import State
from anyvirt.isa.names import Isa
from anyvirt.linux.emulation.variables import (
    COVERAGE_VARIABLE,
    GDB_VARIABLE,
    GUEST_PREFIX,
    OWN_PREFIX,
    TRACE_VARIABLE,
    Place,
)
from anyvirt.linux.program import DEFAULT_PATH
from anyvirt.paths import state_directory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyvirt.engines.host_process import HostProcess
    from anyvirt.guest import Guest
    from anyvirt.instance import Instance, Streams, TerminalSize
    from anyvirt.linux.program import Program

_EMULATOR = Path(__file__).parents[1] / "linux" / "emulation" / "__main__.py"
_PREFIX = (sys.executable, "-I", "-S", os.fspath(_EMULATOR))


class UserEngine(Engine):
    """Starts the guest's command in an emulator process, one for each process of the guest."""

    name = "user"
    summary = "programs of another CPU on the host's kernel: RISC-V 64"
    architecture = Architecture.EMULATION
    world = World.PROCESS
    execution = Execution.TRANSLATED
    capabilities = frozenset(
        {
            Capability.TERMINAL,
            Capability.EXEC,
            Capability.PAUSE,
            Capability.ROOTFS,
            Capability.FOREIGN_ISA,
            Capability.DEBUG,
            Capability.TRACE,
        }
    )
    weight = 20
    joins_terminal = True

    def probe(self) -> Availability:
        """The host has to be x86-64 Linux with room for a guest's address space."""
        machine = os.uname()
        if machine.sysname != "Linux" or machine.machine != "x86_64":
            return Availability(
                available=False,
                reason=f"it runs on x86-64 Linux and this is {machine.machine} {machine.sysname}",
                remedy="use a host with an x86-64 CPU and Linux",
            )
        return _address_space() or _interpreter()

    def refusal(self, program: Program) -> str | None:
        """Only RISC-V 64 programs run."""
        if program.isa is not Isa.RISCV64:
            return f"it is a program for {program.isa}, and this engine runs those for {Isa.RISCV64}"
        return None

    def create(self, guest: Guest, streams: Streams, terminal: TerminalSize | None) -> Instance:
        """See Engine.create."""
        if guest.rootfs is not None:
            return self._create_with_root(guest, streams, terminal)
        return HostProcessInstance(
            self,
            guest,
            prefix=_PREFIX,
            env={**os.environ, **guest.env},
            streams=streams,
            terminal=terminal,
            main_env=_debugging(guest.gdb) | _recording(guest),
        )

    def _create_with_root(
        self, guest: Guest, streams: Streams, terminal: TerminalSize | None
    ) -> RootedInstance:
        if guest.trace is not None or guest.coverage is not None:
            raise self.unsupported(Capability.TRACE, "a guest with a root of its own cannot write such files")
        if guest.gdb is not None:
            raise self.unsupported(Capability.DEBUG, "it debugs no guest that has a root of its own")
        return RootedInstance(self, guest, streams, terminal)


class RootedInstance(HostProcessInstance):
    """A guest with a root of its own: further commands join the first one there."""

    def __init__(
        self, engine: UserEngine, guest: Guest, streams: Streams, terminal: TerminalSize | None
    ) -> None:
        """Start `guest`."""
        self._door = os.urandom(16).hex()
        self._root = os.fspath(guest.rootfs) if guest.rootfs else None
        super().__init__(
            engine,
            guest,
            prefix=_PREFIX,
            env=_environment(guest),
            streams=streams,
            terminal=terminal,
            idle=_PREFIX,
        )

    def _launch(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        workdir: str | None,
        streams: Streams,
        terminal: TerminalSize | None,
    ) -> HostProcess:
        place, self._root = Place(self._door, self._root, workdir), None
        # The host's dynamic linker is not to take those of the guest's for its own.
        env = {_kept_from_host(name): value for name, value in env.items()}
        return super()._launch(command, {**env, **place.variables()}, None, streams, terminal)

    def _check(self, guest: Guest) -> None:
        """What can be executed is to be seen only in the guest's root."""
        if self.state not in (State.RUNNING, State.PAUSED):
            raise GuestStartError(f"{guest.command[0]} cannot be started: the guest is {self.state}")


def _kept_from_host(name: str) -> str:
    return f"{GUEST_PREFIX}{name}" if name.startswith("LD_") else name


def _environment(guest: Guest) -> dict[str, str]:
    """A clean one, as containers have: what programs expect, what was asked for, and the emulator's own."""
    own = {name: value for name, value in os.environ.items() if name.startswith(OWN_PREFIX)}
    own["ANYVIRT_STATE"] = os.path.abspath(state_directory())
    terminal = {"TERM": os.environ["TERM"]} if "TERM" in os.environ else {}
    return {"PATH": DEFAULT_PATH, "HOME": "/root", **terminal, **guest.env, **own}


def _debugging(address: str | None) -> dict[str, str]:
    """What tells the emulator to wait for gdb. Raises UsageError for an address that is none."""
    if address is None:
        return {}
    from anyvirt.debug.connection import Address

    Address.parse(address)
    return {GDB_VARIABLE: address}


def _recording(guest: Guest) -> dict[str, str]:
    """What tells the emulator to record what is executed."""
    files = {TRACE_VARIABLE: guest.trace, COVERAGE_VARIABLE: guest.coverage}
    return {name: os.fspath(path) for name, path in files.items() if path is not None}


def _address_space() -> Availability | None:
    """Why a guest's address space, and that of its decoded code, cannot be reserved; None when they can."""
    from anyvirt.cpu.memory import FlatMemory, host_munmap, reserve
    from anyvirt.jit.layout import RecordLayout

    try:
        size = FlatMemory().size * RecordLayout(granule=2, size=16).scale
        host_munmap(reserve(size), size)
    except (OSError, UnsupportedError) as error:
        reason = error.reason if isinstance(error, UnsupportedError) else error.strerror
        return Availability(
            available=False,
            reason=f"no address space for a guest: {reason}",
            remedy="raise the limit on virtual memory (`ulimit -v unlimited`) and vm.overcommit_memory",
        )
    return None


def _interpreter() -> Availability:
    """Whether the interpreter's machine code can be made here. llvmlite is looked for, not imported."""
    from importlib.util import find_spec

    if find_spec("llvmlite") is None:
        return Availability(
            available=False,
            reason="the compiler that makes the interpreter, llvmlite, is not installed",
            remedy="install it: pip install llvmlite",
        )
    return Availability(
        available=True, details={"isa": Isa.RISCV64.value, "tiers": "interpreter, stencil, region"}
    )
