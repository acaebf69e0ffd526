"""Throughput of disks: sequential reads and writes past the guest's page cache, as multiples of QEMU's.

Usage: disk.py [ROUNDS] [TIER ...]

The same kernel, initial file system and raw image for both: `dd` with O_DIRECT in busybox on a virtio-blk
disk in a virtio-mmio slot, in large and in small blocks. Reach: at least 0.7 times QEMU's throughput.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from console import run_ours, run_qemu
from guests import debian_guest, plain_initrd
from throughput import PEER, print_throughput

from anyvirt.devices.disk import RawDisk
from anyvirt.devices.virtio.blk import VirtioBlk
from anyvirt.devices.virtio.mmio import VirtioMmio

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.boards.virt import VirtBoard
    from anyvirt.devices.bus import Wire

SIZE = 512 << 20
MODULES = ("virtio_mmio", "virtio_blk")
PARTS = {
    "read 1 MiB": (256 << 20, "if=/dev/vda of=/dev/null bs=1M count=256 iflag=direct"),
    "write 1 MiB": (256 << 20, "if=/dev/zero of=/dev/vda bs=1M count=256 oflag=direct conv=notrunc"),
    "read 4 KiB": (16 << 20, "if=/dev/vda of=/dev/null bs=4k count=4096 iflag=direct"),
    "write 4 KiB": (16 << 20, "if=/dev/zero of=/dev/vda bs=4k count=4096 oflag=direct conv=notrunc"),
}
"""Bytes, and the words for dd. Each is done once before it is measured."""
SCRIPT = "\n".join(
    f"dd {words} 2>/dev/null; echo 'begin: {name}'; dd {words} 2>/dev/null; echo 'end: {name}'"
    for name, (_, words) in PARTS.items()
)


def attach(image: Path, stack: ExitStack) -> Callable[[VirtBoard], None]:
    """Puts the disk on a board of ours."""

    def attach(board: VirtBoard) -> None:
        disk = stack.enter_context(RawDisk(image))

        def make(wire: Wire) -> VirtioMmio:
            return VirtioMmio(VirtioBlk(board.memory, disk), interrupt=wire)

        board.attach_virtio_mmio("disk", make)

    return attach


def ours(tier: str, image: Path, kernel: Path, initrd: Path, print_: Callable[[bytes], None]) -> None:
    """A run of our machine."""
    with ExitStack() as stack:
        run_ours(kernel, initrd, print_, tier=tier, attach=attach(image, stack))


def qemu(image: Path, kernel: Path, initrd: Path, print_: Callable[[bytes], None]) -> None:
    """A run of QEMU's."""
    drive = f"file={image},format=raw,if=none,id=disk,cache=writeback"
    run_qemu(kernel, initrd, print_, "-drive", drive, "-device", "virtio-blk-device,drive=disk")


def measure(run: Callable[[Callable[[bytes], None]], None]) -> dict[str, float]:
    """Bytes in a second, of each part."""
    output = bytearray()
    begun: dict[str, float] = {}
    found: dict[str, float] = {}

    def note(data: bytes) -> None:
        output.extend(data)
        now = time.perf_counter()
        for name, (size, _) in PARTS.items():
            if name not in begun and f"begin: {name}".encode() in output:
                begun[name] = now
            if name not in found and f"end: {name}".encode() in output:
                found[name] = size / (now - begun[name])

    run(note)
    if set(found) != set(PARTS):
        raise RuntimeError(f"the guest did not come to its end: {output[-500:].decode(errors='replace')}")
    return found


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        kernel, root = debian_guest(directory)
        initrd = plain_initrd(directory, root, SCRIPT, modules=MODULES)
        image = directory / "image"
        image.write_bytes(random.randbytes(1 << 20) * (SIZE >> 20))
        candidates = {PEER: partial(qemu, image, kernel, initrd)}
        for tier in sys.argv[2:] or ("stencil", "interpreter"):
            candidates[tier] = partial(ours, tier, image, kernel, initrd)
        samples: dict[str, list[dict[str, float]]] = {name: [] for name in candidates}
        for _ in range(rounds):
            for who in random.sample(list(candidates), len(candidates)):
                samples[who].append(measure(candidates[who]))
    print_throughput(f"{rounds} rounds", tuple(PARTS), samples)


if __name__ == "__main__":
    main()
