"""What joins a machine that is made in Python with the host: a network card, and virtual sockets."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from anyvirt.devices.virtio.mmio import VirtioMmio
from anyvirt.devices.virtio.net import VirtioNet
from anyvirt.guest import Network, NetworkMode, Published
from anyvirt.machines.posting import post_to
from anyvirt.network.opening import open_link, random_mac
from anyvirt.network.vsock import VsockHost

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anyvirt.boards.virt import VirtBoard
    from anyvirt.devices.bus import Wire
    from anyvirt.network.link import Link


def attach_network(
    board: VirtBoard, network: Network | str, publish: Sequence[Published | str] = ()
) -> Link | None:
    """Put a card on a board; its cable, which is to be closed, or None for the network `none`.

    Raises UsageError.
    """
    wanted = Network.parse(network) if isinstance(network, str) else network
    ports = [Published.parse(port) if isinstance(port, str) else port for port in publish]
    wanted.check_published(ports)
    if wanted.mode is NetworkMode.NONE:
        return None
    mac = random_mac()
    link = open_link(wanted.mode, wanted.tap, ports, mac)
    post = partial(post_to, board)
    card = VirtioNet(board.memory, link, mac=mac, mtu=link.mtu, post=post)

    def make(wire: Wire) -> VirtioMmio:
        return VirtioMmio(card, interrupt=wire)

    board.attach_virtio_mmio("network", make)
    link.connect(card, post)
    return link


def attach_vsock(board: VirtBoard, path: Path | str | None) -> VsockHost:
    """Put virtual sockets on a board; the host's side, which is to be closed. Raises UsageError."""
    host = VsockHost(path)
    device = host.attach(board.memory, partial(post_to, board))

    def make(wire: Wire) -> VirtioMmio:
        return VirtioMmio(device, interrupt=wire)

    board.attach_virtio_mmio("vsock", make)
    return host
