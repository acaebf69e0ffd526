"""Waiting for descriptors of the host on behalf of devices.

A thread waits; what is to be done is posted, to run under the machine's lock. Each wait is for one event: who
was told arms the descriptor again when it has come to its end, so that nobody is told twice and a guest that
does not read costs nothing.
"""

from __future__ import annotations

import os
import select
import threading
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

READABLE, WRITABLE = select.EPOLLIN, select.EPOLLOUT


class HostEvents:
    """The descriptors that a device waits for. Methods but `close` are called under the machine's lock.

    After `close` they do nothing.
    """

    def __init__(self, post: Callable[[Callable[[], None]], object], *, name: str) -> None:
        """`post` has a function run later under the machine's lock."""
        self._post = post
        self._actions: dict[int, Callable[[int], None]] = {}
        self._awaited: dict[int, int] = {}
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._is_closed = False
        self._epoll.register(self._wake, READABLE)
        self._thread = threading.Thread(target=self._wait, name=name, daemon=True)
        self._thread.start()

    def watch(self, fd: int, action: Callable[[int], None]) -> None:
        """Wait for a descriptor once it is armed; `action` is given what it is ready for."""
        if self._is_closed:
            return
        self._actions[fd] = action
        self._awaited[fd] = 0
        self._epoll.register(fd, select.EPOLLONESHOT)

    def arm(self, fd: int, events: int) -> None:
        """Tell of the next of these events, and of those for which the descriptor is armed already."""
        if fd in self._actions:
            self._awaited[fd] |= events
            self._epoll.modify(fd, self._awaited[fd] | select.EPOLLONESHOT)

    def forget(self, fd: int) -> None:
        """Do not wait for a descriptor any more; before it is closed."""
        if self._actions.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def close(self) -> None:
        """Let the thread end. Idempotent; nothing is posted afterwards."""
        if self._is_closed:
            return
        self._is_closed = True
        self._actions.clear()
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._epoll.close()
        os.close(self._wake)

    def _wait(self) -> None:
        while not self._is_closed:
            for fd, events in self._epoll.poll():
                if fd != self._wake and not self._is_closed:
                    self._post(partial(self._tell, fd, self._actions.get(fd), events))

    def _tell(self, fd: int, action: Callable[[int], None] | None, events: int) -> None:
        """Unless the descriptor was forgotten meanwhile, and another one perhaps has its number."""
        if action is None or self._actions.get(fd) is not action or self._is_closed:
            return
        left, self._awaited[fd] = self._awaited[fd] & ~events, 0
        if left:
            self.arm(fd, left)
        action(events)
