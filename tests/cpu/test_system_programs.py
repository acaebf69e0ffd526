"""Random programs of machines, with traps and translation, in every tier against the reference."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.cpu.system_machines import CODE, HANDLER, PAGE, SystemMachine, prepare, prepare_ordinary

from anyvirt.cpu.interpreter import Interpreter
from anyvirt.cpu.machine_translator import MachineTranslator
from anyvirt.cpu.reference import ReferenceExecutor
from anyvirt.cpu.stencil_executor import StencilExecutor

PAGES = [*range(CODE, CODE + 4 * PAGE, PAGE), HANDLER]
"""Where there is code."""
REGIONS = 8
"""That are compiled for each program: one takes some ten milliseconds."""
KINDS = [Interpreter, StencilExecutor, MachineTranslator]


def run_in_pieces(machine, pieces):
    """Run with several budgets; waiting for interrupts that do not come is over at once."""
    stop = None
    for budget in pieces:
        end = machine.cpu.instructions + budget
        while machine.cpu.instructions < end:
            stop = machine.cpu.run(end - machine.cpu.instructions)
    return stop


def translate(machine, seed):
    """Let as much as possible be translated before it is executed."""
    cpu = machine.cpu
    mode, pc = cpu.state("privilege"), cpu.pc
    cpu.set_state("privilege", 3)
    if isinstance(cpu, MachineTranslator):
        # What the CPU knows of pages is what regions are made of.
        assert cpu.translate_now(PAGES, counted=True)
        generator = random.Random(seed)
        begin = [CODE + address % (4 * PAGE) for address in (pc, cpu.x[1], *cpu.x[21:24])]
        places = [page + place for page in PAGES for place in range(0, PAGE, 4)]
        cpu.compile_now([*begin, HANDLER, *generator.sample(places, REGIONS)], counted=True)
    elif isinstance(cpu, StencilExecutor):
        addresses = [address for page in PAGES for address in range(page, page + PAGE, 64)]
        assert cpu.translate_now(addresses, counted=True)
    cpu.set_state("privilege", mode)
    cpu.pc = pc


def check(make, prepared, seed, pieces):
    outcomes = []
    for kind in (make, ReferenceExecutor):
        machine = SystemMachine(kind)
        prepared(machine, seed)
        translate(machine, seed)
        outcomes.append(machine.outcome(run_in_pieces(machine, pieces)))
    assert outcomes[0] == outcomes[1], seed


@pytest.mark.parametrize("make", KINDS)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 150), min_size=1, max_size=4))
def test_random_programs(make, seed, pieces):
    check(make, prepare, seed, pieces)


@pytest.mark.parametrize("make", KINDS)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 1500), min_size=1, max_size=3))
def test_programs_that_stay_out_of_trouble_for_longer(make, seed, pieces):
    check(make, prepare_ordinary, seed, pieces)
