"""A guest's process as a client of the compiler of regions: it asks, goes on, and looks for answers later."""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
import weakref
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from anyvirt.cpu.descriptors import out_of_the_way
from anyvirt.cpu.host import host
from anyvirt.jit.compile_protocol import ProtocolError, Reply, Request, Unpacker, pack, unpack_reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOCKET = "compiler"
OUTSTANDING = 3
"""Most requests that wait for an answer: others may turn out to be more urgent."""
_PACKAGES = str(Path(__file__).parents[2])
_LONGEST_START = 60.0
"""Seconds after which a compiler that does not listen yet is not waited for any more."""
_CREDENTIALS = struct.Struct("3i")


class RegionClient:
    """The connection of one process. Nothing here blocks, and without a compiler there are no answers."""

    _all: ClassVar[weakref.WeakSet[RegionClient]] = weakref.WeakSet()
    start_elsewhere: ClassVar[Callable[[], int] | None] = None
    """Has the compiler started where this process cannot, in another root; its pid, or a negative number."""

    def __init__(self, directory: Path, version: str) -> None:
        """The compiler of this `version` listens in `directory` or is started there."""
        self._directory = directory
        self._name = socket_name(version)
        self._connection: socket.socket | None = None
        self._known_as: tuple[int, int] | None = None
        self._unpacker = Unpacker()
        self._unsent: deque[memoryview] = deque()
        self._server = 0
        self._started = 0.0
        self._failed = False
        self.is_lost = False
        """The connection has ended: the compiler died, or this process is a fork of the one that had it."""
        RegionClient._all.add(self)
        self.waiting = 0
        """Requests without an answer so far."""

    @property
    def is_ready(self) -> bool:
        """Whether another request makes sense now; connects if it has to, and starts the compiler."""
        if self._failed or self.is_busy:
            return False
        if self._connection is None:
            self._connect()
        return self._connection is not None

    @property
    def is_busy(self) -> bool:
        """Whether the compiler has as much to do as it is given at a time."""
        return self.waiting >= OUTSTANDING

    def ask(self, request: Request, code: bytes) -> None:
        """Send a request with the code of its pages."""
        self._unsent.append(memoryview(pack(request, code)))
        self.waiting += 1
        if self._connection is not None and not self._is_ours():
            self._give_up()
        self._flush()

    def answers(self) -> Iterator[tuple[Reply, bytes]]:
        """What has come back since the last time."""
        if self._connection is None:
            return
        if not self._is_ours():
            self._give_up()
            return
        self._flush()
        try:
            while self._connection is not None and (data := self._connection.recv(1 << 18)):
                for header, image in self._unpacker.feed(data):
                    self.waiting -= 1
                    yield unpack_reply(header), image
            self._give_up()
        except BlockingIOError:
            return
        except (OSError, ProtocolError):
            self._give_up()

    def close(self) -> None:
        """Leave the compiler."""
        if self._connection is not None:
            self.is_lost = True
            if self._is_ours():
                self._connection.close()
            else:
                self._connection.detach()
            self._connection = None

    def _is_ours(self) -> bool:
        """Whether the descriptor is still the connection: guests close what they did not open, and use it."""
        assert self._connection is not None
        return _identity(self._connection.fileno()) == self._known_as

    def __del__(self) -> None:
        self.close()

    @classmethod
    def after_fork(cls) -> None:
        """A child of fork(2) must not listen to what its parent is told."""
        for client in cls._all:
            client._give_up()

    def _give_up(self) -> None:
        self.close()
        self._failed = True

    def _flush(self) -> None:
        try:
            while self._unsent and self._connection is not None:
                # For a guest that has not asked otherwise SIGPIPE is deadly.
                sent = self._connection.send(self._unsent[0], socket.MSG_NOSIGNAL)
                self._unsent[0] = self._unsent[0][sent:]
                if not self._unsent[0]:
                    self._unsent.popleft()
        except BlockingIOError:
            return
        except OSError:
            self._give_up()

    def _connect(self) -> None:
        try:
            folder = os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            self._failed = True
            return
        connection = socket.socket(socket.AF_UNIX)
        connection.setblocking(False)
        try:
            connection.connect(f"/proc/self/fd/{folder}/{self._name}")
        except BlockingIOError:
            # Too many others want to be let in.
            connection.close()
            return
        except OSError:
            connection.close()
            self._start()
            return
        finally:
            os.close(folder)
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        if _CREDENTIALS.unpack(credentials)[1] != os.geteuid():
            connection.close()
            self._failed = True
            return
        self._connection = self._out_of_the_way(connection)
        self._connection.setblocking(False)
        self._known_as = _identity(self._connection.fileno())

    @staticmethod
    def _out_of_the_way(connection: socket.socket) -> socket.socket:
        """The same connection under a number that guests hardly use."""
        number = out_of_the_way(connection.fileno())
        if number is None:
            return connection
        moved = socket.socket(fileno=number)
        connection.close()
        return moved

    def _start(self) -> None:
        """Start the compiler, once: as a process that is not seen by a guest that waits for its children."""
        if self._server:
            self._failed = not self._is_starting()
            return
        elsewhere = RegionClient.start_elsewhere
        pid = spawn_compiler(self._directory, self._name) if elsewhere is None else elsewhere()
        self._server, self._started = max(pid, 0), time.monotonic()
        self._failed = pid < 0

    def _is_starting(self) -> bool:
        """Whether the compiler that was started here may still come to listen."""
        try:
            os.kill(self._server, 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass
        return time.monotonic() - self._started < _LONGEST_START


os.register_at_fork(after_in_child=RegionClient.after_fork)


def socket_name(version: str) -> str:
    """What the compiler of this version is found by."""
    return f"{SOCKET}-{version}"


def spawn_compiler(directory: Path, name: str) -> int:
    """Start the compiler that listens as `name` in a directory; its pid, or minus an errno."""
    code = f"import sys; sys.path.insert(0, {_PACKAGES!r}); from anyvirt.jit.compile_server import main; "
    code += "main(*sys.argv[1:])"
    command = [sys.executable, "-I", "-c", code, os.fspath(directory), name]
    return host().spawn(command, {"PATH": os.environ.get("PATH", os.defpath)})


def _identity(descriptor: int) -> tuple[int, int] | None:
    """What an open file is known by in the kernel; None if there is none."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino
