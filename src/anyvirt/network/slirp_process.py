"""A process around libslirp: `python -I slirp_process.py PORTS FD`.

Frames come and go through the socket FD as `stream_link` has them; PORTS is a list, in JSON, of
[is UDP, address of the host, its port, the guest's port]. The library interprets what guests send, so it does
so in a process of its own, and the process ends with its socket.
"""

import ctypes
import json
import os
import select
import socket
import struct
import sys
import time
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    c_bool,
    c_char_p,
    c_int,
    c_int64,
    c_size_t,
    c_uint32,
    c_void_p,
)
from ipaddress import IPv4Address

LIBRARY = "libslirp.so.0"
_MTU = 65520
_LENGTH = struct.Struct(">I")
_MOST_FRAME = 65550
_MOST_UNSENT = 1 << 20
"""Bytes for a guest that does not read; beyond, its frames are lost."""
_SLIRP_IN, _SLIRP_OUT, _SLIRP_PRIORITY, _SLIRP_ERROR, _SLIRP_HANG_UP = 1, 2, 4, 8, 16
_EVENTS = (
    (_SLIRP_IN, select.POLLIN),
    (_SLIRP_OUT, select.POLLOUT),
    (_SLIRP_PRIORITY, select.POLLPRI),
    (_SLIRP_ERROR, select.POLLERR),
    (_SLIRP_HANG_UP, select.POLLHUP),
)
_MILLION = 1_000_000


class Configuration(Structure):
    """SlirpConfig of libslirp.h, version 1."""

    _fields_ = [
        ("version", c_uint32),
        ("restricted", c_int),
        ("in_enabled", c_bool),
        ("vnetwork", c_uint32),
        ("vnetmask", c_uint32),
        ("vhost", c_uint32),
        ("in6_enabled", c_bool),
        ("vprefix_addr6", ctypes.c_uint8 * 16),
        ("vprefix_len", ctypes.c_uint8),
        ("vhost6", ctypes.c_uint8 * 16),
        ("vhostname", c_char_p),
        ("tftp_server_name", c_char_p),
        ("tftp_path", c_char_p),
        ("bootfile", c_char_p),
        ("vdhcp_start", c_uint32),
        ("vnameserver", c_uint32),
        ("vnameserver6", ctypes.c_uint8 * 16),
        ("vdnssearch", c_void_p),
        ("vdomainname", c_char_p),
        ("if_mtu", c_size_t),
        ("if_mru", c_size_t),
        ("disable_host_loopback", c_bool),
        ("enable_emu", c_bool),
    ]


_TIMER = CFUNCTYPE(None, c_void_p)
_ADD_POLL = CFUNCTYPE(c_int, c_int, c_int, c_void_p)
_GET_EVENTS = CFUNCTYPE(c_int, c_int, c_void_p)


class Callbacks(Structure):
    """SlirpCb of libslirp.h, as far as version 1 goes."""

    _fields_ = [
        ("send_packet", CFUNCTYPE(ctypes.c_ssize_t, c_void_p, c_size_t, c_void_p)),
        ("guest_error", CFUNCTYPE(None, c_char_p, c_void_p)),
        ("clock_get_ns", CFUNCTYPE(c_int64, c_void_p)),
        ("timer_new", CFUNCTYPE(c_void_p, c_void_p, c_void_p, c_void_p)),
        ("timer_free", CFUNCTYPE(None, c_void_p, c_void_p)),
        ("timer_mod", CFUNCTYPE(None, c_void_p, c_int64, c_void_p)),
        ("register_poll_fd", CFUNCTYPE(None, c_int, c_void_p)),
        ("unregister_poll_fd", CFUNCTYPE(None, c_int, c_void_p)),
        ("notify", CFUNCTYPE(None, c_void_p)),
    ]


class Timers:
    """Timers of the library by number: what to call with what, and when (milliseconds), if at all."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, int | None]] = {}
        self._due: dict[int, int] = {}
        self._next = 1

    def new(self, callback: int, argument: int | None, _: int | None) -> int:
        """Make one."""
        number, self._next = self._next, self._next + 1
        self._known[number] = callback, argument
        return number

    def free(self, number: int, _: int | None) -> None:
        """Forget one."""
        self._known.pop(number, None)
        self._due.pop(number, None)

    def modify(self, number: int, when: int, _: int | None) -> None:
        """Set one to a time."""
        self._due[number] = when

    def ring(self) -> None:
        """Call what is due."""
        now = time.monotonic_ns() // _MILLION
        for number, when in list(self._due.items()):
            if when <= now and self._due.pop(number, None) is not None:
                callback, argument = self._known[number]
                _TIMER(callback)(argument)

    def limit(self, milliseconds: int) -> int:
        """How long may be waited, at most so long."""
        now = time.monotonic_ns() // _MILLION
        return max(0, min([milliseconds, *(when - now for when in self._due.values())]))


class SlirpProcess:
    """The library between a socket and the host."""

    def __init__(self, connection: socket.socket, ports: list[tuple[bool, str, int, int]]) -> None:
        """Raises OSError where there is no library, or where a port cannot be had."""
        self._library = ctypes.CDLL(LIBRARY)
        self._socket = connection
        self._timers = Timers()
        self._arrived = bytearray()
        self._unsent = bytearray()
        self._wanted: dict[int, int] = {}
        self._found: dict[int, int] = {}
        self._order: list[int] = []
        """Descriptors, by the numbers under which the library asks for them."""
        types = {name: kind for name, kind, *_ in Callbacks._fields_}
        self._callbacks = Callbacks(
            types["send_packet"](self._send),
            types["guest_error"](lambda _message, _opaque: None),
            types["clock_get_ns"](lambda _: time.monotonic_ns()),
            types["timer_new"](self._timers.new),
            types["timer_free"](self._timers.free),
            types["timer_mod"](self._timers.modify),
            types["register_poll_fd"](lambda _fd, _opaque: None),
            types["unregister_poll_fd"](lambda _fd, _opaque: None),
            types["notify"](lambda _: None),
        )
        self._declare()
        configuration = Configuration(
            version=1,
            in_enabled=True,
            vnetwork=_number("10.0.2.0"),
            vnetmask=_number("255.255.255.0"),
            vhost=_number("10.0.2.2"),
            vdhcp_start=_number("10.0.2.15"),
            vnameserver=_number("10.0.2.3"),
            if_mtu=_MTU,
            if_mru=_MTU,
        )
        self._slirp = c_void_p(self._library.slirp_new(configuration, self._callbacks, None))
        for port in ports:
            self._publish(*port)

    def _declare(self) -> None:
        library = self._library
        library.slirp_new.restype = c_void_p
        library.slirp_new.argtypes = [POINTER(Configuration), POINTER(Callbacks), c_void_p]
        library.slirp_input.argtypes = [c_void_p, c_void_p, c_int]
        library.slirp_input.restype = None
        library.slirp_pollfds_fill.argtypes = [c_void_p, POINTER(c_uint32), _ADD_POLL, c_void_p]
        library.slirp_pollfds_fill.restype = None
        library.slirp_pollfds_poll.argtypes = [c_void_p, c_int, _GET_EVENTS, c_void_p]
        library.slirp_pollfds_poll.restype = None
        address = [c_uint32, c_int]
        library.slirp_add_hostfwd.argtypes = [c_void_p, c_int, *address, *address]

    def _publish(self, is_udp: bool, address: str, host: int, guest: int) -> None:
        ours, theirs = _number(address), _number("10.0.2.15")
        if self._library.slirp_add_hostfwd(self._slirp, is_udp, ours, host, theirs, guest) < 0:
            raise OSError(f"port {host} of {address} cannot be published")

    def run(self) -> None:
        """Carry frames until the socket ends."""
        fd = self._socket.fileno()
        add, get = _ADD_POLL(self._add), _GET_EVENTS(self._get)
        while True:
            self._wanted.clear()
            self._order.clear()
            limit = c_uint32(1000)
            self._library.slirp_pollfds_fill(self._slirp, limit, add, None)
            self._wanted[fd] = select.POLLIN | (select.POLLOUT if self._unsent else 0)
            poll = select.poll()
            for descriptor, events in self._wanted.items():
                poll.register(descriptor, events)
            self._found = dict(poll.poll(self._timers.limit(limit.value)))
            self._library.slirp_pollfds_poll(self._slirp, 0, get, None)
            self._timers.ring()
            self._flush()
            if self._found.get(fd, 0) & ~select.POLLOUT and not self._receive():
                return

    def _add(self, fd: int, events: int, _: int | None) -> int:
        wanted = sum(host for ours, host in _EVENTS if events & ours)
        self._wanted[fd] = self._wanted.get(fd, 0) | wanted
        self._order.append(fd)
        return len(self._order) - 1

    def _get(self, index: int, _: int | None) -> int:
        found = self._found.get(self._order[index], 0)
        return sum(ours for ours, host in _EVENTS if found & host)

    def _receive(self) -> bool:
        """Give the library the frames of the guest that are complete; False at the end of the socket."""
        try:
            piece = self._socket.recv(1 << 18)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._arrived += piece
        place = 0
        while len(self._arrived) - place >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._arrived, place)
            if size > _MOST_FRAME:
                return False
            if len(self._arrived) - place < _LENGTH.size + size:
                break
            first = place + _LENGTH.size
            frame = bytes(self._arrived[first : first + size])
            self._library.slirp_input(self._slirp, frame, size)
            place = first + size
        del self._arrived[:place]
        return bool(piece)

    def _send(self, frame: int, size: int, _: int | None) -> int:
        if len(self._unsent) <= _MOST_UNSENT:
            self._unsent += _LENGTH.pack(size) + ctypes.string_at(frame, size)
            self._flush()
        return size

    def _flush(self) -> None:
        while self._unsent:
            try:
                del self._unsent[: self._socket.send(self._unsent)]
            except OSError:
                return


def _number(address: str) -> int:
    """An address as the library takes it, in the order of the network."""
    return int.from_bytes(IPv4Address(address).packed, sys.byteorder)


def main() -> int:
    """Serve until the socket ends; what is wrong is one line."""
    ports, fd = json.loads(sys.argv[1]), int(sys.argv[2])
    connection = socket.socket(fileno=fd)
    connection.setblocking(False)
    try:
        process = SlirpProcess(connection, ports)
    except OSError as error:
        print("it is not installed" if LIBRARY in str(error) else error, file=sys.stderr)
        return 1
    process.run()
    return 0


if __name__ == "__main__":
    sys.stdout.flush()
    os._exit(main())
