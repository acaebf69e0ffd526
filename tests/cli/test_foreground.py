"""A guest in the foreground of a terminal: raw mode, window size, keys and signals, on every engine."""

import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

from anyvirt.engines import get

ENGINES = ("native", "container")


class Terminal:
    """A terminal as a terminal emulator gives it, with a command line in its foreground."""

    def __init__(self, command):
        self.fd, line = os.openpty()
        self.resize(30, 90)
        self.before = termios.tcgetattr(line)
        self.line = line
        self.process = subprocess.Popen(
            command,
            stdin=line,
            stdout=line,
            stderr=line,
            start_new_session=True,
            preexec_fn=self._control,  # noqa: PLW1509
        )
        self.output = b""

    @staticmethod
    def _control():
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def resize(self, rows, columns):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def type(self, keys):
        os.write(self.fd, keys)

    def expect(self, text, seconds=20):
        """Read until `text` has been shown, from after what was last expected."""
        deadline = time.monotonic() + seconds
        while text not in self.output:
            ready = select.select([self.fd], [], [], max(0, deadline - time.monotonic()))[0]
            assert ready, f"{text!r} was not shown; what was shown: {self.output!r}"
            self.output += os.read(self.fd, 4096)
        before, _, self.output = self.output.partition(text)
        return before

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.fd)
        os.close(self.line)


@pytest.fixture(params=ENGINES)
def terminal(request, anyvirt_command):
    """Starts a shell script on an engine in the foreground of a terminal."""
    availability = get(request.param).probe()
    if not availability.available:
        pytest.skip(f"engine {request.param} is not available: {availability.reason}")
    terminals = []

    def terminal(script):
        terminals.append(Terminal((*anyvirt_command, "run", "--on", request.param, "--", "sh", "-c", script)))
        return terminals[-1]

    yield terminal
    for opened in terminals:
        opened.close()


def test_the_guest_has_a_controlling_terminal_of_the_right_size(terminal):
    session = terminal("test -t 0 && test -t 1 && stty size </dev/tty; exit 3")
    session.expect(b"30 90\r\n")
    assert session.process.wait(20) == 3


def test_control_c_interrupts_the_guest(terminal):
    session = terminal("echo ready; sleep 100")
    session.expect(b"ready")
    time.sleep(0.1)
    session.type(b"\x03")
    assert session.process.wait(20) == 128 + signal.SIGINT


def test_one_control_c_is_one_interrupt(terminal):
    session = terminal(
        "trap 'n=$((n+1)); echo count $n' INT; echo ready; for i in 1 2 3 4 5 6; do sleep 0.1; done; exit 4"
    )
    session.expect(b"ready")
    session.type(b"\x03")
    session.expect(b"count 1")
    assert session.process.wait(20) == 4
    assert b"count 2" not in session.output


def test_a_new_window_size_reaches_the_guest(terminal):
    session = terminal("trap 'stty size; exit 5' WINCH; echo ready; while :; do sleep 0.05; done")
    session.expect(b"ready")
    session.resize(44, 120)
    session.expect(b"44 120")
    assert session.process.wait(20) == 5


def test_the_guest_may_read_single_keys(terminal):
    session = terminal("stty raw -echo; echo ready; dd bs=1 count=1 2>/dev/null | od -An -c; stty sane")
    session.expect(b"ready")
    session.type(b"\x1a")
    session.expect(b"032")
    assert session.process.wait(20) == 0


def test_the_caller_s_terminal_is_as_it_was(terminal):
    session = terminal("stty -echo raw; echo ready; kill -9 $$")
    session.expect(b"ready")
    assert session.process.wait(20) == 128 + 9


def test_the_caller_s_modes_are_restored_after_a_guest_in_a_world_of_its_own(terminal, request):
    session = terminal("echo ready; read line; echo got $line")
    session.expect(b"ready")
    session.type(b"hello\r")
    session.expect(b"got hello")
    assert session.process.wait(20) == 0
    assert termios.tcgetattr(session.line) == session.before


def test_signals_sent_to_the_command_line_reach_the_guest(terminal):
    session = terminal("trap 'echo term; exit 6' TERM; echo ready; while :; do sleep 0.05; done")
    session.expect(b"ready")
    session.process.terminate()
    session.expect(b"term")
    assert session.process.wait(20) == 6


def test_the_end_of_a_guest_is_never_missed():
    """The end races with the beginning of the wait for it; each run gives the race another chance."""
    script = """
from anyvirt.cli.foreground import run_in_foreground
from anyvirt.engines import get
from anyvirt.guest import Guest

for _ in range(500):
    assert run_in_foreground(get("native"), Guest(command=["true"])).status.code == 0
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, stdin=subprocess.DEVNULL)
