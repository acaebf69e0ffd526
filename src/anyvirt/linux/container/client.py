"""The caller's side: asking the keeper for processes, and starting the keeper when there is none.

A process with one thread forks its keeper, which takes a millisecond. One with several cannot do so safely
(a lock that another thread holds stays locked in the child for ever), so it starts a fresh interpreter.
"""

from __future__ import annotations

import _socket
import array
import atexit
import os
import select
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from anyvirt.linux.container.channel import Channel
from anyvirt.linux.container.specification import plain

if TYPE_CHECKING:
    from anyvirt.linux.container.specification import ContainerSpecification, ProgramSpecification

_FRESH_KEEPER = """
import sys
sys.path.insert(0, {path!r})
from anyvirt.linux.container.keeper import serve
serve({fd})
"""
_FRESH_FD = 3
_KEEPERS_END = 100
"""Milliseconds to wait for the keeper's end when this process ends."""


class _Introductions:
    """The packet socket to this process's keeper."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self._socket = ours
        atexit.register(self.close)
        try:
            self.keeper = _fork_keeper(theirs) if _is_single_threaded() else _start_keeper(theirs)
        finally:
            theirs.close()

    def introduce(self, channel: Channel) -> None:
        """Hand the keeper one end of a new channel. BrokenPipeError if the keeper is gone."""
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", (channel.fileno(),)))
        self._socket.sendmsg([b"c"], [rights], _socket.MSG_NOSIGNAL)

    def close(self) -> None:
        """Let the keeper end, and reap it: it ends at once, unless containers of this process still run."""
        atexit.unregister(self.close)
        self._socket.close()
        if self.owner != os.getpid():
            return
        with suppress(ChildProcessError, ProcessLookupError):
            pidfd = os.pidfd_open(self.keeper)
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.poll(_KEEPERS_END)
            os.close(pidfd)
            os.waitpid(self.keeper, os.WNOHANG)


_introductions: _Introductions | None = None
_lock = threading.Lock()


def request_start(
    container: ContainerSpecification, program: ProgramSpecification, streams: tuple[int, ...]
) -> Channel:
    """Ask for a container; the channel's first message tells whether it runs."""
    return _request(("start", plain(container), plain(program)), streams)


def request_join(identifier: str, program: ProgramSpecification, streams: tuple[int, ...]) -> Channel:
    """Ask for a further program in a running container."""
    return _request(("join", identifier, plain(program)), streams)


def keeper_pid() -> int | None:
    """The process that keeps this process's containers, if it has started any."""
    current = _introductions
    return current.keeper if current is not None and current.owner == os.getpid() else None


def _request(message: tuple[Any, ...], streams: tuple[int, ...]) -> Channel:
    _fill_standard_streams()
    ours, theirs = Channel.pair()
    try:
        with _lock:
            _introduce(theirs)
    finally:
        theirs.close()
    ours.send(message, streams)
    return ours


def _fill_standard_streams() -> None:
    """Open the null device in the place of a closed standard stream.

    Otherwise a socket of ours would take the place, and become the stream of a guest that is given it.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _introduce(channel: Channel) -> None:
    """Hand `channel` to the keeper, to a new one if there is none or it was killed."""
    global _introductions  # noqa: PLW0603 (a process has one keeper)
    current = _introductions
    if current is not None and current.owner == os.getpid():
        try:
            current.introduce(channel)
        except (BrokenPipeError, ConnectionResetError):
            pass
        else:
            return
    if current is not None:
        current.close()
    _introductions = _Introductions()
    _introductions.introduce(channel)


def _is_single_threaded() -> bool:
    return len(os.listdir("/proc/self/task")) == 1


def _fork_keeper(theirs: _socket.socket) -> int:
    # Everything that the keeper needs is imported before the fork, by the parent, only once.
    from anyvirt.linux.container.keeper import serve

    pid = os.fork()
    if pid == 0:
        serve(theirs.fileno())
    return pid


def _start_keeper(theirs: _socket.socket) -> int:
    import anyvirt

    path = os.path.dirname(os.path.dirname(os.path.abspath(anyvirt.__file__)))
    program = _FRESH_KEEPER.format(path=path, fd=_FRESH_FD)
    return os.posix_spawn(
        sys.executable,
        (sys.executable, "-I", "-S", "-c", program),
        {},
        file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), _FRESH_FD)],
    )
