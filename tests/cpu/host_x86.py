"""The host's own processor as an oracle: instructions between code that loads and saves all registers.

It runs in a child process, in which the tests' data are at the tests' addresses.
"""

import ctypes
import mmap
import os
import pickle
import platform
import struct

import pytest

from .x86_machines import CODE, DATA, DATA_SIZE

AREA = 0x2000000
"""Registers are loaded from here and saved here: 16, the flags, and the stack pointer of the host."""
FLAGS, HOST_STACK = 16 * 8, 17 * 8
_FIXED = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x100000
"""MAP_FIXED_NOREPLACE."""
RAX, RSP = 0, 4


def _move(opcode, register, displacement):
    """`mov` between a register and [rax + displacement]."""
    rex = 0x48 | (register >> 3) << 2
    return bytes([rex, opcode, 0x80 | (register & 7) << 3]) + struct.pack("<i", displacement)


_AREA = struct.pack("<Q", AREA)


def _before():
    """Save the host's registers and load the state."""
    text = b"\x53\x55\x41\x54\x41\x55\x41\x56\x41\x57"  # push rbx, rbp, r12 to r15
    text += b"\x48\xb8" + _AREA + _move(0x89, RSP, HOST_STACK)  # mov rax, AREA; save rsp
    text += b"\xff\xb0" + struct.pack("<i", FLAGS) + b"\x9d"  # push [rax + FLAGS]; popfq
    for register in range(15, -1, -1):
        text += _move(0x8B, register, 8 * register)
    return text


def _after():
    """Save the state and go back."""
    text = b"\x48\xa3" + _AREA  # movabs [AREA], rax
    text += b"\x48\xb8" + _AREA
    for register in range(1, 16):
        text += _move(0x89, register, 8 * register)
    text += _move(0x8B, RSP, HOST_STACK) + b"\x9c\x8f\x80" + struct.pack("<i", FLAGS)  # pushfq; pop
    text += b"\xfc\x41\x5f\x41\x5e\x41\x5d\x41\x5c\x5d\x5b\xc3"  # cld; pop them; ret
    return text


class HostProcessor:
    """Forks a child for each batch."""

    def __enter__(self):
        if platform.machine() != "x86_64":
            pytest.skip("the host's processor is no x86-64")
        return self

    def __exit__(self, *_):
        return None

    def run(self, batch):
        """The states after each pair of code and start."""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            try:
                with os.fdopen(writing, "wb") as stream:
                    for code, start in batch:
                        pickle.dump(_run_here(code, start), stream)
                os._exit(0)
            finally:
                os._exit(1)
        os.close(writing)
        with os.fdopen(reading, "rb") as stream:
            results = []
            for code, _ in batch:
                try:
                    results.append(pickle.load(stream))
                except EOFError:
                    pytest.fail(f"the host's processor did not survive {code.hex()}")
        os.waitpid(child, 0)
        return results


_mapped = []


def _map():
    if _mapped:
        return
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    for address, size in ((DATA, DATA_SIZE + 4096), (CODE - 4096, 8192), (AREA, 4096)):
        if library.mmap(address, size, 7, _FIXED, -1, 0) != address:
            raise OSError(ctypes.get_errno(), "no memory where the tests want it")
    _mapped.append(True)


def _run_here(code, start):
    _map()
    ctypes.memmove(DATA, start.data, DATA_SIZE)
    before, after = _before(), _after()
    # The instruction itself is at CODE, for addresses relative to it.
    base = CODE - len(before)
    ctypes.memmove(base, before + code + after, len(before + code + after))
    words = (ctypes.c_uint64 * 18).from_address(AREA)
    words[:16] = start.registers
    words[16] = start.flags & ~0x100
    ctypes.CFUNCTYPE(None)(base)()
    return {
        "registers": list(words[:16]),
        "flags": words[16],
        "data": ctypes.string_at(DATA, DATA_SIZE),
    }
