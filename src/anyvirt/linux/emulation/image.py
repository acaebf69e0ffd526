"""Image: a program made ready to run, its segments and its first stack in a new address space.

Follows Linux' fs/binfmt_elf.c: segments are private file mappings, a position-independent program goes
to two thirds of the address space, and the stack holds argc, argv, envp and the auxiliary vector as the
RISC-V ELF psABI and the System V ABI ("Process Initialization") have them.
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from anyvirt.cpu.memory import PAGE_SIZE, FlatMemory, Protection, page_ceiling
from anyvirt.linux.elf import SegmentFlags, SegmentType
from anyvirt.linux.emulation.linker import linker_name, load_linker
from anyvirt.linux.emulation.segments import (
    STACK_GAP,
    alignment,
    check_elf,
    is_position_independent,
    load_segments,
    read_elf,
    span,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyvirt.linux.elf import Elf
    from anyvirt.linux.emulation.abi import Abi
    from anyvirt.linux.emulation.segments import Loaded

MAXIMUM_STRING = 32 * PAGE_SIZE
"""Length of the longest argument, its zero included (MAX_ARG_STRLEN)."""
_MAXIMUM_STACK = 1 << 30
_MINIMUM_STACK = 1 << 17
_PROGRAM_HEADER_SIZE = 56
_CLOCK_TICKS = 100
# li a7, 139 (rt_sigreturn); ecall. Unwinders know a signal frame by exactly these two instructions.
_SIGNAL_RETURN = struct.pack("<II", 0x08B00893, 0x00000073)
_MINIMUM_SIGNAL_STACK = 1088 + 1024


class Auxiliary(IntEnum):
    """Types of auxiliary vector entries (include/uapi/linux/auxvec.h)."""

    NULL = 0
    PHDR = 3
    PHENT = 4
    PHNUM = 5
    PAGESZ = 6
    BASE = 7
    FLAGS = 8
    ENTRY = 9
    UID = 11
    EUID = 12
    GID = 13
    EGID = 14
    HWCAP = 16
    CLKTCK = 17
    SECURE = 23
    RANDOM = 25
    HWCAP2 = 26
    EXECFN = 31
    MINSIGSTKSZ = 51


@dataclass(frozen=True)
class Image:
    """An address space with a program in it, and where it begins."""

    memory: FlatMemory
    entry: int
    stack_pointer: int
    heap_start: int
    mapping_top: int
    """Mappings without a wish for an address are placed downwards from here."""
    signal_return: int
    """Address of the two instructions that a signal handler returns to."""
    path: bytes
    """Absolute path of the program's file."""
    arguments: tuple[bytes, ...]
    environment: tuple[bytes, ...]
    auxiliary: bytes


def load_image(
    abi: Abi,
    fd: int,
    path: bytes,
    name: bytes,
    arguments: Sequence[bytes],
    environment: Sequence[bytes],
    stack_limit: int,
) -> Image:
    """Load the program behind `fd`; `name` is what it was started as (AT_EXECFN).

    The stack gets `stack_limit` bytes (RLIMIT_STACK), at least 128 KiB and at most 1 GiB.

    Raises ElfError for a file that cannot be a program of this ABI, OSError(E2BIG) for too long arguments,
    OSError(ENOMEM) for what does not fit, and OSError with a file name, that of the dynamic linker, for one
    that cannot be used.
    """
    elf = read_elf(fd)
    check_elf(abi, elf)
    linker = linker_name(fd, elf)
    memory = FlatMemory()
    program = load_segments(memory, fd, elf, _bias(memory, elf), os.fsdecode(path))
    signal_return = memory.size - PAGE_SIZE
    memory.map(signal_return, PAGE_SIZE, Protection.READ | Protection.WRITE, name="[sigreturn]")
    memory.write(signal_return, _SIGNAL_RETURN)
    memory.protect(signal_return, PAGE_SIZE, Protection.READ | Protection.EXECUTE)
    stack_top = signal_return - PAGE_SIZE
    stack_bottom = _map_stack(memory, elf, stack_top, stack_limit)
    mapping_top = stack_bottom - STACK_GAP
    first = program if linker is None else load_linker(abi, memory, linker, mapping_top)
    stack = _Stack(memory, stack_top, stack_top - stack_bottom)
    auxiliary = _auxiliary(abi, program, 0 if linker is None else first.base)
    stack_pointer, vector = stack.fill(name, tuple(arguments) or (b"",), environment, auxiliary)
    return Image(
        memory=memory,
        entry=first.entry,
        stack_pointer=stack_pointer,
        heap_start=program.end,
        mapping_top=mapping_top,
        signal_return=signal_return,
        path=path,
        arguments=tuple(arguments),
        environment=tuple(environment),
        auxiliary=vector,
    )


def _bias(memory: FlatMemory, elf: Elf) -> int:
    """Position-independent programs go to two thirds of the address space (ELF_ET_DYN_BASE)."""
    if not is_position_independent(elf):
        return 0
    wish = alignment(elf)
    return memory.size // 3 * 2 // wish * wish - span(elf)[0]


def _auxiliary(abi: Abi, program: Loaded, linker_base: int) -> dict[Auxiliary, int]:
    """What the auxiliary vector says, but for the addresses of what lies on the stack."""
    return {
        Auxiliary.HWCAP: abi.hwcap,
        Auxiliary.PAGESZ: PAGE_SIZE,
        Auxiliary.CLKTCK: _CLOCK_TICKS,
        Auxiliary.PHDR: program.header_address,
        Auxiliary.PHENT: _PROGRAM_HEADER_SIZE,
        Auxiliary.PHNUM: len(program.elf.segments),
        Auxiliary.BASE: linker_base,
        Auxiliary.FLAGS: 0,
        Auxiliary.ENTRY: program.entry,
        Auxiliary.UID: os.getuid(),
        Auxiliary.EUID: os.geteuid(),
        Auxiliary.GID: os.getgid(),
        Auxiliary.EGID: os.getegid(),
        Auxiliary.SECURE: 0,
        Auxiliary.HWCAP2: 0,
        Auxiliary.MINSIGSTKSZ: _MINIMUM_SIGNAL_STACK,
    }


def _map_stack(memory: FlatMemory, elf: Elf, top: int, limit: int) -> int:
    """Map the whole stack that the limit allows, which costs nothing until it is used; its bottom."""
    size = page_ceiling(min(max(limit, _MINIMUM_STACK), _MAXIMUM_STACK))
    executable = any(
        segment.type == SegmentType.GNU_STACK and segment.flags & SegmentFlags.EXECUTE
        for segment in elf.segments
    )
    protection = Protection.READ | Protection.WRITE | (Protection.EXECUTE if executable else 0)
    memory.map(top - size, size, protection, name="[stack]")
    return top - size


class _Stack:
    """The first stack, filled downwards from its top."""

    def __init__(self, memory: FlatMemory, top: int, size: int) -> None:
        self._memory = memory
        self._limit = max(size // 4, _MINIMUM_STACK)
        self._top = top
        self._position = top - 8

    def fill(
        self,
        name: bytes,
        arguments: Sequence[bytes],
        environment: Sequence[bytes],
        auxiliary: dict[Auxiliary, int],
    ) -> tuple[int, bytes]:
        """Store everything; returns the stack pointer and the auxiliary vector's bytes."""
        if sum(len(word) + 9 for word in (*arguments, *environment)) > self._limit:
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
        if any(len(word) >= MAXIMUM_STRING for word in (*arguments, *environment)):
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
        name_address = self._push(name + b"\0")
        environment_addresses = self._push_strings(environment)
        argument_addresses = self._push_strings(arguments)
        auxiliary[Auxiliary.EXECFN] = name_address
        auxiliary[Auxiliary.RANDOM] = self._push(os.urandom(16))
        vector = struct.pack(
            f"<{2 * len(auxiliary) + 2}Q",
            *(number for pair in auxiliary.items() for number in pair),
            Auxiliary.NULL,
            0,
        )
        pointers = (len(arguments), *argument_addresses, 0, *environment_addresses, 0)
        block = struct.pack(f"<{len(pointers)}Q", *pointers) + vector
        self._position = (self._position - len(block)) & ~15
        self._memory.write(self._position, block)
        return self._position, vector

    def _push(self, content: bytes) -> int:
        self._position -= len(content)
        self._memory.write(self._position, content)
        return self._position

    def _push_strings(self, strings: Sequence[bytes]) -> list[int]:
        """Store strings in one piece, the first lowest, and return their addresses."""
        block = b"".join(string + b"\0" for string in strings)
        address = self._push(block)
        addresses = []
        for string in strings:
            addresses.append(address)
            address += len(string) + 1
        return addresses
