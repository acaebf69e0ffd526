"""User-mode networking with the programs that there are: datagrams both ways, ports, and no program."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from ipaddress import IPv4Address

import pytest
from tests.network.station import MAC, Station, arp_answer, arp_reply, arp_request, as_datagram, datagram

from anyvirt.errors import UsageError
from anyvirt.guest import Published
from anyvirt.network import user_mode
from anyvirt.network.user_mode import ProgramFailed, open_user_network

GUEST, GATEWAY = (IPv4Address(text).packed for text in ("10.0.2.15", "10.0.2.2"))
PROGRAMS = {"passt": user_mode._passt, "libslirp": user_mode._slirp}


@contextmanager
def station_with(program, *published):
    words = PROGRAMS[program](published)
    if words is None:
        pytest.skip(f"{program} is not installed")
    try:
        link = user_mode._start(words, MAC)
    except ProgramFailed as failed:
        pytest.skip(f"{program} {failed}")
    station = Station(link)
    try:
        yield station
    finally:
        station.close()


def free_port(kind):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def gateway_s_address(station):
    station.send(arp_request(GUEST, GATEWAY))
    return arp_answer(station.wait_for(lambda frame: arp_answer(frame, GATEWAY)), GATEWAY)


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_guest_reaches_the_host_s_loopback(program):
    with station_with(program) as station, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.settimeout(20)
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        mac = gateway_s_address(station)
        station.send(datagram(GUEST, GATEWAY, (5000, port), b"from the guest", to=mac))
        data, address = server.recvfrom(2000)
        assert data == b"from the guest"
        server.sendto(b"from the host", address)
        frame = station.wait_for(as_datagram)
        assert as_datagram(frame) == (GATEWAY, GUEST, (port, 5000), b"from the host")


@pytest.mark.parametrize("program", PROGRAMS)
def test_published_ports_lead_to_the_guest(program):
    port = free_port(socket.SOCK_DGRAM)
    with station_with(program, Published(port, 6000, protocol="udp")) as station:
        gateway_s_address(station)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(20)
            client.sendto(b"question", ("127.0.0.1", port))
            frame = station.wait_for(lambda frame: as_datagram(frame) or frame[12:14] == b"\x08\x06")
            if as_datagram(frame) is None:
                station.send(arp_reply(frame))
                frame = station.wait_for(as_datagram)
            source, destination, ports, data = as_datagram(frame)
            assert (destination, ports[1], data) == (GUEST, 6000, b"question")
            answer = datagram(GUEST, source, (6000, ports[0]), b"answer", to=frame[6:12])
            station.send(answer)
            assert client.recv(2000) == b"answer"


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_ends_with_its_cable(program):
    with station_with(program) as station:
        process = station.link._process
        assert process.poll() is None
    assert process.returncode is not None


def test_no_program_is_left_of_an_owner_that_is_killed():
    with station_with("libslirp"):
        pass
    script = (
        "from anyvirt.network.user_mode import open_user_network; import os\n"
        f"link = open_user_network({MAC!r}); print(link._process.pid, flush=True); os.read(0, 1)"
    )
    words = [sys.executable, "-c", script]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        program = process.stdout.readline().strip()
        assert is_alive(program)
        process.kill()
    deadline = time.monotonic() + 30
    while is_alive(program):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(number):
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        with open(f"/proc/{number}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_that_is_killed_is_a_cable_that_was_pulled(program):
    with station_with(program) as station:
        station.link._process.kill()
        while station.card.link_up:
            station.turn()


def test_without_any_program_the_user_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(user_mode.shutil, "which", lambda _: None)
    monkeypatch.setattr(
        user_mode, "_slirp", lambda _: ["/bin/sh", "-c", "echo it is not installed >&2; exit 1", "sh"]
    )
    with pytest.raises(UsageError) as caught:
        open_user_network(MAC)
    assert str(caught.value) == (
        "user-mode networking needs libslirp or passt, and libslirp does not work here (it is not installed) "
        "and passt is not installed: install one, such as Debian's package libslirp0"
    )


def test_libslirp_comes_first_and_passt_where_it_does_not_work(monkeypatch):
    before = set(os.listdir("/proc/self/fd"))
    with station_with("libslirp"), station_with("passt"):
        pass
    with contextlib.closing(open_user_network(MAC)) as link:
        assert "slirp_process.py" in " ".join(map(str, link._process.args))
    monkeypatch.setattr(user_mode, "_slirp", lambda _: ["/bin/false"])
    with contextlib.closing(open_user_network(MAC)) as link:
        assert "passt" in str(link._process.args[0])
    assert set(os.listdir("/proc/self/fd")) == before


def test_published_ports_of_tcp_are_open():
    with station_with("libslirp"):
        pass
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with contextlib.closing(open_user_network(MAC, [Published(port, 22)])):
        with socket.create_connection(("127.0.0.1", port), timeout=20):
            pass


@pytest.mark.parametrize(("kind", "protocol"), [(socket.SOCK_STREAM, "tcp"), (socket.SOCK_DGRAM, "udp")])
def test_a_port_that_is_taken_has_a_sentence(kind, protocol):
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if protocol == "tcp":
            taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=rf"port {port} of 127\.0\.0\.1 cannot be published: Address"):
            open_user_network(MAC, [Published(port, 80, protocol=protocol)])
