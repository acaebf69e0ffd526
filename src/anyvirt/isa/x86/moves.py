"""Moves, the stack, and conditional moves: SDM Volume 1, sections 7.3.1 and 7.3.8."""

# Encoding and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103

from __future__ import annotations

from anyvirt.isa.x86.encoding import encoding
from anyvirt.isa.x86.flags import CONDITIONS, condition, flags, set_status, set_user_flags, status
from anyvirt.isa.x86.operands import (
    SP,
    X86,
    General,
    Place,
    address_of,
    drop,
    extend,
    load,
    push,
    read,
    stack_address,
    store,
    top,
    write,
    write_register,
)
from anyvirt.typed import u8, u64

BP = 5
"""Number of the frame pointer."""


@encoding("88 /r", "mov", to="Eb", source="Gb")
@encoding("89 /r", "mov", to="Ev", source="Gv")
@encoding("8a /r", "mov", to="Gb", source="Eb")
@encoding("8b /r", "mov", to="Gv", source="Ev")
@encoding("a0", "mov", to="AL", source="Ob")
@encoding("a1", "mov", to="rAX", source="Ov")
@encoding("a2", "mov", to="Ob", source="AL")
@encoding("a3", "mov", to="Ov", source="rAX")
@encoding("b0 +r", "mov", to="Zb", source="Ib")
@encoding("b8 +r", "mov", to="Zv", source="Iv", sizes=(16, 32))
@encoding("b8 +r", "movabs", to="Zv", source="Iv", sizes=(64,))
@encoding("c6 /0", "mov", to="Eb", source="Ib")
@encoding("c7 /0", "mov", to="Ev", source="Iz")
def move(cpu: X86, size: int, to: Place, source: Place) -> None:
    write(cpu, size, to, read(cpu, size, source))


@encoding("0f b6 /r", "movzx", to="Gv", source="Eb")
@encoding("0f b7 /r", "movzx", to="Gv", source="Ew")
def move_zero(cpu: X86, size: int, source_size: int, to: General, source: Place) -> None:
    write(cpu, size, to, read(cpu, source_size, source))


@encoding("0f be /r", "movsx", to="Gv", source="Eb")
@encoding("0f bf /r", "movsx", to="Gv", source="Ew")
@encoding("63 /r", "movsxd", to="Gv", source="Ed", sizes=(32, 64), when={"long": 1})
@encoding("63 /r", "movsxd", to="Gv", source="Ew", sizes=(16,), when={"long": 1})
def move_signed(cpu: X86, size: int, source_size: int, to: General, source: Place) -> None:
    write(cpu, size, to, extend(source_size, read(cpu, source_size, source)))


# The stack --------------------------------------------------------------------------------------------------


@encoding("50 +r", "push", source="Zv", measure="stack")
@encoding("68", "push", source="Iz", measure="stack")
@encoding("6a", "push", source="Ib", measure="stack")
@encoding("ff /6", "push", source="Ev", form="A", measure="stack")
def push_operand(cpu: X86, size: int, width: int, source: Place) -> None:
    push(cpu, width, size, read(cpu, size, source))


@encoding("58 +r", "pop", to="Zv", measure="stack")
@encoding("8f /0", "pop", to="Ev", form="A", measure="stack")
def pop_operand(cpu: X86, size: int, width: int, to: Place) -> None:
    value = top(cpu, width, size)
    if isinstance(to, General):
        # The stack pointer itself may be the operand: then the value popped is what it is.
        drop(cpu, width, u64(size // 8))
        write(cpu, size, to, value)
    else:
        # An address based on the stack pointer is computed after it has been moved, SDM Volume 2, POP.
        before = cpu.r[u8(SP)]
        drop(cpu, width, u64(size // 8))
        address = address_of(cpu, to)
        cpu.r[u8(SP)] = before
        store(cpu, size, address, value)
        drop(cpu, width, u64(size // 8))


@encoding("60", "pushaw", measure="stack", sizes=(16,), when={"long": 0})
@encoding("60", "pushal", measure="stack", sizes=(32,), when={"long": 0})
def push_all(cpu: X86, size: int, width: int) -> None:
    pointer = cpu.r[u8(SP)]
    # From the last one on: a fault changes nothing but memory that no one relies on.
    for number in range(8):
        address = stack_address(cpu, width, pointer - (number + 1) * (size // 8))
        store(cpu, size, address, cpu.r[u8(number)])
    write_register(cpu, width, u8(SP), pointer - size)


@encoding("61", "popaw", measure="stack", sizes=(16,), when={"long": 0})
@encoding("61", "popal", measure="stack", sizes=(32,), when={"long": 0})
def pop_all(cpu: X86, size: int, width: int) -> None:
    pointer = cpu.r[u8(SP)]
    # All of it is read before the first register changes.
    for number in range(8):
        load(cpu, size, stack_address(cpu, width, pointer + number * (size // 8)))
    for number in range(8):
        if number != 3:
            value = load(cpu, size, stack_address(cpu, width, pointer + number * (size // 8)))
            write_register(cpu, size, u8(7 - number), value)
    write_register(cpu, width, u8(SP), pointer + size)


@encoding("c9", "leave", measure="stack")
def leave(cpu: X86, size: int, width: int) -> None:
    frame = cpu.r[u8(BP)]
    value = load(cpu, size, stack_address(cpu, width, frame))
    write_register(cpu, width, u8(SP), frame + size // 8)
    write_register(cpu, size, u8(BP), value)


@encoding("9c", "pushf", measure="stack", sizes=(16,))
@encoding("9c", "pushfd", measure="stack", sizes=(32,))
@encoding("9c", "pushfq", measure="stack", sizes=(64,))
def push_flags(cpu: X86, size: int, width: int) -> None:
    push(cpu, width, size, flags(cpu))


@encoding("9d", "popf", measure="stack", sizes=(16,))
@encoding("9d", "popfd", measure="stack", sizes=(32,))
@encoding("9d", "popfq", measure="stack", sizes=(64,))
def pop_flags(cpu: X86, size: int, width: int) -> None:
    value = top(cpu, width, size)
    drop(cpu, width, u64(size // 8))
    # Of 16 bits only the lower flags change.
    set_user_flags(cpu, value | cpu.system_flags & ~0xFFFF if size == 16 else value)


# Flags and conditions ---------------------------------------------------------------------------------------

AH_FLAGS = 0xD5
"""The flags that LAHF and SAHF move: SF, ZF, AF, PF, CF."""


@encoding("9f", "lahf")
def load_flags(cpu: X86) -> None:
    cpu.r[u8(0)] = cpu.r[u8(0)] & ~0xFF00 | (status(cpu) & AH_FLAGS | 2) << 8


@encoding("9e", "sahf")
def store_flags(cpu: X86) -> None:
    set_status(cpu, cpu.r[u8(0)] >> 8 & AH_FLAGS | status(cpu) & ~AH_FLAGS)


def _describe(code: int, name: str) -> None:
    """What depends on a condition code."""

    @encoding(f"0f {0x40 + code:02x} /r", f"cmov{name}", to="Gv", source="Ev", form="A")
    def move_if(cpu: X86, size: int, to: General, source: Place) -> None:
        value = read(cpu, size, source)
        # A register of 32 bits is written in any case: its upper half becomes 0.
        write(cpu, size, to, value if condition(cpu, code) else read(cpu, size, to))

    @encoding(f"0f {0x90 + code:02x} /-", f"set{name}", to="Eb", form="A")
    def set_if(cpu: X86, size: int, to: Place) -> None:
        write(cpu, 8, to, u64(condition(cpu, code)))


for _code, _name in enumerate(CONDITIONS):
    _describe(_code, _name)
