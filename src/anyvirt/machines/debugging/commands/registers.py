"""Registers of a hart, control registers with their fields, expressions, and choosing a hart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.errors import UsageError
from anyvirt.isa.riscv64_system.register_fields import explained
from anyvirt.machines.debugging.commands.table import Completion, Section, command
from anyvirt.machines.debugging.monitor import CONTROLS, FLOATS, INTEGERS
from anyvirt.machines.debugging.target import describe_hart

if TYPE_CHECKING:
    from anyvirt.machines.debugging.monitor import Monitor

_USUAL_CONTROLS = (
    "mstatus", "mtvec", "mepc", "mcause", "mtval", "mscratch", "mie", "mip", "medeleg", "mideleg",
    "stvec", "sepc", "scause", "stval", "sscratch", "sie", "sip", "satp", "stimecmp", "time",
)  # fmt: skip
_COLUMNS = 4


@command(
    "registers", "regs", "r", usage="[NAME...]", section=Section.REGISTERS, completion=Completion.REGISTER
)
def show_registers(monitor: Monitor, text: str) -> str:
    """Show the integer registers and pc, or registers by name.

    Control registers are shown with their fields: `registers mstatus satp`.
    """
    names = text.replace(",", " ").split()
    if names:
        return "\n".join(_line(monitor, name.removeprefix("$")) for name in names)
    names_of_all = [name for name in INTEGERS if name != "fp"]
    values = [f"{name:>4} {monitor.hart.x[INTEGERS[name]]:016x}" for name in names_of_all]
    rows = ["  ".join(values[start : start + _COLUMNS]) for start in range(0, len(values), _COLUMNS)]
    return "\n".join(
        [*rows, f"  pc {monitor.hart.pc:016x}  priv {monitor.hart.privilege}", monitor.where(monitor.hart)]
    )


def _line(monitor: Monitor, name: str) -> str:
    value = monitor.names(monitor.hart).register(name)
    if value is None:
        raise UsageError(f"there is no register {name}")
    if name in CONTROLS:
        return f"{name:<10} {value:016x}  {explained(name, value)}".rstrip()
    symbol = monitor.symbols.at(value)
    return f"{name:<10} {value:016x}  {f'<{symbol}>' if symbol else value}"


@command("csr", "csrs", usage="[NAME...|all]", section=Section.REGISTERS, completion=Completion.REGISTER)
def show_control_registers(monitor: Monitor, text: str) -> str:
    """Show control and status registers with their fields by name.

    The usual ones, some by name, or all of them that are not 0.
    """
    if text != "all":
        return "\n".join(_line(monitor, name.removeprefix("$")) for name in text.split() or _USUAL_CONTROLS)
    names = (name for name in sorted(CONTROLS) if monitor.hart.csr[name])
    return "\n".join(_line(monitor, name) for name in names)


@command("floats", "fregs", usage="", section=Section.REGISTERS, completion=Completion.NOTHING)
def show_floats(monitor: Monitor, text: str) -> str:
    """Show the floating-point registers, as they are and as double-precision numbers."""
    import struct

    lines = []
    for name, number in FLOATS.items():
        raw = monitor.hart.f[number]
        (as_double,) = struct.unpack("<d", raw.to_bytes(8, "little"))
        lines.append(f"{name:>5} {raw:016x}  {as_double!r}")
    return "\n".join([*lines, _line(monitor, "fcsr")])


@command("set", usage="REGISTER = EXPRESSION", section=Section.REGISTERS)
def set_register(monitor: Monitor, text: str) -> str:
    """Change a register, such as `set pc = start_kernel` or `set $a0 = $a0 + 1`.

    Memory is changed by `write`.
    """
    name, equals, value = text.partition("=")
    name = name.strip().removeprefix("$")
    if not equals or value.startswith("="):
        raise UsageError("write `set REGISTER = EXPRESSION`; memory is changed by `write`")
    names = monitor.names(monitor.hart)
    if names.register(name) is None:
        raise UsageError(f"there is no register {name}")
    names.set_register(name, monitor.value(value))
    return _line(monitor, name)


@command("print", "p", usage="[/FORMAT] EXPRESSION", section=Section.REGISTERS)
def show_value(monitor: Monitor, text: str) -> str:
    """Show the value of an expression: hexadecimal, decimal, and as a symbol's place.

    Expressions have numbers, registers ($a0 or a0), symbols, u8(ADDRESS) to u64 and s8 to s32 for memory, *
    for 8 bytes of it, and the operators of C.
    """
    if text.startswith("/"):
        text = text.partition(" ")[2]
    value = monitor.value(text)
    symbol = monitor.symbols.at(value)
    signed = value - (value >> 63 << 64)
    return f"{value:#x} = {signed}{f' <{symbol}>' if symbol else ''}"


@command("hart", "cpu", "thread", usage="[NUMBER]", section=Section.REGISTERS)
def choose_hart(monitor: Monitor, text: str) -> str:
    """Choose the hart that commands are about, or say which it is."""
    if text:
        number = monitor.value(text)
        if number >= len(monitor.machine.harts):
            raise UsageError(
                f"the machine has {len(monitor.machine.harts)} harts: there is none of number {number}"
            )
        monitor.number = number
    return monitor.where(monitor.hart)


@command("harts", "cpus", "threads", usage="", section=Section.REGISTERS, completion=Completion.NOTHING)
def list_harts(monitor: Monitor, text: str) -> str:
    """Show all harts, and where they are."""
    lines = []
    for hart in monitor.machine.harts:
        chosen = "*" if hart is monitor.hart else " "
        lines.append(f"{chosen} {monitor.where(hart)}  ({describe_hart(hart)})")
    return "\n".join(lines)
