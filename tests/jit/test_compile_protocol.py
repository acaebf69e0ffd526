"""Messages between guests' processes and the compiler: whole, in pieces, and no messages at all."""

import json
import random
import struct

import pytest

from anyvirt.jit.compile_protocol import (
    LARGEST_MESSAGE,
    ProtocolError,
    Reply,
    Request,
    Unpacker,
    pack,
    unpack_reply,
    unpack_request,
)

REQUEST = Request(
    7, "riscv64", 0x10000, True, 1 << 38, rounding=3, indirect={5: [6, 7]}, barriers=[9], pages=[4096],
    visited=[8192], marks=2048,
)  # fmt: skip
REPLY = Reply(7, 0x10000, [(1, 2), (3, 4)], "ab" * 16, 12)


def message(header, payload=b""):
    """Any header, as a message."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<II", len(text), len(payload)) + text + payload


def header_of(request):
    (unpacked,) = Unpacker().feed(pack(request))
    return unpacked[0]


def test_messages_arrive_in_whatever_pieces():
    generator = random.Random(1)
    stream = pack(REQUEST, b"code") + pack(REPLY) + pack(REQUEST)
    for _ in range(50):
        unpacker, position, arrived = Unpacker(), 0, []
        while position < len(stream):
            size = generator.randrange(1, 200)
            arrived += unpacker.feed(stream[position : position + size])
            position += size
        assert [payload for _, payload in arrived] == [b"code", b"", b""]
        assert unpack_request(arrived[0][0]) == REQUEST
        assert unpack_reply(arrived[1][0]) == REPLY


@pytest.mark.parametrize("lengths", [(LARGEST_MESSAGE, 0), (0, LARGEST_MESSAGE), (0xFFFFFFFF, 0xFFFFFFFF)])
def test_a_message_that_is_too_large_is_refused_at_once(lengths):
    with pytest.raises(ProtocolError):
        list(Unpacker().feed(struct.pack("<II", *lengths)))


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a": 1e999999}x'])
def test_headers_that_are_no_json(text):
    with pytest.raises(ProtocolError):
        list(Unpacker().feed(message(text)))


@pytest.mark.parametrize("header", [None, 1, "text", [], [1], {}, {"number": 1}, {"indirect": {}}])
def test_headers_that_are_no_messages(header):
    for unpack in (unpack_request, unpack_reply):
        with pytest.raises(ProtocolError):
            unpack(header)


@pytest.mark.parametrize("name", sorted(header_of(REQUEST)))
@pytest.mark.parametrize(
    "value", [None, "text", 1.5, -1, 1 << 64, [["a"]], {"a": 1}, ["x"], [None], {"1": 2}]
)
def test_a_request_with_a_value_of_the_wrong_kind(name, value):
    if isinstance(value, str) and name in ("isa", "memory"):
        return
    header = header_of(REQUEST)
    header[name] = value
    with pytest.raises(ProtocolError):
        unpack_request(header)


def test_a_request_with_something_unknown():
    with pytest.raises(ProtocolError):
        unpack_request({**header_of(REQUEST), "else": 1})


@pytest.mark.parametrize("ranges", [None, 5, [1], [[1]], [[1, 2, 3]], [["a", "b"]], "ab"])
def test_a_reply_with_ranges_that_are_none(ranges):
    header = {**header_of(REPLY), "ranges": ranges}
    with pytest.raises(ProtocolError):
        unpack_reply(header)


def test_noise_is_refused_or_waited_for():
    generator = random.Random(2)
    for _ in range(300):
        unpacker = Unpacker()
        try:
            assert list(unpacker.feed(generator.randbytes(generator.randrange(200)))) == []
        except ProtocolError:
            continue
