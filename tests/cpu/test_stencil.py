"""The stencil tier itself: what it translates, what it leaves to others, and when translations end."""

import ctypes
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from anyvirt.cpu.arena import arena
from anyvirt.cpu.executor import StopReason
from anyvirt.cpu.interpreter import Interpreter
from anyvirt.cpu.memory import PAGE_SIZE
from anyvirt.cpu.stencil_executor import StencilExecutor
from anyvirt.cpu.stencil_space import stencil_space
from anyvirt.isa.riscv64 import riscv64
from anyvirt.jit.layout import HANDLER_FIELD, Slot
from anyvirt.jit.stencil_layout import LARGEST_REGION

from .machines import CODE, DATA, MEMORIES, PAGE

SUM = """
    addi a0, zero, 0
loop:
    add a0, a0, a1
    addi a1, a1, -1
    bne a1, zero, loop
    ebreak
"""


@pytest.fixture(params=MEMORIES)
def memory(request):
    memory = MEMORIES[request.param]()
    memory.map(CODE, 4 * PAGE, 7)
    memory.map(DATA, PAGE, 3)
    return memory


@pytest.fixture
def cpu(memory):
    return StencilExecutor("riscv64", memory)


def load(cpu, text, pc=CODE):
    code = riscv64.assemble(text, pc)
    cpu.memory.write(pc, code)
    cpu.pc = pc
    return code


def space_of(cpu, *, counted=False):
    return stencil_space(cpu.memory, cpu.isa, counted=counted)


def translations(cpu, *, counted=False):
    return space_of(cpu, counted=counted)._all()


def is_inside(cpu):
    """Whether the record that the CPU is at leads into a translation."""
    record = ctypes.c_uint64.from_address(cpu._state + Slot.RECORD).value
    return arena().contains(ctypes.c_uint64.from_address(record + HANDLER_FIELD).value)


def test_a_loop_is_translated_as_a_whole_and_stops_within_its_translation(cpu):
    load(cpu, SUM)
    assert cpu.translate_now([CODE]) == 1
    assert space_of(cpu).instructions == 5
    (translation,) = translations(cpu)
    (covered,) = translation.ranges
    assert covered[1] - covered[0] == 20
    cpu.x[11] = 1 << 40
    threading.Timer(0.05, cpu.interrupt).start()
    assert cpu.run().reason == StopReason.INTERRUPTED
    assert is_inside(cpu)
    before = cpu.x[11]
    assert before < 1 << 40
    cpu.x[10], cpu.x[11] = 0, 3
    assert cpu.run().reason == StopReason.BREAKPOINT
    assert cpu.x[10] == 6


def test_hot_code_is_translated_without_being_asked_for(cpu):
    load(cpu, SUM)
    deadline = time.monotonic() + 20
    while not translations(cpu) and time.monotonic() < deadline:
        cpu.pc = CODE
        cpu.x[11] = 10_000_000
        assert cpu.run().reason == StopReason.BREAKPOINT
        assert cpu.x[10] == 10_000_000 * 10_000_001 // 2
    assert translations(cpu)


def test_what_has_never_been_reached_is_left_out_unless_asked_for(memory):
    text = """
        beq zero, zero, over
        addi a0, a0, 1
        addi a0, a0, 1
    over:
        ebreak
    """
    cpu = StencilExecutor("riscv64", memory)
    load(cpu, text)
    # The interpreter decodes ahead, but not what a branch leads to before it is taken.
    cpu._select(False)
    assert cpu._approach(CODE)
    assert not space_of(cpu).translate(cpu._state)
    assert cpu.run().reason == StopReason.BREAKPOINT
    assert cpu._approach(CODE)
    assert space_of(cpu).translate(cpu._state)
    assert space_of(cpu).instructions == 4


def test_translations_are_entered_wherever_branches_lead(cpu):
    text = """
        beq a1, zero, over
        addi a0, a0, 1
    over:
        addi a0, a0, 2
        ebreak
    """
    load(cpu, text)
    assert cpu.translate_now([CODE]) == 1
    assert cpu._approach(CODE + 8)
    assert is_inside(cpu)
    cpu.pc = CODE + 8
    assert cpu.run().reason == StopReason.BREAKPOINT
    assert cpu.x[10] == 2


def flat_cpu():
    memory = MEMORIES["flat"]()
    memory.map(CODE, 4 * PAGE, 7)
    return StencilExecutor("riscv64", memory)


def catch_up(space):
    while space.catch_up():
        pass


def test_what_is_executed_around_hot_code_is_translated_with_it():
    """Many ways between two translations are never seen, for control leaves them so soon."""
    cpu = flat_cpu()
    space = space_of(cpu)
    places = [CODE + offset for offset in (0x10, 0x100, 0x800, PAGE - 8)]
    for place in places:
        load(cpu, "addi a0, a0, 1\nebreak", place)
        assert cpu.run().reason == StopReason.BREAKPOINT
    load(cpu, "addi a0, a0, 1\nebreak", CODE + 0x400)
    load(cpu, "addi a0, a0, 1\nebreak", CODE + 2 * PAGE)
    assert cpu.run().reason == StopReason.BREAKPOINT
    assert not space.instructions
    space.care_for([CODE + 0x123])
    catch_up(space)
    for place in places:
        assert cpu._approach(place)
        assert is_inside(cpu)
    # It has never been executed; and the other one is in a page where nothing is hot.
    assert not any(part.covers(CODE + 0x400, CODE + 0x408) for part in space._all())
    assert not any(part.covers(CODE + 2 * PAGE, CODE + 3 * PAGE) for part in space._all())
    cpu.x[10] = 0
    for place in places:
        cpu.pc = place
        assert cpu.run().reason == StopReason.BREAKPOINT
    assert cpu.x[10] == len(places)


def test_what_is_executed_around_a_region_is_translated_with_it(cpu):
    """In all pages that it lies in, which have other numbers than addresses in a machine."""
    space = space_of(cpu)
    places = [CODE + 0x10, CODE + 0xF00, CODE + PAGE + 0x200]
    for place in places:
        load(cpu, "addi a0, a0, 1\nebreak", place)
        assert cpu.run().reason == StopReason.BREAKPOINT
    space.go_on_around([(CODE + 0xF80, CODE + PAGE + 0x80)])
    catch_up(space)
    for place in places:
        assert cpu._approach(place)
        assert is_inside(cpu)


def test_nothing_is_translated_twice_by_catching_up():
    cpu = flat_cpu()
    load(cpu, "addi a0, a0, 1\n" * 1000 + "ebreak")
    assert cpu.run().reason == StopReason.BREAKPOINT
    space = space_of(cpu)
    assert cpu.translate_now([CODE])
    catch_up(space)
    assert space.instructions == 1001
    space.care_for([CODE])
    catch_up(space)
    assert space.instructions == 1001


def three_pages():
    """A CPU that has executed something in each of three pages, and their addresses."""
    cpu = flat_cpu()
    pages = [CODE + page * PAGE for page in range(3)]
    for page in pages:
        load(cpu, "addi a0, a0, 1\nebreak", page)
        assert cpu.run().reason == StopReason.BREAKPOINT
    return cpu, pages


def test_catching_up_is_done_in_pieces(monkeypatch):
    monkeypatch.setattr("anyvirt.cpu.stencil_space._CATCHING_UP", 0)
    cpu, pages = three_pages()
    space = space_of(cpu)
    space.care_for(pages)
    assert [space.catch_up() for _ in pages] == [True, True, False]
    assert space.instructions == 6


def test_catching_up_has_a_share_of_the_time(monkeypatch):
    monkeypatch.setattr("anyvirt.cpu.stencil_space._HEAD_START", -1)
    monkeypatch.setattr("anyvirt.cpu.stencil_space._SHARE", 0)
    cpu, pages = three_pages()
    space = space_of(cpu)
    space.care_for(pages)
    assert not space.catch_up()
    assert space.instructions == 0


def test_regions_are_bounded(cpu):
    load(cpu, "addi a0, a0, 1\n" * 1000 + "ebreak")
    assert cpu.translate_now([CODE]) == 1
    # Behind the first one is another, of what was decoded ahead.
    assert LARGEST_REGION <= space_of(cpu).instructions < 1000
    cpu.x[10] = 0
    assert cpu.run().reason == StopReason.BREAKPOINT
    assert cpu.x[10] == 1000


def test_code_goes_on_over_the_end_of_a_page(cpu):
    start = CODE + PAGE - 10
    text = "addi a0, a0, 1\n" * 8 + "ebreak"
    load(cpu, text, start)
    cpu.translate_now([start, CODE + PAGE + 2])
    for expected in (8, 16):
        cpu.pc = start
        assert cpu.run().reason == StopReason.BREAKPOINT
        assert cpu.x[10] == expected


def test_calls_from_page_to_page_come_back(cpu):
    function = CODE + 2 * PAGE
    load(cpu, "addi a0, a0, 5\njalr zero, 0(ra)", function)
    text = f"""
        addi a1, zero, 50
    loop:
        jal ra, {function:#x}
        addi a1, a1, -1
        bne a1, zero, loop
        ebreak
    """
    load(cpu, text)
    assert cpu.translate_now([CODE, function]) == 2
    assert cpu.run().reason == StopReason.BREAKPOINT
    assert cpu.x[10] == 250


@pytest.mark.parametrize("counted", [False, True])
def test_rewritten_code_is_given_up(cpu, counted):
    budget = 1000 if counted else None
    load(cpu, "addi a0, zero, 1\nebreak")
    assert cpu.translate_now([CODE], counted=counted) == 1
    assert cpu.run(budget).reason == StopReason.BREAKPOINT
    load(cpu, "addi a0, zero, 2\nebreak")
    assert not translations(cpu, counted=counted)
    assert cpu.run(budget).reason == StopReason.BREAKPOINT
    assert cpu.x[10] == 2


def test_code_that_rewrites_its_own_loop_runs_what_it_wrote(cpu):
    """The store is followed by `fence.i`, as the architecture demands."""
    new = int.from_bytes(riscv64.assemble("addi a0, a0, 100"), "little")
    text = f"""
        addi a1, zero, 10
        lui a3, {CODE >> 12}
        addi a4, zero, 5
    loop:
        addi a0, a0, 1
        bne a1, a4, skip
        sw a2, 12(a3)
        fence.i
    skip:
        addi a1, a1, -1
        bne a1, zero, loop
        ebreak
    """
    load(cpu, text)
    assert cpu.translate_now([CODE]) == 1
    cpu.x[12] = new
    assert cpu.run().reason == StopReason.BREAKPOINT
    # Ten times round; the instruction is another one for the last four.
    assert cpu.x[10] == 6 + 4 * 100


def test_another_cpu_leaves_a_loop_whose_code_is_taken_away(memory):
    cpu = StencilExecutor("riscv64", memory)
    load(cpu, "loop:\nbeq zero, zero, loop")
    assert cpu.translate_now([CODE]) == 1
    stops = []
    thread = threading.Thread(target=lambda: stops.append(cpu.run()))
    thread.start()
    time.sleep(0.05)
    assert thread.is_alive()
    memory.unmap(CODE, PAGE)
    thread.join(20)
    assert not thread.is_alive()
    assert (stops[0].reason, stops[0].pc) == (StopReason.ACCESS_FAULT, CODE)


def test_given_up_translations_give_their_memory_back(cpu):
    used = arena().used
    for number in range(2000):
        load(cpu, f"addi a0, zero, {number}\nebreak")
        assert cpu.translate_now([CODE]) == 1
        assert cpu.run().reason == StopReason.BREAKPOINT
        assert cpu.x[10] == number
    assert arena().used <= used + 4 * PAGE_SIZE


def test_no_page_of_a_translation_is_writable(cpu):
    load(cpu, SUM)
    cpu.translate_now([CODE])
    (translation,) = translations(cpu)
    with open("/proc/self/maps") as maps:
        for line in maps:
            low, high = (int(word, 16) for word in line.split()[0].split("-"))
            if low <= translation.placement.address < high:
                assert line.split()[1].startswith("r-x")
                return
    raise AssertionError("the translation is nowhere")


def test_hooked_instructions_are_not_translated(cpu):
    load(cpu, SUM)
    seen = []
    cpu.hooks.at(CODE + 8, lambda cpu, address: seen.append(cpu.x[11]))
    cpu.translate_now([CODE])
    cpu.x[11] = 4
    assert cpu.run().reason == StopReason.BREAKPOINT
    assert (seen, cpu.x[10]) == ([4, 3, 2, 1], 10)


def test_code_that_cannot_be_fetched_is_refused(cpu):
    # Not mapped, no instruction, not even an address of one.
    assert cpu.translate_now([0x5000, DATA + 8 * PAGE, CODE + 1]) == 0
    cpu.memory.write(CODE, bytes(8))
    cpu.translate_now([CODE])
    cpu.pc = CODE
    assert cpu.run().reason == StopReason.ILLEGAL_INSTRUCTION


def test_cpus_share_translations(memory):
    cpus = [StencilExecutor("riscv64", memory) for _ in range(4)]
    for cpu in cpus:
        load(cpu, SUM) if cpu is cpus[0] else setattr(cpu, "pc", CODE)
        cpu.x[11] = 200_000
    cpus[0].translate_now([CODE])
    threads = [threading.Thread(target=cpu.run) for cpu in cpus]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [cpu.x[10] for cpu in cpus] == [200_000 * 200_001 // 2] * 4
    assert len(translations(cpus[0])) >= 1


def test_an_interpreter_of_the_same_memory_is_not_concerned(memory):
    cpu, other = StencilExecutor("riscv64", memory), Interpreter("riscv64", memory)
    load(cpu, SUM)
    cpu.translate_now([CODE])
    other.pc, other.x[11] = CODE, 100
    assert other.run().reason == StopReason.BREAKPOINT
    assert other.x[10] == 5050
    assert not is_inside(other)


def test_llvm_is_not_needed_once_the_stencils_are_compiled(cpu):
    load(cpu, SUM)
    cpu.translate_now([CODE])
    kind = next(name for name, memory in MEMORIES.items() if type(cpu.memory) is memory)
    program = (
        "import sys\n"
        "sys.modules['llvmlite'] = None\n"
        "from tests.cpu.machines import MEMORIES, CODE\n"
        "from anyvirt.cpu.stencil_executor import StencilExecutor\n"
        f"memory = MEMORIES[{kind!r}]()\n"
        "memory.map(CODE, 4096, 7)\n"
        "memory.write(CODE, bytes.fromhex('1305500073001000'))\n"
        "cpu = StencilExecutor('riscv64', memory)\n"
        "assert cpu.translate_now([CODE]) == 1\n"
        "cpu.pc = CODE\n"
        "cpu.run()\n"
        "print(cpu.x[10])\n"
    )
    root = Path(__file__).parents[2]
    completed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=root
    )
    assert completed.stdout == "5\n", completed.stderr


def test_a_space_can_be_garbage_wherever_memory_is_taken(memory):
    """Collecting it must not want a lock that whoever allocates may hold."""
    space = stencil_space(memory, "riscv64", counted=False)
    with arena()._lock:
        collecting = threading.Thread(target=space.__del__, daemon=True)
        collecting.start()
        collecting.join(30)
        assert not collecting.is_alive()


@pytest.mark.parametrize("kind", ["FlatMemory", "MachineMemory"])
def test_the_first_use_on_a_machine_compiles_everything(kind, tmp_path):
    """In a child, as monitors of machines do: what holds all locks over a fork may hold some already."""
    program = (
        "from anyvirt.jit.apart import compile_apart\n"
        "from anyvirt.cpu.memory import FlatMemory\n"
        "from anyvirt.cpu.machine_memory import MachineMemory\n"
        "from anyvirt.cpu.stencil_executor import StencilExecutor\n"
        "compile_apart()\n"
        f"StencilExecutor('alpha', {kind}()).prepare()\n"
        "print('ready')\n"
    )
    environment = {**os.environ, "ANYVIRT_STATE": os.fspath(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=90
    )
    assert done.stdout == "ready\n", done.stderr
