"""Machine memory: devices, pages and their ends, code that changes, what was written, several CPUs."""

import ctypes
import gc
import random
import threading
import time
import weakref

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyvirt.cpu.executor import Access, Stop, StopReason
from anyvirt.cpu.interpreter import Interpreter
from anyvirt.cpu.machine_memory import MachineMemory, RegionKind
from anyvirt.cpu.memory import GuestFault, Protection
from anyvirt.cpu.reference import ReferenceExecutor
from anyvirt.isa.riscv64 import riscv64

RAM, ROM, DEVICE = 0x8000_0000, 0x1000_0000, 0x2000_0000
PAGE = 4096
ADDI_A0, ADDI_A1_MINUS, BNEZ_A1_BACK = 0x150513, 0xFFF58593, 0xFE059CE3
EBREAK, FENCE_I, LOOP, RET = 0x100073, 0x100F, 0x6F, 0x8067
LOADS = {1: 0x0005C503, 2: 0x0005D503, 4: 0x0005E503, 8: 0x0005B503}
"""lbu, lhu, lwu and ld of a0 from (a1), by size."""
STORES = {1: 0x00A58023, 2: 0x00A59023, 4: 0x00A5A023, 8: 0x00A5B023}
AMOADD_W, LR_D, SC_D = 0x00C5A02F, 0x1005B52F, 0x18C5B52F
LI_A0 = {value: 0x00000513 | value << 20 for value in range(64)}


def words(*instructions):
    return b"".join(word.to_bytes(4, "little") for word in instructions)


class Recorder:
    """A device that remembers what was asked of it."""

    def __init__(self):
        self.calls = []
        self.value = 0x1122334455667788
        self.action = None

    def read(self, offset, size):
        self.calls.append(("read", offset, size))
        if self.action is not None:
            self.action()
        return self.value

    def write(self, offset, size, value):
        self.calls.append(("write", offset, size, value))
        if self.action is not None:
            self.action()


@pytest.fixture(params=[Interpreter, ReferenceExecutor], ids=["interpreter", "reference"])
def make(request):
    return request.param


@pytest.fixture
def device():
    return Recorder()


@pytest.fixture
def memory(device):
    memory = MachineMemory()
    memory.add_ram(RAM, 16 * PAGE)
    memory.add_mmio(DEVICE, 0x20, device)
    memory.add_rom(ROM, words(LI_A0[7], RET) + b"rom")
    return memory


@pytest.fixture
def cpu(make, memory):
    return make("riscv64", memory)


def run(cpu, *instructions, at=RAM, budget=None):
    cpu.memory.write(at, words(*instructions))
    cpu.pc = at
    return cpu.run(budget)


# Devices ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", LOADS)
@pytest.mark.parametrize("budget", [None, 100])
def test_devices_are_asked_once_with_offset_and_size(cpu, device, size, budget):
    cpu.x[11] = DEVICE + 8
    assert run(cpu, LOADS[size], STORES[size], EBREAK, budget=budget).reason == StopReason.BREAKPOINT
    value = device.value & (1 << 8 * size) - 1
    assert cpu.x[10] == value
    assert device.calls == [("read", 8, size), ("write", 8, size, value)]


def test_a_negative_answer_is_cut_to_size(cpu, device):
    device.value = -2
    cpu.x[11] = DEVICE
    run(cpu, LOADS[2], EBREAK)
    assert cpu.x[10] == 0xFFFE


def test_devices_share_a_page(cpu, memory, device):
    other = Recorder()
    memory.add_mmio(DEVICE + 0x20, 8, other)
    cpu.x[11] = DEVICE + 0x20
    run(cpu, LOADS[4], EBREAK)
    assert (other.calls, device.calls) == ([("read", 0, 4)], [])
    cpu.x[11] = DEVICE + 0x28
    assert run(cpu, LOADS[4]) == Stop(StopReason.ACCESS_FAULT, RAM, address=DEVICE + 0x28, access=Access.READ)


def test_an_access_across_devices_is_made_bytewise_or_not_at_all(cpu, memory, device):
    other = Recorder()
    memory.add_mmio(DEVICE + 0x20, 8, other)
    cpu.x[10], cpu.x[11] = 0x0403_0201, DEVICE + 0x1E
    run(cpu, STORES[4], LOADS[4], EBREAK)
    assert device.calls == [
        ("write", 0x1E, 1, 1),
        ("write", 0x1F, 1, 2),
        ("read", 0x1E, 1),
        ("read", 0x1F, 1),
    ]
    assert other.calls == [("write", 0, 1, 3), ("write", 1, 1, 4), ("read", 0, 1), ("read", 1, 1)]
    assert cpu.x[10] == 0x88888888
    device.calls.clear(), other.calls.clear()
    cpu.x[11] = DEVICE + 0x26
    stop = run(cpu, STORES[4])
    assert stop == Stop(StopReason.ACCESS_FAULT, RAM, address=DEVICE + 0x28, access=Access.WRITE)
    assert other.calls == []


def test_an_exception_of_a_device_ends_the_run_precisely(cpu, device):
    def fail():
        raise ZeroDivisionError("from the device")

    device.action = fail
    cpu.x[10], cpu.x[11] = 5, DEVICE
    for budget in (None, 100):
        with pytest.raises(ZeroDivisionError, match="from the device"):
            run(cpu, ADDI_A0, LOADS[8], ADDI_A0, budget=budget)
        assert cpu.pc == RAM + 4
    assert cpu.x[10] == 7
    device.action = None
    assert cpu.run(2).reason == StopReason.BUDGET
    assert cpu.x[10] == device.value + 1


def test_a_device_may_refuse(cpu, device):
    def refuse():
        raise GuestFault(0, Access.READ)

    device.action = refuse
    cpu.x[11] = DEVICE + 4
    assert run(cpu, ADDI_A0, LOADS[4]) == Stop(
        StopReason.ACCESS_FAULT, RAM + 4, address=DEVICE + 4, access=Access.READ
    )
    assert run(cpu, ADDI_A0, STORES[4]).access == Access.WRITE


@pytest.mark.parametrize("instruction", [LOADS[4], STORES[4]])
def test_a_device_may_stop_its_cpu(cpu, device, instruction):
    device.action = cpu.interrupt
    cpu.x[11] = DEVICE
    run(cpu, instruction, ADDI_A0, ADDI_A0, EBREAK)
    assert cpu.pc == RAM + 4


def test_a_device_may_change_the_memory(cpu, memory, device):
    def swap():
        device.action = None
        memory.remove(DEVICE, 0x20)
        memory.add_ram(DEVICE, PAGE)
        memory.write(DEVICE, (99).to_bytes(8, "little"))

    device.action = swap
    cpu.x[11] = DEVICE
    assert run(cpu, LOADS[8], LOADS[8], EBREAK).reason == StopReason.BREAKPOINT
    assert cpu.x[10] == 99
    assert len(device.calls) == 1


def test_devices_have_the_floating_point_environment_of_python(memory, device):
    cpu = Interpreter("riscv64", memory)
    seen = []
    device.action = lambda: seen.append(1.0 / 3.0)
    cpu.fcsr = 3 << 5  # round up
    cpu.x[11] = DEVICE
    fdiv_s = 0x18B57553
    cpu.f[10], cpu.f[11] = 0xFFFFFFFF3F800000, 0xFFFFFFFF40400000
    run(cpu, LOADS[4], fdiv_s, EBREAK)
    assert seen == [0.3333333333333333]
    assert (cpu.f[10], cpu.fcsr) == (0xFFFFFFFF3EAAAAAB, 3 << 5 | 1)


def test_a_device_may_run_another_cpu(memory, device):
    inner, outer = Interpreter("riscv64", memory), Interpreter("riscv64", memory)
    memory.write(RAM + PAGE, words(ADDI_A0, ADDI_A0, EBREAK))
    inner.pc = RAM + PAGE
    stops = []
    device.action = lambda: stops.append(inner.run())
    outer.x[11] = DEVICE
    assert run(outer, LOADS[4], ADDI_A0, EBREAK).reason == StopReason.BREAKPOINT
    assert (stops[0].pc, inner.x[10]) == (RAM + PAGE + 8, 2)


@pytest.mark.parametrize("instruction", [AMOADD_W, SC_D])
def test_atomics_are_for_ram(cpu, device, instruction):
    cpu.x[11] = DEVICE
    cpu.set_state("reservation_address", DEVICE)
    stop = run(cpu, instruction)
    assert stop == Stop(StopReason.ACCESS_FAULT, RAM, address=DEVICE, access=Access.WRITE)
    assert device.calls == []


def test_no_instruction_is_fetched_from_a_device(cpu, memory):
    memory.add_mmio(RAM + 16 * PAGE, PAGE, Recorder())
    for pc in (DEVICE, RAM + 16 * PAGE):
        cpu.pc = pc
        assert cpu.run() == Stop(StopReason.ACCESS_FAULT, pc, address=pc, access=Access.EXECUTE)
    place = RAM + 16 * PAGE - 2
    memory.write(place, words(ADDI_A0)[:2])
    cpu.pc = place
    assert cpu.run() == Stop(StopReason.ACCESS_FAULT, place, address=place + 2, access=Access.EXECUTE)


# RAM, ROM, and the ends of pages ----------------------------------------------------------------------------


def test_rom_can_be_read_and_executed_but_not_changed(cpu, memory):
    cpu.x[10], cpu.x[11], cpu.x[1] = 0xFFFF, ROM + 8, RAM + 12
    assert run(cpu, STORES[2], STORES[2], LOADS[2], EBREAK).reason == StopReason.BREAKPOINT
    assert cpu.x[10] == int.from_bytes(b"ro", "little")
    cpu.pc = ROM
    assert cpu.run().pc == RAM + 12
    assert cpu.x[10] == 7
    memory.write(ROM, b"xyz")
    assert memory.read(ROM + 8, 4) == b"rom\0"


def test_rom_may_refuse_stores(cpu, memory):
    memory.add_rom(0x3000_0000, b"abc", refuses_stores=True)
    cpu.x[11] = 0x3000_0001
    assert run(cpu, STORES[1]) == Stop(StopReason.ACCESS_FAULT, RAM, address=0x3000_0001, access=Access.WRITE)
    with pytest.raises(GuestFault):
        memory.write(0x3000_0000, b"x")


@pytest.mark.parametrize("size", [2, 4, 8])
@pytest.mark.parametrize("budget", [None, 100])
def test_accesses_across_pages(cpu, memory, size, budget):
    for before in range(1, size):
        place = RAM + 5 * PAGE - before
        content = bytes(range(0x11, 0x11 + size))
        cpu.x[10], cpu.x[11] = int.from_bytes(content, "little"), place
        run(cpu, STORES[size], LOADS[size], EBREAK, budget=budget)
        assert memory.read(place, size) == content
        assert cpu.x[10] == int.from_bytes(content, "little")


@pytest.mark.parametrize("size", [2, 4, 8])
def test_an_access_into_a_hole_does_nothing(cpu, memory, size):
    memory.remove(RAM + 5 * PAGE, PAGE)
    memory.write(RAM + 5 * PAGE - 8, b"unmarred")
    cpu.x[10], cpu.x[11] = 0x55, RAM + 5 * PAGE - 1
    for instruction, access in ((STORES[size], Access.WRITE), (LOADS[size], Access.READ)):
        assert run(cpu, instruction) == Stop(
            StopReason.ACCESS_FAULT, RAM, address=RAM + 5 * PAGE, access=access
        )
    assert cpu.x[10] == 0x55
    assert memory.read(RAM + 5 * PAGE - 8, 8) == b"unmarred"
    cpu.x[11] = RAM + 6 * PAGE - 1
    assert run(cpu, STORES[size]).address == RAM + 6 * PAGE - 1
    assert memory.read(RAM + 6 * PAGE, 8) == bytes(8)


def test_ram_at_both_ends_of_the_address_space(make):
    memory = MachineMemory()
    memory.add_ram(0, PAGE)
    memory.add_ram((1 << 64) - PAGE, PAGE)
    memory.add_ram(RAM, PAGE)
    cpu = make("riscv64", memory)
    cpu.x[10], cpu.x[11] = 0x1234, (1 << 64) - 8
    assert run(cpu, STORES[8], LOADS[8], EBREAK).reason == StopReason.BREAKPOINT
    assert memory.read((1 << 64) - 8, 2) == b"\x34\x12"
    assert run(cpu, ADDI_A0, EBREAK, at=(1 << 64) - PAGE).pc == (1 << 64) - PAGE + 4
    assert run(cpu, ADDI_A0, EBREAK, at=0).pc == 4


def test_an_instruction_across_pages_is_fetched_anew_each_time(make, memory):
    cpu = make("riscv64", memory)
    place = RAM + 5 * PAGE - 2
    for value in (1, 2, 3):
        memory.write(place, words(LI_A0[value], EBREAK))
        cpu.pc = place
        assert cpu.run() == Stop(StopReason.BREAKPOINT, place + 4, length=4)
        assert cpu.x[10] == value
    memory.remove(RAM + 5 * PAGE, PAGE)
    cpu.pc = place
    assert cpu.run() == Stop(StopReason.ACCESS_FAULT, place, address=place + 2, access=Access.EXECUTE)
    memory.add_ram(RAM + 5 * PAGE, PAGE)
    memory.write(place, words(LI_A0[4], EBREAK))
    cpu.pc = place
    cpu.run()
    assert cpu.x[10] == 4


@pytest.mark.parametrize("budget", [None, 10_000])
def test_loops_around_instructions_across_pages(cpu, memory, budget):
    # The instruction itself is a branch, is branched to, and is fallen into.
    place = RAM + 5 * PAGE - 2
    memory.write(place - 4, words(ADDI_A0, ADDI_A1_MINUS, 0xFE059CE3, EBREAK))  # bnez a1, -8
    cpu.pc, cpu.x[11] = place - 4, 200
    assert cpu.run(budget).reason == StopReason.BREAKPOINT
    assert cpu.x[10] == 200
    memory.write(place - 8, words(ADDI_A0, ADDI_A1_MINUS, 0xFE059CE3, EBREAK))
    cpu.pc, cpu.x[11] = place - 8, 200
    assert cpu.run(budget).reason == StopReason.BREAKPOINT
    assert cpu.x[10] == 400


@pytest.mark.parametrize("budget", range(1, 12))
def test_budgets_are_exact_around_the_ends_of_pages(make, memory, budget):
    cpu = make("riscv64", memory)
    place = RAM + 5 * PAGE - 6
    memory.write(place, words(ADDI_A0, ADDI_A0, ADDI_A0, 0xFF5FF06F))  # j -12
    cpu.pc = place
    assert cpu.run(budget) == Stop(StopReason.BUDGET, place + 4 * (budget % 4))
    assert (cpu.instructions, cpu.x[10]) == (budget, budget - budget // 4)


def test_falling_over_the_end_of_a_page_into_nothing(cpu):
    place = RAM + 16 * PAGE - 4
    assert run(cpu, ADDI_A0, at=place) == Stop(
        StopReason.ACCESS_FAULT, place + 4, address=place + 4, access=Access.EXECUTE
    )
    assert cpu.x[10] == 1


# Code that changes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [None, 100])
@pytest.mark.parametrize("warm", [False, True])
def test_a_store_to_the_next_instruction_is_seen_at_once(cpu, memory, budget, warm):
    if warm:
        run(cpu, LI_A0[1], LI_A0[1], LI_A0[2], EBREAK)
    sw_a2_a1 = 0x00C5A023
    cpu.x[11], cpu.x[12] = RAM + 8, LI_A0[9]
    memory.write(RAM, words(LI_A0[1], sw_a2_a1, LI_A0[2], EBREAK))
    cpu.pc = RAM
    if warm:
        cpu.pc = RAM + 8
        cpu.run()
        cpu.pc = RAM
    assert cpu.run(budget).reason == StopReason.BREAKPOINT
    assert cpu.x[10] == 9


def test_code_that_changes_itself_in_a_loop(cpu, memory):
    # loop: li a0, N; addi a2, a2, 1 << 20 (in a3); sw a2, (a4); bne a2, a5, loop
    add_a2_a3, sw_a2_a4, bne = 0x00D60633, 0x00C72023, 0xFEF61AE3
    cpu.x[12], cpu.x[13], cpu.x[14], cpu.x[15] = LI_A0[0], 1 << 20, RAM, LI_A0[63]
    memory.write(RAM, words(LI_A0[0], add_a2_a3, sw_a2_a4, bne, LI_A0[0], EBREAK))
    memory.write(RAM + 16, words(EBREAK))
    cpu.pc = RAM
    assert cpu.run(10_000).reason == StopReason.BREAKPOINT
    assert cpu.x[10] == 62
    assert memory.read(RAM, 4) == words(LI_A0[63])


def test_a_page_of_code_becomes_data_again(memory):
    cpu = Interpreter("riscv64", memory)
    run(cpu, ADDI_A0, EBREAK, at=RAM + PAGE)
    # sw a0, (a1); addi a1, a1, 4; addi a2, a2, -1; bnez a2, -12; ebreak
    cpu.x[11], cpu.x[12] = RAM + PAGE, 1000
    memory.write(RAM, words(0x00A5A023, 0x00458593, 0xFFF60613, 0xFE061AE3, EBREAK))
    cpu.pc = RAM
    cpu.run()
    assert run(cpu, LI_A0[5], EBREAK, at=RAM + PAGE + 8).pc == RAM + PAGE + 12
    assert cpu.x[10] == 5


def test_a_view_of_rom_is_for_reading(memory):
    assert memory.view(ROM, 4) == words(LI_A0[7])
    with pytest.raises(GuestFault):
        memory.view(ROM, 4, writable=True)


def test_code_written_by_python_is_seen(cpu, memory):
    for value in (1, 2):
        assert run(cpu, LI_A0[value], EBREAK).reason == StopReason.BREAKPOINT
        assert cpu.x[10] == value
    window = memory.view(RAM, 4, writable=True)
    window[:] = words(LI_A0[3])
    memory.wrote(RAM, 4)
    cpu.pc = RAM
    cpu.run()
    assert cpu.x[10] == 3


def test_code_seen_at_two_addresses(cpu, memory):
    memory.add_alias(0x9000_0000, RAM + PAGE, PAGE)
    run(cpu, LI_A0[1], EBREAK, at=RAM + PAGE)
    cpu.pc = 0x9000_0000
    assert cpu.run().pc == 0x9000_0004
    cpu.x[10], cpu.x[11] = LI_A0[2], 0x9000_0000
    run(cpu, STORES[4], EBREAK)
    cpu.pc = RAM + PAGE
    cpu.run()
    assert cpu.x[10] == 2


def test_other_code_at_the_same_address(cpu, memory):
    run(cpu, LI_A0[1], EBREAK, at=RAM + PAGE)
    memory.remove(RAM + PAGE, PAGE)
    cpu.pc = RAM + PAGE
    assert cpu.run().reason == StopReason.ACCESS_FAULT
    memory.add_ram(RAM + PAGE, PAGE)
    run(cpu, LI_A0[2], EBREAK, at=RAM + PAGE)
    assert cpu.x[10] == 2


def test_protection(cpu, memory):
    cpu.x[11] = RAM + PAGE
    for protection, kind in ((5, "store"), (3, "fetch"), (7, ""), (4, "load"), (7, "")):
        memory.protect(RAM + PAGE, PAGE, protection)
        outcomes = {
            "load": run(cpu, LOADS[4], EBREAK),
            "store": run(cpu, STORES[4], EBREAK),
            "fetch": start(cpu, RAM + PAGE),
        }
        failed = {name for name, stop in outcomes.items() if stop.reason == StopReason.ACCESS_FAULT}
        if protection == 4:
            failed.discard("store")
        assert failed == ({kind} if kind else set())


def start(cpu, pc):
    cpu.pc = pc
    return cpu.run(1)


# What was written -------------------------------------------------------------------------------------------


def test_dirty_pages_are_those_written(cpu, memory):
    memory.clear_dirty()
    assert memory.dirty_pages() == []
    cpu.memory.write(RAM, words(LOADS[4], STORES[4], EBREAK))
    assert memory.dirty_pages() == [RAM]
    memory.clear_dirty()
    cpu.pc, cpu.x[11] = RAM, RAM + 3 * PAGE - 2
    cpu.run()
    assert memory.dirty_pages() == [RAM + 2 * PAGE, RAM + 3 * PAGE]
    for _ in range(2):
        memory.clear_dirty()
        cpu.pc, cpu.x[11] = RAM, RAM + 7 * PAGE
        cpu.run()
        assert memory.dirty_pages() == [RAM + 7 * PAGE]
    memory.clear_dirty()
    cpu.x[11], cpu.x[12] = RAM + 8 * PAGE, 1
    run(cpu, AMOADD_W, EBREAK)
    assert memory.dirty_pages() == [RAM, RAM + 8 * PAGE]


def test_no_store_of_a_running_cpu_escapes_clear_dirty(memory):
    """A CPU counts in memory; what it counted after a page was copied must be in a dirty page."""
    cpu = Interpreter("riscv64", memory)
    # loop: sw a0, (a1); addi a0, a0, 1; j loop
    memory.write(RAM, words(0x00A5A023, ADDI_A0, 0xFF9FF06F))
    cpu.pc, cpu.x[11] = RAM, RAM + 4 * PAGE
    thread = threading.Thread(target=cpu.run)
    thread.start()
    for _ in range(50):
        memory.clear_dirty()
        copy = memory.read(RAM + 4 * PAGE, 4)
        time.sleep(0.0005)
        changed = memory.read(RAM + 4 * PAGE, 4) != copy
        assert not changed or RAM + 4 * PAGE in memory.dirty_pages()
    cpu.interrupt()
    thread.join(10)
    assert not thread.is_alive()


# Several CPUs -----------------------------------------------------------------------------------------------


def test_two_cpus_share_memory_and_code(memory):
    memory.write(RAM, words(AMOADD_W, 0xFFF68693, 0xFE069CE3, EBREAK))
    cpus = [Interpreter("riscv64", memory) for _ in range(2)]
    for cpu in cpus:
        cpu.pc, cpu.x[11], cpu.x[12], cpu.x[13] = RAM, RAM + PAGE, 1, 100_000
    threads = [threading.Thread(target=cpu.run) for cpu in cpus]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert int.from_bytes(memory.read(RAM + PAGE, 4), "little") == 200_000


def test_a_cpu_sees_the_code_that_another_writes(memory):
    """One calls a function without end; the other changes what it returns."""
    caller, writer = Interpreter("riscv64", memory), Interpreter("riscv64", memory)
    function = RAM + 4 * PAGE
    memory.write(function, words(LI_A0[1], RET))
    # loop: jalr ra, (a1); bne a0, a2, loop; ebreak
    memory.write(RAM, words(0x000580E7, 0xFEC51EE3, EBREAK))
    caller.pc, caller.x[11], caller.x[12] = RAM, function, 42
    thread = threading.Thread(target=caller.run)
    thread.start()
    time.sleep(0.02)
    assert thread.is_alive()
    writer.x[10], writer.x[11] = LI_A0[42], function
    run(writer, STORES[4], EBREAK, at=RAM + 8 * PAGE)
    thread.join(10)
    alive = thread.is_alive()
    caller.interrupt()
    thread.join()
    assert not alive
    assert caller.x[10] == 42


def test_the_map_changes_while_cpus_run(memory):
    memory.write(RAM, words(ADDI_A0, LOADS[4] & ~0xF80 | 12 << 7, 0xFF9FF06F))  # lwu a2
    cpus = [Interpreter("riscv64", memory) for _ in range(2)]
    stops = []
    for cpu in cpus:
        cpu.pc, cpu.x[11] = RAM, RAM + 15 * PAGE
    threads = [threading.Thread(target=lambda cpu=cpu: stops.append(cpu.run())) for cpu in cpus]
    for thread in threads:
        thread.start()
    for number in range(30):
        memory.add_ram(0x9000_0000 + number * PAGE, PAGE)
        memory.flush_tlb()
        memory.flush_tlb(RAM)
    memory.remove(RAM + 15 * PAGE, PAGE)
    for thread in threads:
        thread.join(10)
    assert [(stop.reason, stop.address) for stop in stops] == [(StopReason.ACCESS_FAULT, RAM + 15 * PAGE)] * 2


def test_a_signal_handler_may_change_the_memory(memory):
    """It runs in the thread of a CPU that is just about to begin."""
    cpu = Interpreter("riscv64", memory)
    memory.write(RAM, words(ADDI_A0, EBREAK))
    cpu.pc = RAM
    view = cpu._view
    view.is_running, view.thread = True, threading.get_ident()
    memory.add_ram(0x9000_0000, PAGE)
    view.is_running = False
    assert cpu.run().reason == StopReason.BREAKPOINT


def test_code_runs_out_of_room(memory, monkeypatch):
    from anyvirt.cpu import machine_code

    monkeypatch.setattr(machine_code, "POOL_SIZE", 4 * 65536)
    cpu = Interpreter("riscv64", memory)
    jump_on = 0x0000106F  # j +4096
    for page in range(1, 15):
        memory.write(RAM + page * PAGE, words(jump_on))
    memory.write(RAM + 15 * PAGE, words(ADDI_A0, EBREAK))
    for round_ in range(1, 4):
        assert run(cpu, jump_on) == Stop(StopReason.BREAKPOINT, RAM + 15 * PAGE + 4, length=4)
        assert cpu.x[10] == round_


def test_decoded_code_can_be_given_back(memory):
    cpu = Interpreter("riscv64", memory)
    for round_ in range(1, 4):
        assert run(cpu, ADDI_A0, EBREAK).reason == StopReason.BREAKPOINT
        assert cpu.x[10] == round_
        (space,) = memory._spaces.values()
        records = space.page(memory.mapping_at(RAM).page_number(RAM))
        assert any(ctypes.string_at(records, space.half))
        assert memory.discard_code()
        assert space.page(memory.mapping_at(RAM).page_number(RAM)) == records
        assert not any(ctypes.string_at(records, space.half))


def test_decoded_code_of_pages_with_translations_is_kept(memory):
    cpu = Interpreter("riscv64", memory)
    run(cpu, ADDI_A0, EBREAK)
    run(cpu, ADDI_A0, EBREAK, at=RAM + PAGE)
    first = memory.mapping_at(RAM).page_number(RAM)
    memory.note_translations(first)
    assert memory.discard_code()
    (space,) = memory._spaces.values()
    kept = [any(ctypes.string_at(space.page(first + page), space.half)) for page in range(2)]
    assert kept == [True, False]


def test_no_decoded_code_is_taken_from_a_running_cpu(memory):
    cpu = Interpreter("riscv64", memory)
    memory.write(RAM, words(LOOP))
    cpu.pc = RAM
    thread = threading.Thread(target=cpu.run)
    thread.start()
    deadline = time.monotonic() + 60
    while memory.discard_code():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert not memory._spaces or not memory.discard_code() or not cpu._view.is_running
    cpu.interrupt()
    thread.join(60)
    assert not thread.is_alive()
    assert memory.discard_code()


# The memory from Python -------------------------------------------------------------------------------------


def test_python_sees_what_a_cpu_would(memory, device):
    assert memory.read(DEVICE + 4, 4) == (device.value & 0xFFFFFFFF).to_bytes(4, "little")
    memory.write(DEVICE, b"\1\2")
    assert device.calls == [("read", 4, 4), ("write", 0, 2, 0x201)]
    for action in (lambda: memory.read(RAM - 4, 8), lambda: memory.write(RAM + 16 * PAGE - 4, bytes(8))):
        with pytest.raises(GuestFault):
            action()
    assert memory.read(RAM + 16 * PAGE - 4, 4) == bytes(4)
    assert [region.kind for region in memory.regions] == [
        RegionKind.ROM, RegionKind.DEVICE, RegionKind.RAM,
    ]  # fmt: skip


def test_nothing_is_put_on_top_of_anything(memory):
    for action in (
        lambda: memory.add_ram(RAM + PAGE, PAGE),
        lambda: memory.add_mmio(DEVICE + 0x1F, 2, Recorder()),
        lambda: memory.add_ram(RAM + 1, PAGE),
        lambda: memory.add_ram((1 << 64) - PAGE, 2 * PAGE),
        lambda: memory.add_mmio(0x5000, 0, Recorder()),
        lambda: memory.protect(RAM + 15 * PAGE, 2 * PAGE, 7),
        lambda: memory.add_alias(0, DEVICE & -PAGE, PAGE),
    ):
        with pytest.raises(OSError):
            action()


def test_hundreds_of_gigabytes_cost_nothing():
    memory = MachineMemory()
    memory.add_ram(0, 512 << 30)
    cpu = Interpreter("riscv64", memory)
    top = (512 << 30) - PAGE
    cpu.x[10], cpu.x[11] = 77, top
    assert run(cpu, STORES[8], EBREAK, at=top + 0x100).reason == StopReason.BREAKPOINT
    assert memory.read(top, 1) == b"\x4d"


def test_memories_are_given_back():
    gone = []
    for _ in range(50):
        memory = MachineMemory()
        memory.add_ram(0, 1 << 30)
        memory.add_mmio(1 << 30, 8, Recorder())
        cpu = Interpreter("riscv64", memory)
        cpu.x[11] = 1 << 30
        run(cpu, LOADS[4], EBREAK, at=0)
        gone.append(weakref.ref(memory))
        del memory, cpu
    gc.collect()
    assert [memory for memory in gone if memory() is not None] == []


# Against a simple model -------------------------------------------------------------------------------------

FORMS = [pattern for pattern in riscv64.patterns if pattern.mnemonic != "fence.i"]


class Board:
    """A memory with random regions, the same for each executor made from the same seed."""

    def __init__(self, seed, make):
        generator = random.Random(seed)
        self.device = Recorder()
        self.memory = MachineMemory()
        self.starts = []
        for page in range(12):
            address = RAM + page * PAGE
            kind = generator.choice(["ram", "ram", "ram", "rom", "device", "read-only", "hole"])
            if kind in ("ram", "read-only"):
                self.memory.add_ram(address, PAGE)
                self.memory.write(address, generator.randbytes(PAGE))
            if kind == "read-only":
                self.memory.protect(address, PAGE, Protection.READ | Protection.EXECUTE)
            if kind == "rom":
                self.memory.add_rom(address, generator.randbytes(PAGE))
            if kind == "device":
                self.memory.add_mmio(address, generator.choice([8, 100, PAGE]), self.device)
        self.cpu = make("riscv64", self.memory)

    def outcome(self, stop):
        content = [
            self.memory.read(region.start, region.end - region.start)
            for region in self.memory.regions
            if region.kind is not RegionKind.DEVICE
        ]
        return stop, self.cpu.pc, list(self.cpu.x), self.device.calls, content, self.memory.dirty_pages()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32 - 1))
def test_random_boards_and_accesses(seed):
    boards = [Board(seed, make) for make in (Interpreter, ReferenceExecutor)]
    generator = random.Random(seed)
    for board in boards:
        board.memory.add_ram(0, PAGE)
        board.memory.clear_dirty()
    for _ in range(30):
        size = generator.choice([1, 2, 4, 8])
        address = (
            RAM + generator.randrange(13) * PAGE + generator.choice([0, -size // 2, -1, -size, 1, 40, 96])
        )
        value = generator.getrandbits(64)
        code = words(generator.choice([LOADS, STORES])[size], EBREAK)
        outcomes = []
        for board in boards:
            board.memory.write(0, code)
            board.cpu.pc, board.cpu.x[10], board.cpu.x[11] = 0, value, address
            outcomes.append(board.outcome(board.cpu.run()))
        assert outcomes[0] == outcomes[1]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32 - 1))
def test_random_code_that_writes_into_itself(seed):
    """Coherent without any fence: the interpreter does what decoding each instruction anew does."""
    generator = random.Random(seed)
    code = bytearray()
    while len(code) < 3 * PAGE:
        pattern = generator.choice(FORMS)
        word = pattern.match | generator.getrandbits(8 * pattern.length) & ~pattern.mask
        csr = pattern.decode(word).get("csr") if riscv64.find(word, pattern.length) is pattern else 0xC00
        if csr is None:
            code += word.to_bytes(pattern.length, "little")
    near = [RAM + generator.randrange(3 * PAGE) for _ in range(32)]
    entries = [
        RAM + generator.choice([PAGE, 2 * PAGE, 0]) + generator.randrange(-64, 64) // 2 * 2 for _ in range(20)
    ]
    outcomes = []
    for make in (Interpreter, ReferenceExecutor):
        memory = MachineMemory()
        memory.add_ram(RAM, 3 * PAGE)
        memory.write(RAM, bytes(code[: 3 * PAGE]))
        cpu = make("riscv64", memory)
        seen = []
        for entry in entries:
            cpu.pc = entry
            for number in range(1, 32):
                cpu.x[number] = near[number]
            stop = cpu.run(40)
            seen.append((stop, cpu.pc, list(cpu.x), cpu.instructions))
        outcomes.append((seen, memory.read(RAM, 3 * PAGE)))
    assert outcomes[0] == outcomes[1]


def test_addresses_never_reach_the_host(memory):
    """Random addresses, also those of our own structures, fault or hit RAM, and nothing else changes."""
    cpu = Interpreter("riscv64", memory)
    generator = random.Random(11)
    host = [memory.map_address, memory.host_address(RAM), id(memory)]
    memory.write(RAM, words(LOADS[8], EBREAK))
    memory.write(RAM + PAGE, words(STORES[8], EBREAK))
    before = [memory.read(region.start, PAGE) for region in memory.regions if region.bank is not None]
    for _ in range(3000):
        base = generator.choice([*host, generator.getrandbits(64), generator.getrandbits(40), 0, 1 << 47])
        address = base + generator.randrange(-4096, 4096) & (1 << 64) - 1
        if any(region.start <= address + 7 and address < region.end for region in memory.regions):
            continue
        cpu.x[11], cpu.pc = address, RAM + PAGE * generator.randrange(2)
        stop = cpu.run()
        assert (stop.reason, stop.address) == (StopReason.ACCESS_FAULT, address)
    assert before == [memory.read(region.start, PAGE) for region in memory.regions if region.bank is not None]
