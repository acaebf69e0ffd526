"""The host's end of what a guest asks for as its network."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyvirt.network.link import Link
    from anyvirt.network.user_mode import PublishedPort


def open_link(mode: str, tap: str | None, ports: Sequence[PublishedPort], mac: bytes) -> Link:
    """The cable for a card with the address `mac`, of a network of mode `user` or `tap`.

    `tap` names one that is there, or none. Raises UsageError, and nothing is left behind then.
    """
    if mode == "tap":
        from anyvirt.network.tap import make_tap, open_tap

        return make_tap() if tap is None else open_tap(tap)
    from anyvirt.network.user_mode import open_user_network

    return open_user_network(mac, ports)


def random_mac() -> bytes:
    """An address for a card that no other card has: of those that nobody assigns (IEEE 802, section 8.2)."""
    return b"\x52\x54\x00" + os.urandom(3)
