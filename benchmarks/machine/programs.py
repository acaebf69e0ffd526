"""How fast a distribution's own programs are in a machine, on ours and on QEMU's: Debian's, as packaged.

Debian's kernel boots with a root of Debian's packages, and bash runs one program after the other on data
that is in memory already; the console says when one has ended. Beginnings count: this is what a user sees.
Needs qemu-system-riscv64; fetches Debian's kernel and packages (150 MB) once.
Run it with: python benchmarks/machine/programs.py [TIMES [PROGRAM ...]]
"""

from __future__ import annotations

import math
import random
import sys
import tempfile
from pathlib import Path

import boot
from guests import debian_guest, debian_root
from kernels import CANDIDATES

from anyvirt.agent.protocol import Run, RunFlag
from anyvirt.images.initramfs import Initramfs, make_initramfs
from anyvirt.isa.names import Isa

PACKAGES = ("bash", "coreutils", "gzip", "xz-utils", "mawk", "perl-base", "python3-minimal")
TEXT_SIZE = 8 << 20
"""Bytes of the text that is worked on."""
PYTHON = """
import math
def primes(limit):
    flags = bytearray([1]) * limit
    for number in range(2, int(limit ** 0.5) + 1):
        if flags[number]:
            for multiple in range(number * number, limit, number):
                flags[multiple] = 0
    return sum(flags) - 2
def words(path):
    counts = {}
    with open(path) as file:
        for line in file:
            for word in line.split():
                counts[word] = counts.get(word, 0) + 1
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:10]
class Body:
    def __init__(self, x, v):
        self.x, self.v = x, v
    def step(self, dt):
        self.v -= math.sin(self.x) * dt
        self.x += self.v * dt
bodies = [Body(number / 10, 0.0) for number in range(100)]
for _ in range(1000):
    for body in bodies:
        body.step(0.001)
print(primes(300000), words("/tmp/text"), sum(body.x for body in bodies))
"""
PROGRAMS = {
    "gzip": "gzip -c /tmp/text > /tmp/text.gz",
    "gunzip": "gunzip -c /tmp/text.gz > /dev/null",
    "xz": "head -c 2000000 /tmp/text | xz -c > /tmp/text.xz",
    "sha256sum": "cat /tmp/text /tmp/text /tmp/text /tmp/text | sha256sum",
    "sort": "LC_ALL=C sort /tmp/text > /dev/null",
    "mawk": "mawk '{ for (i = 1; i <= NF; i++) n[$i]++ } END { for (w in n) print n[w], w }' /tmp/text",
    "perl": "perl -ne '$n{lc $_}++ for /[a-z]+/g; END { print scalar(keys %n) }' /tmp/text",
    "bash": "for ((i = 0, s = 0; i < 200000; i++)); do s=$((s + i % 7)); done; echo $s",
    "python3": "python3 /tmp/program.py",
}


def make_text(size: int) -> bytes:
    """Lines of words, some of which are much more frequent than others."""
    source = random.Random(1)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    words = ["".join(source.choices(letters, range(26, 0, -1), k=source.randint(2, 9))) for _ in range(5000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    lines: list[str] = []
    length = 0
    while length < size:
        lines.append(" ".join(source.choices(words, weights, k=12)))
        length += len(lines[-1]) + 1
    return "\n".join(lines).encode()[:size]


def script(times: int, names: list[str]) -> str:
    """What the process of the machine does."""
    runs = "".join(
        f"for turn in $(seq {times}); do {PROGRAMS[name]} > /tmp/output; done; mark {name}\n"
        for name in names
    )
    return f'mark() {{ echo "mark: $1."; }}\ngzip -c /tmp/text > /tmp/text.gz\nmark begin\n{runs}sleep 0.3\n'


def main() -> None:
    times = int(sys.argv[1]) if sys.argv[1:] else 1
    names = sys.argv[2:] or list(PROGRAMS)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        image, _ = debian_guest(directory)
        root = debian_root(directory / "debian", PACKAGES)
        (root / "tmp/text").write_bytes(make_text(TEXT_SIZE))
        (root / "tmp/program.py").write_text(PYTHON)
        words = ("/bin/bash", "-c", script(times, names))
        command = Run(words, {"PATH": "/usr/bin"}, flags=RunFlag.CONSOLE | RunFlag.MAIN)
        initrd = make_initramfs(Initramfs(Isa.RISCV64, files=root, channel="", run=command), directory)
        marks = tuple(f"{mark}." for mark in ("begin", *names))
        found = {
            candidate: boot.measure(run, image, initrd, 1, marks) for candidate, run in CANDIDATES.items()
        }
    report(found, names)


def report(found: dict[str, dict[str, float]], names: list[str]) -> None:
    """Seconds of each program, and how many times as fast as QEMU."""
    base = found[boot.REFERENCE]
    print(f"{'':12}" + "".join(f"{candidate:>24}" for candidate in found))
    for name in names:
        cells = (
            f"{times[f'{name}.']:.2f} s {base[f'{name}.'] / times[f'{name}.']:6.2f}x"
            for times in found.values()
        )
        print(f"{name:12}" + "".join(f"{cell:>24}" for cell in cells))
    means = (
        math.exp(sum(math.log(base[f"{n}."] / times[f"{n}."]) for n in names) / len(names))
        for times in found.values()
    )
    print(f"{'all':12}" + "".join(f"{mean:>23.2f}x" for mean in means))


if __name__ == "__main__":
    main()
