"""What the container's tests share: a guard against leftovers, and another user to run as."""

import atexit
import functools
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[3] / "src"
ORDINARY_USER = os.geteuid() or 64007
"""The user of containers without root: this one, or a user id that no account of a test machine has."""


PREFIX = f"{os.getpid() & 0xFFFF:04x}"
MARK_INSTANCES = f"""
import os
random = os.urandom
os.urandom = lambda count: bytes.fromhex("{PREFIX}") + random(count - 2)
"""
"""Python code after which the names of instances, and of their control groups, begin with PREFIX."""


def control_groups():
    """The control groups of these tests' containers on this host."""
    return {
        path for depth in range(6) for path in glob.glob(f"/sys/fs/cgroup/{'*/' * depth}anyvirt-{PREFIX}*")
    }


MARK = f"ANYVIRT_TEST_RUN={os.getpid()}"
"""In the environment of what these tests start, which tells its processes from those of other runs."""


def container_processes():
    """The processes on this host that containers of these tests have, by number, with their parents."""
    found = {}
    for directory in glob.glob("/proc/[0-9]*"):
        try:
            name = Path(directory, "comm").read_text().strip()
            status = Path(directory, "status").read_text()
            marked = MARK.encode() in Path(directory, "environ").read_bytes()
        except OSError:
            continue
        if marked and name in ("anyvirt-init", "anyvirt-keeper"):
            found[int(directory[6:])] = int(re.search(r"^PPid:\s+(\d+)", status, re.M)[1])
    return found


def mounts():
    """What this host has mounted."""
    return {line.split(" ", 1)[1] for line in Path("/proc/self/mountinfo").read_text().splitlines()}


def await_(condition, seconds=10):
    """Whether `condition` becomes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


@pytest.fixture(scope="session")
def needs_root():
    """Skip where the tests do not run as root, which the container engine treats differently."""
    if os.geteuid() != 0:
        pytest.skip("it tests what containers of root can do, and this is not root")


@pytest.fixture
def nothing_left():
    """Fail if the test leaves a control group, a mount or a container's process on the host."""
    before = mounts()
    yield
    assert await_(lambda: not control_groups()), control_groups()
    assert mounts() <= before
    assert await_(lambda: not container_processes()), container_processes()


@pytest.fixture(scope="session")
def ordinary_python():
    """The words that start Python as an ordinary user, with this package: a function of the script."""
    if os.geteuid() != 0:
        return lambda script, **options: run_python((sys.executable,), script, **options)
    check = "import sys; assert sys.version_info >= (3, 11); import anyvirt.engines.container"
    for interpreter in (sys.executable, "/usr/bin/python3"):
        try:
            if run_python((interpreter,), check, user=ORDINARY_USER).returncode == 0:
                return lambda script, i=interpreter, **options: run_python(
                    (i,), script, user=ORDINARY_USER, **options
                )
        except OSError:
            continue
    pytest.skip("no Python 3.11 or newer on this host can be executed by an ordinary user")
    return None


@functools.cache
def source_for_others():
    """A copy of the package that others can read: a checkout may lie in its owner's own directory."""
    directory = Path(tempfile.mkdtemp(prefix="anyvirt-source-"))
    atexit.register(shutil.rmtree, directory)
    directory.chmod(0o755)
    shutil.copytree(SOURCE / "anyvirt", directory / "anyvirt", ignore=shutil.ignore_patterns("__pycache__"))
    return directory


def run_python(words, script, *, user=None, state=None, **options):
    """Run a Python script that can import the package, perhaps as another user."""
    environment = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"PYTHONPATH": str(SOURCE if user is None else source_for_others())}
    environment |= dict([MARK.split("=")])
    environment |= {"HOME": "/tmp", "ANYVIRT_STATE": str(state or f"/tmp/anyvirt-test-{user}")}
    credentials = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    return subprocess.run(
        [*words, "-c", script],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        **credentials,
        **options,
    )
