"""Framing of the remote serial protocol against a decoder written from the manual, and against noise."""

from hypothesis import given
from hypothesis import strategies as st

from anyvirt.debug.packets import MAXIMUM_PACKET, Control, PacketReader, frame

from .remote import decode, packet


def read(data, *, cuts=()):
    reader = PacketReader()
    pieces, start = [], 0
    for cut in [*sorted(cuts), len(data)]:
        pieces.append(data[start:cut])
        start = cut
    return [item for piece in pieces for item in reader.feed(piece)]


def test_packets_from_the_manual():
    assert frame(b"OK") == b"$OK#9a"
    assert read(b"+$g#67-\x03") == [Control.ACKNOWLEDGED, b"g", Control.REFUSED, Control.INTERRUPT]
    # "0* " is the manual's example: three more zeros.
    assert frame(b"0000") == b"$0* #7a"


@given(st.binary(max_size=300) | st.lists(st.sampled_from(b"0}#$*"), max_size=300).map(bytes))
def test_every_payload_survives(payload):
    sent = frame(payload)
    assert sent.count(b"$") == sent.count(b"#") == 1
    body, _, digits = sent[1:].partition(b"#")
    assert packet(body)[-2:] == digits
    assert decode(body) == payload


@given(st.binary(max_size=60), st.lists(st.integers(0, 80)))
def test_packets_may_arrive_in_pieces(payload, cuts):
    escaped = b"".join(b"}" + bytes([byte ^ 0x20]) if byte in b"#$}*" else bytes([byte]) for byte in payload)
    assert read(packet(escaped), cuts=[min(cut, len(payload)) for cut in cuts]) == [payload]


@given(st.binary(max_size=2000), st.lists(st.integers(0, 2000)))
def test_noise_is_survived(noise, cuts):
    items = read(noise, cuts=[min(cut, len(noise)) for cut in cuts])
    assert items == read(noise)


def test_damage_is_noticed():
    assert read(b"$OK#9b$OK#9a") == [Control.DAMAGED, b"OK"]
    assert read(b"$OK#zz") == [Control.DAMAGED]


def test_an_endless_packet_is_dropped_without_keeping_it():
    reader = PacketReader()
    items = []
    for _ in range(40):
        items += reader.feed(b"$" + b"x" * MAXIMUM_PACKET)
    assert set(items) == {Control.DAMAGED}
    assert len(reader._buffer) <= MAXIMUM_PACKET + 1
    assert list(reader.feed(b"#00" + packet(b"g")))[-1] == b"g"
