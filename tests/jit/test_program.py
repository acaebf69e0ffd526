"""Whole programs: what they compute under every ISA, how they are kept, and what is refused."""

import shutil
import subprocess
import sys

import pytest

from anyvirt.errors import UsageError
from anyvirt.isa.names import Isa
from anyvirt.jit.program import build_program
from anyvirt.jit.program_isa import PROGRAM_ISAS
from anyvirt.jit.system import system_call, text
from anyvirt.linux.elf import parse_elf
from anyvirt.paths import cache_directory
from anyvirt.typed import TypedPythonError, f64, load8, load64, range, s64, sqrt, store64, u8, u32, u64, u128

WEIGHTS = tuple(u32(value) for value in (3, 1, 4, 1, 5, 9, 2, 6))
RUNNERS = {Isa.X86_64: [], Isa.RISCV64: ["qemu-riscv64-static"]}


def echo(count: u64, arguments: u64) -> u64:
    for index in range(u64(1), count):
        word = load64(arguments + index * 8)
        size = u64(0)
        while load8(word + size) != 0:
            size += 1
        system_call("write", 1, word, size)
        system_call("write", 1, text(b"\n"), 1)
    return u64(count)


def compute(count: u64, arguments: u64) -> u64:
    total = u64(0)
    for index in range(u64(0), u64(100)):
        total += u64(WEIGHTS[index % 8]) * weight(index + count)
    wide = u128(total) * u128(0x123456789ABCDEF)
    root = sqrt(f64(total) * 1.5)
    return (total ^ u64(wide >> 64) ^ u64(root)) & 255


def weight(value: u64) -> u64:
    kind = value % 7
    if kind == 0:
        return value * 3
    if kind == 1:
        return value ^ 0x55
    if kind == 2:
        return value << 2
    if kind == 3:
        return value + 1000
    if kind == 4:
        return value // 3
    return value


def zero_memory(count: u64, arguments: u64) -> u64:
    """A loop that a compiler with a C library would make a call of memset."""
    memory = u64(system_call("mmap", 0, 65536, 3, 0x22, s64(-1), 0))
    for offset in range(u64(0), u64(65536), 8):
        store64(memory + offset, u64(0))
    return load64(memory + 800)


def errors(count: u64, arguments: u64) -> u64:
    return u64(-system_call("close", s64(-1)))


def wrong_signature(count: u64) -> u64:
    return count


def floors(count: u64, arguments: u64) -> u64:
    system_call("no_such_call")
    return u64(0)


def too_many(count: u64, arguments: u64) -> u64:
    system_call("getpid", 1, 2, 3, 4, 5, 6, 7)
    return u64(0)


def small_argument(count: u64, arguments: u64) -> u64:
    system_call("close", u8(count))
    return u64(0)


def run(main, isa, tmp_path, *arguments):
    for tool in RUNNERS[isa]:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    path = tmp_path / "program"
    path.write_bytes(build_program(main, isa))
    path.chmod(0o755)
    return subprocess.run([*RUNNERS[isa], path, *arguments], capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize("isa", list(PROGRAM_ISAS))
class TestPrograms:
    def test_arguments_and_exit_status(self, isa, tmp_path):
        done = run(echo, isa, tmp_path, "one", "", "zwölf")
        assert (done.stdout, done.returncode) == ("one\n\nzwölf\n".encode(), 4)

    def test_results_are_those_of_cpython(self, isa, tmp_path):
        for words in ([], ["a"], ["a", "b", "c"]):
            expected = int(compute(u64(1 + len(words)), u64(0)))
            assert run(compute, isa, tmp_path, *words).returncode == expected

    def test_loops_do_not_become_library_calls(self, isa, tmp_path):
        assert run(zero_memory, isa, tmp_path).returncode == 0

    def test_failing_system_calls_return_negative_error_numbers(self, isa, tmp_path):
        assert run(errors, isa, tmp_path).returncode == 9

    def test_programs_are_static(self, isa):
        elf = parse_elf(build_program(echo, isa))
        assert elf.isa is isa
        assert elf.interpreter is None

    def test_builds_are_deterministic(self, isa, monkeypatch, tmp_path):
        first = build_program(compute, isa)
        monkeypatch.setenv("ANYVIRT_STATE", str(tmp_path / "elsewhere"))
        assert build_program(compute, isa) == first


class TestCache:
    @pytest.fixture
    def kept(self, monkeypatch, tmp_path):
        """The one file that a fresh cache has after a build, and the program."""
        monkeypatch.setenv("ANYVIRT_STATE", str(tmp_path))
        program = build_program(echo, Isa.X86_64)
        (path,) = (cache_directory() / "programs").iterdir()
        return path, program

    def test_a_kept_program_is_not_compiled_again(self, kept, monkeypatch):
        _, program = kept
        monkeypatch.setitem(sys.modules, "llvmlite.binding", None)
        assert build_program(echo, Isa.X86_64) == program

    @pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
    def test_a_damaged_one_is_compiled_again(self, kept, damage):
        path, program = kept
        content = path.read_bytes()
        changed = {
            "truncated": content[:-100],
            "flipped": content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]
            if len(content) > 5000
            else bytes([content[0] ^ 1]) + content[1:],
            "empty": b"",
        }[damage]
        path.write_bytes(changed)
        assert build_program(echo, Isa.X86_64) == program
        assert path.read_bytes() == content

    def test_a_cache_that_cannot_be_written_is_done_without(self, kept):
        path, program = kept
        path.unlink()
        path.parent.rmdir()
        path.parent.write_text("in the way")
        assert build_program(echo, Isa.X86_64) == program

    def test_nothing_is_left_beside_it(self, kept):
        path, _ = kept
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("main", "message"),
    [
        (wrong_signature, "must be declared as main"),
        (floors, "the first argument is the name of a system call, one of"),
        (too_many, "at most 6 arguments"),
        (small_argument, "an argument of a system call is a u64, an s64 or a plain number"),
    ],
)
def test_what_is_no_program_is_refused(main, message):
    with pytest.raises(TypedPythonError, match=message):
        build_program(main, Isa.X86_64)


def test_an_isa_without_programs_is_refused():
    with pytest.raises(UsageError, match="programs cannot be built for sparc: only for x86_64 and riscv64"):
        build_program(echo, Isa.SPARC)


def move(count: u64, arguments: u64) -> u64:
    store64(arguments + 8, load64(arguments))
    return count


def test_a_wide_load_is_one_instruction_of_riscv64():
    """Loads of typed Python may be misaligned; compiled byte by byte, a comparison would measure that."""
    import capstone

    program = build_program(move, Isa.RISCV64)
    code = next(segment for segment in parse_elf(program).segments if segment.type == 1 and segment.flags & 1)
    disassembler = capstone.Cs(capstone.CS_ARCH_RISCV, capstone.CS_MODE_RISCV64 | capstone.CS_MODE_RISCVC)
    disassembler.skipdata = True
    data = program[code.offset : code.offset + code.file_size]
    mnemonics = {one.mnemonic.removeprefix("c.") for one in disassembler.disasm(data, code.address)}
    assert "ld" in mnemonics
    assert not {"lb", "lbu", "sb"} & mnemonics
