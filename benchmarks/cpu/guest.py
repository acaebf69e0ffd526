"""The kernels as one program, and running it on a bare executor with no more of Linux than it needs.

`ROUNDS` names the kernels and how often each is repeated to take about a tenth of a second under qemu-user:
what the `KERNEL(name, rounds)` lines of kernels/*.c say.
"""

import re
import subprocess
from pathlib import Path

from anyvirt.cpu import tiers
from anyvirt.cpu.executor import StopReason
from anyvirt.cpu.memory import FlatMemory, Protection, page_ceiling
from anyvirt.linux.elf import SegmentType, parse_elf

SOURCES = Path(__file__).with_name("kernels")
TIERS = tuple(tier.value for tier in tiers.Tier)
MEMORIES = ("flat", "machine")
_KERNEL = re.compile(r"^KERNEL\((\w+), (\d+)\)", re.MULTILINE)
_FLAGS = (
    "-O2", "-ffreestanding", "-nostdlib", "-static", "-ffp-contract=off", "-fno-math-errno",
    "-Wall", "-Wextra",
)  # fmt: skip
_STACK_END, _STACK_SIZE = 0x7000_0000, 1 << 20
_WRITE, _EXIT = 64, 93


def _declared_rounds():
    text = "".join(path.read_text() for path in sorted(SOURCES.glob("*.c")))
    return {name: int(rounds) for name, rounds in _KERNEL.findall(text)}


ROUNDS = _declared_rounds()


def build(compiler, output, *, flags=()):
    """Compile all kernels with a C compiler into one static program; returns its path."""
    files = sorted(SOURCES.glob("*.c"))
    subprocess.run([compiler, *_FLAGS, *flags, *files, "-lgcc", "-o", output], check=True)
    return output


def make_executor(tier, memory):
    """A RISC-V executor of a tier."""
    return tiers.make_executor("riscv64", memory, tier=tier)


def make_memory(kind, ranges):
    """Guest memory with (start, length) ranges of whole pages, all of them readable and writable."""
    if kind == "flat":
        memory = FlatMemory()
        for start, length in ranges:
            memory.map(start, length, Protection.READ | Protection.WRITE)
        return memory
    from anyvirt.cpu.machine_memory import MachineMemory

    memory = MachineMemory()
    for start, length in ranges:
        memory.add_ram(start, length)
    return memory


def executors():
    """The pairs of tier and kind of memory that there are."""
    return [(tier, kind) for tier in TIERS for kind in MEMORIES]


class Program:
    """The kernels compiled for RISC-V, loaded into a memory of their own, about to run with arguments."""

    def __init__(self, path, arguments, *, tier="interpreter", memory="flat"):
        """`arguments` are kernels and rounds in turn: `["sieve", "3"]`."""
        data = Path(path).read_bytes()
        elf = parse_elf(data)
        self._arguments = [str(word).encode() for word in (path, *arguments)]
        self._segments = [segment for segment in elf.segments if segment.type == SegmentType.LOAD]
        self._contents = [data[part.offset : part.offset + part.file_size] for part in self._segments]
        self._entry = elf.entry
        pages = [_pages(segment) for segment in self._segments]
        self.memory = make_memory(memory, [*pages, (_STACK_END - _STACK_SIZE, _STACK_SIZE)])
        for segment, content in zip(self._segments, self._contents, strict=True):
            self.memory.write(segment.address, content)
        if memory == "flat":
            self._protect_code()
        self.cpu = make_executor(tier, self.memory)
        self._prepare()

    def _protect_code(self):
        for segment in self._segments:
            if segment.flags & 1:
                self.memory.protect(*_pages(segment), Protection.READ | Protection.EXECUTE)

    def _prepare(self):
        """Stack and registers as execve(2) leaves them."""
        strings = b"\0".join(self._arguments) + b"\0"
        position = _STACK_END - page_ceiling(len(strings))
        words = [len(self._arguments)]
        self.memory.write(position, strings)
        for argument in self._arguments:
            words.append(position)
            position += len(argument) + 1
        # After the arguments and the environment, an empty auxiliary vector.
        block = b"".join(word.to_bytes(8, "little") for word in (*words, 0, 0, 0, 0))
        top = (_STACK_END - page_ceiling(len(strings)) - len(block)) & -16
        self.memory.write(top, block)
        self.cpu.x[:] = [0] * 32
        self.cpu.x[2] = top
        self.cpu.pc = self._entry
        self.output = b""

    def restart(self):
        """Everything as at the beginning, but for what the executor knows about the code."""
        for segment, content in zip(self._segments, self._contents, strict=True):
            if segment.flags & 2:
                self.memory.write(segment.address, content.ljust(segment.memory_size, b"\0"))
        self._prepare()

    def run(self, budget=None):
        """Run to the end; returns what the program wrote."""
        while True:
            stop = self.cpu.run(budget)
            if stop.reason != StopReason.SYSTEM_CALL:
                raise RuntimeError(f"the kernel stopped with {stop}")
            if self.cpu.x[17] == _EXIT:
                return self._result()
            self.output += self.memory.read(self.cpu.x[11], self.cpu.x[12])
            self.cpu.pc = stop.next_pc

    def _result(self):
        text = self.output.decode().strip()
        if self.cpu.x[10]:
            raise RuntimeError(f"the program ended with status {self.cpu.x[10]}: {text}")
        return text


def _pages(segment):
    """First address and length of the pages of a segment."""
    start = segment.address & -4096
    return start, page_ceiling(segment.address + segment.memory_size) - start
