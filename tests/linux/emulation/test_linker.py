"""Dynamic linkers are found, loaded and refused as by Linux, whose answers to host programs are an oracle."""

import errno
import os
import shutil
import struct
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyvirt.linux.elf import ElfError
from anyvirt.linux.emulation.abi import RISCV64
from anyvirt.linux.emulation.image import Auxiliary, load_image

from .conftest import PROGRAMS, run

RISCV, X86 = 243, 62
EXEC, DYN = 2, 3
LIBRARIES = Path("/usr/riscv64-linux-gnu/lib")
LINKER = LIBRARIES / "ld-linux-riscv64-lp64d.so.1"


def elf(*, linker=None, name_size=None, machine=RISCV, kind=DYN, address=0x10000, alignment=0x1000):
    """An executable of one page of code, which names `linker` (bytes) if there is one."""
    named = linker is not None
    segments = [(1, 5, 0, address, 0x1000)]
    if named:
        segments.insert(0, (3, 4, 0x800, address + 0x800, len(linker) if name_size is None else name_size))
    headers = b"".join(
        struct.pack("<IIQQQQQQ", kind_, flags, offset, place, place, size, size, alignment)
        for kind_, flags, offset, place, size in segments
    )
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", kind, machine, 1, address + 0x400, 64, 0, 5, 64, 56, len(segments), 0, 0, 0
    )
    return ((head + headers).ljust(0x800, b"\0") + (linker or b"")).ljust(0x2000, b"\0")


def write(path, content, mode=0o755):
    path.write_bytes(content)
    path.chmod(mode)
    return path


@contextmanager
def opened(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def load(path):
    with opened(path) as fd:
        return load_image(RISCV64, fd, os.fsencode(path), b"name", (b"program",), (), 8 << 20)


def auxiliary(image):
    return dict(struct.iter_unpack("<QQ", image.auxiliary))


@pytest.fixture
def linker(tmp_path):
    return write(tmp_path / "linker", elf(address=0x3000, alignment=0x10000))


@pytest.mark.parametrize(("kind", "address"), [(DYN, 0), (DYN, 0x5000), (EXEC, 0x10000)])
def test_the_linker_runs_first_and_is_told_where_the_program_is(kind, address, linker, tmp_path):
    program = write(tmp_path / "program", elf(linker=bytes(linker) + b"\0", kind=kind, address=address))
    image = load(program)
    entries = auxiliary(image)
    own, other = ([m for m in image.memory.mappings if m.name == str(name)] for name in (program, linker))
    start = own[0].start
    assert entries[Auxiliary.ENTRY] == start + 0x400
    assert entries[Auxiliary.PHDR] == start + 64
    assert image.memory.read(start, 0x900) == program.read_bytes()[:0x900]
    assert image.memory.read(other[0].start, 0x400) == linker.read_bytes()[:0x400]
    # It is found at the base, plus where its headers have it.
    assert entries[Auxiliary.BASE] == other[0].start - 0x3000
    assert image.entry == other[0].start + 0x400
    assert other[0].start > own[0].end
    assert image.heap_start == own[-1].end
    if kind == EXEC:
        assert start == address


def test_a_static_program_has_no_base(tmp_path):
    image = load(write(tmp_path / "program", elf()))
    assert auxiliary(image)[Auxiliary.BASE] == 0
    assert image.entry == auxiliary(image)[Auxiliary.ENTRY]


@pytest.mark.parametrize("alignment", [0x1000, 0x10000, 1 << 21, 3, 0])
def test_position_independent_programs_are_aligned_as_they_wish(alignment, tmp_path):
    image = load(write(tmp_path / "program", elf(address=0, alignment=alignment)))
    start = auxiliary(image)[Auxiliary.PHDR] - 64
    assert start % (alignment if alignment.bit_count() == 1 else 0x1000) == 0


def test_a_linker_at_a_fixed_place_does_not_replace_the_program(tmp_path):
    fixed = write(tmp_path / "fixed", elf(kind=EXEC))
    near = write(tmp_path / "near", elf(linker=bytes(fixed) + b"\0", kind=EXEC))
    with pytest.raises(OSError) as caught:
        load(near)
    assert (caught.value.errno, caught.value.filename) == (errno.ELIBBAD, bytes(fixed))
    far = write(tmp_path / "far", elf(linker=bytes(fixed) + b"\0", kind=EXEC, address=0x40000))
    assert load(far).entry == 0x10400


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_damage_to_a_linker_harms_the_emulator(data, tmp_path_factory):
    directory = tmp_path_factory.getbasetemp()
    content = bytearray(elf())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 64 + 56 - 1))] = data.draw(st.integers(0, 255))
    damaged = write(directory / "damaged", bytes(content[: data.draw(st.sampled_from((0x2000, 100, 63)))]))
    program = write(directory / "program", elf(linker=bytes(damaged) + b"\0"))
    try:
        load(program)
    except ElfError:
        pytest.fail("what is wrong with the linker is not wrong with the program")
    except OSError as error:
        assert error.errno in (errno.ELIBBAD, errno.EIO, errno.ENOMEM, errno.EINVAL)


def _refusals(directory, machine, other):
    """Files that are refused, each with its linker, for one machine."""
    directory.mkdir()
    text, short, empty, script, foreign, plain = (
        write(directory / f"linker-{name}", content, mode)
        for name, content, mode in (
            ("text", b"text " * 100, 0o755),
            ("short", b"text", 0o755),
            ("empty", b"", 0o755),
            ("script", b"#!/bin/sh\n".ljust(100), 0o755),
            ("foreign", elf(machine=other), 0o755),
            ("plain", elf(machine=machine), 0o644),
        )
    )
    made = {
        "missing": {"linker": b"/no/such/linker\0"},
        "not-below-a-directory": {"linker": b"/dev/null/linker\0"},
        "directory": {"linker": b"/usr\0"},
        "device": {"linker": b"/dev/null\0"},
        "empty-name": {"linker": b"\0"},
        "no-end": {"linker": b"/lib/linker"},
        "no-name": {"linker": b"", "name_size": 0},
        "beyond-the-file": {"linker": b"/lib/linker\0", "name_size": 0x3000},
        "longer-than-a-path": {"linker": b"/lib/linker\0", "name_size": 0x1001},
        "text": {"linker": bytes(text) + b"\0"},
        "short": {"linker": bytes(short) + b"\0"},
        "empty": {"linker": bytes(empty) + b"\0"},
        "script": {"linker": bytes(script) + b"\0"},
        "foreign": {"linker": bytes(foreign) + b"\0"},
        "not-executable": {"linker": bytes(plain) + b"\0"},
    }
    for name, parts in made.items():
        write(directory / name, elf(machine=machine, **parts))
    return list(made)


def test_execve_refuses_what_linux_refuses(tmp_path, emulate, compile_riscv64, compile_host):
    names = _refusals(tmp_path / "here", RISCV, X86)
    _refusals(tmp_path / "there", X86, RISCV)
    expected = run((compile_host(PROGRAMS / "refusals.c"), *names), directory=tmp_path / "there")
    actual = emulate(compile_riscv64(PROGRAMS / "refusals.c"), *names, directory=tmp_path / "here")
    assert actual == expected
    assert expected.output.count("\n") == len(names)
    assert set(expected.output.split()) >= {"ENOENT", "ENOEXEC", "ELIBBAD", "EACCES", "EIO", "ENOTDIR"}


def test_what_cannot_start_for_its_linker_is_one_sentence(tmp_path, emulate):
    names = _refusals(tmp_path / "files", RISCV, X86)
    for name in names:
        result = emulate(f"./{name}", directory=tmp_path / "files")
        assert result.status == (127 if name == "missing" else 126), name
        assert result.errors.startswith(f"anyvirt: ./{name} cannot be executed: "), name
        assert result.errors.count("\n") == 1
        assert "linker" in result.errors


GREETING = r"""
#include <stdio.h>
#include <sys/auxv.h>
#include <unistd.h>
__thread int kept = 5;
int main(int count, char **words) {
    char path[4096] = {0};
    if (readlink("/proc/self/exe", path, sizeof path - 1) < 0) return 1;
    printf("%d %s %d %s %s\n", count, words[count - 1], kept, (char *)getauxval(AT_EXECFN), path);
    if (count > 1) return 7;
    fflush(stdout);
    execl("/proc/self/exe", "again", "and again", (char *)0);
}
"""


@pytest.fixture(scope="session")
def compile_dynamic(tmp_path_factory):
    """Compile C to a dynamic RISC-V program whose libraries are the cross compiler's."""
    if shutil.which("riscv64-linux-gnu-gcc") is None or not LINKER.exists():
        pytest.skip("needs riscv64-linux-gnu-gcc and its C library (gcc-riscv64-linux-gnu)")

    def build(source, *flags, linker=LINKER):
        directory = tmp_path_factory.mktemp("dynamic")
        (directory / "program.c").write_text(source)
        places = (f"-Wl,--dynamic-linker={linker}", f"-Wl,-rpath={LIBRARIES}")
        command = ["riscv64-linux-gnu-gcc", *flags, *places, "-o", "program", "program.c"]
        subprocess.run(command, cwd=directory, check=True, timeout=60)
        return directory / "program"

    return build


@pytest.mark.parametrize("flags", [("-pie", "-fPIE"), ("-no-pie", "-fno-pie")], ids=["PIE", "fixed"])
def test_a_dynamic_program_runs_and_executes_itself(flags, compile_dynamic, emulate, tmp_path):
    program = compile_dynamic(GREETING, *flags)
    result = emulate(program, directory=tmp_path)
    lines = [f"1 {program} 5 {program} {program}", f"2 and again 5 {program} {program}"]
    assert (result.output.splitlines(), result.status, result.errors) == (lines, 7, "")


def test_it_runs_as_under_qemu(compile_dynamic, emulate, qemu, tmp_path):
    program = compile_dynamic((PROGRAMS / "identity.c").read_text(), "-w")
    expected = run((qemu, program, "word"), directory=tmp_path, CHOSEN="value")
    assert emulate(program, "word", directory=tmp_path, CHOSEN="value") == expected


def test_the_linker_itself_runs_programs(compile_dynamic, emulate, tmp_path):
    program = compile_dynamic(GREETING, linker="/no/such/linker")
    result = emulate(LINKER, "--library-path", LIBRARIES, program, "x", directory=tmp_path)
    assert result.output.startswith("2 x 5 ")
    assert result.status == 7


def test_a_script_may_have_a_dynamic_interpreter(compile_dynamic, emulate, tmp_path):
    program = compile_dynamic(GREETING)
    script = write(tmp_path / "script", b"#!" + bytes(program) + b" option\n")
    result = emulate("./script", "word", directory=tmp_path)
    assert result.output.startswith("4 word 5 ")
    assert script.exists()


def test_libraries_are_found_where_the_environment_says(compile_dynamic, emulate, tmp_path):
    (tmp_path / "own.c").write_text("int given(void) { return 42; }\n")
    command = ["riscv64-linux-gnu-gcc", "-shared", "-fPIC", "-o", "libown.so", "own.c"]
    compile_dynamic("int main(void) {}")
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    source = "int given(void);\nint main(void) { return given(); }\n"
    program = compile_dynamic(
        source, f"-L{tmp_path}", "-Wl,--no-as-needed", "-lown", "-Wl,--allow-shlib-undefined"
    )
    assert emulate(program, directory=tmp_path, LD_LIBRARY_PATH=str(tmp_path)).status == 42
    lost = emulate(program, directory=tmp_path)
    assert (lost.status, "libown.so" in lost.errors) == (127, True)
