"""Frames over a stream socket, against a peer of the tests: any pieces, slow sides, senseless peers."""

import os
import socket
import struct
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.network.station import PATIENCE, Station

from anyvirt.network.stream_link import StreamLink


@pytest.fixture
def peer_and_station():
    peer, ours = socket.socketpair()
    peer.settimeout(PATIENCE)
    station = Station(StreamLink(ours))
    yield peer, station
    station.close()
    peer.close()


def framed(frame):
    return struct.pack(">I", len(frame)) + frame


def take(peer):
    """The next frame at the peer's end."""
    (size,) = struct.unpack(">I", peer.recv(4, socket.MSG_WAITALL))
    return peer.recv(size, socket.MSG_WAITALL)


def test_frames_of_the_guest_arrive_behind_their_length(peer_and_station):
    peer, station = peer_and_station
    frames = [os.urandom(size) for size in (14, 60, 1514, 65534)]
    for frame in frames:
        assert station.send(frame)
    assert [take(peer) for _ in frames] == frames


@given(
    st.lists(st.integers(14, 4000), min_size=1, max_size=6),
    st.lists(st.integers(1, 5000), max_size=8),
)
@settings(max_examples=20, deadline=None)
def test_frames_for_the_guest_may_come_in_any_pieces(sizes, cuts):
    peer, ours = socket.socketpair()
    station = Station(StreamLink(ours))
    frames = [os.urandom(size) for size in sizes]
    stream = b"".join(map(framed, frames))
    for cut in cuts:
        peer.sendall(stream[:cut])
        stream = stream[cut:]
        while not station.posted.empty():
            station.turn()
    peer.sendall(stream)
    while len(station.frames) < len(frames):
        station.turn()
    station.close()
    peer.close()
    assert station.frames == frames


def test_the_largest_frames_arrive(peer_and_station):
    peer, station = peer_and_station
    frames = [os.urandom(65534) for _ in range(20)]
    thread = threading.Thread(target=lambda: [peer.sendall(framed(frame)) for frame in frames])
    thread.start()
    while len(station.frames) < len(frames):
        station.turn()
    thread.join()
    assert station.frames == frames


def test_what_the_guest_does_not_read_stays_with_the_peer():
    peer, ours = socket.socketpair()
    station = Station(StreamLink(ours), buffers=0)
    peer.setblocking(False)
    sent = 0
    with pytest.raises(BlockingIOError):
        while True:
            peer.send(framed(bytes(1000)))
            sent += 1
            while not station.posted.empty():
                station.turn()
    assert station.frames == []
    station.offer(64)
    station.collect()
    while len(station.frames) < sent:
        station.turn()
    station.close()
    peer.close()


def test_what_the_peer_does_not_read_stays_with_the_guest(peer_and_station):
    peer, station = peer_and_station
    frames = []
    while True:
        frames.append(os.urandom(60000))
        if not station.send(frames[-1]):
            break
    received = [take(peer) for _ in frames[:-2]]
    # What was cut in the middle comes when there is room, and then the one that the guest has kept.
    while not station.guest.queues[1].used():
        station.turn()
    received += [take(peer) for _ in frames[-2:]]
    assert received == frames


@pytest.mark.parametrize("size", [65551, 0xFFFFFFFF])
def test_a_peer_without_sense_is_a_cable_that_was_pulled(peer_and_station, size):
    peer, station = peer_and_station
    peer.sendall(struct.pack(">I", size))
    station.turn()
    assert station.link.failure == f"it sent a frame of {size} bytes"
    assert not station.card.link_up
    assert station.send(bytes(60)), "there is nobody to wait for"


def test_a_peer_that_ends_is_a_cable_that_was_pulled(peer_and_station):
    peer, station = peer_and_station
    peer.close()
    station.turn()
    assert station.link.failure == "it has ended"
    assert not station.card.link_up


def test_frames_that_are_none_are_passed_over(peer_and_station):
    peer, station = peer_and_station
    peer.sendall(framed(b"") + framed(bytes(13)) + framed(bytes(64)))
    while not station.frames:
        station.turn()
    assert station.frames == [bytes(64)]


def test_a_link_leaves_neither_thread_nor_descriptor_behind():
    def held():
        return set(os.listdir("/proc/self/fd")), threading.active_count()

    before = held()
    peer, ours = socket.socketpair()
    link = StreamLink(ours)
    Station(link).close()
    link.close()
    peer.close()
    assert held() == before
