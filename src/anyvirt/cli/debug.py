"""`anyvirt debug`: a machine under a monitor with commands, on the terminal or from a script."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from anyvirt.errors import UsageError

if TYPE_CHECKING:
    from anyvirt.machines.debugging.monitor import Monitor


@click.command()
@click.option("--kernel", metavar="FILE", help="Kernel to boot: an Image or an ELF file.")
@click.option("--initrd", metavar="FILE", help="Archive (cpio) that is unpacked as the guest's root.")
@click.option(
    "--append", metavar="WORDS", help="The kernel's command line (default: console=ttyS0 panic=-1)."
)
@click.option("--firmware", metavar="FILE", help="Firmware, or any program for M-mode.")
@click.option(
    "--rootfs", metavar="DIR", help="Root of the guest, with a shell on its console; needs no kernel."
)
@click.option("--disk", "disks", multiple=True, metavar="FILE[:ro][:qcow2]", help="A disk (repeatable).")
@click.option("--memory", metavar="SIZE", default="512M", show_default=True, help="Memory of the machine.")
@click.option("--cpus", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Harts.")
@click.option(
    "--display", metavar="WxH", help="A display of that many pixels, with keyboard and pointer: 1024x768."
)
@click.option("--tier", metavar="NAME", help="How code is executed: interpreter or stencil.")
@click.option("--seed", type=int, metavar="N", help="Let the date and the kernel's randomness be fixed.")
@click.option(
    "--counted",
    is_flag=True,
    help="Let time be instructions, so that every run shows the same (with --seed).",
)
@click.option(
    "--history",
    is_flag=True,
    help="Keep the machine's past, to go back in (reverse-step, reverse-continue); time is instructions.",
)
@click.option(
    "--symbols", "symbol_files", multiple=True, metavar="FILE", help="ELF file or System.map (repeatable)."
)
@click.option("-e", "commands", multiple=True, metavar="COMMAND", help="Do a command (repeatable).")
@click.option("-x", "scripts", multiple=True, metavar="FILE", help="Do the commands of a file (repeatable).")
@click.option("-i", "--interactive", is_flag=True, help="Read further commands behind -x and -e.")
def command(
    kernel: str | None,
    initrd: str | None,
    append: str | None,
    firmware: str | None,
    rootfs: str | None,
    disks: tuple[str, ...],
    memory: str,
    cpus: int,
    display: str | None,
    tier: str | None,
    seed: int | None,
    counted: bool,
    history: bool,
    symbol_files: tuple[str, ...],
    commands: tuple[str, ...],
    scripts: tuple[str, ...],
    interactive: bool,
) -> int:
    """Debug a whole machine: steps, breakpoints, registers, memory, page tables, devices.

    Commands are read from the terminal (`help` lists them), or from -x and -e in that order.
    """
    from anyvirt.cli.debugged_machine import Debugged
    from anyvirt.guest import Disk
    from anyvirt.machines.debugging.monitor import Monitor
    from anyvirt.machines.debugging.shell import Shell
    from anyvirt.paths import state_directory

    debugged = Debugged(
        kernel=_path(kernel),
        initrd=_path(initrd),
        append=append,
        firmware=_path(firmware),
        rootfs=_path(rootfs),
        disks=tuple(Disk.parse(disk) for disk in disks),
        memory=memory,
        cpus=cpus,
        display=display,
        tier=tier,
        seed=seed,
    )
    with debugged.make() as machine:
        if history:
            machine.keep_history()
        monitor = Monitor(machine, counted=counted)
        _load_symbols(monitor, (firmware, kernel), symbol_files)
        shell = Shell(monitor, history=state_directory() / "debug-history")
        shell.do([*(f"source {path}" for path in scripts), *commands])
        if interactive or not (scripts or commands):
            shell.interact()
    return 0


def _path(text: str | None) -> Path | None:
    return Path(text) if text is not None else None


def _load_symbols(monitor: Monitor, likely: tuple[str | None, ...], wanted: tuple[str, ...]) -> None:
    """Those that the user has named, and those that kernel and firmware bring if they are ELF files."""
    for path in likely:
        if path is not None:
            try:
                monitor.symbols.load(path)
            except UsageError:
                continue
    for path in wanted:
        monitor.symbols.load(path)
