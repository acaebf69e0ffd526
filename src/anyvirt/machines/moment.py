"""All that a machine is at a moment, kept in this process: to go on from there, in it or in a copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyvirt.machines.disks.board import bring_back_disks, freeze_disks
from anyvirt.machines.state import load_machine, save_machine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyvirt.cpu.memory_image import MemoryImage
    from anyvirt.devices.bus import State
    from anyvirt.machines.disks.content import DiskContent
    from anyvirt.machines.machine import Machine


@dataclass(frozen=True)
class Moment:
    """What is shared with the machine, with its copies and with other moments is there once."""

    state: State
    memory: MemoryImage
    disks: Mapping[str, DiskContent]

    @classmethod
    def of(cls, machine: Machine) -> Moment:
        """Of a machine that stands. Raises AnyvirtError if what is on disks cannot be made to last."""
        return cls(save_machine(machine), machine.board.memory.freeze(), freeze_disks(machine.board))

    def bring_back(self, machine: Machine) -> None:
        """Let the same machine, which stands, be as it was."""
        machine.board.memory.become(self.memory)
        bring_back_disks(machine.board, self.disks)
        load_machine(machine, self.state)
