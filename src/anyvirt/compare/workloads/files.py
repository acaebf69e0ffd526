"""File I/O in the working directory: a large file written, synchronized and read back, and many small ones.

Each round makes a directory, works in it and removes it with all that is in it.
"""

from anyvirt.compare.workloads.runtime import allocate, begin, fail, finish
from anyvirt.jit.system import system_call, text
from anyvirt.jit.texts import append, append_number
from anyvirt.typed import load64, range, s64, store64, u64

CHUNK = 1 << 16
CHUNKS = 16
SMALL_FILES = 32
SMALL_SIZE = 1000
_CURRENT_DIRECTORY = -100  # AT_FDCWD
_REMOVE_DIRECTORY = 0x200  # AT_REMOVEDIR
_READ_ONLY = 0
_CREATE = 0o301  # O_WRONLY | O_CREAT | O_EXCL
_FILE_MODE, _DIRECTORY_MODE = 0o600, 0o700


def main(count: u64, arguments: u64) -> u64:
    """Do the work in a directory whose name holds the process's number."""
    rounds = begin(text(b"files "), count, arguments)
    buffers = allocate(u64(2 * CHUNK))
    names = allocate(u64(4096))
    append_number(append(names, text(b"anyvirt-files-")), u64(system_call("getpid")))
    wrong = u64(0)
    for turn in range(rounds):
        if system_call("mkdirat", s64(_CURRENT_DIRECTORY), names, _DIRECTORY_MODE) != 0:
            return fail(text(b"cannot make a directory in the working directory\n"))
        wrong += large_file(names, buffers, turn)
        for number in range(u64(SMALL_FILES)):
            wrong += small_file(file_name(names, number + 1), buffers, number + turn)
        for number in range(u64(0), u64(SMALL_FILES + 1)):
            if system_call("unlinkat", s64(_CURRENT_DIRECTORY), file_name(names, number), 0) != 0:
                wrong += 1
        if system_call("unlinkat", s64(_CURRENT_DIRECTORY), names, _REMOVE_DIRECTORY) != 0:
            wrong += 1
    return finish(wrong, rounds)


def file_name(names: u64, number: u64) -> u64:
    """The path of file `number` in the directory whose path is at `names`; written behind it."""
    path = names + 2048
    append_number(append(append(path, names), text(b"/")), number)
    return path


def large_file(names: u64, buffers: u64, seed: u64) -> u64:
    """Write 1 MiB in chunks, synchronize, read it back; how many chunks went wrong."""
    path = file_name(names, u64(0))
    file = system_call("openat", s64(_CURRENT_DIRECTORY), path, _CREATE, _FILE_MODE)
    wrong = u64(0)
    for number in range(u64(CHUNKS)):
        fill(buffers, u64(CHUNK), seed + number)
        if system_call("write", file, buffers, CHUNK) != CHUNK:
            wrong += 1
    if system_call("fsync", file) != 0:
        wrong += 1
    system_call("close", file)
    file = system_call("openat", s64(_CURRENT_DIRECTORY), path, _READ_ONLY, 0)
    for number in range(u64(CHUNKS)):
        if system_call("read", file, buffers, CHUNK) != CHUNK:
            wrong += 1
        wrong += differs(buffers, u64(CHUNK), seed + number)
    system_call("close", file)
    return wrong


def small_file(path: u64, buffers: u64, seed: u64) -> u64:
    """Write a small file and read it back; 0 when it went well."""
    file = system_call("openat", s64(_CURRENT_DIRECTORY), path, _CREATE, _FILE_MODE)
    fill(buffers, u64(SMALL_SIZE), seed)
    written = system_call("write", file, buffers, SMALL_SIZE)
    system_call("close", file)
    file = system_call("openat", s64(_CURRENT_DIRECTORY), path, _READ_ONLY, 0)
    back = system_call("read", file, buffers + CHUNK, CHUNK)
    system_call("close", file)
    if written != SMALL_SIZE or back != SMALL_SIZE:
        return u64(1)
    return differs(buffers + CHUNK, u64(SMALL_SIZE), seed)


def fill(buffer: u64, size: u64, seed: u64) -> None:
    """Numbers that depend on their place and on `seed`."""
    for offset in range(u64(0), size, 8):
        store64(buffer + offset, seed + offset)


def differs(buffer: u64, size: u64, seed: u64) -> u64:
    """0 when the buffer holds what `fill` wrote, 1 otherwise."""
    difference = u64(0)
    for offset in range(u64(0), size, 8):
        difference |= load64(buffer + offset) ^ (seed + offset)
    return u64(0) if difference == 0 else u64(1)
