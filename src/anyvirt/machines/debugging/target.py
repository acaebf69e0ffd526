"""A machine as gdb's target: each hart is a thread, and all of them stop together.

While gdb lets everything go on, the machine runs in real time. Steps are counted: the hart that is stepped
and those that go on meanwhile execute one instruction after the other, each of which takes a nanosecond of
the machine's time, so that stepping does not end in the handler of the timer.

A machine that is recorded or has a history does everything in counted runs, with all of its harts. When one
of them is stepped back, the others go back to where they were then.
"""

from __future__ import annotations

import select
import signal
from typing import TYPE_CHECKING, Any

from anyvirt.cpu.memory import PAGE_SIZE
from anyvirt.debug.executor import CpuPoints
from anyvirt.debug.registers import ControlRegister, describe, read_place, write_place
from anyvirt.debug.target import Ended, HistoryEdge, Stopped, TargetError
from anyvirt.devices.bus import BusError
from anyvirt.errors import AnyvirtError
from anyvirt.isa.riscv64_system import riscv64_system
from anyvirt.isa.riscv64_system.register_fields import PRIVILEGES
from anyvirt.machines.ending import Ending, Reason
from anyvirt.machines.hart import HartState
from anyvirt.machines.inputs import NEVER, ReplayError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from anyvirt.debug.registers import TargetDescription
    from anyvirt.debug.target import Object, PointKind, Resume
    from anyvirt.machines.hart import Hart
    from anyvirt.machines.machine import Machine
    from anyvirt.machines.memory_windows import PhysicalMemory

_LOOK_MS = 20
"""Milliseconds between looks at a hart that waits for something that only comes from outside."""
_PHYSICAL_MODE = b"qqemu.PhyMemMode"
_SET_PHYSICAL_MODE = b"Qqemu.PhyMemMode:"
_MONITOR = b"qRcmd,"


class MachineTarget:
    """All of a machine. Satisfies `anyvirt.debug.target.ResumableTarget`."""

    attached = True

    def __init__(
        self,
        machine: Machine,
        *,
        run: Callable[..., Ending] | None = None,
        execute: Callable[[Hart, str], str] | None = None,
    ) -> None:
        """`run` is called instead of `Machine.run` for runs in real time.

        `execute` is called for what gdb's `monitor` sends.
        """
        self._machine = machine
        self._run = machine.run if run is None else run
        self._execute = execute
        self._points = HartPoints(machine)
        self._is_physical = False
        self.ending: Ending | None = None
        """How the machine has ended, if it has."""
        self.description: TargetDescription = describe(riscv64_system)
        self.objects: Mapping[Object, bytes] = {}

    @property
    def keeps_history(self) -> bool:
        """See DebugTarget."""
        return self._machine.history is not None and not self._machine.inputs.listeners

    # Harts ----------------------------------------------------------------------------------------------

    def _hart(self, thread: int) -> Hart:
        return self._machine.harts[thread - 1]

    def threads(self) -> Sequence[int]:
        """One for each hart, from 1."""
        return range(1, len(self._machine.harts) + 1)

    def thread_name(self, thread: int) -> str:
        """The hart's number, its mode, and what it does."""
        hart = self._hart(thread)
        return f"hart {hart.number}: {describe_hart(hart)}"

    def read_register(self, thread: int, number: int) -> int:
        """See DebugTarget."""
        hart, place = self._hart(thread), self.description.registers[number].place
        if isinstance(place, ControlRegister):
            return hart.csr[place.name]
        return read_place(hart.cpu, place)

    def write_register(self, thread: int, number: int, value: int) -> None:
        """See DebugTarget."""
        hart, place = self._hart(thread), self.description.registers[number].place
        if isinstance(place, ControlRegister):
            hart.csr[place.name] = value
        else:
            write_place(hart.cpu, place, value)

    # Memory ---------------------------------------------------------------------------------------------

    def _memory(self, thread: int) -> PhysicalMemory:
        return self._machine.memory if self._is_physical else self._hart(thread).memory

    def read_memory(self, thread: int, address: int, length: int) -> bytes:
        """See DebugTarget; devices are asked, in one access if it is one of 1, 2, 4 or 8 bytes."""
        memory, data = self._memory(thread), b""
        for start, size in _pages(address, length):
            try:
                data += memory.read(start, size)
            except (BusError, OverflowError):
                break
        if not data:
            raise TargetError(f"there is no memory at {address:#x}")
        return data

    def write_memory(self, thread: int, address: int, data: bytes) -> None:
        """See DebugTarget. ROM stays as it is."""
        try:
            self._memory(thread).write(address, data)
        except (BusError, OverflowError) as error:
            raise TargetError(str(error)) from None

    def packet(self, thread: int, packet: bytes) -> bytes:
        """See DebugTarget: `monitor` commands, and QEMU's switch between virtual and physical memory."""
        if packet == _PHYSICAL_MODE:
            return b"1" if self._is_physical else b"0"
        if packet.startswith(_SET_PHYSICAL_MODE):
            self._is_physical = packet.removeprefix(_SET_PHYSICAL_MODE) not in (b"", b"0")
            return b"OK"
        if packet.startswith(_MONITOR) and self._execute is not None:
            command = bytes.fromhex(packet.removeprefix(_MONITOR).decode("ascii")).decode(errors="replace")
            try:
                answer = self._execute(self._hart(thread), command)
            except AnyvirtError as error:
                answer = f"{error}\n"
            return answer.encode().hex().encode() or b"OK"
        return b""

    # Points ---------------------------------------------------------------------------------------------

    def add_point(self, kind: PointKind, address: int, length: int) -> None:
        """See DebugTarget."""
        self._points.add(kind, address, length)

    def remove_point(self, kind: PointKind, address: int, length: int) -> None:
        """See DebugTarget."""
        self._points.remove(kind, address, length)

    # Running --------------------------------------------------------------------------------------------

    def detach(self) -> None:
        """See ResumableTarget."""
        self._points.clear()

    def kill(self) -> None:
        """The machine is as if it had been switched off."""
        self._points.clear()
        self._machine.end(Ending(Reason.POWEROFF))

    def resume(self, plan: Mapping[int, Resume], wake: int) -> Stopped | Ended | None:
        """See ResumableTarget."""
        waker = _Waker(wake)
        stepped = [thread for thread, resume in plan.items() if resume.step]
        try:
            if any(resume.backwards for resume in plan.values()):
                return self._go_back(next(iter(plan)), bool(stepped), waker)
            if stepped:
                return self._step(stepped, plan, waker)
            self._points.settle()
            return self._continue(plan, waker)
        except ReplayError as error:
            raise TargetError(str(error)) from None

    @property
    def _is_kept(self) -> bool:
        """Whether what the machine does is kept: it does it in counted runs, all harts together."""
        return self._machine.inputs.log is not None

    def _continue(self, plan: Mapping[int, Resume], waker: _Waker) -> Stopped | Ended | None:
        """Let the threads of a plan go on."""
        chosen = None if len(plan) == len(self._machine.harts) else [self._hart(thread) for thread in plan]
        while True:
            if self._is_kept:
                ending = self._machine.run(instructions=NEVER, until=waker.is_called)
            else:
                ending = self._run(until=waker.is_called, harts=chosen)
            if ending.reason is Reason.CONDITION:
                return None
            if ending.reason is Reason.IDLE and waker.is_called(_LOOK_MS):
                return None
            event = self._event(ending, plan)
            if event is not None:
                return event

    def _step(
        self, stepped: Sequence[int], plan: Mapping[int, Resume], waker: _Waker
    ) -> Stopped | Ended | None:
        """Step the first of some threads; all others of the plan go on as far."""
        thread = stepped[0]
        hart, resume = self._hart(thread), plan[thread]
        going = self.threads() if self._is_kept else plan
        others = [self._hart(other) for other in going if other != thread]
        while True:
            ending = self._machine.step(hart, others=others, until=waker.is_called)
            if ending.reason is Reason.CONDITION:
                return None
            if ending.reason is Reason.IDLE:
                if waker.is_called(_LOOK_MS):
                    return None
                continue
            if ending.reason is Reason.LIMIT:
                if resume.within is None or not resume.within[0] <= hart.pc < resume.within[1]:
                    return Stopped(thread, signal.SIGTRAP)
                continue
            event = self._event(ending, plan)
            if event is not None:
                return event

    def _go_back(self, thread: int, is_step: bool, waker: _Waker) -> Stopped | Ended | None:
        """Go back by one instruction of a hart, or to a breakpoint or watchpoint of any."""
        self._points.settle()
        if is_step:
            ending = self._machine.reverse_step(hart=self._hart(thread))
        else:
            ending = self._machine.reverse_continue(until=waker.is_called)
        match ending.reason:
            case Reason.BEGINNING:
                return Stopped(thread, signal.SIGTRAP, edge=HistoryEdge.BEGINNING)
            case Reason.LIMIT:
                return Stopped(thread, signal.SIGTRAP)
            case _:
                return self._event(ending, self.threads())

    def _event(self, ending: Ending, going: Collection[int]) -> Stopped | Ended | None:
        """What gdb is told of how a run ended; None if it is nothing to it, and the machine goes on.

        `going` are the threads that it has let go on. It cannot be told of stops of others, which run only
        because all harts of a machine with a history do.
        """
        if ending.is_final and self.keeps_history:
            # It can go back from there.
            return Stopped(next(iter(going)), signal.SIGTRAP, edge=HistoryEdge.END)
        if ending.is_final:
            self.ending = ending
            return Ended(max(ending.code & 0xFF, 1) if ending.reason is Reason.FAILURE else 0)
        if ending.reason is Reason.HOOK and ending.hart is not None and ending.stop is not None:
            return self._points.stopped(ending.hart, ending.stop) if ending.hart + 1 in going else None
        return None


class HartPoints:
    """What a debugger wants all harts to stop at.

    gdb removes everything at each stop and puts it back before it goes on. Code that is hooked has to be
    decoded anew, so what is removed stays until the machine really goes on without it.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._harts = machine.harts
        self._points = [CpuPoints(hart) for hart in machine.harts]
        self._wanted: set[tuple[PointKind, int, int]] = set()
        self._there: set[tuple[PointKind, int, int]] = set()

    def add(self, kind: PointKind, address: int, length: int) -> None:
        """Stop there from now on."""
        self._wanted.add((kind, address, length))
        if (kind, address, length) not in self._there:
            for points in self._points:
                points.add(kind, address, length)
            self._there.add((kind, address, length))

    def remove(self, kind: PointKind, address: int, length: int) -> None:
        """Stop there no longer."""
        self._wanted.discard((kind, address, length))

    def settle(self) -> None:
        """Let what is there be what is wanted, also after a reset, which has made other harts."""
        if self._machine.harts is not self._harts:
            self._harts, self._there = self._machine.harts, set()
            self._points = [CpuPoints(hart) for hart in self._harts]
        for point in self._there - self._wanted:
            for points in self._points:
                points.remove(*point)
        self._there &= self._wanted
        for point in self._wanted - self._there:
            self.add(*point)

    def clear(self) -> None:
        """Stop nowhere."""
        self._wanted.clear()
        self.settle()

    def stopped(self, number: int, stop: Any) -> Stopped | None:  # noqa: ANN401 - a Stop
        """What a stop of a hart is to the debugger; None for a point that nobody wants any more."""
        point = self._points[number].point_of(stop)
        if point is not None and point not in self._wanted:
            return None
        return self._points[number].stopped(number + 1, stop)


class _Waker:
    """Whether a descriptor has become readable."""

    def __init__(self, fd: int) -> None:
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)

    def is_called(self, milliseconds: int = 0) -> bool:
        """Whether it is, or becomes so within a time."""
        return bool(self._poll.poll(milliseconds))


def describe_hart(hart: Hart) -> str:
    """A hart's mode, and what it does."""
    if hart.state not in (HartState.STARTED, HartState.SUSPENDED):
        return "stopped"
    return (
        f"{PRIVILEGES[hart.privilege]} mode, {'waiting for an interrupt' if hart.is_waiting else 'running'}"
    )


def _pages(address: int, length: int) -> list[tuple[int, int]]:
    """A range in pieces that are within a page each."""
    pieces, end = [], address + length
    while address < end:
        size = min(end, (address & -PAGE_SIZE) + PAGE_SIZE) - address
        pieces.append((address, size))
        address += size
    return pieces
