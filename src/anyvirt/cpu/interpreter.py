"""The interpreter tier as an `Executor`: compiled handlers running on a state block."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from anyvirt.cpu.code import code_space
from anyvirt.cpu.executor import Access, Stop, StopReason
from anyvirt.cpu.hookable import Hookable
from anyvirt.cpu.host import host
from anyvirt.cpu.memory import PAGE_SIZE, FlatMemory
from anyvirt.cpu.view import view_of
from anyvirt.devices.bus import StateError
from anyvirt.devices.saved_state import SavedState
from anyvirt.jit.hook_layout import EVENTS
from anyvirt.jit.host_layout import control_for, exceptions_of
from anyvirt.jit.layout import ALARM, NO_CODE, Request, Slot

if TYPE_CHECKING:
    from collections.abc import MutableSequence

    from anyvirt.cpu.instruments import Instruments
    from anyvirt.cpu.machine_memory import MachineMemory
    from anyvirt.cpu.system import SystemSide
    from anyvirt.devices.bus import State

_STATE_VERSION = 1
_MODE = "mode"
"""The state that says how bytes are decoded (`anyvirt.isa.fields.MODE`)."""
_WORDS = Slot.END // 8
_REASON, _COUNT, _HOOK_PASSED = Slot.REASON // 8, Slot.COUNT // 8, Slot.HOOK_PASSED // 8
_FAULT_ADDRESS, _FAULT_ACCESS, _FAULT_COUNT, _BUS_ERROR = (
    int(slot) // 8 for slot in (Slot.FAULT_ADDRESS, Slot.FAULT_ACCESS, Slot.FAULT_COUNT, Slot.BUS_ERROR)
)
_FLOAT_FLAGS, _FLOAT_ROUNDING, _FLOAT_CONTROL, _RETIRED = (
    int(slot) // 8 for slot in (Slot.FLOAT_FLAGS, Slot.FLOAT_ROUNDING, Slot.FLOAT_CONTROL, Slot.RETIRED)
)
_REASONS = {int(reason): reason for reason in StopReason} | dict.fromkeys(EVENTS, StopReason.HOOK)


class Interpreter(Hookable):
    """One virtual CPU in the interpreter tier.

    The first use on a machine compiles the handlers (a second or two) and keeps them in the cache; from
    then on a start takes milliseconds and does not import LLVM.
    """

    _state = 0

    def __init__(self, isa: str, memory: FlatMemory | MachineMemory) -> None:
        """A CPU at reset (all registers 0) in `memory`. Raises UnsupportedError."""
        self.isa = isa
        self.memory: Any = memory
        """What was given, of either kind."""
        self.pc = 0
        self.instructions = 0
        """Instructions executed in runs with a budget."""
        self._host = host()
        self._host.catch_faults()
        if isinstance(memory, FlatMemory) and memory.admit(self):
            self._host.settle()
        code = code_space(memory, isa, counted=False)
        self._counted: bool | None = None
        self._instrumented = False
        self._state = self._host.take_state()
        self._slots = (ctypes.c_uint64 * _WORDS).from_address(self._state)
        self._requests = (ctypes.c_uint8 * len(Request)).from_address(self._state + Slot.PENDING)
        self._view = view_of(memory, self._state, code)
        layout: dict[str, Any] = code.interpreter.blob.notes
        self._files: dict[str, tuple[int, int]] = layout["files"]
        self._scalars: dict[str, tuple[int, int]] = layout["scalars"]
        self._zeros = [ctypes.c_uint64.from_address(self._state + offset) for offset in layout["zeros"]]
        for offset, initial in self._scalars.values():
            ctypes.c_uint64.from_address(self._state + offset).value = initial
        self.x = self.registers("x") if "x" in self._files else []
        self.f = self.registers("f") if "f" in self._files else []
        self._set(Slot.LEAVE, self._host.leave)
        if "system" not in code.interpreter.blob.notes:
            self._set(Slot.ATTEND, self._host.leave)
        self._set(Slot.FLOAT_CONTROL, control_for(0))
        self.system: SystemSide | None = None
        """What the CPU of a machine has besides; None for instruction sets of programs."""
        if "system" in code.interpreter.blob.notes:
            from anyvirt.cpu.system import SystemSide

            self.system = SystemSide(self._state, code.interpreter, self._scalars)

    def twin(self) -> Interpreter:
        """Another CPU in the same memory, with the same registers; this one must not be running.

        Raises UnsupportedError.
        """
        twin = self._another()
        twin.load_state(self.save_state())
        return twin

    def _another(self) -> Interpreter:
        """Another CPU at reset in the same memory."""
        return type(self)(self.isa, self.memory)

    def belong_to(self, thread: int) -> None:
        """Be stopped only by signals that come to the thread with that number of the host; 0: by all."""
        self._set(Slot.THREAD, thread)

    def __del__(self) -> None:
        if self._state:
            self._host.give_state(self._state)

    def registers(self, name: str) -> MutableSequence[int]:
        """A register file as a view on the state block: unsigned 64-bit values."""
        offset, count = self._files[name]
        view: MutableSequence[int] = (ctypes.c_uint64 * count).from_address(self._state + offset)  # type: ignore[assignment]
        return view

    def state(self, name: str) -> int:
        """A piece of state that the instruction set declares."""
        return ctypes.c_uint64.from_address(self._state + self._scalars[name][0]).value

    def set_state(self, name: str, value: int) -> None:
        """Set a piece of state that the instruction set declares. Another mode decodes everything anew."""
        if name == _MODE and self.state(name) != value:
            self._change_mode()
        ctypes.c_uint64.from_address(self._state + self._scalars[name][0]).value = value
        if self.system is not None:
            self.system.refresh()

    def _change_mode(self) -> None:
        if isinstance(self.memory, FlatMemory):
            for mapping in self.memory.mappings:
                self.invalidate(mapping.start, mapping.end - mapping.start)

    @property
    def fcsr(self) -> int:
        """Floating-point control and status: flags in bits 4:0, rounding mode in bits 7:5."""
        slots = self._slots
        return slots[_FLOAT_ROUNDING] << 5 | slots[_FLOAT_FLAGS] | exceptions_of(slots[_FLOAT_CONTROL])

    @fcsr.setter
    def fcsr(self, value: int) -> None:
        self._slots[_FLOAT_FLAGS] = value & 0x1F
        self._slots[_FLOAT_ROUNDING] = value >> 5 & 7
        self._slots[_FLOAT_CONTROL] = control_for(value >> 5)

    @property
    def is_hook_unpassed(self) -> bool:
        """See Hookable.is_hook_unpassed."""
        return self._slots[_HOOK_PASSED] != 0

    def instrument(self, instruments: Instruments) -> None:
        """See Hookable.instrument."""
        self._set(Slot.INSTRUMENTS, instruments.address)

    def run_to_event(
        self, max_instructions: int | None, *, passed: int | None = None, instrumented: bool = False
    ) -> Stop:
        """See Hookable.run_to_event."""
        self._slots[_HOOK_PASSED] = 0 if passed is None else passed + 1
        if instrumented is not self._instrumented:
            self._counted, self._instrumented = None, instrumented
        return self._run(max_instructions)

    def _run(self, max_instructions: int | None) -> Stop:
        pc = self.pc
        if self._requests[Request.STOP]:
            self._requests[Request.STOP] = 0
            return Stop(StopReason.INTERRUPTED, pc)
        counted = max_instructions is not None
        if counted is not self._counted:
            self._choose_handlers(counted)
        if not self._view.place(pc):
            return Stop(StopReason.ACCESS_FAULT, pc, address=pc, access=Access.EXECUTE)
        for register in self._zeros:
            register.value = 0
        if self.system is not None:
            if max_instructions is not None and self.system.counts:
                return self._run_to_deadlines(self.system, max_instructions)
            self.system.settle_alarm()
        if max_instructions is not None:
            return self._run_counting(max_instructions)
        self._enter()
        return self._stop()

    def _run_counting(self, budget: int) -> Stop:
        slots = self._slots
        self._count(budget)
        stop = self._stop()
        # What cannot be fetched or decoded is noticed before the budget is looked at.
        if not slots[_COUNT] and stop.is_fetch_failure:
            return Stop(StopReason.BUDGET, stop.pc)
        return stop

    def _run_to_deadlines(self, system: SystemSide, budget: int) -> Stop:
        """Time is instructions: the line of the timer is raised at exactly one of them."""
        slots, end = self._slots, self.instructions + budget
        while True:
            self._count(min(end - self.instructions, system.instructions_to_deadline(self.instructions)))
            reason = slots[_REASON]
            if reason != ALARM and (reason != StopReason.BUDGET or self.instructions == end):
                return self._stop()
            self._view.place(self._view.program_counter())

    def _count(self, budget: int) -> None:
        """Run compiled code that counts."""
        slots = self._slots
        slots[_COUNT] = slots[_FAULT_COUNT] = budget
        slots[_RETIRED] = self.instructions + budget
        self._enter()
        self.instructions += budget - slots[_COUNT]

    def _enter(self) -> None:
        """Run compiled code until there is something that `run` has to come back for."""
        enter = self._view.enter
        enter(self._state)
        while self._goes_on():
            enter(self._state)

    def _goes_on(self) -> bool:
        """Serve what compiled code was left for, if that is the executor's own business."""
        reason = self._slots[_REASON]
        if reason == ALARM and self.system is not None and not (self._counted and self.system.counts):
            self.system.settle_alarm()
            return self._view.place(self._view.program_counter())
        if reason != StopReason.INTERRUPTED:
            return self._view.serve(reason)
        if self._requests[Request.STOP]:
            return False
        self._requests[Request.SAMPLE] = 0
        return self._view.serve(reason)

    def _choose_handlers(self, counted: bool) -> None:
        if not self._instrumented:
            self._select(counted)
            return
        self._counted = counted
        self._view.use(code_space(self.memory, self.isa, counted=True, instrumented=True))

    def _select(self, counted: bool) -> None:
        """Use the handlers and records that count instructions, or those that do not."""
        self._counted = counted
        self._view.use(code_space(self.memory, self.isa, counted=counted))

    def _stop(self) -> Stop:
        slots = self._slots
        pc = self.pc = self._view.program_counter()
        error = self._view.take_error()
        if error is not None:
            raise error
        reason = _REASONS[slots[_REASON]]
        if reason in (StopReason.SYSTEM_CALL, StopReason.BREAKPOINT):
            return Stop(reason, pc, ctypes.c_int64(slots[_FAULT_ADDRESS]).value)
        if reason == StopReason.TRAP:
            return Stop(reason, pc, address=slots[_FAULT_ADDRESS])
        if reason in (StopReason.ACCESS_FAULT, StopReason.MISALIGNED):
            return self._fault(reason, pc)
        if reason == StopReason.INTERRUPTED:
            self._requests[Request.STOP] = 0
        if reason is StopReason.HOOK:
            return Stop(reason, pc, address=slots[_REASON])
        return Stop(reason, pc)

    def _fault(self, reason: StopReason, pc: int) -> Stop:
        slots = self._slots
        address, access, bus_error = slots[_FAULT_ADDRESS], slots[_FAULT_ACCESS], bool(slots[_BUS_ERROR])
        slots[_BUS_ERROR] = 0
        if access == NO_CODE:
            pc = self.pc = address
            access = Access.EXECUTE
        return Stop(reason, pc, 0, address, Access(access), bus_error)

    def interrupt(self) -> None:
        """Make a running `run` return INTERRUPTED soon; if none is running, the next one does at once."""
        self._requests[Request.STOP] = 1

    def forget_interrupt(self) -> None:
        """Forget an `interrupt()` that no run has come back for; the CPU must not be running."""
        self._requests[Request.STOP] = 0

    def invalidate(self, start: int, length: int) -> None:
        """Forget what was decoded from [start, start + length): the bytes have changed."""
        self._view.invalidate(start, length)

    def redecode(self, address: int, length: int) -> None:
        """See Hookable.redecode; any page may be mapped where a machine's CPU translates addresses."""
        if self.system is None:
            self.invalidate(address, length)
        else:
            self.memory.forget_in_every_page(address % PAGE_SIZE, length)

    def flush_tlb(self, address: int | None = None) -> None:
        """Look at translations of addresses anew: all of them, or that of one guest address's page.

        In flat memory there are none.
        """
        self._view.flush_tlb(address)

    def set_interrupt(self, number: int, level: bool) -> None:
        """Set the level of an interrupt line of a machine's CPU; any thread may. See SystemSide."""
        assert self.system is not None, self.isa
        self.system.set_interrupt(number, level)

    def save_state(self) -> State:
        """All that a CPU of the same instruction set in another tier needs to go on from here, but memory."""
        return {
            "version": _STATE_VERSION,
            "isa": self.isa,
            "pc": self.pc,
            "instructions": self.instructions,
            "fcsr": self.fcsr,
            "interrupt_requested": bool(self._requests[Request.INTERRUPT]),
            "files": {name: list(self.registers(name)) for name in self._files},
            "scalars": {name: self.state(name) for name in self._scalars},
        }

    def load_state(self, state: State) -> None:
        """Go on where another CPU was saved; this one must not be running.

        Raises StateError and changes nothing if it does not fit.
        """
        saved = SavedState(state, _STATE_VERSION, f"a {self.isa} CPU")
        if saved.value("isa") != self.isa:
            raise StateError(f"the saved state is of a CPU of another kind than {self.isa}")
        pc, instructions, fcsr = (
            saved.number("pc", 64),
            saved.number("instructions", 64),
            saved.number("fcsr", 8),
        )
        is_requested = saved.flag("interrupt_requested")
        files = saved.part("files", self._files)
        values = {name: files.numbers(name, count, 64) for name, (_, count) in self._files.items()}
        scalars = saved.part("scalars", self._scalars)
        kept = {name: scalars.number(name, 64) for name in self._scalars}
        self.pc, self.instructions, self.fcsr = pc, instructions, fcsr
        for name, words in values.items():
            self.registers(name)[:] = words
        for name, value in kept.items():
            ctypes.c_uint64.from_address(self._state + self._scalars[name][0]).value = value
        self._view.flush_tlb(None)
        self._requests[Request.INTERRUPT] = is_requested
        if self.system is not None:
            self.system.forget_alarm()
            self.system.refresh()

    def system_call(self, number: int, *arguments: int) -> int:
        """A blocking system call of the host that a signal or `interrupt()` ends without a race.

        The result is the kernel's (a negative errno for an error), or -512 if the call was not begun because
        something was pending. The GIL is released and an interrupted call is not restarted.
        """
        return self._host.system_call(self._state, number, *arguments, *(0,) * (6 - len(arguments)))

    def _set(self, slot: Slot, value: int) -> None:
        self._slots[slot // 8] = value
