"""Guest threads: what each has of its own, and how those of a process begin, end and follow one another.

A guest thread is a thread of the host, whose number it has, with a virtual CPU in the memory that all share.
Guest code runs without Python's lock and so do system calls that block; everything else of the emulator is
under it. A thread ends where its run loop asks whether it should: to get there it is woken by a signal that
guests do not see.
"""

from __future__ import annotations

import _thread
import errno
import os
import struct
import threading
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING

from anyvirt.cpu.memory import GuestFault
from anyvirt.errors import UnsupportedError
from anyvirt.linux.emulation import host, robust
from anyvirt.linux.emulation.signal_types import INFO_SIZE, bit
from anyvirt.linux.emulation.signals import WAKE_CODE, WAKE_SIGNAL, SignalState, reserve_wake_signal

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.cpu.interpreter import Interpreter
    from anyvirt.cpu.memory import FlatMemory
    from anyvirt.linux.emulation.signal_types import Pending

_HOST_STACK = 1 << 20
"""Bytes of a host thread's stack: Python's, for the guest's is in the guest's memory."""
_FUTEX_WAKE = 1


class ThreadEnded(Exception):
    """The guest thread that the host's thread has run so far is no more."""


class Thread:
    """One guest thread."""

    cpu: Interpreter

    def __init__(self, signals: SignalState) -> None:
        self.signals = signals
        self.number = 0
        """Its number in guest and host; 0 before it has begun."""
        self.clear_number_at = 0
        """Where the guest wants its number cleared at its end (set_tid_address(2)), or 0."""
        self.robust_list = 0
        self.is_ending = False
        """Another thread wants it to end."""

    def settle(self) -> None:
        """Be the guest thread of the host's thread that calls this."""
        self.number = self.signals.thread = host.named("gettid")
        self.cpu.belong_to(self.number)

    def replace_cpu(self, cpu: Interpreter) -> None:
        """Go on with another virtual CPU; what belonged to the old memory is void."""
        self.cpu = cpu
        self.clear_number_at = self.robust_list = 0
        self.settle()

    def receive(self, pending: Pending) -> None:
        """Have a signal delivered that the host's kernel knows nothing of; any thread may call this."""
        self.signals.queue.append(pending)
        self.wake()

    def wake(self) -> None:
        """Have it come to its run loop soon, out of guest code or of a system call that blocks."""
        self.cpu.interrupt()
        if self.number and self.number != host.named("gettid"):
            pid = os.getpid()
            content = struct.pack("<iii4xiI", WAKE_SIGNAL, 0, WAKE_CODE, pid, os.getuid())
            host.named_with(
                "rt_tgsigqueueinfo", content.ljust(INFO_SIZE, b"\0"), pid, self.number, WAKE_SIGNAL
            )

    def release(self, memory: FlatMemory) -> None:
        """Release the futexes that it holds, and tell who waits for its end."""
        robust.release(memory, self.robust_list, self.number)
        if self.clear_number_at:
            with suppress(GuestFault):
                memory.write(self.clear_number_at, bytes(4))
                host.named("futex", memory.host_address(self.clear_number_at), _FUTEX_WAKE, 1, 0, 0, 0)


class _Current(threading.local):
    thread: Thread


class ThreadGroup:
    """The threads of one guest process."""

    run: Callable[[], object]
    """Runs the calling host thread's guest thread, until it raises ThreadEnded."""

    def __init__(self) -> None:
        """One thread, which the calling thread of the host is to run."""
        self._current = _Current()
        self._current.thread = Thread(SignalState())
        self._members = {self.current}
        self._changed = threading.Condition()
        self._heir: tuple[Thread, Callable[[], None]] | None = None
        """The guest thread that the first thread of the host is to go on with, and what to do before."""

    @property
    def current(self) -> Thread:
        """The guest thread that the calling thread of the host runs."""
        return self._current.thread

    @property
    def members(self) -> list[Thread]:
        """All that have not ended."""
        with self._changed:
            return list(self._members)

    def find(self, number: int) -> Thread | None:
        """The thread with a number."""
        return next((thread for thread in self.members if thread.number == number), None)

    # Beginning ------------------------------------------------------------------------------------------

    def begin(self, prepare: Callable[[Thread], None]) -> int:
        """Begin a thread that goes on where the current one is; its number.

        `prepare` changes its registers and stores its number, in the new thread of the host, before it runs.
        Raises OSError(EAGAIN) if there cannot be another one.
        """
        parent = self.current
        reserve_wake_signal(parent.signals)
        thread = Thread(parent.signals.for_thread())
        try:
            thread.cpu = parent.cpu.twin()
        except UnsupportedError as error:
            raise OSError(errno.EAGAIN, str(error)) from error
        self._join(parent, thread)
        ready = threading.Event()
        # Its first signal is to find it with a mask of its own.
        with parent.signals.held():
            try:
                threading.stack_size(_HOST_STACK)
                # An object of `threading` would have this thread wait twice for the other one.
                _thread.start_new_thread(self._begin, (thread, prepare, ready))
            except (RuntimeError, MemoryError) as error:
                self._part(thread)
                raise OSError(errno.EAGAIN, str(error)) from error
            ready.wait()
        return thread.number

    def _begin(self, thread: Thread, prepare: Callable[[Thread], None], ready: threading.Event) -> None:
        """The life of a host thread."""
        try:
            self._current.thread = thread
            thread.settle()
            prepare(thread)
            ready.set()
            thread.signals.set_blocked(thread.signals.blocked)
            # Nobody but the group and this host thread's own storage needs it any more.
            del thread
            self.serve()
        except BaseException:
            # As in the first thread: a mistake of the emulator's ends it.
            traceback.print_exc()
            os._exit(1)

    def serve(self) -> None:
        """Run guest threads in the calling thread of the host; comes back when there are no more for it."""
        while True:
            with suppress(ThreadEnded):
                self.run()
            if host.named("gettid") != os.getpid():
                return
            self._inherit()

    def _join(self, parent: Thread, thread: Thread) -> None:
        with self._changed:
            if parent.is_ending:
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            self._members.add(thread)

    def _part(self, thread: Thread) -> bool:
        """Take a thread out of the group; whether it was the last one."""
        with self._changed:
            self._members.discard(thread)
            self._changed.notify_all()
            return not self._members

    # Ending ---------------------------------------------------------------------------------------------

    def end_if_wanted(self, memory: FlatMemory) -> None:
        """Raise ThreadEnded if another thread wants the current one to end."""
        if self.current.is_ending:
            self._depart(memory)
            raise ThreadEnded

    def leave(self, memory: FlatMemory) -> None:
        """End the current thread: raises ThreadEnded, or returns if it was the last one of the process."""
        if not self._depart(memory):
            raise ThreadEnded

    def _depart(self, memory: FlatMemory) -> bool:
        thread = self.current
        others = [other for other in self.members if other is not thread]
        if others:
            thread.signals.close()
            for pending in thread.signals.queue:
                self._hand_on(pending, others)
            thread.signals.queue.clear()
        thread.release(memory)
        return self._part(thread)

    def end_others(self, memory: FlatMemory) -> None:
        """Have all threads but the current one end, and wait until they have.

        Raises ThreadEnded if another one has begun with that first.
        """
        thread = self.current
        with self._changed:
            others = [other for other in self._members if other is not thread]
            if not thread.is_ending:
                for other in others:
                    other.is_ending = True
        self.end_if_wanted(memory)
        for other in others:
            other.wake()
        with self._changed:
            self._changed.wait_for(lambda: len(self._members) == 1)

    def release_all(self, memory: FlatMemory) -> None:
        """The process ends, and all that hold futexes with it."""
        for thread in self.members:
            robust.release(memory, thread.robust_list, thread.number)

    # Following one another ------------------------------------------------------------------------------

    def become_first(self, then: Callable[[], None]) -> None:
        """Go on as the process's first thread, the only one that is left after execve(2); `then` is called.

        If the first thread of the host runs another one, that goes on instead: raises ThreadEnded.
        """
        thread = self.current
        if thread.number == os.getpid():
            then()
            return
        thread.signals.close()
        with self._changed:
            self._heir = (thread, then)
            self._changed.notify_all()
        raise ThreadEnded

    def _inherit(self) -> None:
        """The first thread of the host outlives its guest thread: it may have to go on with another one."""
        self.current.signals.close()
        with self._changed:
            self._changed.wait_for(lambda: self._heir is not None)
            assert self._heir is not None
            (thread, then), self._heir = self._heir, None
        self._current.thread = thread
        thread.settle()
        thread.signals.set_blocked(thread.signals.blocked)
        then()

    def leave_others(self) -> None:
        """In a forked child: the current thread is the only one there is."""
        thread = self.current
        self._members = {thread}
        self._changed = threading.Condition()
        self._heir = None
        thread.is_ending = False
        thread.clear_number_at = thread.robust_list = 0
        thread.settle()

    # Signals that came to one of several ----------------------------------------------------------------

    def hand_on_blocked(self) -> None:
        """Let another thread have what came to the process and is blocked in the current one by now."""
        thread = self.current
        others = [other for other in self.members if other is not thread]
        if not others:
            return
        for pending in list(thread.signals.queue):
            if thread.signals.blocked & bit(pending.number) and self._hand_on(pending, others, forced=False):
                thread.signals.queue.remove(pending)

    @staticmethod
    def _hand_on(pending: Pending, others: list[Thread], *, forced: bool = True) -> bool:
        """Give a signal of the process to a thread that does not block it, if need be to any; whether."""
        if pending.is_for_thread:
            return False
        ready = [other for other in others if not other.signals.blocked & bit(pending.number)]
        for taker in (ready or others if forced else ready)[:1]:
            taker.receive(pending)
            return True
        return False
