"""A guest's process and its compiler: started on demand, never seen by the guest, and never waited for."""

import contextlib
import os
import signal
import socket
import struct
import time

import pytest

from anyvirt.cpu import region_client
from anyvirt.cpu.region_client import OUTSTANDING, SOCKET, RegionClient
from anyvirt.isa.riscv64 import riscv64
from anyvirt.jit.cache import version
from anyvirt.jit.compile_protocol import Reply, Request, pack

PAGE = 4096
CODE = 0x10000
PATIENCE = 60.0
LOOP = riscv64.assemble("addi x5, x5, 1") + riscv64.assemble("bne x5, x6, -4")

# Python 3.12 and later warn of what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


def eventually(condition):
    """Wait for a condition; its value."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return value


def ask(client, number):
    """Ask for a small region."""
    request = Request(number, "riscv64", CODE, False, 1 << 38, pages=[CODE])
    client.ask(request, LOOP.ljust(PAGE, b"\0"))


def answers(client, count):
    """That many answers; fewer if the connection ends."""
    arrived = []
    eventually(lambda: arrived.extend(client.answers()) or len(arrived) >= count or client.is_lost)
    return arrived


def server_of(directory):
    """The pid of the compiler that listens in a directory."""
    connection = socket.socket(socket.AF_UNIX)
    with connection:
        connection.connect(os.fspath(directory / f"{SOCKET}-{version()}"))
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return struct.unpack("3i", credentials)[0]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("client")


@pytest.fixture
def client(directory):
    """A client of the compiler that the first test to come has started."""
    client = RegionClient(directory, version())
    eventually(lambda: client.is_ready)
    yield client
    client.close()


def test_a_compiler_is_started_when_there_is_none(tmp_path):
    first, second = RegionClient(tmp_path, version()), RegionClient(tmp_path, version())
    assert not first.is_ready
    eventually(lambda: first.is_ready)
    eventually(lambda: second.is_ready)
    for client in (first, second):
        ask(client, 3)
        ((reply, image),) = answers(client, 1)
        assert (reply.number, reply.ranges, bool(image)) == (3, [(CODE, CODE + 8)], True)
        client.close()


def test_only_so_many_requests_wait(client):
    for number in range(OUTSTANDING):
        assert client.is_ready
        ask(client, number)
    assert not client.is_ready
    assert [reply.number for reply, _ in answers(client, OUTSTANDING)] == list(range(OUTSTANDING))
    assert client.is_ready


def open_files(pid):
    """What a process has open; it may be closing some of it."""
    found = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(f"/proc/{pid}/fd/{number}"))
    return found


def test_the_compiler_has_nothing_of_the_guest(directory, client):
    """No open file, no controlling session, no working directory, no environment."""
    secret = os.open("/dev/zero", os.O_RDONLY)
    os.set_inheritable(secret, True)
    try:
        pid = server_of(directory)
        files = open_files(pid)
        kinds = {name.partition(":")[0] for name in files if not name.startswith("/")}
        assert kinds <= {"socket", "anon_inode"}
        lock = f"{directory}/{SOCKET}-{version()}.lock"
        assert {name for name in files if name.startswith("/")} == {"/dev/null", os.fspath(directory), lock}
        assert os.getsid(pid) != os.getsid(0)
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        with open(f"/proc/{pid}/environ", "rb") as file:
            assert {entry.partition(b"=")[0] for entry in file.read().split(b"\0")[:-1]} <= {
                b"PATH",
                b"LC_CTYPE",
            }
    finally:
        os.close(secret)


def test_the_connection_stays_out_of_the_way_of_the_guest(client):
    connection = client._connection
    assert connection.fileno() >= 900
    assert not os.get_inheritable(connection.fileno())


def test_a_guest_does_not_see_the_compiler_end(tmp_path):
    """Neither by SIGCHLD nor by waiting for any child."""
    seen = []
    before = signal.signal(signal.SIGCHLD, lambda *_: seen.append(1))
    try:
        client = RegionClient(tmp_path, version())
        eventually(lambda: client.is_ready)
        pid = server_of(tmp_path)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: list(client.answers()) or client.is_lost)
        # Other tests may have left children.
        with contextlib.suppress(ChildProcessError):
            assert os.waitpid(-1, os.WNOHANG)[0] != pid
        assert not client.is_ready
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert seen == []


def test_after_a_killed_compiler_there_can_be_another(tmp_path):
    client = RegionClient(tmp_path, version())
    eventually(lambda: client.is_ready)
    ask(client, 1)
    os.kill(server_of(tmp_path), signal.SIGKILL)
    assert len(answers(client, 1)) <= 1
    assert client.is_lost or eventually(lambda: list(client.answers()) or client.is_lost)
    other = RegionClient(tmp_path, version())
    eventually(lambda: other.is_ready)
    ask(other, 2)
    ((reply, image),) = answers(other, 1)
    assert (reply.number, bool(image)) == (2, True)
    other.close()


def test_a_child_leaves_its_parents_connection(directory, client):
    ask(client, 1)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if client.is_lost and not client.is_ready and list(client.answers()) == []:
                own = RegionClient(directory, version())
                eventually(lambda: own.is_ready)
                ask(own, 2)
                status = 0 if [reply.number for reply, _ in answers(own, 1)] == [2] else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    ask(client, 3)
    assert [reply.number for reply, _ in answers(client, 2)] == [1, 3]
    assert not client.is_lost


# Without a compiler -------------------------------------------------------------------------------------


def test_without_a_directory_there_is_no_compiler(tmp_path):
    client = RegionClient(tmp_path / "none", version())
    assert [client.is_ready for _ in range(3)] == [False] * 3
    assert list(client.answers()) == []


def test_a_compiler_that_cannot_start_is_tried_once(tmp_path):
    """One of another version ends at once."""
    client = RegionClient(tmp_path, "another version")
    assert not client.is_ready
    started = client._server
    assert started > 0
    eventually(lambda: not client.is_ready and client._failed)
    assert not client.is_ready
    with pytest.raises(ProcessLookupError):
        os.kill(started, 0)


def listen(directory):
    """A socket where a compiler is expected."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.fspath(directory / f"{SOCKET}-{version()}"))
    listener.listen()
    return listener


@pytest.mark.parametrize(
    "sent",
    [b"\xff" * 100, struct.pack("<II", 2, 0) + b"[]", struct.pack("<II", 90_000, 0) + b"[" * 90_000, b""],
    ids=["large", "list", "nested", "end"],
)
def test_a_compiler_that_talks_nonsense_is_left(tmp_path, sent):
    with listen(tmp_path) as listener:
        client = RegionClient(tmp_path, version())
        assert client.is_ready
        ask(client, 1)
        connection, _ = listener.accept()
        with connection:
            connection.sendall(sent)
        assert answers(client, 1) == []
        assert not client.is_ready


def test_a_compiler_that_has_gone_is_no_signal_for_the_guest(tmp_path):
    """SIGPIPE ends programs that have not asked for anything else, and the guest's are such."""
    arrived = []
    previous = signal.signal(signal.SIGPIPE, lambda number, frame: arrived.append(number))
    try:
        with listen(tmp_path) as listener:
            client = RegionClient(tmp_path, version())
            assert client.is_ready
            listener.accept()[0].close()
            ask(client, 1)
            assert answers(client, 1) == []
    finally:
        signal.signal(signal.SIGPIPE, previous)
    assert arrived == []
    assert client.is_lost


def test_a_compiler_may_go_while_it_is_being_told(tmp_path):
    with listen(tmp_path) as listener:
        client = RegionClient(tmp_path, version())
        assert client.is_ready
        request = Request(1, "riscv64", CODE, False, 1 << 38, pages=[PAGE * n for n in range(500)])
        client.ask(request, bytes(500 * PAGE))
        listener.accept()[0].close()
        assert list(client.answers()) == []
    assert client.is_lost


def test_answers_in_pieces(tmp_path):
    message = pack(Reply(1, CODE, [(CODE, CODE + 8)], "00", 2), b"image" * 100)
    with listen(tmp_path) as listener:
        client = RegionClient(tmp_path, version())
        assert client.is_ready
        ask(client, 1)
        connection, _ = listener.accept()
        with connection:
            for position in range(0, len(message), 50):
                assert list(client.answers()) == []
                connection.sendall(message[position : position + 50])
            ((reply, image),) = answers(client, 1)
        assert (reply.number, image) == (1, b"image" * 100)
        client.close()


def test_a_compiler_that_does_not_listen_is_not_waited_for(tmp_path):
    with listen(tmp_path):
        client = RegionClient(tmp_path, version())
        assert client.is_ready
        request = Request(1, "riscv64", CODE, False, 1 << 38, pages=[PAGE * n for n in range(500)])
        begin = time.monotonic()
        client.ask(request, bytes(500 * PAGE))
        assert list(client.answers()) == []
        assert time.monotonic() - begin < 5
        client.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_compiler_of_somebody_else_is_not_believed(tmp_path):
    tmp_path.chmod(0o777)
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.chdir(tmp_path)
            os.setresuid(12345, 12345, 12345)
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(f"{SOCKET}-{version()}")
            listener.listen()
            os.write(tell, b"x")
            time.sleep(PATIENCE)
        finally:
            os._exit(1)
    try:
        assert os.read(ready, 1) == b"x"
        client = RegionClient(tmp_path, version())
        assert [client.is_ready for _ in range(3)] == [False] * 3
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(tell)


@pytest.mark.parametrize("use", ["answers", "close"])
def test_a_descriptor_that_the_guest_has_taken_is_left_alone(tmp_path, use):
    ours, compiler = socket.socketpair()
    client = RegionClient(tmp_path, "version")
    client._connection, client._known_as = ours, region_client._identity(ours.fileno())
    number = ours.fileno()
    replacement = os.open(tmp_path, os.O_RDONLY)
    os.dup2(replacement, number)
    assert list(client.answers()) == [] if use == "answers" else client.close() is None
    assert client.is_lost
    assert os.fstat(number).st_ino == tmp_path.stat().st_ino
    ours.detach()
    for descriptor in (number, replacement):
        os.close(descriptor)
    compiler.close()
