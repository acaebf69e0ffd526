"""What a RISC-V hart executes first: a few instructions that hand over to firmware in RAM.

Firmware finds in a0 the hart's number, in a1 the address of the device tree and in a2 that of what OpenSBI
calls dynamic information (docs/firmware/fw_dynamic.md, include/sbi/fw_dynamic.h): what it is to start next.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

_CODE = (
    0x0000_0297,  # auipc t0, 0
    0x0282_8613,  # addi a2, t0, 40
    0xF140_2573,  # csrr a0, mhartid
    0x0202_B583,  # ld a1, 32(t0)
    0x0182_B283,  # ld t0, 24(t0)
    0x0002_8067,  # jr t0
)
_MAGIC = 0x4942_534F
_VERSION = 2


class Mode(IntEnum):
    """Privilege modes (RISC-V Privileged Architecture 20240411, table 1)."""

    USER = 0
    SUPERVISOR = 1
    MACHINE = 3


@dataclass(frozen=True)
class Handover:
    """Where to go from the boot ROM. Addresses are physical."""

    firmware: int
    device_tree: int
    next_stage: int = 0
    """What the firmware is to start; 0 where it has that inside."""
    next_mode: Mode = Mode.SUPERVISOR


def boot_rom(handover: Handover) -> bytes:
    """The content of the ROM."""
    code = struct.pack(f"<{len(_CODE)}I", *_CODE)
    addresses = struct.pack("<2Q", handover.firmware, handover.device_tree)
    information = struct.pack("<6Q", _MAGIC, _VERSION, handover.next_stage, int(handover.next_mode), 0, 0)
    return code + addresses + information
