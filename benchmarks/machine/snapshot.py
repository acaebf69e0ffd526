"""Times of snapshots, restored machines and clones of a machine with 256 MiB that has booted Debian's kernel.

    python benchmarks/machine/snapshot.py [rounds]

Prints medians in milliseconds with the least and the most, and what a snapshot takes on the disk. "To the
first instruction" is from the call to the end of a run of one instruction. The first clone of a machine
copies what it has written; those that follow share that.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from guests import debian_guest

import anyvirt
from anyvirt.agent.protocol import Run, RunFlag
from anyvirt.images.initramfs import Initramfs, make_initramfs
from anyvirt.isa.names import Isa

if TYPE_CHECKING:
    from collections.abc import Callable

MEMORY = "256M"
TIMEOUT = 120
PROMPT = r"(?m)^ready> "
T = TypeVar("T")


def boot(directory: Path) -> anyvirt.Machine:
    """A machine at a shell."""
    image, root = debian_guest(directory)
    shell = Run(("/bin/sh", "-i"), {"PATH": "/bin", "PS1": "ready> "}, flags=RunFlag.CONSOLE | RunFlag.MAIN)
    initrd = make_initramfs(Initramfs(Isa.RISCV64, files=root, channel="", run=shell), directory)
    machine = anyvirt.Machine(
        kernel=image, initrd=initrd, append="console=ttyS0 quiet", memory=MEMORY, tier="stencil"
    )
    machine.console.expect(PROMPT, timeout=TIMEOUT)
    return machine


class Times:
    """Samples by what was done."""

    def __init__(self) -> None:
        self._samples: dict[str, list[float]] = {}

    def take(self, name: str, function: Callable[[], T]) -> T:
        """Measure a call."""
        start = time.perf_counter()
        result = function()
        self._samples.setdefault(name, []).append((time.perf_counter() - start) * 1000)
        return result

    def report(self) -> None:
        """Print them."""
        print(f"{'milliseconds':50}{'median':>9}{'least':>9}{'most':>9}")
        for name, values in self._samples.items():
            cells = (statistics.median(values), min(values), max(values))
            print(f"{name:50}" + "".join(f"{cell:9.1f}" for cell in cells))


def step(machine: anyvirt.Machine) -> anyvirt.Machine:
    """Let it execute an instruction."""
    machine.run(instructions=1)
    return machine


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    times = Times()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        machine = times.take("boot to a shell", lambda: boot(directory))
        # What is compiled ahead of time for counted runs is loaded, or made, once for a process.
        step(machine)
        times.take("first clone, to the first instruction", lambda: step(machine.clone()))
        for number in range(rounds):
            place, small = directory / f"plain{number}", directory / f"compressed{number}"
            times.take("snapshot", lambda place=place: machine.snapshot(place))
            times.take("restore, to the first instruction", lambda p=place: step(anyvirt.Machine.restore(p)))
            times.take("snapshot, compressed", lambda small=small: machine.snapshot(small, compress=True))
            times.take(
                "restore, compressed, to the first instruction",
                lambda small=small: step(anyvirt.Machine.restore(small)),
            )
            times.take("clone, to the first instruction", lambda: step(machine.clone()))
            machine.run(seconds=0.2)
            times.take("clone after 0.2 s of idling, to the first instruction", lambda: step(machine.clone()))
            times.take("change of the tier", lambda: machine.switch("interpreter"))
            times.take("change of the tier", lambda: machine.switch("stencil"))
        times.report()
        for place in (directory / "plain0", directory / "compressed0"):
            size = sum(path.stat().st_size for path in place.iterdir())
            print(f"{place.name[:-1]}: {size / 2**20:.1f} MiB on the disk")


if __name__ == "__main__":
    main()
