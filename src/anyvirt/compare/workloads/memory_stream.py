"""Memory bandwidth: copy, scale, add and triad over three arrays of 4 MiB, as in McCalpin's STREAM.

All elements of an array are equal at any time, so one scalar for each array tells what must be in it.
"""

from anyvirt.compare.workloads.runtime import allocate, begin, finish
from anyvirt.jit.system import text
from anyvirt.typed import f64, loadf64, range, storef64, u64

ELEMENTS = 1 << 19
BYTES_OF_ROUND = 10 * ELEMENTS * 8
"""Bytes read and written: two arrays in copy and scale, three in add and triad."""
_SCALE = 0.41421356237309503
"""The square root of 2 less 1: the values then stay bounded over any number of rounds."""


def main(count: u64, arguments: u64) -> u64:
    """Do the four operations over all elements once in each round; check all elements at the end."""
    size = u64(ELEMENTS * 8)
    a = allocate(size * 3)
    # Before its time begins: the first touch of each page is not bandwidth, and slow engines do few rounds.
    fill(a, size, f64(1.0))
    rounds = begin(text(b"memory-stream "), count, arguments)
    one = f64(1.0)
    two = f64(2.0)
    three = f64(0.0)
    for _ in range(rounds):
        stream(a, a + size, a + size * 2, size, f64(_SCALE))
        three = one
        two = f64(_SCALE) * three
        three = one + two
        one = two + f64(_SCALE) * three
    wrong = differing(a, size, one) + differing(a + size, size, two) + differing(a + size * 2, size, three)
    return finish(wrong, rounds)


def fill(a: u64, size: u64, value: f64) -> None:
    """The first array gets a value, the second twice the value, the third zeros."""
    for offset in range(u64(0), size, 8):
        storef64(a + offset, value)
        storef64(a + size + offset, value + value)
        storef64(a + size * 2 + offset, f64(0.0))


def stream(a: u64, b: u64, c: u64, size: u64, scale: f64) -> None:
    """The four operations."""
    for offset in range(u64(0), size, 8):
        storef64(c + offset, loadf64(a + offset))
    for offset in range(u64(0), size, 8):
        storef64(b + offset, scale * loadf64(c + offset))
    for offset in range(u64(0), size, 8):
        storef64(c + offset, loadf64(a + offset) + loadf64(b + offset))
    for offset in range(u64(0), size, 8):
        storef64(a + offset, loadf64(b + offset) + scale * loadf64(c + offset))


def differing(array: u64, size: u64, value: f64) -> u64:
    """How many elements are not `value`."""
    wrong = u64(0)
    for offset in range(u64(0), size, 8):
        if loadf64(array + offset) != value:
            wrong += 1
    return wrong
