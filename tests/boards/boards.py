"""Boards `virt` for tests."""

from anyvirt.boards.virt import VirtBoard
from anyvirt.cpu.machine_memory import MachineMemory
from anyvirt.devices.clock import VirtualClock

EPOCH = 1_700_000_000 * 10**9


class Machine:
    """A board, and all that comes out of it."""

    def __init__(self, *, harts=2, ram_size=64 << 20, **options):
        self.clock = VirtualClock()
        self.memory = MachineMemory()
        self.printed = bytearray()
        self.finishes = []
        self.board = VirtBoard(
            self.memory,
            self.clock,
            harts=harts,
            ram_size=ram_size,
            console=self.printed.extend,
            on_finish=self.finishes.append,
            epoch=EPOCH,
            **options,
        )

    def read(self, address, size=4):
        return int.from_bytes(self.memory.read(address, size), "little")

    def write(self, address, value, size=4):
        self.memory.write(address, value.to_bytes(size, "little"))


class Scratch:
    """A device of one byte."""

    def __init__(self):
        self.value = 0

    def read(self, offset, size):
        return self.value

    def write(self, offset, size, value):
        self.value = value & 0xFF

    def reset(self):
        self.value = 0

    def save_state(self):
        return {"version": 1, "value": self.value}

    def load_state(self, state):
        self.value = state["value"]
