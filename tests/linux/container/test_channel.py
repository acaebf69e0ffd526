"""Messages with file descriptors."""

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyvirt.linux.container.channel import Channel

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4).map(tuple),
    max_leaves=10,
)


@pytest.fixture(scope="module")
def pair():
    ends = Channel.pair()
    yield ends
    for end in ends:
        end.close()


@given(st.lists(VALUES, max_size=5).map(tuple))
def test_messages_arrive_as_they_were(pair, message):
    pair[0].send(message)
    assert pair[1].receive() == (message, ())


def test_file_descriptors_come_along():
    ours, theirs = Channel.pair()
    reader, writer = os.pipe()
    ours.send(("take these",), (reader, writer))
    message, fds = theirs.receive()
    assert message == ("take these",)
    os.write(fds[1], b"through")
    assert os.read(reader, 10) == b"through"
    assert not any(os.get_inheritable(fd) for fd in fds)
    for fd in (reader, writer, *fds):
        os.close(fd)
    ours.close()
    assert theirs.receive() is None
    theirs.close()


def test_a_message_larger_than_the_sockets_buffer():
    ours, theirs = Channel.pair()
    message = ("x" * (3 << 20), 1)
    sender = threading.Thread(target=ours.send, args=(message, (0,)))
    sender.start()
    received, fds = theirs.receive()
    sender.join()
    assert received == message
    for fd in fds:
        os.close(fd)
    ours.close()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        theirs.send(("nobody",))
    theirs.close()


def test_an_end_in_the_middle_of_a_message():
    ours, theirs = Channel.pair()
    os.write(ours.fileno(), b"\xff\x00\x00\x00half")
    ours.close()
    assert theirs.receive() is None
    theirs.close()
