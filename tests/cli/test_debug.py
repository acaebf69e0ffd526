"""`anyvirt debug`: by a script, by commands, by a pipe, and on a terminal with completion and Ctrl-C."""

import os
import pty
import re
import select
import subprocess
import time

import pytest

import anyvirt
from anyvirt.isa.riscv64_system import riscv64_system

pytestmark = pytest.mark.timeout(400)
TIMEOUT = 200
PROGRAM = """
        lui t0, 0x10000
        addi t1, zero, 72
        sb t1, 0(t0)
        addi t1, zero, 10
        sb t1, 0(t0)
wait:   lbu t2, 5(t0)
        andi t2, t2, 1
        beq t2, zero, wait
        lbu t2, 0(t0)
        sb t2, 0(t0)
        addi s0, s0, 1
        jal zero, wait
"""


@pytest.fixture
def firmware(tmp_path):
    path = tmp_path / "firmware.bin"
    path.write_bytes(riscv64_system.assemble(PROGRAM, pc=0x8000_0000))
    return path


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory):
    """The interpreter is there: what is waited for below is not its compiler."""
    path = tmp_path_factory.mktemp("firmware") / "none"
    path.write_bytes(bytes(4))
    anyvirt.Machine(firmware=path, memory="16M", tier="interpreter")


@pytest.fixture
def words(anyvirt_command, firmware):
    return [
        *anyvirt_command,
        "debug",
        "--firmware",
        str(firmware),
        "--memory",
        "16M",
        "--tier",
        "interpreter",
    ]


def test_commands_and_scripts_are_done_in_order(words, tmp_path):
    script = tmp_path / "script"
    script.write_text("break 0x80000014 if $t1 == 10\ncontinue\n")
    symbols = tmp_path / "System.map"
    symbols.write_text("0000000080000014 t wait\n")
    done = subprocess.run(
        [
            *words,
            "--counted",
            "--symbols",
            symbols,
            "-x",
            script,
            "-e",
            "registers t1",
            "-e",
            "quit",
            "-e",
            "echo no",
        ],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "breakpoint 1 at 0x80000014 <wait>"
    assert "H" in lines
    assert lines[-3] == "breakpoint 1"
    assert re.fullmatch(r"hart 0 M 0x80000014 <wait>: \w+  lbu t2, 5\(t0\)", lines[-2])
    assert lines[-1] == "t1         000000000000000a  10"


def test_a_machine_with_a_history_goes_back(words):
    commands = ("break 0x80000014 if $t1 == 10", "continue", "rsi 2", "rsi 1000000", "continue", "rc")
    done = subprocess.run(
        [*words, "--history", *(word for command in commands for word in ("-e", command))],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line and line != "H"]
    assert lines[1] == lines[6] == "breakpoint 1"
    assert lines[2] == lines[7] and lines[2].startswith("hart 0 M 0x80000014:")
    assert lines[4] == lines[8] == "the history begins here"
    assert lines[5] == lines[9] and lines[5].startswith("hart 0 M 0x1000:")


def test_a_mistake_in_a_script_ends_it_with_a_sentence(words):
    done = subprocess.run(
        [*words, "-e", "brake here", "-e", "echo no"], capture_output=True, text=True, timeout=TIMEOUT
    )
    assert done.returncode == 2
    assert done.stderr == "anyvirt: there is no command brake: `help` lists them\n"
    assert done.stdout == ""


def test_commands_come_through_a_pipe_and_mistakes_are_told(words):
    done = subprocess.run(
        words,
        input="step 3\nnonsense\nattach\nregisters pc\n",
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr
    assert "there is no command nonsense" in done.stdout
    assert "no terminal to attach" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("pc         000000000000100c")


def test_a_display_is_asked_for(words, tmp_path):
    pytest.importorskip("PIL")
    shown = tmp_path / "shown.ppm"
    done = subprocess.run(
        [*words, "--display", "64x32", "-e", f"screenshot {shown}"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr
    assert shown.read_bytes() == b"P6\n64 32\n255\n" + bytes(3 * 64 * 32)
    done = subprocess.run([*words, "-e", "screenshot x.png"], capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 2
    assert "this machine has no display" in done.stderr


def test_nothing_to_run_is_a_mistake(anyvirt_command):
    done = subprocess.run([*anyvirt_command, "debug"], capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 2
    assert "name a kernel or firmware" in done.stderr


class Terminal:
    """The command on a terminal of its own."""

    def __init__(self, words):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="dumb", INPUTRC="/dev/null")
            os.execvp(words[0], words)
        self.seen = ""
        self.position = 0

    def expect(self, pattern):
        deadline = time.monotonic() + TIMEOUT
        while (match := re.compile(pattern).search(self.seen, self.position)) is None:
            ready, _, _ = select.select([self.fd], [], [], max(deadline - time.monotonic(), 0))
            assert ready, f"{pattern!r} does not come: {self.seen!r}"
            try:
                self.seen += os.read(self.fd, 4096).decode(errors="replace")
            except OSError:
                raise AssertionError(f"ended before {pattern!r}: {self.seen!r}") from None
        self.position = match.end()
        return match

    def send(self, text):
        os.write(self.fd, text.encode())

    def end(self):
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            try:
                if not os.read(self.fd, 4096):
                    break
            except OSError:
                break
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def terminal(words):
    opened = Terminal(words)
    yield opened
    os.close(opened.fd)


def test_a_session_on_a_terminal(terminal):
    terminal.expect(r"hart 0 M 0x1000")
    terminal.expect(r"\(anyvirt\) ")
    terminal.send("registers mstat\t\n")
    terminal.expect(r"mstatus    0000000a00000000")
    terminal.send("step\n")
    terminal.expect(r"0x1004: ")
    terminal.expect(r"\(anyvirt\) ")
    terminal.send("\n")
    terminal.expect(r"0x1008: ")
    terminal.send("continue\n")
    terminal.expect(r"H\r?\n")
    terminal.send("\x03")
    terminal.expect(r"stopped\r?\nhart 0 M 0x800000[0-9a-f]{2}")
    terminal.expect(r"\(anyvirt\) ")
    terminal.send("\x03")
    terminal.expect(r"\(anyvirt\) ")
    terminal.send("attach\n")
    terminal.expect(r"Ctrl-\] comes back")
    terminal.send("guest")
    terminal.expect("guest")
    terminal.send("\x1d")
    terminal.expect(r"stopped")
    terminal.expect(r"\(anyvirt\) ")
    terminal.send("p $s0 == 5\n")
    terminal.expect(r"0x1 = 1")
    terminal.send("nonsense\n")
    terminal.expect("there is no command nonsense")
    terminal.send("quit\n")
    assert terminal.end() == 0


def test_the_end_of_input_is_the_end(terminal):
    terminal.expect(r"\(anyvirt\) ")
    terminal.send("\x04")
    assert terminal.end() == 0
