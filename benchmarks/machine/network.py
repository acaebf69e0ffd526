"""Throughput of networks: TCP between a guest and its host, as multiples of QEMU's with the same cable.

Usage: network.py [ROUNDS] [CABLE ...]

The cables are `user` (libslirp or passt, reached through the loopback interface of the host) and `tap`, in a
network namespace of its own, for which it has to be root. Kernel, initial file system and frame size are
the same for both; the guest runs `stream.c`, and time is taken by the server on the host.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from console import run_ours, run_qemu
from guests import debian_guest, plain_initrd
from throughput import PEER, print_throughput

from anyvirt.devices.virtio.mmio import VirtioMmio
from anyvirt.devices.virtio.net import VirtioNet
from anyvirt.linux import kernel as linux
from anyvirt.machines.network import post_to
from anyvirt.network.opening import open_link, random_mac

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.boards.virt import VirtBoard
    from anyvirt.devices.bus import Wire
    from anyvirt.network.link import Link

SIZE = 64 << 20
MODULES = ("virtio_mmio", "virtio_net")
PARTS = ("to the guest", "from the guest")
SCRIPT = """
ip link set eth0 up; ip address add {address} dev eth0; ip route add default via {gateway}; sleep 1
stream {gateway} {ports[0]}
stream {gateway} {ports[1]} {count}
echo done
"""


class Server:
    """Sends to whoever connects to its first port, and receives at its second; notes bytes in a second."""

    def __init__(self) -> None:
        self.rates: dict[str, float] = {}
        self._listeners = [socket.create_server(("0.0.0.0", 0)) for _ in PARTS]
        self.ports = [listener.getsockname()[1] for listener in self._listeners]
        for part, listener, carry in zip(PARTS, self._listeners, (_send, _receive), strict=True):
            threading.Thread(target=self._serve, args=(part, listener, carry), daemon=True).start()

    def _serve(self, part: str, listener: socket.socket, carry: Callable[[socket.socket], int]) -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                began = time.perf_counter()
                self.rates[part] = carry(connection) / (time.perf_counter() - began)


def _send(connection: socket.socket) -> int:
    connection.sendall(bytes(SIZE))
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(1 << 16):
        pass
    return SIZE


def _receive(connection: socket.socket) -> int:
    count = 0
    while piece := connection.recv(1 << 20):
        count += len(piece)
    return count


def ours(tier: str, link: Link, mac: bytes, image: Path, initrd: Path) -> bytes:
    """A run of our machine; what it printed."""
    output = bytearray()

    def attach(board: VirtBoard) -> None:
        post = partial(post_to, board)
        card = VirtioNet(board.memory, link, mac=mac, mtu=link.mtu, post=post)

        def make(wire: Wire) -> VirtioMmio:
            return VirtioMmio(card, interrupt=wire)

        board.attach_virtio_mmio("network", make)
        link.connect(card, post)

    run_ours(image, initrd, output.extend, tier=tier, attach=attach)
    return bytes(output)


def qemu(cable: str, link: Link, mac: bytes, image: Path, initrd: Path) -> bytes:
    """The same of QEMU."""
    output = bytearray()
    fd = os.dup(link._descriptor)
    os.set_inheritable(fd, True)
    netdev = f"tap,id=n,fd={fd}" if cable == "tap" else f"stream,id=n,addr.type=fd,addr.str={fd}"
    card = f"virtio-net-device,netdev=n,mac={mac.hex(':')},host_mtu={link.mtu}"
    run_qemu(image, initrd, output.extend, "-netdev", netdev, "-device", card, pass_fds=(fd,))
    os.close(fd)
    return bytes(output)


def measure(
    who: str, cable: str, server: Server, directory: Path, image: Path, root: Path
) -> dict[str, float]:
    """Bytes in a second, both ways."""
    server.rates.clear()
    mac = random_mac()
    link = open_link(cable, None, (), mac)
    assert link.assignment is not None
    words = {"address": link.assignment.address, "gateway": link.assignment.gateway}
    script = SCRIPT.format(**words, ports=server.ports, count=SIZE >> 20)
    initrd = plain_initrd(directory, root, script, modules=MODULES)
    run = partial(qemu, cable) if who == PEER else partial(ours, who)
    try:
        output = run(link, mac, image, initrd)
    finally:
        link.close()
    if set(server.rates) != set(PARTS):
        raise RuntimeError(f"the guest did not come to its end: {output[-500:].decode(errors='replace')}")
    return dict(server.rates)


def report(cable: str, rounds: int, directory: Path, image: Path, root: Path) -> None:
    """Measure all with one kind of cable, and print medians and ratios."""
    server = Server()
    samples: dict[str, list[dict[str, float]]] = {PEER: [], "stencil": []}
    for _ in range(rounds):
        for who in random.sample(list(samples), len(samples)):
            samples[who].append(measure(who, cable, server, directory, image, root))
    print_throughput(f"{cable}: {rounds} rounds", PARTS, samples)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        image, root = debian_guest(directory)
        source = Path(__file__).with_name("stream.c")
        words = ["riscv64-linux-gnu-gcc", "-static", "-O2", "-o", root / "bin/stream", source]
        subprocess.run(words, check=True)
        for cable in sys.argv[2:] or ("user", "tap"):
            if cable == "tap":  # last: there is no way back from a namespace
                linux.unshare(linux.CLONE_NEWNET)
                subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            report(cable, rounds, directory, image, root)


if __name__ == "__main__":
    main()
