"""Memory accesses of regions that fail: where, in which state, and that the guest can go on."""

import os
import random
import signal
import tempfile
import threading
import time

import pytest

from anyvirt.cpu import signals
from anyvirt.cpu.executor import Access, Stop, StopReason
from anyvirt.cpu.memory import FlatMemory
from anyvirt.cpu.reference import ReferenceExecutor
from anyvirt.cpu.translator import Translator
from anyvirt.isa.riscv64 import riscv64

from .machines import Start
from .regional import publish

CODE, DATA, READ_ONLY, NOTHING, PAGE = 0x10000, 0x20000, 0x30000, 0x40000, 4096
SIZE = 1 << 32
TOP = 1 << 64
QUEUED = signal.SIGRTMIN + 5
"""A signal of which each instance arrives, however close they are to each other."""

ACCESSES = {
    "lb": (1, Access.READ), "lhu": (2, Access.READ), "lw": (4, Access.READ), "ld": (8, Access.READ),
    "fld": (8, Access.READ), "sb": (1, Access.WRITE), "sh": (2, Access.WRITE), "sw": (4, Access.WRITE),
    "sd": (8, Access.WRITE), "fsd": (8, Access.WRITE),
}  # fmt: skip
ATOMIC = ["lr.d", "sc.d", "amoswap.d", "amoadd.w", "amoand.d", "amomax.w", "amominu.d"]
PLACES = {
    "nothing": NOTHING,
    "read-only": READ_ONLY,
    "crossing": DATA + 2 * PAGE - 1,
    "null": 0,
    "small": 8,
    "end": SIZE,
    "crossing-end": SIZE - 1,
    "far": 1 << 40,
    "sign": 1 << 63,
    "highest": TOP - 8,
    "below-zero": TOP - (1 << 31),
    "guard": SIZE + (1 << 31),
    "behind-guard": SIZE + (1 << 31) + (1 << 17),
}
"""Bases and what they lead to."""
OFFSETS = (0, 7, -8, 2040, -2048)


def assemble(*lines):
    return b"".join(riscv64.assemble(line) for line in lines)


def make_memory():
    memory = FlatMemory(SIZE)
    memory.map(CODE, 2 * PAGE, 7)
    memory.map(DATA, 2 * PAGE, 3)
    memory.map(READ_ONLY, PAGE, 1)
    return memory


@pytest.fixture
def memory():
    return make_memory()


@pytest.fixture(scope="module")
def pair():
    """A translating CPU and a reference, each with a memory of its own."""
    return Translator("riscv64", make_memory()), ReferenceExecutor("riscv64", make_memory())


def state(cpu):
    return list(cpu.x), list(cpu.f), cpu.fcsr, cpu.pc, cpu.memory.read(DATA, 2 * PAGE)


def run_both(pair, start, code, *, counted, **registers):
    """Stops and states of both; the region is compiled unless the code is the last one's."""
    results = []
    for cpu in pair:
        if cpu.memory.read(CODE, len(code)) != code:
            cpu.memory.write(CODE, code)
            if isinstance(cpu, Translator):
                assert publish(cpu.memory, "riscv64", CODE, counted=False)
                assert publish(cpu.memory, "riscv64", CODE, counted=True)
        cpu.x[:], cpu.f[:], cpu.fcsr = start.x, start.f, start.fcsr & 31
        for name, value in registers.items():
            cpu.x[int(name[1:])] = value % TOP
        cpu.memory.write(DATA, start.data)
        cpu.set_state("reservation_address", registers.get("x31", 0) % TOP)
        cpu.set_state("reservation_value", 0)
        cpu.pc = CODE
        results.append((cpu.run(1000 if counted else None), state(cpu)))
    return results


@pytest.mark.parametrize("name", ACCESSES)
def test_an_access_anywhere_in_the_middle_of_a_loop(pair, name):
    """All registers are live, and the access fails in its second turn."""
    size, access = ACCESSES[name]
    data = "f5" if name.startswith("f") else "x5"
    generator = random.Random(name)
    for offset in OFFSETS:
        changes = [f"addi x{number}, x{number}, {number}" for number in range(1, 30)]
        floats = [f"fsgnjx.d f{number}, f{number}, f{(number + 5) % 32}" for number in range(0, 32, 3)]
        lines = [*changes, *floats, f"{name} {data}, {offset}(x31)", "add x31, x31, x30", "addi x5, x5, 1"]
        code = assemble(*lines, f"bne x5, x6, {-4 * len(lines)}", "ebreak")
        for place in PLACES.values():
            start = Start(generator.getrandbits(32))
            good = DATA + PAGE - offset
            registers = {"x30": place - offset - good, "x31": good, "x5": 1, "x6": 1 << 40}
            for counted in (False, True):
                compiled, expected = run_both(pair, start, code, counted=counted, **registers)
                assert compiled == expected, (hex(place), offset, counted)
            stop = compiled[0]
            if place == READ_ONLY and access == Access.READ:
                continue
            if size == 1 and place in (PLACES["crossing"], PLACES["crossing-end"]):
                continue
            assert (stop.reason, stop.access) == (StopReason.ACCESS_FAULT, access), hex(place)


@pytest.mark.parametrize("name", ATOMIC)
def test_an_atomic_access_anywhere(pair, name):
    operands = "x5, (x31)" if name.startswith("lr") else "x5, x6, (x31)"
    lines = ["addi x7, x7, 1", f"{name} {operands}", "add x31, x31, x30", "fsgnjn.d f1, f1, f1"]
    code = assemble(*lines, f"bne x7, x8, {-4 * len(lines)}", "ebreak")
    generator = random.Random(name)
    for place in PLACES.values():
        for aligned in (place & -8, place | 4, place | 1):
            start = Start(generator.getrandbits(32))
            registers = {"x30": 0, "x31": aligned, "x7": 0, "x8": 2}
            for counted in (False, True):
                compiled, expected = run_both(pair, start, code, counted=counted, **registers)
                assert compiled == expected, (hex(aligned), counted)


def test_a_fault_can_be_mended_and_the_loop_goes_on(memory):
    """Each page is mapped when it is first stored to, as a kernel does."""
    code = assemble("sd x6, 0(x5)", "add x6, x6, x5", "addi x5, x5, 1024", "bne x5, x7, -12", "ebreak")
    memory.write(CODE, code)
    assert publish(memory, "riscv64", CODE, counted=False)
    cpu = Translator("riscv64", memory)
    cpu.pc, cpu.x[5], cpu.x[7] = CODE, 0x100000, 0x120000
    faults = []
    while (stop := cpu.run()).reason == StopReason.ACCESS_FAULT:
        assert stop == Stop(StopReason.ACCESS_FAULT, CODE, 0, cpu.x[5], Access.WRITE)
        faults.append(stop.address)
        memory.map(stop.address, PAGE, 3)
    assert faults == list(range(0x100000, 0x120000, PAGE))
    total = 0
    for place in range(0x100000, 0x120000, 1024):
        assert int.from_bytes(memory.read(place, 8), "little") == total
        total += place
    assert (stop.reason, cpu.x[6]) == (StopReason.BREAKPOINT, total)


@pytest.mark.parametrize(("name", "access"), [("ld", Access.READ), ("sd", Access.WRITE)])
def test_a_file_that_was_cut_off_is_a_bus_error(memory, name, access):
    memory.write(CODE, assemble("addi x6, x6, 1", f"{name} x7, 0(x5)", "ebreak"))
    assert publish(memory, "riscv64", CODE, counted=False)
    cpu = Translator("riscv64", memory)
    with tempfile.TemporaryFile() as file:
        file.truncate(2 * PAGE)
        memory.map(0x50000, 2 * PAGE, 3, fd=file.fileno(), shared=True)
        os.ftruncate(file.fileno(), PAGE)
        cpu.pc, cpu.x[5] = CODE, 0x51000
        assert cpu.run() == Stop(StopReason.ACCESS_FAULT, CODE + 4, 0, 0x51000, access, bus_error=True)
        assert cpu.x[6] == 1
        os.ftruncate(file.fileno(), 2 * PAGE)
        assert cpu.run().reason == StopReason.BREAKPOINT
        assert not memory.unmap(0x50000, 2 * PAGE)
        cpu.pc = CODE
        assert cpu.run() == Stop(StopReason.ACCESS_FAULT, CODE + 4, 0, 0x51000, access)


def test_a_fault_in_a_region_that_another_region_led_to(memory):
    """A caller and a function that are compiled apart from each other; the caller's registers are stored."""
    caller = assemble("addi x9, x9, 1", "jalr x1, 0(x8)", "addi x10, x10, 1", "jal zero, -12")
    memory.write(CODE, caller)
    memory.write(
        CODE + PAGE, assemble("addi x9, x9, 5", "ld x5, 0(x6)", "addi x6, x6, 8", "jalr zero, 0(x1)")
    )
    for entry in (CODE, CODE + PAGE):
        assert publish(memory, "riscv64", entry, counted=False)
    cpu = Translator("riscv64", memory)
    cpu.pc, cpu.x[8], cpu.x[6] = CODE, CODE + PAGE, DATA
    stop = cpu.run()
    turns = 2 * PAGE // 8
    assert stop == Stop(StopReason.ACCESS_FAULT, CODE + PAGE + 4, 0, DATA + 2 * PAGE, Access.READ)
    assert (cpu.x[9], cpu.x[10], cpu.x[1]) == (6 * (turns + 1), turns, CODE + 8)


# Others at the same time --------------------------------------------------------------------------------


def count_faults(memory, base, results):
    """Run over the same fault again and again, and count."""
    cpu = Translator("riscv64", memory)
    cpu.x[5], cpu.x[7] = base, 0
    for turn in range(300):
        cpu.pc, cpu.x[6] = CODE, turn
        stop = cpu.run()
        if stop != Stop(StopReason.ACCESS_FAULT, CODE + 8, 0, base + 8, Access.READ) or cpu.x[6] != turn + 3:
            results.append((stop, cpu.x[6], turn))
            return
    results.append(cpu.x[7])


def test_cpus_of_several_threads_fault_in_the_same_region(memory):
    memory.write(
        CODE, assemble("addi x6, x6, 3", "addi x7, x7, 1", "ld x8, 8(x5)", "addi x6, x6, 100", "ebreak")
    )
    assert publish(memory, "riscv64", CODE, counted=False)
    results = []
    threads = [
        threading.Thread(target=count_faults, args=(memory, NOTHING + number * PAGE, results))
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [300] * 4


def test_atomics_of_regions_are_atomic(memory):
    """Two CPUs add to a word by one instruction, by a loop around compare-and-swap, and by LR and SC."""
    lines = [
        "amoadd.d zero, x6, (x5)",
        "amomaxu.d zero, x7, (x8)",
        "lr.d x9, (x10)",
        "addi x9, x9, 1",
        "sc.d x11, x9, (x10)",
        "bne x11, zero, -12",
        "addi x7, x7, -1",
        "bne x7, zero, -28",
        "ebreak",
    ]
    memory.write(CODE, assemble(*lines))
    assert publish(memory, "riscv64", CODE, counted=False)
    cpus = [Translator("riscv64", memory) for _ in range(2)]
    for cpu in cpus:
        cpu.pc, cpu.x[5], cpu.x[6], cpu.x[7], cpu.x[8] = CODE, DATA, 3, 50_000, DATA + 64
        cpu.x[10] = DATA + 128
    threads = [threading.Thread(target=cpu.run) for cpu in cpus]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    words = [int.from_bytes(memory.read(DATA + offset, 8), "little") for offset in (0, 64, 128)]
    assert words == [300_000, 50_000, 100_000]


def test_signals_arrive_in_the_middle_of_a_loop(memory):
    """Each ends the run at a state from which it goes on, and none is lost."""
    lines = [
        "ld x6, 0(x5)",
        "addi x6, x6, 1",
        "sd x6, 0(x5)",
        "addi x7, x7, -1",
        "bne x7, zero, -16",
        "ebreak",
    ]
    memory.write(CODE, assemble(*lines))
    assert publish(memory, "riscv64", CODE, counted=False)
    cpu = Translator("riscv64", memory)
    cpu.pc, cpu.x[5], cpu.x[7] = CODE, DATA, 30_000_000
    signals.install(QUEUED)
    me = threading.main_thread().ident

    def send():
        for _ in range(20):
            signal.pthread_kill(me, QUEUED)
            time.sleep(0.002)

    thread = threading.Thread(target=send)
    thread.start()
    arrived = 0
    try:
        while (stop := cpu.run()).reason == StopReason.INTERRUPTED:
            arrived += len(signals.drain())
            assert stop.pc in range(CODE, CODE + 24, 4)
        thread.join()
        arrived += len(signals.drain())
    finally:
        thread.join()
        signals.uninstall(QUEUED)
        signals.drain()
    assert (stop.reason, arrived) == (StopReason.BREAKPOINT, 20)
    assert int.from_bytes(memory.read(DATA, 8), "little") == 30_000_000
