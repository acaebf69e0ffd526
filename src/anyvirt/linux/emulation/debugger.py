"""A guest process under gdb: it stops for gdb between instructions, before signals, at execve and at its end.

The run loop asks `advance` instead of the CPU for the next stop that concerns Linux; while gdb has the guest,
`advance` does not come back. What gdb sends while the guest runs is a signal of the host for this process, so
that compiled code and blocking system calls end for it.
"""

from __future__ import annotations

import fcntl
import os
import signal as names
import sys
from typing import TYPE_CHECKING

from anyvirt.cpu.executor import StopReason
from anyvirt.debug.connection import Address, Listener
from anyvirt.debug.executor import CpuPoints, peek, poke
from anyvirt.debug.registers import describe, read_place, write_place
from anyvirt.debug.session import Arrival, Departure, Session
from anyvirt.debug.target import Ended, Object, PointKind, Resume, Stopped
from anyvirt.jit.ahead import instruction_set
from anyvirt.linux.emulation.signal_types import Pending, make_info
from anyvirt.linux.emulation.signals import WAKE_SIGNAL, die

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyvirt.cpu.executor import Stop
    from anyvirt.debug.connection import Connection
    from anyvirt.linux.emulation.process import Process

_F_SETSIG, _O_ASYNC = 10, 0x2000
"""Of Linux' fcntl.h; Python's module has no names for them."""
_SI_USER = 0


def wait_for_debugger(process: Process, address: str) -> None:
    """Wait for gdb and let it have the guest before its first instruction. Raises UsageError."""
    listener = Listener(Address.parse(address))
    print(f"anyvirt: waiting for gdb at {listener.address}", file=sys.stderr, flush=True)
    process.debugger = Debugger(process, listener.accept())


class Debugger:
    """One guest process as a target for gdb: a `DebugTarget` with one thread, numbered as the process."""

    attached = False
    keeps_history = False

    def __init__(self, process: Process, connection: Connection) -> None:
        self.description = describe(instruction_set(process.abi.isa))
        self._process = process
        connection.move_out_of_the_way()
        self._connection: Connection | None = connection
        self._session = Session(connection, self)
        self._points = CpuPoints(process.cpu)
        self._resume = Resume()
        self._event: Stopped | None = self._stopped()
        """What gdb is to be told before the guest goes on."""
        self._session.report(self._event, silently=True)
        self._told = True
        self._injected: int | None = None
        """The signal that gdb has decided about already."""
        process.signals.intercept(process, self)

    # The target -----------------------------------------------------------------------------------------

    @property
    def objects(self) -> Mapping[Object, bytes]:
        """The auxiliary vector and the path of the program."""
        image = self._process.image
        return {Object.AUXILIARY_VECTOR: image.auxiliary, Object.EXECUTABLE: image.path}

    def threads(self) -> Sequence[int]:
        """The one there is."""
        return (os.getpid(),)

    def thread_name(self, _thread: int) -> str:
        """The program's name."""
        return os.fsdecode(os.path.basename(self._process.image.path))

    def read_register(self, _thread: int, number: int) -> int:
        """See DebugTarget."""
        return read_place(self._process.cpu, self.description.registers[number].place)

    def write_register(self, _thread: int, number: int, value: int) -> None:
        """See DebugTarget."""
        write_place(self._process.cpu, self.description.registers[number].place, value)

    def read_memory(self, _thread: int, address: int, length: int) -> bytes:
        """See DebugTarget."""
        return peek(self._process.memory, address, length)

    def write_memory(self, _thread: int, address: int, data: bytes) -> None:
        """See DebugTarget."""
        poke(self._process.memory, address, data)
        self._process.cpu.invalidate(address, len(data))

    def packet(self, _thread: int, _packet: bytes) -> bytes:
        """See DebugTarget: there are none."""
        return b""

    def add_point(self, kind: PointKind, address: int, length: int) -> None:
        """See DebugTarget."""
        self._points.add(kind, address, length)

    def remove_point(self, kind: PointKind, address: int, length: int) -> None:
        """See DebugTarget."""
        self._points.remove(kind, address, length)

    # Running --------------------------------------------------------------------------------------------

    def advance(self) -> Stop:
        """Run the guest to the next stop that is not gdb's alone."""
        while self._connection is not None:
            if self._event is not None:
                event, self._event = self._event, None
                self._converse(event)
                continue
            stop = self._process.cpu.run(1 if self._resume.step else None)
            match stop.reason:
                case StopReason.HOOK:
                    self._event = self._points.stopped(os.getpid(), stop)
                case StopReason.BUDGET:
                    if not self._is_within(stop.pc):
                        self._event = self._stopped()
                case StopReason.INTERRUPTED:
                    self._look_at_line()
                    return stop
                case _:
                    if self._resume.step:
                        # The step is over when the stop has been served.
                        self._event = self._stopped()
                    return stop
        return self._process.cpu.run()

    def _stopped(self, number: int = names.SIGTRAP) -> Stopped:
        return Stopped(os.getpid(), number)

    def _is_within(self, pc: int) -> bool:
        within = self._resume.within
        return within is not None and within[0] <= pc < within[1]

    def _look_at_line(self) -> None:
        """See what has come from gdb while the guest ran."""
        match self._session.poll():
            case Arrival.INTERRUPT:
                self._event = self._stopped(names.SIGINT)
            case Arrival.LOST:
                self.detach()

    def _converse(self, event: Stopped) -> None:
        """Tell gdb of a stop and do as it says."""
        self._listen(False)
        if not self._told:
            self._session.report(event)
        self._told = False
        outcome = self._session.converse()
        if outcome is Departure.KILLED:
            die(names.SIGKILL)
        if isinstance(outcome, Departure):
            self.detach()
            return
        self._resume = outcome.get(os.getpid(), Resume())
        self._listen(True)
        # What came together with the packet that resumes raises no signal.
        self._look_at_line()
        if self._resume.signal and self._injected is None:
            self._inject(self._resume.signal)

    def _listen(self, wanted: bool) -> None:
        """Whether bytes that arrive from gdb are to raise WAKE_SIGNAL."""
        if self._connection is None:
            return
        fd = self._connection.fileno()
        if wanted:
            fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(fd, _F_SETSIG, WAKE_SIGNAL)
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | _O_ASYNC if wanted else flags & ~_O_ASYNC)

    # Signals --------------------------------------------------------------------------------------------

    def _inject(self, number: int) -> None:
        """Deliver a signal that gdb sends where the guest was stopped for something else."""
        self._injected = number
        self._process.signals.queue.append(Pending(number, make_info(number, _SI_USER)))
        self._process.signals.deliver(self._process)
        self._injected = None

    def filter(self, pending: Pending) -> Pending | None:
        """The signal to deliver instead of one that is about to be: gdb decides; None for none."""
        number = pending.number
        if self._connection is None or number in self._session.passed_signals or number == self._injected:
            return pending
        self._event = None
        self._injected = number
        self._converse(self._stopped(number))
        self._injected = None
        if self._connection is None:
            return pending
        wanted = self._resume.signal
        if wanted == number:
            return pending
        return Pending(wanted, make_info(wanted, _SI_USER)) if wanted else None

    # The end --------------------------------------------------------------------------------------------

    def ended(self, *, status: int = 0, number: int = 0) -> None:
        """Tell gdb that the guest is about to end: with an exit status, or by a signal."""
        if self._connection is not None:
            self._session.report(Ended(status=status, signal=number))
            self._hang_up()

    def executed(self) -> None:
        """The process has become another program, with another CPU."""
        if self._connection is None:
            return
        if self._session.knows_execve:
            self._points = CpuPoints(self._process.cpu)
        else:
            self._points.move(self._process.cpu)
        self._event = Stopped(os.getpid(), names.SIGTRAP, executed=self._process.image.path)

    def leave_child(self) -> None:
        """In a forked child: gdb has only the parent."""
        self._hang_up()
        self._process.debugger = None

    def detach(self) -> None:
        """Let the guest go on without gdb."""
        self._hang_up()

    def _hang_up(self) -> None:
        if self._connection is None:
            return
        self._connection.close()
        self._connection = None
        self._event = None
        self._resume = Resume()
        self._points.clear()
        self._process.signals.intercept(self._process, None)

    @property
    def descriptor(self) -> int | None:
        """The descriptor of the line to gdb, which execve(2) must not close; None if there is none."""
        return None if self._connection is None else self._connection.fileno()
