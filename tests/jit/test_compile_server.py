"""The compiler of regions as a process: it serves several clients, survives hostile ones, ends by itself."""

import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from typing import ClassVar

import pytest

from anyvirt.isa.riscv64 import riscv64
from anyvirt.jit.cache import version
from anyvirt.jit.compile_protocol import LARGEST_MESSAGE, Reply, Request, Unpacker, pack, unpack_reply
from anyvirt.jit.guest_code import code_digest

PAGE = 4096
CODE = 0x10000
PATIENCE = 60.0
"""Seconds to wait for what takes much less on a machine that has nothing else to do."""
NAME = f"compiler-{version()}"
LOOP = riscv64.assemble("addi x5, x5, 1") + riscv64.assemble("bne x5, x6, -4")
STARTER = (
    "import sys; sys.path[:0] = sys.argv[5:]; import anyvirt.jit.compile_server as server; "
    "server.LINGER, server.RETIREMENT = float(sys.argv[3]), int(sys.argv[4]); server.main(*sys.argv[1:3])"
)


def eventually(condition):
    """Wait for a condition; its value."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return value


class Peer:
    """A client that does as it is told."""

    everybody: ClassVar[list] = []

    def __init__(self, directory):
        self.connection = eventually(lambda: connect(directory))
        self.everybody.append(self)
        self.connection.settimeout(PATIENCE)
        self._unpacker = Unpacker()
        self._arrived = []

    def ask(self, number, *, code=LOOP, entry=CODE, isa="riscv64"):
        """Send a request with a page of code."""
        request = Request(number, isa, entry, False, 1 << 38, pages=[CODE])
        self.connection.sendall(pack(request, code.ljust(PAGE, b"\0")))

    def answer(self):
        """The next reply and its image; None if the connection has ended."""
        while not self._arrived:
            try:
                data = self.connection.recv(1 << 16)
            except ConnectionError:
                return None
            if not data:
                return None
            self._arrived += self._unpacker.feed(data)
        header, image = self._arrived.pop(0)
        return unpack_reply(header), image

    def is_served(self, number):
        """Whether it gets a region for a request."""
        self.ask(number)
        reply, image = self.answer()
        return (reply.number, bool(image)) == (number, True)


def connect(directory):
    connection = socket.socket(socket.AF_UNIX)
    folder = os.open(directory, os.O_PATH)
    try:
        connection.connect(f"/proc/self/fd/{folder}/{NAME}")
    except OSError:
        connection.close()
        return None
    finally:
        os.close(folder)
    return connection


@pytest.fixture(autouse=True)
def leave():
    """Nobody stays connected after a test."""
    yield
    while Peer.everybody:
        Peer.everybody.pop().connection.close()


@pytest.fixture
def start(tmp_path):
    """Start a server in the test's directory."""
    servers = []

    def start_server(linger=PATIENCE, retirement=1000, **options):
        limits = str(linger), str(retirement)
        command = [sys.executable, "-I", "-c", STARTER, tmp_path, NAME, *limits, *sys.path]
        server = subprocess.Popen(command, stderr=subprocess.PIPE, **options)
        servers.append(server)
        return server

    yield start_server
    for server in servers:
        server.kill()
        server.communicate()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A directory with a server that tests share, which nothing should be able to end."""
    directory = tmp_path_factory.mktemp("server")
    command = [sys.executable, "-I", "-c", STARTER, directory, NAME, str(PATIENCE), "1000", *sys.path]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as server:
        yield directory
        assert server.poll() is None
        server.kill()


# What it is for -----------------------------------------------------------------------------------------


def test_a_region_is_compiled_and_kept(shared):
    peer = Peer(shared)
    peer.ask(5)
    reply, image = peer.answer()
    ranges = [(CODE, CODE + len(LOOP))]
    digest = code_digest(ranges, lambda address, length: LOOP[address - CODE :][:length])
    assert reply == Reply(5, CODE, ranges, digest, 2)
    assert image
    assert any(file.read_bytes().endswith(image) for file in (shared / "regions").iterdir())


def test_clients_are_served_in_turn(shared):
    peers = [Peer(shared) for _ in range(3)]
    for number in range(5):
        for peer in peers:
            peer.ask(number)
    for peer in peers:
        assert [peer.answer()[0].number for _ in range(5)] == list(range(5))


def test_code_sent_once_is_known_from_then_on(shared):
    peer = Peer(shared)
    assert peer.is_served(1)
    peer.connection.sendall(pack(Request(2, "riscv64", CODE + 4, False, 1 << 38)))
    reply, image = peer.answer()
    assert (reply.number, reply.entry) == (2, CODE + 4)
    assert image
    stranger = Peer(shared)
    stranger.connection.sendall(pack(Request(3, "riscv64", CODE + 4, False, 1 << 38)))
    assert stranger.answer() == (Reply(3, CODE + 4), b"")


def test_targets_of_jumps_sent_once_are_known_from_then_on(shared):
    """An indirect jump to an instruction behind it: where that is known, the region contains it."""
    code = riscv64.assemble("jr x5") + riscv64.assemble("ebreak") + LOOP
    peer, sizes = Peer(shared), []
    for number, known in enumerate(({}, {CODE: [CODE + 8]}, {})):
        request = Request(number, "riscv64", CODE, False, 1 << 38, indirect=known, pages=[CODE])
        peer.connection.sendall(pack(request, code.ljust(PAGE, b"\0")))
        sizes.append(peer.answer()[0].instructions)
    assert sizes == [1, 3, 3]


@pytest.mark.parametrize(
    "request_",
    [{"entry": 0x90000}, {"entry": CODE + 1}, {"isa": "none"}, {"isa": "../os"}, {"code": b"\xff" * PAGE}],
    ids=["no-code", "odd", "unknown", "path", "illegal"],
)
def test_what_cannot_be_compiled_is_no_region(shared, request_):
    peer = Peer(shared)
    peer.ask(1, **request_)
    reply, image = peer.answer()
    assert (reply.number, reply.ranges, image) == (1, [], b"")
    assert peer.is_served(2)


# Clients that are up to no good -------------------------------------------------------------------------


def noise(seed):
    generator = random.Random(seed)
    length = struct.pack("<II", generator.randrange(300), generator.randrange(300))
    return length + generator.randbytes(1000)


GOOD = pack(Request(1, "riscv64", CODE, False, 1 << 38, pages=[CODE]), bytes(PAGE))
HOSTILE = {
    "noise": noise(1),
    "more-noise": noise(2),
    "large": struct.pack("<II", LARGEST_MESSAGE, LARGEST_MESSAGE),
    "list": struct.pack("<II", 2, 0) + b"[]",
    "nested": struct.pack("<II", 90_000, 0) + b"[" * 90_000,
    "no-payload": pack(Request(1, "riscv64", CODE, False, 1 << 38, pages=[CODE])),
    "odd-page": pack(Request(1, "riscv64", CODE, False, 1 << 38, pages=[CODE + 1]), bytes(PAGE)),
    "too-many": GOOD * 2000,
    "text": GOOD.replace(b'"entry": 65536', b'"entry": "abc"'),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_client_that_sends_nonsense_is_dismissed_and_nobody_else(shared, hostile):
    good, bad = Peer(shared), Peer(shared)
    try:
        bad.connection.sendall(hostile)
        while bad.answer() is not None:
            pass
    except ConnectionError:
        pass
    assert good.is_served(1)


def test_a_client_that_goes_in_the_middle_of_a_message(shared):
    good = Peer(shared)
    for length in (1, 8, 30, len(GOOD) - 1):
        bad = Peer(shared)
        bad.connection.sendall(GOOD[:length])
        bad.connection.close()
    assert good.is_served(1)


def test_a_client_that_goes_before_the_answer(shared):
    good = Peer(shared)
    for _ in range(3):
        bad = Peer(shared)
        bad.ask(1)
        bad.connection.close()
    assert good.is_served(1)


def test_a_client_that_never_listens_holds_nobody_up(shared):
    deaf, good = Peer(shared), Peer(shared)
    deaf.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    # Long straight code has large images: a few of them are more than a socket takes.
    code = b"".join(riscv64.assemble(f"ld x{n % 32}, {8 * (n % 200)}(x{n % 31})") for n in range(300))
    for number in range(12):
        deaf.ask(number, code=code)
    for number in range(3):
        assert good.is_served(number)
    assert [deaf.answer()[0].number for _ in range(12)] == list(range(12))


# Its life -----------------------------------------------------------------------------------------------


def test_it_ends_when_nobody_has_been_there_for_a_while(start, tmp_path):
    server = start(linger=0.3)
    peer = Peer(tmp_path)
    time.sleep(1)
    assert server.poll() is None
    assert peer.is_served(1)
    peer.connection.close()
    assert server.wait(PATIENCE) == 0
    assert server.stderr.read() == b""


def test_it_ends_after_enough_regions_when_nobody_waits(start, tmp_path):
    server = start(retirement=3)
    peer = Peer(tmp_path)
    assert peer.is_served(1)
    for number in (2, 3, 4):
        peer.ask(number)
    assert [peer.answer()[0].number for _ in range(3)] == [2, 3, 4]
    assert peer.answer() is None
    assert server.wait(PATIENCE) == 0
    assert server.stderr.read() == b""
    start()
    assert Peer(tmp_path).is_served(1)


def test_there_is_one_at_a_time(start, tmp_path):
    first = start()
    peer = Peer(tmp_path)
    assert start().wait(PATIENCE) == 0
    assert first.poll() is None
    assert peer.is_served(1)
    assert Peer(tmp_path).is_served(1)


def test_one_that_was_killed_leaves_nothing_in_the_way(start, tmp_path):
    first = start()
    peer = Peer(tmp_path)
    first.kill()
    assert peer.answer() is None
    start()
    assert Peer(tmp_path).is_served(1)


def test_one_of_another_version_does_not_listen(tmp_path):
    command = [sys.executable, "-I", "-c", STARTER, tmp_path, "compiler-other", "1", "1", *sys.path]
    assert subprocess.run(command, timeout=PATIENCE, check=False).returncode == 0
    assert not (tmp_path / "compiler-other").exists()


def test_what_a_guest_did_to_its_process_does_not_last(start, tmp_path):
    import resource

    def spoil():
        os.umask(0o777)
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 100))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})

    server = start(preexec_fn=spoil, cwd=tmp_path)
    peer = Peer(tmp_path)
    assert peer.is_served(1)
    assert len(list((tmp_path / "regions").iterdir())) == 1
    status = (tmp_path / "/proc" / str(server.pid) / "status").read_text()
    assert "SigBlk:\t0000000000000000" in status
    assert os.readlink(f"/proc/{server.pid}/cwd") == "/"
    limits = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    assert limits == (100, 100)
    server.terminate()
    assert server.wait(PATIENCE) == -signal.SIGTERM


def test_it_sleeps_while_there_is_nothing_to_do(start, tmp_path):
    server = start()
    peer = Peer(tmp_path)
    assert peer.is_served(1)

    def ticks():
        with open(f"/proc/{server.pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    assert select.select([peer.connection], [], [], 0.5) == ([], [], [])
    assert ticks() - before <= 2
