"""The line to a debugger: where to listen for it, and bytes in and out."""

from __future__ import annotations

import fcntl
import os
import resource
import select
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyvirt.errors import UsageError

if TYPE_CHECKING:
    from typing import Self

_CHUNK = 1 << 14
_LOOPBACK = "127.0.0.1"
_RESERVED_DESCRIPTORS = 32


@dataclass(frozen=True)
class Address:
    """Where to wait for a debugger: a TCP port of a host's, or the path of a Unix socket."""

    host: str = _LOOPBACK
    port: int = 0
    path: str | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """`:PORT` (loopback only), `HOST:PORT`, `[IPV6]:PORT` or `unix:PATH`. Raises UsageError."""
        if text.startswith("unix:") and text != "unix:":
            return cls(path=text.removeprefix("unix:"))
        host, colon, port = text.rpartition(":")
        if not colon or not (port.isascii() and port.isdigit()) or int(port) > 0xFFFF:
            raise UsageError(
                f"{text!r} is no address for gdb: write :PORT, HOST:PORT or unix:PATH, such as :1234"
            )
        return cls(host.removeprefix("[").removesuffix("]") or _LOOPBACK, int(port))

    def __str__(self) -> str:
        """As gdb's `target remote` takes it."""
        if self.path is not None:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Listener:
    """A bound address, before the debugger has come."""

    def __init__(self, address: Address) -> None:
        """Bind. Raises UsageError for an address that cannot be used."""
        try:
            if address.path is not None:
                self._socket = socket.socket(socket.AF_UNIX)
                self._socket.bind(address.path)
            else:
                family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
                self._socket = socket.create_server((address.host, address.port), family=family)
                address = Address(address.host, self._socket.getsockname()[1])
            self._socket.listen(1)
        except OSError as error:
            raise UsageError(f"gdb cannot be waited for at {address}: {error.strerror or error}") from None
        self.address = address
        """The address with the port that was really bound (0 asks for any)."""

    def fileno(self) -> int:
        """Descriptor that becomes readable when a debugger comes."""
        return self._socket.fileno()

    def accept(self) -> Connection:
        """Wait for the debugger; only one is served, so the address is given up."""
        with self:
            peer, _ = self._socket.accept()
        if self.address.path is None:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Connection(peer)

    def close(self) -> None:
        """Give the address up."""
        self._socket.close()
        if self.address.path is not None:
            with suppress(OSError):
                os.unlink(self.address.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Connection:
    """A connected debugger. A broken line reads as its end; nothing here raises for it."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self.lost = False
        """Whether the other side is gone."""

    def fileno(self) -> int:
        """The descriptor; readable when there is something to receive."""
        return self._peer.fileno()

    def move_out_of_the_way(self) -> None:
        """Use a high descriptor, where a guest that shares this process's descriptors looks for none."""
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = max(min(limit, 1 << 20) - _RESERVED_DESCRIPTORS, 3)
        moved = socket.socket(fileno=fcntl.fcntl(self._peer.fileno(), fcntl.F_DUPFD_CLOEXEC, lowest))
        self._peer.close()
        self._peer = moved

    def receive(self) -> bytes:
        """What has arrived, after waiting for it; nothing once the other side is gone."""
        while not self.lost:
            try:
                data = self._peer.recv(_CHUNK)
            except InterruptedError:
                continue
            except OSError:
                data = b""
            self.lost = not data
            return data
        return b""

    def ready(self, seconds: float = 0) -> bool:
        """Whether there is something to receive (the end included) within a time."""
        if self.lost:
            return True
        poll = select.poll()
        poll.register(self._peer, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def send(self, data: bytes) -> None:
        """Send everything, if the other side still listens."""
        try:
            self._peer.sendall(data)
        except OSError:
            self.lost = True

    def close(self) -> None:
        """Hang up."""
        self.lost = True
        self._peer.close()
