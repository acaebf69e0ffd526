"""What an idle guest costs its host: the share of a core, and memory beyond the guest's own.

Usage: idle.py [SECONDS]

Boots Debian's kernel on each engine of machines, lets the guest sleep, and looks at the monitor process: its
CPU time over SECONDS (10), and its resident memory without the pages of the guest's RAM, which the page
tables tell apart. Also for QEMU's emulator with the same kernel and memory. Reaches: 3 % of a core; 120 MiB
with the translator, 40 MiB with the interpreter alone.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from guests import SETTLE, debian_guest, plain_initrd

import anyvirt
from anyvirt.boards.virt_map import RAM_START
from anyvirt.engines import get

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyvirt.monitor.orders import MachineOrder
    from anyvirt.monitor.phases import Phases

MEMORY = 512 << 20
NOTE = "ANYVIRT_BENCHMARK_NOTE"
"""Variable with the file in which a monitor notes where its guest's RAM is."""
_PAGE = 4096
_PRESENT = 1 << 63
"""Of an entry of /proc/PID/pagemap."""


def seconds_of_cpu(pid: int) -> float:
    """User and system time of a process with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    """Bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def resident_at(pid: int, address: int, size: int) -> int:
    """Bytes of a range of addresses that are in memory."""
    with open(f"/proc/{pid}/pagemap", "rb") as pages:
        pages.seek(address // _PAGE * 8)
        entries = pages.read(size // _PAGE * 8)
    return sum(bool(entry & _PRESENT) for (entry,) in struct.iter_unpack("<Q", entries)) * _PAGE


def mapping_of(pid: int, size: int) -> int:
    """Where the one mapping of exactly this size is."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        start, end = (int(word, 16) for word in line.split()[0].split("-"))
        if end - start == size:
            return start
    raise RuntimeError(f"there is no mapping of {size} bytes")


@contextmanager
def engine(name: str, root: Path) -> Iterator[tuple[int, int]]:
    """The process of a guest that sleeps, and where in it the guest's RAM is."""
    guest = anyvirt.Guest(
        command=["/bin/sh", "-c", "echo ready; exec sleep 1000"],
        rootfs=root,
        limits=anyvirt.Limits(memory=MEMORY),
    )
    reader, writer = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    note = root.parent / "note"
    os.environ[NOTE] = os.fspath(note)
    get(name).monitor = (sys.executable, __file__, "--monitor")
    with anyvirt.start(guest, on=name, streams=anyvirt.Streams(null, writer, null)) as instance:
        os.close(writer)
        assert os.read(reader, 100) == b"ready\n"
        yield instance.pid, int(note.read_text())
    os.close(reader)
    os.close(null)


def monitor(fd: int) -> None:
    """The monitor, which also notes where its guest's RAM is."""
    from anyvirt.monitor.build import VirtMachine, build_machine
    from anyvirt.monitor.server import serve

    def make(order: MachineOrder, phases: Phases) -> VirtMachine:
        machine = build_machine(order, phases)
        memory = machine._machine.board.memory
        Path(os.environ[NOTE]).write_text(str(memory.host_address(RAM_START, 1)))
        return machine

    serve(fd, make)


@contextmanager
def qemu(kernel: Path, initrd: Path) -> Iterator[tuple[int, int]]:
    """The same of QEMU."""
    words = ["qemu-system-riscv64", "-M", "virt", "-m", str(MEMORY >> 20), "-kernel", os.fspath(kernel)]
    words += ["-initrd", os.fspath(initrd), "-append", "console=ttyS0 quiet", "-display", "none"]
    words += ["-monitor", "none", "-serial", "stdio"]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        seen = b""
        while b"ready" not in seen:
            seen += process.stdout.read(4096)
        yield process.pid, mapping_of(process.pid, MEMORY)
        process.kill()


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        kernel, root = debian_guest(directory)
        initrd = plain_initrd(directory, root, "echo ready; exec sleep 1000")
        candidates = {name: partial(engine, name, root) for name in ("translator", "interpreter")}
        if shutil.which("qemu-system-riscv64") is not None:
            candidates["QEMU (TCG)"] = partial(qemu, kernel, initrd)
        print(f"{'':14}{'% of a core':>14}{'MiB beyond the guest':>24}{'MiB of the guest':>20}")
        for what, begin in candidates.items():
            with begin() as (pid, ram):
                time.sleep(SETTLE)
                before = seconds_of_cpu(pid)
                time.sleep(seconds)
                share = (seconds_of_cpu(pid) - before) / seconds
                guest = resident_at(pid, ram, MEMORY)
                beyond = (resident(pid) - guest) / 2**20
                print(f"{what:14}{share * 100:14.2f}{beyond:24.1f}{guest / 2**20:20.1f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--monitor"]:
        monitor(int(sys.argv[2]))
    main()
