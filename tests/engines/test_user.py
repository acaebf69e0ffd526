"""The user engine: what it offers, refuses, and how its instances live, with real RISC-V programs."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import anyvirt
from anyvirt.engines import get
from anyvirt.engines.engine import Capability
from anyvirt.errors import CommandNotFoundError, GuestStartError, NotExecutableError, UnsupportedError
from anyvirt.guest import Guest
from anyvirt.instance import State, Streams, TerminalSize
from anyvirt.isa.names import Isa
from anyvirt.linux.program import Program

ENGINE = get("user")
pytestmark = pytest.mark.skipif(not ENGINE.probe().available, reason=ENGINE.probe().reason or "available")


@pytest.fixture(scope="module")
def shell(riscv64_busybox):
    """The words that run a shell script in the guest."""
    return (str(riscv64_busybox), "sh", "-c")


def test_it_describes_itself():
    assert ENGINE.capabilities == {
        Capability.TERMINAL,
        Capability.EXEC,
        Capability.PAUSE,
        Capability.ROOTFS,
        Capability.FOREIGN_ISA,
        Capability.DEBUG,
        Capability.TRACE,
    }
    assert ENGINE.weight > get("container").weight
    assert ENGINE.probe().details["isa"] == "riscv64"


def test_a_probe_does_not_import_the_compiler():
    code = (
        "import sys; from anyvirt.engines import get; assert get('user').probe() is not None; "
        "print('llvmlite' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_another_host_is_refused_with_its_name(monkeypatch):
    machine = os.uname_result(("Linux", "h", "6", "1", "aarch64"))
    monkeypatch.setattr(os, "uname", lambda: machine)
    availability = type(ENGINE)().probe()
    assert not availability.available
    assert "aarch64" in availability.reason
    assert availability.remedy


def test_too_little_address_space_is_a_reason():
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))

    code = "from anyvirt.engines import get; a = get('user').probe(); print(a.available, a.reason, a.remedy)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, preexec_fn=limit
    )
    assert done.stdout.startswith("False no address space for a guest: ")
    assert "ulimit -v" in done.stdout


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (Program("/bin/x", "/bin/x", Isa.X86_64, False), "x86_64"),
        (Program("/bin/x", "/bin/x", Isa.RISCV32, False), "riscv32"),
    ],
)
def test_it_refuses_what_it_cannot_execute(program, reason):
    assert reason in ENGINE.refusal(program)


@pytest.mark.parametrize("dynamic", [False, True])
def test_it_executes_riscv64_programs(dynamic):
    assert ENGINE.refusal(Program("/bin/x", "/bin/x", Isa.RISCV64, dynamic)) is None


def test_a_guest_runs_and_is_chosen_without_being_named(shell):
    done = anyvirt.run([*shell, "uname -m; exit 5"], capture_output=True)
    assert (done.stdout, done.status.code) == (b"riscv64\n", 5)


def test_input_environment_and_working_directory_reach_the_guest(shell, tmp_path):
    done = anyvirt.run(
        [*shell, "cat; echo $CHOSEN; pwd"],
        on="user",
        input=b"given\n",
        env={"CHOSEN": "value"},
        workdir=str(tmp_path),
        capture_output=True,
    )
    assert done.stdout == f"given\nvalue\n{tmp_path}\n".encode()


def test_a_death_by_signal_is_seen(shell):
    done = anyvirt.run([*shell, "kill -SEGV $$"], on="user", capture_output=True)
    assert done.status.signal == signal.SIGSEGV
    assert done.status.shell == 139


def test_an_instance_pauses_resumes_and_executes_more(shell, tmp_path):
    guest = Guest(command=(*shell, f"while :; do echo x >> {tmp_path}/log; sleep 0.02; done"))
    null = os.open(os.devnull, os.O_RDWR)
    log = tmp_path / "log"
    try:
        with ENGINE.start(guest, Streams(null, null, null)) as instance:
            deadline = time.monotonic() + 20
            while not log.exists():
                assert time.monotonic() < deadline
                time.sleep(0.02)
            instance.pause()
            assert instance.state is State.PAUSED
            time.sleep(0.1)
            size = log.stat().st_size
            time.sleep(0.3)
            assert log.stat().st_size == size
            instance.resume()
            while log.stat().st_size == size:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            process = instance.exec([*shell, "exit 9"], streams=Streams(null, null, null))
            assert process.wait(20).code == 9
        assert instance.state is State.STOPPED
    finally:
        os.close(null)


def test_a_guest_has_a_terminal_of_its_own(shell):
    guest = Guest(command=(*shell, "tty > /dev/null && stty size"))
    with ENGINE.start(guest, Streams(), TerminalSize(44, 111)) as instance:
        seen = b""
        while b"\n" not in seen:
            seen += os.read(instance.terminal, 100)
        assert seen == b"44 111\r\n"
        assert instance.wait(20).code == 0


def test_a_guest_that_runs_too_long_is_killed_with_all_it_started(shell, tmp_path):
    with pytest.raises(anyvirt.GuestTimeoutError):
        anyvirt.run([*shell, f"(sleep 0.6; touch {tmp_path}/late) & sleep 50"], on="user", timeout=0.3)
    time.sleep(0.8)
    assert not (tmp_path / "late").exists()


def test_options_it_cannot_honour_are_refused(shell):
    with pytest.raises(UnsupportedError, match="--memory"):
        anyvirt.run([*shell, "true"], on="user", memory="64M")


def test_bad_commands_are_refused_before_anything_starts(tmp_path):
    with pytest.raises(CommandNotFoundError):
        anyvirt.run(["/no/such/program"], on="user")
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(100))
    damaged.chmod(0o755)
    with pytest.raises(NotExecutableError):
        anyvirt.run([str(damaged)], on="user")
    with pytest.raises(NotExecutableError, match="x86_64"):
        anyvirt.run(["true"], on="user")


@pytest.mark.skipif(
    not shutil.which("riscv64-linux-gnu-gcc"), reason="needs riscv64-linux-gnu-gcc (gcc-riscv64-linux-gnu)"
)
def test_a_dynamic_program_without_its_linker_is_told_so(tmp_path):
    source = tmp_path / "dynamic.c"
    source.write_text("int main(void) { return 0; }\n")
    command = ["riscv64-linux-gnu-gcc", "-Wl,--dynamic-linker=/no/linker", "-o", tmp_path / "dynamic", source]
    subprocess.run(command, check=True)
    done = anyvirt.run([str(tmp_path / "dynamic")], on="user", capture_output=True)
    assert done.status.code == 127
    assert b"/no/linker" in done.stderr
    assert done.stderr.count(b"\n") == 1


@pytest.fixture
def root(tmp_path, riscv64_busybox):
    """A root of busybox alone."""
    root = tmp_path / "root"
    for place in ("bin", "etc"):
        (root / place).mkdir(parents=True)
    shutil.copy(riscv64_busybox, root / "bin/busybox")
    for name in ("sh", "cat", "env", "id", "ls", "pwd", "sleep", "stty", "tty"):
        (root / "bin" / name).symlink_to("busybox")
    return root


def _run_in(root, script, **parts):
    done = anyvirt.run(["sh", "-c", script], on="user", rootfs=root, capture_output=True, **parts)
    assert done.stderr == b""
    return done.stdout.decode()


def test_a_root_of_its_own_has_a_clean_environment_and_directory(root, monkeypatch):
    monkeypatch.setenv("LEAKED", "from the caller")
    monkeypatch.delenv("TERM", raising=False)
    lines = _run_in(root, "pwd; env", env={"GIVEN": "value"}).splitlines()
    assert lines[0] == "/"
    assert {line.partition("=")[0] for line in lines[1:]} == {"PATH", "HOME", "GIVEN", "PWD", "SHLVL"}
    assert _run_in(root, "pwd", workdir="/etc") == "/etc\n"


def test_variables_for_the_guest_s_linker_are_not_for_the_host_s(root):
    lines = _run_in(root, "env", env={"LD_PRELOAD": "/no/such.so", "LD_DEBUG": "all"}).splitlines()
    assert {"LD_PRELOAD=/no/such.so", "LD_DEBUG=all"} < set(lines)
    assert not [line for line in lines if "ANYVIRT" in line]


def test_a_directory_that_is_not_there_is_a_mistake_of_the_user_s(root):
    done = anyvirt.run(["/bin/sh"], on="user", rootfs=root, workdir="/missing", capture_output=True)
    assert done.status.code == 2
    assert done.stderr == b"anyvirt: the command cannot start in /missing: No such file or directory\n"


def test_further_commands_join_the_root_and_see_what_was_changed(root):
    reader, writer = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    streams = Streams(null, writer, writer)
    with ENGINE.start(Guest(rootfs=root), streams) as instance:
        first = instance.exec(["sh", "-c", "echo changed > /etc/new; id -u"], streams=streams)
        assert first.wait(30).code == 0
        second = instance.exec(["sh", "-c", "pwd; cat new"], workdir="/etc", streams=streams)
        assert second.wait(30).code == 0
        assert instance.state is State.RUNNING
    with pytest.raises(GuestStartError, match="stopped"):
        instance.exec(["sh"])
    os.close(writer)
    with os.fdopen(reader) as output:
        assert output.read() == "0\n/etc\nchanged\n"
    os.close(null)
    assert not (root / "etc/new").exists()


def test_a_guest_in_a_root_has_a_terminal_with_a_name(root):
    guest = Guest(command=("sh", "-c", "tty && stty size"), rootfs=root)
    with ENGINE.start(guest, Streams(), TerminalSize(44, 111)) as instance:
        seen = b""
        while seen.count(b"\n") < 2:
            seen += os.read(instance.terminal, 100)
        assert seen.startswith(b"/dev/pts/")
        assert seen.endswith(b"\r\n44 111\r\n")
        assert instance.wait(20).code == 0


@pytest.mark.parametrize("options", [{"trace": "t"}, {"coverage": "c"}, {"gdb": ":0"}], ids=str)
def test_recording_and_debugging_in_a_root_are_refused(options, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parts = {name: tmp_path / value if name != "gdb" else value for name, value in options.items()}
    with pytest.raises(UnsupportedError, match="root of its own"):
        ENGINE.start(Guest(command=("sh",), rootfs=root, **parts), Streams())


def test_the_emulator_runs_from_wherever_the_package_is(shell, tmp_path):
    """As installed: without the checkout on the path, from a directory full of misleading modules."""
    source = Path(anyvirt.__file__).parent
    shutil.copytree(source, tmp_path / "site" / "anyvirt", ignore=shutil.ignore_patterns("__pycache__"))
    trap = tmp_path / "trap"
    trap.mkdir()
    for name in ("ctypes.py", "os.py", "errno.py", "anyvirt.py"):
        (trap / name).write_text("raise SystemExit('imported from the working directory')\n")
    emulator = tmp_path / "site/anyvirt/linux/emulation/__main__.py"
    done = subprocess.run(
        [sys.executable, "-I", "-S", emulator, *shell, "echo fine"],
        cwd=trap,
        env={**os.environ, "PYTHONPATH": str(trap)},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("fine\n", "")
