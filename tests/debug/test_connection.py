"""Where to wait for a debugger, and lines that break."""

import socket

import pytest

from anyvirt.debug.connection import Address, Connection, Listener
from anyvirt.errors import UsageError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":1234", Address("127.0.0.1", 1234)),
        ("0.0.0.0:1", Address("0.0.0.0", 1)),
        ("[::1]:99", Address("::1", 99)),
        ("unix:/tmp/gdb", Address(path="/tmp/gdb")),
    ],
)
def test_addresses(text, address):
    assert Address.parse(text) == address


@pytest.mark.parametrize("text", ["", "1234", ":", ":x", ":65536", ":-1", "host", "unix:", ":²"])
def test_no_addresses(text):
    with pytest.raises(UsageError, match="no address for gdb"):
        Address.parse(text)


def test_an_address_in_use_is_a_mistake():
    with Listener(Address()) as first, pytest.raises(UsageError, match="cannot be waited for"):
        Listener(first.address)


def test_a_port_of_the_host_s_choice():
    listener = Listener(Address())
    assert str(listener.address) != "127.0.0.1:0"
    with socket.create_connection((listener.address.host, listener.address.port)) as peer:
        connection = listener.accept()
        peer.sendall(b"x")
        assert connection.receive() == b"x"
        assert not connection.ready()
    assert connection.receive() == b""
    assert connection.lost
    connection.close()


def test_a_unix_socket_disappears_when_the_debugger_has_come(tmp_path):
    path = tmp_path / "socket"
    listener = Listener(Address.parse(f"unix:{path}"))
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(path))
        listener.accept().close()
    assert not path.exists()


def test_sending_to_nobody_is_no_error():
    ours, theirs = socket.socketpair()
    theirs.close()
    connection = Connection(ours)
    connection.send(b"x" * (1 << 20))
    assert connection.lost
    connection.close()


def test_a_connection_can_leave_the_low_descriptors():
    ours, theirs = socket.socketpair()
    connection = Connection(ours)
    connection.move_out_of_the_way()
    assert connection.fileno() > 200
    theirs.sendall(b"y")
    assert connection.receive() == b"y"
    connection.close()
    theirs.close()
