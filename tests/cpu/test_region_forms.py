"""Every instruction form within compiled regions and in the reference: registers, memory, faults, budgets.

Many instructions share a region, so that there are few compilations: a computed jump at its entry leads to
one of them, in between others that change registers. So each is compiled with values that are only in
registers of the host, and its faults have to put them back.
"""

import random

import pytest

from anyvirt.cpu.reference import ReferenceExecutor
from anyvirt.cpu.translation import translation_space
from anyvirt.cpu.translator import Translator

from .machines import ADDRESSES, CODE, Machine, Start
from .regional import publish
from .test_interpreter_forms import CONTROL, DESCRIPTIONS, EBREAK, UNREPEATABLE

SELECTOR = 31
"""The register that leads from the entry to an instruction."""
SNIPPETS = 40
"""Instructions that share a region."""
ENCODINGS = {"riscv64": 4, "riscv32": 2}
"""Random encodings of each form."""
STARTS = 3
"""States in which each of them is executed."""
CHUNKS = {"riscv64": 34, "riscv32": 15}
INTERPRETED = {
    "ecall", "ebreak", "c.ebreak", "fence.i", "csrrw", "csrrs", "csrrc", "csrrwi", "csrrsi", "csrrci",
}  # fmt: skip
"""Forms that are left to the interpreter, by their mnemonics."""
ROUNDING = (0, 1, 2, 3, 4, 0, 5, 7)


def random_word(isa, pattern, generator):
    """A random encoding of a form."""
    while True:
        word = pattern.match | generator.getrandbits(8 * pattern.length) & ~pattern.mask
        if isa.find(word, pattern.length) is pattern:
            return word


def change(isa, generator):
    """The code of an instruction that changes a register, other than the selector."""
    register = generator.randrange(1, SELECTOR)
    if generator.random() < 0.3:
        return isa.assemble(f"fsgnjn.d f{register}, f{register}, f{generator.randrange(32)}")
    return isa.assemble(f"addi x{register}, x{register}, {generator.randrange(-9, 9)}")


class Snippet:
    """An instruction between two that change registers, and a breakpoint."""

    def __init__(self, isa, pattern, generator):
        self.isa, self.pattern = isa, pattern
        self.word = random_word(isa, pattern, generator)
        before = change(isa, generator)
        code = self.word.to_bytes(pattern.length, "little")
        self.distance = len(before)
        """Of the instruction from the beginning."""
        self.code = before + code + change(isa, generator) + EBREAK
        self.may_go_anywhere = pattern.semantics.__name__ in CONTROL
        self.address = 0

    def __str__(self):
        place = self.address + self.distance
        return f"{place:#x}: {self.isa.disassemble(self.word, self.pattern.length, place)}"

    def aim(self, start, generator):
        """Let most memory accesses of a start succeed, or fail at interesting places."""
        values = self.pattern.decode(self.word)
        if "(" in self.pattern.assembly and "rs1" in values and generator.random() < 0.7:
            offset = values.get("imm", 0)
            start.x[values["rs1"] or 1] = generator.choice(ADDRESSES) + 8 * generator.randrange(4) - offset
            start.x = [value & (1 << 64) - 1 for value in start.x]


def make_chunks(isa, count):
    """All forms, in random order, each in some encodings, as `count` lists of snippets."""
    generator = random.Random(isa.name)
    snippets = []
    for pattern in isa.patterns:
        for _ in range(ENCODINGS[isa.name]):
            snippet = Snippet(isa, pattern, generator)
            if pattern.decode(snippet.word).get("csr") not in UNREPEATABLE:
                snippets.append(snippet)
    generator.shuffle(snippets)
    assert len(snippets) <= count * SNIPPETS
    return [snippets[position::count] for position in range(count)]


def lay_out(isa, snippets):
    """The code of a chunk: the computed jump, and what it leads to."""
    code = isa.assemble(f"jalr zero, 0(x{SELECTOR})")
    for snippet in snippets:
        snippet.address = CODE + len(code)
        code += snippet.code
    return code


@pytest.fixture(scope="module")
def chunks():
    return {name: make_chunks(isa, CHUNKS[name]) for name, isa in DESCRIPTIONS.items()}


@pytest.fixture(scope="module")
def machines():
    return {name: (Machine(Translator, name), Machine(ReferenceExecutor, name)) for name in DESCRIPTIONS}


CASES = [
    pytest.param(name, number, counted, id=f"{name}-{number}-{'counted' if counted else 'free'}")
    for name in DESCRIPTIONS
    for number in range(CHUNKS[name])
    for counted in (False, True)
]


@pytest.mark.parametrize(("name", "number", "counted"), CASES)
def test_forms(chunks, machines, name, number, counted):
    isa, snippets = DESCRIPTIONS[name], chunks[name][number]
    compiled, reference = machines[name]
    code, rounding = lay_out(isa, snippets), ROUNDING[number % len(ROUNDING)]
    for machine in (compiled, reference):
        machine.prepare(Start(0), code)
    targets = {CODE: [snippet.address for snippet in snippets]}
    region = publish(compiled.memory, name, CODE, counted=counted, rounding=rounding, indirect=targets)
    for snippet in snippets:
        place = snippet.address + snippet.distance
        assert region.covers(place, place + 1) == (snippet.pattern.mnemonic not in INTERPRETED), snippet
        generator = random.Random(snippet.word)
        for _ in range(STARTS):
            start = Start(generator.getrandbits(32))
            start.fcsr = rounding << 5 | start.fcsr & 31
            snippet.aim(start, generator)
            start.x[SELECTOR] = snippet.address
            budget = generator.randint(0, 6) if counted else None
            if counted or not snippet.may_go_anywhere:
                outcomes = []
                for machine in (compiled, reference):
                    machine.prepare(start, b"")
                    outcomes.append(machine.outcome(machine.cpu.run(budget)))
                assert outcomes[0] == outcomes[1], (str(snippet), start)
    assert translation_space(compiled.memory, name, counted=counted).at(CODE) is region
