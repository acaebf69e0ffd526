"""When translations end: code that is written, mapped, protected, moved or fenced, by whichever thread."""

import os
import random
import tempfile
import threading

import pytest

from anyvirt.cpu.executor import Access, Stop, StopReason
from anyvirt.cpu.machine_memory import MachineMemory
from anyvirt.cpu.memory import FlatMemory
from anyvirt.cpu.profile import IMAGE_ENTRY
from anyvirt.cpu.reference import ReferenceExecutor
from anyvirt.cpu.translation import translation_space
from anyvirt.cpu.translator import Translator
from anyvirt.isa.riscv64 import riscv64

from .regional import Regional, compile_region, publish

CODE, DATA, PAGE = 0x10000, 0x20000, 4096


def assemble(*lines):
    return b"".join(riscv64.assemble(line) for line in lines)


ADD_1 = assemble("addi x10, x10, 1", "ebreak")
ADD_10 = assemble("addi x10, x10, 10", "ebreak")


@pytest.fixture
def memory():
    memory = FlatMemory(1 << 32)
    memory.map(CODE, 4 * PAGE, 7)
    memory.map(DATA, PAGE, 3)
    return memory


@pytest.fixture
def space(memory):
    return translation_space(memory, "riscv64", counted=False)


@pytest.fixture
def cpu(memory):
    return Translator("riscv64", memory)


def run(cpu, pc=CODE):
    cpu.pc = pc
    return cpu.run()


def translate(memory, code, at=CODE, *, counted=False):
    """Write code and compile the region at its beginning."""
    memory.write(at, code)
    assert publish(memory, "riscv64", at, counted=counted)


# Several entries ----------------------------------------------------------------------------------------

STEPS = assemble(*["addi x10, x10, 1"] * 6, "ebreak")


def publish_steps(memory, entry, *arrivals):
    """A region of the instructions from `entry` on, entered at `arrivals`, too."""
    return publish(memory, "riscv64", entry, counted=False, arrivals=arrivals)


@pytest.mark.parametrize("memory_kind", ["flat", "machine"])
def test_a_region_is_entered_where_control_has_been_seen_to_come(memory_kind, request):
    memory = request.getfixturevalue("memory") if memory_kind == "flat" else MachineMemory()
    if memory_kind == "machine":
        memory.add_ram(CODE, 2 * PAGE)
    memory.write(CODE, STEPS)
    region = publish_steps(memory, CODE, CODE + 8, CODE + 16, CODE + PAGE)
    assert region.entries == [CODE, CODE + 8, CODE + 16]
    cpu = Translator("riscv64", memory)
    for entry, sum_ in ((CODE, 6), (CODE + 8, 4), (CODE + 16, 2), (CODE + 4, 5)):
        cpu.x[10] = 0
        assert run(cpu, entry).reason == StopReason.BREAKPOINT
        assert cpu.x[10] == sum_


def test_the_larger_region_is_entered(memory, space):
    memory.write(CODE, STEPS)
    whole = publish_steps(memory, CODE, CODE + 8)
    part = publish_steps(memory, CODE + 4, CODE + 8)
    assert space.at(CODE + 8) is whole
    assert space.at(CODE + 4) is part
    again = publish_steps(memory, CODE, CODE + 4, CODE + 8)
    assert {space.at(CODE + distance) for distance in (0, 4, 8)} == {again}
    assert space.statistics.given_up == 2


def test_all_entries_end_with_the_code(memory, space, cpu):
    memory.write(CODE, STEPS)
    publish_steps(memory, CODE, CODE + 8, CODE + 16)
    memory.write(CODE + 20, assemble("addi x10, x10, 100"))
    assert not any(space.at(CODE + distance) for distance in (0, 8, 16))
    run(cpu, CODE + 8)
    assert cpu.x[10] == 103


# One thread ---------------------------------------------------------------------------------------------


def remap(memory):
    memory.map(CODE, PAGE, 7)
    memory.write(CODE, ADD_10)


def unmap_and_map(memory):
    memory.unmap(CODE, PAGE)
    remap(memory)


def move_away(memory):
    memory.move(CODE, PAGE, 0x90000, PAGE)
    remap(memory)


def protect_twice(memory):
    memory.protect(CODE, PAGE, 3)
    memory.write(CODE, ADD_10)
    memory.protect(CODE, PAGE, 5)


CHANGES = {
    "write": lambda memory: memory.write(CODE, ADD_10),
    "write-a-byte": lambda memory: memory.write(CODE + 2, ADD_10[2:3]),
    "remap": remap,
    "unmap": unmap_and_map,
    "move": move_away,
    "protect": protect_twice,
}


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_changed_code_is_executed(memory, cpu, change, counted):
    space = translation_space(memory, "riscv64", counted=counted)
    translate(memory, ADD_1, counted=counted)
    budget = 100 if counted else None
    for expected in (1, 2):
        cpu.pc = CODE
        assert cpu.run(budget).reason == StopReason.BREAKPOINT
        assert cpu.x[10] == expected
    change(memory)
    assert space.at(CODE) is None
    cpu.pc = CODE
    assert cpu.run(budget).reason == StopReason.BREAKPOINT
    assert cpu.x[10] == 12
    assert space.statistics.given_up == 1


@pytest.mark.parametrize("protection", [0, 1, 3])
def test_code_that_may_not_be_executed_any_more_is_not(memory, cpu, space, protection):
    translate(memory, ADD_1)
    memory.protect(CODE, PAGE, protection)
    assert run(cpu) == Stop(StopReason.ACCESS_FAULT, CODE, address=CODE, access=Access.EXECUTE)
    assert space.at(CODE) is None


def test_changes_elsewhere_leave_a_translation_alone(memory, cpu, space):
    translate(memory, ADD_1)
    region = space.at(CODE)
    memory.write(CODE + 8, b"other")
    memory.write(CODE + PAGE, ADD_10)
    memory.unmap(CODE + 2 * PAGE, PAGE)
    memory.protect(DATA, PAGE, 1)
    assert space.at(CODE) is region
    assert run(cpu).reason == StopReason.BREAKPOINT


def test_a_change_of_any_page_of_a_region_ends_it(memory, space):
    """A loop over two pages, and a function in a third."""
    code = assemble(f"jal x1, {2 * PAGE}", f"jal zero, {PAGE - 4}").ljust(PAGE, b"\0")
    code += assemble("beq x5, zero, 8", f"jal zero, {-PAGE - 4}", "ebreak").ljust(PAGE, b"\0")
    code += assemble("jalr zero, 0(x1)")
    for page in range(3):
        translate(memory, code)
        assert {start // PAGE for start, _ in space.at(CODE).ranges} == {16, 17, 18}
        memory.write(CODE + page * PAGE, code[page * PAGE :][:4])
        assert space.at(CODE) is None
        assert list(space.containing(CODE + PAGE)) == []


def test_an_image_of_code_that_has_changed_meanwhile_is_not_used(memory, cpu, space):
    memory.write(CODE, ADD_1)
    reply, image = compile_region(memory, "riscv64", CODE, counted=False)
    memory.write(CODE, ADD_10)
    assert space.publish(reply.entry, reply.ranges, reply.digest, image, IMAGE_ENTRY) is None
    memory.unmap(CODE, PAGE)
    assert space.publish(reply.entry, reply.ranges, reply.digest, image, IMAGE_ENTRY) is None
    memory.map(CODE, PAGE, 7)
    memory.write(CODE, ADD_1)
    assert space.publish(reply.entry, reply.ranges, reply.digest, image, IMAGE_ENTRY)
    run(cpu)
    assert cpu.x[10] == 1


def test_code_behind_the_end_of_a_cut_off_file(memory, cpu, space):
    with tempfile.TemporaryFile() as file:
        file.write(ADD_1.ljust(2 * PAGE, b"\0"))
        file.flush()
        memory.map(0x50000, 2 * PAGE, 5, fd=file.fileno(), shared=True)
        assert publish(memory, "riscv64", 0x50000, counted=False)
        os.ftruncate(file.fileno(), 0)
        assert publish(memory, "riscv64", 0x50000, counted=False) is None
        space.revalidate()
        assert space.at(0x50000) is None
        assert list(space.code.pages()).count(0x50000) == 1
        assert space.code.read(0x50000, PAGE) is None
    stop = run(cpu, 0x50000)
    assert (stop.reason, stop.bus_error) == (StopReason.ACCESS_FAULT, True)


# Guests that write code ---------------------------------------------------------------------------------


def test_a_guest_that_rewrites_a_function_again_and_again(memory):
    """As a just-in-time compiler does: store an instruction, fence.i, call it."""
    function = CODE + PAGE
    program = assemble(
        f"auipc x6, {PAGE >> 12}",
        "lui x7, 0x500",
        "addi x7, x7, 0x513",
        "addi x9, zero, 300",
        "addi x8, zero, 1",
        # addi a0, a0, n
        "slli x11, x8, 20",
        "or x11, x11, x12",
        "sw x11, 0(x6)",
        "fence.i",
        "jalr x1, 0(x6)",
        "addi x8, x8, 1",
        "bne x8, x9, -24",
        "ebreak",
    )
    memory.write(CODE, program)
    memory.write(function, assemble("nop", "jalr zero, 0(x1)"))
    space = translation_space(memory, "riscv64", counted=False)
    cpu = Translator("riscv64", memory)
    cpu.x[12] = 0x00050513
    for entry in (CODE + 16, function, CODE + 36):
        publish(memory, "riscv64", entry, counted=False)
    assert run(cpu).reason == StopReason.BREAKPOINT
    assert cpu.x[10] == sum(range(1, 300))
    assert space.at(function) is None


@pytest.mark.parametrize("seed", range(3))
def test_rewritten_code_comes_to_what_the_reference_comes_to(seed):
    """Stores of random instructions into a loop that is being executed, each followed by fence.i."""
    generator = random.Random(seed)
    body = [f"addi x{generator.randrange(10, 16)}, x{generator.randrange(10, 16)}, {n}" for n in range(1, 9)]
    lines = [*body, "sw x20, 0(x21)", "fence.i", "addi x22, x22, -1", f"bne x22, zero, {-4 * 11}", "ebreak"]
    results = []
    for make in (Regional, ReferenceExecutor):
        generator = random.Random(seed)
        memory = FlatMemory(1 << 32)
        memory.map(CODE, PAGE, 7)
        memory.write(CODE, assemble(*lines))
        cpu = make("riscv64", memory)
        cpu.pc = CODE
        states = []
        for _ in range(30):
            register = generator.randrange(10, 16)
            new = f"xori x{register}, x{generator.randrange(10, 16)}, {generator.randrange(99)}"
            cpu.x[20] = int.from_bytes(riscv64.assemble(new), "little")
            cpu.x[21], cpu.x[22] = CODE + 4 * generator.randrange(8), generator.randrange(1, 4)
            cpu.pc = CODE
            assert cpu.run().reason == StopReason.BREAKPOINT
            states.append((list(cpu.x), memory.read(CODE, 64)))
        results.append(states)
    assert results[0] == results[1]


def test_a_fence_keeps_what_has_not_changed(memory, cpu, space):
    translate(memory, ADD_1)
    region = space.at(CODE)
    memory.write(CODE + PAGE, assemble("fence.i", "ebreak"))
    assert run(cpu, CODE + PAGE).reason == StopReason.BREAKPOINT
    assert space.at(CODE) is region
    run(cpu)
    assert cpu.x[10] == 1


def test_code_shared_with_another_mapping_is_seen_after_a_fence(memory, cpu, space):
    """A guest writes at one address what it executes at another."""
    with tempfile.TemporaryFile() as file:
        file.write(ADD_1.ljust(PAGE, b"\0"))
        file.flush()
        memory.map(0x50000, PAGE, 5, fd=file.fileno(), shared=True)
        memory.map(0x60000, PAGE, 3, fd=file.fileno(), shared=True)
        assert publish(memory, "riscv64", 0x50000, counted=False)
        memory.write(CODE, assemble("sw x6, 0(x5)", "fence.i", "jalr zero, 0(x7)"))
        cpu.x[5], cpu.x[6], cpu.x[7] = 0x60000, int.from_bytes(ADD_10[:4], "little"), 0x50000
        assert run(cpu).reason == StopReason.BREAKPOINT
        assert cpu.x[10] == 10
        assert space.at(0x50000) is None


# Several threads ----------------------------------------------------------------------------------------

COUNT = assemble("addi x5, x5, 1", "ld x6, 0(x7)", "beq x6, zero, -8", "ebreak")
"""Count until a word is not zero."""


def test_a_translation_may_be_given_up_while_cpus_are_in_it(memory, space):
    memory.write(CODE, COUNT)
    cpus = [Translator("riscv64", memory) for _ in range(2)]
    stops = []
    for cpu in cpus:
        cpu.x[7] = DATA
    threads = [threading.Thread(target=lambda cpu=cpu: stops.append(run(cpu))) for cpu in cpus]
    for thread in threads:
        thread.start()
    for number in range(60):
        assert publish(memory, "riscv64", CODE, counted=False)
        match number % 3:
            case 0:
                memory.write(CODE, COUNT[:4])
            case 1:
                space.forget_all()
    memory.write(DATA, b"\1")
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert stops == [Stop(StopReason.BREAKPOINT, CODE + 12, length=4)] * 2


def test_a_cpu_leaves_code_that_another_thread_unmaps(memory, space):
    """Nobody interrupts it: it is asked where it is from time to time, and then there is nothing left."""
    translate(memory, assemble("addi x5, x5, 1", "jal zero, -4"))
    cpu = Translator("riscv64", memory)
    stops = []
    thread = threading.Thread(target=lambda: stops.append(run(cpu)))
    thread.start()
    memory.unmap(CODE, PAGE)
    thread.join(60)
    assert not thread.is_alive()
    assert stops[0]._replace(pc=0, address=0) == Stop(StopReason.ACCESS_FAULT, 0, access=Access.EXECUTE)
    assert stops[0].pc in (CODE, CODE + 4)


def test_publishing_and_mapping_do_not_wait_for_each_other(memory):
    """One thread maps code, which gives translations up; another publishes, which reads code."""
    memory.write(CODE, ADD_1)
    space = translation_space(memory, "riscv64", counted=False)
    reply, image = compile_region(memory, "riscv64", CODE, counted=False)
    stop = threading.Event()

    def publish_often():
        while not stop.is_set():
            space.publish(reply.entry, reply.ranges, reply.digest, image, IMAGE_ENTRY)

    thread = threading.Thread(target=publish_often, daemon=True)
    thread.start()
    for _ in range(2000):
        memory.protect(CODE, PAGE, 5)
        memory.protect(CODE, PAGE, 7)
    stop.set()
    thread.join(30)
    assert not thread.is_alive()
    assert space.statistics.published >= space.statistics.given_up > 0


def test_a_fence_of_one_cpu_is_seen_by_another(memory, space):
    """The second CPU runs a translation of code that the first one changes."""
    memory.write(CODE, assemble("addi x10, zero, 1", "beq x10, x11, -4", "ebreak"))
    memory.write(CODE + PAGE, assemble("sw x6, 0(x5)", "fence.i", "ebreak"))
    assert publish(memory, "riscv64", CODE, counted=False)
    looping, writing = Translator("riscv64", memory), Translator("riscv64", memory)
    looping.x[11] = 1
    stops = []
    thread = threading.Thread(target=lambda: stops.append(run(looping)))
    thread.start()
    writing.x[5] = CODE
    writing.x[6] = int.from_bytes(riscv64.assemble("addi x10, zero, 2"), "little")
    assert run(writing, CODE + PAGE).reason == StopReason.BREAKPOINT
    thread.join(60)
    assert not thread.is_alive()
    assert (stops[0].reason, looping.x[10]) == (StopReason.BREAKPOINT, 2)
