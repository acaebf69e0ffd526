"""The dynamic linker that a program names (PT_INTERP): the file that really runs first, beside the program.

Follows load_elf_binary and load_elf_interp in Linux' fs/binfmt_elf.c.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from anyvirt.linux.elf import HEADER_SIZE, ElfError
from anyvirt.linux.emulation.executable_file import open_executable
from anyvirt.linux.emulation.segments import (
    MINIMUM_ADDRESS,
    alignment,
    check_elf,
    is_position_independent,
    load_segments,
    read_elf,
    span,
)

if TYPE_CHECKING:
    from anyvirt.cpu.memory import FlatMemory
    from anyvirt.linux.elf import Elf
    from anyvirt.linux.emulation.abi import Abi
    from anyvirt.linux.emulation.segments import Loaded

_LONGEST_NAME = 4096
"""Bytes of a path, its zero included (PATH_MAX)."""


def linker_name(fd: int, elf: Elf) -> bytes | None:
    """The path of the dynamic linker of the program behind `fd`; None if it is static. Raises ElfError."""
    segment = elf.interpreter
    if segment is None:
        return None
    name = b""
    if 2 <= segment.file_size <= _LONGEST_NAME:
        name = os.pread(fd, segment.file_size, segment.offset)
    if len(name) != segment.file_size or not name.endswith(b"\0"):
        raise ElfError("a damaged ELF file: the name of its dynamic linker is no string")
    return name.partition(b"\0")[0]


def load_linker(abi: Abi, memory: FlatMemory, name: bytes, top: int) -> Loaded:
    """Load the dynamic linker at the path `name`, below `top` if it may be anywhere.

    Raises OSError with `name` and the errno of execve(2), ELIBBAD for what is no dynamic linker of this ABI.
    """
    try:
        fd = open_executable(name)
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from error
    try:
        if os.fstat(fd).st_size < HEADER_SIZE:
            raise OSError(errno.EIO, os.strerror(errno.EIO), name)
        elf = read_elf(fd)
        check_elf(abi, elf)
        return load_segments(memory, fd, elf, _bias(memory, elf, top), os.fsdecode(os.path.realpath(name)))
    except ElfError as error:
        raise OSError(errno.ELIBBAD, f"it is {error}", name) from error
    finally:
        os.close(fd)


def _bias(memory: FlatMemory, elf: Elf, top: int) -> int:
    """Where to: it must not replace a part of the program. Raises OSError and ElfError."""
    start, length = span(elf)
    if not is_position_independent(elf):
        if not memory.is_free(start, length):
            raise ElfError("a program that has to be where another one is already")
        return 0
    if length > memory.size:
        raise ElfError("a damaged ELF file: it is larger than what a process may have")
    return memory.find_free(length, bottom=MINIMUM_ADDRESS, top=top, align=alignment(elf)) - start
