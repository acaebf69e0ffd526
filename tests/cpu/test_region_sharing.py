"""Accesses in a region that share a look at the TLB: which do, and that nobody can tell."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyvirt.cpu.executor import Access, StopReason
from anyvirt.cpu.machine_memory import MachineMemory
from anyvirt.cpu.memory import Protection
from anyvirt.cpu.reference import ReferenceExecutor
from anyvirt.cpu.translation import translation_space
from anyvirt.cpu.translator import Translator
from anyvirt.isa.riscv64 import riscv64
from anyvirt.jit.handlers import Features
from anyvirt.jit.region import RegionFunction
from anyvirt.jit.region_plan import Hints, discover
from anyvirt.jit.region_sharing import LONGEST_SPAN
from anyvirt.jit.region_template import Templates

from .regional import publish
from .test_machine_memory import PAGE, RAM, Board

_LOADS = {1: "lbu", 2: "lh", 4: "lwu", 8: "ld"}
_STORES = {1: "sb", 2: "sh", 4: "sw", 8: "sd"}


def assemble(*lines):
    return b"".join(riscv64.assemble(line) for line in lines)


# Which do ---------------------------------------------------------------------------------------------------

TEMPLATES = Templates(riscv64, Features(counted=False, fma=False, memory="machine"))


def spans(*lines):
    """The groups of accesses in a program, as (low, end, access, number of accesses)."""
    code = assemble(*lines, "ebreak")
    plan = discover(TEMPLATES, lambda address, length: code[address : address + length] or None, 0, Hints())
    function = RegionFunction(riscv64, plan, counted=False, memory="machine")
    function.text()
    found = {span.leader: span for span in function.spans.values()}
    return [
        (span.low, span.end, span.access, len(span.members)) for _, span in sorted(found.items(), key=str)
    ]


def test_accesses_from_one_register_share():
    assert spans("ld x5, -8(x2)", "lbu x6, 40(x2)", "ld x7, 0(x2)") == [(-8, 41, Access.READ, 3)]


def test_a_store_wants_the_right_to_write_for_all():
    assert spans("lw x5, 4(x2)", "sd x6, 8(x2)") == [(4, 16, Access.WRITE, 2)]


def test_a_register_that_changes_begins_anew():
    changed = spans(
        "ld x5, 0(x6)", "ld x6, 8(x6)", "ld x5, 16(x6)", "addi x6, x6, 8", "ld x5, 0(x6)", "ld x5, 8(x6)"
    )
    assert [span[:2] for span in changed] == [(0, 16), (0, 16)]


def test_what_is_far_away_or_single_or_elsewhere_does_not():
    assert spans("ld x5, 0(x6)", f"ld x5, {LONGEST_SPAN}(x6)") == []
    assert spans("ld x5, 0(x6)", "ld x5, 0(x7)", "ld x5, 8(x0)", "ld x5, 16(x0)") == []
    assert spans("ld x5, 0(x6)", "beq x5, x0, 8", "ld x5, 8(x6)", "ld x5, 0(x7)") == []


# And nobody can tell ----------------------------------------------------------------------------------------


def program(generator):
    """Accesses around a few registers, which change now and then."""
    lines = []
    for _ in range(generator.randrange(2, 12)):
        base = generator.choice(["x11", "x11", "x11", "x12"])
        size, offset = generator.choice([1, 2, 4, 8]), generator.choice([0, 8, -8, -3, 24, 100, -120, 250])
        value = f"x{generator.choice([13, 14, 15, 10])}"
        match generator.randrange(8):
            case 0:
                lines.append(f"addi {base}, {base}, {offset}")
            case 1:
                lines.append(f"beq {value}, x15, 8")
            case 2:
                lines.append(f"amoadd.w {value}, x13, ({base})")
            case 3 | 4:
                lines.append(f"{_STORES[size]} {value}, {offset}({base})")
            case _:
                lines.append(f"{_LOADS[size]} {value}, {offset}({base})")
    # What a branch in the last line skips must not be the count of rounds.
    lines.append("addi x10, x10, 1")
    return assemble(*lines, "addi x9, x9, -1", "bne x9, x0, 8", "ebreak", f"jal x0, {-4 * len(lines) - 12}")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_random_boards_and_groups(seed, counted):
    """Devices, ROM, holes and the ends of pages in the midst of a group."""
    generator = random.Random(seed)
    code = program(generator)
    boards = [Board(seed, make) for make in (Translator, ReferenceExecutor)]
    for board in boards:
        board.memory.add_ram(0, PAGE)
        board.memory.write(0, code)
        board.memory.clear_dirty()
    assert publish(boards[0].memory, "riscv64", 0, counted=counted)
    for _ in range(6):
        address = RAM + generator.randrange(13) * PAGE + generator.choice([0, -8, -20, -110, 4, 40, 2000])
        words = [
            address,
            address + generator.choice([0, 8, PAGE]),
            *(generator.getrandbits(64) for _ in "abc"),
        ]
        budget = generator.randrange(60) if counted else None
        outcomes = []
        for board in boards:
            board.cpu.pc, board.cpu.x[9] = 0, 3
            board.cpu.x[11:16] = words
            outcomes.append(board.outcome(board.cpu.run(budget)))
        assert outcomes[0] == outcomes[1]


@pytest.fixture
def memory():
    memory = MachineMemory()
    memory.add_ram(RAM, 4 * PAGE)
    return memory


def run(memory, address, *lines):
    """Enter a region for a program in the first page; returns the CPU and why it stopped."""
    memory.write(RAM, assemble(*lines, "ebreak"))
    assert publish(memory, "riscv64", RAM, counted=False)
    cpu = Translator("riscv64", memory)
    cpu.pc, cpu.x[11], cpu.x[10] = RAM, address, 77
    return cpu, cpu.run()


def test_a_fault_in_the_midst_of_a_group_is_precise(memory):
    memory.protect(RAM + 2 * PAGE, PAGE, Protection.READ)
    cpu, stop = run(
        memory, RAM + 2 * PAGE, "ld x12, 0(x11)", "addi x13, x13, 1", "sd x10, 8(x11)", "li x14, 1"
    )
    assert (stop.reason, stop.pc, stop.address) == (StopReason.ACCESS_FAULT, RAM + 8, RAM + 2 * PAGE + 8)
    assert (stop.access, cpu.x[13], cpu.x[14]) == (Access.WRITE, 1, 0)


def test_a_store_of_a_group_to_code_is_seen_at_once(memory):
    """The second store changes the instruction behind it, of which the region has a copy."""
    nop, fifty = (
        int.from_bytes(riscv64.assemble(line), "little") for line in ("addi x0, x0, 0", "li x15, 50")
    )
    lines = ["sw x10, 256(x11)", "sw x12, 16(x11)", "lw x13, 256(x11)", "addi x0, x0, 0", "li x15, 7"]
    memory.write(RAM, assemble(*lines, "ebreak"))
    assert publish(memory, "riscv64", RAM, counted=False)
    cpu = Translator("riscv64", memory)
    cpu.pc, cpu.x[11], cpu.x[10], cpu.x[12] = RAM, RAM, nop, fifty
    assert cpu.run().reason == StopReason.BREAKPOINT
    assert (cpu.x[15], cpu.x[13]) == (50, nop)


def test_a_group_across_two_pages(memory):
    start = RAM + 2 * PAGE - 16
    cpu, stop = run(memory, start, "sd x10, 0(x11)", "sd x10, 12(x11)", "sd x10, 24(x11)", "ld x12, 12(x11)")
    assert (stop.reason, cpu.x[12]) == (StopReason.BREAKPOINT, 77)
    assert memory.read(start, 32) == b"".join((77).to_bytes(size, "little") for size in (12, 12, 8))
    assert memory.dirty_pages() == [RAM, RAM + PAGE, RAM + 2 * PAGE]
    assert translation_space(memory, "riscv64", counted=False).at(RAM) is not None
