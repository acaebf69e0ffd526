"""Records of instances: who still has a keeper is left alone, who lost it is cleaned up after."""

import os
import subprocess
import sys
import textwrap
import time

import pytest

from anyvirt.linux.cgroups.version1 import Version1Group
from anyvirt.linux.container import records

from .conftest import SOURCE


@pytest.fixture
def groups(tmp_path):
    """Directories that stand for a control group's."""
    paths = [tmp_path / name for name in ("cpu group", "memory")]
    for path in paths:
        path.mkdir()
    return Version1Group(tuple(map(str, paths)))


def test_a_locked_record_is_left_alone(tmp_path, groups):
    instances = tmp_path / "instances"
    instances.mkdir()
    fd = records.write_record(str(instances / "one"), groups)
    records.sweep(str(instances))
    assert os.listdir(instances) == ["one"]
    os.close(fd)
    records.sweep(str(instances))
    assert os.listdir(instances) == []
    assert not any(os.path.exists(directory) for directory in groups.directories)


def test_the_lock_goes_with_a_killed_keeper(tmp_path, groups):
    instances = tmp_path / "instances"
    instances.mkdir()
    script = f"""
        import os, signal
        from anyvirt.linux.cgroups.version1 import Version1Group
        from anyvirt.linux.container import records
        records.write_record({str(instances / "one")!r}, Version1Group({groups.directories!r}))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=environment)
    assert done.returncode == -9
    records.remove_abandoned(str(instances / "one"))
    assert os.listdir(instances) == []
    assert not any(os.path.exists(directory) for directory in groups.directories)


def test_a_directory_without_a_record_is_given_time(tmp_path):
    directory = tmp_path / "one"
    directory.mkdir()
    (directory / "record.new").touch()
    records.sweep(str(tmp_path))
    assert directory.exists()
    os.utime(directory, (time.time() - 1000,) * 2)
    records.sweep(str(tmp_path))
    assert not directory.exists()


def test_a_damaged_record_harms_nothing_else(tmp_path):
    directory = tmp_path / "one"
    directory.mkdir()
    (directory / "record").write_bytes(b"")
    records.sweep(str(tmp_path))
    assert not directory.exists()


def test_what_is_not_a_directory_is_ignored(tmp_path):
    (tmp_path / "stray").touch()
    records.sweep(str(tmp_path))
    assert os.listdir(tmp_path) == ["stray"]
