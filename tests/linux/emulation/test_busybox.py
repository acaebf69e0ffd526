"""Debian's static busybox for RISC-V 64: scripts and tools, against its native build on the same kernel.

Both find only busybox's own applets through PATH, so every command of a script is a program executed by the
emulator, not one of the host's.
"""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import threading
import time
from pathlib import Path

import pytest

from .conftest import EMULATOR, run

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.sh"))


@pytest.fixture(scope="module")
def applets(tmp_path_factory, host_busybox, riscv64_busybox):
    """Two directories of links, one name for each applet, to the native and to the foreign busybox."""
    names = subprocess.run(
        [host_busybox, "--list"], capture_output=True, text=True, check=True
    ).stdout.split()
    directories = []
    for busybox in (host_busybox, riscv64_busybox):
        directory = tmp_path_factory.mktemp("applets")
        for name in names:
            (directory / name).symlink_to(busybox)
        directories.append(directory)
    return directories


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.stem for script in SCRIPTS])
def test_script_has_the_same_result_as_natively(script, tmp_path, applets):
    results = []
    for prefix, directory in zip(((), EMULATOR), applets, strict=True):
        work = tmp_path / f"work{len(results)}"
        work.mkdir()
        # A pipe as standard error would mix lines of processes that run at once; each has a file instead.
        command = (*prefix, directory / "sh", "-c", f"exec 2>errors\n{script.read_text()}")
        done = run(command, directory=work, PATH=str(directory))
        errors = (work / "errors").read_text().replace(str(directory), "")
        results.append((done.status, done.output.replace(str(directory), ""), errors))
    assert results[1] == results[0]
    assert results[0][1]


def test_interactive_shell_on_a_terminal(applets, tmp_path):
    """Line editing, Ctrl-C on a running command and job control, through a pseudo-terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        environment = {**os.environ, "PATH": str(applets[1]), "PS1": "> ", "TERM": "dumb"}
        os.execve(EMULATOR[0], [*EMULATOR, str(applets[1] / "sh"), "-i"], environment)

    def expect(text, seconds=15):
        seen = b""
        deadline = time.monotonic() + seconds
        while text not in seen:
            assert time.monotonic() < deadline, seen
            if select.select([terminal], [], [], 0.1)[0]:
                seen += os.read(terminal, 4096)
        return seen

    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 33, 101, 0, 0))
    try:
        expect(b"> ")
        os.write(terminal, b"echo fiX\x7fve $((2+3))\r")
        expect(b"five 5")
        os.write(terminal, b"echo sl''eeping; sleep 100\r")
        expect(b"sleeping\r\n")
        time.sleep(0.3)
        os.write(terminal, b"\x03")
        os.write(terminal, b"echo status $?\r")
        expect(b"status 130")
        os.write(terminal, b"echo sl''eeping; sleep 100\r")
        expect(b"sleeping\r\n")
        time.sleep(0.3)
        os.write(terminal, b"\x1a")
        expect(b"Stopped")
        os.write(terminal, b"kill %1; fg; tty; stty size; exit 7\r")
        assert b"/dev/pts/" in expect(b"33 101\r\n")
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 7
    finally:
        os.close(terminal)


def test_vi_edits_a_file(applets, tmp_path):
    (tmp_path / "text").write_text("one\ntwo\nthree\n")
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        environment = {"PATH": str(applets[1]), "TERM": "vt100", "ANYVIRT_STATE": os.environ["ANYVIRT_STATE"]}
        os.execve(EMULATOR[0], [*EMULATOR, str(applets[1] / "vi"), "text"], environment)

    shown = bytearray()

    def watch():
        try:
            while piece := os.read(terminal, 4096):
                shown.extend(piece)
        except OSError:
            return

    reader = threading.Thread(target=watch)
    reader.start()
    try:
        deadline = time.monotonic() + 30
        while b"three" not in shown:
            assert time.monotonic() < deadline, shown
            time.sleep(0.05)
        for keys in (b"jdd", b"ofour\x1b", b":%s/o/0/\r", b":wq\r"):
            time.sleep(0.3)
            os.write(terminal, keys)
        _, status = os.waitpid(pid, 0)
        reader.join()
        assert os.waitstatus_to_exitcode(status) == 0
        assert (tmp_path / "text").read_text() == "0ne\nthree\nf0ur\n"
    finally:
        os.close(terminal)
