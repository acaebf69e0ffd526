"""The host's end of the cable of a guest's network card, whatever the cable leads to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from anyvirt.network.host_events import READABLE, WRITABLE, HostEvents

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.devices.virtio.net import VirtioNet
    from anyvirt.devices.virtio.views import Views
    from anyvirt.network.assignment import Assignment

JUMBO_MTU = 65520
"""Bytes: the largest payload of frames. Few large frames are quicker than many small ones."""


class Link(ABC):
    """A cable that is a descriptor of the host. Satisfies `anyvirt.devices.virtio.net.NetBackend`."""

    def __init__(self, descriptor: int, *, mtu: int, assignment: Assignment | None) -> None:
        self.mtu = mtu
        """Bytes of payload that a frame may have."""
        self.assignment = assignment
        """What the guest's interface is to be; None leaves that to the guest."""
        self.failure = ""
        """Why the cable leads nowhere any more."""
        self._descriptor = descriptor
        self._card: VirtioNet | None = None
        self._events: HostEvents | None = None

    def connect(self, card: VirtioNet, post: Callable[[Callable[[], None]], object]) -> None:
        """Plug the cable in. `post` has a function run later under the machine's lock."""
        self._card = card
        self._events = HostEvents(post, name="network")
        self._events.watch(self._descriptor, self._ready)
        self._await(READABLE)

    @abstractmethod
    def send(self, frame: Views, /) -> bool:
        """See NetBackend."""

    @abstractmethod
    def receive(self) -> bytes | None:
        """See NetBackend."""

    def close(self) -> None:
        """Let go of what the cable leads to. Idempotent."""
        if self._events is not None:
            self._events.close()

    def _room(self) -> None:  # noqa: B027 (most have nothing to do)
        """The descriptor takes more."""

    def _await(self, events: int) -> None:
        if self._events is not None:
            self._events.arm(self._descriptor, events)

    def _ready(self, events: int) -> None:
        assert self._card is not None
        if events & ~READABLE:
            self._room()
            self._card.output_ready()
        if events & ~WRITABLE:
            self._card.input_ready()

    def _lose(self, reason: str) -> None:
        """Nothing will ever come any more: pull the guest's cable."""
        self.failure = self.failure or reason
        if self._events is not None:
            self._events.forget(self._descriptor)
        if self._card is not None:
            self._card.set_link(False)
