"""kill -9 of the caller, the keeper or the first process, at each stage: nothing stays on the host."""

import mmap
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from anyvirt.linux.container.stages import Stage

from .conftest import MARK, MARK_INSTANCES, SOURCE, await_, container_processes, control_groups, mounts

# The caller under test. The stage to stop at is in a file that it and everything forked from it share; who
# reaches it says so there, and waits to be told to go on.
_CALLER = (
    MARK_INSTANCES
    + """
import mmap, os, sys, time
from anyvirt.linux.container import stages
with open(sys.argv[1], "r+b") as file:
    shared = mmap.mmap(file.fileno(), 0)
original = stages.enter
def enter(stage):
    original(stage)
    if stage.name == sys.argv[2] and not shared[0]:
        shared[0] = 1
        while not shared[1]:
            time.sleep(0.002)
stages.enter = enter
from anyvirt.engines import get
from anyvirt.errors import AnyvirtError
from anyvirt.guest import Guest, make_limits
from anyvirt.instance import Streams, TerminalSize
guest = Guest(command=sys.argv[3].split(), limits=make_limits(memory="256M", cpus="1", pids=50))
try:
    instance = get("container").create(guest, Streams(), TerminalSize() if sys.argv[4] else None)
    if sys.argv[2] == "JOIN":
        instance.exec(["sleep", "60"]).wait()
    print(instance.wait())
    instance.close()
except AnyvirtError as error:
    print(type(error).__name__, error)
"""
)

_KEEPER_STAGES = (
    Stage.RECORD, Stage.CONTROL_GROUP, Stage.SOURCES, Stage.CLONE, Stage.IDENTITIES, Stage.REMOVAL,
)  # fmt: skip
_INIT_STAGES = (
    Stage.BIRTH, Stage.INIT, Stage.KERNEL_FILESYSTEMS, Stage.DEVICES, Stage.LAYERS, Stage.PIVOT, Stage.MOUNTS,
    Stage.NETWORK, Stage.TERMINAL, Stage.WORKDIR, Stage.CONFINEMENT, Stage.COMMAND, Stage.RUNNING,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("needs_root")


def environment(state):
    return {**os.environ, **dict([MARK.split("=")]), "PYTHONPATH": str(SOURCE), "ANYVIRT_STATE": str(state)}


class Scene:
    """A caller that starts a container and is held at a stage."""

    def __init__(self, directory: Path, stage: Stage):
        self.instances = directory / "instances"
        self.mounts = mounts()
        control = directory / "control"
        control.write_bytes(bytes(mmap.PAGESIZE))
        with open(control, "r+b") as file:
            self.shared = mmap.mmap(file.fileno(), 0)
        command = "true" if stage is Stage.REMOVAL else "sleep 60"
        terminal = "yes" if stage is Stage.TERMINAL else ""
        self.caller = subprocess.Popen(
            [sys.executable, "-c", _CALLER, control, stage.name, command, terminal],
            env=environment(directory),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert await_(lambda: self.shared[0]), f"the stage {stage.name} was not reached"

    def child_of(self, pid):
        children = [child for child, parent in container_processes().items() if parent == pid]
        return children[0] if children else None

    @property
    def keeper(self):
        return self.child_of(self.caller.pid)

    def kill(self, *pids):
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self.shared[1] = 1

    def is_clean(self):
        return not control_groups() and mounts() <= self.mounts and not container_processes()

    def instance_directories(self):
        return list(self.instances.iterdir()) if self.instances.exists() else []

    def close(self):
        self.shared[1] = 1
        self.caller.kill()
        output = self.caller.communicate()[0]
        self.shared.close()
        return output


@pytest.fixture
def scene(tmp_path):
    scenes = []

    def start(stage):
        scenes.append(Scene(tmp_path, stage))
        return scenes[-1]

    yield start
    for each in scenes:
        each.close()


@pytest.mark.parametrize("stage", [*_KEEPER_STAGES, *_INIT_STAGES, Stage.JOIN])
def test_the_caller_dies(scene, stage):
    here = scene(stage)
    if stage in _INIT_STAGES:
        assert control_groups(), "what is looked for afterwards is not recognized"
    here.kill(here.caller.pid)
    assert await_(here.is_clean), (control_groups(), container_processes())
    assert await_(lambda: not here.instance_directories())


@pytest.mark.parametrize("stage", [*_KEEPER_STAGES, *_INIT_STAGES, Stage.JOIN])
def test_the_keeper_dies(scene, stage):
    here = scene(stage)
    here.kill(here.keeper)
    output = here.caller.communicate(timeout=20)[0]
    if stage in (*_KEEPER_STAGES, *_INIT_STAGES[:-1]) and stage is not Stage.REMOVAL:
        assert "GuestStartError" in output
        assert "that keeps the container was killed" in output
    assert await_(here.is_clean), (control_groups(), container_processes())
    assert not here.instance_directories()


@pytest.mark.parametrize("stage", [Stage.IDENTITIES, *_INIT_STAGES])
def test_the_first_process_dies(scene, stage):
    here = scene(stage)
    init = here.child_of(here.keeper)
    if init is None:
        # Until it has named itself, it is the keeper's only child.
        init = int(Path(f"/proc/{here.keeper}/task/{here.keeper}/children").read_text().split()[0])
    here.kill(init)
    output = here.caller.communicate(timeout=20)[0]
    if stage is not Stage.RUNNING:
        assert "GuestStartError" in output
        assert "killed while it was starting" in output
    else:
        assert "SIGKILL" in output
    assert await_(here.is_clean), (control_groups(), container_processes())
    assert not here.instance_directories()


@pytest.mark.parametrize("stage", [*_KEEPER_STAGES, *_INIT_STAGES])
def test_caller_and_keeper_die_and_the_next_start_cleans_up(scene, stage, tmp_path):
    here = scene(stage)
    here.kill(here.keeper, here.caller.pid)
    here.caller.wait()
    assert await_(lambda: not container_processes()), container_processes()
    for directory in here.instance_directories():
        # A directory without a record is given time to get one; this one never will.
        os.utime(directory, (time.time() - 1000,) * 2)
    script = _CALLER.replace("256M", "128M")
    control = tmp_path / "free"
    control.write_bytes(bytes([1]) * mmap.PAGESIZE)
    done = subprocess.run(
        [sys.executable, "-c", script, control, "NONE", "true", ""],
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.stdout == "exit status 0\n", done
    assert await_(here.is_clean), (control_groups(), mounts() - here.mounts)
    assert not here.instance_directories()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_deaths_at_random_moments(tmp_path):
    """Whatever the stages do not name: who dies, and when, is drawn; in the end one start sweeps."""
    before = mounts()
    draw = random.Random(7)
    control = tmp_path / "free"
    control.write_bytes(bytes([1]) * mmap.PAGESIZE)
    words = [sys.executable, "-c", _CALLER, control, "NONE", "sh -c true", ""]
    for _ in range(100):
        caller = subprocess.Popen(
            words, env=environment(tmp_path), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        if await_(container_processes, 5):
            time.sleep(draw.uniform(0, 0.012))
            victims = [caller.pid, *container_processes()]
            for pid in draw.sample(victims, draw.randint(1, len(victims))):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        caller.wait(20)
        assert await_(lambda: not container_processes()), container_processes()
    done = subprocess.run(words, env=environment(tmp_path), capture_output=True, text=True, timeout=20)
    assert done.stdout == "exit status 0\n", done
    assert not control_groups()
    assert mounts() <= before
    remaining = list((tmp_path / "instances").iterdir())
    # Directories that were not yet given a record are left for a minute.
    assert not [directory for directory in remaining if (directory / "record").exists()]
