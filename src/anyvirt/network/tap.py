"""Taps: network interfaces of the host whose other end is a guest (Documentation/networking/tuntap.rst).

A tap of our making exists as long as its descriptor is open: nothing has to be removed, whatever is killed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import TYPE_CHECKING

from anyvirt.devices.virtio.net import MOST_FRAME
from anyvirt.errors import UsageError
from anyvirt.network.assignment import Assignment
from anyvirt.network.host_events import READABLE, WRITABLE
from anyvirt.network.link import JUMBO_MTU, Link

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyvirt.devices.virtio.views import Views

_DEVICE = "/dev/net/tun"
_PATTERN = "anyvirt%d"
"""The kernel puts the lowest number that is free in."""
_NETWORKS = IPv4Network("10.219.0.0/16")
"""Of its networks of four addresses, each tap of ours has the one of its number."""
_TUNSETIFF = 0x400454CA
_TAP, _NO_PACKET_INFORMATION = 0x0002, 0x1000
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_SIOCGIFADDR, _SIOCSIFADDR = 0x8915, 0x8916
_SIOCGIFNETMASK, _SIOCSIFNETMASK = 0x891B, 0x891C
_SIOCGIFMTU, _SIOCSIFMTU = 0x8921, 0x8922
_SIOCGIFINDEX = 0x8933
_UP = 1
_ADDRESS = struct.Struct("16sHxx4s16x")
"""struct ifreq with a struct sockaddr_in (netdevice(7))."""
_NUMBER = struct.Struct("16si20x")
_FLAGS = struct.Struct("16sH22x")
_REFUSED = (errno.EPERM, errno.EACCES)


class TapLink(Link):
    """A cable that is a tap; it owns the descriptor."""

    def __init__(self, descriptor: int, name: str, *, mtu: int, assignment: Assignment | None) -> None:
        super().__init__(descriptor, mtu=mtu, assignment=assignment)
        self.name = name
        """The interface's name on the host."""
        os.set_blocking(descriptor, False)

    def send(self, frame: Views, /) -> bool:
        """See NetBackend. What the interface does not take, because it is down for example, is lost."""
        try:
            os.writev(self._descriptor, frame)
        except BlockingIOError:
            self._await(WRITABLE)
            return False
        except OSError as error:
            self._note(error)
        return True

    def receive(self) -> bytes | None:
        """See NetBackend."""
        try:
            return os.read(self._descriptor, MOST_FRAME + 1)
        except BlockingIOError:
            self._await(READABLE)
        except OSError as error:
            self._note(error)
        return None

    def _note(self, error: OSError) -> None:
        if error.errno in (errno.EBADFD, errno.ENODEV, errno.EBADF):
            self._lose(f"the tap {self.name} was removed")

    def close(self) -> None:
        """See Link.close."""
        super().close()
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def make_tap() -> TapLink:
    """A tap of our own, which is up, and a network that is the host and the guest.

    Raises UsageError if the caller may not make one, or if the host uses the addresses otherwise.
    """
    descriptor, name = _open(_PATTERN)
    try:
        with _control() as control:
            network = _network_of(name)
            ours, guest = (IPv4Interface((address, network.prefixlen)) for address in network.hosts())
            _request(control, _SIOCSIFADDR, _ADDRESS.pack(name, socket.AF_INET, ours.ip.packed))
            _request(control, _SIOCSIFNETMASK, _ADDRESS.pack(name, socket.AF_INET, ours.netmask.packed))
            _request(control, _SIOCSIFMTU, _NUMBER.pack(name, JUMBO_MTU))
            _, flags = _FLAGS.unpack(_request(control, _SIOCGIFFLAGS, _FLAGS.pack(name, 0)))
            _request(control, _SIOCSIFFLAGS, _FLAGS.pack(name, flags | _UP))
    except (OSError, UsageError) as error:
        os.close(descriptor)
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"the tap {name.decode()} cannot be configured: {error.strerror}") from None
    return TapLink(descriptor, name.decode(), mtu=JUMBO_MTU, assignment=Assignment(guest, ours.ip))


def open_tap(name: str) -> TapLink:
    """A tap that is there, configured as it is: on a bridge, say, or with an address.

    With an address, the guest has the first other one of its network. Raises UsageError.
    """
    encoded = name.encode()
    with _control() as control:
        try:
            _request(control, _SIOCGIFINDEX, _NUMBER.pack(encoded, 0))
        except OSError:
            raise UsageError(
                f"there is no network interface {name}: make a tap with `ip tuntap add {name} mode tap`, "
                "or let `tap` without a name make one"
            ) from None
        descriptor, _ = _open(name)
        _, mtu = _NUMBER.unpack(_request(control, _SIOCGIFMTU, _NUMBER.pack(encoded, 0)))
        return TapLink(descriptor, name, mtu=mtu, assignment=_beside(control, encoded))


def _open(name: str) -> tuple[int, bytes]:
    """The descriptor of a tap, and its name."""
    request = struct.pack("16sH22x", name.encode(), _TAP | _NO_PACKET_INFORMATION)
    descriptor = -1
    try:
        descriptor = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
        answer = fcntl.ioctl(descriptor, _TUNSETIFF, request)
    except OSError as error:
        if descriptor >= 0:
            os.close(descriptor)
        raise UsageError(_complaint(name, error)) from None
    return descriptor, answer[:16].rstrip(b"\0")


def _complaint(name: str, error: OSError) -> str:
    if error.errno in _REFUSED and name == _PATTERN:
        return (
            "only root can make a tap: use `user` networking, or a tap that root has made for you "
            "with `ip tuntap add NAME mode tap user YOU`"
        )
    if error.errno in _REFUSED:
        return f"the tap {name} belongs to another user: make one with `ip tuntap add NAME mode tap user YOU`"
    if error.errno == errno.EBUSY:
        return f"the tap {name} is in use by another program"
    if error.errno == errno.EINVAL:
        return f"the network interface {name} is no tap"
    what = "a tap cannot be made" if name == _PATTERN else f"the tap {name} cannot be opened"
    return f"{what}: {error.strerror}"


def _network_of(name: bytes) -> IPv4Network:
    """The network of a tap of our making. Raises UsageError."""
    number = int(name.removeprefix(b"anyvirt"))
    start = int(_NETWORKS.network_address) + 4 * number
    network = IPv4Network((start, 30))
    if not network.subnet_of(_NETWORKS):
        raise UsageError(f"there are too many taps: {name.decode()} has no addresses")
    for route in _routes():
        if route.prefixlen and route.overlaps(network):
            raise UsageError(
                f"the host uses {route}, so a tap cannot have {network}: make one with addresses of your "
                "choice and name it: `tap:NAME`"
            )
    return network


def _routes() -> Iterator[IPv4Network]:
    """The host's routes, of the caller's network namespace."""
    with open("/proc/thread-self/net/route") as file:
        for line in list(file)[1:]:
            words = line.split()
            start, mask = (IPv4Address(struct.pack("<I", int(words[column], 16))) for column in (1, 7))
            yield IPv4Network(f"{start}/{mask}", strict=False)


def _beside(control: socket.socket, name: bytes) -> Assignment | None:
    """What a guest can be given beside the address that the host has on its tap."""
    try:
        address, mask = (
            IPv4Address(_ADDRESS.unpack(_request(control, code, _ADDRESS.pack(name, socket.AF_INET, b"")))[2])
            for code in (_SIOCGIFADDR, _SIOCGIFNETMASK)
        )
    except OSError:
        return None
    ours = IPv4Interface(f"{address}/{mask}")
    guest = next((host for host in ours.network.hosts() if host != ours.ip), None)
    if guest is None:
        return None
    return Assignment(IPv4Interface((guest, ours.network.prefixlen)), ours.ip)


@contextmanager
def _control() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        yield control


def _request(control: socket.socket, code: int, content: bytes) -> bytes:
    return fcntl.ioctl(control, code, content)
