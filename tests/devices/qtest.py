"""QEMU's devices as an oracle: its qtest protocol loads from and stores to them, and reports interrupt lines.

The machine stands still: no CPU runs and no time passes.
"""

import json
import shutil
import socket
import subprocess

import pytest

EMULATOR = "qemu-system-riscv64"
LETTERS = {1: "b", 2: "w", 4: "l", 8: "q"}


class Qtest:
    """A machine `virt` with two harts."""

    def __init__(self, directory, *options):
        if shutil.which(EMULATOR) is None:
            pytest.skip(f"{EMULATOR} is not installed (Debian: qemu-system-misc)")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(directory / "qmp"))
        listener.listen()
        listener.settimeout(60)
        machine = ("-machine", "virt", "-smp", "2", "-m", "128", "-accel", "tcg", "-S")
        quiet = ("-display", "none", "-nodefaults", "-rtc", "base=2024-01-01,clock=vm", "-qtest-log", "none")
        self._process = subprocess.Popen(
            [EMULATOR, *machine, *quiet, *options, "-qtest", "stdio", "-qmp", f"unix:{directory / 'qmp'}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
        )
        connection, _ = listener.accept()
        listener.close()
        connection.settimeout(60)
        self._monitor = connection.makefile("rw")
        connection.close()
        self._monitor.readline()
        self.command("qmp_capabilities")
        self.lines = {}
        """The levels of the lines that are watched, by number."""

    def close(self):
        """End it."""
        self._monitor.close()
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def read(self, address, size):
        """Load."""
        return int(self._say(f"read{LETTERS[size]} {address:#x}").split()[1], 0) & (1 << 8 * size) - 1

    def write(self, address, size, value):
        """Store."""
        self._say(f"write{LETTERS[size]} {address:#x} {value:#x}")

    def load(self, address, length):
        """Bytes of memory."""
        return bytes.fromhex(self._say(f"read {address:#x} {length:#x}").split()[1][2:])

    def store(self, address, data):
        """Store bytes into memory."""
        self._say(f"write {address:#x} {len(data):#x} 0x{data.hex()}")

    def path(self, kind):
        """Where the device of a kind is in QEMU's tree of objects."""
        for parent in ("/machine/unattached", "/machine"):
            for child in self.command("qom-list", path=parent):
                if child["type"] == f"child<{kind}>":
                    return f"{parent}/{child['name']}"
        raise LookupError(kind)

    def watch_outputs(self, path):
        """Follow what a device drives; of one device only."""
        self._say(f"irq_intercept_out {path}")

    def watch_inputs(self, path):
        """Follow what others drive instead of the device; of one device only."""
        self._say(f"irq_intercept_in {path}")

    def drive(self, path, number, level):
        """Set an input of a device."""
        self._say(f"set_irq_in {path} unnamed-gpio-in {number} {int(level)}")

    def _say(self, words):
        self._process.stdin.write(words + "\n")
        while True:
            answer = self._process.stdout.readline().split()
            if not answer or answer[0] not in ("OK", "IRQ"):
                raise RuntimeError(f"{words}: {answer}")
            if answer[0] == "OK":
                return " ".join(answer)
            self.lines[int(answer[2])] = answer[1] == "raise"

    def command(self, name, **arguments):
        """Say something to its monitor, and return the answer."""
        self._monitor.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self._monitor.flush()
        while "return" not in (answer := json.loads(self._monitor.readline())):
            assert "error" not in answer, answer
        return answer["return"]
