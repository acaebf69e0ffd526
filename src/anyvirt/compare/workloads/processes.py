"""Process creation: in each round a fork whose child exits, and one whose child executes the program."""

from anyvirt.compare.workloads.runtime import allocate, begin, fail, finish
from anyvirt.jit.system import system_call, text
from anyvirt.typed import load8, load32, load64, range, s64, store64, u64

PROCESSES_OF_ROUND = 2
_EXITED, _EXECUTED = 7, 9
"""Exit statuses of the children."""
_CHILD = 99  # "c", as in "child"
_CHILD_SIGNAL = 17  # SIGCHLD: with it alone, clone is fork


def main(count: u64, arguments: u64) -> u64:
    """Create two processes in each round and check how they end. As the executed child, only exit."""
    if count > 1 and load8(load64(arguments + 8)) == _CHILD:
        return u64(_EXECUTED)
    rounds = begin(text(b"processes "), count, arguments)
    memory = allocate(u64(4096))
    words = memory + 8
    store64(words, load64(arguments))
    store64(words + 8, text(b"child"))
    environment = arguments + (count + 1) * 8
    wrong = u64(0)
    for _ in range(rounds):
        if forked(memory) != _EXITED:
            wrong += 1
        if executed(memory, words, environment) != _EXECUTED:
            wrong += 1
    return finish(wrong, rounds)


def forked(memory: u64) -> u64:
    """The exit status of a child that exits at once."""
    child = fork()
    if child == 0:
        system_call("exit_group", _EXITED)
    return exit_status(child, memory)


def executed(memory: u64, words: u64, environment: u64) -> u64:
    """The exit status of a child that executes the program again with `words` as its arguments."""
    child = fork()
    if child == 0:
        system_call("execve", load64(words), words, environment)
        system_call("exit_group", 1)
    return exit_status(child, memory)


def fork() -> u64:
    """0 in the child, the child's number in the parent."""
    child = system_call("clone", _CHILD_SIGNAL, 0, 0, 0, 0)
    if child < 0:
        return fail(text(b"cannot create a process\n"))
    return u64(child)


def exit_status(child: u64, memory: u64) -> u64:
    """Wait for a child; its exit status, or 256 when it did not exit."""
    if system_call("wait4", child, memory, 0, 0) != s64(child):
        return u64(256)
    status = load32(memory)
    return u64(status >> 8) if status & 127 == 0 else u64(256)
