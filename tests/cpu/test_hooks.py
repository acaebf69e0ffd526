"""Hooks, breakpoints and watchpoints in every tier and memory model; the reference is the oracle."""

import random
import threading

import pytest

from anyvirt.cpu.executor import Access, StopReason
from anyvirt.cpu.hooked import HookTable, hooked_addresses
from anyvirt.cpu.instruments import Instruments
from anyvirt.cpu.interpreter import Interpreter
from anyvirt.cpu.machine_memory import MachineMemory
from anyvirt.cpu.memory import FlatMemory
from anyvirt.cpu.reference import ReferenceExecutor
from anyvirt.cpu.translator import Translator
from anyvirt.cpu.watchpoints import AccessKind
from anyvirt.isa.riscv64 import riscv64
from anyvirt.jit.ahead import instruction_set
from anyvirt.jit.frontend import Module
from anyvirt.jit.handlers import Features, HandlerCompiler
from anyvirt.jit.hook_layout import MOST_RANGES, Instrument, Table
from anyvirt.jit.instruments import may_transfer
from anyvirt.jit.interpreter import InterpreterTarget

from .regional import Regional
from .stenciled import Stenciled

CODE, DATA = 0x10000, 0x20000
READ, WRITE = AccessKind.READ, AccessKind.WRITE
LOOP = """
loop:
    addi a0, a0, 1
    sd a0, 0(a1)
    lw a2, 8(a1)
    bne a0, a3, loop
    amoadd.d a4, a0, (a1)
    ecall
"""
ADD, STORE, LOAD, BRANCH, AMO, CALL = (CODE + 4 * index for index in range(6))


def flat():
    memory = FlatMemory()
    memory.map(CODE, 0x2000, 7)
    memory.map(DATA, 0x1000, 3)
    return memory


def machine():
    memory = MachineMemory()
    memory.add_ram(CODE, 0x2000)
    memory.add_ram(DATA, 0x1000)
    return memory


EXECUTORS = {
    "reference": lambda: ReferenceExecutor("riscv64", flat()),
    "flat": lambda: Interpreter("riscv64", flat()),
    "machine": lambda: Interpreter("riscv64", machine()),
    "region": lambda: Regional("riscv64", flat()),
    "stencil": lambda: Stenciled("riscv64", flat()),
    "machine stencil": lambda: Stenciled("riscv64", machine()),
    "machine region": lambda: Translator("riscv64", machine()),
}


@pytest.fixture(params=EXECUTORS)
def cpu(request):
    """A CPU of each kind at the beginning of the loop, which is to take three turns."""
    return prepared(EXECUTORS[request.param]())


def prepared(cpu, text=LOOP, turns=3):
    cpu.memory.write(CODE, riscv64.assemble(text, CODE))
    cpu.pc, cpu.x[10], cpu.x[11], cpu.x[13] = CODE, 0, DATA, turns
    return cpu


def finish(cpu):
    """Run to the end, which must be that of an undisturbed program."""
    stop = cpu.run()
    assert (stop.reason, stop.pc) == (StopReason.SYSTEM_CALL, CALL)
    assert cpu.x[10] == 3
    assert cpu.memory.read(DATA, 8) == (6).to_bytes(8, "little")


# Addresses ----------------------------------------------------------------------------------------------


def test_breakpoints_stop_before_their_instruction(cpu):
    breakpoint = cpu.breakpoints.add(STORE)
    for turn in (1, 2, 3):
        stop = cpu.run()
        assert (stop.reason, stop.pc, stop.hit) == (StopReason.HOOK, STORE, breakpoint)
        assert cpu.x[10] == turn
        assert cpu.memory.read(DATA, 8) == (turn - 1).to_bytes(8, "little")
    finish(cpu)
    assert breakpoint.hits == 3


def test_breakpoints_stop_at_the_first_instruction_and_at_one_that_was_just_reached(cpu):
    with cpu.breakpoints.add(ADD):
        assert cpu.run().pc == ADD
        assert cpu.run(2).reason == StopReason.BUDGET
        with cpu.breakpoints.add(LOAD) as here:
            assert cpu.run().hit is here
        assert cpu.run().pc == ADD
    finish(cpu)


def test_removed_breakpoints_stop_nobody(cpu):
    breakpoint = cpu.breakpoints.add(LOAD)
    again = cpu.breakpoints.add(LOAD)
    cpu.run()
    breakpoint.remove()
    breakpoint.remove()
    assert cpu.run().hit is again
    assert LOAD in cpu.breakpoints
    cpu.breakpoints.remove(LOAD)
    assert len(cpu.breakpoints) == 0
    finish(cpu)
    assert not hooked_addresses(cpu.memory)


def test_breakpoints_survive_changes_of_the_code(cpu):
    breakpoint = cpu.breakpoints.add(LOAD)
    assert cpu.run().hit is breakpoint
    cpu.memory.write(LOAD, riscv64.assemble("addi a2, zero, 77", LOAD))
    assert cpu.run().hit is breakpoint
    assert cpu.x[12] == 77
    breakpoint.remove()
    cpu.memory.write(LOAD, riscv64.assemble("lw a2, 8(a1)", LOAD))
    finish(cpu)


def test_breakpoints_can_be_set_where_no_code_is(cpu):
    for address in (CODE + 2, CODE + 0x1000, 0, DATA, (1 << 64) - 4, 1 << 40):
        cpu.breakpoints.add(address)
    finish(cpu)


def test_a_budget_ends_before_a_hook_is_served(cpu):
    seen = []
    cpu.hooks.at(LOAD, lambda cpu, address: seen.append(address))
    assert cpu.run(2).reason == StopReason.BUDGET
    assert (cpu.pc, seen) == (LOAD, [])
    assert cpu.run(0).reason == StopReason.BUDGET
    assert cpu.run(1).pc == BRANCH
    assert seen == [LOAD]


def test_budgets_count_exactly_with_hooks_in_between(cpu):
    for address in (ADD, STORE, LOAD, BRANCH):
        cpu.hooks.at(address, lambda cpu, address: None)
    before = cpu.instructions
    for count in (1, 3, 5, 2):
        assert cpu.run(count).reason == StopReason.BUDGET
    assert cpu.instructions - before == 11
    assert (cpu.pc, cpu.x[10]) == (BRANCH, 3)


def test_hooks_may_change_everything(cpu):
    def skip(cpu, address):
        cpu.pc = BRANCH
        cpu.x[10] = 3

    hook = cpu.hooks.at(STORE, skip)
    stop = cpu.run()
    assert stop.pc == CALL
    assert hook.hits == 1
    assert cpu.memory.read(DATA, 8) == (3).to_bytes(8, "little")


def test_a_hook_may_set_and_remove_hooks(cpu):
    order = []

    def first(cpu, address):
        order.append("first")
        hook.remove()
        cpu.breakpoints.add(BRANCH)

    hook = cpu.hooks.at(ADD, first)
    assert cpu.run().pc == BRANCH
    cpu.breakpoints.clear()
    finish(cpu)
    assert order == ["first"]


def test_hooks_end_the_run_by_returning_true(cpu):
    hook = cpu.hooks.at(LOAD, lambda cpu, address: cpu.x[10] == 2)
    stop = cpu.run()
    assert (stop.hit, cpu.x[10]) == (hook, 2)
    finish(cpu)


def test_what_a_hook_raises_comes_out_of_the_run(cpu):
    def fail(cpu, address):
        raise KeyError(address)

    with cpu.hooks.at(LOAD, fail), pytest.raises(KeyError):
        cpu.run()
    assert cpu.pc == LOAD
    finish(cpu)


def test_an_instruction_that_jumps_to_itself_is_hooked_each_time():
    cpu = prepared(Interpreter("riscv64", flat()), "here: j here")
    cpu.hooks.at(CODE, lambda cpu, address: None)
    stops = cpu.hooks.at(CODE, lambda cpu, address: stops.hits == 5)
    assert cpu.run().hit is stops
    assert stops.hits == 5


def test_thousands_of_hooks_are_kept_apart():
    memory = flat()
    cpu = Interpreter("riscv64", memory)
    memory.write(CODE, riscv64.assemble("addi a0, a0, 1\n" * 1000 + "ecall", CODE))
    seen = []
    addresses = list(range(CODE, CODE + 4000, 4))
    random.Random(1).shuffle(addresses)
    hooks = [cpu.hooks.at(address, lambda cpu, address: seen.append(address)) for address in addresses[:400]]
    cpu.pc = CODE
    cpu.run()
    assert seen == sorted(addresses[:400])
    for hook in hooks[::2]:
        hook.remove()
    seen.clear()
    cpu.pc = CODE
    cpu.run()
    assert seen == sorted(hook.address for hook in hooks[1::2])


def test_a_cpu_without_hooks_passes_those_of_others():
    memory = flat()
    first, second = (prepared(Interpreter("riscv64", memory)) for _ in range(2))
    first.breakpoints.add(LOAD)
    finish(second)
    assert first.run().pc == LOAD


def test_hooks_can_be_set_from_another_thread_while_the_cpu_runs():
    cpu = prepared(Interpreter("riscv64", flat()), "loop: addi a0, a0, 1\n addi a2, a2, 1\n j loop")
    stops = []
    thread = threading.Thread(target=lambda: stops.append(cpu.run()))
    cpu.hooks.at(CODE + 0x100, lambda cpu, address: None)
    thread.start()
    while cpu.x[10] < 1000:
        pass
    breakpoint = cpu.breakpoints.add(CODE + 4)
    thread.join(10)
    assert not thread.is_alive()
    assert stops[0].hit is breakpoint


# Memory -------------------------------------------------------------------------------------------------


def test_memory_hooks_see_each_access_before_it_happens(cpu):
    seen = []

    def note(cpu, kind, address, size, value):
        seen.append((cpu.pc, kind, address, size, value, cpu.memory.read(DATA, 1)[0]))

    cpu.memory.write(DATA + 8, b"\x2a")
    hook = cpu.hooks.on_memory(note)
    finish(cpu)
    expected = []
    for turn in (1, 2, 3):
        expected.append((STORE, WRITE, DATA, 8, turn, turn - 1))
        expected.append((LOAD, READ, DATA + 8, 4, 42, turn))
    assert seen == [*expected, (AMO, READ | WRITE, DATA, 8, 3, 3)]
    assert hook.hits == 7


def test_memory_hooks_are_for_ranges_and_kinds(cpu):
    counts = {}
    for name, start, end, kinds in (
        ("before", DATA - 8, DATA, READ | WRITE),
        ("first byte", DATA, DATA + 1, WRITE),
        ("last byte", DATA + 7, DATA + 8, WRITE),
        ("read", DATA, DATA + 8, READ),
        ("loaded", DATA + 11, DATA + 12, READ | WRITE),
        ("behind", DATA + 12, DATA + 100, READ | WRITE),
    ):
        counts[name] = cpu.hooks.on_memory(lambda *_: None, start, end, kinds)
    finish(cpu)
    hits = {name: hook.hits for name, hook in counts.items()}
    assert hits == {"before": 0, "first byte": 4, "last byte": 4, "read": 1, "loaded": 3, "behind": 0}


def test_more_ranges_than_compiled_code_tells_apart(cpu):
    hooks = [
        cpu.hooks.on_memory(lambda *_: None, DATA + 16 * index, DATA + 16 * index + 1)
        for index in range(3 * MOST_RANGES)
    ]
    finish(cpu)
    assert [hook.hits for hook in hooks] == [4] + [0] * (len(hooks) - 1)


def test_a_memory_hook_may_prevent_the_access(cpu):
    def skip(cpu, kind, address, size, value):
        cpu.pc += 4

    cpu.hooks.on_memory(skip, DATA, DATA + 8, WRITE)
    stop = cpu.run()
    assert stop.pc == CALL
    assert cpu.memory.read(DATA, 8) == bytes(8)


def test_a_memory_hook_may_change_what_is_loaded_and_stop(cpu):
    def change(cpu, kind, address, size, value):
        cpu.memory.write(address, b"\x07\0\0\0")
        return True

    hook = cpu.hooks.on_memory(change, DATA + 8, DATA + 9, READ)
    stop = cpu.run()
    assert (stop.hit, stop.pc, stop.address, stop.access) == (hook, LOAD, DATA + 8, Access.READ)
    cpu.run(1)
    assert cpu.x[12] == 7
    assert hook.hits == 1


@pytest.mark.parametrize(
    ("start", "length", "kinds", "stops"),
    [
        (DATA, 8, WRITE, [(LOAD, WRITE)] * 3 + [(CALL, WRITE)]),
        (DATA, 8, READ, [(CALL, WRITE)]),
        (DATA + 9, 2, READ, [(BRANCH, READ)] * 3),
        (DATA, 16, READ | WRITE, [(LOAD, WRITE), (BRANCH, READ)] * 3 + [(CALL, WRITE)]),
    ],
)
def test_watchpoints_stop_behind_the_access(cpu, start, length, kinds, stops):
    watchpoint = cpu.watchpoints.add(start, length, kinds)
    for pc, access in stops:
        stop = cpu.run()
        assert (stop.reason, stop.hit, stop.pc) == (StopReason.HOOK, watchpoint, pc)
        assert stop.access == (Access.WRITE if access == WRITE else Access.READ)
    finish(cpu)
    assert watchpoint.hits == len(stops)


def test_budgets_count_the_instruction_that_touches_a_watchpoint(cpu):
    cpu.watchpoints.add(DATA, 8)
    before = cpu.instructions
    assert cpu.run(2).reason == StopReason.HOOK
    assert cpu.instructions - before == 2
    assert cpu.run(0).reason == StopReason.BUDGET
    assert cpu.run(4).reason == StopReason.HOOK
    assert cpu.instructions - before == 6


def test_a_faulting_access_is_a_fault_and_no_hit(cpu):
    cpu.x[11] = 0x500000
    watchpoint = cpu.watchpoints.add(0x500000, 8)
    seen = []
    cpu.hooks.on_memory(lambda cpu, *access: seen.append(access))
    stop = cpu.run()
    assert (stop.reason, stop.pc, stop.address) == (StopReason.ACCESS_FAULT, STORE, 0x500000)
    assert watchpoint.hits == 0
    assert seen == [(WRITE, 0x500000, 8, 1)]
    cpu.pc = LOAD
    assert cpu.run().reason == StopReason.ACCESS_FAULT
    assert seen[1:] == [(READ, 0x500008, 4, None)]


def test_nonsense_is_refused(cpu):
    for start, end in ((0, 0), (5, 4), (-1, 4), (0, (1 << 64) + 1)):
        with pytest.raises(ValueError):
            cpu.hooks.on_memory(lambda *_: None, start, end)
    with pytest.raises(ValueError):
        cpu.watchpoints.add(DATA, 0)


# Blocks -------------------------------------------------------------------------------------------------


def test_blocks_begin_where_control_comes_from_elsewhere(cpu):
    blocks = []
    hook = cpu.hooks.on_block(lambda cpu, address: blocks.append(address))
    finish(cpu)
    assert blocks == [ADD, ADD, ADD, AMO]
    cpu.pc = CALL + 4
    cpu.memory.write(CALL + 4, riscv64.assemble("j .+8\n nop\n ebreak", CALL + 4))
    cpu.run()
    assert blocks[4:] == [CALL + 4, CALL + 12]
    hook.remove()


def test_a_block_hook_may_stop_and_is_not_called_again(cpu):
    hook = cpu.hooks.on_block(lambda cpu, address: address == AMO)
    stop = cpu.run()
    assert (stop.pc, stop.hit, hook.hits) == (AMO, hook, 4)
    finish(cpu)
    assert hook.hits == 4


def test_a_budget_within_a_block_begins_none(cpu):
    blocks = []
    cpu.hooks.on_block(lambda cpu, address: blocks.append(address))
    for _ in range(14):
        cpu.run(1)
    assert blocks == [ADD, ADD, ADD, AMO]


def test_hooks_of_all_kinds_at_one_instruction_are_called_once_each_in_order(cpu):
    order = []
    cpu.hooks.at(AMO, lambda cpu, address: order.append("address"))
    cpu.hooks.on_block(lambda cpu, address: order.append("block") if address == AMO else None)
    cpu.hooks.on_memory(lambda *_: order.append("memory"), kinds=READ, start=DATA, end=DATA + 8)
    finish(cpu)
    assert order == ["address", "block", "memory"]


# All together -------------------------------------------------------------------------------------------


def random_program(generator):
    """Straight and branching code over a small memory, which ends."""
    lines = ["li s0, 20"]
    for index in range(30):
        register, other = generator.choices(("a0", "a2", "a3", "a4", "t0"), k=2)
        lines.append(f"l{index}:")
        lines.append(
            generator.choice(
                (
                    f"addi {register}, {other}, {generator.randrange(-9, 9)}",
                    f"sd {register}, {8 * generator.randrange(8)}(a1)",
                    f"lw {register}, {4 * generator.randrange(16)}(a1)",
                    f"sb {register}, {generator.randrange(64)}(a1)",
                    f"amoxor.w {register}, {other}, (a1)",
                    f"beq {register}, {other}, l{generator.randrange(index + 1, 31)}",
                    f"bltu {register}, {other}, l{generator.randrange(index + 1, 31)}",
                    f"mul {register}, {other}, {register}",
                )
            )
        )
    return "\n".join([*lines, "l30:", "addi s0, s0, -1", "beqz s0, end", "j l0", "end: ecall"])


def record(cpu, generator):
    """All events of a run with random hooks, watchpoints and budgets, and the state at its end."""
    events = []

    def note(name):
        return lambda cpu, *facts: events.append((name, cpu.pc, *facts, cpu.x[10]))

    for index in range(3):
        cpu.hooks.at(CODE + 4 * generator.randrange(40), note(f"at {index}"))
    cpu.hooks.on_memory(note("memory"), DATA + generator.randrange(32), DATA + 33 + generator.randrange(32))
    cpu.hooks.on_block(note("block"))
    cpu.watchpoints.add(DATA + generator.randrange(64), 1, generator.choice((READ, WRITE, READ | WRITE)))
    cpu.breakpoints.add(CODE + 4 * generator.randrange(40))
    while True:
        stop = cpu.run(generator.randrange(1, 200))
        hit = type(stop.hit).__name__
        events.append((stop.reason, stop.pc, stop.address, stop.access, hit, cpu.instructions))
        if stop.reason == StopReason.SYSTEM_CALL:
            return events, list(cpu.x), cpu.memory.read(DATA, 64)


@pytest.mark.parametrize("seed", range(6))
def test_all_executors_tell_the_same(seed):
    text = random_program(random.Random(seed))
    outcomes = {}
    for name, make in EXECUTORS.items():
        cpu = prepared(make(), text)
        outcomes[name] = record(cpu, random.Random(seed))
    reference = outcomes.pop("reference")
    assert len(reference[0]) > 30
    for name, outcome in outcomes.items():
        assert outcome == reference, name


def test_compiled_and_reference_agree_on_what_may_transfer_control():
    target = InterpreterTarget(riscv64, Features(counted=True, fma=True, instrumented=True))
    module = Module(target)
    for semantics, length in riscv64.functions():
        compiler = HandlerCompiler(module, riscv64, target.features, semantics, length)
        compiler.handler("any")
        assert compiler.model.transfers == may_transfer(semantics)


# The inside ---------------------------------------------------------------------------------------------


def test_tables_keep_what_was_decoded():
    import ctypes

    table = HookTable(0x1234, 16)
    cell = ctypes.c_uint64.from_address(table.cell)
    assert cell.value == 0
    table.publish([8, 16])
    ctypes.c_uint64.from_address(cell.value + Table.ENTRIES + Table.ENTRY + Table.RECORD).value = 99
    table.publish([4, 16, 20])
    words = (ctypes.c_uint64 * 3).from_address(cell.value)
    assert list(words) == [0x1234, 3, 16]
    entry = cell.value + Table.ENTRIES + Table.ENTRY
    assert ctypes.c_uint64.from_address(entry + Table.ADDRESS).value == 16
    assert ctypes.c_uint64.from_address(entry + Table.RECORD).value == 99
    table.publish([])
    assert cell.value == 0


def test_ranges_that_are_joined_contain_the_others():
    instruments = Instruments()
    ranges = [(1000 * index, 1000 * index + 10, READ) for index in range(2 * MOST_RANGES)]
    instruments.watch([*ranges, (5, 8, WRITE)])
    assert instruments[Instrument.RANGE_COUNT] == MOST_RANGES


# Delay slots --------------------------------------------------------------------------------------------

MIPS_LOOP = """
    addiu $t0, $zero, 3
loop:
    sw $t0, 0($a0)
    addiu $t0, $t0, -1
    bne $t0, $zero, loop
    lw $t1, 0($a0)
    beq $zero, $zero, end
    addiu $t2, $zero, 7
    addiu $t2, $zero, 8
end:
    syscall
"""


@pytest.mark.parametrize("make", [ReferenceExecutor, Interpreter], ids=["reference", "compiled"])
@pytest.mark.parametrize("isa", ["mips", "mipsel"])
def test_delay_slots_belong_to_their_branch_and_can_be_hooked(make, isa):
    memory = flat()
    memory.write(CODE, instruction_set(isa).assemble(MIPS_LOOP, CODE))
    cpu = make(isa, memory)
    cpu.pc = CODE
    cpu.registers("r")[4] = DATA
    loop, slot, end = CODE + 4, CODE + 16, CODE + 32
    blocks, at_slot, accesses = [], [], []
    cpu.hooks.on_block(lambda cpu, address: blocks.append(address))
    cpu.hooks.at(slot, lambda cpu, address: at_slot.append((address, cpu.registers("r")[8])))
    cpu.hooks.on_memory(lambda cpu, kind, address, size, value: accesses.append((kind, value)))
    stop = cpu.run()
    assert (stop.reason, stop.pc) == (StopReason.SYSTEM_CALL, end)
    # The last time the branch is not taken, so that what follows it begins a block.
    assert blocks == [CODE, loop, loop, slot, end]
    assert at_slot == [(slot, 2), (slot, 1), (slot, 0)]
    assert accesses == [(WRITE, 3), (READ, 3), (WRITE, 2), (READ, 2), (WRITE, 1), (READ, 1)]
