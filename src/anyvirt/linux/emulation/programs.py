"""What execve(2) finds behind a path: a program of the guest's ISA, one of the host's, or a script.

Follows Linux' fs/exec.c and fs/binfmt_script.c.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from anyvirt.linux.elf import ElfError
from anyvirt.linux.emulation.executable_file import AT_FDCWD, open_executable
from anyvirt.linux.emulation.segments import read_elf

_LINE = 256
"""Bytes of a script's first line that the kernel looks at (BINPRM_BUF_SIZE)."""
_MAXIMUM_SCRIPTS = 5


@dataclass(frozen=True)
class Executable:
    """An open program file, and the arguments after what scripts put in front of them."""

    fd: int
    path: bytes
    """The file's canonical path."""
    name: bytes
    """The path as it was asked for (AT_EXECFN)."""
    arguments: tuple[bytes, ...]


def find_executable(name: bytes, arguments: tuple[bytes, ...], directory: int = AT_FDCWD) -> Executable:
    """Open the program `name` (relative to `directory`), or the interpreter of the script it is.

    The caller closes the descriptor. Raises OSError with the errno of execve(2).
    """
    path = name
    for _ in range(_MAXIMUM_SCRIPTS + 1):
        fd = open_executable(path, directory)
        line = os.pread(fd, _LINE, 0)
        if not line.startswith(b"#!"):
            return Executable(fd, os.readlink(f"/proc/self/fd/{fd}".encode()), name, arguments)
        os.close(fd)
        script = (
            path if directory == AT_FDCWD or path.startswith(b"/") else b"/dev/fd/%d/%s" % (directory, path)
        )
        interpreter, option = _script_line(line)
        arguments = (interpreter, *option, script, *arguments[1:])
        path, name, directory = interpreter, interpreter, AT_FDCWD
    raise _error(errno.ELOOP)


def has_isa(fd: int, isa: str) -> bool:
    """Whether the program behind `fd` is made of this ISA's instructions."""
    try:
        return read_elf(fd).isa == isa
    except ElfError:
        return False


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _script_line(line: bytes) -> tuple[bytes, tuple[bytes, ...]]:
    """The interpreter and, if there is one, its single argument."""
    first, newline, _ = line[2:].partition(b"\n")
    text = first.strip(b" \t")
    end = min((place for place in (text.find(b" "), text.find(b"\t")) if place > 0), default=len(text))
    if not text or (not newline and len(line) == _LINE and end == len(text)):
        raise _error(errno.ENOEXEC)
    option = text[end:].strip(b" \t")
    return text[:end], (option,) if option else ()
