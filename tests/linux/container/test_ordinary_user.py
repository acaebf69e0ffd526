"""Containers of a user without privileges, and of one with subordinate ids."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from .conftest import MARK_INSTANCES, ORDINARY_USER

PREAMBLE = f"""{MARK_INSTANCES}
import os, sys, time
from anyvirt.engines import get
from anyvirt.guest import Guest, Mount, make_limits
from anyvirt.instance import Streams, TerminalSize
engine = get("container")
def shell(script, **parts):
    with engine.create(Guest(command=["/bin/sh", "-c", script], **parts), Streams(), None) as instance:
        return instance.wait()
"""

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def home(tmp_path):
    """A directory that belongs to the ordinary user."""
    for directory in (tmp_path, *list(tmp_path.parents)[:2]):
        directory.chmod(directory.stat().st_mode | 0o111)
    directory = tmp_path / "home"
    directory.mkdir()
    give(directory)
    return directory


def give(path):
    """Make the ordinary user the owner of a path."""
    if os.geteuid() == 0:
        os.chown(path, ORDINARY_USER, ORDINARY_USER)


@pytest.fixture
def script(ordinary_python, home):
    """Run a script as the ordinary user; returns what it printed."""

    def run(text, **options):
        done = ordinary_python(PREAMBLE + textwrap.dedent(text), state=home / "state", **options)
        if "Operation not permitted" in done.stderr and "namespaces" in done.stderr:
            pytest.skip("this host lets ordinary users have no user namespaces")
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_root_in_the_container_is_the_caller(script):
    assert script("shell('id -u; cat /proc/self/uid_map')").split() == ["0", "0", str(ORDINARY_USER), "1"]


def test_its_confinement(script):
    lines = script("shell('grep -E \"CapBnd|NoNewPrivs|Seccomp:\" /proc/self/status')").splitlines()
    assert [line.split()[1] for line in lines] == ["00000000a00425fb", "1", "2"]


def test_the_hosts_root_is_there_and_kept(script, home):
    words = "ls -d /etc/passwd /usr/bin; echo mine > file; cat file; touch /tmp/$$.test && echo tmp"
    output = script(f"shell('{words}', workdir='{home}')")
    assert output.split() == ["/etc/passwd", "/usr/bin", "mine", "tmp"]
    assert os.listdir(home) == ["state"]


def test_the_hosts_processes_are_not_seen(script):
    assert script("shell('set -- /proc/[0-9]*; echo $#; ls /run | wc -l')").split() == ["2", "0"]


def test_a_shared_directory_is_written_as_the_caller(script, home):
    (home / "data").mkdir()
    give(home / "data")
    script(f"shell('echo x > /data/file', mounts=[Mount('{home}/data', '/data')])")
    assert (home / "data/file").stat().st_uid == ORDINARY_USER


def test_a_root_filesystem_of_its_own(script, home):
    root = home / "root"
    (root / "usr").mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    for path in (root, root / "usr"):
        give(path)
    output = script(
        f"shell('touch /new; ls /', rootfs='{root}', mounts=[Mount('/usr', '/usr', read_only=True)])"
    )
    assert set(output.split()) == {"bin", "dev", "lib", "lib64", "new", "proc", "sys", "usr"}
    assert sorted(os.listdir(root)) == ["bin", "lib", "lib64", "usr"]


def test_joining_pausing_and_terminals(script):
    text = """
    with engine.create(Guest(), Streams(), None) as instance:
        process = instance.exec(["sh", "-c", "tty; id -u; sleep 60"], terminal=TerminalSize(20, 77))
        seen = b""
        while seen.count(b"\\n") < 2:
            seen += os.read(process.terminal, 100)
        print(seen.decode().split())
        ticker, writer = os.pipe()
        loop = ["sh", "-c", "while :; do echo a; sleep 0.01; done"]
        process = instance.exec(loop, streams=Streams(0, writer, 2))
        time.sleep(0.1)
        instance.pause()
        os.read(ticker, 1 << 16)
        os.set_blocking(ticker, False)
        time.sleep(0.2)
        try:
            print(os.read(ticker, 10))
        except BlockingIOError:
            print("paused")
        instance.resume()
        os.set_blocking(ticker, True)
        print(os.read(ticker, 1))
    """
    assert script(text).splitlines() == ["['/dev/pts/0', '0']", "paused", "b'a'"]


def test_a_limit_that_cannot_be_kept_is_refused(script):
    text = """
    try:
        shell("true", limits=make_limits(memory="64M"))
    except Exception as error:
        print(type(error).__name__, error.exit_code, error)
    """
    words = script(text).split(" ", 2)
    assert words[:2] == ["UnsupportedError", "2"]
    assert "not writable by user" in words[2]
    assert words[2].count("\n") == 1


def test_a_group_made_over_to_the_user_keeps_limits(script, needs_root):
    group = Path("/sys/fs/cgroup/memory/test-anyvirt-delegated")
    try:
        group.mkdir()
    except OSError:
        pytest.skip("this host has no cgroup v1 memory controller to hand over")
    try:
        os.chown(group, ORDINARY_USER, ORDINARY_USER)
        os.chown(group / "cgroup.procs", ORDINARY_USER, ORDINARY_USER)
        text = """
        guest = Guest(command=["sh", "-c", "head -c 100M /dev/zero | tail"], limits=make_limits(memory="48M"))
        with engine.create(guest, Streams(), None) as instance:
            instance.wait()
            print(instance.out_of_memory_kills > 0)
        """
        output = script(text, preexec_fn=lambda: (group / "cgroup.procs").write_text("0"))
        assert output == "True\n"
    finally:
        group.rmdir()


def test_killing_the_caller_leaves_nothing(ordinary_python, home):
    text = """
    import signal
    from anyvirt.linux.container.client import keeper_pid
    instance = engine.create(Guest(command=["sleep", "60"]), Streams(), None)
    os.kill({victim}, signal.SIGKILL)
    instance.wait()
    """
    for victim in ("os.getpid()", "keeper_pid()"):
        done = ordinary_python(PREAMBLE + textwrap.dedent(text).format(victim=victim), state=home / "state")
        assert done.returncode == (-9 if "getpid" in victim else 0), done.stderr
    # The fixture looks for what was left.


@pytest.mark.skipif(shutil.which("newuidmap") is None, reason="newuidmap (package uidmap) is not installed")
def test_subordinate_ids(tmp_path, needs_root):
    """With a range of ids the container has other users; the range is made for the test's own user."""
    name = "anyvirt-test"
    ranges = [Path("/etc/subuid"), Path("/etc/subgid")]
    before = [path.read_bytes() if path.exists() else None for path in ranges]
    try:
        for path in ranges:
            with path.open("a") as file:
                file.write(f"{ORDINARY_USER}:700000:65536\n")
        passwd = Path("/etc/passwd")
        kept = passwd.read_bytes()
        passwd.write_bytes(kept + f"{name}:x:{ORDINARY_USER}:{ORDINARY_USER}::/tmp:/bin/sh\n".encode())
        try:
            _run_with_subordinate_ids(tmp_path)
        finally:
            passwd.write_bytes(kept)
    finally:
        for path, content in zip(ranges, before, strict=True):
            path.unlink() if content is None else path.write_bytes(content)


def _run_with_subordinate_ids(tmp_path):
    other = "setpriv --reuid=65534 --regid=65534 --clear-groups id"
    script = PREAMBLE + f"shell('cat /proc/self/uid_map; {other}')"
    from .conftest import run_python

    interpreter = sys.executable if os.access(sys.executable, os.X_OK) else "/usr/bin/python3"
    for each in (interpreter, "/usr/bin/python3"):
        try:
            done = run_python((each,), script, user=ORDINARY_USER, state=f"/tmp/anyvirt-test-{ORDINARY_USER}")
        except (PermissionError, subprocess.SubprocessError):
            continue
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:6] == ["0", str(ORDINARY_USER), "1", "1", "700000", "65535"]
    assert "uid=65534" in done.stdout


PROBE = "from anyvirt.engines import get; a = get('container').probe(); print(a.available, a.remedy)"


@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare (package util-linux) is not installed")
def test_root_without_power_over_the_host_is_an_ordinary_user(script):
    text = f"""
    import subprocess
    words = ["unshare", "-r", sys.executable, "-c", "{PROBE}"]
    print(subprocess.run(words, capture_output=True, text=True).stdout)
    """
    assert script(text).split() == ["True"]


@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare (package util-linux) is not installed")
def test_where_user_namespaces_are_switched_off_the_switch_is_named(script):
    text = f"""
    import subprocess
    switch = "/proc/sys/user/max_user_namespaces"
    shell = f"echo 0 > {{switch}}; exec {{sys.executable}} -c \\"{PROBE}\\""
    print(subprocess.run(["unshare", "-r", "sh", "-c", shell], capture_output=True, text=True).stdout)
    """
    assert script(text).startswith("False allow user namespaces (sysctl user.max_user_namespaces=")
