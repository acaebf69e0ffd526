"""Machines that are booted once: what is measured runs in them, so that not every sample boots a kernel.

Seen from outside all the same: times are the host's, and so is the account of what a command has used, which
is that of the processes that the machine lives in.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from anyvirt.compare.processes import descendants
from anyvirt.engines.engine import Capability, World
from anyvirt.instance import Streams, Usage

if TYPE_CHECKING:
    from types import TracebackType

    from anyvirt.engines.engine import Engine
    from anyvirt.guest import Guest
    from anyvirt.instance import ExitStatus, Instance, Process

_TICK = os.sysconf("SC_CLK_TCK")


class RunningGuest(Protocol):
    """What is watched while it runs: an Instance, or a command in a machine."""

    @property
    def end_fd(self) -> int | None:
        """See Process.end_fd."""

    def wait(self, timeout: float | None = None) -> ExitStatus:
        """See Process.wait."""

    def signal(self, number: int) -> None:
        """See Process.signal."""

    def usage(self) -> Usage:
        """See Process.usage."""

    def close(self) -> None:
        """See Instance.close."""


class Starter(Protocol):
    """Starts what is measured."""

    def start(self, guest: Guest, streams: Streams) -> RunningGuest:
        """See Engine.start."""


def boots(engine: Engine) -> bool:
    """Whether a guest of an engine boots a kernel, and further commands can be run in it."""
    return engine.world is World.MACHINE and Capability.EXEC in engine.capabilities


class BootedGuests:
    """One machine for each engine that boots a kernel, made when it is first needed."""

    def __init__(self) -> None:
        self._instances: dict[str, Instance] = {}

    def starter(self, engine: Engine, guest: Guest) -> Starter:
        """Who starts `guest`, or one that differs in command and working directory only, on an engine."""
        return _Booted(self, engine, guest) if boots(engine) else engine

    def instance(self, engine: Engine, guest: Guest) -> Instance:
        """The engine's machine (or other idle guest), made if none runs; its kernel may still be booting.

        Raises what `Engine.start` raises.
        """
        from anyvirt.instance import State

        found = self._instances.get(engine.name)
        if found is not None and found.state is State.RUNNING:
            return found
        if found is not None:
            found.close()
        null = os.open(os.devnull, os.O_RDWR)
        try:
            made = engine.start(replace(guest, command=(), workdir=None), Streams(null, null, null))
        finally:
            os.close(null)
        self._instances[engine.name] = made
        return made

    def end(self, engine: Engine) -> None:
        """End the engine's machine, if there is one."""
        made = self._instances.pop(engine.name, None)
        if made is not None:
            made.close()

    def close(self) -> None:
        """End all machines."""
        while self._instances:
            self._instances.popitem()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Booted:
    """Satisfies Starter: starts commands in a machine."""

    def __init__(self, machines: BootedGuests, engine: Engine, guest: Guest) -> None:
        self._machines, self._engine, self._guest = machines, engine, guest

    def start(self, guest: Guest, streams: Streams) -> RunningGuest:
        """See Starter. Raises what `Instance.exec` raises."""
        instance = self._machines.instance(self._engine, self._guest)
        before = host_account(instance.pid)
        process = instance.exec(guest.command, env=guest.env, workdir=guest.workdir, streams=streams)
        return _InMachine(process, instance.pid, before)


class _InMachine:
    """Satisfies RunningGuest: a command, charged with what its machine's processes use meanwhile."""

    def __init__(self, process: Process, machine: int, before: Usage) -> None:
        self._process, self._machine, self._before = process, machine, before
        self._usage = Usage()
        self.end_fd = process.end_fd

    def wait(self, timeout: float | None = None) -> ExitStatus:
        """See RunningGuest."""
        status = self._process.wait(timeout)
        after = host_account(self._machine)
        self._usage = Usage(
            max(0.0, after.user_seconds - self._before.user_seconds),
            max(0.0, after.system_seconds - self._before.system_seconds),
            after.peak_memory,
        )
        return status

    def signal(self, number: int) -> None:
        """See RunningGuest."""
        self._process.signal(number)

    def usage(self) -> Usage:
        """See RunningGuest."""
        return self._usage

    def close(self) -> None:
        """See RunningGuest."""
        close = getattr(self._process, "close", None)
        if close is not None:
            close()


def host_account(process: int) -> Usage:
    """CPU time that a process and its descendants have used so far, and the largest peak memory of one.

    In steps of the kernel's clock tick (proc_pid_stat(5)); the peak is that of their whole lives.
    """
    user = system = peak = 0
    for member in descendants(process):
        with suppress(OSError, AttributeError):
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            user, system = user + int(fields[11]), system + int(fields[12])
            status = Path(f"/proc/{member}/status").read_text()
            found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
            peak = max(peak, int(found[1]) * 1024 if found else 0)
    return Usage(user / _TICK, system / _TICK, peak or None)
