"""Building the kernels and running one on an executor, with no more of Linux than they need."""

import subprocess
from pathlib import Path

from anyvirt.cpu.executor import StopReason
from anyvirt.cpu.interpreter import Interpreter
from anyvirt.cpu.memory import FlatMemory, Protection, page_ceiling
from anyvirt.linux.elf import SegmentType, parse_elf

SOURCE = Path(__file__).with_name("kernels.c")
ROUNDS = {
    "sieve": 120,
    "sort": 20,
    "hash": 40,
    "machine": 90,
    "matrix": 60,
    "tree": 30,
    "calls": 100,
    "strings": 250,
    "bodies": 70,
}
"""Kernels, and how often each is repeated for a run of a fraction of a second."""
_FLAGS = ("-O2", "-ffreestanding", "-nostdlib", "-static", "-ffp-contract=off")
_STACK = 0x7000_0000
_WRITE, _EXIT = 64, 93


def build(compiler, kernel, output, *, flags=(), rounds=None):
    """Compile one kernel with a C compiler into a static program."""
    definitions = (f"-DKERNEL={kernel}", f"-DROUNDS={rounds or ROUNDS[kernel]}")
    subprocess.run([compiler, *_FLAGS, *flags, *definitions, SOURCE, "-o", output], check=True)
    return output


class Program:
    """A kernel compiled for RISC-V, loaded into a memory of its own."""

    def __init__(self, path):
        data = Path(path).read_bytes()
        elf = parse_elf(data)
        self.memory = FlatMemory()
        for segment in elf.segments:
            if segment.type == SegmentType.LOAD:
                start = segment.address & -4096
                self.memory.map(start, page_ceiling(segment.address + segment.memory_size) - start, 3)
                self.memory.write(segment.address, data[segment.offset : segment.offset + segment.file_size])
                if segment.flags & 1:
                    protection = Protection.READ | Protection.EXECUTE
                    self.memory.protect(
                        start, page_ceiling(segment.address + segment.memory_size) - start, protection
                    )
        self.memory.map(_STACK - (1 << 20), 1 << 20, 3)
        self.cpu = Interpreter("riscv64", self.memory)
        self.cpu.pc = elf.entry
        self.cpu.x[2] = _STACK
        self.output = b""

    def run(self, budget=None):
        """Run to the end; returns what the program wrote."""
        while True:
            stop = self.cpu.run(budget)
            if stop.reason != StopReason.SYSTEM_CALL:
                raise RuntimeError(f"the kernel stopped with {stop}")
            if self.cpu.x[17] == _EXIT:
                return self.output.decode().strip()
            self.output += self.memory.read(self.cpu.x[11], self.cpu.x[12])
            self.cpu.pc = stop.next_pc
