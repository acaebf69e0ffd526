"""The keeper: a small single-threaded process that owns the containers of one caller.

It makes each container's control group and first process, removes everything when that process ends, and
kills the containers when the caller ends, in whatever way: the caller's sockets close with it. Should the
keeper itself be killed, the kernel kills the containers (PR_SET_PDEATHSIG), and the caller, or the next
start of anything, removes the rest (`records`).

The caller introduces each process it wants by sending one end of a new channel. On it travel the request,
the answer `started` or `failed`, and at last `ended`.
"""

from __future__ import annotations

import _socket
import gc
import os
import select
import signal as signals
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from anyvirt.linux import kernel
from anyvirt.linux.container import confinement, init, records
from anyvirt.linux.container.channel import Channel, receive_with_fds
from anyvirt.linux.container.charges import ContainerCharge, VisitorCharge, close_all
from anyvirt.linux.container.identities import choose_identities
from anyvirt.linux.container.signal_masks import unblock_all
from anyvirt.linux.container.specification import container_from_plain, program_from_plain
from anyvirt.linux.container.stages import Fault

if TYPE_CHECKING:
    from collections.abc import Callable


def serve(introductions: int) -> NoReturn:
    """Be the keeper for the caller at the other end of the packet socket `introductions`.

    The calling process must be single-threaded and have nothing of its own left to do.
    """
    try:
        _detach(introductions)
        _Keeper(introductions).run()
    finally:
        os._exit(0)


def _detach(introductions: int) -> None:
    """Leave the caller's terminal, working directory and files, and survive what ends the caller."""
    os.setsid()
    os.chdir("/")
    for number in (signals.SIGINT, signals.SIGTERM, signals.SIGHUP, signals.SIGQUIT):
        signals.signal(number, signals.SIG_IGN)
    signals.signal(signals.SIGCHLD, signals.SIG_DFL)
    unblock_all()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    init.close_others({introductions})
    kernel.set_process_name("anyvirt-keeper")
    confinement.prepare()
    gc.disable()
    gc.freeze()


class _Keeper:
    """The loop: file descriptors to wait for, and what to do when one of them has something to say."""

    def __init__(self, introductions: int) -> None:
        self.identities = choose_identities()
        self.containers: dict[str, ContainerCharge] = {}
        self.unmappable: set[frozenset[int]] = set()
        self._introductions = _socket.socket(fileno=introductions)
        self._swept: set[str] = set()
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[], None]] = {}

    def run(self) -> None:
        """Serve until the caller is gone and its last container removed."""
        self.watch(self._introductions.fileno(), self._be_introduced)
        while self._handlers:
            for fd, _ in self._poll.poll():
                handler = self._handlers.get(fd)
                if handler is not None:
                    handler()

    def watch(self, fd: int, handler: Callable[[], None]) -> None:
        """See charges.Loop.watch."""
        self._handlers[fd] = handler
        self._poll.register(fd, select.POLLIN)

    def forget(self, fd: int) -> None:
        """See charges.Loop.forget."""
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def _be_introduced(self) -> None:
        data, fds = receive_with_fds(self._introductions, 1)
        if not data:
            self.forget(self._introductions.fileno())
            self._introductions.close()
            return
        channel = Channel(fds[0])
        self.watch(channel.fileno(), lambda: self._take_request(channel))

    def _take_request(self, channel: Channel) -> None:
        self.forget(channel.fileno())
        received = channel.receive()
        if received is None:
            channel.close()
            return
        (verb, *arguments), streams = received
        if verb == "start":
            self._start(channel, arguments[0], arguments[1], streams)
        else:
            self._join(channel, arguments[0], arguments[1], streams)

    def _start(
        self, channel: Channel, container: tuple[Any, ...], program: tuple[Any, ...], streams: tuple[int, ...]
    ) -> None:
        specification = container_from_plain(container)
        instances = os.path.dirname(specification.directory)
        if instances not in self._swept:
            self._swept.add(instances)
            records.sweep(instances)
        ContainerCharge(self, channel, specification, program_from_plain(program), streams).start()

    def _join(
        self, channel: Channel, identifier: str, program: tuple[Any, ...], streams: tuple[int, ...]
    ) -> None:
        container = self.containers.get(identifier)
        if container is None:
            close_all(streams)
            with suppress(BrokenPipeError):
                channel.send(("failed", Fault.HOST.name, "the container has ended"))
            channel.close()
            return
        VisitorCharge(self, channel, container, program_from_plain(program), streams).start()
