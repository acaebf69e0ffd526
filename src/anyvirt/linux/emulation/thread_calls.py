"""System calls that concern threads: their numbers, their end, and futexes between them."""

from __future__ import annotations

import errno
import struct
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from anyvirt.cpu.memory import GuestFault
from anyvirt.linux.emulation import host, robust
from anyvirt.linux.emulation.clone_flags import (
    CLONE_CHILD_CLEARTID,
    CLONE_CHILD_SETTID,
    CLONE_DETACHED,
    CLONE_FILES,
    CLONE_FS,
    CLONE_IO,
    CLONE_PARENT_SETTID,
    CLONE_PTRACE,
    CLONE_SETTLS,
    CLONE_SIGHAND,
    CLONE_SYSVSEM,
    CLONE_THREAD,
    CLONE_UNTRACED,
    CLONE_VM,
)
from anyvirt.linux.emulation.table import system_call

if TYPE_CHECKING:
    from anyvirt.linux.emulation.process import Process
    from anyvirt.linux.emulation.threads import Thread

_SHARED = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD
"""What threads of the host always share with each other."""
_FLAGS = (
    _SHARED | CLONE_SYSVSEM | CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID
    | CLONE_CHILD_SETTID | CLONE_DETACHED | CLONE_UNTRACED | CLONE_PTRACE | CLONE_IO | 0xFF
)  # fmt: skip


def begin_thread(process: Process, flags: int, stack: int, tls: int, parent_tid: int, child_tid: int) -> int:
    """Begin a thread as clone(2) with CLONE_THREAD does; its number or a negative errno."""
    if flags & _SHARED != _SHARED or flags & ~_FLAGS:
        return -errno.EINVAL
    if process.debugger is not None or process.recording is not None:
        _refuse_threads()
        return -errno.EAGAIN
    abi = process.abi
    next_pc = process.cpu.pc + abi.call_length

    def prepare(thread: Thread) -> None:
        thread.cpu.pc = next_pc
        thread.cpu.x[abi.result_register] = 0
        if stack:
            thread.cpu.x[abi.stack_register] = stack
        if flags & CLONE_SETTLS:
            thread.cpu.x[abi.thread_register] = tls
        if flags & CLONE_CHILD_CLEARTID:
            thread.clear_number_at = child_tid
        for flag, address in ((CLONE_PARENT_SETTID, parent_tid), (CLONE_CHILD_SETTID, child_tid)):
            if flags & flag:
                with suppress(GuestFault):
                    process.memory.write(address, struct.pack("<i", thread.number))

    return process.threads.begin(prepare)


def _refuse_threads() -> None:
    with suppress(OSError):
        print(
            "anyvirt: a guest under gdb, --trace or --coverage cannot begin threads: it got EAGAIN",
            file=sys.stderr,
            flush=True,
        )


@system_call("exit", "int")
def exit_thread(process: Process, status: int) -> NoReturn:
    """End the thread; the process ends with its last one, whose status it has"""
    process.threads.leave(process.memory)
    process.exit(status)


@system_call("set_tid_address", "size")
def set_tid_address(process: Process, address: int) -> int:
    """Set where the thread's number is cleared at its end; its own number"""
    process.thread.clear_number_at = address
    return process.thread.number


# Futexes ------------------------------------------------------------------------------------------------

_FUTEX_COMMAND = 0x7F
_FUTEX_WITH_TIMEOUT = frozenset((0, 6, 9, 11, 13))
"""FUTEX_WAIT, LOCK_PI, WAIT_BITSET, WAIT_REQUEUE_PI, LOCK_PI2; for others the argument is a number."""
_FUTEX_WITH_SECOND = frozenset((3, 4, 5, 11, 12))
"""REQUEUE, CMP_REQUEUE, WAKE_OP, WAIT_REQUEUE_PI, CMP_REQUEUE_PI; others leave the argument unset."""


@system_call("futex", "pointer int int size size int", restart=True)
def futex(
    process: Process, word: int, operation: int, value: int, timeout: int, second: int, third: int
) -> int:
    """Wait for or wake those who wait for a word of memory"""
    command = operation & _FUTEX_COMMAND
    if command in _FUTEX_WITH_TIMEOUT:
        timeout = process.pointer(timeout, 16)
    second = process.pointer(second, 4) if command in _FUTEX_WITH_SECOND else 0
    pointer = process.memory.host_address(word, 4)
    return process.blocking_call("futex", pointer, operation, value, timeout, second, third)


@system_call("set_robust_list", "size size")
def set_robust_list(process: Process, head: int, size: int) -> int:
    """Register the futexes to release at the thread's end"""
    if size != robust.HEAD.size:
        return -errno.EINVAL
    process.thread.robust_list = head
    return 0


@system_call("get_robust_list", "int pointer pointer")
def get_robust_list(process: Process, number: int, head: int, size: int) -> int:
    """The futexes registered by set_robust_list"""
    thread = process.threads.find(number) if number else process.thread
    if thread is None:
        # Threads of other processes register theirs with their own emulators.
        result = host.named("tkill", number, 0)
        return result if result < 0 else -errno.EPERM
    process.memory.write(head, struct.pack("<Q", thread.robust_list))
    process.memory.write(size, struct.pack("<Q", robust.HEAD.size))
    return 0
