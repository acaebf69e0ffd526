"""The process that stays outside when a guest gets a root of its own, and does there what has to be done.

It maps the ids of the guest's user namespace, keeps the namespaces for those who join later, and starts the
compiler of hot code, which cannot be started where the host's Python is not. It is nobody's child, has no
stream of the guest's open, is reached by an abstract socket, and ends with the process that started it.
"""

from __future__ import annotations

import array
import errno
import os
import select
import signal
import socket
import struct
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from anyvirt.errors import GuestStartError
from anyvirt.linux import kernel
from anyvirt.linux.container.identities import Identities, choose_identities, write_maps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MAP, _KEEP, _OPEN, _JOIN, _COMPILE = b"map", b"keep", b"open", b"join", b"compile"
_DONE = b"done"
_LONGEST = 1024
_PATIENCE = 10.0
"""Seconds that an answer may take."""
_CREDENTIALS = struct.Struct("3i")
_SPACES = (("user", kernel.CLONE_NEWUSER), ("mnt", kernel.CLONE_NEWNS))


def begin(name: str, start_compiler: Callable[[], int]) -> socket.socket:
    """Start the doorkeeper of this process, to be found as `name`; the connection to it."""
    inner, outer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            if os.fork() == 0:
                _Doorkeeper(client, outer, start_compiler).serve(name)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    outer.close()
    return inner


def settle(connection: socket.socket, *, maps_ids: bool) -> None:
    """Have the namespaces kept that this process is in now, and before that their ids mapped.

    Raises GuestStartError.
    """
    connection.send(_MAP if maps_ids else _KEEP)
    answer = connection.recv(_LONGEST)
    if answer != _DONE:
        reason = os.fsdecode(answer) or "the process that does it was killed"
        raise GuestStartError(f"the guest's namespaces cannot be set up: {reason}")


def open_door(connection: socket.socket) -> None:
    """From now on others may join: the root is what it is to be."""
    connection.send(_OPEN)


def join(name: str) -> None:
    """Enter the namespaces that the doorkeeper `name` keeps, once they are ready. Raises OSError."""
    deadline = time.monotonic() + _PATIENCE
    while not (descriptors := _ask_for_spaces(name)):
        if time.monotonic() > deadline:
            raise OSError(errno.ESRCH, "there is no such guest any more")
        time.sleep(0.02)
    for descriptor, (_, kind) in zip(descriptors, _SPACES[-len(descriptors) :], strict=True):
        kernel.setns(descriptor, kind)
        os.close(descriptor)


def _ask_for_spaces(name: str) -> array.array[int]:
    """Descriptors of the namespaces; none if they, or the doorkeeper, are not ready yet."""
    descriptors = array.array("i")
    try:
        with _connected(name) as connection:
            connection.send(_JOIN)
            messages = connection.recvmsg(_LONGEST, socket.CMSG_SPACE(4 * len(_SPACES)))[1]
    except ConnectionError:
        return descriptors
    for _, _, content in messages:
        descriptors.frombytes(content)
    return descriptors


def start_compiler(name: str) -> int:
    """Have the doorkeeper start the compiler of hot code; its number, or -1."""
    try:
        with _connected(name) as connection:
            connection.send(_COMPILE)
            return int(connection.recv(_LONGEST) or b"-1")
    except OSError:
        return -1


@contextmanager
def _connected(name: str) -> Iterator[socket.socket]:
    """A connection with the doorkeeper `name`. Raises OSError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.settimeout(_PATIENCE)
        connection.connect(_address(name))
        yield connection
    finally:
        connection.close()


def _address(name: str) -> bytes:
    return b"\0anyvirt-" + name.encode()


class _Doorkeeper:
    """The process itself."""

    def __init__(self, client: int, connection: socket.socket, start_compiler: Callable[[], int]) -> None:
        self._client = client
        self._connection = connection
        self._start_compiler = start_compiler
        self._spaces: list[int] = []
        self._is_open = False

    def serve(self, name: str) -> NoReturn:
        """Wait for wishes until the client ends."""
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        ending = os.pidfd_open(self._client)
        self._close_all_but(ending, self._connection.fileno())
        kernel.set_process_name("anyvirt-door")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(_address(name))
        listener.listen(16)
        poll = select.poll()
        for descriptor in (ending, listener.fileno(), self._connection.fileno()):
            poll.register(descriptor, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if ending in ready:
                os._exit(0)
            if self._connection.fileno() in ready and not self._serve_client():
                poll.unregister(self._connection.fileno())
            if listener.fileno() in ready:
                self._answer(listener)

    @staticmethod
    def _close_all_but(*kept: int) -> None:
        """Nobody who waits for the end of the guest's output is to wait for this process."""
        for name in os.listdir("/proc/self/fd"):
            if int(name) not in kept:
                # The directory's own is closed already.
                os.closerange(int(name), int(name) + 1)
        null = os.open(os.devnull, os.O_RDWR)
        for number in {0, 1, 2} - {null, *kept}:
            os.dup2(null, number)

    def _serve_client(self) -> bool:
        """The client is in its new namespaces, or has a root in there that others may join.

        Whether it may want more.
        """
        wish = self._connection.recv(_LONGEST)
        if wish in (_MAP, _KEEP):
            self._connection.send(self._keep_spaces(maps_ids=wish == _MAP))
        elif wish == _OPEN:
            self._is_open = True
        return bool(wish)

    def _keep_spaces(self, *, maps_ids: bool) -> bytes:
        try:
            if maps_ids:
                _map_ids(self._client)
            kept = _SPACES if maps_ids else _SPACES[1:]
            self._spaces = [os.open(f"/proc/{self._client}/ns/{name}", os.O_RDONLY) for name, _ in kept]
        except OSError as error:
            subject = f"{os.fsdecode(error.filename)}: " if error.filename else ""
            return f"{subject}{error.strerror}".encode()
        return _DONE

    def _answer(self, listener: socket.socket) -> None:
        """Serve one who comes to the door; what is wrong with him is his own trouble."""
        try:
            visitor, _ = listener.accept()
        except OSError:
            return
        try:
            visitor.settimeout(1)
            credentials = visitor.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            if _CREDENTIALS.unpack(credentials)[1] != os.geteuid():
                return
            wish = visitor.recv(_LONGEST)
            if wish == _COMPILE:
                visitor.send(b"%d" % self._start_compiler())
            elif wish == _JOIN and self._is_open:
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", self._spaces))
                visitor.sendmsg([_DONE], [rights])
        except OSError:
            return
        finally:
            visitor.close()


def _map_ids(pid: int) -> None:
    """Map the ids of the new user namespace of `pid`: root's all as they are, others' as those of containers.

    Raises OSError.
    """
    if os.geteuid() != 0:
        chosen = choose_identities()
        write_maps(pid, Identities.SINGLE if chosen.privileged else chosen, "")
        return
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/self/{name}", encoding="ascii") as file:
            ranges = [line.split() for line in file]
        with open(f"/proc/{pid}/{name}", "w", encoding="ascii") as file:
            file.write("".join(f"{first} {first} {count}\n" for first, _, count in ranges))
