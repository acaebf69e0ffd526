"""Speed of the interpreter tier against Bochs, both measured in one run.

    python benchmarks/cpu/bochs.py [--bochs PROGRAM[,DISPLAY]]... [--share DIRECTORY] [--memory M,...]
                                   [--repeats N] [--scale F] [--json FILE] [PROGRAM...]

The interpreter tier runs the kernels on a bare RISC-V CPU, in flat memory (as in a process) and in a
machine's memory. Bochs runs the same C, compiled by gcc -O2 for x86-64, on a PC that has booted into it:
64-bit mode, paging on, interrupts off, no operating system. Bochs emulates a whole PC meanwhile; its timers
are set to a hundred million instructions a second of the guest's time, about what it executes, and its
clock waits for nobody.

The contenders take turns with each kernel; Bochs is stopped (SIGSTOP) while others have theirs. Its
instructions are what its time stamp counter counts: one each, and one for each repetition of a string
instruction. Ratios are made within a turn, figures are medians over the turns. "rate" is the tier's MIPS
divided by Bochs', "time" is Bochs' time for the kernel divided by the tier's: above 1 the tier is the faster.
The two differ because the kernels are not equally many instructions on both instruction sets.

Debian's Bochs (packages bochs, bochs-term) has a debugger and instrumentation built in, which cost time.
--bochs may be given several times to measure other builds beside it, each with the display library that it
has ("term" unless it is named).
"""

import argparse
import json
import os
import pty
import re
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from bare_pc import write_disk
from contenders import BareExecutor
from guest import MEMORIES, ROUNDS
from processes import RunError, Sample, run_process
from programs import kernel_works, missing_compilers
from tiers import count_bare

SHARE = Path("/usr/share/bochs")
VIDEO_BIOS = Path("/usr/share/vgabios/vgabios.bin")
TIMEOUT = 300.0
"""Seconds for a kernel."""
_DIGEST = re.compile(rb"([0-9a-f]{16}) ([0-9a-f]{16})\r?\n")
_FAILURES = (b"PANIC", b"is exiting with", b"result wrong", b"there is no kernel")
_CONFIGURATION = """\
config_interface: textconfig
display_library: {display}
romimage: file={share}/BIOS-bochs-latest
vgaromimage: file={video}
megs: 256
cpu: count=1, ips=100000000
clock: sync=none
boot: disk
ata0-master: type=disk, path={disk}, mode=flat
port_e9_hack: enabled=1
log: {log}
"""


class Bochs:
    """A PC emulated by Bochs that runs one kernel after another, and stands still between two samples."""

    def __init__(self, program, works, runs, directory, options):
        """It runs each work as often as `runs` says, in this order. Raises RunError."""
        self.directory = Path(tempfile.mkdtemp(prefix="bochs-", dir=directory))
        self.instructions = 0
        """Of the last sample."""
        self._output = b""
        words = [word for work in works for _ in range(runs) for word in work.arguments]
        write_disk(works[0].native, ["kernels", *words], self.directory / "disk")
        # A kernel may find what its last run has left in its variables, and come to something else then.
        host = run_process([works[0].native, *words]).output.split()
        self._expected = deque(host)
        self._first = dict(zip((work.name for work in works), host[::runs], strict=True))
        program, _, display = program.partition(",")
        self.has_debugger = "-rc " in _help(program)
        self.settings = _CONFIGURATION.format(
            display=display or "term",
            share=options.share,
            video=VIDEO_BIOS,
            disk=self.directory / "disk",
            log=self.directory / "log",
        )
        self._start(program, options.share)
        self.version = self._version()

    @property
    def name(self):
        """Of the column."""
        return f"Bochs {self.version}{' debugger' if self.has_debugger else ''}"

    def _start(self, program, share):
        """Start it on a terminal of its own, which some displays need."""
        (self.directory / "bochsrc").write_text(self.settings)
        (self.directory / "commands").write_text("continue\n")
        command = [program, "-q", "-f", self.directory / "bochsrc"]
        if self.has_debugger:
            # It waits for a command to begin.
            command += ["-rc", self.directory / "commands"]
        self._terminal, other = pty.openpty()
        environment = {**os.environ, "TERM": "vt100", "BXSHARE": os.fspath(share)}
        self._process = subprocess.Popen(
            command, stdin=other, stdout=other, stderr=other, env=environment, start_new_session=True
        )
        os.close(other)

    def _version(self):
        """What it says of itself when it starts; it goes no further then."""
        match = self._read_until(re.compile(rb"Bochs x86 Emulator (\S+)"))
        self._process.send_signal(signal.SIGSTOP)
        return match[1].decode()

    def _read_until(self, pattern):
        """The match of a pattern in what it has written, which is taken away."""
        deadline = time.monotonic() + TIMEOUT
        while not (match := pattern.search(self._output)):
            if any(sign in self._output for sign in _FAILURES) or time.monotonic() > deadline:
                self._fail()
            if select.select([self._terminal], [], [], 1.0)[0]:
                try:
                    self._output += os.read(self._terminal, 1 << 16)
                except OSError:
                    self._fail()
        self._output = self._output[match.end() :]
        return match

    def _fail(self):
        lines = self._output.decode(errors="replace").split("\n")
        told = [line.strip() for line in lines if line.strip()] or ["it said nothing"]
        raise RunError(f"Bochs did not run the kernel: {' / '.join(told[-3:])}")

    def sample(self, work):
        """The next run; its output is that of the first if it comes to the same as the host here."""
        begin = time.perf_counter()
        self._process.send_signal(signal.SIGCONT)
        match = self._read_until(_DIGEST)
        seconds = time.perf_counter() - begin
        self._process.send_signal(signal.SIGSTOP)
        self.instructions = int(match[1], 16)
        output = self._first[work.name] if match[2] == self._expected.popleft() else match[2]
        return Sample(seconds, output=output + b"\n")

    first = sample
    """The first one: with the boot before the first of all."""

    def close(self):
        """End it."""
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)


def _help(program):
    completed = subprocess.run(
        [program, "--help"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    return completed.stdout + completed.stderr


class Tier(BareExecutor):
    """The interpreter tier, which executes as many instructions each time."""

    def __init__(self, memory):
        super().__init__("interpreter", memory)
        self.instructions = 0

    def first(self, work):
        """A run that is not counted, after one that counts the instructions."""
        self.instructions = count_bare(work)
        return super().first(work)


@dataclass
class Series:
    """The runs of one contender with one program."""

    seconds: list = field(default_factory=list)
    instructions: list = field(default_factory=list)

    @property
    def rates(self):
        """Instructions per second of each run."""
        return [count / seconds for count, seconds in zip(self.instructions, self.seconds, strict=True)]

    @property
    def mips(self):
        """Millions of instructions per second."""
        return statistics.median(self.rates) / 1e6

    @property
    def spread(self):
        """(slowest - fastest) / median."""
        return (max(self.seconds) - min(self.seconds)) / statistics.median(self.seconds)

    def times_rate(self, other):
        """This rate in rates of another."""
        return statistics.median(own / base for own, base in zip(self.rates, other.rates, strict=True))

    def times_speed(self, other):
        """The time of another in times of this."""
        return statistics.median(base / own for own, base in zip(self.seconds, other.seconds, strict=True))


def measure(work, contenders, repeats):
    """The series of all contenders by name, and whether all came to the same."""
    outputs = {contender.first(work).output for contender in contenders.values()}
    series = {name: Series() for name in contenders}
    order = list(contenders)
    for turn in range(repeats):
        offset = turn % len(order)
        for name in order[offset:] + order[:offset]:
            sample = contenders[name].sample(work)
            outputs.add(sample.output)
            series[name].seconds.append(sample.seconds)
            series[name].instructions.append(contenders[name].instructions)
    return series, len(outputs) == 1


# What is printed ----------------------------------------------------------------------------------------


def _label(pair):
    return "{} / {}".format(*pair)


def print_heading(tiers, machines, pairs):
    names = [*tiers, *machines]
    titles = [*names, *map(_label, pairs)]
    print(f"{'':18}{'million instr.':>18}", *(f"{title:>{_width(title)}}" for title in titles))
    cells = [f"{'MIPS spread':>{_width(name)}}" for name in names]
    cells += [f"{'rate    time':>{_width(_label(pair))}}" for pair in pairs]
    print(f"{'kernel':18}{'riscv64':>9}{'x86_64':>9}", *cells, flush=True)


def _width(title):
    return max(len(title), 15)


def print_result(kernel, series, tiers, machines, pairs, same):
    counts = (statistics.median(series[next(iter(names))].instructions) for names in (tiers, machines))
    cells = [f"{series[name].mips:{_width(name) - 7}.0f}{series[name].spread:7.0%}" for name in series]
    for own, base in pairs:
        rate, speed = series[own].times_rate(series[base]), series[own].times_speed(series[base])
        cells.append(f"{rate:{_width(_label((own, base))) - 9}.2f}x{speed:7.2f}x")
    print(f"{kernel:18}", *(f"{count / 1e6:8.1f}" for count in counts), *cells, end=" ")
    print("" if same else "OUTPUTS DIFFER", flush=True)


def print_summary(results, pairs):
    print(f"\ngeometric means of {len(results)} kernels")
    for name in next(iter(results.values())):
        rate = statistics.geometric_mean(series[name].mips for series in results.values())
        spread = statistics.median(series[name].spread for series in results.values())
        print(f"{name:24}{rate:7.0f} MIPS; median spread {spread:.0%}")
    for own, base in pairs:
        for what, ratio in (("rate", Series.times_rate), ("time", Series.times_speed)):
            ratios = {kernel: ratio(series[own], series[base]) for kernel, series in results.items()}
            least, most = min(ratios, key=ratios.get), max(ratios, key=ratios.get)
            print(
                f"{_label((own, base))}, {what}: {statistics.geometric_mean(ratios.values()):.2f}x "
                f"({least} {ratios[least]:.2f}x to {most} {ratios[most]:.2f}x), "
                f"{sum(one >= 5 for one in ratios.values())} kernels at least 5x"
            )


# What is run --------------------------------------------------------------------------------------------


def _options():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--bochs", action="append", metavar="PROGRAM[,DISPLAY]", help="instead of the one on PATH"
    )
    parser.add_argument("--share", type=Path, default=SHARE, help="directory of its BIOS")
    parser.add_argument(
        "--memory", type=lambda text: text.split(","), default=MEMORIES, help=",".join(MEMORIES)
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scale", type=float, default=0.15, help="10: a kernel takes qemu about a second")
    parser.add_argument("--json", metavar="FILE", help="write every sample to a file")
    parser.add_argument("programs", nargs="*", metavar="PROGRAM")
    options = parser.parse_args()
    unknown = [name for name in options.programs if name not in ROUNDS]
    if unknown:
        parser.error(f"there is no kernel {', '.join(unknown)}; there are {', '.join(ROUNDS)}")
    if not set(options.memory) <= set(MEMORIES):
        parser.error(f"kinds of memory are {', '.join(MEMORIES)}")
    if missing_compilers():
        parser.error(f"this benchmark needs {' and '.join(missing_compilers())}")
    options.bochs = options.bochs or [shutil.which("bochs")]
    if options.bochs == [None] or not (options.share / "BIOS-bochs-latest").exists():
        parser.error("this benchmark needs Bochs (packages bochs, bochs-term, bochsbios, vgabios)")
    return options


def main():
    options = _options()
    results, machines, failures = {}, {}, []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        works = kernel_works(directory, options.programs or list(ROUNDS), options.scale)
        try:
            for program in options.bochs:
                machine = Bochs(program, works, options.repeats + 1, directory, options)
                machines[machine.name] = machine
                print(f"{machine.name} is {program}, configured by\n{machine.settings}")
            tiers = {memory: Tier(memory) for memory in options.memory}
            pairs = [(own, base) for base in machines for own in tiers]
            print_heading(tiers, machines, pairs)
            for work in works:
                results[work.name], same = measure(work, {**tiers, **machines}, options.repeats)
                print_result(work.name, results[work.name], tiers, machines, pairs, same)
                if not same:
                    failures.append(f"{work.name} (outputs differ)")
        except RunError as error:
            failures.append(str(error))
        finally:
            for machine in machines.values():
                machine.close()
    if results:
        print_summary(results, pairs)
    if options.json:
        samples = {
            kernel: {name: vars(one) for name, one in series.items()} for kernel, series in results.items()
        }
        Path(options.json).write_text(json.dumps(samples, indent=1))
    if failures:
        sys.exit(f"failed: {', '.join(failures)}")


if __name__ == "__main__":
    main()
