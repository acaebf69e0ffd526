"""Random programs of machines, with traps and translation, in every tier against the reference."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.cpu.system_machines import CODE, HANDLER, PAGE, SystemMachine, prepare

from anyvirt.cpu.interpreter import Interpreter
from anyvirt.cpu.reference import ReferenceExecutor
from anyvirt.cpu.stencil_executor import StencilExecutor


def run_in_pieces(machine, pieces):
    """Run with several budgets; waiting for interrupts that do not come is over at once."""
    stop = None
    for budget in pieces:
        end = machine.cpu.instructions + budget
        while machine.cpu.instructions < end:
            stop = machine.cpu.run(end - machine.cpu.instructions)
    return stop


def check(make, seed, pieces):
    outcomes = []
    for kind in (make, ReferenceExecutor):
        machine = SystemMachine(kind)
        prepare(machine, seed)
        if kind is StencilExecutor:
            mode, pc = machine.cpu.state("privilege"), machine.cpu.pc
            machine.cpu.set_state("privilege", 3)
            addresses = [*range(CODE, CODE + 4 * PAGE, 64), *range(HANDLER, HANDLER + PAGE, 64)]
            assert machine.cpu.translate_now(addresses, counted=True)
            machine.cpu.set_state("privilege", mode)
            machine.cpu.pc = pc
        outcomes.append(machine.outcome(run_in_pieces(machine, pieces)))
    assert outcomes[0] == outcomes[1], seed


@pytest.mark.parametrize("make", [Interpreter, StencilExecutor])
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 150), min_size=1, max_size=4))
def test_random_programs(make, seed, pieces):
    check(make, seed, pieces)
