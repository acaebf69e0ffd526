"""One CPU of a machine: its executor, whether it is started, and its registers by name."""

from __future__ import annotations

import threading
from enum import IntEnum
from typing import TYPE_CHECKING

from anyvirt.cpu.executor import Access
from anyvirt.devices.saved_state import SavedState
from anyvirt.errors import UsageError
from anyvirt.machines.firmware import RESUME, START, SUSPEND

if TYPE_CHECKING:
    from collections.abc import MutableSequence

    from anyvirt.cpu.breakpoints import Breakpoints
    from anyvirt.cpu.hooks import Hooks
    from anyvirt.cpu.interpreter import Interpreter
    from anyvirt.cpu.system import SystemSide
    from anyvirt.cpu.watchpoints import Watchpoints
    from anyvirt.devices.bus import State
    from anyvirt.devices.clock import Clock
    from anyvirt.machines.control_registers import ControlRegisters
    from anyvirt.machines.memory_windows import VirtualMemory

_MACHINE_MODE = 3
_VERSION = 1


class HartState(IntEnum):
    """The states of SBI's extension HSM (SBI 2.0, section 9, table 1)."""

    STARTED = 0
    STOPPED = 1
    START_PENDING = 2
    SUSPENDED = 4


class Hart:
    """A hart of the machine: `machine.harts[number]`. Look at it while the machine is not running."""

    def __init__(self, number: int, cpu: Interpreter, clock: Clock) -> None:
        self.number = number
        self._clock = clock
        self._take(cpu)
        self.state = HartState.STOPPED
        self.is_waiting = False
        """Whether it waits for an interrupt."""
        self.has_called = False
        """Whether it stands in the firmware with a call that the host has to answer."""
        self.progress = 0
        """Instructions that it has executed in the turn that is under way, in counted runs."""
        self._start = 0, 0
        self.woken = threading.Event()
        """Set when a hart that is stopped has something to look at."""

    # Registers ------------------------------------------------------------------------------------------

    @property
    def x(self) -> MutableSequence[int]:
        """The integer registers as unsigned 64-bit values; `x[0]` stays 0."""
        return self.cpu.x

    @property
    def f(self) -> MutableSequence[int]:
        """The floating-point registers as raw 64-bit patterns."""
        return self.cpu.f

    @property
    def pc(self) -> int:
        """Address of the next instruction."""
        return self.cpu.pc

    @pc.setter
    def pc(self, value: int) -> None:
        self.cpu.pc = value

    @property
    def privilege(self) -> int:
        """The mode: 0 user, 1 supervisor, 3 machine."""
        return self.cpu.state("privilege")

    @privilege.setter
    def privilege(self, value: int) -> None:
        if value not in (0, 1, _MACHINE_MODE):
            raise UsageError(f"a hart has no mode {value}: 0 is user, 1 supervisor, 3 machine")
        self.cpu.set_state("privilege", value)

    @property
    def csr(self) -> ControlRegisters:
        """Control and status registers by name, such as `csr["scause"]`."""
        from anyvirt.machines.control_registers import ControlRegisters

        return ControlRegisters(self)

    @property
    def memory(self) -> VirtualMemory:
        """Memory as the hart sees it in its present mode: `hart.memory[address : address + length]`."""
        from anyvirt.machines.memory_windows import VirtualMemory

        return VirtualMemory(self)

    def now(self) -> int:
        """The machine's time in nanoseconds."""
        return self._clock.now() + self.progress

    def _look(self, address: int, length: int) -> bytes:
        """Memory for whoever looks on: devices are not disturbed. Raises GuestFault."""
        from anyvirt.cpu.memory import GuestFault
        from anyvirt.devices.bus import BusError

        try:
            pieces = self.memory.pieces(address, length)
        except BusError:
            raise GuestFault(address, Access.READ) from None
        return b"".join(bytes(self.cpu.memory.view(*piece)) for piece in pieces)

    # Debugging ------------------------------------------------------------------------------------------

    @property
    def hooks(self) -> Hooks:
        """Python functions that are called at addresses, blocks and memory accesses."""
        return self.cpu.hooks

    @property
    def breakpoints(self) -> Breakpoints:
        """Addresses at which runs stop."""
        return self.cpu.breakpoints

    @property
    def watchpoints(self) -> Watchpoints:
        """Memory at whose accesses runs stop."""
        return self.cpu.watchpoints

    # Life -----------------------------------------------------------------------------------------------

    def begin(self, pc: int, *, argument: int = 0, entry: int = 0) -> None:
        """Be started at `pc` in M-mode: a0 is the hart's number, a1 the argument, t1 the entry."""
        cpu = self.cpu
        cpu.set_state("privilege", _MACHINE_MODE)
        for index in range(1, 32):
            cpu.x[index] = 0
        cpu.x[6], cpu.x[10], cpu.x[11] = entry, self.number, argument
        cpu.pc = pc
        self.has_called = self.is_waiting = False
        self.state = HartState.STARTED

    def request_start(self, entry: int, argument: int) -> None:
        """Begin soon, in S-mode at a physical address (SBI 2.0, section 9.1, table 2)."""
        self._start = entry, argument
        self.state = HartState.START_PENDING
        self.wake()

    def start_if_wanted(self) -> bool:
        """Begin if that was requested, in the thread that is to run the hart; whether it is started."""
        if self.state is HartState.START_PENDING:
            entry, argument = self._start
            self.begin(START, argument=argument, entry=entry)
        return self.state in (HartState.STARTED, HartState.SUSPENDED)

    @property
    def is_suspended(self) -> bool:
        """Whether it waits in the firmware for an interrupt."""
        return self.state is HartState.SUSPENDED

    def suspend(self) -> None:
        """Wait for an interrupt in the firmware, which then calls once more (SBI 2.0, section 9.4)."""
        self.state = HartState.SUSPENDED
        self.cpu.pc = SUSPEND

    def resume_at(self, entry: int, argument: int) -> None:
        """Begin as after a start, but with the interrupts that were enabled."""
        self.begin(RESUME, argument=argument, entry=entry)

    # State ----------------------------------------------------------------------------------------------

    def replace(self, cpu: Interpreter) -> None:
        """Go on with another CPU, which stands where the one so far does; hooks and breakpoints stay."""
        if self.cpu.has_hooks:
            self.cpu.hooks.move_to(cpu)
        self._take(cpu)

    def _take(self, cpu: Interpreter) -> None:
        assert cpu.system is not None
        self.cpu = cpu
        """The executor, for whatever is not here."""
        self.system: SystemSide = cpu.system
        cpu.seen_memory = self._look

    def save_state(self) -> State:
        """All that `load_state` needs, in any tier; neither memory nor hooks."""
        return {
            "version": _VERSION,
            "state": int(self.state),
            "is_waiting": self.is_waiting,
            "has_called": self.has_called,
            "progress": self.progress,
            "start": list(self._start),
            "cpu": self.cpu.save_state(),
        }

    def load_state(self, state: State) -> None:
        """Go on where another hart was saved. Raises StateError and changes nothing if it does not fit."""
        saved = SavedState(state, _VERSION, f"hart {self.number}")
        life, cpu = saved.number("state", 3), saved.value("cpu")
        is_waiting, has_called = saved.flag("is_waiting"), saved.flag("has_called")
        progress = saved.number("progress", 32)
        entry, argument = saved.numbers("start", 2, 64)
        if life not in list(HartState) or not isinstance(cpu, dict):
            raise saved.misfit("state")
        self.cpu.load_state(cpu)
        self.state, self._start = HartState(life), (entry, argument)
        self.is_waiting, self.has_called, self.progress = is_waiting, has_called, progress

    def wake(self) -> None:
        """Let it look at what the machine wants, whatever it is doing."""
        self.cpu.interrupt()
        self.system.wake()
        self.woken.set()
