"""The words that programs in typed Python have for the world around them: system calls and constant bytes.

As everywhere in typed Python they also work under CPython, on the host's own kernel.
"""

from __future__ import annotations

import ctypes
import functools

from anyvirt.isa.names import Isa
from anyvirt.jit.program_isa import PROGRAM_ISAS
from anyvirt.typed import FixedInteger, s64, u64

_kept: dict[bytes, ctypes.Array[ctypes.c_char]] = {}


def system_call(name: str, *arguments: FixedInteger | int) -> s64:
    """The Linux system call `name` (a constant) with up to six arguments.

    A negative result is an error number. In compiled code each argument is a u64, an s64 or a plain number.
    """
    number = PROGRAM_ISAS[Isa.host()].system_calls[name]
    words = [ctypes.c_long(u64(argument)._value) for argument in arguments]
    result = _libc().syscall(ctypes.c_long(number), *words)
    return s64(result if result != -1 else -ctypes.get_errno())


def text(content: bytes) -> u64:
    """The address of constant bytes, which end with a zero byte that is not counted."""
    if content not in _kept:
        _kept[content] = ctypes.create_string_buffer(content)
    return u64(ctypes.addressof(_kept[content]))


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc
