"""One guest, every architecture of virtualization, measured side by side.

The public API, and nothing else::

    import anyvirt

    anyvirt.run(["uname", "-a"], on="container", memory="256M")
    with anyvirt.start(anyvirt.Guest(), on="container") as instance:
        instance.exec(["ps", "aux"]).wait()
    print(anyvirt.compare(["sha256sum", "/usr/bin/python3"]))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

# The packages `engines` and `compare` are imported here, before the functions of the same names are defined,
# because the first import of a subpackage binds its name in this module and later ones do not.
import anyvirt.compare
import anyvirt.engines  # noqa: F401

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anyvirt.compare.comparison import Comparison
    from anyvirt.engines.listing import EngineInfo
    from anyvirt.errors import (
        AnyvirtError,
        CommandNotFoundError,
        EngineUnavailableError,
        GuestStartError,
        GuestTimeoutError,
        NotExecutableError,
        UnsupportedError,
        UsageError,
    )
    from anyvirt.guest import Disk, DiskFormat, Guest, Limits, Mount, Network, NetworkMode, Published
    from anyvirt.instance import ExitStatus, Instance, Process, State, Streams, TerminalSize, Usage
    from anyvirt.isa.names import Isa
    from anyvirt.machines.machine import Machine
    from anyvirt.running import Completed

__all__ = [
    "AnyvirtError",
    "CommandNotFoundError",
    "Disk",
    "DiskFormat",
    "EngineUnavailableError",
    "ExitStatus",
    "Guest",
    "GuestStartError",
    "GuestTimeoutError",
    "Instance",
    "Isa",
    "Limits",
    "Machine",
    "Mount",
    "Network",
    "NetworkMode",
    "NotExecutableError",
    "Process",
    "Published",
    "State",
    "Streams",
    "TerminalSize",
    "UnsupportedError",
    "Usage",
    "UsageError",
    "compare",
    "engines",
    "restore",
    "run",
    "start",
]


_HOMES = {
    "anyvirt.errors": (
        "AnyvirtError",
        "CommandNotFoundError",
        "EngineUnavailableError",
        "GuestStartError",
        "GuestTimeoutError",
        "NotExecutableError",
        "UnsupportedError",
        "UsageError",
    ),
    "anyvirt.guest": (
        "Disk",
        "DiskFormat",
        "Guest",
        "Limits",
        "Mount",
        "Network",
        "NetworkMode",
        "Published",
    ),
    "anyvirt.instance": ("ExitStatus", "Instance", "Process", "State", "Streams", "TerminalSize", "Usage"),
    "anyvirt.isa.names": ("Isa",),
    "anyvirt.machines.machine": ("Machine",),
}


def __getattr__(name: str) -> object:
    """The public classes, imported when first used: a start of the command line does not need them all."""
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'anyvirt' has no attribute {name!r}")
    return getattr(import_module(home), name)


def run(
    command: Sequence[str],
    *,
    on: str | None = None,
    rootfs: Path | str | None = None,
    memory: str | int | None = None,
    cpus: str | float | None = None,
    pids: int | None = None,
    mounts: Sequence[Mount | str] = (),
    env: Mapping[str, str] | None = None,
    workdir: str | None = None,
    hostname: str | None = None,
    kernel: Path | str | None = None,
    initrd: Path | str | None = None,
    append: str = "",
    disks: Sequence[Disk | str] = (),
    network: Network | str | None = None,
    publish: Sequence[Published | str] = (),
    vsock: Path | str | None = None,
    seed: int | None = None,
    input: bytes | None = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
) -> Completed:
    """Run `command` as a guest to its end and return its status, time, usage and, if captured, output.

    `on` names the engine (None: the lightest that can run it). `memory` is in bytes or like `"512M"`, `cpus`
    a number of CPUs such as 1.5, `mounts` holds Mount objects or `"SRC:DST[:ro]"`. `kernel`, `initrd`,
    `append` and `disks` (Disk objects or `"FILE[:ro][:qcow2]"`) are for engines that boot a kernel. `network`
    is `"none"`, `"user"`, `"tap"`, `"tap:NAME"` or a Network; `publish` lets ports of the host lead to the
    guest: Published objects or `"[ADDRESS:]HOST:GUEST[/udp]"`. `vsock` is where a Unix
    socket for the guest's virtual sockets is made. `timeout`
    is in seconds; after it the guest is killed and GuestTimeoutError raised. `check` raises for any exit
    status but 0. With a `seed` a machine is run by counted instructions, the same in each run.
    Every error is an AnyvirtError.
    """
    from anyvirt.running import run_guest

    guest = _guest(
        command,
        rootfs,
        memory,
        cpus,
        pids,
        mounts,
        env,
        workdir,
        hostname,
        kernel,
        initrd,
        append,
        disks,
        network,
        publish,
        vsock,
        seed,
    )
    return run_guest(guest, on=on, input=input, capture_output=capture_output, timeout=timeout, check=check)


def start(
    guest: Guest,
    *,
    on: str | None = None,
    streams: Streams | None = None,
    terminal: TerminalSize | None = None,
) -> Instance:
    """Start `guest` and return the running Instance, best used as a context manager.

    `streams` gives the host's file descriptors for its standard streams (default: the caller's own);
    `terminal` gives it a new terminal of that size instead, whose host end is `instance.terminal`.
    """
    from anyvirt.running import start_guest

    return start_guest(guest, on=on, streams=streams, terminal=terminal)


def restore(
    directory: Path | str,
    *,
    on: str | None = None,
    streams: Streams | None = None,
    terminal: TerminalSize | None = None,
) -> Instance:
    """Start a guest that goes on where the one stood that `instance.snapshot(directory)` was called of.

    `on` names the engine (None: the one that took the snapshot). The guest's command goes on with `streams`,
    or on a terminal of the size `terminal` if it was on one.
    """
    from pathlib import Path

    from anyvirt.running import restore_guest

    return restore_guest(Path(directory), on=on, streams=streams, terminal=terminal)


def engines() -> list[EngineInfo]:
    """Every engine, with its place among the architectures, its capabilities and whether it works here."""
    from anyvirt.engines.listing import list_engines

    return list_engines()


def compare(
    command: Sequence[str] | None = None,
    *,
    engines: Sequence[str] | None = None,
    repeat: int | None = None,
    timeout: float | None = None,
    roots: Sequence[Path | str] = (),
    fetch: bool = False,
) -> Comparison:
    """Measure `command`, or the built-in workloads, on every engine that works here, relative to native.

    `engines` names those to measure (None: all), `repeat` the runs of each cell (None: the default of what is
    measured), `timeout` the seconds that one run may take. An engine that can execute what the command is in
    one of the root file systems `roots` runs that instead of the host's. Engines that lack a kernel are
    measured if they are named, or if `fetch` says that one may be fetched.
    """
    from anyvirt.compare.comparison import compare as measure

    return measure(command, engines=engines, repeat=repeat, timeout=timeout, roots=roots, fetch=fetch)


def _guest(
    command: Sequence[str],
    rootfs: Path | str | None,
    memory: str | int | None,
    cpus: str | float | None,
    pids: int | None,
    mounts: Sequence[Mount | str],
    env: Mapping[str, str] | None,
    workdir: str | None,
    hostname: str | None,
    kernel: Path | str | None,
    initrd: Path | str | None,
    append: str,
    disks: Sequence[Disk | str],
    network: Network | str | None,
    publish: Sequence[Published | str],
    vsock: Path | str | None,
    seed: int | None,
) -> Guest:
    from pathlib import Path

    from anyvirt.guest import Disk, Guest, Mount, Network, Published, make_limits

    return Guest(
        command=command,
        rootfs=Path(rootfs) if rootfs is not None else None,
        env=env or {},
        workdir=workdir,
        hostname=hostname,
        limits=make_limits(memory=memory, cpus=cpus, pids=pids),
        mounts=tuple(mount if isinstance(mount, Mount) else Mount.parse(mount) for mount in mounts),
        kernel=Path(kernel) if kernel is not None else None,
        initrd=Path(initrd) if initrd is not None else None,
        append=append,
        disks=tuple(disk if isinstance(disk, Disk) else Disk.parse(disk) for disk in disks),
        network=Network.parse(network) if isinstance(network, str) else network,
        published=tuple(Published.parse(port) if isinstance(port, str) else port for port in publish),
        vsock=Path(vsock) if vsock is not None else None,
        seed=seed,
    )
