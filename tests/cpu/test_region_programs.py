"""Random programs in compiled regions: against Unicorn and the reference, in pieces, and interrupted."""

import random
import threading
import time

import pytest

from anyvirt.cpu.executor import StopReason
from anyvirt.cpu.interpreter import Interpreter
from anyvirt.cpu.reference import ReferenceExecutor
from anyvirt.cpu.translator import Translator
from anyvirt.isa.riscv64 import riscv64

from .machines import Machine
from .region_programs import Writer, begin
from .regional import publish


@pytest.fixture(scope="module")
def machine():
    return Machine(Translator)


@pytest.fixture(scope="module")
def reference():
    return Machine(ReferenceExecutor)


def load(machine, program, start, generator, *, counted):
    """Put a program and a state into a machine and compile some regions of it; they overlap."""
    machine.prepare(start, program.pages)
    regions = []
    for entry in generator.sample(program.leaders, k=min(4, len(program.leaders))):
        known = program.indirect if generator.random() < 0.7 else {}
        arrivals = generator.sample(program.leaders, k=generator.randint(0, len(program.leaders)))
        regions.append(
            publish(machine.memory, "riscv64", entry, counted=counted, indirect=known, arrivals=arrivals)
        )
    # A region does not begin with what is the interpreter's.
    assert any(regions)


# Against Unicorn ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("counted", [False, True], ids=["free", "counted"])
@pytest.mark.parametrize("kind", ["integer", "single", "double"])
def test_programs_come_to_what_unicorn_comes_to(machine, kind, counted):
    pytest.importorskip("unicorn")
    from . import test_unicorn as cases

    oracle = cases.Oracle(riscv64)
    reserving = ("lr.", "sc.")
    patterns = [
        pattern
        for pattern in cases.usable(riscv64)
        if cases.STREAMS[kind](pattern)
        and pattern.mnemonic not in cases.BRANCHES
        and not pattern.mnemonic.startswith(reserving)
    ]
    for seed in range(12):
        generator = random.Random(f"{kind}{seed}")
        program = Writer(generator, patterns).write()
        start = begin(seed, boxed=kind == "single")
        expected = oracle.run(start, bytes(program.code))
        load(machine, program, start, generator, counted=counted)
        stop = machine.cpu.run(1_000_000 if counted else None)
        actual = machine.outcome(stop)
        actual["f"] = list(machine.cpu.f)
        if kind == "single":
            for outcome in (expected, actual):
                outcome["f"] = [value & 0xFFFFFFFF for value in outcome["f"]]
        assert stop.reason == StopReason.BREAKPOINT
        for name, value in expected.items():
            assert actual[name] == value, f"{name}\n{cases.listing(riscv64, bytes(program.code))}"


# Budgets ------------------------------------------------------------------------------------------------


def everything():
    """Forms for programs whose every state is looked at; what reads clocks is only the same when counted."""
    control = {"jal", "jalr", "c.j", "c.jal", "c.jr", "c.jalr", "ecall", "ebreak", "c.ebreak", "fence.i"}
    branches = {"beq", "bne", "blt", "bge", "bltu", "bgeu", "c.beqz", "c.bnez"}
    return [
        pattern
        for pattern in riscv64.patterns
        if pattern.mnemonic not in control | branches and not pattern.mnemonic.startswith("csr")
    ]


def small_program(seed):
    """A program of some 20 to 200 steps."""
    generator = random.Random(seed)
    return Writer(generator, everything(), loops=3).write(parts=3, functions=1), generator


def trace(reference, program, start, steps=400):
    """The states before each instruction and at the end, and why each step stopped."""
    reference.prepare(start, program.pages)
    states = [reference.outcome(None)]
    for _ in range(steps):
        stop = reference.cpu.run(1)
        states.append(reference.outcome(None))
        if stop.reason != StopReason.BUDGET:
            return states, stop
    return states, None


@pytest.mark.parametrize("seed", range(4))
def test_a_budget_ends_a_run_at_every_place(machine, reference, seed):
    program, generator = small_program(seed)
    start = begin(seed)
    states, end = trace(reference, program, start)
    load(machine, program, start, generator, counted=True)
    for budget in range(len(states)):
        machine.prepare(start, b"")
        stop = machine.cpu.run(budget)
        state = machine.outcome(None)
        assert state == states[budget], budget
        last = end is not None and budget == len(states) - 1
        assert stop.reason == (end.reason if last else StopReason.BUDGET)


@pytest.mark.parametrize("seed", range(4))
def test_budgets_add_up(machine, reference, seed):
    program, generator = small_program(100 + seed)
    start = begin(seed)
    states, _ = trace(reference, program, start)
    load(machine, program, start, generator, counted=True)
    for _ in range(10):
        machine.prepare(start, b"")
        machine.cpu.instructions = executed = 0
        while executed < len(states) - 1:
            budget = min(generator.choice((0, 1, 2, 5, 40)), len(states) - 1 - executed)
            machine.cpu.run(budget)
            executed += budget
            assert machine.outcome(None) == states[executed]
            assert machine.cpu.instructions == min(executed, len(states) - 2)


@pytest.mark.parametrize("seed", range(3))
def test_counted_runs_are_the_same_with_and_without_translations(machine, seed):
    """Clocks included: they follow from the instructions executed."""
    generator = random.Random(200 + seed)
    clocks = ["csrrs x11, cycle, zero", "csrrs x12, time, zero", "csrrs x13, instret, zero"]
    program = Writer(generator, everything(), loops=40, lines=clocks).write(parts=8)
    start = begin(seed)
    outcomes = []
    interpreted = Machine(Interpreter)
    for executor, regions in ((interpreted, False), (machine, True), (machine, True)):
        if regions:
            load(executor, program, start, random.Random(seed), counted=True)
        executor.prepare(start, b"" if regions else program.pages)
        executor.cpu.instructions = 0
        pieces = random.Random(seed)
        states = []
        while not states or states[-1]["stop"].reason == StopReason.BUDGET:
            states.append(executor.outcome(executor.cpu.run(pieces.randrange(1, 900))))
        outcomes.append((states, executor.cpu.instructions))
    assert outcomes[0] == outcomes[1] == outcomes[2]


# Interrupts ---------------------------------------------------------------------------------------------


def interrupt_often(cpu, generator, stop):
    """Interrupt a CPU again and again until told to stop."""
    while not stop.is_set():
        time.sleep(generator.random() * 0.0005)
        cpu.interrupt()


@pytest.mark.parametrize("seed", range(3))
def test_a_run_that_is_interrupted_goes_on_from_a_state_that_stepping_reaches(machine, seed):
    """Every other piece is run by an interpreter, which needs the whole state to be where it belongs."""
    generator = random.Random(300 + seed)
    integers = [pattern for pattern in everything() if not pattern.mnemonic.startswith("lr.")]
    program = Writer(generator, integers, loops=50).write(parts=8, functions=3)
    start = begin(seed)
    load(machine, program, start, generator, counted=False)
    other = Interpreter("riscv64", machine.memory)
    undisturbed = Machine(Interpreter)
    undisturbed.prepare(start, program.pages)
    assert undisturbed.cpu.run().reason == StopReason.BREAKPOINT
    expected = undisturbed.outcome(None)
    interruptions = 0
    for _ in range(6):
        machine.prepare(start, b"")
        interruptions += run_interrupted(machine.cpu, other, generator)
        assert machine.outcome(None) == expected
    assert interruptions > 0


def run_interrupted(cpu, other, generator):
    """Run to the end, passing the state on at each interruption; returns how many there were."""
    stop, interruptions = threading.Event(), 0
    thread = threading.Thread(target=interrupt_often, args=(cpu, generator, stop))
    thread.start()
    try:
        while cpu.run().reason == StopReason.INTERRUPTED:
            interruptions += 1
            pass_on(cpu, other)
            other.run(generator.randrange(30))
            pass_on(other, cpu)
    finally:
        stop.set()
        thread.join()
    return interruptions


def pass_on(one, other):
    """Copy the state of a CPU."""
    other.x[:], other.f[:], other.pc, other.fcsr = list(one.x), list(one.f), one.pc, one.fcsr
    for name in ("reservation_address", "reservation_value"):
        other.set_state(name, one.state(name))
