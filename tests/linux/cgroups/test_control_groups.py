"""Control groups of both versions, on this host's hierarchies and, for limits of version 2, in files."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from anyvirt.linux.cgroups import (
    ControllerError,
    find_hierarchies,
    open_control_group,
    plan_control_group,
)
from anyvirt.linux.cgroups.hierarchies import Hierarchies, Hierarchy
from anyvirt.linux.cgroups.version1 import Version1Group
from anyvirt.linux.cgroups.version2 import Version2Group

NAME = f"test-anyvirt-{os.getpid()}"


@pytest.fixture
def group():
    """Make a group and remove it after the test, whatever happened."""
    made = []

    def make(planned):
        made.append(planned)
        planned.make()
        return planned

    yield make
    for each in made:
        each.remove()
        assert not any(os.path.exists(directory) for directory in each.directories)


@pytest.fixture
def sleeper():
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def needs(*controllers):
    hierarchies = find_hierarchies()
    for controller in controllers:
        where = hierarchies.legacy.get(controller)
        if where is None or not os.access(where.own, os.W_OK):
            pytest.skip(f"this host has no writable cgroup v1 controller {controller}")
    return hierarchies


def state_of(process):
    """The state letter of a process, after its name in /proc/PID/stat (proc(5))."""
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0]


def cpu_ticks(process):
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2].split()
    return int(fields[11]) + int(fields[12])


def join(group, pid):
    for directory in group.directories:
        Path(directory, "cgroup.procs").write_text(str(pid))


def test_version_1_limits_are_what_the_kernel_holds(group):
    hierarchies = needs("memory", "cpu", "pids")
    made = group(Version1Group.plan(hierarchies, NAME, frozenset({"memory", "cpu", "pids"})))
    made.limit_memory(64 << 20)
    made.limit_cpus(1.5)
    made.limit_pids(9)

    def value(controller, name):
        return Path(hierarchies.legacy[controller].own, NAME, name).read_text().strip()

    assert value("memory", "memory.limit_in_bytes") == str(64 << 20)
    assert value("memory", "memory.memsw.limit_in_bytes") == str(64 << 20)
    assert value("cpu", "cpu.cfs_quota_us") == "150000"
    assert value("pids", "pids.max") == "9"
    assert made.out_of_memory_kills() == 0


def test_version_1_says_which_controller_is_missing():
    with pytest.raises(ControllerError, match="no cgroup controller for memory"):
        Version1Group.plan(Hierarchies({"cpu": Hierarchy("/x", "/x")}, None), NAME, frozenset({"memory"}))


@pytest.mark.parametrize("version", ["freezer of version 1", "version 2"])
def test_freezing_a_busy_process(group, version):
    hierarchies = find_hierarchies()
    if version == "version 2":
        if hierarchies.unified is None or not os.access(hierarchies.unified.own, os.W_OK):
            pytest.skip("this host has no writable cgroup v2 hierarchy")
        made = group(Version2Group.plan(Hierarchies({}, hierarchies.unified), NAME, frozenset()))
    else:
        needs("freezer")
        made = group(Version1Group.plan(hierarchies._replace(unified=None), NAME, frozenset()))
    process = subprocess.Popen(["sh", "-c", "while :; do :; done"])
    try:
        join(made, process.pid)
        assert made.processes() == {process.pid}
        made.freeze(True)
        before = cpu_ticks(process)
        time.sleep(0.2)
        assert cpu_ticks(process) == before
        made.freeze(False)
        deadline = time.monotonic() + 5
        while cpu_ticks(process) == before:
            assert time.monotonic() < deadline
        made.freeze(True)
        made.kill()
        assert process.wait(5) == -signal.SIGKILL
    finally:
        process.kill()
        process.wait()


def test_removal_kills_what_still_runs(group, sleeper):
    made = group(plan_control_group(NAME, frozenset()))
    if not made.directories:
        pytest.skip("this host has no writable control group")
    join(made, sleeper.pid)
    open_control_group(made.description).remove()
    assert sleeper.wait(5) == -signal.SIGKILL


def test_removing_what_is_not_there():
    Version1Group(("/sys/fs/cgroup/no/such/group",)).remove()


def test_version_2_limits(tmp_path):
    """The kernel here has its controllers in version 1, so the files stand for those of version 2."""
    directory = tmp_path / "group"
    directory.mkdir()
    for name in ("memory.max", "memory.swap.max", "cpu.max", "pids.max"):
        (directory / name).touch()
    (directory / "memory.events").write_text("low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\noom_group_kill 0\n")
    group = Version2Group((str(directory),))
    group.limit_memory(1 << 30)
    group.limit_cpus(0.25)
    group.limit_pids(7)
    written = {path.name: path.read_text() for path in directory.iterdir()}
    assert written["memory.max"] == str(1 << 30)
    assert written["memory.swap.max"] == "0"
    assert written["cpu.max"] == "25000 100000"
    assert written["pids.max"] == "7"
    assert group.out_of_memory_kills() == 2


def test_version_2_enables_controllers_for_its_groups(group):
    """On a hybrid host version 2 has at least one controller left: hugetlb."""
    unified = find_hierarchies().unified
    if unified is None or os.geteuid() != 0:
        pytest.skip("this host has no cgroup v2 hierarchy that may be written")
    left = Path(unified.mount_point, "cgroup.controllers").read_text().split()
    if not left:
        pytest.skip("no controller is left to cgroup v2 on this host")
    enabled = Path(unified.mount_point, "cgroup.subtree_control").read_text().split()
    try:
        made = group(Version2Group.plan(Hierarchies({}, unified), NAME, frozenset(left[:1])))
        assert left[0] in Path(made.directories[0], "cgroup.controllers").read_text().split()
        made.remove()
    finally:
        for controller in set(left[:1]) - set(enabled):
            Path(unified.mount_point, "cgroup.subtree_control").write_text(f"-{controller}")


def test_version_2_says_what_a_user_can_do(tmp_path, monkeypatch):
    (tmp_path / "cgroup.controllers").write_text("memory pids\n")
    (tmp_path / "cgroup.subtree_control").write_text("memory\n")
    (tmp_path / "cgroup.procs").touch()
    unified = Hierarchy(str(tmp_path), str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ControllerError, match=r"is not given the controller cpu; run as root.*systemd-run"):
        Version2Group.plan(Hierarchies({}, unified), NAME, frozenset({"cpu"}))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ControllerError, match=r"not writable by user 1000; run as root.*systemd-run"):
        Version2Group.plan(Hierarchies({}, unified), NAME, frozenset({"memory"}))


def test_no_cgroups_at_all():
    assert Version2Group.plan(Hierarchies({}, None), NAME, frozenset()).directories == ()
    with pytest.raises(ControllerError, match="no cgroup hierarchy is mounted"):
        Version2Group.plan(Hierarchies({}, None), NAME, frozenset({"memory"}))
