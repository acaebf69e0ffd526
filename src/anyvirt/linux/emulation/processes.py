"""System calls that begin, replace and end processes: clone, execve and exit_group."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import struct
import threading
import time
from typing import TYPE_CHECKING, ClassVar, NoReturn

from anyvirt.cpu.memory import PAGE_SIZE
from anyvirt.linux.elf import ElfError
from anyvirt.linux.emulation import host, procfs
from anyvirt.linux.emulation.clone_flags import (
    CLONE_CHILD_CLEARTID,
    CLONE_CHILD_SETTID,
    CLONE_CLEAR_SIGHAND,
    CLONE_DETACHED,
    CLONE_PARENT_SETTID,
    CLONE_PIDFD,
    CLONE_SETTLS,
    CLONE_THREAD,
    CLONE_UNTRACED,
    CLONE_VFORK,
    CLONE_VM,
)
from anyvirt.linux.emulation.host import HOST
from anyvirt.linux.emulation.identity import RLIMIT_STACK
from anyvirt.linux.emulation.image import MAXIMUM_STRING, load_image
from anyvirt.linux.emulation.programs import Executable, find_executable, has_isa
from anyvirt.linux.emulation.table import RegistersReplaced, system_call
from anyvirt.linux.emulation.thread_calls import begin_thread

if TYPE_CHECKING:
    from anyvirt.cpu.memory import FlatMemory
    from anyvirt.linux.emulation.process import Process

_FORK_FLAGS = (
    CLONE_VM | CLONE_VFORK | CLONE_PIDFD | CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID
    | CLONE_CHILD_CLEARTID | CLONE_DETACHED | CLONE_UNTRACED | CLONE_CLEAR_SIGHAND | 0xFF
)  # fmt: skip
_CLONE_ARGUMENTS = struct.Struct("<8Q")
_RESERVED_DESCRIPTORS = 16
_SHARED_FRAME = 1 << 13
"""Most bytes that a child of vfork gives back."""
_EXECUTED, _GIVEN_BACK = 1, 2
_GLANCE = 0.001
"""Seconds between two looks at a child that can be waited for in no other way."""


_forking = threading.Lock()
"""Held while the process forks, and while there is what only the child of one thread is to have."""


def _clone(process: Process, flags: int, stack: int, tls: int, tids: tuple[int, int, int]) -> int:
    """Begin a thread or a process.

    `tids` are where to store its number: in the parent, in the child, and as a pidfd.
    """
    if flags & CLONE_THREAD:
        return begin_thread(process, flags, stack, tls, *tids[:2])
    return _fork(process, flags, stack, tls, tids)


def _fork(process: Process, flags: int, stack: int, tls: int, tids: tuple[int, int, int]) -> int:
    if flags & CLONE_VM and not flags & CLONE_VFORK:
        return -errno.ENOSYS
    if flags & ~_FORK_FLAGS:
        return -errno.EINVAL
    parent_tid, child_tid, pidfd = tids
    gate = _Gate(process, shares_memory=bool(flags & CLONE_VM)) if flags & CLONE_VFORK else None
    pid = _forked(process, gate)
    if pid == 0:
        _set_up_child(process, flags, stack, tls, child_tid)
        return 0
    if flags & CLONE_PARENT_SETTID:
        process.memory.write(parent_tid, struct.pack("<i", pid))
    if flags & CLONE_PIDFD:
        process.memory.write(pidfd, struct.pack("<i", os.pidfd_open(pid)))
    if gate is not None:
        gate.wait(pid)
    return pid


def _forked(process: Process, gate: _Gate | None) -> int:
    """The number of a new process, or 0 in that. Raises OSError."""
    # The child has its own parent's signals behind it before it takes any.
    with process.signals.held(), _forking:
        try:
            pid = os.fork()
        except OSError:
            if gate is not None:
                gate.close()
            raise
        if pid == 0:
            _begin_child(process, gate)
    return pid


def _set_up_child(process: Process, flags: int, stack: int, tls: int, child_tid: int) -> None:
    """What the flags of clone(2) ask for in the child."""
    if flags & CLONE_CLEAR_SIGHAND:
        process.signals.reset_for_exec()
    if stack:
        process.cpu.x[process.abi.stack_register] = stack
    if flags & CLONE_SETTLS:
        process.cpu.x[process.abi.thread_register] = tls
    if flags & CLONE_CHILD_CLEARTID:
        process.thread.clear_number_at = child_tid
    if flags & CLONE_CHILD_SETTID:
        process.memory.write(child_tid, struct.pack("<i", os.getpid()))


def _begin_child(process: Process, gate: _Gate | None) -> None:
    """A child has none of its parent's waiting signals, and holds up nobody but its own parent."""
    process.threads.leave_others()
    process.signals.forget_arrived()
    if process.debugger is not None:
        process.debugger.leave_child()
    if process.recording is not None:
        process.recording.leave_child()
    if process.on_release is not None:
        process.release()
    _Gate.leave_others(gate)
    if gate is not None:
        gate.enter()
        process.on_release = gate


class _Gate:
    """What a parent in vfork(2) waits at: a pipe whose writing end its child closes, or loses by dying.

    A child with CLONE_VM has only a copy of its parent's memory here. If it ends without executing a program
    it gives back what lies above the parent's stack pointer, where posix_spawn(3) looks for the error.
    """

    _in_use: ClassVar[set[_Gate]] = set()
    """Those whose writing end is open here, changed while nobody forks."""

    def __init__(self, process: Process, *, shares_memory: bool) -> None:
        self._memory = process.memory
        stack_pointer = process.stack_pointer
        wanted = process.memory.mappings_in(stack_pointer, _SHARED_FRAME) if shares_memory else ()
        frame = next(iter(wanted), None)
        self._frame = (stack_pointer, frame.end - stack_pointer if frame else 0)
        self._shared = mmap.mmap(-1, 1 + _SHARED_FRAME)
        """How the child has let the parent go, and what it gives back; the host's processes share it."""
        self._child = 0
        with _forking:
            self._make()
            self._in_use.add(self)

    def _make(self) -> None:
        reading, writing = os.pipe()
        try:
            self._reading, self._writing = _out_of_the_way(reading), _out_of_the_way(writing)
            self._known_as = os.fstat(writing)
        finally:
            os.close(reading)
            os.close(writing)

    @classmethod
    def leave_others(cls, own: _Gate | None) -> None:
        """In a child: those of the parent's other threads must not wait for it, too."""
        for gate in cls._in_use:
            if gate is not own:
                os.close(gate._reading)
                os.close(gate._writing)
        cls._in_use.clear()

    def close(self) -> None:
        """There is no child."""
        os.close(self._reading)
        os.close(self._writing)
        self._in_use.discard(self)

    def enter(self) -> None:
        """In the child: keep the writing end alone."""
        os.close(self._reading)
        self._child = os.getpid()

    def __call__(self, *, ending: bool) -> None:
        """In the child: let the parent go on, before executing a program or ending.

        A child of the child's only lets go of what it has inherited.
        """
        if os.getpid() == self._child:
            address, length = self._frame
            if ending and length:
                self._shared[1 : 1 + length] = self._memory.read(address, length)
            self._shared[0] = _GIVEN_BACK if ending else _EXECUTED
        if self._is_open():
            os.close(self._writing)

    def tell(self, *, executing: bool) -> None:
        """In the child: another program is about to close the pipe by being executed, or could not be."""
        self._shared[0] = _EXECUTED if executing else 0

    def _is_open(self) -> bool:
        """Whether the guest has not closed the writing end, nor has another file under its number."""
        try:
            return os.path.samestat(os.fstat(self._writing), self._known_as)
        except OSError:
            return False

    def wait(self, pid: int) -> None:
        """In the parent: wait for the child to execute a program or to end."""
        with _forking:
            os.close(self._writing)
            self._in_use.discard(self)
        os.read(self._reading, 1)
        os.close(self._reading)
        while not self._shared[0] and not _has_ended(pid):
            # It has closed all descriptors that it did not open, as programs do before they execute others.
            time.sleep(_GLANCE)
        address, length = self._frame
        if self._shared[0] == _GIVEN_BACK and length:
            self._memory.write(address, self._shared[1 : 1 + length])


def _has_ended(pid: int) -> bool:
    """Whether a child is no more; it may still be waited for."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _out_of_the_way(fd: int) -> int:
    """Another descriptor of the same, where no guest looks for one. Raises OSError."""
    import fcntl

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = max(min(limit, 1 << 20) - _RESERVED_DESCRIPTORS, 3)
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)


@system_call("clone", "size size size size size")
def clone(process: Process, flags: int, stack: int, parent_tid: int, fourth: int, fifth: int) -> int:
    """Begin a process or a thread"""
    both = (fourth, fifth)
    tls = both[process.abi.tls_argument - 3]
    child_tid = both[process.abi.child_tid_argument - 3]
    return _clone(process, flags, stack, tls, (parent_tid, child_tid, parent_tid))


@system_call("clone3", "pointer size")
def clone3(process: Process, arguments: int, size: int) -> int:
    """Begin a process or a thread, with arguments in a structure"""
    if size < _CLONE_ARGUMENTS.size:
        return -errno.EINVAL
    content = process.memory.read(arguments, _CLONE_ARGUMENTS.size)
    flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls = _CLONE_ARGUMENTS.unpack(
        content
    )
    if flags & 0xFF or exit_signal > 0xFF or (exit_signal and flags & CLONE_THREAD):
        return -errno.EINVAL
    top = stack + stack_size if stack else 0
    return _clone(process, flags | exit_signal, top, tls, (parent_tid, child_tid, pidfd))


# Replacing the program ----------------------------------------------------------------------------------

_AT_EMPTY_PATH = 0x1000
_AT_SYMLINK_NOFOLLOW = 0x100
_MAXIMUM_STRINGS = 1 << 20
_PR_SET_NAME = 15


@system_call("execve", "path pointer pointer")
def execve(process: Process, path: int, arguments: int, environment: int) -> int:
    """Replace the program by one of the guest's or the host's ISA, or by a script's interpreter"""
    name = process.memory.read_string(path)
    name = procfs.executable(process, name) or name
    return execute(
        process, find_executable(name, _strings(process, arguments)), _strings(process, environment)
    )


@system_call("execveat", "fd path pointer pointer flags")
def execveat(
    process: Process, directory: int, path: int, arguments: int, environment: int, flags: int
) -> int:
    """Replace the program by one relative to a directory, or by an open file"""
    name = process.memory.read_string(path)
    if flags & ~(_AT_EMPTY_PATH | _AT_SYMLINK_NOFOLLOW):
        return -errno.EINVAL
    if not name and flags & _AT_EMPTY_PATH:
        name = b"/proc/self/fd/%d" % directory
    words = _strings(process, arguments)
    if name.startswith(b"/"):
        return execute(process, find_executable(name, words), _strings(process, environment))
    return execute(process, find_executable(name, words, directory), _strings(process, environment))


def _strings(process: Process, address: int) -> tuple[bytes, ...]:
    """A NULL-terminated array of strings; NULL is an empty one. Raises GuestFault or OSError(E2BIG)."""
    pages = _Pages(process.memory)
    result: list[bytes] = []
    while address:
        pointer = int.from_bytes(pages.read(address + 8 * len(result), 8), "little")
        if not pointer:
            break
        result.append(pages.string(pointer))
        if len(result) > _MAXIMUM_STRINGS:
            raise _too_big()
    return tuple(result)


class _Pages:
    """Guest memory that is read in many small pieces: each page is copied once."""

    def __init__(self, memory: FlatMemory) -> None:
        self._memory = memory
        self._pages: dict[int, bytes] = {}

    def _page(self, address: int) -> bytes:
        number = address // PAGE_SIZE
        if number not in self._pages:
            self._pages[number] = self._memory.read(number * PAGE_SIZE, PAGE_SIZE)
        return self._pages[number]

    def read(self, address: int, length: int) -> bytes:
        start = address % PAGE_SIZE
        piece = self._page(address)[start : start + length]
        return piece if len(piece) == length else piece + self.read(address + len(piece), length - len(piece))

    def string(self, address: int) -> bytes:
        pieces: list[bytes] = []
        while sum(map(len, pieces)) <= MAXIMUM_STRING:
            piece, zero, _ = self._page(address)[address % PAGE_SIZE :].partition(b"\0")
            pieces.append(piece)
            if zero:
                return b"".join(pieces)
            address += len(piece)
        raise _too_big()


def _too_big() -> OSError:
    return OSError(errno.E2BIG, os.strerror(errno.E2BIG))


def execute(process: Process, program: Executable, environment: tuple[bytes, ...]) -> int:
    """Become `program`. Returns a negative errno, raises OSError, or raises RegistersReplaced on success."""
    try:
        if not has_isa(program.fd, process.abi.isa):
            return _execute_on_host(process, program, environment)
        stack_limit = process.limits[RLIMIT_STACK][0]
        image = load_image(
            process.abi, program.fd, program.path, program.name, program.arguments, environment, stack_limit
        )
    except ElfError:
        return -errno.ENOEXEC
    finally:
        os.close(program.fd)
    process.threads.end_others(process.memory)
    process.signals.reset_for_exec()
    process.release()
    _close_on_exec(_own_descriptors(process))
    process.adopt(image)
    if process.debugger is not None:
        process.debugger.executed()
    if process.recording is not None:
        process.recording.begin()
    name = program.path if program.name.startswith(b"/proc/self/fd/") else program.name
    process.threads.become_first(lambda: set_command_name(name))
    raise RegistersReplaced


def set_command_name(path: bytes) -> None:
    """Show the program's name in ps(1) and top(1)."""
    name = ctypes.create_string_buffer(os.path.basename(path)[:15])
    host.named("prctl", _PR_SET_NAME, ctypes.addressof(name), 0, 0, 0)


def _execute_on_host(process: Process, program: Executable, environment: tuple[bytes, ...]) -> int:
    """Let the host's kernel run what is not of the guest's ISA."""
    words, variables = _pointers(program.arguments), _pointers(environment)
    path = ctypes.create_string_buffer(program.path)
    addresses = (ctypes.addressof(part) for part in (path, words, variables))
    if process.recording is not None:
        process.recording.save()
    gate = process.on_release if isinstance(process.on_release, _Gate) else None
    if gate is not None:
        gate.tell(executing=True)
    with process.signals.true_mask():
        result = host.call(HOST["execve"], *addresses)
    if gate is not None:
        gate.tell(executing=False)
    return result


def _pointers(strings: tuple[bytes, ...]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * (len(strings) + 1))(*strings, None)


def _own_descriptors(process: Process) -> set[int]:
    """What is open for the emulator and must stay so."""
    own = set() if process.recording is None else set(process.recording.descriptors)
    if process.debugger is not None and process.debugger.descriptor is not None:
        own.add(process.debugger.descriptor)
    return own


def _close_on_exec(kept: set[int]) -> None:
    """Close what a program must not inherit, except for descriptors of our own."""
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd in kept:
            continue
        flags = host.call(HOST["fcntl"], fd, 1, 0)  # F_GETFD
        if flags > 0 and flags & 1:
            os.close(fd)


# Ending -------------------------------------------------------------------------------------------------


@system_call("exit_group", "int")
def exit_group(process: Process, status: int) -> NoReturn:
    """End the process with all of its threads"""
    process.exit(status)
