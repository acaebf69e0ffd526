"""Memory latency: following pointers through 8 MiB in an order that no prefetcher foresees.

The order is the sequence of a linear congruential generator with full period (Hull and Dobell, 1962): one
cycle through all nodes. A round is one cycle: it must end where it began, having seen every node.
"""

from anyvirt.compare.workloads.runtime import allocate, begin, finish
from anyvirt.jit.system import text
from anyvirt.typed import load64, range, store64, u64

NODES = 1 << 17
NODE_SIZE = 64
_NUMBER = 8
_MULTIPLIER = 0x5851F42D4C957F2D
"""One more than a multiple of 4, as a full period of a power of two needs; the increment is odd."""
_INCREMENT = 0x14057B7EF767814F


def main(count: u64, arguments: u64) -> u64:
    """Walk the whole cycle once in each round."""
    nodes = u64(NODES)
    memory = allocate(nodes * NODE_SIZE)
    tie(memory, nodes)
    # The first cycle brings the nodes into the caches and is no round: rounds tell the latency of loads.
    wrong = u64(0)
    if walk(memory, nodes) == 0:
        wrong += 1
    rounds = begin(text(b"pointer-chase "), count, arguments)
    for _ in range(rounds):
        if walk(memory, nodes) != nodes * (nodes - 1) // 2:
            wrong += 1
    return finish(wrong, rounds)


def tie(memory: u64, nodes: u64) -> None:
    """Write each node's pointer to its successor, and its number. `nodes` is a power of two."""
    for index in range(nodes):
        node = memory + index * NODE_SIZE
        successor = (index * _MULTIPLIER + _INCREMENT) & (nodes - 1)
        store64(node, memory + successor * NODE_SIZE)
        store64(node + _NUMBER, index)


def walk(memory: u64, nodes: u64) -> u64:
    """Follow `nodes` pointers; the sum of the numbers seen, or 0 when the way does not lead back."""
    total = u64(0)
    node = memory
    for _ in range(nodes):
        total += load64(node + _NUMBER)
        node = load64(node)
    return total if node == memory else u64(0)
