"""The user engine against qemu-riscv64: start-up, system calls, a shell, and a digest, in one run.

    python benchmarks/user/programs.py [--repeats N]

Each figure is the median of the repeats; the contenders take turns. The spread is
(slowest - fastest) / median for the user engine. Below 1.0x the user engine is the faster one.
Needs riscv64-linux-gnu-gcc, qemu-riscv64-static and Debian's archive for busybox-static (riscv64).
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from anyvirt.engines import get
from anyvirt.guest import Guest
from anyvirt.images.debian import Archive, PackageError
from anyvirt.instance import Streams

CHECKOUT = Path(__file__).resolve().parents[2]

QEMU = shutil.which("qemu-riscv64-static") or shutil.which("qemu-riscv64")
COMPILER = "riscv64-linux-gnu-gcc"
CALLS = {"getpid": 100_000, "read": 100_000, "write": 100_000, "open+close": 30_000, "fork+wait": 100}
LOOP = "i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done"
FORKS = "i=0; while [ $i -lt 50 ]; do x=$(echo $i); i=$((i + 1)); done"
DIGEST_SIZE = 10_000_000


def with_user(command, output):
    """Run a command on the engine as the command line does, and wait for its end."""
    streams = Streams(0, output, 2)
    with get("user").start(Guest(command=[os.fspath(word) for word in command]), streams) as instance:
        status = instance.wait()
    if status.code != 0:
        sys.exit(f"{command[0]} failed on the user engine: {status}")


def with_qemu(command, output):
    """Run a command under QEMU."""
    subprocess.run([QEMU, *command], stdout=output, check=True)


def seconds(run, command):
    """How long a command takes from its start to its end."""
    with open(os.devnull, "wb") as output:
        start = time.perf_counter()
        run(command, output.fileno())
        return time.perf_counter() - start


def printed(run, command):
    """The number that a command prints."""
    with tempfile.TemporaryFile() as output:
        run(command, output.fileno())
        output.seek(0)
        return float(output.read())


def compare(name, unit, scale, measure, command, repeats):
    """Measure a command with both contenders in turns and print the line of the table."""
    samples = {"user": [], "qemu": []}
    for _ in range(repeats):
        samples["user"].append(measure(with_user, command) * scale)
        samples["qemu"].append(measure(with_qemu, command) * scale)
    user, qemu = (statistics.median(samples[contender]) for contender in ("user", "qemu"))
    spread = (max(samples["user"]) - min(samples["user"])) / user
    print(f"{name:24}{user:12.2f}{qemu:12.2f} {unit:3}{user / qemu:8.1f}x{spread:8.0%}", flush=True)
    return user / qemu


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    if QEMU is None or shutil.which(COMPILER) is None:
        sys.exit("this benchmark needs qemu-user-static and gcc-riscv64-linux-gnu")
    try:
        archive = Archive(CHECKOUT / ".tools" / "debian", suite="trixie", architecture="riscv64")
        busybox = archive.fetch("busybox-static") / "usr/bin/busybox"
    except PackageError as error:
        sys.exit(f"this benchmark needs Debian's busybox-static for riscv64: {error}")
    with tempfile.TemporaryDirectory() as directory:
        calls = Path(directory, "calls")
        source = Path(__file__).with_name("calls.c")
        subprocess.run([COMPILER, "-O2", "-static", "-o", calls, source], check=True)
        data = Path(directory, "data")
        data.write_bytes(os.urandom(DIGEST_SIZE))
        seconds(with_user, (busybox, "true"))
        print(f"{'':24}{'user':>12}{'qemu':>12}{'':4}{'user/qemu':>9}{'spread':>8}")
        compare("start and end of true", "ms", 1e3, seconds, (busybox, "true"), repeats)
        ratios = [
            compare(name, "us", 1e-3, printed, (calls, name, str(count)), repeats)
            for name, count in CALLS.items()
        ]
        print(f"{'system calls, geomean':24}{'':28}{statistics.geometric_mean(ratios):8.1f}x")
        for name, command in (
            ("sh: 100,000 additions", (busybox, "sh", "-c", LOOP)),
            ("sh: 50 subshells", (busybox, "sh", "-c", FORKS)),
            ("sha256sum of 10 MB", (busybox, "sha256sum", data)),
        ):
            compare(name, "ms", 1e3, seconds, command, repeats)


if __name__ == "__main__":
    main()
