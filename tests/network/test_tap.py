"""Taps in network namespaces: made and gone, found and used, and what users may get wrong."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Interface

import pytest
from tests.network.station import Station, arp_answer, arp_reply, arp_request, as_datagram, datagram

from anyvirt.errors import UsageError
from anyvirt.network.assignment import Assignment
from anyvirt.network.tap import make_tap, open_tap


@pytest.fixture(autouse=True)
def needs_taps():
    if not os.path.exists("/dev/net/tun"):
        pytest.skip("the host has no /dev/net/tun")
    if shutil.which("ip") is None:
        pytest.skip("needs ip (package iproute2)")


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout


@contextmanager
def station_on(link):
    station = Station(link)
    try:
        yield station
    finally:
        station.close()


def test_host_and_guest_reach_each_other(in_namespace):
    def scenario():
        link = make_tap()
        assert link.name == "anyvirt0"
        assert link.assignment == Assignment(IPv4Interface("10.219.0.2/30"), IPv4Address("10.219.0.1"))
        assert "mtu 65520" in ip("link", "show", link.name)
        guest, host = (bytes(IPv4Address(text).packed) for text in ("10.219.0.2", "10.219.0.1"))
        with station_on(link) as station, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.settimeout(20)
            server.bind(("10.219.0.1", 7000))
            station.send(arp_request(guest, host))
            mac = arp_answer(station.wait_for(lambda frame: arp_answer(frame, host)), host)
            station.send(datagram(guest, host, (5000, 7000), b"from the guest", to=mac))
            data, address = server.recvfrom(2000)
            assert (data, address) == (b"from the guest", ("10.219.0.2", 5000))
            server.sendto(b"x" * 60000, address)
            frame = station.wait_for(lambda frame: as_datagram(frame) or frame[12:14] == b"\x08\x06")
            if as_datagram(frame) is None:
                station.send(arp_reply(frame))
                frame = station.wait_for(as_datagram)
            assert as_datagram(frame) == (host, guest, (7000, 5000), b"x" * 60000)
        assert "anyvirt" not in ip("link")

    in_namespace(scenario)


def test_each_has_a_network_of_its_own(in_namespace):
    def scenario():
        links = [make_tap() for _ in range(3)]
        assert [str(link.assignment.address) for link in links] == [
            "10.219.0.2/30",
            "10.219.0.6/30",
            "10.219.0.10/30",
        ]
        links[1].close()
        assert make_tap().name == "anyvirt1"

    in_namespace(scenario)


def test_nothing_is_left_of_a_tap_whose_owner_is_killed(in_namespace):
    def scenario():
        script = (
            "from anyvirt.network.tap import make_tap; import os\n"
            "link = make_tap(); print(link.name, flush=True); os.read(0, 1)"
        )
        words = [sys.executable, "-c", script]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "anyvirt0\n"
            assert "anyvirt0" in ip("link")
            process.send_signal(signal.SIGKILL)
        assert "anyvirt0" not in ip("link")

    in_namespace(scenario)


def test_a_tap_that_is_there_stays_as_it_is(in_namespace):
    def settings():
        return ip("-4", "address", "show", "mine").split("mtu", 1)[1].replace("state DOWN", "state UP")

    def scenario():
        ip("tuntap", "add", "mine", "mode", "tap")
        ip("address", "add", "192.0.2.1/24", "dev", "mine")
        ip("link", "set", "mine", "mtu", "1400", "up")
        before = settings()
        link = open_tap("mine")
        assert link.mtu == 1400
        assert link.assignment == Assignment(IPv4Interface("192.0.2.2/24"), IPv4Address("192.0.2.1"))
        with pytest.raises(UsageError, match="the tap mine is in use by another program"):
            open_tap("mine")
        link.close()
        assert settings() == before

    in_namespace(scenario)


def test_a_tap_without_an_address_leaves_its_guest_without_one(in_namespace):
    def scenario():
        ip("tuntap", "add", "plain", "mode", "tap")
        link = open_tap("plain")
        assert link.assignment is None
        with station_on(link) as station:
            assert station.send(bytes(60)), "the interface is down, and the frame lost"

    in_namespace(scenario)


def test_a_tap_that_is_removed_is_a_cable_that_was_pulled(in_namespace):
    def scenario():
        link = make_tap()
        with station_on(link) as station:
            ip("link", "delete", link.name)
            while station.card.link_up:
                station.turn()
            assert link.failure == "the tap anyvirt0 was removed"

    in_namespace(scenario)


def test_mistakes_have_sentences(in_namespace):
    def scenario():
        with pytest.raises(UsageError, match="there is no network interface tap7: make a tap with"):
            open_tap("tap7")
        with pytest.raises(UsageError, match="the network interface lo is no tap"):
            open_tap("lo")
        ip("tuntap", "add", "other", "mode", "tap")
        ip("address", "add", "10.219.0.77/16", "dev", "other")
        ip("link", "set", "other", "up")
        with pytest.raises(UsageError, match=r"the host uses 10\.219\.0\.0/16"):
            make_tap()
        assert "anyvirt" not in ip("link")

    in_namespace(scenario)


def test_making_one_is_for_root(in_namespace):
    def scenario():
        script = (
            "import os; from anyvirt.errors import UsageError; from anyvirt.network.tap import *\n"
            "os.setgid(65534); os.setuid(65534)\n"
            "for action in (make_tap, lambda: open_tap('mine')):\n"
            "    try: action()\n"
            "    except UsageError as error: print(error)"
        )
        ip("tuntap", "add", "mine", "mode", "tap", "user", "0")
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
        first, second = done.stdout.splitlines()
        assert first.startswith("only root can make a tap: use `user` networking")
        assert "mine" in second

    in_namespace(scenario)
