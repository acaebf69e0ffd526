"""How long Debian's kernel takes from power-on to user space, on our machine and on QEMU's, in one run.

The same kernel, initial file system, command line and memory; turns of varying order, so that what else the
host does meanwhile falls on all alike. `firmware` is OpenSBI instead of our own. A few things that
its shell does then follow (processes, pipes, arithmetic), timed from outside.
Needs qemu-system-riscv64; fetches Debian's kernel and busybox (112 MB) once.
Run it with: python benchmarks/machine/boot.py [ROUNDS [CPUS]]
"""

from __future__ import annotations

import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anyvirt
from anyvirt.agent.protocol import Run, RunFlag
from anyvirt.images.debian import Archive
from anyvirt.images.initramfs import Initramfs, make_initramfs
from anyvirt.images.kernels import debian_kernel
from anyvirt.images.store import Store
from anyvirt.isa.names import Isa

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

APPEND = "console=ttyS0 panic=-1"
MEMORY = "512M"
TIMEOUT = 120
OPENSBI = "/usr/share/qemu/opensbi-riscv64-generic-fw_dynamic.bin"
MARKS = ("user space", "processes", "pipe", "arithmetic", "checksum")
"""What the guest prints at the end of each part; the first is the boot."""
SCRIPT = """
mark() { echo "mark: $1"; }
mark "user space"
i=0; while [ $i -lt 100 ]; do /bin/busybox true; i=$((i+1)); done; mark processes
dd if=/dev/zero bs=4k count=2000 2>/dev/null | cat > /dev/null; mark pipe
i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; mark arithmetic
dd if=/dev/zero bs=64k count=64 2>/dev/null | sha256sum > /dev/null; mark checksum
sleep 0.3
"""
REFERENCE = "QEMU (TCG), OpenSBI"


def qemu(kernel: Path, initrd: Path, cpus: int) -> Iterable[bytes]:
    """The console's output of QEMU's machine, as it comes."""
    words = ["qemu-system-riscv64", "-M", "virt", "-m", MEMORY, "-smp", str(cpus), "-kernel", str(kernel)]
    words += ["-initrd", str(initrd), "-append", APPEND, "-display", "none", "-monitor", "none"]
    words += ["-serial", "stdio", "-no-reboot"]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        try:
            while piece := process.stdout.read(4096):
                yield piece
        finally:
            process.kill()


def ours(
    tier: str, firmware: str | None = None
) -> Callable[[Path, Path, int, Callable[[bytes], None]], None]:
    """A run of our machine that hands over what the console prints."""

    def run(kernel: Path, initrd: Path, cpus: int, print_: Callable[[bytes], None]) -> None:
        with anyvirt.Machine(
            kernel=kernel,
            initrd=initrd,
            append=APPEND,
            memory=MEMORY,
            cpus=cpus,
            tier=tier,
            firmware=firmware,
        ) as machine:
            machine.console.on_output = print_
            machine.run(seconds=TIMEOUT)

    return run


def run_qemu(kernel: Path, initrd: Path, cpus: int, print_: Callable[[bytes], None]) -> None:
    """The same of QEMU."""
    for piece in qemu(kernel, initrd, cpus):
        print_(piece)


def measure(
    run: Callable[[Path, Path, int, Callable[[bytes], None]], None],
    kernel: Path,
    initrd: Path,
    cpus: int,
    marks: tuple[str, ...] = MARKS,
) -> dict[str, float]:
    """Seconds of each part, which ends with a mark."""
    times: dict[str, float] = {}
    output = bytearray()
    last = time.perf_counter()

    def note(data: bytes) -> None:
        nonlocal last
        output.extend(data)
        for mark in marks:
            if mark not in times and f"mark: {mark}".encode() in output:
                now = time.perf_counter()
                times[mark], last = now - last, now

    run(kernel, initrd, cpus, note)
    if set(times) != set(marks):
        raise RuntimeError(f"the guest did not come to its end: {output[-500:].decode(errors='replace')}")
    return times


def main() -> None:
    rounds, cpus = (*map(int, sys.argv[1:]), *(3, 1)[len(sys.argv) - 1 :])
    store = Store()
    kernel = debian_kernel(Isa.RISCV64, store)
    archive = Archive(store.directory / "debian", suite="trixie", architecture="riscv64")
    busybox = (
        store.make_directory(
            "benchmarks/busybox-riscv64", lambda place: archive.unpack("busybox-static", place / "root")
        )
        / "root/usr/bin/busybox"
    )
    candidates = {
        REFERENCE: run_qemu,
        "auto": ours("auto"),
        "stencil": ours("stencil"),
        "interpreter": ours("interpreter"),
        "auto, OpenSBI": ours("auto", OPENSBI),
    }
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        image = directory / "Image"
        image.write_bytes(kernel.image.content)
        root = directory / "root"
        (root / "bin").mkdir(parents=True)
        shutil.copy(busybox, root / "bin/busybox")
        for tool in ("sh", "dd", "cat", "sha256sum"):
            (root / "bin" / tool).symlink_to("busybox")
        command = Run(("/bin/sh", "-c", SCRIPT), {"PATH": "/bin"}, flags=RunFlag.CONSOLE | RunFlag.MAIN)
        initrd = make_initramfs(Initramfs(Isa.RISCV64, files=root, channel="", run=command), directory)
        report(candidates, image, initrd, cpus, rounds)


def report(
    candidates: dict[str, Callable[[Path, Path, int, Callable[[bytes], None]], None]],
    kernel: Path,
    initrd: Path,
    cpus: int,
    rounds: int,
) -> None:
    """Measure all with a number of CPUs, and print medians and ratios to QEMU."""
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name in random.sample(list(candidates), len(candidates)):
            samples[name].append(measure(candidates[name], kernel, initrd, cpus))
    print(f"{cpus} CPU{'s' if cpus > 1 else ''}, {rounds} rounds; seconds (least to most), x: times QEMU's")
    print(f"{'':22}" + "".join(f"{mark:>28}" for mark in MARKS))
    base = {mark: statistics.median(sample[mark] for sample in samples[REFERENCE]) for mark in MARKS}
    for name, found in samples.items():
        cells = []
        for mark in MARKS:
            values = [sample[mark] for sample in found]
            middle = statistics.median(values)
            cells.append(f"{middle:.2f} ({min(values):.2f}-{max(values):.2f}) {middle / base[mark]:.2f}x")
        print(f"{name:22}" + "".join(f"{cell:>28}" for cell in cells))


if __name__ == "__main__":
    main()
