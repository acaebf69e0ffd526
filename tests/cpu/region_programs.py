"""Random programs with loops, calls, returns and computed jumps, for tests of whole regions."""

from dataclasses import dataclass, field

from anyvirt.isa.riscv64 import riscv64

from .machines import BOXED, CODE, DATA, PAGE, Start

LINK, STACK, FRAME, INNER, OUTER, TARGET = 1, 2, 8, 28, 29, 31
"""Registers that keep control together; no other instruction writes them."""
KEPT = {LINK, STACK, FRAME, INNER, OUTER, TARGET}
LINES = 6
"""Most instructions in a row without a branch."""


@dataclass
class Program:
    """The code, which ends with a breakpoint, and what is known of it."""

    code: bytearray = field(default_factory=bytearray)
    leaders: list[int] = field(default_factory=list)
    """Addresses where loops, functions and what is behind calls begin."""
    indirect: dict[int, list[int]] = field(default_factory=dict)
    """Targets of the computed jumps."""

    @property
    def here(self):
        """Address of what comes next."""
        return CODE + len(self.code)

    @property
    def end(self):
        """Address of the breakpoint."""
        return self.here - 4

    @property
    def pages(self):
        """The content of two pages of code."""
        return bytes(self.code).ljust(2 * PAGE, b"\0")

    def add(self, *lines):
        """Append instructions."""
        for line in lines:
            self.code += riscv64.assemble(line)

    def patch(self, place, line):
        """Replace the instruction of four bytes at an address."""
        self.code[place - CODE : place - CODE + 4] = riscv64.assemble(line)


class Writer:
    """Writes a program from a source of random numbers and the forms that may occur in it."""

    def __init__(self, generator, patterns, *, loops=4, lines=()):
        """Loops are run up to `loops` times; `lines` are instructions to be had besides."""
        self._generator = generator
        self._patterns = patterns
        self._loops = loops
        self._lines = [riscv64.assemble(line) for line in lines]
        self._program = Program()
        self._functions = []

    def write(self, parts=6, functions=2):
        """The program: a jump over its functions, and a loop of parts that may call them."""
        program, generator = self._program, self._generator
        program.add("nop")
        for _ in range(functions):
            self._functions.append(self._function())
        program.patch(CODE, f"jal zero, {program.here - CODE}")
        program.add(f"addi x{OUTER}, zero, {generator.randint(1, self._loops)}")
        begin = program.here
        program.leaders.append(begin)
        for _ in range(parts):
            self._part()
        program.add(f"addi x{OUTER}, x{OUTER}, -1", f"bne x{OUTER}, zero, {begin - program.here - 4}")
        program.add("ebreak")
        return program

    def _part(self):
        match self._generator.randrange(5):
            case 0:
                self._skip()
            case 1:
                self._loop()
            case 2 | 3 if self._functions:
                self._call(self._generator.choice(self._functions))
            case _:
                self._straight()

    def _straight(self):
        for _ in range(self._generator.randint(1, LINES)):
            self._program.code += self._instruction()

    def _skip(self):
        program, generator = self._program, self._generator
        place = program.here
        program.add("nop")
        self._straight()
        name = generator.choice(("beq", "bne", "blt", "bgeu"))
        first, second = generator.randrange(32), generator.randrange(32)
        program.patch(place, f"{name} x{first}, x{second}, {program.here - place}")

    def _loop(self):
        program = self._program
        program.add(f"addi x{INNER}, zero, {self._generator.randint(1, self._loops)}")
        begin = program.here
        program.leaders.append(begin)
        self._straight()
        if self._generator.random() < 0.5:
            self._skip()
        program.add(f"addi x{INNER}, x{INNER}, -1", f"bne x{INNER}, zero, {begin - program.here - 4}")

    def _call(self, target):
        program = self._program
        if self._generator.random() < 0.5:
            here = program.here
            program.add(f"auipc x{TARGET}, 0", f"addi x{TARGET}, x{TARGET}, {target - here}")
            program.indirect[program.here] = [target]
            program.add(f"jalr x{LINK}, 0(x{TARGET})")
        else:
            program.add(f"jal x{LINK}, {target - program.here}")
        program.leaders.append(program.here)

    def _function(self):
        place = self._program.here
        self._program.leaders.append(place)
        self._straight()
        if self._generator.random() < 0.5:
            self._loop()
        self._program.add(f"jalr zero, 0(x{LINK})")
        return place

    def _instruction(self):
        """A random instruction that keeps what has to be kept and accesses the data only."""
        if self._lines and self._generator.random() < 0.1:
            return self._generator.choice(self._lines)
        while True:
            pattern = self._generator.choice(self._patterns)
            word = pattern.match | self._generator.getrandbits(8 * pattern.length) & ~pattern.mask
            if "(" in pattern.assembly and pattern.length == 4:
                word = word & ~(31 << 15) | self._generator.choice((STACK, FRAME)) << 15
            if riscv64.find(word, pattern.length) is pattern and _is_harmless(pattern, word):
                return word.to_bytes(pattern.length, "little")


def _is_harmless(pattern, word):
    values = pattern.decode(word)
    operand = pattern.by_name.get("rd")
    if operand is not None and operand.field.registers == "x" and values["rd"] in KEPT:
        return False
    if "rm" in values and values["rm"] != 7:
        return False
    return "(" not in pattern.assembly or values["rs1"] in (STACK, FRAME)


def begin(seed, *, boxed=False):
    """A state in which such a program can begin."""
    start = Start(seed)
    start.x[STACK] = start.x[FRAME] = DATA + PAGE
    start.fcsr = 0
    start.reserved = False
    if boxed:
        start.f = [value & 0xFFFFFFFF | BOXED for value in start.f]
    return start
