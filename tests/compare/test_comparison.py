"""The whole comparison: what is measured where, what is told of the rest, and what users get wrong."""

import json
import shutil
import sys

import pytest

import anyvirt
from anyvirt.compare import comparison
from anyvirt.compare.booted import boots
from anyvirt.compare.comparison import Step, compare
from anyvirt.compare.report.data import to_data
from anyvirt.compare.results import Group, Measured, Reported, Row, Unit, Unmeasured
from anyvirt.compare.turns import Budget
from anyvirt.compare.workloads import WORKLOADS
from anyvirt.engines import engine_names, get
from anyvirt.engines.engine import Capability
from anyvirt.errors import CommandNotFoundError, NotExecutableError, UsageError
from anyvirt.guest import Guest

from .conftest import FakeEngine

NATIVE = FakeEngine("native")
BROKEN = FakeEngine("broken", prefix=("sh", "-c", "echo boom >&2; exit 3"))
ABSENT = FakeEngine("absent", reason="the host has none")
REFUSING = FakeEngine("refusing", refusal="it takes no such program")


@pytest.fixture
def two_workloads(monkeypatch):
    """A small comparison: two workloads, few idle instances."""
    monkeypatch.setattr(comparison, "WORKLOADS", [WORKLOADS[0], WORKLOADS[5]])
    monkeypatch.setattr(comparison, "MEMORY_BUDGET", Budget(most=1))


def test_the_workloads(fake_engines, two_workloads):
    fake_engines(NATIVE, FakeEngine("other"), BROKEN, ABSENT, REFUSING)
    steps = []
    found = compare(repeat=1, timeout=20, progress=steps.append)
    assert found.baseline == "native"
    assert found.measured
    assert [row.name for row in found.rows] == [
        "cold-start", "warm-start", "command-start", "integer", "system-calls", "system-call",
        "idle-memory", "idle-pss",
    ]  # fmt: skip
    for row in found.rows:
        assert list(row.cells) == ["native", "other", "broken", "absent", "refusing"]
        assert isinstance(row.cells["native"], Measured)
        assert row.cells["absent"] == Unmeasured("the host has none; buy another host")
        assert "none of the ISAs" in row.cells["refusing"].reason
        # What breaks is the start, and not what is started beside a guest that has been.
        assert isinstance(row.cells["broken"], Measured if row.name == "command-start" else Unmeasured)
    assert "boom" in found.row("integer").cells["broken"].reason
    assert len(found.row("integer").cells["other"].ratios) == 1
    assert any("absent does not work here" in note for note in found.notes)
    assert found.duration > 0
    assert json.dumps(to_data(found))
    assert all(isinstance(step, Step) and 0 <= step.done <= 1 for step in steps)
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert {"integer on native", "building the workloads"} <= {step.label for step in steps}


def test_a_command(fake_engines):
    fake_engines(NATIVE, FakeEngine("other"), REFUSING)
    found = compare(["sh", "-c", "echo hello"], repeat=2)
    assert found.command == ("sh", "-c", "echo hello")
    assert found.row("exit-status").cells["other"] == Reported("0")
    assert found.row("wall-time").cells["refusing"] == Unmeasured("it takes no such program")
    assert len(found.row("wall-time").cells["other"].ratios) == 2
    assert "hello" not in str(found).replace("echo hello", "")


def test_without_native_the_first_engine_is_the_baseline(fake_engines):
    fake_engines(FakeEngine("native", refusal="wrong CPU"), FakeEngine("second"), FakeEngine("third"))
    found = compare(["true"], repeat=1)
    assert found.baseline == "second"
    assert found.row("wall-time").cells["third"].ratio is not None
    assert found.row("wall-time").cells["native"] == Unmeasured("wrong CPU")
    assert any("Ratios relate to second" in note for note in found.notes)
    assert "Ratios relate to second" in str(found)


class Rooted(FakeEngine):
    """An engine that runs, in a root, the interpreter of a command that is a script there."""

    capabilities = FakeEngine.capabilities | {Capability.ROOTFS, Capability.FOREIGN_ISA}

    def create(self, guest, streams, terminal):
        if guest.rootfs is not None:
            guest = Guest(command=(str(guest.rootfs / guest.command[0].lstrip("/")), *guest.command[1:]))
        return super().create(guest, streams, terminal)

    def refusal(self, program):
        return None if "/root/" in program.host_path else "another CPU's program"


@pytest.fixture
def root(tmp_path):
    """A root file system with one program, which says what it is."""
    program = tmp_path / "root/tool"
    program.parent.mkdir()
    shutil.copy(shutil.which("echo"), program)
    return program.parent


def test_an_engine_that_cannot_run_the_hosts_command_asks_for_a_root(fake_engines):
    fake_engines(NATIVE, Rooted("rooted"))
    cell = compare(["echo", "x"], repeat=1).row("wall-time").cells["rooted"]
    assert cell == Unmeasured("another CPU's program; give it a root file system of its own: --rootfs DIR")


def test_a_command_of_a_root_runs_where_it_can(fake_engines, root, tmp_path):
    fake_engines(NATIVE, Rooted("rooted"))
    empty = tmp_path / "empty"
    empty.mkdir()
    found = compare(["/tool", "x"], repeat=2, roots=[empty, root])
    cells = found.row("wall-time").cells
    assert cells["native"] == Unmeasured("/tool: no such file")
    assert isinstance(cells["rooted"], Measured)
    assert f"rooted runs the command of the root file system {root}." in found.notes


def test_a_command_that_is_nowhere_is_one_sentence(fake_engines, root):
    fake_engines(NATIVE, Rooted("rooted"))
    with pytest.raises(CommandNotFoundError, match="/other: no such file"):
        compare(["/other"], roots=[root])


def test_few_samples_are_told():
    few = Measured((1.0,) * 2)
    many = Measured((1.0,) * 9)
    rows = [
        Row("a", "a", Group.START, Unit.SECONDS, "", {"native": many, "slow": few}),
        Row("b", "b", Group.START, Unit.SECONDS, "", {"native": many, "slow": Measured((1.0,))}),
        Row("c", "c", Group.MEMORY, Unit.BYTES, "", {"native": few, "slow": few}),
    ]
    (note,) = comparison._few_samples([NATIVE, FakeEngine("slow")], rows)
    assert note == "Few samples were taken where one takes long: slow (start: 1 to 2)."


def test_no_engine_can(fake_engines):
    fake_engines(ABSENT, REFUSING)
    found = compare(["true"], repeat=1)
    assert found.baseline is None
    assert not found.measured
    assert found.notes[0] == "No engine could be measured."
    assert found.row("wall-time").cells["absent"].reason.startswith("the host has none")
    assert "No engine could be measured." in str(found)


def test_no_engine_can_run_the_workloads(fake_engines):
    fake_engines(ABSENT)
    found = compare(repeat=1)
    assert not found.measured
    assert "the host has none" in str(found)


def test_engines_are_named_once(fake_engines):
    fake_engines(NATIVE, FakeEngine("other"))
    found = compare(["true"], engines=["other", "native", "other"], repeat=1)
    assert [column.name for column in found.engines] == ["other", "native"]
    assert found.baseline == "native"


def test_the_working_directory_is_the_callers(fake_engines, tmp_path, monkeypatch):
    fake_engines(NATIVE)
    script = tmp_path / "here.sh"
    script.write_text("#!/bin/sh\n[ -e here.sh ]\n")
    script.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    assert compare(["./here.sh"], repeat=1).row("exit-status").cells["native"].text == "0"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"repeat": 0}, UsageError, "0 repetitions measure nothing"),
        ({"timeout": 0.0}, UsageError, "a timeout of 0 s leaves no time"),
        ({"timeout": -3.0}, UsageError, "a timeout of -3 s leaves no time"),
        ({"timeout": float("nan")}, UsageError, "a timeout of nan s"),
        ({"command": []}, UsageError, "no command to measure"),
        ({"roots": ["/"]}, UsageError, "root file systems are for a command"),
        ({"command": "ls -l"}, UsageError, "not one string"),
        ({"engines": ["nonsense"]}, UsageError, "there is no engine 'nonsense'"),
        ({"command": ["/no/such/command"]}, CommandNotFoundError, "no such file"),
        ({"command": ["/etc"]}, NotExecutableError, "it is a directory"),
    ],
)
def test_mistakes_are_one_sentence(arguments, error, message):
    with pytest.raises(error, match=message):
        compare(**arguments)


def test_a_corrupt_program_is_one_sentence(tmp_path):
    path = tmp_path / "program"
    with open(sys.executable, "rb") as file:
        path.write_bytes(file.read(60))
    path.chmod(0o755)
    with pytest.raises(NotExecutableError, match="truncated ELF"):
        compare([str(path)])


def test_the_public_function():
    found = anyvirt.compare(["true"], engines=["native"], repeat=1)
    assert isinstance(found.row("wall-time").cells["native"], Measured)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_everything_on_every_real_engine(stored_kernel):
    found = compare(repeat=2, timeout=600)
    assert len(found.rows) == len(WORKLOADS) + 7
    for column in found.engines:
        is_booted = boots(get(column.name))
        for row in found.rows:
            cell = row.cells[column.name]
            is_there = not column.reason and (is_booted or row.name != "boot")
            assert isinstance(cell, Measured if is_there else Unmeasured), cell
    assert {column.name for column in found.engines} == set(engine_names())
