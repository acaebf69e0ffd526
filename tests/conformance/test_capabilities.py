"""Each tick of the capability matrix: tests for every capability, on every engine that claims it."""

import hashlib
import os
import shutil
import signal
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

import anyvirt
from anyvirt.engines import engine_names, get
from anyvirt.engines.engine import Capability, World
from anyvirt.errors import AnyvirtError, UsageError
from anyvirt.guest import Disk, Guest, Limits, Mount, Network, Published
from anyvirt.images.cpio import CpioWriter
from anyvirt.instance import ExitStatus, State, Streams, TerminalSize
from anyvirt.isa.names import Isa
from anyvirt.network.opening import random_mac
from anyvirt.network.user_mode import open_user_network
from anyvirt.pipes import GuestPipes


@pytest.mark.capabilities(Capability.TERMINAL)
def test_terminal_has_a_size_and_controls_the_session(subject):
    session = subject.start(
        subject.guest("stty size </dev/tty; test -t 0 && test -t 1 && echo tty"), (33, 99)
    )
    session.expect(b"33 99\r\n")
    session.expect(b"tty\r\n")
    assert session.instance.wait(20) == ExitStatus(code=0)


@pytest.mark.capabilities(Capability.TERMINAL)
def test_terminal_keys_become_signals(subject):
    session = subject.start(subject.guest("echo ready; sleep 100"), (24, 80))
    session.expect(b"ready")
    time.sleep(0.3)
    os.write(session.instance.terminal, b"\x03")
    assert session.instance.wait(20).shell == 130


@pytest.mark.capabilities(Capability.TERMINAL)
def test_terminal_can_be_resized(subject):
    script = "trap 'stty size; exit 3' WINCH; echo ready; while :; do sleep 0.05; done"
    session = subject.start(subject.guest(script), (24, 80))
    session.expect(b"ready")
    session.instance.resize(TerminalSize(50, 132))
    session.expect(b"50 132")
    assert session.instance.wait(20) == ExitStatus(code=3)


@pytest.mark.capabilities(Capability.EXEC)
@pytest.mark.fresh
def test_exec_runs_further_commands_in_an_idle_guest(subject):
    instance = subject.start(Guest(env={"WHERE": "inside"})).instance
    reader, writer = os.pipe()
    script = "echo $WHERE $EXTRA; pwd; exit 9"
    process = instance.exec(
        (*subject.shell, script), env={"EXTRA": "more"}, workdir="/tmp", streams=Streams(0, writer, writer)
    )
    os.close(writer)
    with os.fdopen(reader) as output:
        assert output.read() == "inside more\n/tmp\n"
    assert process.wait(20) == ExitStatus(code=9)
    assert instance.state is State.RUNNING
    instance.stop(5)
    assert instance.state is State.STOPPED


@pytest.mark.capabilities(Capability.EXEC)
@pytest.mark.fresh
def test_exec_of_a_command_that_does_not_exist_is_an_error_not_a_death(subject):
    instance = subject.start(Guest()).instance
    with pytest.raises(AnyvirtError) as caught:
        instance.exec(("/no/such/program",)).wait(20)
    assert caught.value.exit_code == 127
    assert instance.state is State.RUNNING


@pytest.mark.capabilities(Capability.EXEC, Capability.TERMINAL)
@pytest.mark.fresh
def test_exec_on_a_terminal(subject):
    instance = subject.start(Guest()).instance
    process = instance.exec((*subject.shell, "stty size; read x; echo got $x"), terminal=TerminalSize(20, 60))
    os.write(process.terminal, b"hello\n")
    output = b""
    while b"got hello" not in output:
        output += os.read(process.terminal, 1000)
    assert b"20 60" in output
    assert process.wait(20) == ExitStatus(code=0)


@pytest.mark.capabilities(Capability.PAUSE)
@pytest.mark.fresh
def test_pause_stops_execution_and_resume_continues_it(subject):
    session = subject.start(subject.guest("echo ready; while :; do echo tick; sleep 0.02; done"))
    session.expect(b"tick")
    session.instance.pause()
    assert session.instance.state is State.PAUSED
    session.drain(0.2)
    assert session.silent(0.5)
    session.instance.resume()
    assert session.instance.state is State.RUNNING
    session.expect(b"tick")


@pytest.mark.capabilities(Capability.PAUSE)
@pytest.mark.fresh
def test_a_paused_guest_can_be_killed(subject):
    session = subject.start(subject.guest("echo ready; sleep 100"))
    session.expect(b"ready")
    session.instance.pause()
    session.instance.kill()
    assert session.instance.wait(20).shell == 137


@pytest.mark.fresh
@pytest.mark.capabilities(Capability.SNAPSHOT)
def test_snapshot_goes_on_with_commands_disks_and_shares(subject, tmp_path):
    with (tmp_path / "disk").open("wb") as file:
        file.truncate(32 << 20)
    (tmp_path / "share").mkdir()
    (tmp_path / "share/file").write_text("shared\n")
    count = "i=0; while :; do i=$((i+1)); echo $i; done"
    guest = subject.guest(count, disks=[Disk(tmp_path / "disk")], mounts=[Mount(tmp_path / "share", "/mnt")])
    session = subject.start(guest)
    session.expect(b"\n100\n", 60)
    look = "cat /mnt/file; head -c 6 /dev/vda; ps | grep -c 'sleep 432[1]'"
    instance = session.instance
    null = os.open(os.devnull, os.O_RDWR)
    instance.exec([*subject.shell, "exec sleep 4321"], streams=Streams(null, null, null))
    assert run_in(instance, subject, f"{WRITE.format('before')}; {look}").endswith(b"shared\nbefore1\n")
    instance.snapshot(tmp_path / "s")
    run_in(instance, subject, WRITE.format("behind"))
    names = [name for name in engine_names() if Capability.SNAPSHOT in get(name).capabilities]
    copies = [type(session)(Restored(tmp_path / "s", on), None, None) for on in (None, *names)]
    try:
        assert [copy.instance.engine for copy in copies] == [subject.engine.name, *names]
        for number, copy in enumerate(copies):
            assert run_in(copy.instance, subject, look) == b"shared\nbefore0\n"
            run_in(copy.instance, subject, WRITE.format(number))
        shown = [run_in(copy.instance, subject, "head -c 1 /dev/vda") for copy in copies]
        assert shown == [b"%d" % number for number in range(len(copies))]
        assert run_in(instance, subject, "head -c 6 /dev/vda") == b"behind"
        for each in (session, *copies):
            each.instance.signal(signal.SIGTERM)
            lines = b"".join(iter(lambda reader=each.reader: os.read(reader, 1 << 16), b"")).splitlines()
            assert each.instance.wait(60) == ExitStatus(signal=signal.SIGTERM)
            numbers = [int(line) for line in lines[1:-1]]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    finally:
        for copy in copies:
            copy.close()
        os.close(null)


WRITE = "echo {} | dd of=/dev/vda conv=fsync 2>&1"


class Restored:
    """Starts a guest from a snapshot, as an engine starts one anew."""

    def __init__(self, directory, on):
        self._directory, self._on = directory, on

    def start(self, guest, streams, terminal):
        return anyvirt.restore(self._directory, on=self._on, streams=streams, terminal=terminal)


def run_in(instance, subject, script):
    """What a script that is run beside a guest's command prints."""
    with ExitStack() as stack:
        pipes = GuestPipes(stack, feed=b"", capture=True, limit=None)
        process = instance.exec([*subject.shell, script], streams=pipes.guest_ends)
        stack.callback(process.close)
        pipes.started(process.end_fd)
        pipes.carry(time.monotonic() + 60)
        process.wait(60)
        return bytes(pipes.stdout)


@pytest.mark.capabilities(Capability.SNAPSHOT)
@pytest.mark.fresh
def test_snapshot_of_a_terminal(subject, tmp_path):
    session = subject.start(subject.guest("while read line; do stty size; echo got $line; done"), (24, 80))
    os.write(session.instance.terminal, b"one\n")
    session.expect(b"got one", 60)
    session.instance.snapshot(tmp_path / "s", compress=True)
    session.instance.pause()
    copy = type(session)(Restored(tmp_path / "s", None), None, (33, 99))
    try:
        os.write(copy.instance.terminal, b"two\n")
        copy.expect(b"33 99\r\ngot two\r\n", 60)
        os.write(copy.instance.terminal, b"\x04")
        assert copy.instance.wait(60).code is not None
    finally:
        copy.close()


@pytest.mark.capabilities(Capability.ISOLATION)
def test_isolation_hides_the_host_s_processes(subject):
    # A kernel's own threads have no command line.
    completed = subject.run("for d in /proc/[0-9]*; do head -c 100 $d/cmdline; echo; done")
    assert len([line for line in completed.stdout.splitlines() if line]) < 8


@pytest.mark.capabilities(Capability.ISOLATION, world=World.PROCESS)
def test_isolation_keeps_the_host_s_processes_from_signals(subject):
    assert subject.run(f"kill -0 {os.getpid()}").returncode != 0


@pytest.mark.capabilities(Capability.ISOLATION)
@pytest.mark.fresh
def test_isolation_throws_changes_to_files_away(subject):
    name = f"/etc/anyvirt-conformance-{os.getpid()}"
    assert subject.run(f"echo x > {name} && cat {name}").stdout == b"x\n"
    assert not Path(name).exists()
    assert subject.run(f"cat {name}").returncode != 0
    marker = Path(f"/tmp/anyvirt-conformance-{os.getpid()}")
    subject.run(f"echo x > {marker}")
    assert not marker.exists()


@pytest.mark.capabilities(Capability.ISOLATION)
def test_isolation_gives_a_network_of_its_own_with_loopback_up(subject):
    lines = subject.run("cat /proc/net/dev").stdout.decode().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in lines] == ["lo"]
    if subject.engine.world is World.MACHINE:
        script = "echo x | nc -l -p 5555 & sleep 1; nc 127.0.0.1 5555 </dev/null"
        assert subject.run(script).stdout == b"x\n"
        return
    script = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); "
        "c = socket.create_connection(s.getsockname()); c.sendall(b'x'); print(s.accept()[0].recv(1))"
    )
    assert subject.run(f'"{sys.executable}" -c "{script}"').stdout == b"b'x'\n"


@pytest.mark.capabilities(Capability.ISOLATION, world=World.PROCESS)
@pytest.mark.parametrize(
    "attempt",
    [
        "echo 1 > /proc/sys/kernel/core_uses_pid",
        "echo h > /proc/sysrq-trigger",
        "mount -t tmpfs none /mnt",
        "mknod /tmp/sda b 8 0",
        "cat /proc/kcore > /tmp/x && test -s /tmp/x",
        "hostname stolen",
        "echo 1 > /sys/kernel/mm/ksm/run",
        "dmesg",
    ],
)
def test_isolation_refuses_what_would_reach_the_host(subject, attempt):
    assert subject.run(attempt).returncode != 0


@pytest.mark.capabilities(Capability.ROOTFS)
@pytest.mark.fresh
def test_rootfs_is_all_that_the_guest_sees(subject, rootfs):
    completed = subject.run("cat /etc/marker; ls /", rootfs=rootfs)
    lines = completed.stdout.decode().splitlines()
    assert lines[0] == "this is the guest's own root"
    places = ("bin", "dev", "etc", "lib", "lib64", "mnt", "proc", "run", "sys", "tmp", "usr")
    assert set(lines[1:]) <= set(places)


@pytest.mark.capabilities(Capability.ROOTFS)
@pytest.mark.fresh
def test_rootfs_is_writable_and_unchanged_afterwards(subject, rootfs):
    before = sorted(path.relative_to(rootfs) for path in rootfs.rglob("*"))
    completed = subject.run("echo new > /etc/marker && mkdir /new && cat /etc/marker", rootfs=rootfs)
    assert completed.stdout == b"new\n"
    assert sorted(path.relative_to(rootfs) for path in rootfs.rglob("*")) == before
    assert (rootfs / "etc/marker").read_text() == "this is the guest's own root\n"


@pytest.mark.capabilities(Capability.ROOTFS)
@pytest.mark.fresh
def test_rootfs_without_the_command(subject, rootfs):
    (rootfs / "bin/sh").unlink()
    with pytest.raises(AnyvirtError, match="root filesystem") as caught:
        subject.run("true", rootfs=rootfs)
    assert caught.value.exit_code == 127


@pytest.mark.capabilities(Capability.SHARE)
@pytest.mark.fresh
def test_share_is_the_host_s_own_directory(subject, tmp_path):
    (tmp_path / "in").write_text("from the host\n")
    completed = subject.run(
        "cat /data/in; echo from the guest > /data/out", mounts=[Mount(tmp_path, "/data")]
    )
    assert completed.stdout == b"from the host\n"
    assert (tmp_path / "out").read_text() == "from the guest\n"


@pytest.mark.capabilities(Capability.SHARE)
@pytest.mark.fresh
def test_share_read_only_is_read_only(subject, tmp_path):
    (tmp_path / "in").write_text("kept\n")
    mounts = [Mount(tmp_path, "/data", read_only=True)]
    completed = subject.run("echo lost > /data/in; cat /data/in", mounts=mounts)
    assert completed.stdout == b"kept\n"
    assert b"ead-only" in completed.stderr


@pytest.mark.capabilities(Capability.SHARE)
@pytest.mark.fresh
def test_share_of_one_file(subject, tmp_path):
    (tmp_path / "file").write_text("one file\n")
    mounts = [Mount(tmp_path / "file", "/run/new/place")]
    assert subject.run("cat /run/new/place", mounts=mounts).stdout == b"one file\n"


@pytest.mark.capabilities(Capability.HOSTNAME)
@pytest.mark.fresh
def test_hostname_is_the_guest_s_own(subject):
    before = os.uname().nodename
    assert subject.run("hostname", hostname="guest-7.example").stdout == b"guest-7.example\n"
    assert os.uname().nodename == before


@pytest.mark.capabilities(Capability.LIMITS, world=World.PROCESS)
def test_limits_of_memory_kill_what_exceeds_them(subject):
    script = f'"{sys.executable}" -c "x = bytearray(b\'x\') * (200 << 20); print(len(x))"'
    assert subject.run(script, limits=Limits(memory=1 << 30)).stdout == b"209715200\n"
    assert subject.run(script, limits=Limits(memory=64 << 20)).returncode == 137


@pytest.mark.capabilities(Capability.PIDS)
def test_limits_of_processes_refuse_more(subject):
    script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 5 & done; echo all"
    assert b"all" in subject.run(script + "; kill $(jobs -p)", limits=Limits(pids=64)).stdout
    assert b"all" not in subject.run(script, limits=Limits(pids=8)).stdout


@pytest.mark.capabilities(Capability.LIMITS, world=World.MACHINE)
@pytest.mark.fresh
def test_limits_are_the_size_of_a_machine(subject):
    completed = subject.run("grep MemTotal /proc/meminfo; nproc", limits=Limits(memory=256 << 20, cpus=2))
    _, kibibytes, _, cpus = completed.stdout.split()
    assert 128 << 10 < int(kibibytes) < 256 << 10
    assert cpus == b"2"


@pytest.mark.capabilities(Capability.KERNEL)
@pytest.mark.fresh
def test_kernel_is_the_one_that_was_named(subject):
    completed = subject.run("uname -r; cat /proc/cmdline", append="a.word=7 b.word=8")
    release, words = completed.stdout.decode().splitlines()
    assert subject.kernel.name == f"vmlinux-{release}"
    assert words.endswith(" a.word=7 b.word=8")


@pytest.mark.capabilities(Capability.KERNEL)
@pytest.mark.fresh
def test_kernel_unpacks_the_root_that_was_given(subject, tmp_path):
    path = tmp_path / "root.cpio"
    with path.open("wb") as file, CpioWriter(file) as archive:
        archive.tree(subject.root)
    completed = subject.run("cat /etc/marker; echo more > /more; ls /", rootfs=None, initrd=path)
    assert completed.stdout.startswith(b"this is the guest's own root\n")
    assert b"more" in completed.stdout


@pytest.mark.capabilities(Capability.DISKS)
@pytest.mark.fresh
def test_disks_are_read_and_written(subject, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"first".ljust(1 << 20, b"\0"))
    second.write_bytes(b"second".ljust(1 << 20, b"\0"))
    script = (
        "head -c 5 /dev/vda; head -c 6 /dev/vdb; "
        "echo changed | dd of=/dev/vda bs=512 seek=3 conv=notrunc 2>/dev/null; "
        "echo changed | dd of=/dev/vdb bs=512 seek=3 conv=notrunc 2>/dev/null || echo refused"
    )
    completed = subject.run(script, disks=[Disk(first), Disk(second, read_only=True)])
    assert completed.stdout == b"firstsecondrefused\n"
    assert first.read_bytes()[3 * 512 :].startswith(b"changed\n")
    assert second.read_bytes() == b"second".ljust(1 << 20, b"\0")


@pytest.mark.capabilities(Capability.NETWORK)
@pytest.mark.fresh
def test_network_of_the_user_s_leads_to_the_host_and_back(subject, web, tmp_path):
    try:
        open_user_network(random_mac()).close()
    except UsageError as error:
        pytest.skip(str(error))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    script = (
        f"wget -q -O - http://10.0.2.2:{web.port}/content | sha256sum; cat /etc/resolv.conf; "
        "echo serving; echo from the guest > /tmp/served; while :; do nc -l -p 80 < /tmp/served; done"
    )
    guest = subject.guest(script, network=Network.parse("user"), published=[Published(port, 80)])
    session = subject.start(guest)
    shown = session.expect(b"serving").decode().splitlines()
    assert shown[0].split()[0] == web.digest
    assert shown[1] == "nameserver 10.0.2.3"
    assert read_from_guest(("127.0.0.1", port)) == b"from the guest\n"


@pytest.mark.capabilities(Capability.NETWORK)
@pytest.mark.fresh
def test_network_by_a_tap_is_the_host_and_the_guest(subject, in_namespace, web_in):
    if not os.path.exists("/dev/net/tun"):
        pytest.skip("the host has no /dev/net/tun")

    def scenario():
        with web_in() as web:
            script = (
                f"wget -q -O - http://10.219.0.1:{web.port}/content | sha256sum; "
                "echo serving; echo from the guest > /tmp/served; while :; do nc -l -p 80 < /tmp/served; done"
            )
            session = subject.start(subject.guest(script, network=Network.parse("tap")))
            shown = session.expect(b"serving").decode().splitlines()
            assert shown[0].split()[0] == web.digest
            assert read_from_guest(("10.219.0.2", 80)) == b"from the guest\n"
            session.instance.kill()
            session.instance.wait(20)
            deadline = time.monotonic() + 20
            while "anyvirt0" in (names := [name for _, name in socket.if_nameindex()]):
                assert time.monotonic() < deadline, names

    in_namespace(scenario)


def read_from_guest(address):
    """What a guest sends to whoever connects, once it listens."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(address, timeout=20) as connection:
                if data := connection.recv(100):
                    return data
        except OSError:
            time.sleep(0.1)
    return None


@pytest.mark.capabilities(Capability.VSOCK)
@pytest.mark.fresh
def test_vsock_connects_guest_and_host_both_ways(subject, vsock_program, tmp_path):
    content = os.urandom(2_000_000)
    (tmp_path / "content").write_bytes(content)
    path = tmp_path / "vm"
    script = (
        "/tools/vsock connect 7 < /tools/content | sha256sum; "
        "/tools/vsock connect 8 < /dev/null; echo status $?; exec /tools/vsock listen 1022"
    )
    shutil.copy(vsock_program, tmp_path / "vsock")
    answer = content[::-1]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{path}_7")
        listener.listen()
        listener.settimeout(200)
        guest = subject.guest(script, vsock=path, mounts=[Mount(tmp_path, "/tools", read_only=True)])
        session = subject.start(guest)
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as stream:
            assert stream.read() == content
            connection.sendall(answer)
    shown = session.expect(b"listening").decode().splitlines()
    assert shown[0].split()[0] == hashlib.sha256(answer).hexdigest()
    assert shown[-1] == "status 1", "nobody listens at port 8"
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rb") as stream:
        connection.settimeout(100)
        connection.connect(str(path))
        connection.sendall(b"CONNECT 1022\nfrom the host\n")
        assert stream.readline().startswith(b"OK ")
        assert stream.readline() == b"FROM THE HOST\n"
        connection.shutdown(socket.SHUT_WR)
        assert stream.read() == b""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(100)
        connection.connect(str(path))
        connection.sendall(b"CONNECT 1023\n")
        assert connection.recv(100) == b"", "nobody listens there"


@pytest.mark.capabilities(Capability.DETERMINISM)
@pytest.mark.fresh
def test_determinism_makes_runs_the_same(subject):
    script = "cat; date +%s.%N; head -c 16 /dev/urandom | od -x; cat /proc/uptime; echo err >&2; exit 3"
    one, same, other = (
        subject.run(script, input=b"hello\n" * 20_000, seed=seed, timeout=200) for seed in (7, 7, 8)
    )
    assert one.stdout.startswith(b"hello\n" * 20_000)
    assert (one.returncode, one.stderr) == (3, b"err\n")
    assert one.instructions > 10**8
    assert (one.stdout, one.instructions) == (same.stdout, same.instructions)
    assert other.stdout != one.stdout


@pytest.mark.capabilities(Capability.LIMITS, world=World.PROCESS)
def test_limits_of_cpu_time_slow_down(subject):
    script = f'"{sys.executable}" -c "for i in range(20_000_000): pass"'
    free = subject.run(script)
    limited = subject.run(script, limits=Limits(cpus=0.2), timeout=100)
    used = limited.usage.user_seconds + limited.usage.system_seconds
    assert limited.seconds > 2 * used
    assert free.seconds < limited.seconds


@pytest.mark.capabilities(Capability.FOREIGN_ISA)
def test_foreign_isa_programs_run(subject, riscv64_busybox):
    assert find_isa(riscv64_busybox) is not Isa.host()
    assert subject.run("uname -m").stdout == b"riscv64\n"


def find_isa(path):
    from anyvirt.linux.elf import parse_elf

    return parse_elf(Path(path).read_bytes()).isa


def test_every_capability_is_tested():
    source = Path(__file__).read_text()
    for capability in Capability:
        assert f"capabilities(Capability.{capability.name}" in source


@pytest.mark.fresh
@pytest.mark.capabilities(Capability.DEBUG)
def test_debug_waits_for_gdb_before_the_first_instruction(subject):
    session = subject.start(subject.guest("echo ran; exit 5", gdb=":0"))
    session.expect(b"waiting for gdb at 127.0.0.1:")
    with socket.create_connection(("127.0.0.1", int(session.expect(b"\n")))) as gdb:
        gdb.settimeout(20)
        told = gdb.makefile("rb")
        gdb.sendall(b"$?#3f")
        assert told.read(5) == b"+$T05"
        assert session.silent(0.3)
        gdb.sendall(b"+$c#63")
        session.expect(b"ran\n")
        assert session.instance.wait(20) == ExitStatus(code=5)
        # A machine ends with its command; how is not the machine's to say.
        ended = b"+$W00#" if subject.engine.world is World.MACHINE else b"+$W05#"
        assert ended in told.read()


@pytest.mark.capabilities(Capability.TRACE)
def test_trace_and_coverage_tell_what_was_executed(subject, tmp_path):
    trace, coverage = tmp_path / "trace", tmp_path / "coverage.txt"
    assert subject.run("exit 5", coverage=coverage).returncode == 5
    blocks = [tuple(int(word, 16) for word in line.split()[:2]) for line in coverage.read_text().splitlines()]
    assert len(blocks) > 100
    assert subject.run("exit 5", trace=trace).returncode == 5
    traced = {int(line.partition(":")[0], 16) for line in trace.read_text().splitlines()}
    assert len(traced) > 1000
    assert sum(any(start <= address < end for start, end in blocks) for address in traced) > len(traced) / 2
