"""Compiled code in this process: blobs mapped for execution, state blocks, and the host's fault signals."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
import threading
import time
from functools import cache
from typing import TYPE_CHECKING

from anyvirt.cpu.memory import host_mmap, host_protect, inner_locks, reserve
from anyvirt.errors import UnsupportedError
from anyvirt.jit.blob import Blob, data_offset
from anyvirt.jit.cache import load_or_compile
from anyvirt.jit.host_layout import CODE_RANGES, Data
from anyvirt.jit.layout import STATE_SIZE, Request, Slot

if TYPE_CHECKING:
    from collections.abc import Callable

_SPAWN_STACK = 1 << 14
_LONGEST_LOOP = 0.05
"""Seconds within which compiled code comes to a jump, by a factor of thousands."""
STATES = 4096
"""Most virtual CPUs of a process."""
_SA_SIGINFO, _SA_ONSTACK, _SA_RESTORER = 4, 0x08000000, 0x04000000
_RT_SIGACTION, _SIGNAL_SET_SIZE = 13, 8
_READ_EXECUTE = mmap.PROT_READ | mmap.PROT_EXEC


class SignalAction(ctypes.Structure):
    """`struct sigaction` of the kernel on x86-64: the C library keeps signals 32 and 33 to itself."""

    _fields_ = (
        ("handler", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("restorer", ctypes.c_uint64),
        ("mask", ctypes.c_uint64),
    )


class MappedBlob:
    """A blob somewhere in memory; its code is never writable and executable at the same time."""

    def __init__(self, blob: Blob) -> None:
        self.blob = blob
        code_end = data_offset(len(blob.code))
        self.size = code_end + data_offset(blob.data_size)
        self.address = host_mmap(
            0, self.size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        )
        ctypes.memmove(self.address, blob.code, len(blob.code))
        host_protect(self.address, code_end, _READ_EXECUTE)

    def __getitem__(self, symbol: str) -> int:
        """Address of a symbol."""
        return self.address + self.blob.symbols[symbol]

    @property
    def code_range(self) -> tuple[int, int]:
        """First address of the code and the one behind it."""
        return self.address, self.address + len(self.blob.code)


class Host:
    """The one instance per process: `host()`."""

    def __init__(self) -> None:
        self._blob = MappedBlob(load_or_compile("host", _compile_host))
        self._ranges = 0
        self._free: list[int] = []
        self._taking = threading.Lock()
        inner_locks.append(self._taking)
        self._states = reserve(STATES * STATE_SIZE, mmap.PROT_READ | mmap.PROT_WRITE)
        self.set(Data.STATES, self._states)
        self.set(Data.STATES_END, self._states)
        self.set(Data.RESTART_BEGIN, self._blob["restart_begin"])
        self.set(Data.RESTART_END, self._blob["restart_end"])
        self.set(Data.RESTART_TARGET, self._blob["restart_target"])
        self.enter: Callable[[int], None] = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._blob["enter"])
        """Run compiled code on a state block; the GIL is released meanwhile."""
        self.system_call: Callable[..., int] = ctypes.CFUNCTYPE(
            ctypes.c_long, ctypes.c_void_p, *(ctypes.c_long,) * 7
        )(self._blob["system_call"])
        self.forget: Callable[[int, int, int, int, int, int], None] = ctypes.CFUNCTYPE(
            None, *(ctypes.c_uint64,) * 6
        )(self._blob["forget"])
        """Empty records: their base, the pages that have any, a range of guest addresses, shift and size."""
        self.forget_code = self._function("forget_code", 4)
        """As `anyvirt.jit.machine_access.forget_code`, like the three that follow."""
        self.flush_tlbs = self._function("flush_tlbs", 1)
        self.flush_page = self._function("flush_page", 2)
        self.stop_writing = self._function("stop_writing", 2)
        self.add_word = self._function("add_word", 2)
        """Add a number to 32 bits of memory atomically."""
        self.leave = self._blob["leave"]
        self._spawn: Callable[..., int] = ctypes.CFUNCTYPE(ctypes.c_long, *(ctypes.c_void_p,) * 4)(
            self._blob["spawn"]
        )
        self.translation_exit = self._blob["translation_exit"]
        """Code that exits of translations call."""
        self.add_code(self._blob)
        os.register_at_fork(after_in_child=self._after_fork)

    def _function(self, symbol: str, arguments: int) -> Callable[..., None]:
        """A function of the blob that takes words and returns nothing."""
        kind = ctypes.CFUNCTYPE(None, *(ctypes.c_uint64,) * arguments)
        function: Callable[..., None] = kind(self._blob[symbol])
        return function

    # The blob's data ------------------------------------------------------------------------------------

    def word(self, offset: int) -> ctypes.c_uint64:
        """A word of the host blob's data."""
        return ctypes.c_uint64.from_address(self._blob["data"] + offset)

    def set(self, offset: int, value: int) -> None:
        """Set a word of the host blob's data."""
        self.word(offset).value = value

    def add_code(self, blob: MappedBlob) -> None:
        """Let the fault handlers know that faults in this blob are a guest's."""
        if self._ranges == CODE_RANGES:
            raise RuntimeError("too many blobs of compiled code in one process")
        self.add_code_range(*blob.code_range)

    def add_code_range(self, start: int, end: int) -> None:
        """Let the fault handlers know that faults in [start, end) are a guest's."""
        offset = Data.RANGES + 16 * self._ranges
        self.set(offset, start)
        self.set(offset + 8, end)
        self._ranges += 1

    # State blocks ---------------------------------------------------------------------------------------

    def take_state(self) -> int:
        """Address of a zeroed state block."""
        with self._taking:
            if self._free:
                address = self._free.pop()
                ctypes.memset(address, 0, STATE_SIZE)
                return address
            end = self.word(Data.STATES_END)
            if end.value == self._states + STATES * STATE_SIZE:
                raise UnsupportedError(
                    "user", f"more than {STATES} CPUs in a process", "each needs a state block"
                )
            address = end.value
            end.value += STATE_SIZE
            return address

    def give_state(self, address: int) -> None:
        """Take a state block back. Takes no lock: garbage may be collected anywhere."""
        self._free.append(address)

    def spawn(self, command: list[str], environment: dict[str, str]) -> int:
        """Start a program that shares nothing with this process; returns its pid, or minus an errno.

        It has no open file at all, and is no child of ours. Whether it could be executed is not known.
        """
        words = _strings([os.fsencode(word) for word in command])
        pairs = _strings([os.fsencode(f"{name}={value}") for name, value in environment.items()])
        stack = ctypes.create_string_buffer(_SPAWN_STACK)
        top = (ctypes.addressof(stack) + _SPAWN_STACK) & -16
        return self._spawn(words[0], ctypes.addressof(words), ctypes.addressof(pairs), top)

    def running_states(self) -> list[int]:
        """Addresses of the state blocks whose CPU is in compiled code."""
        return [
            address
            for address in range(self._states, self.word(Data.STATES_END).value, STATE_SIZE)
            if ctypes.c_uint64.from_address(address + Slot.STACK).value
        ]

    def settle(self) -> None:
        """Wait until every CPU that is in compiled code now has left it once, or could have many times."""
        busy, deadline = set(self.running_states()), time.monotonic() + _LONGEST_LOOP
        while busy and time.monotonic() < deadline:
            for state in busy:
                ctypes.c_uint8.from_address(state + Slot.PENDING + Request.SAMPLE).value = 1
            time.sleep(_LONGEST_LOOP / 256)
            busy &= set(self.running_states())

    def _after_fork(self) -> None:
        """Only the forking thread lives on: no guest runs, and signals noted before were the parent's."""
        for address in range(self._states, self.word(Data.STATES_END).value, STATE_SIZE):
            ctypes.c_uint64.from_address(address + Slot.STACK).value = 0
        size = Data.SIZE - Data.RING
        ctypes.memset(self._blob["data"] + Data.RING, 0, size)

    # Signals --------------------------------------------------------------------------------------------

    def catch_faults(self) -> None:
        """Be the first to see SIGSEGV and SIGBUS; what is not a guest's goes to who was there before."""
        previous = {signal.SIGSEGV: Data.PREVIOUS_SEGV, signal.SIGBUS: Data.PREVIOUS_BUS}
        for number, offset in previous.items():
            action = self.action(number)
            if action.handler != self._blob["on_fault"]:
                self.set(offset, action.handler)
                self.catch(number, "on_fault")

    def catch(self, number: int, symbol: str) -> SignalAction:
        """Install a native handler for a signal; returns what was there."""
        flags = _SA_SIGINFO | _SA_ONSTACK | _SA_RESTORER
        action = SignalAction(self._blob[symbol], flags, self._blob["signal_return"], (1 << 64) - 1)
        return self.replace_action(number, action)

    def action(self, number: int) -> SignalAction:
        """What is installed for a signal."""
        return self._sigaction(number, None)

    def replace_action(self, number: int, action: SignalAction) -> SignalAction:
        """Install an action; returns what was there. Raises OSError."""
        return self._sigaction(number, action)

    def _sigaction(self, number: int, action: SignalAction | None) -> SignalAction:
        old = SignalAction()
        new = None if action is None else ctypes.byref(action)
        size = ctypes.c_size_t(_SIGNAL_SET_SIZE)
        if _libc().syscall(_RT_SIGACTION, int(number), new, ctypes.byref(old), size) < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        return old


def _strings(words: list[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    """An array of C strings that ends with NULL."""
    return (ctypes.c_char_p * (len(words) + 1))(*words, None)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _compile_host() -> Blob:
    from anyvirt.jit.ahead import host_blob

    return host_blob()


@cache
def host() -> Host:
    """The host of this process. Raises UnsupportedError where compiled code cannot run."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        raise UnsupportedError(
            "user", "compiled tiers on this host", f"they need Linux on x86-64, not {os.uname().machine}"
        )
    return Host()
