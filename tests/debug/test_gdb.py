"""An ordinary gdb debugs programs of the user engine: everything it needs of the server, asked by it."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"
FLAGS = {
    "steps": ("-static",),
    "waits": ("-static",),
    "alone": ("-nostdlib", "-static-pie", "-fPIE", "-Wl,--no-dynamic-linker"),
}
OUTPUT = "counter 12 handled 10 ratio 6 table 10\n"
EMULATOR = Path(__file__).resolve().parents[2] / "src/anyvirt/linux/emulation/__main__.py"


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """The programs, compiled for RISC-V with debugging information."""
    for tool, package in (
        ("gdb-multiarch", "gdb-multiarch"),
        ("riscv64-linux-gnu-gcc", "gcc-riscv64-linux-gnu"),
    ):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool} (package {package})")
    directory = tmp_path_factory.mktemp("programs")
    for name, flags in FLAGS.items():
        source = PROGRAMS / f"{name}.c"
        command = ["riscv64-linux-gnu-gcc", "-g", "-O0", *flags, "-o", directory / name, source]
        subprocess.run(command, check=True, timeout=60)
    return directory


class Guest:
    """A guest that waits for gdb."""

    def __init__(self, program, arguments, address, tier):
        env = {**os.environ, "ANYVIRT_GDB": address, "ANYVIRT_TIER": tier}
        self.program = program
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", EMULATOR, program, *arguments],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        line = self.process.stderr.readline()
        assert line.startswith("anyvirt: waiting for gdb at "), line + self.process.stderr.read()
        self.address = line.split()[-1]

    def gdb(self, script, *, interrupt=None):
        """What gdb prints for a script of commands.

        With `interrupt`, the path of a file to use, Ctrl-C is pressed while the guest runs.
        """
        lines = ["set pagination off", "set confirm off", f"target remote {self.address}", *script]
        if interrupt is not None:
            lines.insert(3, f"python gdb.events.cont.connect(lambda event: open('{interrupt}', 'w').close())")
        words = [word for line in lines for word in ("-ex", line)]
        with subprocess.Popen(
            ["gdb-multiarch", "-nx", "-q", "-batch", *words, self.program],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "LC_ALL": "C"},
        ) as gdb:
            if interrupt is not None:
                deadline = time.monotonic() + 30
                while not interrupt.exists() and time.monotonic() < deadline:
                    time.sleep(0.05)
                time.sleep(0.5)
                gdb.send_signal(signal.SIGINT)
            try:
                shown, _ = gdb.communicate(timeout=60)
            finally:
                gdb.kill()
        return shown

    def end(self):
        """Standard output and how the guest ended."""
        output, errors = self.process.communicate(timeout=30)
        assert "Traceback" not in errors, errors
        return output, self.process.returncode


@pytest.fixture
def start(programs):
    """Start a guest: `start(program, argument)`."""
    guests = []

    def start_guest(program, *arguments, address=":0", tier="interpreter"):
        guests.append(Guest(programs / program, arguments, address, tier))
        return guests[-1]

    yield start_guest
    for guest in guests:
        if guest.process.poll() is None:
            guest.process.kill()
        guest.process.communicate(timeout=30)


@pytest.mark.parametrize("tier", ["interpreter", "region"])
def test_breakpoints_calls_and_data(start, tier):
    guest = start("steps", tier=tier)
    shown = guest.gdb(
        [
            "info registers pc",
            "break work",
            "continue",
            "backtrace",
            "print number",
            "print table",
            "finish",
            "ignore 1 1",
            "continue",
            "step",
            "step",
            "info symbol $pc",
            "up",
            "print number",
            "set var counter = 100",
            "delete",
            "tbreak handler",
            "continue",
        ]
    )
    assert re.search(r"pc\s+0x[0-9a-f]+\s+0x[0-9a-f]+ <_start>", shown)
    assert "Breakpoint 1, work (number=1)" in shown
    assert re.search(r"#1 .* in main \(argc=1, argv=0x[0-9a-f]+\)", shown)
    assert "$1 = 1" in shown
    assert "$2 = {10, 20, 30, 40}" in shown
    assert "Value returned is $3 = 2" in shown
    assert "Breakpoint 1, work (number=3)" in shown
    assert "twice (number=3)" in shown
    assert "twice + " in shown
    assert "$4 = 3" in shown
    assert "SIGUSR1" in shown
    # gdb's end kills what it was to debug.
    assert guest.end() == ("", -signal.SIGKILL)


def test_registers_and_memory(start):
    guest = start("steps")
    shown = guest.gdb(
        [
            "break twice",
            "continue",
            "print $a0",
            "set var $a0 = 5",
            "print $a0",
            "p $zero",
            "set var $ft0.double = 1.5",
            "info registers ft0",
            "set var $frm = 1",
            "p/x $fcsr",
            "set var $frm = 0",
            "x/2i $pc",
            "print/x *(unsigned*)&twice",
            "set var *(unsigned short*)&main = 0x9002",
            "print/x *(unsigned short*)&main",
            "x/wx 8",
            "info auxv",
            "info proc",
            "delete",
            "handle SIGUSR1 nostop noprint pass",
            "continue",
        ]
    )
    assert "$1 = 1" in shown
    assert "$2 = 5" in shown
    assert "$3 = 0" in shown
    assert "double = 1.5" in shown
    assert "$4 = 0x20" in shown
    assert re.search(r"=> 0x[0-9a-f]+ <twice\+\d+>:\s+\w+", shown)
    assert "= 0x9002" in shown
    assert "Cannot access memory at address 0x8" in shown
    assert "AT_ENTRY" in shown
    assert "exited with code 07" in shown
    assert guest.end() == (OUTPUT, 7)


@pytest.mark.parametrize("tier", ["interpreter", "region"])
def test_watchpoints(start, tier):
    guest = start("steps", tier=tier)
    shown = guest.gdb(
        [
            "break main",
            "continue",
            "watch counter",
            "continue",
            "continue",
            "delete",
            "awatch table[2]",
            "continue",
            "delete",
            "rwatch ratio",
            "continue",
            "kill",
        ]
    )
    assert re.search(r"Hardware watchpoint 2: counter\s+Old value = 0\s+New value = 2", shown)
    assert re.search(r"Hardware watchpoint 2: counter\s+Old value = 2\s+New value = 6", shown)
    access = r"Hardware access \(read/write\) watchpoint 3: table\[2\]\s+Old value = 30\s+New value = 6"
    assert re.search(access, shown)
    assert re.search(r"Hardware read watchpoint 4: ratio\s+Value = 0.5", shown)


def test_stepping_instructions_and_lines(start):
    guest = start("steps")
    shown = guest.gdb(
        [
            "break twice",
            "continue",
            "p/x $pc",
            "stepi",
            "p/x $pc",
            "next",
            "next",
            "bt 1",
            "until",
            "kill",
        ]
    )
    places = [int(place, 16) for place in re.findall(r"\$[12] = (0x[0-9a-f]+)", shown)]
    assert 0 < places[1] - places[0] <= 4
    assert "#0  work" in shown


def test_signals_are_shown_and_decided_about(start):
    guest = start("steps")
    shown = guest.gdb(["break handler", "continue", "continue", "bt 1", "continue"])
    assert "Program received signal SIGUSR1" in shown
    assert "Breakpoint 1, handler (number=10)" in shown
    assert guest.end() == (OUTPUT, 7)
    # gdb may swallow it.
    guest = start("steps")
    shown = guest.gdb(["continue", "signal 0"])
    assert "exited with code 07" in shown
    assert guest.end() == (OUTPUT.replace("handled 10", "handled 0"), 7)
    # Not passed on, it never happened.
    guest = start("steps")
    shown = guest.gdb(["handle SIGUSR1 stop print nopass", "continue", "continue"])
    assert "exited with code 07" in shown
    assert "handled 0" in guest.end()[0]


@pytest.mark.parametrize(("what", "name", "number"), [("crash", "SIGSEGV", 11), ("abort", "SIGABRT", 6)])
def test_a_deadly_signal_stops_before_it_kills(start, what, name, number):
    guest = start("waits", what)
    shown = guest.gdb(["continue", "backtrace", "info registers pc", "continue"])
    assert f"Program received signal {name}" in shown
    assert " in main (argc=2" in shown
    assert f"Program terminated with signal {name}" in shown
    assert guest.end()[1] == -number


@pytest.mark.parametrize("tier", ["interpreter", "region"])
@pytest.mark.parametrize("what", ["spin", "block"])
def test_ctrl_c_stops_a_running_program(start, tmp_path, tier, what):
    guest = start("waits", what, tier=tier)
    shown = guest.gdb(["continue", "bt", "p turns > 0", "kill"], interrupt=tmp_path / "running")
    assert "Program received signal SIGINT" in shown
    assert "spin ()" in shown
    assert "$1 = 1" in shown
    assert guest.end()[1] == -signal.SIGKILL


def test_ctrl_c_stops_a_sleeping_program_which_then_sleeps_on(start, tmp_path):
    guest = start("waits", "sleep")
    shown = guest.gdb(["continue", "bt", "continue"], interrupt=tmp_path / "running")
    assert "Program received signal SIGINT" in shown
    assert "sleep" in shown
    assert "exited normally" in shown
    assert guest.end() == ("slept 0\n", 0)


def test_a_signal_from_outside_is_gdb_s_first(start):
    guest = start("waits", "spin")
    send = f"python import threading, os; threading.Timer(1, os.kill, ({guest.process.pid}, 15)).start()"
    shown = guest.gdb([send, "continue", "continue"])
    assert "Program received signal SIGTERM" in shown
    assert "Program terminated with signal SIGTERM" in shown
    assert guest.end()[1] == -signal.SIGTERM


def test_detached_programs_go_on_alone(start):
    guest = start("steps")
    shown = guest.gdb(["break work", "watch counter", "continue", "detach"])
    assert "detached" in shown
    assert guest.end() == (OUTPUT, 7)


def test_execve_is_followed(start):
    guest = start("waits", "exec")
    shown = guest.gdb(["break again", "continue", "continue", "bt", "kill"])
    assert "is executing new program" in shown
    assert "Breakpoint 1, again ()" in shown


def test_forked_children_are_left_alone(start):
    guest = start("waits", "fork")
    shown = guest.gdb(["break child_only", "continue"])
    assert "exited normally" in shown
    assert guest.end() == ("child 3\n", 0)


def test_a_unix_socket_will_do(start, tmp_path):
    guest = start("steps", address=f"unix:{tmp_path}/gdb")
    assert guest.address == f"{tmp_path}/gdb"
    assert "exited with code 07" in guest.gdb(["handle SIGUSR1 nostop pass", "continue"])


def test_position_independent_programs_are_found_where_they_are(start):
    guest = start("alone")
    shown = guest.gdb(["break twice", "continue", "bt", "continue"])
    assert "Breakpoint 1, twice (number=21)" in shown
    assert re.search(r"#1 .* in _start \(\)", shown)
    assert "exited with code 052" in shown
    assert guest.end() == ("", 42)


def test_a_wrong_address_is_one_sentence(programs, tmp_path):
    env = {**os.environ, "ANYVIRT_GDB": "nonsense"}
    done = subprocess.run(
        [sys.executable, "-I", "-S", EMULATOR, programs / "steps"], env=env, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no address for gdb" in done.stderr


def test_the_command_line_waits_for_gdb(programs, anyvirt_command):
    process = subprocess.Popen(
        [*anyvirt_command, "run", "--on", "user", "--gdb", ":0", "--", programs / "steps"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    address = process.stderr.readline().split()[-1]
    words = ["-ex", f"target remote {address}", "-ex", "break twice", "-ex", "continue", "-ex", "detach"]
    done = subprocess.run(
        ["gdb-multiarch", "-nx", "-q", "-batch", *words, programs / "steps"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Breakpoint 1, twice (number=1)" in done.stdout
    output, _ = process.communicate(timeout=30)
    assert output.startswith("counter 12 ")
    assert process.returncode == 7


def connect(guest):
    host, _, port = guest.address.rpartition(":")
    return socket.create_connection((host, int(port)), 10)


@pytest.mark.parametrize("data", [b"", b"$c#63", b"+$vCont;s#b8", b"\x03$" + bytes(range(256)) * 300])
def test_a_debugger_that_hangs_up_leaves_the_program_alone(start, data):
    guest = start("steps")
    with connect(guest) as line:
        line.sendall(data)
        time.sleep(0.2)
    assert guest.end() == (OUTPUT, 7)


def test_system_calls_and_points_work_while_single_stepping(start):
    guest = start("waits", "sleep")
    shown = guest.gdb(["break sleep", "continue", "delete", "stepi 30", "finish", "next", "next", "continue"])
    assert "Breakpoint 1, " in shown
    assert 'if (!strcmp(what, "crash"))' in shown
    assert "exited normally" in shown
    assert guest.end() == ("slept 0\n", 0)
