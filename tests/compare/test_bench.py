"""The place where workloads run."""

import subprocess
import sys
from pathlib import Path

import pytest

from anyvirt.compare import bench
from anyvirt.compare.bench import (
    Bench,
    build_in_another_process,
    choose_isa,
    remove_abandoned,
    workload_refusal,
)
from anyvirt.compare.guest_run import MeasurementError
from anyvirt.compare.workloads import FIRST_INSTRUCTION, WORKLOADS
from anyvirt.engines.engine import Capability
from anyvirt.errors import AnyvirtError
from anyvirt.isa.names import Isa
from anyvirt.linux.elf import parse_elf
from anyvirt.linux.program import find_program
from anyvirt.paths import cache_directory

from .conftest import FakeEngine


class Sharing(FakeEngine):
    capabilities = frozenset({Capability.SHARE})


class Foreign(FakeEngine):
    def refusal(self, program):
        return None if program.isa is Isa.RISCV64 else "only riscv64"


NATIVE, REFUSING = FakeEngine("native"), FakeEngine("refusing", refusal="it takes nothing")


def test_the_hosts_own_isa_is_preferred():
    assert choose_isa(NATIVE) is Isa.host()
    assert choose_isa(Foreign("foreign")) is Isa.RISCV64
    assert choose_isa(REFUSING) is None


def test_programs_are_there_and_gone_afterwards():
    with Bench([NATIVE, Foreign("foreign")]) as made:
        guest = made.guest(NATIVE, WORKLOADS[0], "3")
        program = Path(guest.command[0])
        assert guest.command[1:] == ("3",)
        assert Path(guest.workdir).is_dir()
        assert subprocess.run(guest.command, timeout=30).returncode == 0
        foreign = Path(made.guest(Foreign("foreign"), FIRST_INSTRUCTION).command[0])
        assert parse_elf(foreign.read_bytes()).isa is Isa.RISCV64
    assert not program.parent.exists()


def test_engines_that_share_get_a_mount():
    sharing = Sharing("sharing")
    with Bench([sharing]) as made:
        guest = made.guest(sharing, WORKLOADS[0])
        (mount,) = guest.mounts
        assert guest.command[0].startswith(mount.target)
        assert guest.workdir.startswith(mount.target)
        assert Path(find_program(guest).host_path).parent == mount.source
        assert (mount.source / "scratch").stat().st_mode & 0o7777 == 0o1777


def test_two_at_once_do_not_meet():
    with Bench([NATIVE]) as first, Bench([NATIVE]) as second:
        paths = [Path(made.guest(NATIVE, WORKLOADS[0]).command[0]) for made in (first, second)]
        assert paths[0] != paths[1]
        assert all(path.exists() for path in paths)


def test_an_engine_that_runs_nothing_is_told_why():
    with Bench([REFUSING]) as made:
        assert "none of the ISAs" in workload_refusal(REFUSING)
        with pytest.raises(MeasurementError, match="x86_64, riscv64"):
            made.guest(REFUSING, WORKLOADS[0])


def test_this_process_does_not_load_the_compiler():
    code = (
        "import sys\n"
        "from anyvirt.compare.bench import Bench\n"
        "from anyvirt.engines import get\n"
        "with Bench([get('native')]): pass\n"
        "print([name for name in sys.modules if name.startswith('llvmlite')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("[]\n", 0)


def test_a_failing_build_is_one_sentence(tmp_path):
    with pytest.raises(AnyvirtError, match=r"the workloads could not be compiled: .*No such file"):
        build_in_another_process(tmp_path / "missing", [Isa.X86_64])


def test_what_killed_comparisons_left_is_removed(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    for name in (f"compare-{ended.pid}-a1", "compare-1-b2", "compare-notes", "other"):
        (tmp_path / name / "deep").mkdir(parents=True)
    remove_abandoned(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"compare-1-b2", "compare-notes", "other"}


def test_nothing_stays_when_the_build_fails(monkeypatch):
    def fail(*_):
        raise AnyvirtError("no compiler")

    monkeypatch.setattr(bench, "build_in_another_process", fail)
    with pytest.raises(AnyvirtError, match="no compiler"), Bench([NATIVE]):
        pass
    assert list(cache_directory().glob("compare-*")) == []
