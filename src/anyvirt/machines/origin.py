"""What a machine is made of that stands where another one stood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyvirt.cpu.memory_image import MemoryImage
    from anyvirt.devices.bus import State
    from anyvirt.machines.configuration import Configuration
    from anyvirt.machines.disks.content import MachineDisk


@dataclass(frozen=True)
class Origin:
    """It is for one machine, which gets the disks."""

    configuration: Configuration
    state: State
    memory: MemoryImage
    disks: Mapping[str, MachineDisk]
    """By the names of their controllers."""
