"""Random instruction streams in executors and in Unicorn, for instruction sets of any kind.

A `Slice` says what Unicorn calls the registers of an instruction set and how random encodings are made fit
for a stream: that they stay in it, access memory only in the data area, and use what Unicorn defines.
"""

import functools
import random
from dataclasses import dataclass, field

import pytest

from anyvirt.cpu.executor import Stop, StopReason
from anyvirt.cpu.interpreter import Interpreter
from anyvirt.cpu.memory import FlatMemory
from anyvirt.cpu.reference import ReferenceExecutor
from anyvirt.jit.ahead import instruction_set

from .regional import Regional
from .stenciled import Stenciled

EXECUTORS = [ReferenceExecutor, Interpreter, Stenciled]
TRANSLATORS = [Stenciled, Regional]
"""Slow at the first sight of code: only for some streams."""
TRANSLATED_STREAMS = 12
CODE = 0x10000
DATA = 0x40000
AREA = 1 << 17
MIDDLE = DATA + AREA // 2
PAGE = 4096
INTERESTING = [
    0, 1, 2, 3, 31, 32, 63, 64, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, (1 << 63) - 1, 1 << 63,
    (1 << 64) - 1, (1 << 64) - 2, 0xFFFFFFFF80000000, 0x8000, 0x7FFF, 0xFF, 0x80,
]  # fmt: skip


@dataclass(frozen=True)
class Scalar:
    """A piece of state in Unicorn: how to read, write and make up one."""

    read: object
    write: object
    make: object
    bits: int = 64


def register(number, bits, make=None):
    """A piece of state that is a register of Unicorn's, of which `bits` are compared."""
    return Scalar(
        lambda engine: engine.reg_read(number) & (1 << bits) - 1,
        lambda engine, value: engine.reg_write(number, value & (1 << bits) - 1),
        make or (lambda generator: generator.getrandbits(bits)),
        bits,
    )


@dataclass
class Slice:
    """An instruction set, its counterpart in Unicorn, and what of it can be compared."""

    isa: str
    arch: int
    mode: int
    files: dict
    """For each register file the numbers Unicorn gives its registers; None for what it does not show."""
    scalars: dict = field(default_factory=dict)
    """For each piece of state a `Scalar`."""
    pointers: dict = field(default_factory=dict)
    """Registers of the first file that are never written, and their values."""
    adjust: object = None
    """`adjust(generator, pattern, word)`: the word made fit for a stream, or None."""
    limits: dict = field(default_factory=dict)
    """For register files with less in them than their width allows, one more than the greatest value."""
    jumps: str = ""
    """Assembly of jumps and calls over instructions, from anywhere."""
    nop: int = 0
    model: int | None = None
    """Unicorn's number for the CPU, where its default lacks something."""
    setup: object = None
    """`setup(engine)`: what Unicorn needs first."""

    @functools.cached_property
    def description(self):
        return instruction_set(self.isa)

    def encode(self, word):
        return word.to_bytes(4, self.description.byte_order)

    def instance(self, generator, pattern):
        """A random instruction of this form that fits into a stream."""
        for _ in range(2000):
            word = pattern.match | generator.getrandbits(8 * pattern.length) & ~pattern.mask
            word = self.adjust(generator, pattern, word)
            if word is not None and self.description.find(word, pattern.length) is pattern:
                return word
        raise AssertionError(f"no instance of {pattern.assembly}")

    def jumping(self, place):
        """The words of `jumps` at a place in the stream, out of reach of the branches before it."""
        reach = [self.nop] * 4
        code = self.description.assemble(self.jumps, CODE + 4 * (place + len(reach)))
        order = self.description.byte_order
        return reach + [int.from_bytes(code[at : at + 4], order) for at in range(0, len(code), 4)]

    def listing(self, code):
        """The stream as assembly text."""
        return "\n".join(
            f"{CODE + at:#x}: {code[at : at + 4].hex()} "
            + str(
                self.description.disassemble(
                    int.from_bytes(code[at : at + 4], self.description.byte_order), 4, CODE + at
                )
            )
            for at in range(0, len(code), 4)
        )


def put(pattern, word, **values):
    """An encoded instruction with other operands; those that the pattern lacks are passed over."""
    for name, value in values.items():
        operand = pattern.by_name.get(name)
        if operand is not None:
            word = put_field(pattern, word, name, value - operand.field.bias)
    return word


def put_field(pattern, word, name, number):
    """An encoded instruction with other bits for one operand, if the pattern has it."""
    operand = pattern.by_name.get(name)
    for part in operand.parts if operand is not None else ():
        word &= ~((1 << part.width) - 1 << part.source)
        word |= (number >> part.target & (1 << part.width) - 1) << part.source
    return word


def signed_word(generator):
    """A random number of 32 bits as its sign extension to 64."""
    value = generator.choice((generator.getrandbits(32), generator.randrange(200)))
    return value - (1 << 32) & (1 << 64) - 1 if value >> 31 else value


class Start:
    """Registers and memory to begin with, from a seed."""

    def __init__(self, machine, seed):
        generator = random.Random(seed)
        self.files = {}
        first = True
        for name, numbers in machine.files.items():
            file = machine.description.register_files[name]
            limit = machine.limits.get(name, 1 << file.width)
            values = [self.random_word(generator, file.width) % limit for _ in numbers]
            if file.zero is not None:
                values[file.zero] = 0
            if first:
                for number, value in machine.pointers.items():
                    values[number] = value
            self.files[name] = values
            first = False
        self.scalars = {name: scalar.make(generator) for name, scalar in machine.scalars.items()}
        self.data = generator.randbytes(AREA)

    @staticmethod
    def random_word(generator, width):
        kind = generator.randrange(3)
        value = (
            generator.choice(INTERESTING)
            if kind == 0
            else generator.getrandbits(64)
            if kind == 1
            else generator.randrange(200)
        )
        return value & (1 << width) - 1


class Guest:
    """An executor with code and data."""

    def __init__(self, machine, make):
        self.machine = machine
        bits = machine.description.address_bits
        self.memory = FlatMemory(1 << min(bits, 38))
        self.memory.map(CODE, 2 * PAGE, 7)
        self.memory.map(DATA, AREA, 3)
        self.cpu = make(machine.isa, self.memory)

    def prepare(self, start, code):
        self.memory.write(CODE, code)
        self.memory.write(DATA, start.data)
        for name, values in start.files.items():
            self.cpu.registers(name)[: len(values)] = values
        for name, value in start.scalars.items():
            self.cpu.set_state(name, value)
        self.cpu.pc = CODE

    def run(self, count=None):
        """Until something stops it, with or without a budget."""
        return self.cpu.run(count)

    def outcome(self):
        result = {}
        for name, numbers in self.machine.files.items():
            result[name] = [
                value if number is not None else None
                for value, number in zip(self.cpu.registers(name), numbers, strict=False)
            ]
        for name, scalar in self.machine.scalars.items():
            result[name] = self.cpu.state(name) & (1 << scalar.bits) - 1
        result["data"] = self.memory.read(DATA, AREA)
        return result


class Oracle:
    """Unicorn with the same memory map."""

    def __init__(self, machine):
        unicorn = pytest.importorskip("unicorn")
        self.unicorn = unicorn
        self.machine = machine
        self.engine = unicorn.Uc(machine.arch, machine.mode)
        if machine.model is not None:
            self.engine.ctl_set_cpu_model(machine.model)
        self.engine.mem_map(CODE, 2 * PAGE)
        self.engine.mem_map(DATA, AREA)
        if machine.setup:
            machine.setup(self.engine)

    def prepare(self, start, code):
        engine = self.engine
        engine.mem_write(CODE, code)
        engine.mem_write(DATA, start.data)
        engine.ctl_remove_cache(CODE, CODE + 2 * PAGE)
        for name, numbers in self.machine.files.items():
            for number, value in zip(numbers, start.files[name], strict=True):
                if number is not None:
                    engine.reg_write(number, value)
        for name, scalar in self.machine.scalars.items():
            scalar.write(engine, start.scalars[name])

    def run(self, until, count=0):
        """Up to an address; whether an exception ended it."""
        try:
            self.engine.emu_start(CODE, until, count=count)
        except self.unicorn.UcError:
            return True
        return False

    def outcome(self):
        engine = self.engine
        result = {}
        for name, numbers in self.machine.files.items():
            width = self.machine.description.register_files[name].width
            result[name] = [
                engine.reg_read(number) & (1 << width) - 1 if number is not None else None
                for number in numbers
            ]
        for name, scalar in self.machine.scalars.items():
            result[name] = scalar.read(engine)
        result["data"] = bytes(engine.mem_read(DATA, AREA))
        return result


END = b"\xff" * 4
"""No instruction in any of these sets."""


def check(machine, oracle, guests, seed, words):
    """Run a stream everywhere and demand that all ends are equal, exceptions included."""
    code = b"".join(machine.encode(word) for word in [*words, *[machine.nop] * 8])
    end = CODE + len(code)
    start = Start(machine, seed)
    oracle.prepare(start, code)
    failed = oracle.run(end)
    expected = oracle.outcome()
    for guest in guests:
        guest.prepare(start, code + END)
        stop = guest.run()
        actual = guest.outcome()
        described = f"{type(guest.cpu).__name__} {stop} seed {seed}\n{machine.listing(code)}"
        if failed:
            assert stop.reason in (StopReason.TRAP, StopReason.MISALIGNED), described
        else:
            assert stop == Stop(StopReason.ILLEGAL_INSTRUCTION, end), described
        for key, value in expected.items():
            assert actual[key] == value, f"{key} {differences(actual[key], value)}: {described}"


def differences(actual, expected):
    """What differs, for a message: numbers of registers, or offsets in the data."""
    if isinstance(actual, int):
        return f"{actual:#x} {expected:#x}"
    return [number for number, pair in enumerate(zip(actual, expected, strict=True)) if pair[0] != pair[1]][
        :8
    ]
