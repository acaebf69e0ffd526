"""The registers of x86 as gdb wants them: EFLAGS in one, and the floating-point unit, which is not there.

"Debugging with GDB", section "i386 Features". Executors keep the flags as what they follow from
(`anyvirt.isa.x86.flags`); the functions that put them together are those of the instructions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anyvirt.debug.registers import (
    PROGRAM_COUNTER,
    Computed,
    Constant,
    Feature,
    FileRegister,
    Register,
    TargetDescription,
)
from anyvirt.isa.x86 import flags
from anyvirt.isa.x86.machine import NAMES, SEGMENTS
from anyvirt.typed import u64

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyvirt.isa.description import InstructionSet

_ORDERS = {
    32: ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"),
    64: ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{number}" for number in range(8, 16))),
}
_SEGMENT_ORDER = ("cs", "ss", "ds", "es", "fs", "gs")
_CONTROL = ("fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop")
_STATE = ("flag_left", "flag_right", "flag_result", "flag_form", "direction", "system_flags")
_FLAG_TYPE = (
    '<flags id="i386_eflags" size="4">'
    + "".join(
        f'<field name="{name}" start="{place}" end="{place}"/>'
        for name, place in (
            ("CF", 0), ("", 1), ("PF", 2), ("AF", 4), ("ZF", 6), ("SF", 7), ("TF", 8), ("IF", 9), ("DF", 10),
            ("OF", 11), ("NT", 14), ("RF", 16), ("VM", 17), ("AC", 18), ("VIF", 19), ("VIP", 20), ("ID", 21),
        )
    )
    + "</flags>"
)  # fmt: skip


class _Flags:
    """The state that flags are kept in, of an executor, as typed Python sees it."""

    def __init__(self, cpu: Any) -> None:  # noqa: ANN401 - any executor
        for name in _STATE:
            setattr(self, name, u64(cpu.state(name)))

    def put_back(self, cpu: Any) -> None:  # noqa: ANN401 - any executor
        for name in _STATE:
            cpu.set_state(name, int(getattr(self, name)))


def read_flags(cpu: Any) -> int:  # noqa: ANN401 - any executor
    """EFLAGS."""
    state: Any = _Flags(cpu)
    return int(flags.flags(state))


def write_flags(cpu: Any, value: int) -> None:  # noqa: ANN401 - any executor
    """What user programs can change of EFLAGS."""
    state: Any = _Flags(cpu)
    flags.set_user_flags(state, u64(value))
    state.put_back(cpu)


def x86_description(isa: InstructionSet) -> TargetDescription:
    """`i386`, or `x86_64` with what belongs to its 64-bit mode."""
    bits = isa.address_bits
    counter, stack, frame = ("rip", "rsp", "rbp") if bits == 64 else ("eip", "esp", "ebp")
    core = Feature("org.gnu.gdb.i386.core", tuple(_core(bits, counter)), _FLAG_TYPE)
    features = [core]
    if bits == 64:
        features.append(Feature("org.gnu.gdb.i386.segments", tuple(_bases())))
    architecture = "i386:x86-64" if bits == 64 else "i386"
    return TargetDescription(architecture, tuple(features), isa.byte_order, (counter, stack, frame), counter)


def _core(bits: int, counter: str) -> Iterator[Register]:
    numbers = {name: number for number, name in enumerate(NAMES[bits])}
    stack = {"esp", "ebp", "rsp", "rbp"}
    for name in _ORDERS[bits]:
        kind = "data_ptr" if name in stack else f"int{bits}"
        yield Register(name, bits, FileRegister("r", numbers[name]), kind)
    yield Register(counter, bits, PROGRAM_COUNTER, "code_ptr")
    yield Register("eflags", 32, Computed(read_flags, write_flags), "i386_eflags")
    for name in _SEGMENT_ORDER:
        yield Register(name, 32, FileRegister("segment", SEGMENTS.index(name)), "int32")
    for number in range(8):
        yield Register(f"st{number}", 80, Constant(), "i387_ext")
    for name in _CONTROL:
        yield Register(name, 32, Constant(), group="float")


def _bases() -> Iterator[Register]:
    for name in ("fs", "gs"):
        yield Register(f"{name}_base", 64, FileRegister("segment_base", SEGMENTS.index(name)), "int")
