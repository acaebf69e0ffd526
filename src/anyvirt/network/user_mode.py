"""User-mode networking: a program of the host makes the guest's connections its own, so nobody needs root.

The program is our process around libslirp, or passt where that library is not there or does not work. passt
is quicker, but that of 2023, which Debian 12 has, lets connections hang: published ones on which the guest is
to speak first, as with SSH, and those of the guest that it has closed for its own direction.
Each program has one end of a socket pair and ends with it, so nothing is left behind whatever is killed.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from anyvirt.errors import UsageError
from anyvirt.network.assignment import USER_NETWORK
from anyvirt.network.link import JUMBO_MTU
from anyvirt.network.stream_link import LENGTH, StreamLink

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO

_ANSWER_LIMIT = 20.0
"""Seconds that a program may take until it answers, on a busy host."""
_END_LIMIT = 2.0
_ROOM = 4 << 20
"""Bytes on their way to the guest; the kernel grants what it grants to the user."""
_GATEWAY_MAC = "52:55:0a:00:02:02"
_NOISE = ("Failed to send", "Don't run as root")
"""What passt says of the system's log and of itself, which is no reason for anything."""
_ARP_REQUEST = bytes.fromhex("0806 0001 0800 06 04 0001")


class PublishedPort(Protocol):
    """A port of the host that leads to the guest, as `anyvirt.guest.Published`."""

    @property
    def host(self) -> int:
        """Its number."""

    @property
    def guest(self) -> int:
        """The guest's."""

    @property
    def address(self) -> str:
        """The host's address."""

    @property
    def protocol(self) -> str:
        """`tcp` or `udp`."""


class ProgramFailed(Exception):
    """A program could not do it; why."""


class UserLink(StreamLink):
    """The cable to a program, which ends with it."""

    def __init__(
        self, connection: socket.socket, process: subprocess.Popen[bytes], errors: IO[bytes]
    ) -> None:
        super().__init__(connection, mtu=JUMBO_MTU, assignment=USER_NETWORK)
        self._process, self._errors = process, errors

    def close(self) -> None:
        """See Link.close."""
        super().close()
        _end(self._process)
        self._errors.close()


def open_user_network(mac: bytes, published: Sequence[PublishedPort] = ()) -> UserLink:
    """Start a program for a card with the address `mac`.

    Raises UsageError if no program is there or works, or if a port of the host cannot be had.
    """
    for port in published:
        _check_port(port)
    reasons = []
    programs = (("libslirp", _slirp(published)), ("passt", _passt(published)))
    for name, words in programs:
        try:
            if words is None:
                raise ProgramFailed("is not installed")
            return _start(words, mac)
        except ProgramFailed as failed:
            reasons.append(f"{name} {failed}")
    raise UsageError(
        f"user-mode networking needs libslirp or passt, and {' and '.join(reasons)}: "
        "install one, such as Debian's package libslirp0"
    )


def _check_port(port: PublishedPort) -> None:
    """A port that is taken deserves a sentence of its own. It may still be lost to somebody else."""
    kind = socket.SOCK_DGRAM if port.protocol == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)
        try:
            probe.bind((port.address, port.host))
        except OSError as error:
            raise UsageError(
                f"port {port.host} of {port.address} cannot be published: {error.strerror}"
            ) from None


def _passt(published: Sequence[PublishedPort]) -> list[str] | None:
    program = shutil.which("passt")
    if program is None:
        return None
    network = USER_NETWORK
    words = [program, "--foreground", "--quiet", "--ipv4-only", "--mac-addr", _GATEWAY_MAC]
    words += ["--address", str(network.address.ip), "--netmask", str(network.address.network.prefixlen)]
    words += ["--gateway", str(network.gateway), "--dns-forward", str(network.nameservers[0])]
    words += ["--dns", str(network.nameservers[0]), "--mtu", str(JUMBO_MTU)]
    words += ["--no-ndp", "--no-dhcpv6", "--no-ra"]
    for port in published:
        option = "--udp-ports" if port.protocol == "udp" else "--tcp-ports"
        words += [option, f"{port.address}/{port.host}:{port.guest}"]
    return [*words, "--fd"]


def _slirp(published: Sequence[PublishedPort]) -> list[str]:
    program = Path(__file__).with_name("slirp_process.py")
    ports = [[port.protocol == "udp", port.address, port.host, port.guest] for port in published]
    return [sys.executable, "-I", os.fspath(program), json.dumps(ports)]


def _start(words: Sequence[str], mac: bytes) -> UserLink:
    """Start a program with the number of its end of a socket pair behind `words`."""
    ours, theirs = socket.socketpair()
    # passt loses frames that find no room here, and the guest's peers wait until they send them again.
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
    errors, far_errors = os.pipe()
    # Nobody reads what it says once it works, and it must not wait for that.
    os.set_blocking(far_errors, False)
    fcntl.fcntl(errors, fcntl.F_SETPIPE_SZ, 4096)
    process = subprocess.Popen(
        [*words, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=far_errors,
        start_new_session=True,
    )
    theirs.close()
    os.close(far_errors)
    said = os.fdopen(errors, "rb")
    try:
        _await_gateway(ours, mac)
    except (OSError, ProgramFailed) as error:
        ours.close()
        _end(process)
        with said:
            raise ProgramFailed(f"does not work here ({_reason(said) or error})") from None
    return UserLink(ours, process, said)


def _await_gateway(connection: socket.socket, mac: bytes) -> None:
    """Ask for the gateway as a guest would (RFC 826): who answers works, and knows the guest's card."""
    network = USER_NETWORK
    assert network.gateway is not None
    addresses = mac + network.address.ip.packed + bytes(6) + network.gateway.packed
    request = b"\xff" * 6 + mac + _ARP_REQUEST + addresses
    connection.sendall(LENGTH.pack(len(request)) + request)
    deadline = time.monotonic() + _ANSWER_LIMIT
    arrived = b""
    while True:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        piece = connection.recv(1 << 16)
        if not piece:
            raise ProgramFailed("it has ended")
        arrived += piece
        while len(arrived) >= LENGTH.size:
            (size,) = LENGTH.unpack_from(arrived)
            if len(arrived) < LENGTH.size + size:
                break
            frame, arrived = arrived[LENGTH.size : LENGTH.size + size], arrived[LENGTH.size + size :]
            if frame[12:14] == _ARP_REQUEST[:2] and frame[28:32] == network.gateway.packed:
                return


def _reason(said: IO[bytes]) -> str:
    """The last that a program has said."""
    os.set_blocking(said.fileno(), False)
    lines = (said.read() or b"").decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line and not line.startswith(_NOISE)), "")


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(subprocess.TimeoutExpired):
        process.wait(_END_LIMIT)
    process.kill()
    process.wait()
