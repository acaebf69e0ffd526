"""How fast hot code of a process in a machine is, on ours and on QEMU's: the kernels of benchmarks/cpu.

Debian's kernel boots, and its only process runs one kernel after the other, each long enough that what is
hot has become a region; the console says when one has ended. Beginnings count, so this is what a user sees.
Needs qemu-system-riscv64 and riscv64-linux-gnu-gcc; fetches Debian's kernel and busybox (112 MB) once.
Run it with: python benchmarks/machine/kernels.py [TIMES [KERNEL ...]]
"""

from __future__ import annotations

import importlib.util
import math
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boot

from anyvirt.agent.protocol import Run, RunFlag
from anyvirt.images.debian import Archive
from anyvirt.images.initramfs import Initramfs, make_initramfs
from anyvirt.images.kernels import debian_kernel
from anyvirt.images.store import Store
from anyvirt.isa.names import Isa

if TYPE_CHECKING:
    from types import ModuleType

COMPILER = "riscv64-linux-gnu-gcc"
FLOATING = ("bodies", "fourier", "linear_system", "mandelbrot", "rays", "spectral_norm")
INTEGER = ("aes", "calls", "checksums", "compressor", "hash_table", "json", "lists", "machine", "queens")
INTEGER += ("matrix", "recursion", "sha256", "sieve", "sort", "strings", "tree")
CANDIDATES = {boot.REFERENCE: boot.run_qemu, "stencil": boot.ours("stencil"), "auto": boot.ours("auto")}


def cpu_benchmark() -> ModuleType:
    """The module that knows the kernels."""
    place = Path(__file__).parents[1] / "cpu" / "guest.py"
    spec = importlib.util.spec_from_file_location("benchmark_guest", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def script(rounds: dict[str, int], times: int, names: list[str]) -> str:
    """What the process of the machine does."""
    runs = "".join(f"/bin/kernels {name} {rounds[name] * times} > /dev/null; mark {name}\n" for name in names)
    return f'mark() {{ echo "mark: $1."; }}\nmark begin\n{runs}sleep 0.3\n'


def main() -> None:
    times = int(sys.argv[1]) if sys.argv[1:] else 10
    guest: Any = cpu_benchmark()
    names = sys.argv[2:] or [*INTEGER, *FLOATING]
    store = Store()
    kernel = debian_kernel(Isa.RISCV64, store)
    archive = Archive(store.directory / "debian", suite="trixie", architecture="riscv64")
    busybox = (
        store.make_directory(
            "benchmarks/busybox-riscv64", lambda place: archive.unpack("busybox-static", place / "root")
        )
        / "root/usr/bin/busybox"
    )
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        image = directory / "Image"
        image.write_bytes(kernel.image.content)
        (directory / "root/bin").mkdir(parents=True)
        shutil.copy(busybox, directory / "root/bin/busybox")
        (directory / "root/bin/sh").symlink_to("busybox")
        (directory / "root/bin/sleep").symlink_to("busybox")
        guest.build(COMPILER, directory / "root/bin/kernels")
        words = ("/bin/sh", "-c", script(guest.ROUNDS, times, names))
        command = Run(words, {"PATH": "/bin"}, flags=RunFlag.CONSOLE | RunFlag.MAIN)
        root = directory / "root"
        initrd = make_initramfs(Initramfs(Isa.RISCV64, files=root, channel="", run=command), directory)
        marks = tuple(f"{mark}." for mark in ("begin", *names))
        found = {
            candidate: boot.measure(run, image, initrd, 1, marks) for candidate, run in CANDIDATES.items()
        }
    report(found, names)


def report(found: dict[str, dict[str, float]], names: list[str]) -> None:
    """Seconds of each kernel, and how many times as fast as QEMU."""
    print(f"{'':22}" + "".join(f"{candidate:>24}" for candidate in found))
    base = found[boot.REFERENCE]
    for name in names:
        mark = f"{name}."
        cells = (f"{times[mark]:.2f} s {base[mark] / times[mark]:6.2f}x" for times in found.values())
        print(f"{name:22}" + "".join(f"{cell:>24}" for cell in cells))
    for title, group in (("integers", INTEGER), ("floating point", FLOATING), ("all", INTEGER + FLOATING)):
        chosen = [name + "." for name in names if name in group]
        if chosen:
            cells = (
                f"{math.exp(sum(math.log(base[n] / times[n]) for n in chosen) / len(chosen)):.2f}x"
                for times in found.values()
            )
            print(f"{title:22}" + "".join(f"{cell:>24}" for cell in cells))


if __name__ == "__main__":
    main()
