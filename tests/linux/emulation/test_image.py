"""Programs are loaded as Linux loads them, and damaged ones are refused without harm to the emulator."""

import errno
import os
import shutil
import struct
import subprocess
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyvirt.cpu.memory import GuestFault, Protection
from anyvirt.linux.elf import ElfError
from anyvirt.linux.emulation.abi import RISCV64
from anyvirt.linux.emulation.image import Auxiliary, load_image

STACK = 8 << 20


@contextmanager
def file_of(content):
    fd = os.memfd_create("program")
    try:
        os.write(fd, content)
        yield fd
    finally:
        os.close(fd)


def elf(*segments, entry=0x10000, kind=2, machine=243, alignment=0x1000):
    """An executable of PT_LOAD segments: (address, flags, content, memory size)."""
    table = 64 + 56 * len(segments)
    offset = -(-table // alignment) * alignment
    headers, contents = b"", b""
    for address, flags, content, memory_size in segments:
        place = offset + len(contents) + address % alignment
        headers += struct.pack(
            "<IIQQQQQQ", 1, flags, place, address, address, len(content), memory_size, alignment
        )
        contents += bytes(address % alignment) + content
        contents += bytes(-len(contents) % alignment)
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", kind, machine, 1, entry, 64, 0, 5, 64, 56, len(segments), 0, 0, 0
    )
    return (head + headers).ljust(offset, b"\0") + contents


def load(content, arguments=(b"program",), environment=(), stack=STACK):
    with file_of(content) as fd:
        return load_image(RISCV64, fd, b"/path", b"./name", arguments, environment, stack)


SIMPLE = elf((0x10000, 5, b"code" * 8, 32), (0x12345, 6, b"data", 0x3000))


def test_segments_are_mapped_with_their_permissions_and_zeroed_beyond_the_file():
    memory = load(SIMPLE).memory
    first, *rest = memory.mappings
    assert (first.start, first.end, first.protection) == (
        0x10000,
        0x11000,
        Protection.READ | Protection.EXECUTE,
    )
    assert memory.read(0x10000, 32) == b"code" * 8
    assert memory.read(0x12345, 4) == b"data"
    assert memory.read(0x12349, 0x3000 - 4) == bytes(0x3000 - 4)
    assert all(part.protection == Protection.READ | Protection.WRITE for part in rest if part.start < 0x16000)
    with pytest.raises(GuestFault):
        memory.write(0x10000, b"x")
    with pytest.raises(GuestFault):
        memory.read(0x16000, 1)


def test_a_read_only_segment_may_be_longer_in_memory_than_in_the_file():
    memory = load(elf((0x10000, 5, b"code", 0x2000))).memory
    assert memory.read(0x10004, 0x1FFC) == bytes(0x1FFC)
    assert {part.protection for part in memory.mappings_in(0x10000, 0x2000)} == {
        Protection.READ | Protection.EXECUTE
    }


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.binary(max_size=200).map(lambda word: word.replace(b"\0", b"")), min_size=1, max_size=20),
    st.lists(st.binary(max_size=200).map(lambda word: word.replace(b"\0", b"")), max_size=20),
)
def test_the_first_stack_holds_arguments_environment_and_auxiliary_vector(arguments, environment):
    image = load(SIMPLE, tuple(arguments), tuple(environment))
    memory, position = image.memory, image.stack_pointer
    assert position % 16 == 0

    def word():
        nonlocal position
        (value,) = struct.unpack("<Q", memory.read(position, 8))
        position += 8
        return value

    def strings():
        while address := word():
            yield memory.read_string(address)

    assert word() == len(arguments)
    assert list(strings()) == arguments
    assert list(strings()) == environment
    entries = {}
    while (kind := word()) != Auxiliary.NULL:
        entries[kind] = word()
    assert entries[Auxiliary.ENTRY] == 0x10000
    assert entries[Auxiliary.PAGESZ] == 4096
    assert entries[Auxiliary.PHNUM] == 2
    assert memory.read_string(entries[Auxiliary.EXECFN]) == b"./name"
    assert len(memory.read(entries[Auxiliary.RANDOM], 16)) == 16
    assert entries[Auxiliary.UID] == os.getuid()


def test_two_loads_have_different_random_bytes():
    def random(image):
        entries = dict(struct.iter_unpack("<QQ", image.auxiliary))
        return image.memory.read(entries[Auxiliary.RANDOM], 16)

    assert random(load(SIMPLE)) != random(load(SIMPLE))


@pytest.mark.parametrize(
    ("limit", "size"),
    [(0, 128 << 10), (1 << 20, 1 << 20), (8 << 20, 8 << 20), ((1 << 64) - 1, 1 << 30)],
)
def test_the_stack_is_as_large_as_its_limit(limit, size):
    (stack,) = (part for part in load(SIMPLE, stack=limit).memory.mappings if part.name == "[stack]")
    assert stack.end - stack.start == size
    assert not stack.protection & Protection.EXECUTE


@pytest.mark.parametrize(
    "arguments", [(b"x" * 131072,), tuple(b"y" * 1000 for _ in range(2500))], ids=["one", "all"]
)
def test_arguments_that_are_too_long_are_refused_as_by_the_kernel(arguments):
    with pytest.raises(OSError) as caught:
        load(SIMPLE, arguments)
    assert caught.value.errno == errno.E2BIG


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (elf((0x10000, 5, b"x", 1), machine=62), "x86_64"),
        (elf((0x1000, 5, b"x", 1)), "address"),
        (elf((0x3FFFFFF000, 5, b"x", 0x1000)), "address"),
        (elf((0x7FFFFFFF0000, 5, b"x", 1)), "address"),
        (SIMPLE[:0x1010], "truncated"),
    ],
    ids=["other ISA", "too low", "over the stack", "outside", "truncated"],
)
def test_what_cannot_be_a_program_is_refused(content, reason):
    with pytest.raises(ElfError, match=reason):
        load(content)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_damage_to_the_headers_harms_the_emulator(data):
    damaged = bytearray(SIMPLE)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(16, 64 + 2 * 56 - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from((len(damaged), 0x1000, 0x1801, 120, 63)))
    try:
        image = load(bytes(damaged[:cut]))
    except ElfError:
        return
    except OSError as error:
        assert error.errno in (errno.ENOMEM, errno.E2BIG, errno.EINVAL, errno.ENOEXEC)
        return
    assert image.memory.read_string(dict(struct.iter_unpack("<QQ", image.auxiliary))[Auxiliary.EXECFN])


def test_addresses_spaces_are_given_back():
    def reserved():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0])

    load(SIMPLE)
    before = reserved()
    for _ in range(5):
        load(SIMPLE)
    assert reserved() - before < 1 << 20


@pytest.mark.skipif(
    not shutil.which("riscv64-linux-gnu-gcc"), reason="needs riscv64-linux-gnu-gcc (gcc-riscv64-linux-gnu)"
)
@pytest.mark.parametrize(
    "flags", [["-static"], ["-nostdlib", "-static", "-fpie", "-Wl,-pie,--no-dynamic-linker"]]
)
def test_the_header_address_is_where_the_headers_are(flags, tmp_path):
    source = tmp_path / "empty.c"
    source.write_text("int main(void) { return 0; }\n")
    subprocess.run(["riscv64-linux-gnu-gcc", *flags, "-o", tmp_path / "empty", source], check=True)
    content = (tmp_path / "empty").read_bytes()
    image = load(content)
    entries = dict(struct.iter_unpack("<QQ", image.auxiliary))
    size = entries[Auxiliary.PHNUM] * entries[Auxiliary.PHENT]
    assert image.memory.read(entries[Auxiliary.PHDR], size) == content[64 : 64 + size]
    assert image.heap_start % 4096 == 0


def test_the_signal_trampoline_is_the_one_that_unwinders_know():
    image = load(SIMPLE)
    assert image.memory.read(image.signal_return, 8) == bytes.fromhex("9308b00873000000")
