"""Devices: where they are, their registers by name; and the guest's console."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from anyvirt.errors import UsageError
from anyvirt.machines.debugging.commands.arguments import line_to_type, number_of
from anyvirt.machines.debugging.commands.table import Completion, Section, command
from anyvirt.machines.debugging.device_registers import describe_device

if TYPE_CHECKING:
    from anyvirt.machines.debugging.monitor import Monitor

_TAIL = 20
_PATIENCE = 60.0
_EXPECT = re.compile(r"""(?:"((?:[^"\\]|\\.)*)"|(\S+))\s*(\S*)""")


@command("map", "mtree", usage="", section=Section.DEVICES, completion=Completion.NOTHING)
def show_map(monitor: Monitor, text: str) -> str:
    """Show what is where in the physical address space: RAM, ROM and devices."""
    lines = []
    for region in monitor.machine.board.memory.regions:
        kind = region.kind.name.lower()
        name = f" {region.name}" if region.name and region.name != kind else ""
        lines.append(f"{region.start:#014x}-{region.end - 1:#014x} {kind}{name}")
    return "\n".join(lines)


@command("device", "devices", usage="[NAME]", section=Section.DEVICES, completion=Completion.DEVICE)
def show_device(monitor: Monitor, text: str) -> str:
    """Show the devices of the board, or the registers and the state of one by name.

    Nothing is read as the guest would: looking changes nothing.
    """
    devices = monitor.machine.board.devices
    if not text:
        return "\n".join(f"{name:<10} {_summary(device)}" for name, device in devices.items())
    if text not in devices:
        raise UsageError(f"there is no device {text}: there are {', '.join(devices)}")
    with monitor.machine.lock:
        return "\n".join([f"{text}: {_summary(devices[text])}", *describe_device(devices[text])])


def _summary(device: object) -> str:
    """The first sentence of the documentation of a device's module, which names the chip."""
    import sys

    words = sys.modules[type(device).__module__].__doc__ or type(device).__name__
    return words.partition("\n")[0].rstrip(".")


@command("interrupts", "irq", "pic", usage="", section=Section.DEVICES, completion=Completion.NOTHING)
def show_interrupts(monitor: Monitor, text: str) -> str:
    """Show each hart's interrupts, pending and enabled, and those of the PLIC."""
    from anyvirt.isa.riscv64_system.register_fields import INTERRUPTS

    lines = []
    for hart in monitor.machine.harts:
        pending, enabled, delegated = (hart.csr[name] for name in ("mip", "mie", "mideleg"))
        lines.append(f"hart {hart.number}: mip {pending:#x}, mie {enabled:#x}, mideleg {delegated:#x}")
        for number, name in INTERRUPTS.items():
            if (pending | enabled) >> number & 1:
                words = ["pending"] if pending >> number & 1 else []
                words += ["enabled"] if enabled >> number & 1 else []
                words += ["delegated"] if delegated >> number & 1 else []
                lines.append(f"  {int(number):>2} {name}: {', '.join(words)}")
    return "\n".join([*lines, *describe_device(monitor.machine.board.plic)])


@command("console", usage="[LINES|on|off]", section=Section.DEVICES, completion=Completion.NOTHING)
def show_console(monitor: Monitor, text: str) -> str:
    """Show the last lines that the guest has printed: 20 unless given.

    `console off` no longer shows what it prints while it runs, `console on` does. In a terminal, `attach`
    lets you type to the guest.
    """
    if text in ("on", "off"):
        monitor.is_console_shown = text == "on"
        return ""
    count = monitor.value(text) if text else _TAIL
    return "\n".join(monitor.machine.console.text.splitlines()[-count:])


@command("attach", usage="", section=Section.DEVICES, completion=Completion.NOTHING, looks=False)
def attach(monitor: Monitor, text: str) -> str:
    """Run, and type to the guest, until Ctrl-] or a stop: the terminal is the guest's console."""
    if monitor.attach is None:
        raise UsageError("there is no terminal to attach: `send` types, `expect` waits for what is printed")
    return monitor.attach()


@command("send", usage="TEXT", section=Section.DEVICES, completion=Completion.NOTHING)
def send(monitor: Monitor, text: str) -> str:
    """Type a line to the guest; in quotes it is typed as it is, with \\n for Enter."""
    monitor.machine.console.send(line_to_type(text))
    return ""


@command(
    "expect",
    usage='PATTERN|"PATTERN" [SECONDS]',
    section=Section.DEVICES,
    completion=Completion.NOTHING,
    looks=False,
)
def expect(monitor: Monitor, text: str) -> str:
    """Run until the guest prints what matches a regular expression, at most 60 seconds."""
    match = _EXPECT.fullmatch(text)
    if match is None:
        raise UsageError('write `expect PATTERN` or `expect "PATTERN WITH SPACES" SECONDS`')
    quoted, word, seconds = match.groups()
    pattern = quoted if quoted is not None else word
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"{pattern!r} is no regular expression: {error}") from None
    patience = number_of(seconds, "seconds") if seconds else _PATIENCE
    return monitor.expect(compiled, patience)
