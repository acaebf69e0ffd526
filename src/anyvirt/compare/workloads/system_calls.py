"""System calls: in each round getppid, a read of one byte from /dev/zero and a write of one to /dev/null."""

from anyvirt.compare.workloads.runtime import allocate, begin, fail, finish
from anyvirt.jit.system import system_call, text
from anyvirt.typed import load8, range, s64, store8, u8, u64

CALLS_OF_ROUND = 3
_CURRENT_DIRECTORY = -100  # AT_FDCWD
_READ_ONLY, _WRITE_ONLY = 0, 1


def main(count: u64, arguments: u64) -> u64:
    """Make the three calls in each round and check what each returns."""
    rounds = begin(text(b"system-calls "), count, arguments)
    zero = system_call("openat", s64(_CURRENT_DIRECTORY), text(b"/dev/zero"), _READ_ONLY, 0)
    null = system_call("openat", s64(_CURRENT_DIRECTORY), text(b"/dev/null"), _WRITE_ONLY, 0)
    if zero < 0 or null < 0:
        return fail(text(b"cannot open /dev/zero and /dev/null\n"))
    byte = allocate(u64(4096))
    parent = system_call("getppid")
    wrong = u64(0)
    for _ in range(rounds):
        store8(byte, u8(1))
        if system_call("getppid") != parent:
            wrong += 1
        if system_call("read", zero, byte, 1) != 1 or load8(byte) != 0:
            wrong += 1
        if system_call("write", null, byte, 1) != 1:
            wrong += 1
    return finish(wrong, rounds)
