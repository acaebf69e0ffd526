"""Speed of the interpreter tier: guest instructions per second, and time relative to qemu-user and native.

    python benchmarks/cpu/interpreter.py [--repeats N] [KERNEL...]

Every figure is the median of the repeats, all taken in this run; the spread is (slowest - fastest) / median.
Needs riscv64-linux-gnu-gcc, gcc and, for that column, qemu-riscv64-static.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from guest import ROUNDS, Program, build

COUNTING_BUDGET = 1 << 40
QEMU = shutil.which("qemu-riscv64-static") or shutil.which("qemu-riscv64")


def timed(function):
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def run_tool(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def measure(kernel, directory, repeats):
    """Seconds of each contender, instructions executed, and whether all outputs agree."""
    riscv = build("riscv64-linux-gnu-gcc", kernel, directory / f"{kernel}.riscv64", flags=("-march=rv64gc",))
    native = build("gcc", kernel, directory / f"{kernel}.native")
    counting = Program(riscv)
    outputs = {counting.run(COUNTING_BUDGET)}
    contenders = {"interpreter": [], "native": [], "qemu": []}
    for _ in range(repeats):
        program = Program(riscv)
        for name, action in (
            ("interpreter", program.run),
            ("native", lambda: run_tool(native)),
            ("qemu", (lambda: run_tool(QEMU, riscv)) if QEMU else None),
        ):
            if action is not None:
                seconds, output = timed(action)
                contenders[name].append(seconds)
                outputs.add(output)
    return contenders, counting.cpu.instructions, len(outputs) == 1


def spread(samples):
    return (max(samples) - min(samples)) / statistics.median(samples)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("kernels", nargs="*", default=list(ROUNDS))
    arguments = parser.parse_args()
    if not shutil.which("riscv64-linux-gnu-gcc") or not shutil.which("gcc"):
        sys.exit("this benchmark needs gcc and riscv64-linux-gnu-gcc (package gcc-riscv64-linux-gnu)")
    rates, against_qemu = [], []
    print(f"{'kernel':10}{'instructions':>14}{'MIPS':>8}{'spread':>8}{'/ qemu':>9}{'/ native':>10}  output")
    with tempfile.TemporaryDirectory() as directory:
        for kernel in arguments.kernels:
            contenders, count, agree = measure(kernel, Path(directory), arguments.repeats)
            medians = {name: statistics.median(times) for name, times in contenders.items() if times}
            rates.append(count / medians["interpreter"] / 1e6)
            line = f"{kernel:10}{count:14,}{rates[-1]:8.0f}{spread(contenders['interpreter']):8.0%}"
            if QEMU:
                against_qemu.append(medians["interpreter"] / medians["qemu"])
                line += f"{against_qemu[-1]:8.1f}x"
            else:
                line += f"{'-':>9}"
            line += f"{medians['interpreter'] / medians['native']:9.1f}x"
            print(line, "  same" if agree else "  DIFFERENT", flush=True)
    print(f"{'geomean':10}{'':14}{statistics.geometric_mean(rates):8.0f}", end="")
    if against_qemu:
        print(f"{'':8}{statistics.geometric_mean(against_qemu):8.1f}x", end="")
    print("\ntimes relative to qemu and native include the start of those processes")


if __name__ == "__main__":
    main()
