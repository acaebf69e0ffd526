"""Every instruction form, with random operands and registers, in the interpreter tier and the reference."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyvirt.isa.riscv64 import riscv64

from .machines import both, starts

EBREAK = (0x00100073).to_bytes(4, "little")
# What these give depends on time, or in counting runs on what was counted before.
UNREPEATABLE = {0xC00, 0xC01, 0xC02}
# These may go anywhere, so a run of theirs needs a budget.
CONTROL = {"jal", "jalr", "jump_register", "beq", "bne", "blt", "bge", "bltu", "bgeu"}


@pytest.fixture(scope="module")
def machines():
    return both()


def encodings(pattern):
    """Random encodings that the pattern decodes."""
    free = ~pattern.mask & ((1 << 8 * pattern.length) - 1)
    return (
        st.integers(0, (1 << 8 * pattern.length) - 1)
        .map(lambda bits: pattern.match | bits & free)
        .filter(lambda word: riscv64.find(word, pattern.length) is pattern)
    )


def name(pattern):
    return f"{pattern.mnemonic}-{pattern.length}"


@pytest.mark.parametrize("pattern", riscv64.patterns, ids=name)
def test_one_instruction(machines, pattern):
    compiled, reference = machines

    @settings(max_examples=25, suppress_health_check=list(HealthCheck), deadline=None)
    @given(encodings(pattern), starts)
    def check(word, start):
        if pattern.decode(word).get("csr") in UNREPEATABLE:
            return
        code = word.to_bytes(pattern.length, "little") + EBREAK
        for budget in (1,) if pattern.semantics.__name__ in CONTROL else (1, None):
            outcomes = []
            for machine in (compiled, reference):
                machine.prepare(start, code)
                outcomes.append(machine.outcome(machine.cpu.run(budget)))
            assert outcomes[0] == outcomes[1], riscv64.disassemble(word, pattern.length, 0x10000)

    check()
