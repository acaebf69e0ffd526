"""A guest in the foreground of a shell: terminal, window size, raw mode and signals pass through.

A guest that can use the caller's terminal as it is gets it. One that lives in a world of its own gets a
pseudo-terminal there, and this file carries bytes between the two while the caller's terminal is in raw mode,
so that Ctrl-C and Ctrl-Z are the guest's keys like any other.
"""

from __future__ import annotations

import os
import select
import signal as signals
import termios
import threading
import time
import tty
from collections import deque
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyvirt.instance import ExitStatus, Streams, TerminalSize, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from anyvirt.engines.engine import Engine
    from anyvirt.guest import Guest
    from anyvirt.instance import Instance

_FORWARDED = (
    signals.SIGHUP,
    signals.SIGINT,
    signals.SIGQUIT,
    signals.SIGTERM,
    signals.SIGUSR1,
    signals.SIGUSR2,
    signals.SIGALRM,
)
_KEYBOARD = (signals.SIGINT, signals.SIGQUIT)
_SENT_BY_KERNEL = 0x80  # SI_KERNEL of <asm-generic/siginfo.h>: a keyboard signal, not kill(2)
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Outcome:
    """How a guest in the foreground ended, and what it used."""

    status: ExitStatus
    seconds: float
    usage: Usage
    out_of_memory_kills: int
    start: Sequence[tuple[str, float]] = ()
    """What the start consisted of, and the seconds it took, where the engine says so."""
    instructions: int | None = None
    """How many were executed, where they were counted."""


def run_in_foreground(engine: Engine, guest: Guest, timeout: float | None = None) -> Outcome:
    """Run `guest` to its end on the caller's streams. GuestTimeoutError after `timeout` seconds."""
    own_terminal = not engine.joins_terminal and guest.seed is None and all(os.isatty(fd) for fd in (0, 1, 2))
    with ExitStack() as stack:
        early = stack.enter_context(_signals_kept())
        began = time.monotonic()
        instance = stack.enter_context(
            engine.start(guest, Streams(), _window_size() if own_terminal else None)
        )
        if instance.terminal is not None:
            watcher = _Watcher(instance, timeout)
            _carry_terminal(instance, instance.terminal, watcher, early)
        else:
            with _signals_blocked() as numbers:
                # Its thread has to start with the signals blocked, or it could take one from the main thread.
                watcher = _Watcher(instance, timeout)
                while early:
                    _deliver(instance, early.popleft())
                _forward_signals(instance, watcher, numbers)
        status = watcher.result()
        seconds = time.monotonic() - began
        return Outcome(
            status,
            seconds,
            instance.usage(),
            instance.out_of_memory_kills,
            instance.start_phases,
            instance.instructions,
        )


class _Watcher:
    """A thread that waits for the guest, and kills it when its time is up."""

    def __init__(self, instance: Instance, timeout: float | None) -> None:
        self._instance = instance
        self._timeout = timeout
        self._status: ExitStatus | None = None
        self._error: Exception | None = None
        self._waiter = threading.get_ident()
        self.finished, self._announce = os.pipe()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        return self._status is not None or self._error is not None

    def result(self) -> ExitStatus:
        self._thread.join()
        os.close(self.finished)
        if self._error is not None:
            raise self._error
        assert self._status is not None
        return self._status

    def _watch(self) -> None:
        try:
            self._status = self._wait()
        except Exception as error:
            self._error = error
        os.close(self._announce)
        # The main thread sits in sigwaitinfo or select: this ends both.
        signals.pthread_kill(self._waiter, signals.SIGCHLD)

    def _wait(self) -> ExitStatus:
        try:
            return self._instance.wait(self._timeout)
        except TimeoutError:
            raise self._instance.kill_late(self._timeout or 0.0) from None


@contextmanager
def _signals_kept() -> Iterator[deque[int]]:
    """While the guest starts, and in raw mode, note signals in a queue instead of dying of them."""
    kept: deque[int] = deque()

    def keep(number: int, _frame: FrameType | None) -> None:
        kept.append(number)

    numbers = (*_caught(), signals.SIGCHLD, signals.SIGWINCH)
    before = {number: signals.signal(number, keep) for number in numbers}
    try:
        yield kept
    finally:
        for number, handler in before.items():
            signals.signal(number, handler)


@contextmanager
def _signals_blocked() -> Iterator[set[int]]:
    """Hold back, for this thread and those it starts, the signals that are passed on and that of the end."""
    numbers: set[int] = {*_caught(), signals.SIGCHLD}
    signals.pthread_sigmask(signals.SIG_BLOCK, numbers)
    try:
        yield numbers
    finally:
        signals.pthread_sigmask(signals.SIG_UNBLOCK, numbers)


def _caught() -> set[int]:
    """The signals to pass on: one that the caller had us ignore, as nohup(1) does, stays ignored."""
    return {number for number in _FORWARDED if signals.getsignal(number) is not signals.SIG_IGN}


def _forward_signals(instance: Instance, watcher: _Watcher, numbers: set[int]) -> None:
    """Pass signals on until the guest has ended; keyboard signals that reach it anyway are not sent twice."""
    while not watcher.done:
        received = signals.sigwaitinfo(numbers)
        number = received.si_signo
        typed = number in _KEYBOARD and received.si_code == _SENT_BY_KERNEL
        if number != signals.SIGCHLD and not (typed and instance.in_foreground):
            instance.signal(number)


def _carry_terminal(instance: Instance, line: int, watcher: _Watcher, pending: deque[int]) -> None:
    """Carry between the caller's terminal, in raw mode, and the guest's until the guest has ended."""
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    previous = signals.set_wakeup_fd(waker, warn_on_full_buffer=False)
    try:
        with _raw_mode(0):
            _carry(instance, line, watcher, pending, wake)
    finally:
        signals.set_wakeup_fd(previous)
        os.close(wake)
        os.close(waker)


def _carry(instance: Instance, line: int, watcher: _Watcher, pending: deque[int], wake: int) -> None:
    sources = {0, line, wake, watcher.finished}
    while True:
        ready, _, _ = select.select(sources, (), ())
        if wake in ready:
            os.read(wake, _CHUNK)
        while pending:
            _deliver(instance, pending.popleft())
        if line in ready and not _copy(line, 1):
            sources.discard(line)
        if 0 in ready and not _copy(0, line):
            sources.discard(0)
        if watcher.finished in ready:
            _drain(line)
            return


def _deliver(instance: Instance, number: int) -> None:
    if number == signals.SIGWINCH:
        instance.resize(_window_size())
    elif number != signals.SIGCHLD:
        instance.signal(number)


def _copy(source: int, target: int) -> bool:
    """Copy what is there; False at the end of either side (a terminal without its other side gives EIO)."""
    try:
        data = os.read(source, _CHUNK)
        if not data:
            return False
        while data:
            data = data[os.write(target, data) :]
    except OSError:
        return False
    return True


def _drain(line: int) -> None:
    """Show what the guest had written when it ended."""
    while select.select((line,), (), (), 0)[0] and _copy(line, 1):
        pass


@contextmanager
def _raw_mode(fd: int) -> Iterator[None]:
    before = termios.tcgetattr(fd)
    tty.setraw(fd)
    try:
        yield
    finally:
        with suppress(termios.error):
            termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _window_size() -> TerminalSize:
    rows, columns = termios.tcgetwinsize(0)
    return TerminalSize(rows or 24, columns or 80)
