"""`anyvirt run`: run a command as a guest in the foreground of the shell."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from anyvirt.errors import UsageError
from anyvirt.guest import Disk, Guest, Mount, Network, Published, make_limits

if TYPE_CHECKING:
    from anyvirt.engines.engine import Engine


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--on", metavar="ENGINE", help="Engine to run on (default: the lightest that can).")
@click.option("--memory", metavar="SIZE", help="Memory limit, such as 512M.")
@click.option("--cpus", metavar="N", help="CPU time limit, such as 1.5 CPUs.")
@click.option("--pids", type=click.IntRange(min=1), metavar="N", help="Most processes and threads at once.")
@click.option(
    "--mount", "mounts", multiple=True, metavar="SRC:DST[:ro]", help="Share a host path (repeatable)."
)
@click.option(
    "--env", "env", multiple=True, metavar="K[=V]", help="Set a variable, or pass the caller's own on."
)
@click.option("--workdir", metavar="DIR", help="Directory in the guest where the command starts.")
@click.option("--hostname", metavar="NAME", help="The guest's host name.")
@click.option(
    "--rootfs", metavar="DIR", help="Directory that the guest sees as / (default: the host's own root)."
)
@click.option("--kernel", metavar="FILE", help="Kernel to boot, where the guest has one (default: Debian's).")
@click.option("--initrd", metavar="FILE", help="Archive (cpio) that is unpacked as the guest's root.")
@click.option("--append", metavar="WORDS", default="", help="Words for the kernel's command line.")
@click.option(
    "--disk", "disks", multiple=True, metavar="FILE[:ro][:qcow2]", help="Give the guest a disk (repeatable)."
)
@click.option("--network", metavar="MODE", help="none, user (through the caller's), tap or tap:NAME.")
@click.option(
    "--publish",
    "published",
    multiple=True,
    metavar="[ADDRESS:]HOST:GUEST[/udp]",
    help="Let a port of the host lead to the guest (repeatable).",
)
@click.option("--vsock", metavar="SOCKET", help="Make a Unix socket for the guest's virtual sockets.")
@click.option(
    "--deterministic",
    is_flag=True,
    help="Run a machine by counted instructions: the same in each run, to the last bit.",
)
@click.option("--seed", type=int, metavar="N", help="Entropy of a deterministic run (default: 0).")
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Kill it after."
)
@click.option(
    "--gdb", metavar="ADDRESS", help="Wait for gdb at :PORT, HOST:PORT or unix:PATH before it begins."
)
@click.option(
    "--trace", metavar="FILE", help="Write a line about each instruction that the command executes."
)
@click.option(
    "--coverage",
    metavar="FILE",
    help="Write what the command has executed: JSON or text for .json and .txt, drcov for others.",
)
@click.option("--json", "as_json", is_flag=True, help="Capture the output and print the result as JSON.")
@click.option(
    "-v", "--verbose", is_flag=True, help="Say which engine runs the guest and why, and what it used."
)
@click.argument("command_line", metavar="COMMAND [ARGS...]", nargs=-1, required=True, type=click.UNPROCESSED)
def command(
    on: str | None,
    memory: str | None,
    cpus: str | None,
    pids: int | None,
    mounts: tuple[str, ...],
    env: tuple[str, ...],
    workdir: str | None,
    hostname: str | None,
    rootfs: str | None,
    kernel: str | None,
    initrd: str | None,
    append: str,
    disks: tuple[str, ...],
    network: str | None,
    published: tuple[str, ...],
    vsock: str | None,
    deterministic: bool,
    seed: int | None,
    timeout: float | None,
    gdb: str | None,
    trace: str | None,
    coverage: str | None,
    as_json: bool,
    verbose: bool,
    command_line: tuple[str, ...],
) -> int:
    """Run COMMAND as a guest.

    Its standard streams, terminal, signals and exit status are the caller's.
    """
    from pathlib import Path

    guest = Guest(
        command=command_line,
        rootfs=Path(rootfs) if rootfs is not None else None,
        env=dict(_variable(item) for item in env if "=" in item or item in os.environ),
        workdir=workdir,
        hostname=hostname,
        limits=make_limits(memory=memory, cpus=cpus, pids=pids),
        mounts=tuple(Mount.parse(mount) for mount in mounts),
        kernel=Path(kernel) if kernel is not None else None,
        initrd=Path(initrd) if initrd is not None else None,
        append=append,
        disks=tuple(Disk.parse(disk) for disk in disks),
        network=Network.parse(network) if network is not None else None,
        published=tuple(Published.parse(port) for port in published),
        vsock=Path(vsock) if vsock is not None else None,
        seed=_seed(seed, deterministic),
        gdb=gdb,
        trace=Path(trace) if trace is not None else None,
        coverage=Path(coverage) if coverage is not None else None,
    )
    engine = _engine(on, guest, verbose)
    if as_json:
        return _run_captured(engine.name, guest, timeout)
    from anyvirt.cli.foreground import run_in_foreground

    outcome = run_in_foreground(engine, guest, timeout)
    if outcome.out_of_memory_kills and guest.limits.memory:
        from anyvirt.quantities import format_size

        _say(
            f"the guest reached its memory limit of {format_size(guest.limits.memory)} and was killed for it"
        )
    if verbose:
        if outcome.start:
            _say("start: " + ", ".join(f"{what} {seconds:.3f} s" for what, seconds in outcome.start))
        usage = outcome.usage
        _say(
            f"{outcome.status} after {outcome.seconds:.3f} s; CPU {usage.user_seconds:.3f} s user, "
            f"{usage.system_seconds:.3f} s system"
        )
        if outcome.instructions is not None:
            _say(f"{outcome.instructions} instructions")
    return outcome.status.shell


def _seed(seed: int | None, deterministic: bool) -> int | None:
    if seed is not None and not deterministic:
        raise UsageError("--seed is the entropy of a deterministic run: give --deterministic, too")
    return (seed or 0) if deterministic else None


def _variable(item: str) -> tuple[str, str]:
    name, separator, value = item.partition("=")
    return name, value if separator else os.environ[name]


def _engine(on: str | None, guest: Guest, verbose: bool) -> Engine:
    from anyvirt.engines import get

    if on is not None:
        engine = get(on)
        if verbose:
            _say(f"engine {engine.name}: named by --on")
        return engine
    from anyvirt.engines.selection import choose

    choice = choose(guest)
    if verbose:
        for verdict in choice.verdicts:
            _say(f"engine {verdict.engine}{'' if verdict.chosen else ' passed over'}: {verdict.reason}")
    return choice.engine


def _say(line: str) -> None:
    print(f"anyvirt: {line}", file=sys.stderr, flush=True)


def _run_captured(engine: str, guest: Guest, timeout: float | None) -> int:
    import json

    from anyvirt.errors import AnyvirtError
    from anyvirt.running import run_guest

    try:
        completed = run_guest(guest, on=engine, capture_output=True, timeout=timeout)
    except AnyvirtError as error:
        print(json.dumps({"engine": engine, "error": str(error), "exit_status": error.exit_code}))
        raise
    report: dict[str, Any] = {
        "engine": completed.engine,
        "exit_status": completed.status.shell,
        "signal": completed.status.signal,
        "seconds": completed.seconds,
        "user_seconds": completed.usage.user_seconds,
        "system_seconds": completed.usage.system_seconds,
        "peak_memory": completed.usage.peak_memory,
        **({"instructions": completed.instructions} if completed.instructions is not None else {}),
        **_text("stdout", completed.stdout),
        **_text("stderr", completed.stderr),
    }
    print(json.dumps(report))
    return completed.status.shell


def _text(name: str, data: bytes) -> dict[str, str]:
    """`data` as JSON text; bytes that are no UTF-8 are kept in full under a second, base64 name."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        from base64 import b64encode

        return {name: data.decode(errors="replace"), f"{name}_base64": b64encode(data).decode()}
