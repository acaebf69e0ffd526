"""What a guest process executes, as files: exact however it ends, and of that process alone."""

import json
import re
import signal
import struct
import subprocess

import pytest

from .conftest import PROGRAMS

NAMES = ("called", "not_called", "called_by_child", "main")


@pytest.fixture(scope="module")
def program(compile_riscv64, emulate, tmp_path_factory):
    """The program, once the interpreters that recording needs have been compiled, which may take a while."""
    program = compile_riscv64(PROGRAMS / "recorded.c")
    directory = tmp_path_factory.mktemp("first")
    emulate(program, "returning", directory=directory, timeout=600, ANYVIRT_COVERAGE="coverage")
    return program


@pytest.fixture(scope="module")
def functions(program):
    """The addresses of the program's functions, as binutils tells them."""
    listed = subprocess.run(
        ["riscv64-linux-gnu-nm", program], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    found = {name: int(address, 16) for address, _, name in map(str.split, listed.splitlines())}
    return {name: found[name] for name in NAMES}


@pytest.fixture
def record(emulate, program, tmp_path):
    """Run the program with its coverage as text and its trace: result, covered blocks, traced addresses."""

    def run(*arguments, **environment):
        coverage, trace = tmp_path / "coverage.txt", tmp_path / "trace"
        result = emulate(
            program,
            *arguments,
            directory=tmp_path,
            ANYVIRT_COVERAGE=str(coverage),
            ANYVIRT_TRACE=str(trace),
            **environment,
        )
        blocks = [tuple(int(word, 16) for word in line.split()[:2]) for line in lines(coverage)]
        return result, blocks, [int(line.partition(":")[0], 16) for line in lines(trace)]

    return run


def lines(path):
    return path.read_text().splitlines()


def covers(blocks, address):
    return any(start <= address < end for start, end in blocks)


@pytest.mark.parametrize("tier", ["interpreter", "auto"])
@pytest.mark.parametrize(
    ("how", "status"),
    [("returning", 6), ("terminated", -signal.SIGTERM), ("faulting", -signal.SIGSEGV)],
)
def test_what_was_executed_is_recorded_however_the_process_ends(record, functions, how, status, tier):
    result, blocks, traced = record(how, ANYVIRT_TIER=tier)
    assert (result.status, result.errors) == (status, "")
    assert [name for name in NAMES if covers(blocks, functions[name])] == ["called", "main"]
    assert [name for name in NAMES if functions[name] in traced] == ["called", "main"]
    assert all(covers(blocks, address) for address in traced)


def test_a_guest_that_closes_everything_keeps_its_own_files(record, tmp_path):
    result, blocks, _ = record("closing")
    assert (result.status, blocks) == (6, [])
    assert sorted(result.errors.splitlines()) == [
        f"anyvirt: the {record} cannot be written: the guest has closed the file"
        for record in ("coverage", "trace")
    ]
    assert (tmp_path / "own").read_bytes() == b""


def test_a_child_is_not_recorded_and_its_parent_still_is(record, functions):
    result, blocks, traced = record("forking")
    assert result.status == 6
    assert [name for name in NAMES if covers(blocks, functions[name])] == ["called", "main"]
    assert functions["called_by_child"] not in traced


def test_a_trace_goes_on_through_execve_and_coverage_is_of_the_last_program(record, program, functions):
    result, blocks, traced = record("executing", program)
    assert result.status == 6
    assert traced.count(functions["main"]) == 2
    assert covers(blocks, functions["called"])


def test_lines_have_what_changed(emulate, program, tmp_path):
    emulate(program, "returning", directory=tmp_path, ANYVIRT_TRACE="trace")
    lines = (tmp_path / "trace").read_text().splitlines()
    assert all(re.match(r"0x[0-9a-f]+: [0-9a-f]+  \S", line) for line in lines)
    assert any(re.search(r" a0=0x2->0x6\b", line) for line in lines)


def test_coverage_is_json_or_drcov_by_its_name(emulate, program, functions, tmp_path):
    emulate(program, "returning", directory=tmp_path, ANYVIRT_COVERAGE="c.json")
    emulate(program, "returning", directory=tmp_path, ANYVIRT_COVERAGE="c.drcov")
    blocks = json.loads((tmp_path / "c.json").read_text())["blocks"]
    assert covers([block[:2] for block in blocks], functions["called"])
    head, _, table = (tmp_path / "c.drcov").read_bytes().partition(b" bbs\n")
    assert head.startswith(b"DRCOV VERSION: 2\n")
    start = int(re.search(rb"  0, 0x([0-9a-f]+), 0x[0-9a-f]+, .*recorded", head)[1], 16)
    entries = [struct.unpack_from("<IHH", table, place) for place in range(0, len(table), 8)]
    assert [start + offset for offset, _, module in entries if module == 0] == [
        block[0] for block in blocks if start <= block[0]
    ]


def test_the_guest_does_not_see_that_it_is_recorded(emulate, riscv64_busybox, tmp_path):
    command = (riscv64_busybox, "sh", "-c", "set; ls /proc/self/fd")
    plain = emulate(*command, directory=tmp_path)
    recorded = emulate(*command, directory=tmp_path, ANYVIRT_COVERAGE="coverage")
    assert "ANYVIRT_COVERAGE" not in recorded.output
    assert plain.status == recorded.status == 0


@pytest.mark.parametrize("variable", ["ANYVIRT_TRACE", "ANYVIRT_COVERAGE"])
def test_a_file_that_cannot_be_written_is_the_user_s_mistake(emulate, program, tmp_path, variable):
    result = emulate(program, "returning", directory=tmp_path, **{variable: "/nowhere/file"})
    assert result.status == 2
    assert result.errors == "anyvirt: /nowhere/file cannot be written: No such file or directory\n"


@pytest.mark.parametrize("variable", ["ANYVIRT_TRACE", "ANYVIRT_COVERAGE"])
def test_a_full_disk_is_told_and_the_guest_goes_on(emulate, program, tmp_path, variable):
    result = emulate(program, "returning", directory=tmp_path, **{variable: "/dev/full"})
    assert result.status == 6
    assert re.fullmatch(r"anyvirt: the \w+ cannot be written: [^\n]+\n", result.errors)
