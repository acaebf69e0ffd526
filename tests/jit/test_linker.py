"""The linker: programs that it makes of a compiler's objects run, and their segments are as they must be."""

import dataclasses
import re
import shutil
import subprocess

import pytest

from anyvirt.isa.names import Isa
from anyvirt.jit.linker import link
from anyvirt.jit.object_file import (
    Binding,
    LinkError,
    ObjectFile,
    Relocation,
    Section,
    SectionFlags,
    SectionType,
    SpecialIndex,
    Symbol,
    read_object,
)
from anyvirt.linux.elf import SegmentFlags, SegmentType, parse_elf

COMPILERS = {
    "x86_64": (Isa.X86_64, ["gcc", "-fno-pic", "-fno-pie", "-mcmodel=small"], []),
    "riscv64-medlow": (
        Isa.RISCV64,
        ["riscv64-linux-gnu-gcc", "-fno-pic", "-fno-pie", "-mno-relax", "-mcmodel=medlow"],
        ["qemu-riscv64-static"],
    ),
    "riscv64-medany": (
        Isa.RISCV64,
        ["riscv64-linux-gnu-gcc", "-fno-pic", "-fno-pie", "-mno-relax", "-mcmodel=medany"],
        ["qemu-riscv64-static"],
    ),
}
BINUTILS = {
    Isa.X86_64: ["readelf", "objdump"],
    Isa.RISCV64: ["readelf", "riscv64-linux-gnu-objdump"],
}
START = {
    Isa.X86_64: 'asm(".globl _start\\n_start: and $-16,%rsp; call run; mov %eax,%edi;'
    ' mov $231,%eax; syscall");',
    Isa.RISCV64: 'asm(".globl _start\\n_start: call run; li a7,94; ecall");',
}
MAIN_SOURCE = """
extern double scale(double);
extern int pick(int);
extern long shared[];
static const char text[] = "constant";
static const char *pointer = text + 3;
int zeros[5000];
static int filled[4] = {1, 2, 3, 4};
int run(void)
{
    int sum = 0;
    for (int i = 0; i < 9; i++) sum += pick(i);
    zeros[4321] = sum;
    filled[2] += zeros[4321];
    shared[1] = filled[2];
    return *pointer == 's' && scale(2.0) == 5.0 && zeros[17] == 0 ? (int)shared[1] : 1;
}
"""
OTHER_SOURCE = """
long shared[3] = {7, 8, 9};
double scale(double value) { return value * 2.5; }
int pick(int which)
{
    switch (which) {
    case 0: shared[0]++; return 3;
    case 1: return 14;
    case 2: shared[2] ^= 5; return 15;
    case 3: return 9;
    case 4: return 2;
    case 5: return 6;
    case 6: return 5;
    case 7: return 3;
    default: return 0;
    }
}
"""
ANSWER = 3 + 14 + 15 + 9 + 2 + 6 + 5 + 3 + 3


@pytest.fixture(params=COMPILERS)
def built(request, tmp_path):
    """A linked program of two C sources for each way of compiling them, and how to run it."""
    isa, compiler, runner = COMPILERS[request.param]
    for tool in (compiler[0], *runner, *BINUTILS[isa]):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    objects = []
    for name, source in (("main", MAIN_SOURCE + START[isa]), ("other", OTHER_SOURCE)):
        (tmp_path / f"{name}.c").write_text(source)
        flags = ["-c", "-O2", "-ffreestanding", "-fno-stack-protector"]
        command = [*compiler, *flags, "-o", tmp_path / f"{name}.o", tmp_path / f"{name}.c"]
        subprocess.run(command, check=True, timeout=60)
        objects.append(read_object((tmp_path / f"{name}.o").read_bytes()))
    path = tmp_path / "program"
    path.write_bytes(link(objects, isa=isa))
    path.chmod(0o755)
    return path, runner


def test_a_program_of_two_objects_computes_what_it_should(built):
    path, runner = built
    assert subprocess.run([*runner, path], timeout=60, check=False).returncode == ANSWER


def test_readelf_finds_nothing_to_complain_about(built):
    path, _ = built
    done = subprocess.run(["readelf", "-aW", path], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert re.search(r"GNU_STACK .* RW  ", done.stdout)
    assert not re.search(r"^ +LOAD .* [R ]WE ", done.stdout, re.MULTILINE)


def test_segments_hold_no_page_that_is_writable_and_executable(built):
    path, _ = built
    elf = parse_elf(path.read_bytes())
    loads = [segment for segment in elf.segments if segment.type == SegmentType.LOAD]
    pages = {}
    for segment in loads:
        first, last = segment.address >> 12, (segment.address + segment.memory_size - 1) >> 12
        for page in range(first, last + 1):
            assert page not in pages
            pages[page] = segment.flags
        assert segment.offset % 4096 == segment.address % 4096
    assert sorted(pages.values()) != []
    assert set(pages.values()) == {
        SegmentFlags.READ,
        SegmentFlags.READ | SegmentFlags.EXECUTE,
        SegmentFlags.READ | SegmentFlags.WRITE,
    }
    assert pages[elf.entry >> 12] & SegmentFlags.EXECUTE


def test_uninitialized_data_takes_no_room_in_the_file(built):
    path, _ = built
    data = parse_elf(path.read_bytes()).segments[2]
    assert data.memory_size - data.file_size >= 20000
    assert path.stat().st_size < 16000


def test_objdump_shows_the_functions(built):
    path, _ = built
    dump = BINUTILS[parse_elf(path.read_bytes()).isa][1]
    shown = subprocess.run([dump, "-d", path], capture_output=True, text=True, check=True).stdout
    for function in ("_start", "run", "pick", "scale"):
        assert f"<{function}>:" in shown


# Objects made by hand ------------------------------------------------------------------------------------

CODE = SectionFlags.ALLOC | SectionFlags.EXECUTE
NULL_SECTION = Section("", 0, SectionFlags(0), 1, 0)
NULL_SYMBOL = Symbol("", Binding.LOCAL, 0)


def made(*symbols, code=bytes(8), relocations=(), flags=CODE, machine=62, e_flags=0):
    section = Section(".text", SectionType.PROGBITS, flags, 1, len(code), code, tuple(relocations))
    return ObjectFile(machine, e_flags, (NULL_SECTION, section), (NULL_SYMBOL, *symbols))


START_SYMBOL = Symbol("_start", Binding.GLOBAL, 1)


def test_the_same_objects_give_the_same_program():
    assert link([made(START_SYMBOL)], isa=Isa.X86_64) == link([made(START_SYMBOL)], isa=Isa.X86_64)


def test_a_strong_definition_beats_a_weak_one():
    weak = made(Symbol("_start", Binding.WEAK, 1, 4))
    strong = made(Symbol("_start", Binding.GLOBAL, 1, 2))
    for objects in ([weak, strong], [strong, weak]):
        place = 8 if objects[1] is strong else 0
        assert parse_elf(link(objects, isa=Isa.X86_64)).entry == 0x401000 + place + 2


def test_zeroed_data_alone_makes_a_segment(tmp_path):
    zeros = Section(".bss", SectionType.NOBITS, SectionFlags.ALLOC | SectionFlags.WRITE, 16, 5000)
    # xor edi, edi; add edi, [zeros + 4999 & ~3]; mov eax, 231; syscall
    code = bytes.fromhex("31ff 033c2500000000 b8e7000000 0f05")
    item = made(
        START_SYMBOL,
        Symbol("zeros", Binding.LOCAL, 2),
        code=code,
        relocations=[Relocation(5, 11, 2, 4996)],
    )
    item = dataclasses.replace(item, sections=(*item.sections, zeros))
    path = tmp_path / "program"
    path.write_bytes(link([item], isa=Isa.X86_64))
    path.chmod(0o755)
    parse_elf(path.read_bytes())
    assert subprocess.run([path], timeout=10, check=False).returncode == 0


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ([made()], "_start is not defined"),
        ([made(START_SYMBOL), made(START_SYMBOL)], "_start is defined twice"),
        ([made(START_SYMBOL, machine=243)], "for machine 243, not for x86_64"),
        ([made(START_SYMBOL), made(e_flags=5)], "different calling conventions"),
        (
            [made(START_SYMBOL, flags=CODE | SectionFlags.WRITE)],
            "section .text would be writable and executable",
        ),
        ([made(START_SYMBOL, flags=CODE | SectionFlags.TLS)], "thread-local data"),
        ([made(Symbol("_start", Binding.GLOBAL, SpecialIndex.COMMON))], "common symbol"),
        ([made(Symbol("_start", Binding.GLOBAL, 7))], "lies in a section that is empty or not loaded"),
        (
            [made(START_SYMBOL, relocations=[Relocation(0, 9, 1)])],
            "relocation R_X86_64_GOTPCREL is not supported",
        ),
        ([made(START_SYMBOL, relocations=[Relocation(0, 99, 1)])], "relocation of type 99 is not supported"),
        (
            [made(START_SYMBOL, relocations=[Relocation(6, 2, 1)])],
            "relocation R_X86_64_PC32 lies outside of .text",
        ),
        ([made(START_SYMBOL, relocations=[Relocation(0, 2, 9)])], "it has no symbol 9"),
        (
            [made(START_SYMBOL, relocations=[Relocation(0, 2, 1, 1 << 40)])],
            "relocation R_X86_64_PC32 of _start does not reach",
        ),
        (
            [
                made(
                    START_SYMBOL,
                    Symbol("__udivti3", Binding.GLOBAL, 0),
                    relocations=[Relocation(0, 4, 2)],
                )
            ],
            "__udivti3 is not defined: 128-bit division",
        ),
        (
            [made(START_SYMBOL, Symbol("floor", Binding.GLOBAL, 0), relocations=[Relocation(0, 4, 2)])],
            "floor is not defined: the CPU has no instruction for it",
        ),
    ],
)
def test_what_cannot_be_linked_is_refused_by_name(objects, message):
    with pytest.raises(LinkError, match=re.escape(message)):
        link(objects, isa=Isa.X86_64)


def test_a_low_part_needs_its_high_part():
    item = made(START_SYMBOL, relocations=[Relocation(0, 24, 1)], machine=243)
    with pytest.raises(LinkError, match="R_RISCV_PCREL_LO12_I refers to a place that has no relocation"):
        link([item], isa=Isa.RISCV64)


def test_an_isa_without_rules_is_refused():
    with pytest.raises(LinkError, match="programs for alpha cannot be linked: only for x86_64 and riscv64"):
        link([made(START_SYMBOL)], isa=Isa.ALPHA)
