"""Signal frames of riscv64: what the kernel pushes before a handler runs and takes back afterwards.

Layout of arch/riscv/kernel/signal.c: `siginfo_t`, then `struct ucontext` (include/uapi/asm/ucontext.h) with
pc, x1 … x31, and the floating-point state of `union __riscv_fp_state`, of which D uses the first 260 bytes.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from anyvirt.linux.emulation.signal_types import (
    INFO_SIZE,
    SS_AUTODISARM,
    SS_DISABLE,
    STACK,
    ActionFlags,
    AlternateStack,
    stack_bytes,
)

if TYPE_CHECKING:
    from anyvirt.linux.emulation.process import Process
    from anyvirt.linux.emulation.signal_types import Action

_CONTEXT_HEAD = struct.Struct("<QQ24sQ120x8x")
"""uc_flags, uc_link, uc_stack, uc_sigmask, room for larger masks, alignment of what follows."""
_INTEGERS = struct.Struct("<32Q")
_FLOATS = struct.Struct("<32QI")
_FLOAT_STATE_SIZE = 528
CONTEXT_SIZE = _CONTEXT_HEAD.size + _INTEGERS.size + _FLOAT_STATE_SIZE
FRAME_SIZE = INFO_SIZE + CONTEXT_SIZE

_RA, _SP, _A0, _A1, _A2 = 1, 2, 10, 11, 12


def push(process: Process, action: Action, number: int, info: bytes, saved_mask: int) -> None:
    """Store the CPU's state on the stack that `action` asks for and enter its handler. Raises GuestFault."""
    cpu, signals = process.cpu, process.signals
    alternate = signals.alternate
    stack_pointer = cpu.x[_SP]
    nested = stack_pointer in alternate
    if action.flags & ActionFlags.ONSTACK and not alternate.disabled and not nested:
        stack_pointer = alternate.address + alternate.size
    frame = (stack_pointer - FRAME_SIZE) & ~15 & ((1 << 64) - 1)
    process.memory.write(frame, info + _context(process, saved_mask))
    if alternate.flags & SS_AUTODISARM:
        signals.alternate = AlternateStack()
    cpu.x[_RA] = process.image.signal_return
    cpu.x[_SP] = frame
    cpu.x[_A0] = number
    cpu.x[_A1] = frame
    cpu.x[_A2] = frame + INFO_SIZE
    cpu.pc = action.handler


def _context(process: Process, mask: int) -> bytes:
    cpu = process.cpu
    head = _CONTEXT_HEAD.pack(0, 0, stack_bytes(process.signals.alternate), mask)
    integers = _INTEGERS.pack(cpu.pc, *cpu.x[1:32])
    floats = _FLOATS.pack(*cpu.f[0:32], cpu.fcsr)
    return head + integers + floats.ljust(_FLOAT_STATE_SIZE, b"\0")


def pop(process: Process) -> tuple[int, AlternateStack | None]:
    """Take the CPU's state back from the frame at the stack pointer; the signal mask and stack to restore.

    Raises GuestFault. The stack is None when the handler runs on it and it must not change.
    """
    cpu = process.cpu
    context = process.memory.read(cpu.x[_SP] + INFO_SIZE, CONTEXT_SIZE)
    _, _, stack, mask = _CONTEXT_HEAD.unpack_from(context)
    pc, *integers = _INTEGERS.unpack_from(context, _CONTEXT_HEAD.size)
    *floats, fcsr = _FLOATS.unpack_from(context, _CONTEXT_HEAD.size + _INTEGERS.size)
    for register, value in enumerate(integers, 1):
        cpu.x[register] = value
    for register, value in enumerate(floats):
        cpu.f[register] = value
    cpu.fcsr = fcsr & 0xFF
    cpu.pc = pc
    address, flags, size = STACK.unpack(stack)
    restored = AlternateStack(address, size, flags & SS_AUTODISARM) if size else AlternateStack()
    if flags & SS_DISABLE:
        restored = AlternateStack()
    return mask, None if cpu.x[_SP] in process.signals.alternate else restored
