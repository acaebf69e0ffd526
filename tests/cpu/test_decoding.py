"""The native decoder: what it takes for an instruction, and that no bytes whatever harm the host."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyvirt.cpu.executor import StopReason
from anyvirt.cpu.interpreter import Interpreter
from anyvirt.cpu.memory import FlatMemory
from anyvirt.isa.riscv64 import riscv64

CODE = 0x10000
PAGE = 4096
RANDOM_WORDS = 20_000


@pytest.fixture(scope="module")
def cpu():
    memory = FlatMemory()
    memory.map(CODE, PAGE, 7)
    return Interpreter("riscv64", memory)


def is_illegal(cpu, word, length):
    cpu.memory.write(CODE, word.to_bytes(length, "little"))
    cpu.pc = CODE
    return cpu.run(1).reason == StopReason.ILLEGAL_INSTRUCTION


def test_every_16_bit_encoding(cpu):
    wrong = [
        word
        for word in range(1 << 16)
        if word & 3 != 3 and is_illegal(cpu, word, 2) != (riscv64.find(word, 2) is None)
    ]
    assert wrong == []


def may_be_illegal_when_executed(pattern):
    """Unknown control registers, and the dynamic rounding mode when it is a reserved one."""
    return pattern.mnemonic.startswith("csr") or "rm" in pattern.by_name


def test_random_32_bit_encodings(cpu):
    generator = random.Random(7)
    candidates = [generator.getrandbits(32) | 3 for _ in range(RANDOM_WORDS)]
    # Neighbours of legal ones are more likely to be taken for something they are not.
    for pattern in riscv64.patterns:
        if pattern.length == 4:
            candidates += [pattern.match ^ 1 << bit for bit in range(2, 32)]
    for word in candidates:
        pattern = riscv64.find(word, 4)
        illegal = is_illegal(cpu, word, 4)
        if pattern is None:
            assert illegal, hex(word)
        elif illegal:
            assert may_be_illegal_when_executed(pattern), riscv64.disassemble(word, 4)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32 - 1))
def test_random_bytes_never_harm_the_host(seed):
    generator = random.Random(seed)
    memory = FlatMemory(1 << generator.choice([20, 30, 38]))
    pages = memory.size // PAGE
    mapped = [generator.randrange(min(pages, 64)) * PAGE for _ in range(generator.randrange(1, 6))]
    mapped.append(memory.size - PAGE)
    for address in mapped:
        memory.map(address, PAGE, 7)
        memory.write(address, generator.randbytes(PAGE))
        memory.protect(address, PAGE, generator.randrange(8))
    cpu = Interpreter("riscv64", memory)
    for _ in range(20):
        cpu.pc = generator.choice(mapped) + generator.randrange(0, PAGE, 2)
        cpu.fcsr = generator.randrange(256)
        for number in range(1, 32):
            near = generator.choice(mapped) + generator.randrange(-64, PAGE + 64)
            cpu.x[number] = generator.choice([near, generator.getrandbits(64), near]) & (1 << 64) - 1
            cpu.f[number] = generator.getrandbits(64)
        for _ in range(30):
            stop = cpu.run(generator.choice([1, 10, 1000]))
            cpu.pc = stop.pc + generator.choice([2, 4])
            assert cpu.x[0] == 0
