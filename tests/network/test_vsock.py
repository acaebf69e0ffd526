"""The host's side of virtual sockets: Unix sockets, with a driver of the tests as the guest."""

import os
import queue
import socket
import stat
import threading

import pytest
from tests.devices.virtio.test_vsock import REQUEST, RESPONSE, RST, RW, SHUTDOWN, Driver

from anyvirt.errors import UsageError
from anyvirt.network.vsock import VsockHost

PATIENCE = 30


class Machine:
    """A guest's driver and the host's side of its sockets; the machine's thread is the caller's."""

    def __init__(self, path):
        self.posted = queue.Queue()
        self.host = VsockHost(path)
        self.driver = Driver.__new__(Driver)
        device = self.host.attach
        self.driver.set_up(lambda memory: device(memory, self.posted.put))

    def next(self):
        """The next packet for the guest: operation, ports, flags, payload."""
        while not (packets := self.driver.operations()):
            self.posted.get(timeout=PATIENCE)()
        (packet, *rest) = packets
        assert not rest
        return packet

    def settle(self, condition):
        while not condition():
            self.posted.get(timeout=PATIENCE)()

    def close(self):
        self.host.close()


@pytest.fixture
def machine(tmp_path):
    machine = Machine(tmp_path / "vm")
    yield machine
    machine.close()
    assert os.listdir(tmp_path) == []


def connect(path):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(PATIENCE)
    connection.connect(str(path))
    return connection


def test_the_host_connects_by_a_line(machine, tmp_path):
    with connect(tmp_path / "vm") as client:
        for piece in (b"CONN", b"ECT 10", b"22\nearly"):
            client.sendall(piece)
        operation, ports, _, _ = machine.next()
        assert (operation, ports[1]) == (REQUEST, 1022)
        machine.driver.send(RESPONSE, ports)
        assert machine.next() == (RW, ports, 0, b"early")
        assert client.recv(100) == b"OK %d\n" % ports[0]
        machine.driver.send(RW, ports, b"from the guest")
        assert client.recv(100) == b"from the guest"
        client.shutdown(socket.SHUT_WR)
        assert machine.next() == (SHUTDOWN, ports, 2, b"")
        machine.driver.send(SHUTDOWN, ports, flags=3)
        assert machine.next() == (RST, ports, 0, b"")
        assert client.recv(100) == b""


@pytest.mark.parametrize(
    "line", [b"CONNECT\n", b"connect 1\n", b"CONNECT -1\n", b"CONNECT 4294967295\n", b"x" * 40, b"\n"]
)
def test_other_lines_end_the_connection(machine, tmp_path, line):
    with connect(tmp_path / "vm") as client:
        client.sendall(line)
        client.setblocking(False)

        def is_over():
            try:
                return client.recv(10) == b""
            except BlockingIOError:
                return False
            except ConnectionResetError:
                return True

        machine.settle(is_over)
    assert machine.driver.operations() == []


def test_the_guest_connects_to_who_listens(machine, tmp_path):
    with machine.host.listen(80) as listener:
        listener.settimeout(PATIENCE)
        assert stat.S_IMODE(os.stat(tmp_path / "vm_80").st_mode) == 0o600
        machine.driver.send(REQUEST, (80, 5))
        assert machine.next()[:2] == (RESPONSE, (80, 5))
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(PATIENCE)
            machine.driver.send(RW, (80, 5), b"question")
            assert connection.recv(100) == b"question"
            connection.sendall(b"answer")
            assert machine.next() == (RW, (80, 5), 0, b"answer")
        assert machine.next() == (SHUTDOWN, (80, 5), 2, b"")
    machine.driver.send(REQUEST, (81, 5))
    assert machine.next() == (RST, (81, 5), 0, b"")


def test_programs_in_python_connect(machine):
    with machine.host.connect(22) as client:
        client.settimeout(PATIENCE)
        client.sendall(b"hello")
        operation, ports, _, _ = machine.next()
        assert operation == REQUEST
        machine.driver.send(RESPONSE, ports)
        assert machine.next() == (RW, ports, 0, b"hello")
    with machine.host.connect(23) as client:
        client.settimeout(PATIENCE)
        told = {}
        while len(told) < 2:
            machine.posted.get(timeout=PATIENCE)()
            told |= {operation: ports for operation, ports, _, _ in machine.driver.operations()}
        assert told[SHUTDOWN] == ports
        machine.driver.send(RST, told[REQUEST])
        assert client.recv(10) == b"", "nobody listens there"


def test_who_does_not_read_holds_up_nobody_else(machine, tmp_path):
    with machine.host.listen(80) as listener, machine.host.listen(81) as other:
        ends = []
        for port, who in ((80, listener), (81, other)):
            machine.driver.send(REQUEST, (port, 5))
            assert machine.next()[0] == RESPONSE
            ends.append(who.accept()[0])
        slow, quick = ends
        sent = 0
        while True:
            before = len(machine.driver.device.connections[0].kept)
            if before:
                break
            machine.driver.send(RW, (80, 5), bytes(60_000))
            sent += 60_000
            machine.driver.operations()
        machine.driver.send(RW, (81, 5), b"through")
        assert quick.recv(100) == b"through"
        received = 0
        slow.setblocking(False)
        while received < sent:
            try:
                received += len(slow.recv(1 << 20))
            except BlockingIOError:
                machine.posted.get(timeout=PATIENCE)()
        slow.close()
        quick.close()


def test_a_socket_that_nobody_serves_is_replaced_and_others_are_left_alone(tmp_path):
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "vm"))
    left.close()
    host = VsockHost(tmp_path / "vm")
    with pytest.raises(UsageError, match="cannot be made: Address already in use"):
        VsockHost(tmp_path / "vm")
    host.close()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="Address already in use"):
        VsockHost(tmp_path / "file")
    with pytest.raises(UsageError, match="more than 96 bytes"):
        VsockHost(tmp_path / ("x" * 100))
    assert os.listdir(tmp_path) == ["file"]


def test_nothing_is_left_behind():
    def held():
        return set(os.listdir("/proc/self/fd")), threading.active_count()

    before = held()
    machine = Machine(None)
    directory = machine.host.path.parent
    path = machine.host.path
    with machine.host.connect(5), machine.host.connect(6), connect(path) as late:
        late.sendall(b"CONNECT")
        machine.next()
        machine.close()
        machine.close()
    while not machine.posted.empty():
        machine.posted.get()()
    assert not directory.exists()
    del machine
    assert held() == before
