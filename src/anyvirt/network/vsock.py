"""The host's side of a guest's virtual sockets, by Unix sockets as Firecracker and others have them.

Who wants to reach the guest connects to the machine's socket and sends `CONNECT PORT` and a newline; the
answer is `OK PORT` with the port on the host's side, or the end of the connection. What the guest connects to
at PORT of the host is the Unix socket whose path is the machine's with `_PORT` behind it.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from anyvirt.devices.virtio.vsock import VirtioVsock
from anyvirt.errors import UsageError
from anyvirt.network.host_events import READABLE, WRITABLE, HostEvents

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.devices.bus import DirectMemory
    from anyvirt.devices.virtio.vsock import Connection, HostStream

_GREETING = re.compile(rb"CONNECT (0|[1-9][0-9]{0,9})\n")
_GREETING_LIMIT = 32
_LAST_PORT = (1 << 32) - 2
_BACKLOG = 128
_PATH_LIMIT = 96
"""Bytes: a Unix socket's path has 107, and `_PORT` is put behind it."""


class VsockHost:
    """The machine's Unix socket, and what is connected through it. Satisfies `vsock.HostSide`."""

    def __init__(self, path: Path | str | None = None) -> None:
        """`path` is where the socket is made; None is a place of its own. Raises UsageError."""
        self._directory = tempfile.mkdtemp(prefix="anyvirt-") if path is None else None
        self.path = Path(os.path.abspath(path)) if path is not None else Path(self._directory or "", "vsock")
        """The machine's socket."""
        self._listener = _listen(self.path)
        self._made: list[Path] = [self.path]
        self._greetings: set[_Greeting] = set()
        self._is_closed = False
        self._device: VirtioVsock | None = None
        self._events: HostEvents | None = None
        self._post: Callable[[Callable[[], None]], None] | None = None

    def attach(self, memory: DirectMemory, post: Callable[[Callable[[], None]], None]) -> VirtioVsock:
        """Make the guest's device. `post` has a function run later under the machine's lock."""
        self._device = VirtioVsock(memory, self, post=post)
        self._post = post
        self._events = HostEvents(post, name="vsock")
        self._listener.setblocking(False)
        self._events.watch(self._listener.fileno(), self._accept)
        self._events.arm(self._listener.fileno(), READABLE)
        return self._device

    def close(self) -> None:
        """Let go of all connections, and remove the machine's socket. Idempotent."""
        self._is_closed = True
        if self._events is not None:
            self._events.close()
        for greeting in self._greetings:
            greeting.socket.close()
        if self._device is not None:
            for connection in self._device.connections:
                connection.stream.close()
        self._listener.close()
        for path in self._made:
            path.unlink(missing_ok=True)
        self._made.clear()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    # For programs in Python -----------------------------------------------------------------------------

    def connect(self, port: int) -> socket.socket:
        """A socket to whoever listens at `port` in the guest; if nobody does, it is at its end.

        It returns at once: data may be sent before the guest has accepted. Any thread may call it.
        """
        ours, theirs = socket.socketpair()
        assert self._post is not None
        self._post(lambda: self._join(theirs, port, is_greeted=False))
        return ours

    def listen(self, port: int) -> socket.socket:
        """A listening socket for what the guest connects to at `port` of the host. Raises UsageError."""
        path = self._path_of(port)
        listener = _listen(path)
        self._made.append(path)
        return listener

    # For the device -------------------------------------------------------------------------------------

    def open(self, port: int) -> HostStream | None:
        """See HostSide."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            connection.connect(os.fspath(self._path_of(port)))
        except OSError:
            connection.close()
            return None
        assert self._events is not None
        return _UnixStream(connection, self._events)

    def established(self, stream: HostStream, connection: Connection) -> None:
        """See HostSide."""
        assert isinstance(stream, _UnixStream)
        stream.connection = connection

    # Connections to the guest ---------------------------------------------------------------------------

    def _path_of(self, port: int) -> Path:
        return self.path.with_name(f"{self.path.name}_{port}")

    def _accept(self, _: int) -> None:
        assert self._events is not None
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                break
            connection.setblocking(False)
            self._greetings.add(_Greeting(connection, self._events, self._greeted))
        self._events.arm(self._listener.fileno(), READABLE)

    def _greeted(self, greeting: _Greeting, port: int | None) -> None:
        """Who has connected says where to, or nonsense."""
        self._greetings.discard(greeting)
        if port is None:
            greeting.socket.close()
        else:
            self._join(greeting.socket, port, is_greeted=True)

    def _join(self, connection: socket.socket, port: int, *, is_greeted: bool) -> None:
        assert self._events is not None
        assert self._device is not None
        if self._is_closed:
            connection.close()
            return
        connection.setblocking(False)
        stream = _UnixStream(connection, self._events, is_greeted=is_greeted)
        stream.connection = self._device.connect(stream, port)
        if stream.connection is None:
            stream.close()


class _Greeting:
    """A connection that has not said yet where in the guest it leads."""

    def __init__(
        self, connection: socket.socket, events: HostEvents, done: Callable[[_Greeting, int | None], None]
    ) -> None:
        self.socket, self._events, self._done = connection, events, done
        self._line = b""
        events.watch(connection.fileno(), self._read)
        events.arm(connection.fileno(), READABLE)

    def _read(self, _: int) -> None:
        """Read the line, and nothing of what may be behind it."""
        fd = self.socket.fileno()
        try:
            seen = self.socket.recv(_GREETING_LIMIT, socket.MSG_PEEK)
            end = seen.find(b"\n") + 1
            self._line += self.socket.recv(end or len(seen)) if seen else b""
        except BlockingIOError:
            self._events.arm(fd, READABLE)
            return
        except OSError:
            seen, end = b"", 0
        if seen and not end and len(self._line) < _GREETING_LIMIT:
            self._events.arm(fd, READABLE)
            return
        self._events.forget(fd)
        match = _GREETING.fullmatch(self._line)
        port = int(match[1]) if match is not None else None
        self._done(self, port if port is None or port <= _LAST_PORT else None)


class _UnixStream:
    """Satisfies `anyvirt.devices.virtio.vsock.HostStream`."""

    def __init__(self, connection: socket.socket, events: HostEvents, *, is_greeted: bool = False) -> None:
        self._socket, self._events, self._is_greeted = connection, events, is_greeted
        self.connection: Connection | None = None
        events.watch(connection.fileno(), self._ready)

    def read(self, limit: int, /) -> bytes | None:
        try:
            return self._socket.recv(limit)
        except BlockingIOError:
            self._events.arm(self._socket.fileno(), READABLE)
            return None
        except OSError:
            return b""

    def write(self, data: bytes, /) -> int | None:
        try:
            taken = self._socket.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            taken = 0
        except OSError:
            return None
        if taken < len(data):
            self._events.arm(self._socket.fileno(), WRITABLE)
        return taken

    def opened(self, port: int, /) -> None:
        if self._is_greeted:
            with suppress(OSError):
                self._socket.send(b"OK %d\n" % port, socket.MSG_NOSIGNAL)

    def end_of_input(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            self._events.forget(self._socket.fileno())
            self._socket.close()

    def _ready(self, events: int) -> None:
        if self.connection is None:
            return
        if events & ~READABLE:
            self.connection.output_ready()
        if events & ~WRITABLE:
            self.connection.input_ready()


def _listen(path: Path) -> socket.socket:
    """A socket that its owner alone can connect to, in place of one that nobody serves any more."""
    if len(os.fspath(path).encode()) > _PATH_LIMIT:
        raise UsageError(f"the path of the socket {path} has more than {_PATH_LIMIT} bytes")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        listener.bind(os.fspath(path))
        os.chmod(path, 0o600)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise UsageError(f"the socket {path} cannot be made: {error.strerror}") from None
    return listener


def _remove_stale(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            if path.is_socket():
                path.unlink()
        except OSError:
            return
