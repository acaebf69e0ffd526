"""The translating executor as a whole: what is hot gets compiled meanwhile, is kept, and survives trouble."""

import contextlib
import os
import signal
import socket
import struct
import threading
import time

import pytest

from anyvirt.cpu.arena import arena
from anyvirt.cpu.executor import StopReason
from anyvirt.cpu.machine_memory import MachineMemory
from anyvirt.cpu.memory import FlatMemory
from anyvirt.cpu.region_client import SOCKET
from anyvirt.cpu.translation import translation_space
from anyvirt.cpu.translator import Translator
from anyvirt.isa.riscv64 import riscv64
from anyvirt.jit.cache import version

from .test_region_client import server_of

CODE, DATA, PAGE = 0x10000, 0x20000, 4096
PATIENCE = 60.0
LOOPS = 3
"""Endless loops, in pages of their own; each counts in a register of its own and in memory."""

# Python 3.12 and later warn of what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


def loop(number):
    """Count in x10 + number and in memory as often as x9 says, calling a function for each."""
    lines = [
        f"addi x{10 + number}, x{10 + number}, 1",
        "jal x1, 16",
        "addi x9, x9, -1",
        "bne x9, zero, -12",
        "ebreak",
        f"ld x5, {8 * number}(x8)",
        "addi x5, x5, 3",
        f"sd x5, {8 * number}(x8)",
        "jalr zero, 0(x1)",
    ]
    return b"".join(riscv64.assemble(line) for line in lines)


@pytest.fixture
def directory(tmp_path):
    """A place for the compiler's socket and cache; the compiler goes with it."""
    yield tmp_path
    with socket.socket(socket.AF_UNIX) as connection, contextlib.suppress(OSError):
        connection.connect(os.fspath(tmp_path / f"{SOCKET}-{version()}"))
        os.kill(server_of(tmp_path), signal.SIGKILL)


def flat():
    """Memory with loops."""
    memory = FlatMemory(1 << 32)
    memory.map(CODE, LOOPS * PAGE, 7)
    memory.map(DATA, PAGE, 3)
    for number in range(LOOPS):
        memory.write(CODE + number * PAGE, loop(number))
    memory.protect(CODE, LOOPS * PAGE, 5)
    return memory


def machine():
    """The same as a machine has it."""
    memory = MachineMemory()
    memory.add_ram(CODE, LOOPS * PAGE)
    memory.add_ram(DATA, PAGE)
    for number in range(LOOPS):
        memory.write(CODE + number * PAGE, loop(number))
    return memory


def make(directory, memory=flat):
    """A CPU with loops to run."""
    memory = memory()
    cpu = Translator("riscv64", memory)
    cpu._watch.directory = directory
    cpu.x[8] = DATA
    return cpu


def statistics(cpu):
    return translation_space(cpu.memory, "riscv64", counted=False).statistics


def run_until(cpu, number, condition):
    """Run a loop until something is true, and then to a round number of turns; checks the result."""
    begin, place = cpu.x[10 + number], DATA + 8 * number
    stored = int.from_bytes(cpu.memory.read(place, 8), "little")
    ended = threading.Event()

    def watch():
        deadline = time.monotonic() + PATIENCE
        while not condition() and not ended.is_set() and time.monotonic() < deadline:
            time.sleep(0.002)
        cpu.interrupt()

    cpu.pc, cpu.x[9] = CODE + number * PAGE, 1 << 50
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        stop = cpu.run()
    finally:
        ended.set()
        thread.join()
    assert stop.reason == StopReason.INTERRUPTED
    assert condition(), "it did not happen in time"
    cpu.x[9] = 100
    if stop.pc in (CODE + number * PAGE + 12, CODE + number * PAGE):
        cpu.x[9] += 1
    assert cpu.run().reason == StopReason.BREAKPOINT
    stored = int.from_bytes(cpu.memory.read(place, 8), "little") - stored
    assert stored == 3 * (cpu.x[10 + number] - begin)


def test_what_is_hot_is_compiled_and_found_again_by_later_runs(directory):
    cpu = make(directory)
    run_until(cpu, 0, lambda: statistics(cpu).published)
    assert statistics(cpu).from_disk == 0
    os.kill(server_of(directory), signal.SIGKILL)
    other = make(directory)
    run_until(other, 0, lambda: statistics(other).from_disk)


def has_stencils_beside_regions(cpu):
    """Whether code at which a region begins is also part of stencils, or something else is entered there."""
    space = translation_space(cpu.memory, "riscv64", counted=False)
    return any(
        stencils.covers(entry, entry + 1) or space.code.handler(entry).value != region.start
        for entry, region in space._by_entry.items()
        for stencils in cpu._stencils._all()
    )


def test_a_loop_does_not_go_on_as_stencils_beside_its_region(directory):
    """Within stencils control would never come by the record that leads into the region."""
    cpu = make(directory)
    run_until(cpu, 0, lambda: statistics(cpu).published)
    assert cpu._stencils.instructions > 0
    assert not has_stencils_beside_regions(cpu)
    other = make(directory)
    run_until(other, 0, lambda: statistics(other).from_disk)
    assert not has_stencils_beside_regions(other)


@pytest.mark.parametrize("memory", [flat, machine])
def test_code_around_a_region_is_translated_anew(directory, memory):
    """It would be interpreted until somebody is seen there by chance."""
    cpu = make(directory, memory)
    run_until(cpu, 0, lambda: cpu._stencils is not None and cpu._stencils.instructions >= 9)
    stencils = cpu._stencils
    assert not statistics(cpu).published
    assert cpu.translate(CODE + 20)
    stencils.make_way([CODE + 20], cpu._state)
    code = cpu._space.code
    assert code.handler(CODE + 20).value == cpu._space.at(CODE + 20).start
    assert arena().contains(code.handler(CODE + 8).value)
    # The function that the region is made from is no part of what is made anew.
    assert sum(end - start for part in stencils._all() for start, end in part.ranges) == 20


def test_a_loop_that_no_region_can_hold_becomes_several(directory, monkeypatch):
    """Without a jump to what did not fit, that would be stencils for ever."""
    monkeypatch.setattr("anyvirt.cpu.profile.SMALLEST_LIMIT", 16)
    monkeypatch.setattr("anyvirt.cpu.profile.LARGEST_LIMIT", 16)
    cpu = make(directory)
    body = [riscv64.assemble("addi x10, x10, 1")] * 50
    back = riscv64.assemble(f"bne x9, zero, {-4 * (len(body) + 1)}")
    cpu.memory.protect(CODE, PAGE, 7)
    cpu.memory.write(CODE, b"".join([*body, riscv64.assemble("addi x9, x9, -1"), back]))
    cpu.memory.write(CODE + 4 * (len(body) + 2), riscv64.assemble("ebreak"))
    cpu.memory.protect(CODE, PAGE, 5)
    space = translation_space(cpu.memory, "riscv64", counted=False)
    deadline = time.monotonic() + PATIENCE
    while not all(space.at(CODE + 64 * part) for part in range(4)):
        assert time.monotonic() < deadline
        cpu.pc, cpu.x[9], cpu.x[10] = CODE, 200_000, 0
        assert cpu.run().reason == StopReason.BREAKPOINT
        assert cpu.x[10] == 50 * 200_000


def test_what_is_found_must_be_true(directory):
    cpu = make(directory)
    run_until(cpu, 0, lambda: statistics(cpu).published)
    os.kill(server_of(directory), signal.SIGKILL)
    # One that was being written when the compiler was killed is not used anyway.
    for path in (directory / "regions").glob("[!.]*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(content)
    other = make(directory)
    run_until(other, 0, lambda: statistics(other).published)
    assert statistics(other).from_disk == 0


def test_a_compiler_that_is_killed_is_replaced(directory):
    cpu = make(directory)
    for number in range(LOOPS):
        before = statistics(cpu).published
        run_until(cpu, number, lambda before=before: statistics(cpu).published > before)
        with contextlib.suppress(ConnectionRefusedError):
            os.kill(server_of(directory), signal.SIGKILL)
    assert cpu._profile._connections > 1


def test_without_a_compiler_the_guest_goes_on(tmp_path):
    cpu = make(tmp_path / "missing")
    begin = time.monotonic()
    run_until(cpu, 1, lambda: time.monotonic() - begin > 0.3)
    assert statistics(cpu).published == 0


def test_parent_and_child_go_on_on_their_own_after_a_fork(directory):
    cpu = make(directory)
    run_until(cpu, 0, lambda: statistics(cpu).published)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            before = statistics(cpu).published
            run_until(cpu, 1, lambda: statistics(cpu).published > before)
            status = 0
        finally:
            os._exit(status)
    before = statistics(cpu).published
    run_until(cpu, 2, lambda: statistics(cpu).published > before)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert translation_space(cpu.memory, "riscv64", counted=False).at(CODE + PAGE) is None


def test_two_cpus_share_what_is_compiled(directory):
    first = make(directory)
    second = Translator("riscv64", first.memory)
    second._watch.directory = directory
    second.x[8] = DATA
    thread = threading.Thread(target=run_until, args=(second, 1, lambda: statistics(first).published > 1))
    thread.start()
    run_until(first, 0, lambda: statistics(first).published > 1)
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_run_with_a_budget_is_not_looked_at(directory):
    """It is reproducible bit for bit, and costs what it costs."""
    cpu = make(directory)
    cpu.pc, cpu.x[9] = CODE, 1 << 50
    assert cpu.run(3_000_000).reason == StopReason.BUDGET
    assert cpu._ticker._thread is None
    assert cpu._profile is None
    assert list(directory.iterdir()) == []


def test_a_twin_goes_on_where_its_model_is_and_has_the_same_watch():
    memory = FlatMemory()
    cpu = Translator("riscv64", memory)
    cpu.pc, cpu.x[5], cpu.f[3], cpu.fcsr = 0x1234, 77, 1 << 63, 0x61
    twin = cpu.twin()
    assert (twin.pc, twin.x[5], twin.f[3], twin.fcsr) == (0x1234, 77, 1 << 63, 0x61)
    twin.x[5] = 78
    assert cpu.x[5] == 77
    assert twin._watch is cpu._watch


def test_two_threads_that_run_the_same_loop_look_in_turns():
    """One compiler is asked once, whichever of them looks; and each comes to its end."""
    memory = FlatMemory()
    memory.map(CODE, 4096, 7)
    # 1: addi x5, x5, -1; bnez x5, 1b; ecall
    memory.write(CODE, struct.pack("<3I", 0xFFF28293, 0xFE029EE3, 0x73))
    first = Translator("riscv64", memory)
    first.pc, first.x[5] = CODE, 30_000_000
    cpus = [first, first.twin(), first.twin()]
    threads = [threading.Thread(target=cpu.run) for cpu in cpus]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(cpu.x[5], cpu.pc) for cpu in cpus] == [(0, CODE + 8)] * 3
    assert first._profile is not None
    assert not first._watch.lock.locked()
