"""Debugging executors: registers, memory and points of virtual CPUs, and a target made of them.

A target for bare executors runs each CPU in a thread of its own. What else can be debugged (a process of the
user engine) uses the same parts: `CpuPoints`, `peek` and `poke`.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from typing import TYPE_CHECKING, Any, Protocol

from anyvirt.cpu.executor import StopReason
from anyvirt.cpu.memory import FlatMemory, GuestFault
from anyvirt.cpu.watchpoints import AccessKind, Watchpoint
from anyvirt.debug.registers import describe, read_place, write_place
from anyvirt.debug.target import Ended, PointKind, Resume, Stopped, TargetError
from anyvirt.jit.ahead import instruction_set

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anyvirt.cpu.breakpoints import Breakpoints
    from anyvirt.cpu.executor import Stop
    from anyvirt.cpu.hooks import Hook
    from anyvirt.cpu.watchpoints import Watchpoints
    from anyvirt.debug.registers import TargetDescription
    from anyvirt.debug.target import Object

_KINDS = {
    PointKind.WRITE: AccessKind.WRITE,
    PointKind.READ: AccessKind.READ,
    PointKind.ACCESS: AccessKind.READ | AccessKind.WRITE,
}
_SIGNALS = {
    StopReason.BREAKPOINT: signal.SIGTRAP,
    StopReason.ILLEGAL_INSTRUCTION: signal.SIGILL,
    StopReason.ACCESS_FAULT: signal.SIGSEGV,
    StopReason.MISALIGNED: signal.SIGBUS,
    StopReason.SYSTEM_CALL: signal.SIGSYS,
    StopReason.TRAP: signal.SIGFPE,
}


class Stoppable(Protocol):
    """What has points: an executor, or a hart of a machine, whose executor may become another one."""

    @property
    def breakpoints(self) -> Breakpoints:
        """See Hookable."""

    @property
    def watchpoints(self) -> Watchpoints:
        """See Hookable."""


class CpuPoints:
    """What a debugger wants one CPU to stop at."""

    def __init__(self, cpu: Stoppable) -> None:
        self._cpu = cpu
        self._hooks: dict[tuple[PointKind, int, int], Hook] = {}

    def add(self, kind: PointKind, address: int, length: int) -> None:
        """Stop there from now on."""
        key = (kind, address, length)
        if key in self._hooks:
            return
        if kind.is_watchpoint:
            try:
                self._hooks[key] = self._cpu.watchpoints.add(address, length, _KINDS[kind])
            except ValueError as error:
                raise TargetError(str(error)) from None
        else:
            self._hooks[key] = self._cpu.breakpoints.add(address)

    def remove(self, kind: PointKind, address: int, length: int) -> None:
        """Stop there no longer."""
        hook = self._hooks.pop((kind, address, length), None)
        if hook is not None:
            hook.remove()

    def clear(self) -> None:
        """Stop nowhere."""
        for key in list(self._hooks):
            self.remove(*key)

    def move(self, cpu: Stoppable) -> None:
        """Stop another CPU at the same places, instead of this one, which is gone."""
        keys, self._cpu, self._hooks = list(self._hooks), cpu, {}
        for key in keys:
            self.add(*key)

    def point_of(self, stop: Stop) -> tuple[PointKind, int, int] | None:
        """Which point a stop for a hook is about."""
        return next((point for point, hook in self._hooks.items() if hook is stop.hit), None)

    def stopped(self, thread: int, stop: Stop) -> Stopped:
        """What a stop for a hook is to the debugger."""
        point = self.point_of(stop)
        if point is None:
            return Stopped(thread, signal.SIGTRAP)
        hook = self._hooks[point]
        address = max(stop.address, hook.start) if isinstance(hook, Watchpoint) else stop.pc
        return Stopped(thread, signal.SIGTRAP, point[0], address)


def peek(memory: Any, address: int, length: int) -> bytes:  # noqa: ANN401 - any memory
    """Up to `length` bytes, also of pages that the guest may not read. Raises TargetError for none."""
    try:
        return bytes(memory.read(address, length))
    except (GuestFault, OverflowError) as fault:
        there = getattr(fault, "address", address) - address
        if 0 < there < length:
            return bytes(memory.read(address, there))
        raise TargetError(f"there is no memory at {address:#x}") from None


def poke(memory: Any, address: int, data: bytes) -> None:  # noqa: ANN401 - any memory
    """Store bytes, in a process also where the guest may not write. Raises TargetError."""
    try:
        memory.write(address, data)
    except (GuestFault, OverflowError):
        if not isinstance(memory, FlatMemory) or not _force(memory, address, data):
            raise TargetError(f"{address:#x} cannot be written") from None


def _force(memory: FlatMemory, address: int, data: bytes) -> bool:
    """Write through /proc/self/mem, for which a page's protection does not count, as with ptrace(2)."""
    if memory.is_free(address, len(data)) or not 0 <= address <= memory.size - len(data):
        return False
    try:
        fd = os.open("/proc/self/mem", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.pwrite(fd, data, memory.base + address) == len(data)
    except OSError:
        return False
    finally:
        os.close(fd)
        for listener in memory.on_code_change:
            listener(address, len(data))


class ExecutorTarget:
    """Executors that share a memory, as a target that `anyvirt.debug.server.serve` can run."""

    attached = True
    keeps_history = False

    def __init__(self, cpus: Sequence[Any], serve: Callable[[Any, Stop], bool | Ended] | None = None) -> None:
        """`serve(cpu, stop)` is asked about stops that are not the debugger's, such as system calls.

        It says whether the CPU may go on, or how the target ended; without it such stops are signals.
        """
        self._cpus = dict(enumerate(cpus, 1))
        self._serve = serve
        self._points = [CpuPoints(cpu) for cpu in cpus]
        self._memory = cpus[0].memory
        self._waiting: list[Stopped | Ended] = []
        """What happened to further CPUs when one of them stopped: told when they are to go on."""
        self.description: TargetDescription = describe(instruction_set(cpus[0].isa))
        self.objects: Mapping[Object, bytes] = {}

    def threads(self) -> Sequence[int]:
        """One for each CPU."""
        return tuple(self._cpus)

    def thread_name(self, thread: int) -> str:
        """The CPU's number."""
        return f"CPU {thread}"

    def read_register(self, thread: int, number: int) -> int:
        """See DebugTarget."""
        return read_place(self._cpus[thread], self.description.registers[number].place)

    def write_register(self, thread: int, number: int, value: int) -> None:
        """See DebugTarget."""
        write_place(self._cpus[thread], self.description.registers[number].place, value)

    def read_memory(self, _thread: int, address: int, length: int) -> bytes:
        """See DebugTarget."""
        return peek(self._memory, address, length)

    def write_memory(self, _thread: int, address: int, data: bytes) -> None:
        """See DebugTarget."""
        poke(self._memory, address, data)
        for cpu in self._cpus.values():
            cpu.invalidate(address, len(data))

    def packet(self, _thread: int, _packet: bytes) -> bytes:
        """See DebugTarget: there are none."""
        return b""

    def add_point(self, kind: PointKind, address: int, length: int) -> None:
        """See DebugTarget."""
        for points in self._points:
            points.add(kind, address, length)

    def remove_point(self, kind: PointKind, address: int, length: int) -> None:
        """See DebugTarget."""
        for points in self._points:
            points.remove(kind, address, length)

    def detach(self) -> None:
        """See ResumableTarget."""
        for points in self._points:
            points.clear()

    def kill(self) -> None:
        """Executors cannot be killed: they are left where they are."""
        self.detach()

    def resume(self, plan: Mapping[int, Resume], wake: int) -> Stopped | Ended | None:
        """See ResumableTarget."""
        if not self._waiting:
            with _Run(self._cpus, plan, self._advance) as run:
                run.wait(wake)
            self._waiting = run.events
        return self._waiting.pop(0) if self._waiting else None

    def _advance(self, thread: int, resume: Resume, ended: Callable[[], bool]) -> Stopped | Ended | None:
        """Run one CPU until something happens to it; None if it was interrupted from outside."""
        cpu, points = self._cpus[thread], self._points[thread - 1]
        while True:
            stop = cpu.run(1 if resume.step else None)
            match stop.reason:
                case StopReason.HOOK:
                    return points.stopped(thread, stop)
                case StopReason.INTERRUPTED:
                    if ended():
                        return None
                    continue
                case StopReason.BUDGET:
                    pass
                case _:
                    served = self._serve(cpu, stop) if self._serve is not None else False
                    if isinstance(served, Ended):
                        return served
                    if not served:
                        number = signal.SIGBUS if stop.bus_error else _SIGNALS[stop.reason]
                        return Stopped(thread, number)
            if resume.step and not _is_within(resume, cpu.pc):
                return Stopped(thread, signal.SIGTRAP)


def _is_within(resume: Resume, pc: int) -> bool:
    return resume.within is not None and resume.within[0] <= pc < resume.within[1]


class _Run:
    """CPUs that run in threads until something happens to one of them."""

    def __init__(
        self,
        cpus: Mapping[int, Any],
        plan: Mapping[int, Resume],
        advance: Callable[[int, Resume, Callable[[], bool]], Stopped | Ended | None],
    ) -> None:
        self._cpus = {thread: cpus[thread] for thread in plan}
        self._advance = advance
        self._ended = False
        self.events: list[Stopped | Ended] = []
        """What has happened, in that order."""
        self._errors: list[BaseException] = []
        self._reading, self._writing = os.pipe()
        self._threads = [
            threading.Thread(target=self._run, args=(thread, resume)) for thread, resume in plan.items()
        ]

    def __enter__(self) -> _Run:
        for thread in self._threads:
            thread.start()
        return self

    def _run(self, thread: int, resume: Resume) -> None:
        try:
            event = self._advance(thread, resume, lambda: self._ended)
        except BaseException as error:
            self._errors.append(error)
            event = None
        if event is not None:
            self.events.append(event)
        os.write(self._writing, b"\0")

    def wait(self, wake: int) -> None:
        """Wait for the first event, or until descriptor `wake` becomes readable, and stop all."""
        poll = select.poll()
        for fd in (self._reading, wake):
            poll.register(fd, select.POLLIN)
        poll.poll()
        self._stop()
        if self._errors:
            raise self._errors[0]

    def _stop(self) -> None:
        self._ended = True
        while any(thread.is_alive() for thread in self._threads):
            for thread, cpu in zip(self._threads, self._cpus.values(), strict=True):
                if thread.is_alive():
                    cpu.interrupt()
                    thread.join(0.01)

    def __exit__(self, *_: object) -> None:
        self._stop()
        os.close(self._reading)
        os.close(self._writing)
