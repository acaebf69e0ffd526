"""The interpreter tier as an executor: precise faults, exact budgets, changing code, several at once."""

import ctypes
import os
import subprocess
import sys
import tempfile
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyvirt.cpu.executor import Access, Executor, Stop, StopReason
from anyvirt.cpu.interpreter import Interpreter
from anyvirt.cpu.memory import FlatMemory
from anyvirt.cpu.reference import ReferenceExecutor
from anyvirt.isa.riscv64 import riscv64
from anyvirt.jit.layout import Request

from .machines import MEMORIES

# Python 3.12 and later warn of what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

CODE, DATA = 0x10000, 0x20000
PAGE = 4096
ECALL, EBREAK, LOOP, NOP, FENCE_I = 0x73, 0x100073, 0x6F, 0x13, 0x100F
ADDI_A0 = 0x150513
"""addi a0, a0, 1"""
LD_A0_A1, SD_A0_A1, LW_A0_A1 = 0x0005B503, 0x00A5B023, 0x0005A503
JR_A1 = 0x00058067


def words(*instructions):
    return b"".join(word.to_bytes(4, "little") for word in instructions)


@pytest.fixture(params=[Interpreter, ReferenceExecutor], ids=["interpreter", "reference"])
def make(request):
    return request.param


@pytest.fixture(params=MEMORIES)
def memory(request):
    memory = MEMORIES[request.param]()
    memory.map(CODE, 2 * PAGE, 7)
    memory.map(DATA, PAGE, 3)
    return memory


@pytest.fixture
def cpu(make, memory):
    cpu = make("riscv64", memory)
    cpu.pc = CODE
    return cpu


def run(cpu, *instructions, at=CODE, budget=None):
    cpu.memory.write(at, words(*instructions))
    cpu.pc = at
    return cpu.run(budget)


def test_both_are_executors(cpu):
    assert isinstance(cpu, Executor)


def test_system_calls_and_breakpoints_say_where_and_how_long(cpu):
    stop = run(cpu, ADDI_A0, ECALL, EBREAK)
    assert stop == Stop(StopReason.SYSTEM_CALL, CODE + 4, length=4)
    assert cpu.pc == CODE + 4
    cpu.pc = stop.next_pc
    assert cpu.run() == Stop(StopReason.BREAKPOINT, CODE + 8, length=4)
    cpu.memory.write(CODE, b"\x02\x90")
    cpu.pc = CODE
    assert cpu.run() == Stop(StopReason.BREAKPOINT, CODE, length=2)


@pytest.mark.parametrize("word", [0, 0xFFFFFFFF, 0x00000002 << 16], ids=hex)
def test_illegal_instructions(cpu, word):
    cpu.x[10] = 5
    assert run(cpu, ADDI_A0, word) == Stop(StopReason.ILLEGAL_INSTRUCTION, CODE + 4)
    assert cpu.x[10] == 6


@pytest.mark.parametrize(
    ("instruction", "address", "fault", "access"),
    [
        (LD_A0_A1, 0, 0, Access.READ),
        (LD_A0_A1, DATA + PAGE - 4, DATA + PAGE, Access.READ),
        (SD_A0_A1, DATA + PAGE - 4, DATA + PAGE, Access.WRITE),
        (LD_A0_A1, DATA - 4, DATA - 4, Access.READ),
        (SD_A0_A1, 8, 8, Access.WRITE),
        (LD_A0_A1, (1 << 38) - 4, (1 << 38) - 4, Access.READ),
        (LD_A0_A1, 1 << 38, 1 << 38, Access.READ),
        (SD_A0_A1, (1 << 64) - 8, (1 << 64) - 8, Access.WRITE),
        (LD_A0_A1, 1 << 63, 1 << 63, Access.READ),
        (JR_A1, 0, 0, Access.EXECUTE),
        (JR_A1, DATA, DATA, Access.EXECUTE),
        (JR_A1, 1 << 40, 1 << 40, Access.EXECUTE),
        (JR_A1, (1 << 64) - 2, (1 << 64) - 2, Access.EXECUTE),
    ],
)
def test_access_faults_are_precise(cpu, instruction, address, fault, access):
    cpu.x[10], cpu.x[11] = 77, address
    stop = run(cpu, ADDI_A0, instruction, ADDI_A0)
    pc = address if access == Access.EXECUTE else CODE + 4
    assert stop == Stop(StopReason.ACCESS_FAULT, pc, address=fault, access=access)
    assert cpu.x[10] == 78
    assert cpu.pc == pc


def test_a_fault_can_be_mended_and_the_instruction_repeated(cpu, memory):
    cpu.x[10], cpu.x[11] = 5, 0x90008
    assert run(cpu, SD_A0_A1, LD_A0_A1, EBREAK).reason == StopReason.ACCESS_FAULT
    memory.map(0x90000, PAGE, 3)
    assert cpu.run().reason == StopReason.BREAKPOINT
    assert memory.read(0x90008, 1) == b"\5"


def test_a_read_only_page_can_be_read(cpu, memory):
    memory.protect(DATA, PAGE, 1)
    cpu.x[11] = DATA
    assert run(cpu, LD_A0_A1, SD_A0_A1) == Stop(
        StopReason.ACCESS_FAULT, CODE + 4, address=DATA, access=Access.WRITE
    )


def test_an_instruction_across_pages_needs_both(cpu, memory):
    place = CODE + 2 * PAGE - 2
    memory.write(place, words(ADDI_A0)[:2])
    cpu.pc = place
    assert cpu.run() == Stop(StopReason.ACCESS_FAULT, place, address=place + 2, access=Access.EXECUTE)
    memory.map(CODE + 2 * PAGE, PAGE, 7)
    memory.write(place + 2, words(ADDI_A0)[2:] + words(EBREAK))
    cpu.pc = place
    assert cpu.run().pc == place + 4
    assert cpu.x[10] == 1


def test_changing_the_second_half_of_an_instruction_across_pages(cpu, memory):
    place = CODE + PAGE - 2
    memory.write(place, words(ADDI_A0, EBREAK))
    cpu.pc = place
    cpu.run()
    memory.write(CODE + PAGE, (0x0025).to_bytes(2, "little"))
    cpu.pc = place
    cpu.run()
    assert cpu.x[10] == 3


def test_falling_off_the_end_of_code(cpu):
    place = CODE + 2 * PAGE - 4
    assert run(cpu, ADDI_A0, at=place) == Stop(
        StopReason.ACCESS_FAULT, place + 4, address=place + 4, access=Access.EXECUTE
    )
    assert cpu.x[10] == 1


def test_code_without_execute_permission(cpu, memory):
    run(cpu, ADDI_A0, EBREAK)
    memory.protect(CODE, PAGE, 3)
    cpu.pc = CODE
    assert cpu.run() == Stop(StopReason.ACCESS_FAULT, CODE, address=CODE, access=Access.EXECUTE)
    memory.protect(CODE, PAGE, 5)
    assert cpu.run().reason == StopReason.BREAKPOINT
    memory.unmap(CODE, PAGE)
    cpu.pc = CODE
    assert cpu.run().reason == StopReason.ACCESS_FAULT


def test_branches_far_outside(cpu, memory):
    memory.map(0, PAGE, 7)
    # jal zero, -0x100000 at address 0, and jal zero, +0xffffe near the end of the address space
    stop = run(cpu, 0x8000006F, at=0)
    assert stop == Stop(
        StopReason.ACCESS_FAULT, (1 << 64) - 0x100000, address=(1 << 64) - 0x100000, access=Access.EXECUTE
    )
    memory.map((1 << 38) - PAGE, PAGE, 7)
    target = (1 << 38) - PAGE + 0xFFFFE
    assert run(cpu, 0x7FFFF06F, at=(1 << 38) - PAGE) == Stop(
        StopReason.ACCESS_FAULT, target, address=target, access=Access.EXECUTE
    )


@pytest.mark.parametrize("at, offset", [(0x1000, -0x2000), (0xF000, 0x2000)], ids=["before", "behind"])
@pytest.mark.parametrize("budget", [None, 100])
def test_a_branch_out_of_the_memory_may_be_looked_at(make, at, offset, budget):
    """Whoever samples the CPU there finds no record to look at."""
    cpu = make("riscv64", FlatMemory(0x10000))
    cpu.memory.map(at, PAGE, 7)
    target = at + offset & (1 << 64) - 1
    code = b"".join(riscv64.assemble(line) for line in ("beq a0, a1, 8", "ebreak", f"jal zero, {offset - 8}"))
    cpu.memory.write(at, code)
    cpu.pc = at
    getattr(cpu, "_requests", [0, 0])[Request.SAMPLE] = 1
    lost = Stop(StopReason.ACCESS_FAULT, target, address=target, access=Access.EXECUTE)
    assert cpu.run(budget) == lost
    assert cpu.run(budget) == lost


@pytest.mark.parametrize("memory", ["flat"], indirect=True)
def test_a_file_that_was_cut_off_is_a_bus_error(cpu, memory):
    with tempfile.TemporaryFile() as file:
        file.truncate(2 * PAGE)
        memory.map(0x50000, 2 * PAGE, 7, fd=file.fileno())
        os.ftruncate(file.fileno(), PAGE)
        cpu.x[11] = 0x51000
        data = run(cpu, LW_A0_A1)
        cpu.pc = 0x51000
        if isinstance(cpu, Interpreter):
            assert data == Stop(StopReason.ACCESS_FAULT, CODE, 0, 0x51000, Access.READ, bus_error=True)
            code = Stop(StopReason.ACCESS_FAULT, 0x51000, 0, 0x51000, Access.EXECUTE, bus_error=True)
            assert cpu.run() == code
        else:
            assert data == Stop(StopReason.ACCESS_FAULT, CODE, 0, 0x51000, Access.READ)


def test_misaligned_data_is_fine_but_not_for_atomics(cpu, memory):
    memory.write(DATA + 1, words(0x11223344))
    cpu.x[11] = DATA + 1
    assert run(cpu, LW_A0_A1, EBREAK).reason == StopReason.BREAKPOINT
    assert cpu.x[10] == 0x11223344
    lr_w_a0_a1 = 0x1005A52F
    stop = run(cpu, lr_w_a0_a1)
    assert (stop.reason, stop.pc, stop.address) == (StopReason.MISALIGNED, CODE, DATA + 1)


def test_odd_and_wild_program_counters(cpu):
    for pc in (1, 1 << 38, 1 << 50):
        cpu.pc = pc
        assert cpu.run() == Stop(StopReason.ACCESS_FAULT, pc, address=pc, access=Access.EXECUTE)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.integers(0, 12))
def test_budgets_are_exact(budgets, iterations):
    # addi a0, a0, 1; addi a1, a1, -1; bnez a1, -8; ecall
    program = words(ADDI_A0, 0xFFF58593, 0xFE059CE3, ECALL)
    total = 3 * (iterations + 1) + 1
    for make in (Interpreter, ReferenceExecutor):
        memory = FlatMemory()
        memory.map(CODE, PAGE, 7)
        memory.write(CODE, program)
        cpu = make("riscv64", memory)
        cpu.pc, cpu.x[11] = CODE, iterations + 1
        executed = 0
        for budget in budgets:
            stop = cpu.run(budget)
            executed += budget
            if executed >= total:
                assert stop.reason == StopReason.SYSTEM_CALL
                assert cpu.instructions == total
                break
            assert stop.reason == StopReason.BUDGET
            assert cpu.instructions == executed
            assert cpu.pc == CODE + 4 * (executed % 3 if executed < total - 1 else 3)


def test_what_faults_does_not_count(make, memory):
    cpu = make("riscv64", memory)
    assert run(cpu, ADDI_A0, LD_A0_A1, budget=10).reason == StopReason.ACCESS_FAULT
    assert cpu.instructions == 1
    assert run(cpu, ADDI_A0, 0xFFFFFFFF, budget=10).reason == StopReason.ILLEGAL_INSTRUCTION
    assert cpu.instructions == 2
    assert run(cpu, ADDI_A0, EBREAK, budget=10).reason == StopReason.BREAKPOINT
    assert cpu.instructions == 3
    cpu.x[11] = DATA
    assert run(cpu, JR_A1, budget=1).reason == StopReason.BUDGET
    assert cpu.instructions == 4
    assert cpu.run(1).reason == StopReason.ACCESS_FAULT
    assert cpu.instructions == 4


def test_counted_and_uncounted_runs_may_alternate(cpu, memory):
    run(cpu, ADDI_A0, ADDI_A0, ADDI_A0, EBREAK, budget=2)
    assert cpu.run().reason == StopReason.BREAKPOINT
    assert cpu.x[10] == 3


def test_the_instruction_counter_counts(make, memory):
    cpu = make("riscv64", memory)
    rdinstret_a0 = 0xC0202573
    run(cpu, NOP, NOP, NOP, rdinstret_a0, EBREAK, budget=100)
    assert cpu.x[10] == 3
    cpu.pc = CODE + 8
    cpu.run(100)
    assert cpu.x[10] == 5


def test_clocks_advance(make, memory):
    cpu = make("riscv64", memory)
    rdtime_a0, rdtime_a2, rdcycle_a3 = 0xC0102573, 0xC0102673, 0xC00026F3
    run(cpu, rdtime_a0, rdtime_a2, rdcycle_a3, EBREAK)
    assert 0 < cpu.x[10] <= cpu.x[12]
    assert cpu.x[13] > 0


def test_clocks_follow_from_the_instructions_in_runs_with_a_budget(make, memory):
    for _ in range(2):
        cpu = make("riscv64", memory)
        # addi a1, a1, -1; bnez a1, -4; rdtime a0; rdcycle a3; ebreak
        cpu.x[11] = 1000
        run(cpu, 0xFFF58593, 0xFE059EE3, 0xC0102573, 0xC00026F3, EBREAK, budget=10_000)
        assert (cpu.x[10], cpu.x[13]) == (20, 2001)


def test_self_modifying_code_with_fence_i(cpu, memory):
    # Run the code at +16 once, store a new instruction over it, fence, run it again.
    new = 0x00A50513  # addi a0, a0, 10
    cpu.x[10], cpu.x[12], cpu.x[13] = 0, CODE + 20, new
    sw_a3_a2, jal_ra_12, jr_ra = 0x00D62023, 0x00C000EF, 0x00008067
    program = [0x014000EF, sw_a3_a2, FENCE_I, jal_ra_12, EBREAK, ADDI_A0, jr_ra]
    program[3] = 0x008000EF
    assert run(cpu, *program).reason == StopReason.BREAKPOINT
    assert cpu.x[10] == 11


def test_code_written_by_python_is_seen(cpu):
    run(cpu, ADDI_A0, EBREAK)
    run(cpu, ADDI_A0, ADDI_A0, EBREAK)
    assert cpu.x[10] == 3


def test_code_written_behind_our_back_needs_invalidate(memory):
    cpu = Interpreter("riscv64", memory)
    run(cpu, ADDI_A0, EBREAK)
    ctypes.memmove(memory.host_address(CODE), words(0x00A50513), 4)
    cpu.pc = CODE
    cpu.run()
    assert cpu.x[10] == 2
    cpu.invalidate(CODE, 4)
    cpu.pc = CODE
    cpu.run()
    assert cpu.x[10] == 12


def test_interrupt_ends_an_endless_loop(cpu):
    threading.Timer(0.1, cpu.interrupt).start()
    assert run(cpu, LOOP) == Stop(StopReason.INTERRUPTED, CODE)
    cpu.interrupt()
    assert cpu.run() == Stop(StopReason.INTERRUPTED, CODE)
    assert cpu.run(10).reason == StopReason.BUDGET


def test_the_gil_is_free_while_the_guest_runs(memory):
    cpu = Interpreter("riscv64", memory)
    thread = threading.Thread(target=run, args=(cpu, LOOP))
    thread.start()
    total = sum(range(100_000))
    cpu.interrupt()
    thread.join(10)
    assert not thread.is_alive()
    assert total == 4999950000


def test_two_executors_share_a_memory(memory):
    memory.write(CODE, words(ADDI_A0, 0xFFF58593, 0xFE059CE3, EBREAK))
    cpus = [Interpreter("riscv64", memory) for _ in range(4)]
    for number, cpu in enumerate(cpus):
        cpu.pc, cpu.x[11] = CODE, 100_000 * (number + 1)
    threads = [threading.Thread(target=cpu.run) for cpu in cpus]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [cpu.x[10] for cpu in cpus] == [100_000, 200_000, 300_000, 400_000]


def test_atomics_are_atomic_between_executors(memory):
    amoadd_w = 0x00C5A02F  # amoadd.w zero, a2, (a1)
    memory.write(CODE, words(amoadd_w, 0xFFF68693, 0xFE069CE3, EBREAK))
    cpus = [Interpreter("riscv64", memory) for _ in range(2)]
    for cpu in cpus:
        cpu.pc, cpu.x[11], cpu.x[12], cpu.x[13] = CODE, DATA, 1, 300_000
    threads = [threading.Thread(target=cpu.run) for cpu in cpus]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert int.from_bytes(memory.read(DATA, 4), "little") == 600_000


def test_executors_with_memories_of_their_own():
    machines = []
    for value in (1, 2):
        memory = FlatMemory()
        memory.map(CODE, PAGE, 7)
        memory.write(CODE, words(0x00000513 | value << 20, EBREAK))
        machines.append(Interpreter("riscv64", memory))
    for _ in range(2):
        for value, cpu in enumerate(machines, 1):
            cpu.pc = CODE
            assert cpu.run().reason == StopReason.BREAKPOINT
            assert cpu.x[10] == value


def test_state_blocks_and_address_space_are_given_back():
    for _ in range(300):
        memory = FlatMemory()
        memory.map(CODE, PAGE, 7)
        cpu = Interpreter("riscv64", memory)
        assert cpu.x[10] == 0
        cpu.x[10] = 1
        run(cpu, EBREAK)


def test_x0_stays_zero(cpu):
    cpu.x[0] = 0 if isinstance(cpu, ReferenceExecutor) else 99
    run(cpu, 0x00000533, EBREAK)  # add a0, zero, zero
    assert (cpu.x[0], cpu.x[10]) == (0, 0)


def test_floating_point_state_is_the_guests_alone(cpu):
    cpu.fcsr = 3 << 5
    fdiv_s = 0x18B57553
    cpu.f[10], cpu.f[11] = 0xFFFFFFFF3F800000, 0xFFFFFFFF40400000  # 1.0 / 3.0, rounded up
    run(cpu, fdiv_s, EBREAK)
    assert cpu.f[10] == 0xFFFFFFFF3EAAAAAB
    assert cpu.fcsr == 3 << 5 | 1
    assert 1.0 / 3.0 == 0.3333333333333333
    cpu.fcsr = 1 << 5
    cpu.f[10] = 0xFFFFFFFF3F800000
    run(cpu, fdiv_s, EBREAK)
    assert cpu.f[10] == 0xFFFFFFFF3EAAAAAA
    assert cpu.fcsr == 1 << 5 | 1


def test_a_fork_goes_on_on_its_own(memory):
    cpu = Interpreter("riscv64", memory)
    run(cpu, ADDI_A0, EBREAK, ADDI_A0, EBREAK)
    child = os.fork()
    if child == 0:
        cpu.pc += 4
        stop = cpu.run()
        memory.write(DATA, b"child")
        os._exit(0 if stop.pc == CODE + 12 and cpu.x[10] == 2 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (cpu.x[10], memory.read(DATA, 5)) == (1, bytes(5))


def test_a_crash_of_the_host_stays_one():
    code = (
        "import ctypes, faulthandler\n"
        "from anyvirt.cpu.memory import FlatMemory\n"
        "from anyvirt.cpu.interpreter import Interpreter\n"
        "{prelude}\n"
        "Interpreter('riscv64', FlatMemory())\n"
        "ctypes.string_at(8)\n"
    )
    for prelude, trace in (("", b""), ("faulthandler.enable()", b"Segmentation fault")):
        result = subprocess.run(
            [sys.executable, "-c", code.format(prelude=prelude)], capture_output=True, check=False, timeout=60
        )
        assert result.returncode == -11
        assert trace in result.stderr


def test_a_warm_start_imports_no_compiler():
    code = (
        "import sys\n"
        "from anyvirt.cpu.memory import FlatMemory\n"
        "from anyvirt.cpu.interpreter import Interpreter\n"
        "Interpreter('riscv64', FlatMemory())\n"
        "unwanted = {'llvmlite', 'anyvirt.isa', 'anyvirt.jit.frontend', 'anyvirt.typed'}\n"
        "print(*unwanted & set(sys.modules))\n"
    )
    command = [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    result = subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert result.stdout.split() == []


def test_a_fence_of_one_executor_does_not_disturb_another(memory):
    memory.write(CODE, words(ADDI_A0, 0xFFF58593, 0xFE059CE3, EBREAK))
    memory.write(CODE + PAGE, words(FENCE_I, 0xFFDFF06F))  # fence.i; j -4
    worker, fencer = Interpreter("riscv64", memory), Interpreter("riscv64", memory)
    worker.pc, worker.x[11], fencer.pc = CODE, 20_000_000, CODE + PAGE
    thread = threading.Thread(target=fencer.run)
    thread.start()
    assert worker.run().reason == StopReason.BREAKPOINT
    fencer.interrupt()
    thread.join()
    assert (worker.x[10], worker.x[0]) == (20_000_000, 0)
