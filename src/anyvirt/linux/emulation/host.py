"""Raw system calls of the host: by number, with the kernel's own result (a negative errno for an error).

Python's `os` functions are not used for what a guest asks: they retry interrupted calls, raise exceptions
and change file descriptor flags, where the guest must see exactly what the kernel answered.
"""

from __future__ import annotations

import ctypes

from anyvirt.linux.system_calls import system_call_numbers

HOST = system_call_numbers("x86_64")
"""The host's numbers by name: the engine runs on x86-64 alone."""
_LIBC = ctypes.CDLL(None, use_errno=True)
# One prototype for each number of arguments: converting unneeded zeros costs more than the call itself.
_PROTOTYPES = tuple(
    ctypes.CFUNCTYPE(ctypes.c_long, *(ctypes.c_long,) * (count + 1), use_errno=True)(("syscall", _LIBC))
    for count in range(7)
)
_errno = ctypes.get_errno


def call(number: int, *arguments: int) -> int:
    """System call `number` with up to six integer arguments; a result in -4095 … -1 is a negative errno.

    The GIL is released meanwhile, and a call that a signal interrupted is not restarted. For a call that may
    block there is `Process.blocking_call`, which no signal can slip past.
    """
    result: int = _PROTOTYPES[len(arguments)](number, *arguments)
    return -_errno() if result == -1 else result


def named_with(name: str, content: bytes, *arguments: int) -> int:
    """The same by the call's name, with a pointer to a copy of `content` behind the other arguments."""
    buffer = ctypes.create_string_buffer(content, len(content))
    return call(HOST[name], *arguments, ctypes.addressof(buffer))


def named(name: str, *arguments: int) -> int:
    """The same by the call's name."""
    return call(HOST[name], *arguments)
