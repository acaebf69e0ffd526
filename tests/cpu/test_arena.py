"""The arena of translations: what lies where, that nothing is writable and executable, what comes back."""

import ctypes
import errno
import gc
import os
import random
import threading
import time

import pytest

from anyvirt.cpu.arena import ARENA_SIZE, ArenaFullError, arena
from anyvirt.cpu.executor import StopReason
from anyvirt.cpu.host import host
from anyvirt.cpu.memory import FlatMemory
from anyvirt.cpu.translation import translation_space
from anyvirt.cpu.translator import Translator
from anyvirt.isa.riscv64 import riscv64
from anyvirt.jit.host_layout import ARENA_GRANULE

from .regional import publish

CODE = 0x10000
PAGE = 4096

# Python 3.12 and later warn of what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


def permissions():
    """The parts of the arena that are mapped in any way, as (start, end, permissions)."""
    low, high = arena().address, arena().address + ARENA_SIZE
    found = []
    with open("/proc/self/maps", encoding="utf-8") as file:
        for line in file:
            span, access = line.split()[:2]
            start, end = (int(number, 16) for number in span.split("-"))
            if start < high and end > low and access[:3] != "---":
                found.append((max(start, low), min(end, high), access))
    return found


def executable():
    """Bytes of the arena that can be executed."""
    return sum(end - start for start, end, access in permissions() if "x" in access)


@pytest.fixture(autouse=True)
def before():
    """What other tests have left goes first."""
    gc.collect()
    arena().retire(arena().place(b"x"))


def images(generator, count, largest):
    return [generator.randbytes(generator.randrange(32, largest)) for _ in range(count)]


def holds(placement, image):
    """Whether an image is where it was placed, but for what the arena fills in."""
    return ctypes.string_at(placement.address, len(image))[32:] == image[32:]


def test_images_are_executable_and_never_writable():
    generator = random.Random(1)
    used = arena().used
    placed = [(arena().place(image), image) for image in images(generator, 50, 5 * PAGE)]
    for placement, image in placed:
        assert placement.address % ARENA_GRANULE == placement.size % ARENA_GRANULE == 0
        assert any(start <= placement.address < end for start, end, _ in permissions())
        assert holds(placement, image)
    assert all(access.startswith("r-x") for _, _, access in permissions())
    assert arena().used - used == sum(placement.size for placement, _ in placed)
    assert executable() - arena().used < 2 * PAGE
    for placement, _ in placed:
        arena().retire(placement)
    assert arena().used == used
    assert executable() - used < 2 * PAGE


def test_images_share_pages_and_keep_their_content_while_others_come_and_go():
    generator = random.Random(3)
    placed = [(arena().place(image), image) for image in images(generator, 200, 600)]
    pages = {placement.address // PAGE for placement, _ in placed}
    assert len(pages) < len(placed) / 8
    for _ in range(20):
        generator.shuffle(placed)
        for placement, _ in placed[:60]:
            arena().retire(placement)
        del placed[:60]
        placed += [(arena().place(image), image) for image in images(generator, 60, 1200)]
        assert all(holds(placement, image) for placement, image in placed)
        assert all(access.startswith("r-x") for _, _, access in permissions())
    for placement, _ in placed:
        arena().retire(placement)


def test_a_process_without_room_for_mappings_has_a_full_arena(monkeypatch):
    """Each page that several images lie in is a mapping of its own, of which there may be 65530."""

    def fail(*arguments):
        raise OSError(errno.ENOMEM, "")

    arena_before = arena().used
    kept = arena().place(b"x")
    monkeypatch.setattr("anyvirt.cpu.arena.host_move", fail)
    with pytest.raises(ArenaFullError):
        arena().place(bytes(100))
    assert arena().used == arena_before + kept.size
    monkeypatch.undo()
    other = arena().place(bytes(100))
    assert other.address == kept.end
    for placement in (kept, other):
        arena().retire(placement)
    assert arena().used == arena_before


def test_it_is_full_at_some_time_and_empty_again():
    placed = []
    with pytest.raises(ArenaFullError):
        while True:
            placed.append(arena().place(bytes(1 << 20)))
    assert 0 < len(placed) <= ARENA_SIZE >> 20
    assert arena().used <= ARENA_SIZE
    for placement in placed:
        arena().retire(placement)
    whole = arena().place(bytes(60 << 20))
    arena().retire(whole)


def test_no_two_images_overlap_and_all_space_comes_back():
    """Hundreds of megabytes, of small and large images in any order."""
    generator = random.Random(2)
    used, placed, total = arena().used, {}, 0
    while total < 4 * ARENA_SIZE:
        size = generator.choice((100, PAGE, 3 * PAGE, 1 << 20, 5 << 20))
        try:
            placement = arena().place(bytes(size))
        except ArenaFullError:
            for start in generator.sample(sorted(placed), k=len(placed) // 2 + 1):
                arena().retire(placed.pop(start))
            continue
        total += placement.size
        assert all(
            placement.address + placement.size <= start or start + other.size <= placement.address
            for start, other in placed.items()
        )
        placed[placement.address] = placement
        assert arena().used == used + sum(other.size for other in placed.values()) <= ARENA_SIZE
    for placement in placed.values():
        arena().retire(placement)
    assert arena().used == used


# With CPUs in it ----------------------------------------------------------------------------------------


@pytest.fixture
def memory():
    memory = FlatMemory(1 << 32)
    memory.map(CODE, 2 * PAGE, 7)
    return memory


def loop_at(memory, place, counter="x5"):
    """Endless counting, as a region."""
    memory.write(place, riscv64.assemble(f"addi {counter}, {counter}, 1") + riscv64.assemble("jal zero, -4"))
    return publish(memory, "riscv64", place, counted=False)


def test_an_image_stays_while_a_cpu_may_be_in_it(memory):
    region = loop_at(memory, CODE)
    # A budget keeps a CPU in compiled code that nobody interrupts; here the clock does not.
    cpu = Translator("riscv64", memory)
    cpu._ticker.start = lambda: None
    cpu.pc = CODE
    thread = threading.Thread(target=cpu.run)
    used = arena().used
    thread.start()
    while not host().running_states():
        time.sleep(0.001)
    try:
        translation_space(memory, "riscv64", counted=False).forget_all()
        assert region.placement.busy
        others = [arena().place(bytes(PAGE)) for _ in range(20)]
        assert not any(
            other.address < region.placement.end and region.placement.address < other.end for other in others
        )
        for other in others:
            arena().retire(other)
        assert arena().used == used + 20 * PAGE
    finally:
        cpu.interrupt()
        thread.join()
    arena().retire(arena().place(b"x"))
    assert arena().used == used - region.placement.size


def test_a_page_is_replaced_while_a_cpu_executes_it(memory):
    region = loop_at(memory, CODE)
    cpu = Translator("riscv64", memory)
    cpu._ticker.start = lambda: None
    cpu.pc = CODE
    thread = threading.Thread(target=cpu.run)
    thread.start()
    used, replaced = arena().used, 0
    try:
        for _ in range(3000):
            neighbour = arena().place(bytes(100))
            replaced += neighbour.address // PAGE == region.placement.address // PAGE
            # The CPU cannot be in it.
            arena().abandon([neighbour])
    finally:
        cpu.interrupt()
        thread.join()
    arena().retire(arena().place(b"x"))
    assert replaced > 1000
    assert cpu.x[5] > 1000
    assert arena().used == used


def test_address_spaces_that_come_and_go_leave_nothing():
    used = arena().used
    for _ in range(200):
        memory = FlatMemory(1 << 24)
        memory.map(CODE, PAGE, 7)
        memory.write(CODE, riscv64.assemble("addi x5, x5, 1") + riscv64.assemble("ebreak"))
        cpu = Translator("riscv64", memory)
        assert cpu.translate(CODE)
        cpu.pc = CODE
        assert cpu.run().reason == StopReason.BREAKPOINT
        del cpu, memory
    gc.collect()
    arena().retire(arena().place(b"x"))
    assert arena().used <= used


def test_a_full_arena_gives_up_what_is_there_and_goes_on(memory):
    region = loop_at(memory, CODE)
    space = translation_space(memory, "riscv64", counted=False)
    fill = []
    with pytest.raises(ArenaFullError):
        while True:
            fill.append(arena().place(bytes(1 << 16)))
    with pytest.raises(ArenaFullError):
        while True:
            fill.append(arena().place(b"x"))
    assert loop_at(memory, CODE + PAGE) is None
    assert space.at(CODE) is None
    assert loop_at(memory, CODE + PAGE) is not None
    assert region.placement.busy == set()
    for placement in fill:
        arena().retire(placement)


def test_a_fork_has_an_arena_of_its_own(memory):
    loop_at(memory, CODE)
    stop = threading.Event()
    busy = threading.Thread(target=churn, args=(stop,))
    busy.start()
    try:
        for _ in range(10):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    status = 0 if loop_at(memory, CODE + PAGE) else 2
                finally:
                    os._exit(status)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        busy.join()
    assert translation_space(memory, "riscv64", counted=False).at(CODE + PAGE) is None


def churn(stop):
    """Keep the arena's lock busy."""
    while not stop.is_set():
        arena().retire(arena().place(bytes(PAGE)))
