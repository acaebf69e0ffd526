"""Buffers in pieces behave as the bytes they are together."""

from hypothesis import given
from hypothesis import strategies as st

from anyvirt.devices.virtio.views import copy_in, copy_out, fill, split, total

pieces = st.lists(st.binary(min_size=1, max_size=9), max_size=6)


@given(pieces, st.integers(0, 60))
def test_reading(content, at):
    views, whole = [memoryview(piece) for piece in content], b"".join(content)
    assert total(views) == len(whole)
    assert copy_out(views, at) == whole[:at]
    first, rest = split(views, at)
    assert (b"".join(first), b"".join(rest)) == (whole[:at], whole[at:])
    assert all(first) and all(len(view) for view in rest)


@given(pieces, st.binary(max_size=60))
def test_writing(content, data):
    buffers = [bytearray(piece) for piece in content]
    whole = b"".join(content)
    count = copy_in([memoryview(buffer) for buffer in buffers], data)
    assert count == min(len(whole), len(data))
    assert b"".join(buffers) == data[:count] + whole[count:]
    fill([memoryview(buffer) for buffer in buffers])
    assert not any(b"".join(buffers))
