"""A root of the guest's own: what is in it, what is kept out of it, and that nothing else is needed."""

import ast
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from .conftest import CHECKOUT, EMULATOR, run

APPLETS = (
    "cat chroot dd echo env grep head id ls mkdir mount ps readlink rm sh sha256sum sleep stat touch tr "
    "umount unshare wc"
)
ORDINARY = 65534
"""A user without privileges."""
AS_ORDINARY = ("/usr/bin/setpriv", f"--reuid={ORDINARY}", f"--regid={ORDINARY}", "--clear-groups")


@pytest.fixture
def root(tmp_path, riscv64_busybox):
    """A root of busybox alone, without the directories that are mounted over."""
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "etc").mkdir()
    shutil.copy(riscv64_busybox, root / "bin/busybox")
    for name in APPLETS.split():
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/marker").write_text("the guest's own\n")
    return root


@pytest.fixture
def within(root, tmp_path):
    """Run a script in the root."""

    def run_within(script, **variables):
        return run(
            (*EMULATOR, "sh", "-c", script),
            directory=tmp_path,
            ANYVIRT_DOOR=os.urandom(8).hex(),
            ANYVIRT_ROOT=str(root),
            **{"PATH": "/bin", **variables},
        )

    return run_within


def _succeeds(result):
    assert (result.status, result.errors) == (0, "")
    return result.output


def test_the_directory_is_all_there_is(within):
    output = _succeeds(within("pwd; ls /; cat /etc/marker; ls -a /.."))
    lines = output.splitlines()
    assert lines[:6] == ["/", "bin", "dev", "etc", "proc", "sys"]
    assert lines[6:8] == ["tmp", "the guest's own"]
    assert lines[8:] == [".", "..", "bin", "dev", "etc", "proc", "sys", "tmp"]


def test_changes_are_thrown_away(within, root):
    before = sorted(str(path) for path in root.rglob("*"))
    _succeeds(
        within("echo x > /etc/marker; rm /bin/wc; mkdir /new /etc/new; touch /tmp/new; cat /etc/marker")
    )
    assert sorted(str(path) for path in root.rglob("*")) == before
    assert (root / "etc/marker").read_text() == "the guest's own\n"


def test_devices_and_kernel_file_systems_are_as_in_a_container(within):
    output = _succeeds(
        within(
            "echo x > /dev/null; head -c 3 /dev/zero | wc -c; head -c 5 /dev/urandom | wc -c; ls /dev; "
            "readlink /dev/fd; stat -c %a /tmp"
        )
    )
    names = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    assert output.split() == ["3", "5", *names.split(), "/proc/self/fd", "1777"]


@pytest.mark.parametrize(
    "attempt",
    [
        "echo 1 > /proc/sys/kernel/printk",
        "echo x > /sys/kernel/profiling",
        "mkdir /sys/fs/cgroup/own",
        "echo x > /dev/.anyvirt/cache/own",
        "rm -r /dev/.anyvirt/cache",
        "mount -o remount,rw,bind /dev/.anyvirt/cache",
        "mount -o remount,rw,bind /proc/sys",
        "umount /dev/.anyvirt/cache",
        "unshare -rm mount -o remount,rw,bind /dev/.anyvirt/cache",
        "ls /proc/1/root/",
        "cat /proc/1/environ",
        "readlink /proc/$PPID/exe",
        "ls /proc/$PPID/cwd/",
        "head -c 1 /proc/$PPID/mem",
        "head -c 1 /proc/self/mem",
        "dd if=/dev/mem count=1",
    ],
)
def test_what_is_the_host_s_stays_out_of_reach(attempt, within):
    result = within(f"({attempt}) && echo reached")
    assert result.status != 0
    assert "reached" not in result.output


def test_neither_does_another_change_of_root_lead_out(within):
    script = "mkdir -p /a/b; chroot /a /bin/true 2> /dev/null; cd /a/b/../../../../..; ls; cat etc/marker"
    assert _succeeds(within(script)).endswith("the guest's own\n")


DUMPABLE = r"""
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
static void look(int pid, const char *name) {
    char path[99];
    sprintf(path, "/proc/%d/%s", pid, name);
    printf("%s %d\n", name, open(path, O_RDONLY) < 0 ? errno : 0);
}
int main(void) {
    int ends[2];
    char byte;
    pipe(ends);
    int pid = fork();
    if (pid == 0) {
        printf("%d", prctl(PR_SET_DUMPABLE, 1));
        printf(" %d", prctl(PR_GET_DUMPABLE));
        printf(" %d\n", prctl(PR_SET_DUMPABLE, 7) == -1 ? errno : 0);
        fflush(stdout);
        write(ends[1], "x", 1);
        pause();
    }
    read(ends[0], &byte, 1);
    look(pid, "exe");
    look(pid, "root");
    look(pid, "mem");
    look(pid, "fd/0");
    kill(pid, 9);
}
"""


def test_no_guest_process_can_be_looked_into_by_its_own_wish(compile_riscv64, within, root):
    """Its /proc/PID/exe is the host's Python, which root could change through it (CVE-2019-5736)."""
    shutil.copy(compile_riscv64(DUMPABLE), root / "bin/dumpable")
    lines = _succeeds(within("dumpable")).splitlines()
    assert lines == ["0 1 22", "exe 13", "root 13", "mem 13", "fd/0 13"]


def test_the_guest_sees_its_own_environment_and_no_descriptor(within):
    output = _succeeds(
        within("env | grep -c ANYVIRT; tr '\\0' '\\n' < /proc/self/environ; ls /proc/self/fd", X="y")
    )
    assert output.startswith("0\n")
    assert "X=y\n" in output
    assert "ANYVIRT" not in output
    # After the streams comes the directory that ls has open, and maybe the connection to the compiler.
    numbers = [line for line in output.splitlines() if line.isdecimal()][1:]
    assert numbers[:4] == ["0", "1", "2", "3"]
    assert all(int(number) >= 900 for number in numbers[4:])


def test_an_ordinary_user_s_guest_is_root_of_its_own_root(root, tmp_path, state_directory):
    if os.geteuid() != 0:
        pytest.skip("the other tests are an ordinary user's")
    check = [*AS_ORDINARY, sys.executable, "-c", ""]
    if shutil.which(check[0]) is None or subprocess.run(check, capture_output=True).returncode != 0:
        pytest.skip("needs setpriv (package util-linux), and a Python that others may use")
    home = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        shutil.copytree(root, home / "root", symlinks=True)
        shutil.copytree(state_directory / "cache/code", home / "state/cache/code")
        for path in (home, *home.rglob("*")):
            os.chown(path, ORDINARY, ORDINARY, follow_symlinks=False)
        script = "id -u; stat -c %u /etc/marker; echo x > /etc/new; tr '\\0' ' ' < /proc/self/environ; exit 3"
        variables = {"ANYVIRT_STATE": f"{home}/state", "ANYVIRT_ROOT": f"{home}/root"}
        result = run(
            (*AS_ORDINARY, *EMULATOR, "sh", "-c", script),
            directory=home,
            PATH="/bin",
            ANYVIRT_DOOR=os.urandom(8).hex(),
            **variables,
        )
        if "namespaces" in result.errors or "Operation not permitted" in result.errors:
            pytest.skip("this host lets ordinary users have no user namespaces")
        assert (result.status, result.errors) == (3, "")
        lines = result.output.splitlines()
        assert lines[:2] == ["0", "0"]
        assert "PATH=/bin " in lines[2]
        assert "ANYVIRT" not in lines[2]
        assert not (home / "root/etc/new").exists()
    finally:
        shutil.rmtree(home)


def test_a_root_without_a_resolver_has_the_host_s(within, root, tmp_path):
    try:
        expected = Path("/etc/resolv.conf").read_text()
    except OSError:
        pytest.skip("the host has no /etc/resolv.conf")
    assert _succeeds(within("cat /etc/resolv.conf")) == expected
    (root / "etc/resolv.conf").symlink_to("/run/nowhere")
    assert _succeeds(within("cat /etc/resolv.conf")) == expected
    (root / "etc/resolv.conf").unlink()
    (root / "etc/resolv.conf").write_text("its own\n")
    assert _succeeds(within("cat /etc/resolv.conf")) == "its own\n"


def test_scripts_guest_programs_and_host_programs_are_executed(within, root, compile_host):
    (root / "bin/script").write_text("#!/bin/echo from\n")
    (root / "bin/script").chmod(0o755)
    source = '#include <stdio.h>\nint main(void) { puts("natively"); }\n'
    shutil.copy(compile_host(source), root / "bin/native")
    output = _succeeds(within("script word; sh -c 'sh -c \"echo nested; native\"'"))
    assert output == "from /bin/script word\nnested\nnatively\n"


def test_hot_code_is_compiled_outside(within, state_directory, tmp_path):
    """The compiler cannot be started in a root that has no Python."""
    _succeeds(within("head -c 100000 /dev/zero | sha256sum"))
    state = tmp_path / "fresh"
    shutil.copytree(state_directory / "cache/code", state / "cache/code")
    script = 'sha256sum /dev/zero & while [ -z "$(ls $R)" ]; do sleep 0.1; done; kill $!'
    regions = "/dev/.anyvirt/cache/regions"
    result = run(
        ("timeout", "50", *EMULATOR, "sh", "-c", f"R={regions}; {script} 2> /dev/null"),
        directory=tmp_path,
        ANYVIRT_DOOR=os.urandom(8).hex(),
        ANYVIRT_ROOT=str(tmp_path / "root"),
        ANYVIRT_STATE=str(state),
        PATH="/bin:/usr/bin",
    )
    assert result.status == 0
    assert list((state / "cache/regions").iterdir())


def test_nothing_of_ours_is_left_or_holds_the_output(root, tmp_path):
    door = os.urandom(8).hex()
    environment = {**os.environ, "ANYVIRT_DOOR": door, "ANYVIRT_ROOT": str(root), "PATH": "/bin"}
    done = subprocess.run([*EMULATOR, "echo", "x"], env=environment, capture_output=True, timeout=30)
    assert done.stdout == b"x\n"
    deadline = time.monotonic() + 10
    while f"@anyvirt-{door}" in Path("/proc/net/unix").read_text():
        assert time.monotonic() < deadline, "the doorkeeper is still there"
        time.sleep(0.02)


def test_a_root_that_cannot_be_is_one_sentence(within, root):
    (root / "proc").symlink_to("etc")
    result = within("true")
    assert result.status != 0
    assert result.errors.startswith("anyvirt: /proc in the root filesystem must be a directory")
    assert result.errors.count("\n") == 1


def test_who_has_nobody_to_join_is_told_so(tmp_path, monkeypatch):
    from anyvirt.linux.emulation import doorkeeper

    monkeypatch.setattr(doorkeeper, "_PATIENCE", 0.1)
    with pytest.raises(OSError, match="no such guest"):
        doorkeeper.join("nobody-is-called-that")


_NOT_FOR_GUESTS = (
    "_debug", "_record", "_reveal_compiler",  # in main: before the root is entered, or not with one
    "translate", "compile_image", "prepare", "stencil_blob", "host_blob", "interpreter_blob", "link",
    "memory_model", "_write",  # compiling
    "code_space", "view_of", "make_executor",  # machines
)  # fmt: skip


def _later_imports(path):
    """What functions in a file import, by the functions' names."""
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Import):
                    yield from ((function.name, alias.name) for alias in node.names)
                elif isinstance(node, ast.ImportFrom):
                    yield function.name, node.module


def test_nothing_is_imported_when_the_host_is_out_of_sight():
    """All that functions of loaded modules import is loaded too, but for what no guest comes to."""
    code = (
        f"import sys; sys.path.insert(0, {str(CHECKOUT / 'src')!r}); "
        "from anyvirt.linux.emulation import main, root; root.preload(); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    places = ("anyvirt.cpu.", "anyvirt.jit.", "anyvirt.linux.emulation.")
    missing = set()
    for name in loaded:
        if name.startswith(places):
            path = (CHECKOUT / "src" / name.replace(".", "/")).with_suffix(".py")
            missing |= {(name, *found) for found in _later_imports(path) if found[1] not in loaded}
    allowed = {
        ("anyvirt.cpu.hooks", "__init__"),
        ("anyvirt.cpu.interpreter", "__init__"),
        ("anyvirt.isa.description", "assemble"),
    }
    assert {one for one in missing if one[1] not in _NOT_FOR_GUESTS and one[:2] not in allowed} == set()
