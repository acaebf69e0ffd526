"""The system side in the reference executor: traps, interrupts and translation, run by CPython."""

# What a processor does is described in anyvirt.isa.
# ruff: noqa: D102

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NoReturn

from anyvirt.cpu.executor import Access, Stop, StopReason
from anyvirt.cpu.memory import GuestFault
from anyvirt.cpu.reference import ReferenceProcessor, Stopped
from anyvirt.cpu.system import NEVER, TIME_UNIT, InterruptLines
from anyvirt.errors import UsageError
from anyvirt.isa.system import Event
from anyvirt.typed import u16, u64

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.cpu.reference import ReferenceExecutor
    from anyvirt.isa.description import InstructionSet

_EVENTS = frozenset(map(int, Event))
_DATA_SIZE = 8
_PAGE = 4096


class SystemProcessor(ReferenceProcessor):
    """`anyvirt.isa.system.SystemProcessor` in Python; it remembers no translations."""

    def __init__(self, memory: Any, isa: InstructionSet) -> None:  # noqa: ANN401 - of either kind
        super().__init__(memory, isa)
        self._memory: Any = memory
        assert isa.system is not None
        self._system = isa.system
        self.time_base, self.time_counts = 0, False

    # Going on -------------------------------------------------------------------------------------------

    def attend(self) -> None:
        return

    def enter(self, target: u64) -> None:
        self.jump(target)

    def wait(self) -> NoReturn:
        raise Stopped(Stop(StopReason.IDLE, self.target))

    def set_alarm(self) -> None:
        return

    def want_attention(self) -> None:
        return

    def time_counter(self) -> u64:
        now = self._instructions if self.counted and self.time_counts else time.monotonic_ns()
        return u64((now + self.time_base) // TIME_UNIT)

    # Translation ----------------------------------------------------------------------------------------

    def load_physical(self, address: u64) -> tuple[u64, bool]:
        region = self._memory.mapping_at(int(address))
        if region is None or region.bank is None or not region.protection & 1:
            return u64(0), False
        return u64(int.from_bytes(self._memory.read(int(address), _DATA_SIZE), "little")), True

    def update_physical(self, address: u64, expected: u64, value: u64) -> bool:
        region = self._memory.mapping_at(int(address))
        if region is None or not region.takes_atomics or not region.protection & 2:
            return False
        if self.load_physical(address)[0] != expected:
            return False
        self._memory.write(int(address), int(value).to_bytes(_DATA_SIZE, "little"))
        return True

    def use_area(self, area: u64) -> None:
        return

    def forget_area(self, area: u64) -> None:
        return

    def forget_page(self, area: u64, address: u64) -> None:
        return

    def physical(self, address: int, access: Access) -> int:
        """Where an access to an address goes. It stops the instruction if it is not allowed."""
        physical, rights = self._system.translate(self, u64(address), u64(access))
        region = self._memory.mapping_at(int(physical))
        if region is None or not int(rights) & region.protection & 1 << access:
            self._fault(StopReason.ACCESS_FAULT, address, access)
        return int(physical)

    # Memory ---------------------------------------------------------------------------------------------

    def _places(self, address: int, size: int, access: Access) -> list[int]:
        """The physical addresses of the bytes of an access; one if they are beside each other in a region."""
        first = self.physical(address, access)
        region = self._memory.mapping_at(first)
        if address % _PAGE + size <= _PAGE and first + size <= region.end:
            return [first]
        mask = self._address_mask
        return [self.physical(address + position & mask, access) for position in range(size)]

    def _read(self, address: u64, size: int) -> int:
        start = self._masked(address)
        places = self._places(start, size, Access.READ)
        width = size if len(places) == 1 else 1
        return sum(
            self._read_at(start + position, place, width) << 8 * position
            for position, place in enumerate(places)
        )

    def _read_at(self, address: int, physical: int, size: int) -> int:
        try:
            return int.from_bytes(self._memory.read(physical, size), self._order)
        except GuestFault:
            self._fault(StopReason.ACCESS_FAULT, address, Access.READ)

    def _write(self, address: u64, value: int, size: int, access: Access = Access.WRITE) -> None:
        start = self._masked(address)
        places = self._places(start, size, access)
        width = size if len(places) == 1 else 1
        data = (value & (1 << 8 * size) - 1).to_bytes(size, self._order)
        for position, place in enumerate(places):
            try:
                self._memory.write(place, data[position : position + width])
            except GuestFault:
                self._fault(StopReason.ACCESS_FAULT, start + position, access)

    def _read_for_write(self, address: u64, size: int) -> int:
        place = self.physical(self._masked(address), Access.WRITE)
        if not self._memory.mapping_at(place).takes_atomics:
            self._fault(StopReason.ACCESS_FAULT, int(address), Access.WRITE)
        return self._read_at(int(address), place, size)


class ReferenceSystem(InterruptLines):
    """What the CPU of a machine has besides registers, of the reference executor."""

    def __init__(self, cpu: ReferenceExecutor, processor: SystemProcessor, isa: InstructionSet) -> None:
        super().__init__()
        self._cpu = cpu
        self._isa = isa
        self._processor = processor
        assert isa.system is not None
        self._system = isa.system
        processor.time_base = -time.monotonic_ns()

    def reset(self) -> None:
        """Be as after a reset."""
        self._system.reset(self._processor)

    # Traps ----------------------------------------------------------------------------------------------

    def take_interrupt(self) -> None:
        """Take an interrupt if there is one, before the next instruction."""
        deadline = int(self._system.deadline(self._processor))
        self._processor.begin(self._cpu.pc, 0, 0, self._cpu.instructions)
        due = deadline != NEVER and int(self._processor.time_counter()) >= deadline
        level = 1 << self._system.timer
        self.lines = self.lines | level if due else self.lines & ~level
        target, taken = self._system.take_interrupt(self._processor, u64(self._cpu.pc))
        if taken:
            self._cpu.pc = int(target)

    def deliver(self, stop: Stop) -> bool:
        """Take what an instruction has run into as an exception; false if it is for who runs the CPU."""
        if stop.reason not in _EVENTS:
            self._cpu.instructions += stop.reason == StopReason.IDLE
            self._cpu.pc = stop.pc
            return False
        pc, instruction = self._cpu.pc, 0
        if stop.reason in (StopReason.ILLEGAL_INSTRUCTION, StopReason.MISALIGNED):
            instruction = self._instruction(pc)
        target = self._system.take_exception(
            self._processor,
            u64(stop.reason),
            u64(pc),
            u64(stop.address),
            u64(stop.access),
            u64(instruction),
        )
        self._cpu.pc = int(target)
        return True

    def check_guard(self, semantics: Callable[..., None]) -> None:
        """Stop an instruction whose guard refuses it."""
        guard = self._system.guards.get(semantics)
        if guard is None or guard.holds(self._processor):
            return
        if not guard.prepare(self._processor):
            self._processor.illegal()

    # Code -----------------------------------------------------------------------------------------------

    def fetch_parcel(self, address: int) -> int:
        """A parcel of an instruction at a guest address."""
        address &= (1 << 64) - 1
        parcel = self._isa.parcel
        physical = self._processor.physical(address, Access.EXECUTE)
        region = self._cpu.memory.mapping_at(physical)
        if region is None or getattr(region, "bank", None) is None:
            raise Stopped(Stop(StopReason.ACCESS_FAULT, self._cpu.pc, address=address, access=Access.EXECUTE))
        return int.from_bytes(self._cpu.memory.fetch(physical, parcel), self._isa.byte_order)

    def _instruction(self, pc: int) -> int:
        """The word of the instruction at an address, which has been fetched already."""
        length = self._isa.length
        word = self.fetch_parcel(pc)
        if length is not None and int(length(u16(word))) > self._isa.parcel:
            word |= self.fetch_parcel(pc + 2) << 16
        return word

    # Lines, time and registers, as those of SystemSide --------------------------------------------------

    @property
    def lines(self) -> int:
        """See InterruptLines."""
        return int(getattr(self._processor, self._system.lines))

    @lines.setter
    def lines(self, value: int) -> None:
        setattr(self._processor, self._system.lines, u64(value))

    def request(self) -> None:
        """Lines are looked at before each instruction."""

    def is_wanted(self) -> bool:
        """Whether WFI would not wait."""
        return self._system.is_awake(self._processor)

    def set_time(self, now: int, *, instructions: int | None = None) -> None:
        """See SystemSide.set_time."""
        self._processor.time_counts = instructions is not None
        self._processor.time_base = now - (time.monotonic_ns() if instructions is None else instructions)

    def control(self, name: str) -> int:
        """See SystemSide.control."""
        file, index = self._place(name)
        return self._cpu.registers(file)[index]

    def set_control(self, name: str, value: int) -> None:
        """See SystemSide.set_control."""
        file, index = self._place(name)
        self._cpu.registers(file)[index] = value
        self.refresh()

    def refresh(self) -> None:
        """See SystemSide.refresh."""
        self._system.refresh(self._processor)

    def _place(self, name: str) -> tuple[str, int]:
        if name not in self._system.control:
            raise UsageError(f"{name} is no control register with a value of its own")
        return self._system.control[name]
