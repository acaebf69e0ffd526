"""The search trees of BPF programs, run by an evaluator that knows nothing of how they were made."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from anyvirt.linux import bpf


def evaluate(code: bytes, data: bytes) -> int:
    """Run a BPF program as Documentation/networking/filter.rst describes the machine."""
    program = list(struct.iter_unpack("=HBBI", code))
    accumulator = position = 0
    for _ in range(len(program)):
        operation, if_true, if_false, constant = program[position]
        position += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, constant)
        elif operation == 0x54:
            accumulator &= constant
        elif operation == 0x05:
            position += constant
        elif operation == 0x15:
            position += if_true if accumulator == constant else if_false
        elif operation == 0x35:
            position += if_true if accumulator >= constant else if_false
        elif operation == 0x06:
            return constant
        else:
            raise AssertionError(f"operation {operation:#x} is not one of these programs'")
    raise AssertionError("the program does not end")


@given(
    starts=st.sets(st.integers(1, 2**32 - 1), max_size=600).map(lambda found: [0, *sorted(found)]),
    value=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_a_search_finds_the_range_of_every_value(starts, value, data):
    value = data.draw(st.sampled_from([value, *starts, *(start - 1 for start in starts[1:])]))
    leaves = [bpf.give(index) for index in range(len(starts))]
    code = bpf.assemble([*bpf.load(0), *bpf.search(starts, leaves)])
    expected = max(index for index, start in enumerate(starts) if start <= value)
    assert evaluate(code, struct.pack("=I", value)) == expected


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_masks_and_equality(value, mask, wanted):
    test = bpf.if_equal(wanted, bpf.give(1), bpf.give(0))
    code = bpf.assemble([*bpf.load(4), *bpf.mask(mask), *test])
    assert evaluate(code, struct.pack("=II", 0, value)) == int(value & mask == wanted)
