"""What all workloads share: their arguments, their memory, and how the host takes their time from outside.

A workload prepares its memory, writes its name and then waits for a byte, or the end, of its standard input.
Then its time begins; it ends when the rest of the line arrives that the name began, its last act.
"""

from anyvirt.jit.system import system_call, text
from anyvirt.jit.texts import append, append_number, length
from anyvirt.typed import load8, load64, s64, u64

STANDARD_INPUT = 0
STANDARD_OUTPUT = 1
_READ_WRITE = 3  # PROT_READ | PROT_WRITE
_PRIVATE_ANONYMOUS = 0x22  # MAP_PRIVATE | MAP_ANONYMOUS
_NO_HUGE_PAGES = 15  # MADV_NOHUGEPAGE
_FAILURE = 1
_USAGE = 2


def begin(name: u64, count: u64, arguments: u64) -> u64:
    """Write the workload's name (a text that ends with a space), wait, return the number of rounds to run."""
    system_call("write", STANDARD_OUTPUT, name, length(name))
    rounds = number_argument(count, arguments, u64(1))
    system_call("read", STANDARD_INPUT, allocate(u64(4096)), 1)
    return rounds


def finish(wrong: u64, rounds: u64) -> u64:
    """Write the end of the line, `N rounds correct` or `N rounds, M WRONG`; return the exit status."""
    line = allocate(u64(4096))
    end = append_number(line, rounds)
    if wrong == 0:
        end = append(end, text(b" rounds correct\n"))
    else:
        end = append(end, text(b" rounds, "))
        end = append_number(end, wrong)
        end = append(end, text(b" WRONG\n"))
    system_call("write", STANDARD_OUTPUT, line, end - line)
    return u64(0) if wrong == 0 else u64(_FAILURE)


def fail(reason: u64) -> u64:
    """Write a text as the end of the line and end the program; for what no round can go on from."""
    system_call("write", STANDARD_OUTPUT, reason, length(reason))
    system_call("exit_group", _FAILURE)
    return u64(0)


def number_argument(count: u64, arguments: u64, index: u64) -> u64:
    """Argument `index` as a decimal number; 1 when it is not given."""
    if index >= count:
        return u64(1)
    value = u64(0)
    digits = load64(arguments + index * 8)
    while load8(digits) != 0:
        digit = load8(digits) - 48
        if digit > 9:
            system_call("exit_group", _USAGE)
        value = value * 10 + u64(digit)
        digits += 1
    return value


def allocate(size: u64) -> u64:
    """Fresh memory of `size` bytes, zeroed, from the kernel.

    Its pages are ordinary ones, so that no engine is measured by whether it happened to get huge ones.
    """
    address = system_call("mmap", 0, size, _READ_WRITE, _PRIVATE_ANONYMOUS, s64(-1), 0)
    if address < 0 and address > -4096:
        return fail(text(b"out of memory\n"))
    system_call("madvise", address, size, _NO_HUGE_PAGES)
    return u64(address)
