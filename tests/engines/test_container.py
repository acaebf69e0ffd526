"""The container engine against the kernel's account of what it set up, and against attempts to get out."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from anyvirt.engines import get
from anyvirt.errors import (
    CommandNotFoundError,
    GuestStartError,
    NotExecutableError,
    UnsupportedError,
    UsageError,
)
from anyvirt.guest import Guest, Mount, make_limits
from anyvirt.instance import State, Streams, TerminalSize
from anyvirt.linux import kernel
from anyvirt.linux.capabilities import CONTAINER_MASK
from anyvirt.running import run_guest

ENGINE = get("container")
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")


@pytest.fixture(autouse=True)
def available():
    availability = ENGINE.probe()
    if not availability.available:
        pytest.skip(f"containers do not work here: {availability.reason}")


@pytest.fixture
def needs_root():
    if os.geteuid() != 0:
        pytest.skip("it tests what containers of root can do, and this is not root")


def run(*command, **parts):
    """Run a command in a container; returns its status as a shell would and its output."""
    done = run_guest(Guest(command=command, **parts), on="container", capture_output=True, timeout=30)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def shell(script, **parts):
    status, output, errors = run("/bin/sh", "-c", script, **parts)
    assert status == 0, (status, output, errors)
    return output


def python(script, **parts):
    """Run a Python script in a container with the host's root; returns what it printed."""
    status, output, errors = run(sys.executable, "-S", "-c", textwrap.dedent(script), **parts)
    assert status == 0, (status, output, errors)
    return output


@pytest.fixture
def rootfs(tmp_path):
    """A root filesystem with a shell and a few tools, by way of the host's /usr."""
    root = tmp_path / "rootfs"
    for name in ("usr", "proc", "etc"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        if os.path.islink(f"/{name}"):
            (root / name).symlink_to(f"usr/{name}")
    return root


USR = (Mount("/usr", "/usr", read_only=True),)


# What the kernel says about the processes inside.


def test_the_command_is_confined_and_so_is_the_first_process():
    with ENGINE.create(Guest(command=["sleep", "60"]), Streams(), None) as instance:
        status = read_status(instance.pid)
        parent = read_status(int(status["PPid"]))
        joined = instance.exec(["sleep", "60"])
        for each in (status, parent, read_status(joined.pid)):
            assert each["NoNewPrivs"] == "1"
            assert each["Seccomp"] == "2"
            assert int(each["CapBnd"], 16) == CONTAINER_MASK
            assert int(each["CapPrm"], 16) == int(each["CapEff"], 16) == CONTAINER_MASK
            assert int(each["CapInh"], 16) == int(each["CapAmb"], 16) == 0


def test_programs_start_with_every_signal_at_its_default(monkeypatch):
    """The C library ignores two signals of its own, 32 and 33, in what it spawns."""
    with ENGINE.create(Guest(command=["sleep", "60"]), Streams(), None) as instance:
        for pid in (instance.pid, instance.exec(["sleep", "60"]).pid):
            status = read_status(pid)
            assert int(status["SigBlk"], 16) == 0
            assert int(status["SigIgn"], 16) & ~(3 << 31) == 0


def read_status(pid):
    with open(f"/proc/{pid}/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def test_every_namespace_is_the_containers_own():
    with ENGINE.create(Guest(command=["sleep", "60"]), Streams(), None) as instance:
        joined = instance.exec(["sleep", "60"])
        mapped = instance.identities != "the host's ids"
        for name in NAMESPACES:
            own, host = os.stat(f"/proc/{instance.pid}/ns/{name}"), os.stat(f"/proc/self/ns/{name}")
            if name != "user" or mapped:
                assert own.st_ino != host.st_ino, name
            if name != "cgroup" or os.geteuid() == 0:
                assert os.stat(f"/proc/{joined.pid}/ns/{name}").st_ino == own.st_ino, name


def test_root_in_the_container_is_nobody_on_the_host(needs_root):
    with ENGINE.create(Guest(command=["sleep", "60"]), Streams(), None) as instance:
        if instance.identities == "the host's ids":
            pytest.skip("this host's root filesystem cannot map file owners")
        uids = read_status(instance.pid)["Uid"].split()
        assert all(int(uid) >= 0x80000 for uid in uids)
    assert shell("id -u; stat -c %u /etc/passwd").split() == ["0", "0"]


@pytest.fixture
def unmappable(needs_root, rootfs, tmp_path):
    """A root filesystem on a kind of filesystem that cannot map file owners."""
    for name in ("merged", "upper", "work"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={rootfs},upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    kernel.mount("overlay", str(tmp_path / "merged"), "overlay", 0, options)
    yield tmp_path / "merged"
    kernel.unmount(str(tmp_path / "merged"))


def test_a_filesystem_that_cannot_map_owners(unmappable, rootfs):
    """There root is the host's; that weakens no other container of the same caller."""
    with ENGINE.create(Guest(rootfs=rootfs, mounts=USR), Streams(), None) as instance:
        if instance.identities == "the host's ids":
            pytest.skip("no filesystem of the tests can map file owners (a tmpfs before Linux 6.3)")
    for _ in range(2):
        guest = Guest(command=["sleep", "60"], rootfs=unmappable, mounts=USR)
        with ENGINE.create(guest, Streams(), None) as instance:
            assert instance.identities == "the host's ids"
            assert read_status(instance.pid)["NoNewPrivs"] == "1"
            assert int(read_status(instance.pid)["CapBnd"], 16) == CONTAINER_MASK
            assert instance.exec(["sh", "-c", "exit 4"]).wait().code == 4
        with ENGINE.create(Guest(rootfs=rootfs, mounts=USR), Streams(), None) as instance:
            assert instance.identities.startswith("ids mapped")
    assert shell("echo x > /new; chown 5 /new; stat -c %u /new", rootfs=unmappable, mounts=USR) == "5\n"


@pytest.mark.parametrize(
    "attempt",
    [
        "mknod /tmp/disk b 254 0",
        "mount -t tmpfs x /mnt",
        "echo 1 > /proc/sys/kernel/panic",
        "echo b > /proc/sysrq-trigger",
        "ls /proc/1/root",
        "unshare -r true",
    ],
)
def test_escapes_where_root_is_the_hosts(unmappable, attempt):
    status, _, _ = run("sh", "-c", attempt, rootfs=unmappable, mounts=USR)
    assert status != 0


def test_mounts_are_what_they_should_be():
    table = {}
    for line in shell("cat /proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        table[before.split()[4]] = after.split()[0], set(before.split()[5].split(","))
    assert table["/proc"] == ("proc", {"rw", "nosuid", "nodev", "noexec", "relatime"})
    assert table["/sys"][0] == "sysfs"
    assert "ro" in table["/sys"][1]
    assert table["/dev/pts"][0] == "devpts"
    assert table["/dev/mqueue"][0] == "mqueue"
    assert {"nodev", "nosuid", "noexec"} <= table["/dev/shm"][1]
    for path, (kind, flags) in table.items():
        assert "nodev" in flags or path.startswith(("/dev", "/sys", "/proc")), path
        assert kind not in ("cgroup", "cgroup2") or "ro" in flags


def test_what_runc_masks_is_masked(tmp_path):
    runc = shutil.which("runc")
    if runc is None:
        pytest.skip("runc is not installed")
    subprocess.run([runc, "spec"], cwd=tmp_path, check=True)
    linux = json.loads((tmp_path / "config.json").read_text())["linux"]
    script = """
        import os, json, sys
        for path in json.loads(sys.argv[1]):
            if os.path.isdir(path):
                assert os.listdir(path) == [], path
            elif os.path.exists(path):
                assert open(path, "rb").read() == b"", path
        for path in json.loads(sys.argv[2]):
            if os.path.exists(path):
                assert os.statvfs(path).f_flag & os.ST_RDONLY, path
        print("all of them")
    """
    words = (json.dumps(linux["maskedPaths"]), json.dumps(linux["readonlyPaths"]))
    status, output, errors = run(sys.executable, "-S", "-c", textwrap.dedent(script), *words)
    assert (status, output) == (0, "all of them\n"), errors


def test_dev_is_minimal_and_works():
    names = shell("ls /dev").split()
    links = ["fd", "ptmx", "stderr", "stdin", "stdout"]
    devices = ["full", "null", "random", "tty", "urandom", "zero"]
    assert sorted(names) == sorted([*links, *devices, "mqueue", "pts", "shm"])
    script = (
        "echo x > /dev/null; head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; test ! -s /dev/null"
    )
    assert shell(script).split() == ["4", "4"]


def test_only_loopback_is_there_and_up():
    script = """
        import socket
        server = socket.create_server(("127.0.0.1", 80))
        client = socket.create_connection(("127.0.0.1", 80))
        print([name for _, name in socket.if_nameindex()])
    """
    assert "['lo'" in python(script)


def test_the_host_is_out_of_reach():
    server = socket.create_server(("127.0.0.1", 0))
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind(b"\0anyvirt-test-abstract")
    abstract.listen()
    with server, abstract:
        script = f"""
            import os, socket
            for family, address in (
                (socket.AF_INET, ("127.0.0.1", {server.getsockname()[1]})),
                (socket.AF_UNIX, b"\\0anyvirt-test-abstract"),
            ):
                try:
                    socket.socket(family).connect(address)
                except ConnectionRefusedError:
                    print("refused")
            print(len([name for name in os.listdir("/proc") if name.isdigit()]))
        """
        assert python(script).split() == ["refused", "refused", "2"]


def test_unix_sockets_of_the_host_cannot_be_connected_to(tmp_path):
    server = socket.socket(socket.AF_UNIX)
    os.chdir(tmp_path)
    server.bind("host.sock")
    server.listen()
    os.chmod(tmp_path, 0o777)
    with server:
        script = "import socket; socket.socket(socket.AF_UNIX).connect('host.sock')"
        status, _, errors = run(sys.executable, "-S", "-c", script, workdir=str(tmp_path))
        assert status != 0
        assert "Refused" in errors or "PermissionError" in errors


# Attempts to get out, or to change the host.

_ATTEMPTS = {
    "write to /proc/sys": "open('/proc/sys/kernel/core_pattern', 'w').write('|/x')",
    "write to /proc/sysrq-trigger": "open('/proc/sysrq-trigger', 'w').write('b')",
    "write to /sys": "open('/sys/kernel/mm/transparent_hugepage/enabled', 'w').write('never')",
    "make a device": "os.mknod('/tmp/disk', 0o60600, os.makedev(254, 0))",
    "mount": "call(libc.mount, b'x', b'/mnt', b'tmpfs', 0, None)",
    "remount /sys": "call(libc.mount, None, b'/sys', None, 0x20, None)",
    "unmount a mask": "call(libc.umount2, b'/proc/sys', 2)",
    "make a user namespace": "call(libc.unshare, 0x10000000)",
    "clone a mount namespace": "call(libc.syscall, 56, 0x20000, 0, 0, 0, 0)",
    "join a namespace": "call(libc.setns, os.open('/proc/self/ns/net', 0), 0)",
    "use a kernel keyring": "call(libc.syscall, 250, 0, -3, 0, 0, 0)",
    "load a BPF program": "call(libc.syscall, 321, 0, 0, 0)",
    "watch memory faults": "call(libc.syscall, 323, 0)",
    "set up io_uring": "call(libc.syscall, 425, 8, 0)",
    "open by handle": "call(libc.syscall, 304, -100, 0, 0)",
    "reboot": "call(libc.reboot, 0)",
    "set the clock": "time.clock_settime(time.CLOCK_REALTIME, time.time())",
    "set the host name": "socket.sethostname('mine')",
    "open a virtual socket": "socket.socket(40, socket.SOCK_STREAM)",
    "change the root back": "call(libc.pivot_root, b'.', b'.')",
    "trace the first process": "call(libc.ptrace, 16, 1, 0, 0)",
    "read the first process's memory": "open('/proc/1/mem', 'rb')",
    "read the first process's environment": "open('/proc/1/environ', 'rb').read()",
    "reach the host's Python": "os.readlink('/proc/1/exe')",
    "overwrite the host's Python": "open('/proc/1/exe', 'ab')",
    "reach the first process's files": "[os.readlink(f'/proc/1/fd/{n}') for n in os.listdir('/proc/1/fd')]",
    "reach the first process's root": "os.listdir('/proc/1/root')",
    "get kernel messages": "call(libc.klogctl, 3, 0, 0)",
    "turn address randomization off": "call(libc.personality, 0x40000)",
    "read kernel memory": "open('/dev/mem', 'rb')",
    "write to a control group": "os.mkdir('/sys/fs/cgroup/mine')",
}


@pytest.mark.parametrize("attempt", _ATTEMPTS)
def test_an_escape_fails(attempt):
    if os.uname().machine != "x86_64" and "libc.syscall" in _ATTEMPTS[attempt]:
        pytest.skip("the numbers of this test's system calls are those of x86-64")
    script = f"""
        import ctypes, os, socket, time
        libc = ctypes.CDLL(None, use_errno=True)
        def call(function, *arguments):
            if function(*arguments) < 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
        try:
            {_ATTEMPTS[attempt]}
        except OSError as error:
            print("refused:", error.strerror)
        else:
            print("it worked")
    """
    assert python(script).startswith("refused:")


def test_the_first_process_cannot_be_killed_from_inside():
    assert shell("kill -9 1; kill -STOP 1; sleep 0.1; echo alive") == "alive\n"


def test_its_first_process_cannot_be_told_from_outside_by_its_arguments():
    assert shell("cat /proc/1/cmdline").strip("\0") == "anyvirt-init"


def test_a_chroot_does_not_lead_out():
    script = """
        import os
        os.mkdir("/tmp/jail")
        outside = os.open("/", os.O_RDONLY)
        os.chroot("/tmp/jail")
        os.fchdir(outside)
        for _ in range(50):
            os.chdir("..")
        os.chroot(".")
        print(os.path.exists("/proc/1"), len([name for name in os.listdir("/proc") if name.isdigit()]))
    """
    assert python(script) == "True 2\n"


def test_setuid_programs_gain_nothing():
    output = python(
        """
        import os, shutil, subprocess, sys
        shutil.copy("/usr/bin/id", "/tmp/id")
        os.chmod("/tmp/id", 0o4755)
        if open("/proc/self/uid_map").read().split()[2] == "1":
            print("there are no other users")
        else:
            other = {"user": 1000, "group": 1000, "extra_groups": []}
            print(subprocess.run(["/tmp/id", "-u"], capture_output=True, text=True, **other).stdout)
        """
    )
    assert output.strip() in ("1000", "there are no other users")


# The root filesystem.


def test_changes_to_the_hosts_files_are_thrown_away(tmp_path):
    kept = tmp_path / "kept"
    kept.write_text("host's")
    os.chmod(tmp_path, 0o777)
    os.chmod(kept, 0o666)
    script = f"cat {kept}; echo changed > {kept}; cat {kept}; rm {kept}; mkdir {tmp_path}/new"
    assert shell(script) == "host'schanged\n"
    assert kept.read_text() == "host's"
    assert os.listdir(tmp_path) == ["kept"]


def test_a_root_filesystem_of_its_own_stays_as_it_was(rootfs):
    (rootfs / "etc/marker").write_text("own")
    script = "cat /etc/marker; echo x > /etc/marker; mkdir /opt; ls /"
    output = shell(script, rootfs=rootfs, mounts=USR)
    assert output.startswith("own")
    assert set(output[3:].split()) >= {"dev", "etc", "opt", "proc", "sys", "usr"}
    assert (rootfs / "etc/marker").read_text() == "own"
    assert not (rootfs / "opt").exists()
    assert not (rootfs / "dev").exists()


def test_a_path_with_an_overlays_special_characters(tmp_path, rootfs):
    odd = tmp_path / "a:b,c\\d e"
    rootfs.rename(odd)
    assert shell("echo fine", rootfs=odd, mounts=USR) == "fine\n"


@pytest.mark.parametrize("name", ["dev", "proc", "sys"])
def test_a_link_in_the_place_of_a_kernel_filesystem_is_refused(rootfs, tmp_path, name):
    shutil.rmtree(rootfs / name, ignore_errors=True)
    (tmp_path / "outside").mkdir()
    (rootfs / name).symlink_to(tmp_path / "outside")
    with pytest.raises(UsageError, match=f"/{name} in the root filesystem must be a directory"):
        run("/bin/sh", "-c", "true", rootfs=rootfs, mounts=USR)
    assert os.listdir(tmp_path / "outside") == []


@pytest.mark.parametrize("link", ["/outside", "../../../../../../..{outside}", "/proc/1/root/tmp"])
def test_links_lead_no_mount_out_of_the_root(rootfs, tmp_path, link):
    outside = tmp_path / "outside"
    outside.mkdir()
    (rootfs / "data").symlink_to(link.format(outside=outside))
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("shared")
    mounts = (*USR, Mount(source, "/data/below"))
    try:
        assert shell("cat /data/below/file", rootfs=rootfs, mounts=mounts) == "shared"
    except (GuestStartError, UsageError) as error:
        assert "/data/below" in str(error)
    assert os.listdir(outside) == []


def test_a_rootfs_without_the_command(rootfs):
    with pytest.raises(CommandNotFoundError, match="nonesuch"):
        run("nonesuch", rootfs=rootfs, mounts=USR)


def test_the_guests_files_are_never_taken_for_pythons_modules(rootfs):
    """Whatever the set-up might import once it is in the guest's root would run with its privileges."""
    for directory in {*map(os.path.dirname, (os.__file__, json.__file__)), *sys.path}:
        place = rootfs / str(directory).lstrip("/")
        if place.is_relative_to(rootfs / "usr") or not str(directory).startswith("/"):
            continue
        place.mkdir(parents=True, exist_ok=True)
        for name in ("resource", "select", "encodings", "traceback", "linecache", "anything"):
            (place / f"{name}.py").write_text("open('/imported', 'w').close()")
    for _ in range(3):
        output = shell("ls /; echo $?", rootfs=rootfs, mounts=USR)
        assert "imported" not in output
        assert output.endswith("0\n")


# Sharing.


def test_shared_directories_files_and_read_only(tmp_path):
    directory = tmp_path / "directory"
    directory.mkdir()
    file = tmp_path / "file"
    file.write_text("one file")
    mounts = (
        Mount(directory, "/data/rw"),
        Mount(directory, "/data/ro", read_only=True),
        Mount(file, "/etc/one-file", read_only=True),
    )
    script = """
        echo from-guest > /data/rw/written
        cat /data/ro/written /etc/one-file
        echo x 2>/dev/null > /data/ro/no || echo read-only
        echo x 2>/dev/null > /etc/one-file || echo read-only
    """
    assert shell(script, mounts=mounts).split("\n") == ["from-guest", "one fileread-only", "read-only", ""]
    written = directory / "written"
    assert written.read_text() == "from-guest\n"
    assert written.stat().st_uid == os.geteuid()


def test_a_file_over_a_directory_is_refused(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(
        UsageError, match="a file of the host cannot be mounted at /etc, which is a directory"
    ):
        run("true", mounts=(Mount(file, "/etc"),))


def test_nothing_is_mounted_over_the_kernels_places(tmp_path):
    with pytest.raises(UsageError, match="/proc/sys"):
        run("true", mounts=(Mount(tmp_path, "/proc/sys"),))


# Limits.


def test_memory_is_limited_by_killing(needs_root):
    limits = make_limits(memory="64M")
    guest = Guest(command=[sys.executable, "-S", "-c", "x = b'x' * (256 << 20)"], limits=limits)
    with ENGINE.create(guest, Streams(), None) as instance:
        assert instance.wait(20).signal == signal.SIGKILL
        # The kernel may kill another one too, our init, while the first is slow to give back its memory.
        assert instance.out_of_memory_kills >= 1


def test_files_in_memory_count(needs_root):
    limits = make_limits(memory="64M")
    status, _, _ = run("sh", "-c", "head -c 200M /dev/zero > /tmp/file", limits=limits)
    assert status in (137, 1)


def test_a_memory_limit_too_small_to_start(needs_root):
    """What a start needs differs, so this one is made to need more."""
    script = """
        from anyvirt.engines import get
        from anyvirt.errors import AnyvirtError
        from anyvirt.guest import Guest, make_limits
        from anyvirt.instance import Streams
        from anyvirt.linux.container import init
        original = init._configure
        init._configure = lambda specification: (bytearray(64 << 20), original(specification))
        try:
            get("container").start(Guest(command=["true"], limits=make_limits(memory="16M")), Streams())
        except AnyvirtError as error:
            print(type(error).__name__, error.exit_code, error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert done.stdout == (
        "GuestStartError 1 the container ran out of memory while it was starting: "
        "a limit of 16777216 bytes is too small\n"
    ), done


@pytest.mark.parametrize("closed", [(0,), (0, 1, 2)])
def test_closed_standard_streams(closed):
    """A guest gets the null device for them, never a socket that took their number."""
    script = """
        import os, sys
        from anyvirt.engines import get
        from anyvirt.guest import Guest
        from anyvirt.instance import Streams
        words = ["sh", "-c", 'test -z "$(cat)" && echo x && test /dev/null -ef /proc/self/fd/0']
        with get("container").start(Guest(command=words), Streams()) as instance:
            os._exit(instance.wait(10).shell)
    """
    closing = " ".join(f"{fd}>&-" for fd in closed)
    words = ["sh", "-c", f'exec "$@" {closing}', "sh", sys.executable, "-c", textwrap.dedent(script)]
    assert subprocess.run(words, timeout=30).returncode == 0


def test_no_zombie_of_a_keeper_is_left():
    """Not every first process of a host or container reaps orphans."""
    script = """
        import ctypes, os, subprocess, sys
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
        program = (
            "from anyvirt.engines import get; from anyvirt.guest import Guest;"
            "from anyvirt.instance import Streams\\n"
            "with get('container').start(Guest(command=['true']), Streams()) as instance: instance.wait()"
        )
        subprocess.run([sys.executable, "-c", program], check=True)
        try:
            print(os.waitpid(-1, os.WNOHANG))
        except ChildProcessError:
            print("none")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert done.stdout == "none\n", done


def test_cpu_time_is_limited(needs_root):
    script = """
        import time
        end = time.monotonic() + 1
        before = time.process_time()
        while time.monotonic() < end:
            pass
        print(time.process_time() - before)
    """
    used = float(python(script, limits=make_limits(cpus=0.2)))
    assert 0.05 < used < 0.5


def test_processes_are_limited(needs_root):
    script = """
        import os, time
        count = 0
        try:
            while count < 50:
                if os.fork() == 0:
                    time.sleep(60)
                count += 1
        except BlockingIOError:
            pass
        print(count)
    """
    assert int(python(script, limits=make_limits(pids=5))) == 4


def test_one_process_is_enough_for_one_command(needs_root):
    assert run("true", limits=make_limits(pids=1))[0] == 0


def test_limits_show_in_the_control_group(needs_root):
    limits = make_limits(memory="100M", cpus="1.5", pids=33)
    with ENGINE.create(Guest(limits=limits), Streams(), None) as instance:
        found = {}
        for line in Path(f"/proc/{instance.pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            found[controllers] = path
        assert any(path.endswith(instance.identifier) for path in found.values())


def test_programs_can_read_their_limits_and_not_change_them(needs_root):
    script = """
        for file in /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max; do
            test -e $file || continue
            cat $file
            (echo -1 > $file) 2>/dev/null || echo refused
        done
        (mkdir /sys/fs/cgroup/memory/mine) 2>/dev/null || echo refused
    """
    limits = make_limits(memory="128M")
    assert shell(script, limits=limits).split() == [str(128 << 20), "refused", "refused"]


# Errors.


def test_commands_that_cannot_run(tmp_path):
    os.chmod(tmp_path, 0o777)
    plain = tmp_path / "plain"
    plain.write_text("hello")
    plain.chmod(0o755)
    with ENGINE.create(Guest(), Streams(), None) as instance:
        with pytest.raises(CommandNotFoundError, match="nonesuch: command not found"):
            instance.exec(["nonesuch"])
        with pytest.raises(NotExecutableError, match="/etc/passwd cannot be executed: Permission denied"):
            instance.exec(["/etc/passwd"])
        with pytest.raises(NotExecutableError, match="Exec format error"):
            instance.exec([str(plain)])
        with pytest.raises(UsageError, match="cannot start in /none"):
            instance.exec(["true"], workdir="/none")
    with pytest.raises(UsageError, match="cannot start in /none"):
        run("true", workdir="/none")


def test_a_script_without_its_interpreter(tmp_path):
    os.chmod(tmp_path, 0o777)
    script = tmp_path / "script"
    script.write_text("#!/nonesuch\n")
    script.chmod(0o755)
    with ENGINE.create(Guest(), Streams(), None) as instance:
        with pytest.raises(CommandNotFoundError, match="its interpreter or dynamic linker does not exist"):
            instance.exec([str(script)])


def test_unsupported_is_the_error_for_limits_that_cannot_be():
    from anyvirt.engines.container import _error

    error = _error("LIMITS", "no controller")
    assert isinstance(error, UnsupportedError)
    assert str(error) == "engine container has no limits: no controller"


# Life.


def test_background_processes_end_with_the_command():
    with ENGINE.create(Guest(command=["sh", "-c", "sleep 61 & sleep 0.2"]), Streams(), None) as instance:
        assert instance.wait(10).code == 0
    listing = subprocess.run(["ps", "ax", "-o", "args"], capture_output=True, text=True).stdout
    assert "sleep 61" not in listing.splitlines()


def test_orphans_are_reaped():
    script = "for i in 1 2 3 4 5; do (sleep 0.05 &) ; done; sleep 0.4; ps -A -o stat="
    assert "Z" not in shell(script)


def test_signals_to_the_first_process_reach_the_command():
    script = "trap 'echo got; exit 3' USR1; kill -USR1 1; while :; do sleep 0.05; done"
    status, output, _ = run("/bin/sh", "-c", script)
    assert (status, output) == (3, "got\n")


def test_an_idle_guest_ends_when_asked():
    with ENGINE.create(Guest(), Streams(), None) as instance:
        assert instance.state is State.RUNNING
        assert instance.stop(5).signal == signal.SIGTERM
        assert instance.state is State.STOPPED


def test_what_was_joined_ends_with_the_container():
    instance = ENGINE.create(Guest(), Streams(), None)
    joined = instance.exec(["sleep", "60"])
    instance.close()
    assert joined.wait(5).signal == signal.SIGKILL
    with pytest.raises(GuestStartError, match="the container is stopped"):
        instance.exec(["true"])


def test_pausing_stops_everything_and_a_kill_still_works():
    reader, writer = os.pipe()
    script = "(while :; do echo a; sleep 0.01; done) & while :; do echo b; sleep 0.01; done"
    with ENGINE.create(Guest(command=["sh", "-c", script]), Streams(0, writer, 2), None) as instance:
        os.close(writer)
        assert os.read(reader, 2)
        instance.pause()
        assert instance.state is State.PAUSED
        os.set_blocking(reader, False)
        while _read_some(reader):
            continue
        time.sleep(0.2)
        assert _read_some(reader) is None
        instance.resume()
        os.set_blocking(reader, True)
        assert os.read(reader, 2)
        instance.pause()
        instance.kill()
        assert instance.wait(5).signal == signal.SIGKILL
    os.close(reader)


def _read_some(fd):
    try:
        return os.read(fd, 1 << 16)
    except BlockingIOError:
        return None


def test_closing_a_paused_container():
    instance = ENGINE.create(Guest(command=["sleep", "60"]), Streams(), None)
    instance.pause()
    began = time.monotonic()
    instance.close()
    assert time.monotonic() - began < 3


def test_terminals():
    guest = Guest(command=["sh", "-c", "tty; stty size; test -c /dev/console && echo $TERM; sleep 60"])
    with ENGINE.create(guest, Streams(), TerminalSize(33, 101)) as instance:
        seen = b""
        while seen.count(b"\n") < 3:
            seen += os.read(instance.terminal, 1000)
        term = os.environ.get("TERM") or "xterm"
        assert seen.decode().split("\r\n")[:3] == ["/dev/pts/0", "33 101", term]
        # A shell that is interrupted between two commands still runs the second one.
        time.sleep(0.3)
        os.write(instance.terminal, b"\x03")
        assert instance.wait(5).signal == signal.SIGINT


def test_job_control_on_a_terminal_that_was_joined():
    with ENGINE.create(Guest(), Streams(), None) as instance:
        shell = instance.exec(["sh", "-i"], terminal=TerminalSize(20, 70), env={"PS1": ""})
        os.write(shell.terminal, b"sleep 50\n")
        time.sleep(0.3)
        os.write(shell.terminal, b"\x1a")
        time.sleep(0.3)
        os.write(shell.terminal, b"jobs; stty size; exit 9\n")
        seen = b""
        while b"20 70" not in seen:
            seen += os.read(shell.terminal, 1000)
        assert b"Stopped" in seen
        # A shell with stopped jobs asks once more.
        os.write(shell.terminal, b"exit 9\n")
        assert shell.wait(5).code == 9


def test_several_threads_start_containers_at_once():
    results = []

    def work():
        for _ in range(5):
            results.append(run("sh", "-c", "exit 3")[0])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [3] * 20


def test_a_caller_with_threads_gets_a_keeper_of_its_own():
    script = """
        import threading, time
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        from anyvirt.engines import get
        from anyvirt.guest import Guest
        from anyvirt.instance import Streams
        from anyvirt.linux.container.client import keeper_pid
        with get("container").create(Guest(command=["true"]), Streams(), None) as instance:
            print(instance.wait())
        print(len(open(f"/proc/{keeper_pid()}/maps").read().splitlines()) > 0)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=30
    )
    assert done.stdout == "exit status 0\nTrue\n", done.stderr


def test_no_file_of_the_host_is_left_open_in_the_container(tmp_path):
    secret = os.open(tmp_path / "secret", os.O_CREAT | os.O_RDWR)
    os.set_inheritable(secret, True)
    with ENGINE.create(Guest(command=["sleep", "60"]), Streams(), None) as instance:
        init = int(read_status(instance.pid)["PPid"])
        joined = instance.exec(["sleep", "60"])
        for pid in (instance.pid, joined.pid):
            deadline = (
                time.monotonic() + 30
            )  # until then the dynamic linker may have a file of the container open
            while (open_files := sorted(os.listdir(f"/proc/{pid}/fd"))) != ["0", "1", "2"]:
                assert time.monotonic() < deadline, open_files
                time.sleep(0.01)
        if os.geteuid() == 0:
            targets = [os.readlink(f"/proc/{init}/fd/{fd}") for fd in os.listdir(f"/proc/{init}/fd")]
            assert all(re.match(r"/dev/null|socket:", target) for target in targets), targets
    os.close(secret)


def test_the_environment_is_clean(monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_HOST", "42")
    names = {line.split("=")[0] for line in shell("env", env={"MINE": "1"}).splitlines()}
    assert names - {"PWD", "_", "SHLVL", "OLDPWD"} == {"PATH", "HOME", "MINE"}
