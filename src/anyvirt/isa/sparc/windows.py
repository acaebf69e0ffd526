"""Register windows: `save` and `restore` turn to the next window, or trap where WIM forbids it.

The windows are a ring in which the ins of each are the outs of the one before. `w` keeps the locals and ins
of every window, and of the current one only what stood there when it was last left.
"""

# Pattern and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103, TC001

from __future__ import annotations

from anyvirt.isa.processor import Immediate, Register
from anyvirt.isa.sparc.core import WINDOW_OVERFLOW, WINDOW_UNDERFLOW, WINDOWS, Core, both, isa
from anyvirt.typed import u8, u64

isa.extension("windows", "Register windows")

OUTS, LOCALS, INS = 8, 16, 24


def slot(window: u64) -> u8:
    """Where the locals of a window are in `w`; its ins follow."""
    return u8(window % WINDOWS) * 16


def check(cpu: Core, window: u64, trap: u64) -> None:
    """Trap if a window must not be entered."""
    if cpu.wim >> window & 1 != 0:
        cpu.trap(trap)


def turn_down(cpu: Core) -> None:
    """Enter the window that `save` gives: outs become ins."""
    current = slot(cpu.cwp)
    entered = slot(cpu.cwp - 1)
    below = slot(cpu.cwp - 2)
    for number in range(8):
        cpu.w[current + number] = cpu.r[u8(LOCALS + number)]
        cpu.w[current + 8 + number] = cpu.r[u8(INS + number)]
        cpu.r[u8(INS + number)] = cpu.r[u8(OUTS + number)]
        cpu.r[u8(LOCALS + number)] = cpu.w[entered + number]
        cpu.r[u8(OUTS + number)] = cpu.w[below + 8 + number]
    cpu.cwp = (cpu.cwp - 1) % WINDOWS


def turn_up(cpu: Core) -> None:
    """Enter the window that `restore` gives: ins become outs."""
    current = slot(cpu.cwp)
    entered = slot(cpu.cwp + 1)
    below = slot(cpu.cwp - 1)
    for number in range(8):
        cpu.w[current + number] = cpu.r[u8(LOCALS + number)]
        cpu.w[below + 8 + number] = cpu.r[u8(OUTS + number)]
        cpu.r[u8(OUTS + number)] = cpu.r[u8(INS + number)]
        cpu.r[u8(LOCALS + number)] = cpu.w[entered + number]
        cpu.r[u8(INS + number)] = cpu.w[entered + 8 + number]
    cpu.cwp = (cpu.cwp + 1) % WINDOWS


def save(cpu: Core, rd: Register, rs1: Register, rs2: Register) -> None:
    check(cpu, (cpu.cwp - 1) % WINDOWS, u64(WINDOW_OVERFLOW))
    result = cpu.r[rs1] + cpu.r[rs2]
    turn_down(cpu)
    cpu.r[rd] = result


def save_immediate(cpu: Core, rd: Register, rs1: Register, imm: Immediate) -> None:
    check(cpu, (cpu.cwp - 1) % WINDOWS, u64(WINDOW_OVERFLOW))
    result = cpu.r[rs1] + imm
    turn_down(cpu)
    cpu.r[rd] = result


def restore(cpu: Core, rd: Register, rs1: Register, rs2: Register) -> None:
    check(cpu, (cpu.cwp + 1) % WINDOWS, u64(WINDOW_UNDERFLOW))
    result = cpu.r[rs1] + cpu.r[rs2]
    turn_up(cpu)
    cpu.r[rd] = result


def restore_immediate(cpu: Core, rd: Register, rs1: Register, imm: Immediate) -> None:
    check(cpu, (cpu.cwp + 1) % WINDOWS, u64(WINDOW_UNDERFLOW))
    result = cpu.r[rs1] + imm
    turn_up(cpu)
    cpu.r[rd] = result


both("10 rd 111100 rs1", "save {rs1}, {b}, {rd}", save, save_immediate)
both("10 rd 111101 rs1", "restore {rs1}, {b}, {rd}", restore, restore_immediate)
