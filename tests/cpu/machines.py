"""Small machines for tests: a memory with code and data, and executors in identical states."""

import ctypes
import random

from hypothesis import strategies as st

from anyvirt.cpu.interpreter import Interpreter
from anyvirt.cpu.machine_memory import MachineMemory
from anyvirt.cpu.memory import FlatMemory
from anyvirt.cpu.reference import ReferenceExecutor
from anyvirt.jit.ahead import instruction_set

CODE = 0x10000
DATA = 0x20000
READ_ONLY = 0x22000
PAGE = 4096
INTERESTING = [
    0, 1, 2, 3, 7, 31, 32, 63, 64, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, (1 << 63) - 1, 1 << 63,
    (1 << 64) - 1, (1 << 64) - 2, 0xFFFFFFFF80000000,
]  # fmt: skip
ADDRESSES = [
    DATA, DATA + 8, DATA + 0x7FC, DATA + 0x800, DATA + PAGE, DATA + 2 * PAGE - 4, READ_ONLY + 16, 0,
    (1 << 38) - 4, 1 << 38, (1 << 64) - 8,
]  # fmt: skip
DOUBLES = [
    0, 1 << 63, 0x3FF0000000000000, 0xBFF0000000000000, 0x7FF0000000000000, 0xFFF0000000000000,
    0x7FF8000000000000, 0xFFF8000000000001, 0x7FF0000000000001, 1, 0x000FFFFFFFFFFFFF, 0x0010000000000000,
    0x7FEFFFFFFFFFFFFF, 0x3FE0000000000000, 0x4330000000000000, 0x43E0000000000000, 0xC3E0000000000000,
    0x41DFFFFFFFC00000, 0x41E0000000000000, 0x41EFFFFFFFE00000, 0xC1E0000000000000, 0x3FB999999999999A,
    0x36A0000000000000, 0x380FFFFFFFFFFFFF, 0x47EFFFFFF0000000, 0x3FEFFFFFFFFFFFFF,
]  # fmt: skip
SINGLES = [
    0, 0x80000000, 0x3F800000, 0xBF800000, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00001, 0x7F800001, 1,
    0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0x3F000000, 0x4B000000, 0x4F000000, 0xCF000000, 0x4EFFFFFF,
    0x5F000000, 0x5F800000, 0xDF000000, 0x3DCCCCCD, 0x3F7FFFFF, 0x00800001,
]  # fmt: skip
BOXED = 0xFFFFFFFF00000000


def _word(random):
    match random.randrange(4):
        case 0:
            return random.choice(INTERESTING)
        case 1:
            return random.choice(ADDRESSES)
        case 2:
            return random.getrandbits(64)
    return random.randrange(200)


def _float(random):
    match random.randrange(6):
        case 0:
            return random.choice(DOUBLES)
        case 1:
            return random.choice(SINGLES) | BOXED
        case 2:
            return random.getrandbits(64)
        case 3:
            return random.getrandbits(32) | BOXED
        case 4:
            return _single(random.uniform(-1e6, 1e6)) | BOXED
    return _double(random.uniform(-1e6, 1e6))


def _single(number):
    return ctypes.c_uint32.from_buffer(ctypes.c_float(number)).value


def _double(number):
    return ctypes.c_uint64.from_buffer(ctypes.c_double(number)).value


class Start:
    """Registers and memory to begin with, from a seed: Hypothesis is slow at long lists."""

    def __init__(self, seed):
        generator = random.Random(seed)
        self.seed = seed
        self.x = [0, *(_word(generator) for _ in range(31))]
        self.f = [_float(generator) for _ in range(32)]
        self.fcsr = generator.choice([0, 0, generator.randrange(32), generator.randrange(8) << 5])
        self.reserved = generator.random() < 0.5
        self.data = generator.randbytes(2 * PAGE)

    def __repr__(self):
        return f"Start({self.seed})"


starts = st.integers(0, 2**32 - 1).map(Start)


class MappedMachineMemory(MachineMemory):
    """RAM that is mapped and unmapped as flat memory is, so that tests can be about both."""

    def map(self, address, length, protection):
        """RAM in place of whatever is there."""
        self.remove(address, length)
        self.add_ram(address, length)
        self.protect(address, length, protection)

    def unmap(self, address, length):
        """Take it away again."""
        self.remove(address, length)


MEMORIES = {"flat": FlatMemory, "machine": MappedMachineMemory}
"""Both memory models."""


class Machine:
    """An executor with two pages of code, two of data and one of read-only data."""

    def __init__(self, make, isa="riscv64", memory="flat"):
        self.mask = (1 << instruction_set(isa).register_files["x"].width) - 1
        self.memory = MEMORIES[memory]()
        self.memory.map(CODE, 2 * PAGE, 7)
        self.memory.map(DATA, 2 * PAGE, 3)
        self.memory.map(READ_ONLY, PAGE, 1)
        self.cpu = make(isa, self.memory)

    def prepare(self, start, code):
        """Put everything into the given state, with `code` (bytes) at CODE."""
        self.memory.write(CODE, code)
        self.memory.write(DATA, start.data)
        self.cpu.x[:] = [value & self.mask for value in start.x]
        self.cpu.f[:] = start.f
        self.cpu.fcsr = start.fcsr
        # Semantics see narrow registers sign-extended.
        address = self.cpu.x[10] | (~self.mask if self.cpu.x[10] > self.mask >> 1 else 0)
        address = address & (1 << 64) - 1 if start.reserved else (1 << 64) - 1
        self.cpu.set_state("reservation_address", address)
        self.cpu.set_state("reservation_value", int.from_bytes(start.data[:8], "little"))
        self.cpu.pc = CODE

    def outcome(self, stop):
        """All that can be seen of the state."""
        return {
            "stop": stop,
            "pc": self.cpu.pc,
            "x": list(self.cpu.x),
            "f": [hex(value) for value in self.cpu.f],
            "fcsr": self.cpu.fcsr,
            "reservation": [self.cpu.state(f"reservation_{name}") for name in ("address", "value")],
            "data": self.memory.read(DATA, 2 * PAGE),
            "code": self.memory.read(CODE, 2 * PAGE),
        }


def both(isa="riscv64", memory="flat"):
    """The compiled and the reference machine."""
    return Machine(Interpreter, isa, memory), Machine(ReferenceExecutor, isa, memory)
