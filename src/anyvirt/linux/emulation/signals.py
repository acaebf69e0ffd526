"""Signals: what the guest asked for, what has arrived, and which handler runs next.

The host's kernel remains the judge: the guest's mask is the host thread's mask, and the default and
"ignore" actions are the host's own, so a guest that is killed by a signal is truly killed by it. Only a
signal with a guest handler has a host handler, which notes it down and interrupts the virtual CPU; the
guest's handler then starts between two guest instructions. SIGSEGV and SIGBUS are never blocked in the
host, because the CPU core learns of memory faults through them.

A signal comes to the thread that the host's kernel has chosen, as guest threads are threads of the host. What
threads of a process share is its actions.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal as names
import struct
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from anyvirt.cpu import signals as native
from anyvirt.cpu.host import host as native_host
from anyvirt.cpu.memory import GuestFault
from anyvirt.jit.host_layout import Data
from anyvirt.linux.emulation import frames, host
from anyvirt.linux.emulation.host import HOST
from anyvirt.linux.emulation.signal_types import (
    INFO_SIZE,
    MASK_SIZE,
    SI_TKILL,
    SI_USER,
    SIG_DFL,
    SIG_IGN,
    SS_AUTODISARM,
    SS_DISABLE,
    SS_ONSTACK,
    STACK,
    Action,
    ActionFlags,
    AlternateStack,
    Pending,
    bit,
    make_info,
    stack_bytes,
)
from anyvirt.linux.emulation.table import RegistersReplaced, system_call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anyvirt.linux.emulation.debugger import Debugger
    from anyvirt.linux.emulation.process import Process

SIGNAL_COUNT = 64
_MASK = struct.Struct("<Q")
_ACTION = struct.Struct("<QQQ")
_HOST_ACTION = struct.Struct("<QQQQ")
_MINIMUM_ALTERNATE = 2048
_SIG_BLOCK, _SIG_UNBLOCK, _SIG_SETMASK = 0, 1, 2
_RT_SIGACTION = HOST["rt_sigaction"]
_RT_SIGPROCMASK = HOST["rt_sigprocmask"]


_UNBLOCKABLE = bit(names.SIGKILL) | bit(names.SIGSTOP)
WAKE_SIGNAL = 64
"""The host's signal that wakes a guest for the emulator's sake. The guest does not see it.

Under a debugger it tells of bytes that arrive from there, with several threads (and `si_code`) of their end.
"""
WAKE_CODE = -0x5741
"""Its `si_code` between threads: none that anybody else uses."""
_NOT_DEADLY = frozenset(
    {
        names.SIGKILL, names.SIGSTOP, names.SIGTSTP, names.SIGTTIN, names.SIGTTOU, names.SIGCONT,
        names.SIGCHLD, names.SIGURG, names.SIGWINCH, 32, 33,
    }
)  # fmt: skip
"""Signals that do not end a process that has no handler for them, or that cannot be intercepted: the last two
are the host's C library's own."""
_FAULTS = (names.SIGSEGV, names.SIGBUS)
_reserved: set[int] = set()
"""Signals of the host that the emulator itself waits for at present."""
_FAULT_BITS = bit(names.SIGSEGV) | bit(names.SIGBUS)
_EVERYTHING = (1 << SIGNAL_COUNT) - 1 & ~(_FAULT_BITS | _UNBLOCKABLE)
_SYNCHRONOUS = _FAULT_BITS | bit(names.SIGILL) | bit(names.SIGFPE) | bit(names.SIGTRAP) | bit(names.SIGSYS)


def host_mask(mask: int) -> int:
    """A guest's set of blocked signals as the host's thread may block them."""
    return mask & ~(_FAULT_BITS | _UNBLOCKABLE | sum(map(bit, _reserved)))


def reserve_wake_signal(signals: SignalState) -> None:
    """Let WAKE_SIGNAL come through to the threads of the process; the first is the caller's."""
    if WAKE_SIGNAL not in _reserved:
        _reserved.add(WAKE_SIGNAL)
        native.install(WAKE_SIGNAL)
        signals.set_blocked(signals.blocked)


class SignalState:
    """Mask, alternate stack and arrived signals of one guest thread, and the actions of its process."""

    def __init__(self) -> None:
        self.thread: int | None = None
        """The number of the thread whose signals these are."""
        self.actions = [Action()] * (SIGNAL_COUNT + 1)
        self.blocked = 0
        self.alternate = AlternateStack()
        self.queue: list[Pending] = []
        self.temporary: int | None = None
        """The mask of a system call that waits with a mask of its own."""
        self.only_woken = False
        """What was collected last was nothing but WAKE_SIGNAL: for the guest nothing has happened."""
        self._debugger: Debugger | None = None
        self._on_death: Callable[[], None] | None = None
        self._noted = native_host().word(Data.RING_HEAD)
        self._collected = self._noted.value

    def for_thread(self) -> SignalState:
        """The state of a thread that begins: it has the same mask and actions, and no alternate stack."""
        state = SignalState()
        state.actions = self.actions
        state.blocked = self.blocked
        return state

    # Arrival --------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """Whether signals have arrived since they were last collected."""
        return self._noted.value != self._collected

    def collect(self) -> None:
        """Take over what the host's handlers noted down."""
        self.only_woken = False
        if self.waiting:
            self._collected = self._noted.value
            everything = native.drain(self.thread)
            arrived = [signal for signal in everything if not self._only_wakes(signal)]
            self.only_woken = bool(everything) and not arrived
            self.queue.extend(Pending(signal.number, signal.information) for signal in arrived)

    def _only_wakes(self, signal: native.ArrivedSignal) -> bool:
        return signal.number == WAKE_SIGNAL and (self._debugger is not None or signal.code == WAKE_CODE)

    def wait_with(self, mask: int) -> None:
        """Until the present system call and the handlers that interrupt it are over, `mask` is the mask."""
        self.temporary = mask & ~_UNBLOCKABLE
        if self.deliverable():
            raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))

    def deliverable(self) -> Pending | None:
        """The next arrived signal that is not blocked; faults come first, as in Linux."""
        mask = self.blocked if self.temporary is None else self.temporary
        ready = [pending for pending in self.queue if not mask & bit(pending.number)]
        return min(ready, key=_urgency, default=None)

    def restarts(self) -> bool:
        """Whether an interrupted, restartable call is to be made again: no handler speaks against it."""
        pending = self.deliverable()
        return pending is None or self._lets_restart(self.actions[pending.number])

    @staticmethod
    def _lets_restart(action: Action) -> bool:
        return not action.handled or bool(action.flags & ActionFlags.RESTART)

    # Delivery -------------------------------------------------------------------------------------------

    def deliver(self, process: Process) -> None:
        """Set the virtual CPU up for the handlers of all signals that have arrived and are not blocked."""
        self.collect()
        while (pending := self.deliverable()) is not None:
            self.queue.remove(pending)
            if self._debugger is not None:
                filtered = self._debugger.filter(pending)
                if filtered is None:
                    continue
                pending = filtered
            self._act(process, pending)
        self.temporary = None
        if self.queue:
            process.threads.hand_on_blocked()

    def force(self, process: Process, number: int, info: bytes) -> None:
        """Deliver a fault of the present instruction; a guest that blocks or ignores it is killed."""
        self.temporary = None
        if self._debugger is not None:
            filtered = self._debugger.filter(Pending(number, info))
            if filtered is None:
                return
            number, info = filtered.number, filtered.info
        action = self.actions[number]
        if self.blocked & bit(number) or not action.handled:
            self._die(number)
        self._act(process, Pending(number, info))

    def _act(self, process: Process, pending: Pending) -> None:
        number = pending.number
        action = self.actions[number]
        if action.handler == SIG_IGN:
            return
        if action.handler == SIG_DFL:
            if number in _FAULTS or number in _reserved or self._intercepts(number, action):
                self._die(number)
            host.named("kill", os.getpid(), number)
            return
        if action.flags & ActionFlags.RESETHAND:
            self.set_action(number, Action())
        saved = self.blocked
        mask = (saved if self.temporary is None else self.temporary) | action.mask
        if not action.flags & ActionFlags.NODEFER:
            mask |= bit(number)
        try:
            frames.push(process, action, number, pending.info, saved)
        except GuestFault:
            # The stack is exhausted. A handler of SIGSEGV itself cannot be called then.
            if number == names.SIGSEGV:
                self._die(number)
            self.temporary = None
            self.force(process, names.SIGSEGV, make_info(names.SIGSEGV, 0x80))
            return
        self.temporary = None
        self.set_blocked(mask)

    def _die(self, number: int) -> NoReturn:
        if self._debugger is not None:
            self._debugger.ended(number=number)
        if self._on_death is not None:
            self._on_death()
        die(number)

    def before_death(self, function: Callable[[], None] | None) -> None:
        """Have a function called before a signal ends the process, unless it is SIGKILL; None: no longer."""
        self._on_death = function
        self._renew_actions()

    def intercept(self, process: Process, debugger: Debugger | None) -> None:
        """Let a debugger decide about signals before they are delivered; None: no longer."""
        self._debugger = debugger
        if debugger is None:
            _reserved.discard(WAKE_SIGNAL)
        else:
            _reserved.add(WAKE_SIGNAL)
            native.install(WAKE_SIGNAL)
        self.set_blocked(self.blocked)
        self._renew_actions()

    def _renew_actions(self) -> None:
        """Have the host do on each signal what it should do now."""
        for number, action in enumerate(self.actions):
            if number and number not in (names.SIGKILL, names.SIGSTOP):
                self.set_action(number, action)

    # What the guest sets --------------------------------------------------------------------------------

    def set_blocked(self, mask: int) -> None:
        """Make `mask` the guest's and, as far as possible, the host's set of blocked signals."""
        self.blocked = mask & ~_UNBLOCKABLE
        content = ctypes.c_uint64(host_mask(mask))
        host.call(_RT_SIGPROCMASK, _SIG_SETMASK, ctypes.addressof(content), 0, MASK_SIZE)

    def set_action(self, number: int, action: Action) -> None:
        """Change what happens on a signal, in the host as well."""
        self.actions[number] = action
        if number in _FAULTS:
            return
        flags = action.flags & (ActionFlags.NOCLDSTOP | ActionFlags.NOCLDWAIT)
        if number in _reserved:
            return
        if action.handled or self._intercepts(number, action):
            native.install(number)
            if flags:
                native_action = native_host().action(number)
                native_action.flags |= flags
                native_host().replace_action(number, native_action)
        else:
            set_host_action(number, action.handler, flags)
        if action.handler == SIG_IGN:
            self.queue = [pending for pending in self.queue if pending.number != number]

    def _intercepts(self, number: int, action: Action) -> bool:
        """Whether a signal that would end the process is to arrive here instead."""
        is_watched = self._debugger is not None or self._on_death is not None
        return is_watched and action.handler == SIG_DFL and number not in _NOT_DEADLY

    def reset_for_exec(self) -> None:
        """execve(2): handlers become default actions; ignored signals and the mask stay."""
        for number, action in enumerate(self.actions):
            if action.handled:
                self.set_action(number, Action())
        self.alternate = AlternateStack()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Have the host keep all signals back meanwhile."""
        self._block_all()
        try:
            yield
        finally:
            self.set_blocked(self.blocked)

    def close(self) -> None:
        """The thread is about to end: it takes no more signals; those that have come are in the queue."""
        self._block_all()
        self.collect()

    def _block_all(self) -> None:
        content = ctypes.c_uint64(_EVERYTHING)
        host.call(_RT_SIGPROCMASK, _SIG_SETMASK, ctypes.addressof(content), 0, MASK_SIZE)

    def forget_arrived(self) -> None:
        """fork(2): the child begins without waiting signals."""
        native.drain()
        self._collected = self._noted.value
        self.queue.clear()

    @contextmanager
    def true_mask(self) -> Iterator[None]:
        """Block in the host exactly what the guest blocks: what a program of the host's ISA inherits."""
        content = ctypes.c_uint64(self.blocked)
        host.call(_RT_SIGPROCMASK, _SIG_SETMASK, ctypes.addressof(content), 0, MASK_SIZE)
        try:
            yield
        finally:
            self.set_blocked(self.blocked)

    def inherit(self) -> None:
        """Begin with what the host's process was started with, undoing what Python changed."""
        for number in (names.SIGPIPE, names.SIGXFSZ):
            set_host_action(number, SIG_DFL, 0)
        if host_handler(names.SIGINT) != SIG_IGN:
            set_host_action(names.SIGINT, SIG_DFL, 0)
        for any_number in range(1, SIGNAL_COUNT + 1):
            if host_handler(any_number) == SIG_IGN:
                self.actions[any_number] = Action(SIG_IGN)
        content = ctypes.c_uint64()
        host.call(_RT_SIGPROCMASK, _SIG_BLOCK, 0, ctypes.addressof(content), MASK_SIZE)
        self.set_blocked(content.value)


def _urgency(pending: Pending) -> tuple[bool, int]:
    return (not bit(pending.number) & _SYNCHRONOUS, pending.number)


def set_host_action(number: int, handler: int, flags: int) -> None:
    """Make the default action or "ignore" what the host does on a signal."""
    content = ctypes.create_string_buffer(_HOST_ACTION.pack(handler, flags, 0, 0), _HOST_ACTION.size)
    host.call(_RT_SIGACTION, number, ctypes.addressof(content), 0, MASK_SIZE)


def host_handler(number: int) -> int:
    """The address of the host's handler of a signal, SIG_DFL or SIG_IGN."""
    buffer = ctypes.create_string_buffer(_HOST_ACTION.size)
    host.call(_RT_SIGACTION, number, 0, ctypes.addressof(buffer), MASK_SIZE)
    return int(_HOST_ACTION.unpack(buffer)[0])


def die(number: int) -> NoReturn:
    """End this process by signal `number`, so that whoever waits for it sees the truth."""
    import resource

    # The core that could be dumped would be the emulator's, and huge.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    set_host_action(number, SIG_DFL, 0)
    content = ctypes.c_uint64(bit(number))
    host.call(_RT_SIGPROCMASK, _SIG_UNBLOCK, ctypes.addressof(content), 0, MASK_SIZE)
    # Another thread of the process might take its time.
    host.named("tgkill", os.getpid(), host.named("gettid"), number)
    # Only the first process of a PID namespace survives that.
    os._exit(128 + number)


# System calls -------------------------------------------------------------------------------------------


def _check_size(size: int) -> None:
    if size != MASK_SIZE:
        raise OSError(errno.EINVAL, "wrong size of a signal set")


def _read_mask(process: Process, address: int) -> int:
    (mask,) = _MASK.unpack(process.memory.read(address, MASK_SIZE))
    return int(mask)


@system_call("rt_sigaction", "signal pointer pointer size")
def rt_sigaction(process: Process, number: int, new: int, old: int, size: int) -> int:
    """Set what happens on a signal"""
    _check_size(size)
    if not 1 <= number <= SIGNAL_COUNT:
        return -errno.EINVAL
    if new and number in (names.SIGKILL, names.SIGSTOP):
        return -errno.EINVAL
    before = process.signals.actions[number]
    action = None
    if new:
        handler, flags, mask = _ACTION.unpack(process.memory.read(new, _ACTION.size))
        action = Action(handler, flags, mask & ~_UNBLOCKABLE)
    if old:
        process.memory.write(old, _ACTION.pack(before.handler, before.flags, before.mask))
    if action is not None:
        process.signals.set_action(number, action)
    return 0


@system_call("rt_sigprocmask", "int pointer pointer size")
def rt_sigprocmask(process: Process, how: int, new: int, old: int, size: int) -> int:
    """Change the set of blocked signals"""
    _check_size(size)
    signals = process.signals
    before = signals.blocked
    if new:
        mask = _read_mask(process, new)
        if how == _SIG_BLOCK:
            mask |= before
        elif how == _SIG_UNBLOCK:
            mask = before & ~mask
        elif how != _SIG_SETMASK:
            return -errno.EINVAL
        if old:
            process.memory.write(old, _MASK.pack(before))
        signals.set_blocked(mask)
    elif old:
        process.memory.write(old, _MASK.pack(before))
    return 0


def _send(process: Process, call: str, number: int, code: int, *targets: int) -> int:
    """Send a signal; one for ourselves that has no host handler goes straight to the queue."""
    if number in _FAULTS:
        thread = process.threads.find(targets[-1])
        if code == SI_USER and targets[-1] == os.getpid():
            thread = process.thread
        if thread is not None and targets[0] in (os.getpid(), thread.number):
            info = struct.pack("<iii4xiI", number, 0, code, os.getpid(), os.getuid()).ljust(INFO_SIZE, b"\0")
            thread.receive(Pending(number, info))
            return 0
    return host.named(call, *targets, number)


@system_call("kill", "int signal")
def kill(process: Process, pid: int, number: int) -> int:
    """Send a signal to processes"""
    return _send(process, "kill", number, SI_USER, pid)


@system_call("tkill", "int signal")
def tkill(process: Process, thread: int, number: int) -> int:
    """Send a signal to a thread"""
    return _send(process, "tkill", number, SI_TKILL, thread)


@system_call("tgkill", "int int signal")
def tgkill(process: Process, group: int, thread: int, number: int) -> int:
    """Send a signal to a thread of a process"""
    return _send(process, "tgkill", number, SI_TKILL, group, thread)


@system_call("rt_sigpending", "pointer size")
def rt_sigpending(process: Process, buffer: int, size: int) -> int:
    """The set of signals that wait to be unblocked"""
    if size > MASK_SIZE:
        return -errno.EINVAL
    content = ctypes.c_uint64()
    result = host.named("rt_sigpending", ctypes.addressof(content), MASK_SIZE)
    waiting = content.value
    for pending in process.signals.queue:
        waiting |= bit(pending.number) & process.signals.blocked
    process.memory.write(buffer, _MASK.pack(waiting)[:size])
    return result


@system_call("rt_sigsuspend", "pointer size")
def rt_sigsuspend(process: Process, mask: int, size: int) -> int:
    """Wait for a signal with a temporary mask"""
    _check_size(size)
    wanted = _read_mask(process, mask)
    process.signals.wait_with(wanted)
    content = ctypes.c_uint64(host_mask(wanted))
    return process.blocking_call("rt_sigsuspend", ctypes.addressof(content), MASK_SIZE)


@system_call("rt_sigtimedwait", "pointer pointer pointer size")
def rt_sigtimedwait(process: Process, mask: int, info: int, timeout: int, size: int) -> int:
    """Take a blocked signal instead of having its handler called"""
    _check_size(size)
    wanted = _read_mask(process, mask)
    signals = process.signals
    for pending in signals.queue:
        if wanted & bit(pending.number):
            signals.queue.remove(pending)
            if info:
                process.memory.write(info, pending.info)
            return pending.number
    content = ctypes.c_uint64(host_mask(wanted))
    return process.blocking_call(
        "rt_sigtimedwait",
        ctypes.addressof(content),
        process.pointer(info, INFO_SIZE),
        process.pointer(timeout, 16),
        MASK_SIZE,
    )


@system_call("sigaltstack", "pointer pointer")
def sigaltstack(process: Process, new: int, old: int) -> int:
    """Set the stack for handlers with SA_ONSTACK"""
    signals = process.signals
    present = signals.alternate
    inside = process.stack_pointer in present
    wanted = None
    if new:
        address, flags, size = STACK.unpack(process.memory.read(new, STACK.size))
        wanted = _alternate_stack(address, flags & 0xFFFF_FFFF, size)
    if old:
        shown = present.flags | (SS_ONSTACK if inside else 0)
        process.memory.write(old, stack_bytes(replace(present, flags=shown)))
    if wanted is None:
        return 0
    if inside:
        return -errno.EPERM
    signals.alternate = wanted
    return 0


def _alternate_stack(address: int, flags: int, size: int) -> AlternateStack:
    mode = flags & ~SS_AUTODISARM
    if mode not in (0, SS_ONSTACK, SS_DISABLE):
        raise OSError(errno.EINVAL, "unknown flags of an alternate stack")
    if mode == SS_DISABLE:
        return AlternateStack()
    if size < _MINIMUM_ALTERNATE:
        raise OSError(errno.ENOMEM, "too small an alternate stack")
    return AlternateStack(address, size, flags & SS_AUTODISARM)


@system_call("rt_sigreturn")
def rt_sigreturn(process: Process) -> int:
    """Return from a signal handler"""
    try:
        mask, alternate = frames.pop(process)
    except GuestFault:
        process.signals.force(process, names.SIGSEGV, make_info(names.SIGSEGV, 0x80))
        raise RegistersReplaced from None
    if alternate is not None:
        process.signals.alternate = alternate
    process.signals.set_blocked(mask)
    raise RegistersReplaced
