"""The guest address space: mappings as Linux would list them, access checks, what the kernel sees."""

import ctypes
import errno
import mmap
import os
import subprocess
import sys
import tempfile
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from anyvirt.cpu.executor import Access
from anyvirt.cpu.memory import PAGE_SIZE, FlatMemory, GuestFault, Protection

# Python 3.12 and later warn of what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

PAGES = 64
SIZE = PAGES * PAGE_SIZE


@pytest.fixture
def memory():
    return FlatMemory(1 << 24)


def test_neighbours_with_equal_attributes_are_one_mapping(memory):
    memory.map(0x1000, 0x2000, 3)
    memory.map(0x3000, 0x1000, 3)
    memory.map(0x4000, 0x1000, 1)
    assert [(item.start, item.end) for item in memory.mappings] == [(0x1000, 0x4000), (0x4000, 0x5000)]
    memory.protect(0x2000, 0x1000, 5)
    assert [str(item.protection) for item in memory.mappings] == ["rw-", "r-x", "rw-", "r--"]
    memory.protect(0x2000, 0x1000, 3)
    assert len(memory.mappings) == 2


def test_reads_and_writes_respect_permissions(memory):
    memory.map(0x1000, 0x1000, 3)
    memory.map(0x2000, 0x1000, 1)
    memory.write(0x1FF0, b"x" * 16)
    assert memory.read(0x1FF0, 17) == b"x" * 16 + b"\0"
    for action, address, access in (
        (lambda: memory.write(0x1FF8, b"y" * 16), 0x2000, Access.WRITE),
        (lambda: memory.read(0x2FF8, 16), 0x3000, Access.READ),
        (lambda: memory.read(0, 1), 0, Access.READ),
        (lambda: memory.read(memory.size - 1, 2), memory.size - 1, Access.READ),
        (lambda: memory.read(-1, 1), -1, Access.READ),
        (lambda: memory.view(0x3000, 1), 0x3000, Access.READ),
    ):
        with pytest.raises(GuestFault) as caught:
            action()
        assert (caught.value.address, caught.value.access) == (address, access)
    assert memory.read(0x1FF8, 8) == b"x" * 8


def test_strings(memory):
    memory.map(0x1000, 0x2000, 3)
    memory.write(0x1FFE, b"abcd\0efg")
    assert memory.read_string(0x1FFE) == b"abcd"
    assert memory.read_string(0x2000) == b"cd"
    memory.write(0x2F00, b"z" * 0x100)
    with pytest.raises(GuestFault):
        memory.read_string(0x2F80)
    with pytest.raises(OSError, match="File name too long"):
        memory.read_string(0x1FFE, limit=3)


def test_views_are_the_memory_itself(memory):
    memory.map(0x1000, 0x1000, 3)
    window = memory.view(0x1010, 4, writable=True)
    window[:] = b"here"
    assert memory.read(0x1010, 4) == b"here"
    with pytest.raises(TypeError):
        memory.view(0x1010, 4)[0] = 1


def test_the_kernel_answers_efault_for_what_is_not_mapped(memory):
    libc = ctypes.CDLL(None, use_errno=True)
    memory.map(0x1000, 0x1000, 3)
    reader, writer = os.pipe()
    pointer = ctypes.c_void_p(memory.host_address(0x1000))
    assert libc.write(writer, pointer, 4) == 4
    assert libc.write(writer, ctypes.c_void_p(memory.host_address(0x5000)), 4) == -1
    assert ctypes.get_errno() == errno.EFAULT
    with pytest.raises(GuestFault):
        memory.host_address(memory.size, 1)
    os.close(reader)
    os.close(writer)


def test_free_ranges_are_found_from_the_top(memory):
    memory.map(0x10000, 0x1000, 3)
    memory.map(memory.size - PAGE_SIZE, PAGE_SIZE, 3)
    assert memory.find_free(0x2000) == memory.size - 0x3000
    assert memory.find_free(0x2000, top=0x11000) == 0xE000
    assert memory.find_free(0x2000, top=0x10800) == 0xE000
    assert memory.find_free(0x1000, align=0x10000, top=0x30000) == 0x20000
    assert memory.is_free(0x11000, 0x1000)
    assert not memory.is_free(0x10000, 1)
    assert not memory.is_free(memory.size, 1)
    with pytest.raises(OSError, match="Cannot allocate"):
        memory.find_free(memory.size)


@pytest.mark.parametrize(
    ("address", "length", "number"),
    [(1, 1, errno.EINVAL), (0, 0, errno.EINVAL), (0, 1 << 30, errno.ENOMEM), (-PAGE_SIZE, 1, errno.ENOMEM)],
)
def test_impossible_ranges_give_the_errno_of_linux(memory, address, length, number):
    for action in (memory.unmap, lambda a, n: memory.map(a, n, 3), lambda a, n: memory.protect(a, n, 1)):
        with pytest.raises(OSError) as caught:
            action(address, length)
        assert caught.value.errno == number


def test_protect_wants_every_page_mapped(memory):
    memory.map(0x1000, 0x1000, 3)
    with pytest.raises(OSError) as caught:
        memory.protect(0x1000, 0x2000, 1)
    assert caught.value.errno == errno.ENOMEM
    assert memory.mappings[0].protection == Protection.READ | Protection.WRITE


def test_files_are_mapped_with_offset_and_name(memory):
    with tempfile.TemporaryFile() as file:
        file.write(b"a" * PAGE_SIZE + b"b" * PAGE_SIZE + b"c" * 10)
        file.flush()
        memory.map(0x1000, 0x3000, 3, fd=file.fileno(), name="some file")
        assert memory.read(0x1FFF, 2) == b"ab"
        memory.unmap(0x1000, 0x1000)
        assert (memory.mappings[0].offset, memory.mappings[0].name) == (PAGE_SIZE, "some file")
        memory.map(0x8000, 0x1000, 3, fd=file.fileno(), offset=PAGE_SIZE, shared=True)
        memory.write(0x8000, b"new")
        assert os.pread(file.fileno(), 3, PAGE_SIZE) == b"new"


def test_a_file_cut_off_is_a_fault_and_no_signal(memory):
    with tempfile.TemporaryFile() as file:
        file.write(b"x" * 2 * PAGE_SIZE)
        file.flush()
        memory.map(0x1000, 0x2000, 3, fd=file.fileno())
        os.ftruncate(file.fileno(), PAGE_SIZE)
        assert memory.read(0x1000, 4) == b"xxxx"
        with pytest.raises(GuestFault):
            memory.read(0x2000, 4)
        with pytest.raises(GuestFault):
            memory.write(0x2000, b"1234")


def test_move_keeps_the_content_and_frees_the_source(memory):
    memory.map(0x1000, 0x2000, 3, name="heap")
    memory.write(0x2000, b"content")
    memory.move(0x1000, 0x2000, 0x10000, 0x4000)
    assert memory.read(0x11000, 7) == b"content"
    assert memory.read(0x13FFF, 1) == b"\0"
    assert [(item.start, item.end, item.name) for item in memory.mappings] == [(0x10000, 0x14000, "heap")]
    memory.move(0x10000, 0x4000, 0x1000, 0x1000)
    assert [(item.start, item.end) for item in memory.mappings] == [(0x1000, 0x2000)]
    with pytest.raises(OSError) as caught:
        memory.move(0x1000, 0x2000, 0x20000, 0x2000)
    assert caught.value.errno == errno.EFAULT


def test_guest_execute_permission_is_never_the_hosts(memory):
    memory.map(0x1000, 0x1000, 7)
    with open("/proc/self/maps") as file:
        lines = [line for line in file if _covers(line, memory.base + 0x1000)]
    assert [line.split()[1] for line in lines] == ["rw-p"]
    assert memory.read(0x1000, 1) == b"\0"


def _covers(line, address):
    start, end = (int(text, 16) for text in line.split()[0].split("-"))
    return start <= address < end


def test_changes_to_code_are_reported(memory):
    changes = []
    memory.on_code_change.append(lambda start, length: changes.append((start, length)))
    memory.map(0x1000, 0x2000, 7)
    assert changes == []
    memory.write(0x1FFC, b"12345678")
    memory.protect(0x1000, 0x1000, 1)
    memory.unmap(0x1000, 0x2000)
    assert changes == [(0x1FFC, 8), (0x1000, 0x1000), (0x2000, 0x1000)]


def test_a_forked_child_has_its_own_copy(memory):
    memory.map(0x1000, 0x1000, 3)
    memory.write(0x1000, b"parent")
    child = os.fork()
    if child == 0:
        memory.write(0x1000, b"child!")
        os._exit(0 if memory.read(0x1000, 6) == b"child!" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert memory.read(0x1000, 6) == b"parent"


def test_a_fork_waits_for_changes_by_other_threads(memory):
    stop = threading.Event()

    def remap():
        while not stop.is_set():
            memory.map(0x1000, 0x4000, 3)
            memory.unmap(0x2000, 0x1000)

    thread = threading.Thread(target=remap)
    thread.start()
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:
                # The list tells the truth about what the host has mapped, and the lock is free.
                ranges = [(item.start, item.end - item.start) for item in memory.mappings]
                for start, length in ranges:
                    ctypes.string_at(memory.base + start, length)
                memory.map(0x2000, 0x1000, 3)
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        thread.join()


class Mappings(RuleBasedStateMachine):
    """The list of mappings against a page table kept page by page."""

    def __init__(self):
        super().__init__()
        self.memory = FlatMemory(SIZE)
        self.pages = {}

    ranges = st.tuples(st.integers(0, PAGES - 1), st.integers(1, 12)).map(
        lambda item: (item[0], min(item[1], PAGES - item[0]))
    )

    @rule(where=ranges, protection=st.integers(0, 7))
    def map(self, where, protection):
        first, count = where
        self.memory.map(first * PAGE_SIZE, count * PAGE_SIZE, protection)
        self.pages |= dict.fromkeys(range(first, first + count), protection)

    @rule(where=ranges)
    def unmap(self, where):
        first, count = where
        self.memory.unmap(first * PAGE_SIZE, count * PAGE_SIZE)
        for page in range(first, first + count):
            self.pages.pop(page, None)

    @rule(where=ranges, protection=st.integers(0, 7))
    def protect(self, where, protection):
        first, count = where
        wanted = range(first, first + count)
        try:
            self.memory.protect(first * PAGE_SIZE, count * PAGE_SIZE, protection)
        except OSError:
            assert any(page not in self.pages for page in wanted)
        else:
            self.pages |= dict.fromkeys(wanted, protection)

    @rule(count=st.integers(1, 20))
    def find(self, count):
        free = [
            page
            for page in range(1, PAGES - count + 1)
            if not any(other in self.pages for other in range(page, page + count))
        ]
        try:
            assert self.memory.find_free(count * PAGE_SIZE) == free[-1] * PAGE_SIZE
        except OSError:
            assert not free

    @invariant()
    def agrees(self):
        listed = {
            page: int(mapping.protection)
            for mapping in self.memory.mappings
            for page in range(mapping.start // PAGE_SIZE, mapping.end // PAGE_SIZE)
        }
        assert listed == self.pages
        executable = ctypes.string_at(self.memory.executable_pages, PAGES)
        assert executable == bytes(self.pages.get(page, 0) >> 2 for page in range(PAGES))
        for left, right in zip(self.memory.mappings, self.memory.mappings[1:], strict=False):
            assert left.end <= right.start
            assert not left.continues(right)


TestMappings = Mappings.TestCase
TestMappings.settings = settings(max_examples=40, deadline=None)


@given(st.integers(-5, 5))
def test_sizes_must_be_whole_pages(extra):
    if extra:
        with pytest.raises(ValueError, match="multiple"):
            FlatMemory(PAGE_SIZE * 4 + extra)


def test_too_little_address_space_is_one_clear_error():
    code = (
        "import resource\n"
        "from anyvirt.cpu.memory import FlatMemory\n"
        "from anyvirt.cpu.interpreter import Interpreter\n"
        "from anyvirt.errors import UnsupportedError\n"
        "for gib in (64, 400):\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (gib << 30, -1))\n"
        "    try:\n"
        "        Interpreter('riscv64', FlatMemory())\n"
        "    except UnsupportedError as error:\n"
        "        print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    first, second = result.stdout.splitlines()
    assert "address space for the guest" in first
    assert "address space for decoded code" in second
    assert "ulimit -v" in first


def test_flags_of_the_host_are_passed_on(memory):
    memory.map(0x1000, 0x1000, 3, flags=mmap.MAP_POPULATE)
    assert memory.read(0x1000, 1) == b"\0"


class Cpu:
    """What has a memory."""


def test_a_memory_is_alone_with_its_first_cpu():
    memory, first = FlatMemory(), Cpu()
    memory.map(0x10000, 0x3000, 5)
    memory.map(0x20000, 0x1000, 3)
    changes = []
    memory.on_code_change.append(lambda *change: changes.append(change))
    assert not memory.admit(first)
    assert memory.alone
    assert not changes
    second = Cpu()
    assert memory.admit(second)
    assert not memory.alone
    assert changes == [(0x10000, 0x3000)]
    assert not memory.admit(Cpu())


def test_a_memory_that_is_shared_with_other_processes_is_not_alone():
    memory = FlatMemory()
    memory.map(0x10000, 0x1000, 3)
    assert memory.alone
    memory.map(0x20000, 0x1000, 3, shared=True)
    assert not memory.alone
