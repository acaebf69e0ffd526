"""The reference executor: an instruction set's functions run by CPython as they stand.

Slow, single-threaded, steppable in a debugger, and what every compiled tier is compared with.
"""

# What a processor does is described in anyvirt.isa.
# ruff: noqa: D102

from __future__ import annotations

import inspect
import time
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn, get_type_hints

from anyvirt.cpu.executor import Access, Stop, StopReason
from anyvirt.cpu.hookable import Hookable
from anyvirt.cpu.hooked import hooked_addresses
from anyvirt.cpu.memory import GuestFault, Protection
from anyvirt.isa import ieee754
from anyvirt.isa.description import DELAY_SLOT
from anyvirt.isa.fields import MODE
from anyvirt.jit.ahead import instruction_set
from anyvirt.jit.hook_layout import ACCESS_EVENT, BLOCK_EVENT, AccessKind, BlockStart, Instrument
from anyvirt.jit.instruments import begin_access, begin_instruction, may_transfer
from anyvirt.typed import FixedInteger, s32, s64, u8, u16, u32, u64

if TYPE_CHECKING:
    from collections.abc import Callable, Container, MutableSequence

    from anyvirt.cpu.instruments import Instruments
    from anyvirt.cpu.memory import FlatMemory
    from anyvirt.cpu.reference_system import ReferenceSystem
    from anyvirt.isa.contexts import Context
    from anyvirt.isa.description import InstructionSet, Pattern, RegisterFile

_BOTH = AccessKind.READ | AccessKind.WRITE
_MOST_DECODED = 1 << 16
"""Encodings whose decoding is remembered."""


class Stopped(Exception):
    """Carries the stop out of the semantics of an instruction."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(stop)
        self.stop = stop


class _TypedRegisters:
    """A register file as semantics see it."""

    def __init__(self, values: list[int], file: RegisterFile) -> None:
        self._values = values
        self._zero = file.zero
        self._mask = (1 << file.width) - 1
        self._sign = 1 << file.width - 1 if file.signed else 0

    def __getitem__(self, number: u8 | int) -> u64:
        value = self._values[number] & self._mask
        return u64((value ^ self._sign) - self._sign)

    def __setitem__(self, number: u8 | int, value: u64) -> None:
        if not isinstance(value, u64):
            raise TypeError(f"a register holds u64, not {type(value).__name__}")
        if int(number) != self._zero:
            self._values[number] = int(value) & self._mask


class ReferenceExecutor(Hookable):
    """One virtual CPU run by CPython."""

    def __init__(self, isa: str, memory: FlatMemory) -> None:
        """A CPU at reset (all registers 0) in `memory`."""
        self.isa = isa
        self.memory = memory
        self.pc = 0
        self.instructions = 0
        """Instructions executed."""
        self._description = instruction_set(isa)
        files = self._description.register_files
        self._files = {name: [0] * file.count for name, file in files.items()}
        self.x: MutableSequence[int] = self._files.get("x", [])
        self.f: MutableSequence[int] = self._files.get("f", [])
        self._pending = False
        self._lost = False
        """The last jump led to where no instruction can start."""
        self._decoded: dict[tuple[int, int], tuple[Pattern, dict[str, Any]] | None] = {}
        self._lengths: dict[tuple[int, int], int] = {}
        """Of what is decoded from streams of bytes."""
        self._instruments: Instruments | None = None
        self._hooked: Container[int] = ()
        self._passed: int | None = None
        self.system: ReferenceSystem | None = None
        """What the CPU of a machine has besides; None for instruction sets of programs."""
        self._processor = self._make_processor()
        for name, values in self._files.items():
            setattr(self._processor, name, _TypedRegisters(values, files[name]))
        for scalar in self._description.scalars.values():
            setattr(self._processor, scalar.name, u64(scalar.initial))
        if self.system is not None:
            self.system.reset()

    def _make_processor(self) -> ReferenceProcessor:
        if self._description.system is None:
            return ReferenceProcessor(self.memory, self._description)
        from anyvirt.cpu.reference_system import ReferenceSystem, SystemProcessor

        processor = SystemProcessor(self.memory, self._description)
        self.system = ReferenceSystem(self, processor, self._description)
        return processor

    def set_interrupt(self, number: int, level: bool) -> None:
        """Set the level of an interrupt line of a machine's CPU; any thread may."""
        assert self.system is not None, self.isa
        self.system.set_interrupt(number, level)

    def registers(self, name: str) -> MutableSequence[int]:
        """A register file: unsigned values of its width."""
        return self._files[name]

    def state(self, name: str) -> int:
        """A piece of state that the instruction set declares."""
        return int(getattr(self._processor, name))

    def set_state(self, name: str, value: int) -> None:
        """Set a piece of state that the instruction set declares."""
        setattr(self._processor, name, u64(value))

    @property
    def fcsr(self) -> int:
        """Floating-point control and status: flags in bits 4:0, rounding mode in bits 7:5."""
        return int(self._processor.float_rounding) << 5 | int(self._processor.float_flags)

    @fcsr.setter
    def fcsr(self, value: int) -> None:
        self._processor.float_flags = u8(value & 0x1F)
        self._processor.float_rounding = u8(value >> 5 & 7)

    def instrument(self, instruments: Instruments) -> None:
        """See Hookable.instrument."""
        self._instruments = instruments
        self._hooked = hooked_addresses(self.memory)

    def run_to_event(self, max_instructions: int | None, *, passed: int | None, instrumented: bool) -> Stop:
        """See Hookable.run_to_event."""
        self._passed = passed
        self._processor.instruments = self._instruments if instrumented else None
        return self._run(max_instructions)

    def _run(self, max_instructions: int | None) -> Stop:
        executed = 0
        self._processor.counted = max_instructions is not None
        while not self._pending:
            if executed == max_instructions:
                return Stop(StopReason.BUDGET, self.pc)
            if self.system is not None:
                self.system.take_interrupt()
            if self._lost:
                self._lost = False
                return Stop(StopReason.ACCESS_FAULT, self.pc, address=self.pc, access=Access.EXECUTE)
            try:
                self._step()
            except Stopped as stopped:
                if self.system is None:
                    self.instructions += stopped.stop.reason == StopReason.SYSTEM_CALL
                    return stopped.stop
                if not self.system.deliver(stopped.stop):
                    return stopped.stop
            self.instructions += 1
            executed += 1
        self._pending = False
        return Stop(StopReason.INTERRUPTED, self.pc)

    def interrupt(self) -> None:
        """Make a running `run` return INTERRUPTED soon; if none is running, the next one does at once."""
        self._pending = True

    def invalidate(self, start: int, length: int) -> None:
        """Nothing is kept of code, so there is nothing to forget."""

    def _step(self) -> None:
        in_slot = self.pc & DELAY_SLOT if self._description.delay_slots else 0
        address = self.pc - in_slot
        decoded, length = self._decode_at(address)
        processor = self._processor
        processor.begin(address, length, in_slot, self.instructions)
        self._take_hook()
        if decoded is None:
            processor.illegal()
        pattern, operands = decoded
        if self.system is not None:
            self.system.check_guard(pattern.semantics)
        if processor.instruments is not None:
            self._begin_instrumented(processor.instruments)
        pattern.semantics(processor, **operands)
        if processor.instruments is not None and _ends_block(
            pattern.semantics, in_slot, processor.before_target
        ):
            processor.instruments[Instrument.BLOCK] = BlockStart.YES
        self._lost = processor.target % self._description.parcel != 0
        self.pc = processor.target | (0 if self._lost else processor.before_target)

    def _take_hook(self) -> None:
        """Stop at a hooked address, unless its hook has been served."""
        passed, self._passed = self._passed, None
        if self.pc in self._hooked and passed != self.pc:
            raise Stopped(Stop(StopReason.HOOK, self.pc))

    def _begin_instrumented(self, instruments: Instruments) -> None:
        if begin_instruction(u64(instruments.address), u64(self.pc)) != 0:
            raise Stopped(Stop(StopReason.HOOK, self.pc, address=BLOCK_EVENT))

    def _decode_at(self, address: int) -> tuple[tuple[Pattern, dict[str, Any]] | None, int]:
        """Pattern and operands of the instruction at an address, None if it is illegal; and its length."""
        if self._description.context is not None:
            return self._decode_stream(self._description.context, address)
        word, length = self._fetch(address)
        key = word, length
        if key not in self._decoded:
            pattern = self._description.find(word, length)
            self._remember(key, None if pattern is None else (pattern, _typed_operands(pattern, word)))
        return self._decoded[key], length

    def _decode_stream(
        self, context: Context, address: int
    ) -> tuple[tuple[Pattern, dict[str, Any]] | None, int]:
        code = self._fetch_bytes(address, context.longest)
        mode = self.state(MODE)
        key = int.from_bytes(code, "little"), mode << 8 | len(code)
        if key not in self._decoded:
            found = self._description.decode(code, mode)
            self._lengths[key] = 0 if found is None else found.length
            self._remember(
                key, None if found is None else (found.pattern, _typed_operands(found.pattern, found.word))
            )
        length = self._lengths[key]
        if length > len(code) or (length == 0 and len(code) < context.longest):
            self._fetch_parcel(address + len(code))
        return self._decoded[key], length

    def _remember(self, key: tuple[int, int], decoded: tuple[Pattern, dict[str, Any]] | None) -> None:
        if len(self._decoded) >= _MOST_DECODED:
            self._decoded.clear()
        self._decoded[key] = decoded

    def _fetch_bytes(self, address: int, count: int) -> bytes:
        """Up to `count` bytes of code, fewer if those behind them cannot be executed."""
        self._fetch_parcel(address)
        code = b""
        while len(code) < count:
            mapping = self.memory.mapping_at(address + len(code))
            if mapping is None or not mapping.protection & Protection.EXECUTE:
                break
            size = min(count - len(code), mapping.end - address - len(code))
            code += self.memory.fetch(address + len(code), size)
        return code

    def _fetch(self, address: int) -> tuple[int, int]:
        """The instruction at an address and its length in bytes."""
        parcel = self._description.parcel
        word = self._fetch_parcel(address)
        assert self._description.length is not None
        length = int(self._description.length(u16(word)))
        for position in range(parcel, length, parcel):
            word |= self._fetch_parcel(address + position) << 8 * position
        return word, length

    def _fetch_parcel(self, address: int) -> int:
        if self.system is not None:
            return self.system.fetch_parcel(address)
        aligned = address % self._description.parcel == 0
        mapping = self.memory.mapping_at(address) if aligned else None
        if mapping is None or not mapping.protection & Protection.EXECUTE:
            stop = Stop(StopReason.ACCESS_FAULT, self.pc, address=address, access=Access.EXECUTE)
            raise Stopped(stop)
        data = self.memory.fetch(address, self._description.parcel)
        return int.from_bytes(data, self._description.byte_order)


def _ends_block(semantics: Callable[..., None], in_slot: int, before_target: int) -> bool:
    """Whether the next instruction begins a block; a delay slot belongs to its branch's."""
    return not before_target and (bool(in_slot) or may_transfer(semantics))


@cache
def _operand_types(owner: Callable[..., None] | type) -> dict[str, type[FixedInteger]]:
    """Parameters of semantics, or attributes of a class of operands, that are typed numbers."""
    hints = get_type_hints(owner)
    return {
        name: hint
        for name, hint in hints.items()
        if isinstance(hint, type) and issubclass(hint, FixedInteger)
    }


def _typed_operands(pattern: Pattern, word: int) -> dict[str, Any]:
    """What the semantics get besides the processor."""
    values = pattern.decode(word)
    operands: dict[str, Any] = dict(pattern.constants)
    for name, structure in pattern.structures:
        members = _operand_types(structure).items()
        operands[name] = structure(**{member: kind(values[f"{name}_{member}"]) for member, kind in members})
    operands |= {name: kind(values[name]) for name, kind in _operand_types(pattern.semantics).items()}
    wanted = inspect.signature(pattern.semantics).parameters
    return {name: value for name, value in operands.items() if name in wanted}


class ReferenceProcessor:
    """`anyvirt.isa.processor.Processor` in Python."""

    def __init__(self, memory: FlatMemory, isa: InstructionSet) -> None:
        self._memory = memory
        self._address_mask = (1 << isa.address_bits) - 1
        self._order = isa.byte_order
        self.big_endian = isa.byte_order == "big"
        self.pc = u64(0)
        self.next_pc = u64(0)
        self.target = 0
        """Where execution goes on."""
        self.before_target = 0
        """DELAY_SLOT if the instruction there is in the slot of a taken branch."""
        self.delay_target = u64(0)
        self._here = 0
        """`pc` as stops have it."""
        self.float_flags = u8(0)
        self.float_rounding = u8(0)
        self._length = 0
        self._instructions = 0
        self.counted = False
        """Whether time is to follow from the instructions executed."""
        self.instruments: Instruments | None = None
        """Of instrumented runs."""

    def begin(self, pc: int, length: int, in_slot: int, instructions: int) -> None:
        """Get ready for the instruction at `pc`."""
        self.pc, self.next_pc = u64(pc), u64(pc + length & self._address_mask)
        if in_slot:
            self.next_pc = self.delay_target
        self._here = pc | in_slot
        self.target = int(self.next_pc)
        self.before_target = 0
        self._length = length
        self._instructions = instructions

    # Control --------------------------------------------------------------------------------------------

    def jump(self, target: u64) -> None:
        self.target = self._masked(target)

    def branch(self, offset: u64) -> None:
        self.target = self._masked(self.pc + offset)

    def delayed_jump(self, target: u64) -> None:
        self.delay_target = u64(self._masked(target))
        self.before_target = DELAY_SLOT

    def delayed_branch(self, offset: u64) -> None:
        self.delayed_jump(self.pc + offset)

    def annul(self) -> None:
        self.jump(self.next_pc + self._length)

    def _distance(self) -> int:
        """To where execution goes on behind this instruction."""
        return int(self.next_pc) - self._here

    def system_call(self) -> NoReturn:
        raise Stopped(Stop(StopReason.SYSTEM_CALL, self._here, length=self._distance()))

    def breakpoint(self) -> NoReturn:
        raise Stopped(Stop(StopReason.BREAKPOINT, self._here, length=self._distance()))

    def illegal(self) -> NoReturn:
        raise Stopped(Stop(StopReason.ILLEGAL_INSTRUCTION, self._here))

    def trap(self, number: int | u64) -> NoReturn:
        raise Stopped(Stop(StopReason.TRAP, self._here, address=int(number)))

    def fence(self) -> None:
        return

    def synchronize_code(self) -> None:
        return

    def cycle_counter(self) -> u64:
        return u64(self._instructions)

    def time_counter(self) -> u64:
        return u64((self._instructions if self.counted else time.monotonic_ns()) // 100)

    # Memory ---------------------------------------------------------------------------------------------

    def _masked(self, address: u64) -> int:
        return int(address) & self._address_mask

    def _fault(self, reason: StopReason, address: int, access: Access) -> NoReturn:
        address &= self._address_mask
        raise Stopped(Stop(reason, self._here, address=address, access=access)) from None

    def _read(self, address: u64, size: int) -> int:
        try:
            return int.from_bytes(self._memory.read(self._masked(address), size), self._order)
        except GuestFault as fault:
            self._fault(StopReason.ACCESS_FAULT, fault.address, Access.READ)

    def _write(self, address: u64, value: int, size: int, access: Access = Access.WRITE) -> None:
        try:
            data = (value & (1 << 8 * size) - 1).to_bytes(size, self._order)
            self._memory.write(self._masked(address), data)
        except GuestFault as fault:
            self._fault(StopReason.ACCESS_FAULT, fault.address, access)

    def _watch(self, address: u64, size: int, kind: AccessKind, value: int = 0) -> None:
        """Stop before an access that hooks want to know of."""
        if self.instruments is None:
            return
        # Instruments have the value as it will be in memory, in the host's byte order.
        stored = (value & (1 << 8 * size) - 1).to_bytes(size, self._order)
        fields = (self._masked(address), size, kind.value, int.from_bytes(stored, "little"))
        if begin_access(u64(self.instruments.address), *map(u64, fields)) != 0:
            raise Stopped(Stop(StopReason.HOOK, self._here, address=ACCESS_EVENT))

    def _load(self, address: u64, size: int) -> int:
        self._watch(address, size, AccessKind.READ)
        return self._read(address, size)

    def _store(self, address: u64, value: int, size: int) -> None:
        self._watch(address, size, AccessKind.WRITE, value)
        self._write(address, value, size)

    def load8(self, address: u64) -> u8:
        return u8(self._load(address, 1))

    def load16(self, address: u64) -> u16:
        return u16(self._load(address, 2))

    def load32(self, address: u64) -> u32:
        return u32(self._load(address, 4))

    def load64(self, address: u64) -> u64:
        return u64(self._load(address, 8))

    def store8(self, address: u64, value: FixedInteger) -> None:
        self._store(address, int(value), 1)

    def store16(self, address: u64, value: FixedInteger) -> None:
        self._store(address, int(value), 2)

    def store32(self, address: u64, value: FixedInteger) -> None:
        self._store(address, int(value), 4)

    def store64(self, address: u64, value: FixedInteger) -> None:
        self._store(address, int(value), 8)

    def require_aligned(self, address: u64, size: int) -> None:
        if int(address) % size:
            self._fault(StopReason.MISALIGNED, int(address), Access.WRITE)

    def _read_for_write(self, address: u64, size: int) -> int:
        """An atomic operation needs write permission from the start."""
        mapping = self._memory.mapping_at(self._masked(address))
        if mapping is None or not mapping.protection & Protection.WRITE or not mapping.takes_atomics:
            self._fault(StopReason.ACCESS_FAULT, int(address), Access.WRITE)
        return self._read(address, size)

    def exchange(self, operation: str, address: u64, value: u32 | u64) -> u64:
        kind = type(value)
        self._watch(address, kind.BITS // 8, _BOTH, int(value))
        old = kind(self._read_for_write(address, kind.BITS // 8))
        self._write(address, int(_combine(operation, old, value)), kind.BITS // 8)
        return u64(old)

    def compare_exchange(self, address: u64, expected: FixedInteger, value: FixedInteger) -> bool:
        size = type(value).BITS // 8
        self._watch(address, size, _BOTH, int(value))
        if self._read_for_write(address, size) != int(expected):
            return False
        self._write(address, int(value), size)
        return True

    # Floating point -------------------------------------------------------------------------------------

    def raise_float_flags(self, flags: u8) -> None:
        self.float_flags = self.float_flags | flags

    def _noting(self, outcome: tuple[u64, u8]) -> u64:
        self.raise_float_flags(outcome[1])
        return outcome[0]

    def float_add(self, width: int, a: u64, b: u64, rounding: u8) -> u64:
        return self._noting(ieee754.add(u8(width), a, b, rounding))

    def float_subtract(self, width: int, a: u64, b: u64, rounding: u8) -> u64:
        return self._noting(ieee754.subtract(u8(width), a, b, rounding))

    def float_multiply(self, width: int, a: u64, b: u64, rounding: u8) -> u64:
        return self._noting(ieee754.multiply(u8(width), a, b, rounding))

    def float_divide(self, width: int, a: u64, b: u64, rounding: u8) -> u64:
        return self._noting(ieee754.divide(u8(width), a, b, rounding))

    def float_sqrt(self, width: int, a: u64, rounding: u8) -> u64:
        return self._noting(ieee754.sqrt(u8(width), a, rounding))

    def float_fma(self, width: int, a: u64, b: u64, c: u64, rounding: u8) -> u64:
        return self._noting(ieee754.fma(u8(width), a, b, c, rounding))

    def float_compare(self, comparison: str, width: int, a: u64, b: u64) -> bool:
        less, equal = comparison.startswith("<"), comparison.endswith("=")
        outcome = ieee754.compare(u8(width), a, b, less, equal, comparison == "==")
        return int(self._noting(outcome)) != 0

    def float_convert(self, width: int, target: int, a: u64, rounding: u8) -> u64:
        return self._noting(ieee754.convert(u8(width), u8(target), a, rounding))

    def float_to_integer(self, width: int, target: str, a: u64, rounding: u8) -> u64:
        signed, bits = target.startswith("s"), u8(int(target[1:]))
        return self._noting(ieee754.to_integer(u8(width), bits, signed, a, rounding))

    def float_from_integer(self, width: int, source: str, a: u64, rounding: u8) -> u64:
        signed, bits = source.startswith("s"), u8(int(source[1:]))
        return self._noting(ieee754.from_integer(u8(width), bits, signed, a, rounding))


def _combine(operation: str, old: Any, value: Any) -> FixedInteger:  # noqa: ANN401 - both u32 or both u64
    signed = s32 if value.BITS == 32 else s64
    outcomes: dict[str, Callable[[], FixedInteger]] = {
        "swap": lambda: value,
        "add": lambda: old + value,
        "and": lambda: old & value,
        "or": lambda: old | value,
        "xor": lambda: old ^ value,
        "min": lambda: min(signed(old), signed(value)),
        "max": lambda: max(signed(old), signed(value)),
        "minu": lambda: min(old, value),
        "maxu": lambda: max(old, value),
    }
    return outcomes[operation]()
