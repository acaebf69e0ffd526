"""What takes part in a measurement: tiers on a bare executor, the user engine, qemu-user, the host itself.

A contender is asked for one `Sample` of a program at a time. Between two samples of one contender the others
have theirs, so that what else the machine does falls on all alike.
"""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from guest import Program
from processes import Sample, run_process

import anyvirt.linux.emulation.__main__ as emulator_start
from anyvirt.cpu.tiers import TIER_VARIABLE

QEMU = shutil.which("qemu-riscv64-static") or shutil.which("qemu-riscv64")
STATES = ("empty", "cold", "warm")
_EMULATOR = Path(emulator_start.__file__)


class BareExecutor:
    """A tier alone: the program is loaded before and served two system calls; its first run heats it."""

    def __init__(self, tier, memory):
        self.name = tier if memory == "flat" else f"{tier}/{memory}"
        self._tier, self._memory = tier, memory
        self._programs = {}

    def first(self, work):
        """The run in which everything is new to the executor."""
        program = Program(work.riscv64, work.arguments, tier=self._tier, memory=self._memory)
        self._programs = {work.name: program}
        return self._timed(program)

    def heat(self, work, seconds):
        """Run for at least so long: what compiles code does it beside the guest."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.sample(work)

    def sample(self, work):
        """A run in which the executor knows the code."""
        program = self._programs[work.name]
        program.restart()
        return self._timed(program)

    @staticmethod
    def _timed(program):
        begin = time.perf_counter()
        output = program.run()
        return Sample(time.perf_counter() - begin, output=output.encode() + b"\n")


class Command:
    """Whole processes: `prefix` starts the build for `machine` ("riscv64" or "native")."""

    def __init__(self, name, machine, prefix=(), *, without_start=False):
        self.name = name
        self._machine, self._prefix = machine, prefix
        self._without_start = without_start

    def first(self, work):
        """A run that is not counted."""
        return self.sample(work)

    def sample(self, work):
        """A run; with `without_start`, less the time that a run of the program without work takes."""
        command = (*self._prefix, getattr(work, self._machine), *work.arguments)
        sample = run_process(command, stdin=work.stdin)
        if not self._without_start:
            return sample
        start = run_process(command[: len(self._prefix) + 1])
        return Sample(max(sample.seconds - start.seconds, 1e-6), sample.user, sample.system, sample.output)


class UserEngine:
    """The user engine as a whole process, with caches in one of three states.

    empty: nothing is on disk, as on the day of the installation. cold: the tiers' own code is there, and no
    translation of any program. warm: the same program has run before.
    """

    def __init__(self, tier, state, directory, nothing):
        """`nothing` is a program that ends at once: it brings the tiers' own code into the cache."""
        self.name = f"{tier} {state}"
        self._tier, self._state = tier, state
        self._directory = Path(tempfile.mkdtemp(prefix=f"{tier}-{state}-", dir=directory))
        self._prepared = self._directory / "prepared"
        self._prepared.mkdir()
        if state != "empty":
            self._run((nothing,), os.devnull, self._prepared)

    def _run(self, command, stdin, state):
        environment = {"ANYVIRT_STATE": os.fspath(state), TIER_VARIABLE: self._tier}
        start = (sys.executable, "-I", "-S", _EMULATOR)
        return run_process((*start, *command), environment=environment, stdin=stdin)

    def first(self, work):
        """A run that is not counted; for `warm`, it fills the cache."""
        warm = self._directory / "warm"
        shutil.rmtree(warm, ignore_errors=True)
        shutil.copytree(self._prepared, warm, dirs_exist_ok=True)
        return self._run((work.riscv64, *work.arguments), work.stdin, warm)

    def sample(self, work):
        """A run with the cache in its state."""
        command = (work.riscv64, *work.arguments)
        if self._state == "warm":
            return self._run(command, work.stdin, self._directory / "warm")
        # Each in its own place: a compiler may go on writing there after its guest has ended.
        fresh = Path(tempfile.mkdtemp(dir=self._directory))
        shutil.copytree(self._prepared, fresh, dirs_exist_ok=True)
        try:
            return self._run(command, work.stdin, fresh)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def count_instructions(work, directory):
    """Guest instructions of a run in the user engine."""
    counts = Path(directory, "instructions")
    script = Path(__file__).with_name("counting.py")
    run_process((sys.executable, script, counts, work.riscv64, *work.arguments), stdin=work.stdin)
    return int(counts.read_text())
