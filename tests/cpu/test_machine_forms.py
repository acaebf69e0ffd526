"""Every RISC-V instruction form in machine memory, in the interpreter tier and the reference."""

import pytest
from hypothesis import HealthCheck, given, settings

from .machines import CODE, both, starts
from .test_interpreter_forms import CONTROL, DESCRIPTIONS, EBREAK, FORMS, UNREPEATABLE, encodings


@pytest.fixture(scope="module")
def machines():
    return {name: both(name, "machine") for name in DESCRIPTIONS}


@pytest.mark.parametrize(("isa", "pattern"), FORMS)
def test_one_instruction(machines, isa, pattern):
    compiled, reference = machines[isa.name]

    @settings(max_examples=10, suppress_health_check=list(HealthCheck), deadline=None)
    @given(encodings(isa, pattern), starts)
    def check(word, start):
        if pattern.decode(word).get("csr") in UNREPEATABLE:
            return
        code = word.to_bytes(pattern.length, "little") + EBREAK
        for budget in (1,) if pattern.semantics.__name__ in CONTROL else (1, None):
            outcomes = []
            for machine in (compiled, reference):
                machine.prepare(start, code)
                outcomes.append(machine.outcome(machine.cpu.run(budget)))
            assert outcomes[0] == outcomes[1], isa.disassemble(word, pattern.length, CODE)

    check()
