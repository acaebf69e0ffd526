"""Delay slots where something happens between a branch and its slot: faults, budgets, calls of the system."""

import pytest

from anyvirt.cpu.executor import Access, Stop, StopReason
from anyvirt.cpu.interpreter import Interpreter
from anyvirt.cpu.memory import FlatMemory
from anyvirt.cpu.reference import ReferenceExecutor
from anyvirt.isa.description import DELAY_SLOT
from anyvirt.jit.ahead import instruction_set

CODE, PAGE = 0x10000, 4096
V0, T0, RA = 2, 8, 31


@pytest.fixture(params=[ReferenceExecutor, Interpreter])
def make(request):
    return request.param


def machine(make, isa, text):
    memory = FlatMemory(1 << 32)
    memory.map(CODE, 2 * PAGE, 7)
    memory.write(CODE, instruction_set(isa).assemble(text, CODE))
    cpu = make(isa, memory)
    cpu.pc = CODE
    return cpu


@pytest.mark.parametrize("budget", [None, 100])
def test_a_fault_in_a_slot_can_be_mended_and_gone_on_from(make, budget):
    cpu = machine(make, "mips", "beq $zero, $zero, there\nlw $v0, 0($t0)\nbreak\nthere:\nsyscall")
    stop = cpu.run(budget)
    here = CODE + 4 | DELAY_SLOT
    assert stop == Stop(StopReason.ACCESS_FAULT, here, address=0, access=Access.READ)
    assert (cpu.pc, cpu.state("delay_target")) == (here, CODE + 12)
    cpu.registers("r")[T0] = CODE
    assert cpu.run(budget) == Stop(StopReason.SYSTEM_CALL, CODE + 12, length=4)
    assert cpu.registers("r")[V0] == int.from_bytes(cpu.memory.read(CODE, 4), "big")


@pytest.mark.parametrize("budget", [None, 100])
def test_a_system_call_in_a_slot_goes_on_at_the_target(make, budget):
    cpu = machine(make, "sparc", "ba there\nta %g0 + 16\nadd %g0, 1, %g1\nthere:\nta %g0 + 3")
    stop = cpu.run(budget)
    assert (stop.reason, stop.pc, stop.next_pc) == (StopReason.SYSTEM_CALL, CODE + 4 | DELAY_SLOT, CODE + 12)
    cpu.pc = stop.next_pc
    assert cpu.run(budget) == Stop(StopReason.TRAP, CODE + 12, address=0x83)


def test_a_loop_backwards_from_a_system_call_in_a_slot(make):
    cpu = machine(
        make, "mips", "nop_here:\nsll $zero, $zero, 0\nb_here:\nbeq $zero, $zero, nop_here\nsyscall"
    )
    stop = cpu.run(100)
    assert stop.next_pc == CODE


def test_budgets_end_between_a_branch_and_its_slot(make):
    text = "loop:\naddiu $v0, $v0, 1\nbne $v0, $t0, loop\naddiu $v1, $v1, 2\nsyscall"
    cpu = machine(make, "mipsel", text)
    cpu.registers("r")[T0] = 4
    places = []
    while (stop := cpu.run(1)).reason == StopReason.BUDGET:
        places.append(stop.pc - CODE)
    slot = 8 | DELAY_SLOT
    assert places == [4, slot, 0, 4, slot, 0, 4, slot, 0, 4, 8, 12]
    assert list(cpu.registers("r")[2:4]) == [4, 8]


@pytest.mark.parametrize("budget", [None, 100])
def test_a_jump_to_no_instruction_is_a_fault_behind_the_slot(make, budget):
    cpu = machine(make, "mips", "jr $t0\naddiu $v0, $v0, 1")
    cpu.registers("r")[T0] = CODE + 2
    stop = cpu.run(budget)
    assert stop == Stop(StopReason.ACCESS_FAULT, CODE + 2, address=CODE + 2, access=Access.EXECUTE)
    assert cpu.registers("r")[V0] == 1


def test_couples_of_delayed_transfers(make):
    # SPARC V8 section B.26: the first instruction at `a` is executed, then those at `b`.
    text = """
        ba a
        ba b
        add %g1, 1, %g1
    a:  add %g1, 2, %g1
        add %g1, 4, %g1
    b:  add %g1, 8, %g1
        ta %g0 + 3
    """
    cpu = machine(make, "sparc", text.replace("a:  ", "a:\n").replace("b:  ", "b:\n"))
    assert cpu.run(100).reason == StopReason.TRAP
    assert cpu.registers("r")[1] == 10


@pytest.mark.parametrize("budget", [None, 100])
def test_code_is_synchronized_in_a_slot(make, budget):
    # The word at `there` is overwritten with one of %g3, then flushed in the slot of the branch to it.
    text = "there:\nadd %g1, 1, %g1\nst %g3, [%g2 + 0]\nba there\nflush %g2 + 0"
    cpu = machine(make, "sparc", text)
    registers = cpu.registers("r")
    registers[2] = CODE
    registers[3] = int.from_bytes(instruction_set("sparc").assemble("ta %g0 + 3"), "big")
    assert cpu.run(budget) == Stop(StopReason.TRAP, CODE, address=0x83)
    assert registers[1] == 1


def test_a_branch_over_the_end_of_a_page(make):
    cpu = machine(make, "mips", "syscall")
    isa = instruction_set("mips")
    start = CODE + PAGE - 4
    cpu.memory.write(
        start, isa.assemble("beq $zero, $zero, there\naddiu $v0, $v0, 1\nbreak\nthere:\nsyscall", start)
    )
    cpu.pc = start
    assert cpu.run() == Stop(StopReason.SYSTEM_CALL, start + 12, length=4)
    assert cpu.registers("r")[V0] == 1
