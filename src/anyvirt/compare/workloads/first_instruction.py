"""The smallest guest: writes one byte as its first act, then waits until its standard input ends.

The byte's arrival tells the host when the guest began to run; the waiting makes an idle guest.
"""

from anyvirt.compare.workloads.runtime import STANDARD_INPUT, STANDARD_OUTPUT, allocate
from anyvirt.jit.system import system_call, text
from anyvirt.typed import u64

MARK = b"!"


def main(_count: u64, _arguments: u64) -> u64:
    """Write the mark, wait for the end of the input, exit."""
    system_call("write", STANDARD_OUTPUT, text(b"!"), 1)
    byte = allocate(u64(4096))
    while system_call("read", STANDARD_INPUT, byte, 1) > 0:
        pass
    return u64(0)
