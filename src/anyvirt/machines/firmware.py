"""The M-mode part of our own firmware: a page of ROM that hands calls of the guest's kernel to the host.

A hart begins in it, and goes to S-mode at the address in t1. All exceptions but calls from S-mode are
delegated. A call ends the CPU's run behind a store to the gate, with all registers in their places; the host
answers (`anyvirt.machines.sbi`) and lets the hart go on here. A machine software interrupt, which the host
raises for an interrupt between harts, becomes one of S-mode. Timers need no calls: there is Sstc.
Page and gate are hidden from S- and U-mode by physical memory protection.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from anyvirt.boards.virt_map import BOOT_ROM, Range

if TYPE_CHECKING:
    from collections.abc import Callable

GATE = Range(0x700, 8)
_CALL, _ACKNOWLEDGE = 0, 4
HIDDEN = range(0x2000)
"""Physical addresses that are not for S- and U-mode."""

START = BOOT_ROM.start
_START_CODE = (
    0x0000_12B7,  # 1000 lui t0, 0x1: traps
    0x0802_8293,  # 1004 addi t0, t0, 0x80
    0x3052_9073,  # 1008 csrrw zero, mtvec, t0
    0x1800_1073,  # 100c csrrw zero, satp, zero
    0x0080_0293,  # 1010 addi t0, zero, 8: machine software interrupts
    0x3042_9073,  # 1014 csrrw zero, mie, t0
    0x0000_B2B7,  # 1018 lui t0, 0xb: all exceptions but calls from S-mode
    0x1FF2_8293,  # 101c addi t0, t0, 0x1ff
    0x3022_9073,  # 1020 csrrw zero, medeleg, t0
    0xFFF0_0293,  # 1024 addi t0, zero, -1
    0x3032_9073,  # 1028 csrrw zero, mideleg, t0
    0x3062_9073,  # 102c csrrw zero, mcounteren, t0
    0x1062_9073,  # 1030 csrrw zero, scounteren, t0
    0x14D2_9073,  # 1034 csrrw zero, stimecmp, t0
    0x3B12_9073,  # 1038 csrrw zero, pmpaddr1, t0: everything
    0xFFE0_0293,  # 103c addi t0, zero, -2: all but FIOM
    0x30A2_9073,  # 1040 csrrw zero, menvcfg, t0
    0x3FF0_0293,  # 1044 addi t0, zero, 0x3ff: [0, 0x2000)
    0x3B02_9073,  # 1048 csrrw zero, pmpaddr0, t0
    0x0000_22B7,  # 104c lui t0, 0x2: nothing is allowed in the first, all in the second
    0xF182_8293,  # 1050 addi t0, t0, -0xe8
    0x3A02_9073,  # 1054 csrrw zero, pmpcfg0, t0
    0x0000_12B7,  # 1058 lui t0, 0x1: return to S-mode
    0x8002_8293,  # 105c addi t0, t0, -0x800
    0x3002_9073,  # 1060 csrrw zero, mstatus, t0
    0x3413_1073,  # 1064 csrrw zero, mepc, t1
    0x3020_0073,  # 1068 mret
)
_TRAP = 0x1080
_TRAP_CODE = (
    0x3402_92F3,  # 1080 csrrw t0, mscratch, t0
    0x3420_22F3,  # 1084 csrrs t0, mcause, zero
    0x0202_C263,  # 1088 blt t0, zero, 0x10ac
    0x3410_22F3,  # 108c csrrs t0, mepc, zero
    0x0042_8293,  # 1090 addi t0, t0, 4
    0x3412_9073,  # 1094 csrrw zero, mepc, t0
    0xF140_22F3,  # 1098 csrrs t0, mhartid, zero
    0x7050_2023,  # 109c sw t0, 0x700(zero): the host answers
    0x0040_006F,  # 10a0 jal zero, 0x10a4
    0x3402_92F3,  # 10a4 csrrw t0, mscratch, t0
    0x3020_0073,  # 10a8 mret
    0xF140_22F3,  # 10ac csrrs t0, mhartid, zero
    0x7050_2223,  # 10b0 sw t0, 0x704(zero): the host lowers the line
    0x3441_6073,  # 10b4 csrrsi zero, mip, 2
    0x3402_92F3,  # 10b8 csrrw t0, mscratch, t0
    0x3020_0073,  # 10bc mret
    0x14D5_1073,  # 10c0 csrrw zero, stimecmp, a0
    0x0000_0513,  # 10c4 addi a0, zero, 0
    0x0000_0593,  # 10c8 addi a1, zero, 0
    0x3402_92F3,  # 10cc csrrw t0, mscratch, t0
    0x3020_0073,  # 10d0 mret
    0x1050_0073,  # 10d4 wfi
    0x7050_2023,  # 10d8 sw t0, 0x700(zero): the host lets it go on
    0x0040_006F,  # 10dc jal zero, 0x10e0
    0x1800_1073,  # 10e0 csrrw zero, satp, zero
    0x0000_12B7,  # 10e4 lui t0, 0x1: return to S-mode, without interrupts there
    0x8002_8293,  # 10e8 addi t0, t0, -0x800
    0x3002_9073,  # 10ec csrrw zero, mstatus, t0
    0x3413_1073,  # 10f0 csrrw zero, mepc, t1
    0x3020_0073,  # 10f4 mret
)
RETURN = 0x10A4
"""Where a hart goes on after a call."""
SET_TIMER = 0x10C0
"""Where it goes on to set its timer to a0."""
SUSPEND = 0x10D4
"""Where it waits for an interrupt, and calls once more."""
RESUME = 0x10E0
"""Where it goes on to the address in t1, in S-mode and as after a start; enabled interrupts stay."""


def firmware_rom() -> bytes:
    """The content of the page."""
    start = struct.pack(f"<{len(_START_CODE)}I", *_START_CODE)
    return start.ljust(_TRAP - START, b"\0") + struct.pack(f"<{len(_TRAP_CODE)}I", *_TRAP_CODE)


class Gate:
    """A device that harts store their numbers to; only the ROM reaches it."""

    def __init__(self, *, call: Callable[[int], None], acknowledge: Callable[[int], None]) -> None:
        """`call` and `acknowledge` are told the number of the hart, in its thread."""
        self._call = call
        self._acknowledge = acknowledge

    def read(self, offset: int, size: int) -> int:
        """Nothing is to be read."""
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """A hart makes a call, or has taken an interrupt."""
        if offset == _CALL:
            self._call(value)
        elif offset == _ACKNOWLEDGE:
            self._acknowledge(value)
