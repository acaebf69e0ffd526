"""What somebody in front of a machine has: a display, a keyboard and a pointer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from anyvirt.devices.virtio.gpu import VirtioGpu
from anyvirt.devices.virtio.input import KEYBOARD, TABLET, VirtioInput
from anyvirt.machines.pci import attach_virtio_pci
from anyvirt.machines.posting import post_to
from anyvirt.machines.seat.display import Display, check_resolution
from anyvirt.machines.seat.keyboard import Keyboard
from anyvirt.machines.seat.pointer import Pointer

if TYPE_CHECKING:
    from anyvirt.machines.machine import Machine


@dataclass(frozen=True)
class Seat:
    """See the module."""

    display: Display
    keyboard: Keyboard
    pointer: Pointer


def furnish(machine: Machine, size: tuple[int, int]) -> Seat:
    """Put a seat with a display of so many pixels on a machine's board, behind its PCI host bridge.

    Raises UsageError for a size that is not possible.
    """
    check_resolution(*size)
    board = machine.board
    post = partial(post_to, board)
    gpu = VirtioGpu(board.memory, [size], on_update=machine.notice, post=post)
    keyboard = VirtioInput(board.memory, KEYBOARD, post=post)
    tablet = VirtioInput(board.memory, TABLET, post=post)
    attach_virtio_pci(board, [gpu, keyboard, tablet])
    display = Display(machine, gpu)
    return Seat(display, Keyboard(machine, keyboard), Pointer(machine, tablet, display))
