"""Control transfers, flag control and miscellaneous instructions: SDM Volume 1, sections 7.3.8 to 7.3.16."""

# Encoding and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103, TC001

from __future__ import annotations

from anyvirt.isa.processor import Immediate, Small
from anyvirt.isa.x86.encoding import encoding
from anyvirt.isa.x86.flags import CONDITIONS, carry, condition, flags, set_carry, zero
from anyvirt.isa.x86.operands import (
    CS,
    SP,
    X86,
    Place,
    drop,
    low,
    push,
    read,
    stack_address,
    store,
    top,
    write_register,
)
from anyvirt.typed import u8, u64

CX = 1
SOFTWARE_INTERRUPT = 0x100
"""Added to the vector of an INT instruction, to tell it from the processor's own exceptions."""
R11 = 11

# Where to go ------------------------------------------------------------------------------------------------
# `size` is that of the instruction pointer, which counts from the beginning of the code segment.


def instruction_pointer(cpu: X86, size: int, address: u64) -> u64:
    """An address in the code segment."""
    if size == 64:
        return address
    return low(size, address - cpu.segment_base[u8(CS)])


def go(cpu: X86, size: int, target: u64) -> None:
    """Continue at an address within the code segment."""
    if size == 64:
        cpu.jump(target)
    else:
        cpu.jump(cpu.segment_base[u8(CS)] + low(size, target))


def go_near(cpu: X86, size: int, offset: Immediate) -> None:
    """Continue at a distance from this instruction; 16-bit code wraps around in its segment."""
    if size == 16:
        go(cpu, size, cpu.pc + offset - cpu.segment_base[u8(CS)])
    else:
        cpu.branch(offset)


@encoding("eb", "jmp", offset="Jb", measure="near")
@encoding("e9", "jmp", offset="Jz", measure="near")
def jump(cpu: X86, size: int, offset: Immediate) -> None:
    go_near(cpu, size, offset)


@encoding("ff /4", "jmp", target="Ev", measure="near")
def jump_indirect(cpu: X86, size: int, target: Place) -> None:
    go(cpu, size, read(cpu, size, target))


@encoding("e8", "call", offset="Jz", measure="near")
def call(cpu: X86, size: int, width: int, offset: Immediate) -> None:
    push(cpu, width, size, instruction_pointer(cpu, size, cpu.next_pc))
    go_near(cpu, size, offset)


@encoding("ff /2", "call", target="Ev", measure="near")
def call_indirect(cpu: X86, size: int, width: int, target: Place) -> None:
    destination = read(cpu, size, target)
    push(cpu, width, size, instruction_pointer(cpu, size, cpu.next_pc))
    go(cpu, size, destination)


@encoding("c3", "ret", measure="near")
def ret(cpu: X86, size: int, width: int) -> None:
    target = top(cpu, width, size)
    drop(cpu, width, u64(size // 8))
    go(cpu, size, target)


@encoding("c2", "ret", count="count", measure="near")
def ret_and_drop(cpu: X86, size: int, width: int, count: Immediate) -> None:
    target = top(cpu, width, size)
    drop(cpu, width, count + size // 8)
    go(cpu, size, target)


def _describe(code: int, name: str) -> None:
    """The jumps of a condition code."""

    @encoding(f"{0x70 + code:02x}", f"j{name}", offset="Jb", measure="near")
    @encoding(f"0f {0x80 + code:02x}", f"j{name}", offset="Jz", measure="near")
    def jump_if(cpu: X86, size: int, offset: Immediate) -> None:
        if condition(cpu, code):
            go_near(cpu, size, offset)


for _code, _name in enumerate(CONDITIONS):
    _describe(_code, _name)


# Loops: the counter is as wide as addresses are. ------------------------------------------------------------


def _describe_loops(count_size: int, name: str) -> None:
    """The instructions that look at CX, ECX or RCX."""
    when = {"address": count_size}

    @encoding("e2", "loop", offset="Jb", measure="near", when=when)
    def loop(cpu: X86, size: int, offset: Immediate) -> None:
        left = low(count_size, cpu.r[u8(CX)] - 1)
        write_register(cpu, count_size, u8(CX), left)
        if left != 0:
            go_near(cpu, size, offset)

    @encoding("e1", "loope", offset="Jb", measure="near", when=when)
    def loop_while_zero(cpu: X86, size: int, offset: Immediate) -> None:
        left = low(count_size, cpu.r[u8(CX)] - 1)
        write_register(cpu, count_size, u8(CX), left)
        if left != 0 and zero(cpu) != 0:
            go_near(cpu, size, offset)

    @encoding("e0", "loopne", offset="Jb", measure="near", when=when)
    def loop_while_not_zero(cpu: X86, size: int, offset: Immediate) -> None:
        left = low(count_size, cpu.r[u8(CX)] - 1)
        write_register(cpu, count_size, u8(CX), left)
        if left != 0 and zero(cpu) == 0:
            go_near(cpu, size, offset)

    @encoding("e3", name, offset="Jb", measure="near", when=when)
    def jump_if_count_is_zero(cpu: X86, size: int, offset: Immediate) -> None:
        if low(count_size, cpu.r[u8(CX)]) == 0:
            go_near(cpu, size, offset)


for _size, _name in ((16, "jcxz"), (32, "jecxz"), (64, "jrcxz")):
    _describe_loops(_size, _name)


# Frames -----------------------------------------------------------------------------------------------------


@encoding("c8", "enter", count="count", depth="depth", measure="stack")
def enter(cpu: X86, size: int, width: int, count: Immediate, depth: Small) -> None:
    frame_pointer = cpu.r[u8(5)]
    pointer = cpu.r[u8(SP)] - size // 8
    frame = pointer
    store(cpu, size, stack_address(cpu, width, pointer), frame_pointer)
    level = u64(depth & 31)
    if level != 0:
        while level > 1:
            level -= 1
            frame_pointer = frame_pointer - size // 8
            pointer = pointer - size // 8
            display = load_stack(cpu, width, size, frame_pointer)
            store(cpu, size, stack_address(cpu, width, pointer), display)
        pointer = pointer - size // 8
        store(cpu, size, stack_address(cpu, width, pointer), frame)
    write_register(cpu, size, u8(5), frame)
    write_register(cpu, width, u8(SP), pointer - count)


def load_stack(cpu: X86, width: int, size: int, pointer: u64) -> u64:
    """What a value of the stack pointer leads to."""
    address = stack_address(cpu, width, pointer)
    if size == 16:
        return u64(cpu.load16(address))
    if size == 32:
        return u64(cpu.load32(address))
    return cpu.load64(address)


# Flag control -----------------------------------------------------------------------------------------------


@encoding("f8", "clc")
def clear_carry(cpu: X86) -> None:
    set_carry(cpu, u64(0))


@encoding("f9", "stc")
def set_carry_flag(cpu: X86) -> None:
    set_carry(cpu, u64(1))


@encoding("f5", "cmc")
def complement_carry(cpu: X86) -> None:
    set_carry(cpu, carry(cpu) ^ 1)


@encoding("fc", "cld")
def clear_direction(cpu: X86) -> None:
    cpu.direction = u64(0)


@encoding("fd", "std")
def set_direction(cpu: X86) -> None:
    cpu.direction = u64(1)


# Others -----------------------------------------------------------------------------------------------------


@encoding("90", "nop", to="rAX", hidden=("to",), when={"b": 0})
@encoding("90", "pause", to="rAX", hidden=("to",), when={"b": 0, "repeat": 3})
@encoding("0f 1f /-", "nop", to="Ev", form="A")
@encoding("0f 1e /-", "nop", to="Ev", form="A")
@encoding("0f 1d /-", "nop", to="Ev", form="A")
@encoding("0f 1c /-", "nop", to="Ev", form="A")
@encoding("0f 19 /-", "nop", to="Ev", form="A")
@encoding("0f 1e fa", "endbr64", to="rAX", hidden=("to",), when={"repeat": 3})
@encoding("0f 1e fb", "endbr32", to="rAX", hidden=("to",), when={"repeat": 3})
def nop(cpu: X86) -> None:
    pass


@encoding("cc", "int3")
def breakpoint_instruction(cpu: X86) -> None:
    cpu.breakpoint()


@encoding("cd", "int", vector="vector")
def interrupt(cpu: X86, vector: Small) -> None:
    cpu.trap(u64(vector) | SOFTWARE_INTERRUPT)


@encoding("0f 0b", "ud2")
def undefined(cpu: X86) -> None:
    cpu.illegal()


@encoding("0f 05", "syscall", when={"long": 1})
def system_call(cpu: X86) -> None:
    # Where a kernel comes in: SDM Volume 2, SYSCALL.
    cpu.r[u8(CX)] = cpu.next_pc
    cpu.r[u8(R11)] = flags(cpu)
    cpu.system_call()


@encoding("0f 31", "rdtsc")
def read_time_stamp(cpu: X86) -> None:
    now = cpu.cycle_counter()
    cpu.r[u8(0)] = now & 0xFFFFFFFF
    cpu.r[u8(2)] = now >> 32
