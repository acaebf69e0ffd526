"""The interpreter tier: what the words of instruction semantics become in a handler."""

from __future__ import annotations

import ast
import functools
import inspect
from typing import TYPE_CHECKING

from anyvirt.isa.processor import Processor
from anyvirt.isa.system import SystemProcessor
from anyvirt.jit import ir, machine_access
from anyvirt.jit.floats import FLOAT_METHODS, accrued_flags
from anyvirt.jit.handlers import Features, HandlerCompiler, RecordOperand, slot_variant, twin_name
from anyvirt.jit.instruments import InstrumentedModel
from anyvirt.jit.ir import Value
from anyvirt.jit.layout import ALARM, Access, Request, Slot, StateLayout, StopReason
from anyvirt.jit.machine_layout import LOOKUP
from anyvirt.jit.routines import add_routine, call_routine, without_processor
from anyvirt.jit.target import Target
from anyvirt.typed import FixedInteger, TypedPythonError, u8, u16, u32, u64

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from anyvirt.isa.description import Handler, InstructionSet
    from anyvirt.jit.frontend import FunctionCompiler, Module
    from anyvirt.jit.target import Argument

MACHINE_METHODS = frozenset(
    name for name in vars(SystemProcessor) if name not in vars(Processor) and not name.startswith("_")
)
"""What the processors of machines can do besides: it changes more than registers and memory."""
_EXCHANGES = {"swap": "xchg", "minu": "umin", "maxu": "umax"}
_BITWISE = ("swap", "and", "or", "xor")
"""Exchanges that are the same in either byte order."""
TIME_UNIT = 100
"""Nanoseconds for which the time counter grows by one."""
_CLOCK_MONOTONIC, _CLOCK_GETTIME = 1, 228


class InterpreterTarget(Target):
    """What `cpu` means in a handler."""

    def __init__(self, isa: InstructionSet, features: Features) -> None:
        super().__init__()
        self.isa = isa
        self.features = features
        self.layout = StateLayout.of(isa)
        if isa.system is not None:
            self.intrinsics |= {
                routine: functools.partial(self.call_routine, routine) for routine in isa.system.compiled
            }

    def handler(self, module: Module, form: Handler, name: str) -> str:
        """The LLVM definition of the handler of a form of instructions.

        With delay slots there is a second one for an instruction in a slot.
        """
        text = self._handler(module, form, name, in_slot=False)
        if self.isa.delay_slots:
            text += self._handler(module, form, slot_variant(name), in_slot=True)
        return text

    def _handler(self, module: Module, form: Handler, name: str, *, in_slot: bool) -> str:
        def compiler() -> HandlerCompiler:
            return HandlerCompiler(
                module, self.isa, self.features, form.semantics, form.length, form, in_slot=in_slot
            )

        handler = compiler()
        text = handler.handler(name)
        if isinstance(handler.model, InstrumentedModel) and handler.model.transfers:
            handler = compiler()
            assert isinstance(handler.model, InstrumentedModel)
            handler.model = handler.model.ending_blocks()
            text = handler.handler(name)
        if handler.has_twin:
            twin = compiler()
            twin.become_twin()
            text += twin.handler(twin_name(name))
        return text

    # Attributes and registers ---------------------------------------------------------------------------

    def read_attribute(self, compiler: FunctionCompiler, name: str) -> Value:
        """Program counter, byte order, float environment or declared state."""
        handler = _handler(compiler)
        match name:
            case "big_endian":
                return Value("true" if self.isa.byte_order == "big" else "false", bool)
            case "pc":
                return Value(handler.program_counter(), u64)
            case "next_pc":
                return Value(handler.following(), u64)
            case "float_flags":
                return accrued_flags(handler)
            case "float_rounding":
                return compiler.body.value(f"trunc i64 {handler.load_slot(Slot.FLOAT_ROUNDING)} to i8", u8)
        if name not in self.layout.scalars:
            raise TypedPythonError(f"{self.isa.name} has no state {name}")
        return Value(handler.load_slot(self.layout.scalars[name][0]), u64)

    def write_attribute(self, compiler: FunctionCompiler, name: str, value: Argument) -> None:
        """Float environment or declared state."""
        handler = _handler(compiler)
        handler.note_change()
        if name in ("float_flags", "float_rounding"):
            wide = compiler.body.emit(f"zext i8 {compiler.typed(value, u8).text} to i64")
            slot = Slot.FLOAT_FLAGS if name == "float_flags" else Slot.FLOAT_ROUNDING
            handler.store_slot(slot, wide)
            compiler.body.effect(f"call void @float.{name}(ptr %state, i64 {wide})")
        elif name in self.layout.scalars:
            handler.store_slot(self.layout.scalars[name][0], compiler.typed(value, u64).text)
        else:
            raise TypedPythonError(f"{self.isa.name} has no state {name} to assign to")

    def read_element(self, compiler: FunctionCompiler, name: str, index: Argument) -> Value:
        """A register."""
        pointer = self._register(compiler, name, index)
        file = self.isa.register_files[name]
        if file.width == 64:
            return compiler.body.value(f"load i64, ptr {pointer}", u64)
        narrow = compiler.body.emit(f"load i{file.width}, ptr {pointer}")
        extension = "sext" if file.signed else "zext"
        return compiler.body.value(f"{extension} i{file.width} {narrow} to i64", u64)

    def write_element(self, compiler: FunctionCompiler, name: str, index: Argument, value: Argument) -> None:
        """Set a register; the zero register swallows it."""
        handler = _handler(compiler)
        handler.note_change()
        file = self.isa.register_files.get(name)
        decoded = isinstance(index, RecordOperand) and index.name in handler.sunk
        if file is not None and file.zero is not None and file.zero_is_written and not decoded:
            number = compiler.typed(index, u8)
            swallowed = compiler.body.emit(f"icmp eq i8 {number.text}, {file.zero}")
            text = f"select i1 {swallowed}, i8 {file.count}, i8 {number.text}"
            index = compiler.body.value(text, u8)
        pointer = self._register(compiler, name, index)
        text, kind = compiler.typed(value, u64).text, "i64"
        if file is not None and file.width != 64:
            kind = f"i{file.width}"
            text = compiler.body.emit(f"trunc i64 {text} to {kind}")
        compiler.body.effect(f"store {kind} {text}, ptr {pointer}")

    def _register(self, compiler: FunctionCompiler, name: str, index: Argument) -> str:
        if name not in self.layout.files:
            raise TypedPythonError(f"{self.isa.name} has no registers {name}")
        offset, _ = self.layout.files[name]
        base = compiler.body.emit(f"getelementptr i8, ptr %state, i64 {offset}")
        wide = compiler.body.emit(f"zext i8 {compiler.typed(index, u8).text} to i64")
        return compiler.body.emit(f"getelementptr i64, ptr {base}, i64 {wide}")

    # Methods --------------------------------------------------------------------------------------------

    def call_method(self, compiler: FunctionCompiler, name: str, arguments: list[Argument]) -> Value | None:
        """An operation of `anyvirt.isa.processor.Processor`."""
        handler = _handler(compiler)
        if name in FLOAT_METHODS:
            emitter = FLOAT_METHODS[name]
        elif name in _METHODS:
            # Targets that refine this one override methods by name.
            emitter = getattr(self, name, None) or functools.partial(_METHODS[name], self)
        else:
            raise TypedPythonError(f"a processor cannot {name}")
        try:
            inspect.signature(emitter).bind(handler, *arguments)
        except TypeError:
            raise TypedPythonError(f"{name} does not take {len(arguments)} argument(s)") from None
        return emitter(handler, *arguments)

    def address(self, handler: HandlerCompiler, address: Argument) -> str:
        """An address modulo the size of the instruction set's address space."""
        return handler.wrapped(handler.typed(address, u64).text)

    def jump(self, handler: HandlerCompiler, target: Argument) -> None:
        """Continue at an address, which may be anything."""
        handler.jump(self.address(handler, target))

    def delayed_jump(self, handler: HandlerCompiler, target: Argument) -> None:
        """Continue at an address after the next instruction."""
        handler.enter_slot(self.address(handler, target))

    def delayed_branch(self, handler: HandlerCompiler, offset: Argument) -> None:
        """Continue at a distance after the next instruction."""
        self.delayed_jump(handler, handler.operate(ast.Add(), self.read_attribute(handler, "pc"), offset))

    def annul(self, handler: HandlerCompiler) -> None:
        """Leave the next instruction out."""
        handler.annul()

    def branch(self, handler: HandlerCompiler, offset: Argument) -> None:
        """Continue at a distance that is within BRANCH_REACH."""
        if not isinstance(offset, RecordOperand):
            raise TypedPythonError("branch wants an operand of the instruction as its offset")
        if handler.in_slot:
            self.jump(handler, handler.operate(ast.Add(), self.read_attribute(handler, "pc"), offset))
        else:
            handler.model.branch(handler, offset.text)

    def system_call(self, handler: HandlerCompiler) -> None:
        """Stop; the call counts as executed. Its length goes along."""
        handler.store_slot(Slot.FAULT_ADDRESS, handler.distance_on())
        handler.leave(StopReason.SYSTEM_CALL, "%record", handler.remaining)

    def breakpoint(self, handler: HandlerCompiler) -> None:
        """Stop. The length of the instruction goes along."""
        handler.store_slot(Slot.FAULT_ADDRESS, handler.distance_on())
        handler.stop(StopReason.BREAKPOINT)

    def illegal(self, handler: HandlerCompiler) -> None:
        """Stop."""
        handler.stop(StopReason.ILLEGAL_INSTRUCTION)

    def trap(self, handler: HandlerCompiler, number: Argument) -> None:
        """Stop. The number goes along."""
        handler.store_slot(Slot.FAULT_ADDRESS, handler.typed(number, u64).text)
        handler.stop(StopReason.TRAP)

    def synchronize_code(self, handler: HandlerCompiler) -> None:
        """Let the executor forget what was decoded, then go on behind this instruction."""
        handler.synchronize()

    def fence(self, handler: HandlerCompiler) -> None:
        """A full barrier."""
        handler.body.effect("fence seq_cst")

    def cycle_counter(self, handler: HandlerCompiler) -> Value:
        """The host's, or in counting runs the instructions executed before this one."""
        if not self.features.counted:
            return handler.body.value("call i64 @llvm.readcyclecounter()", u64)
        return self._executed(handler)

    def _executed(self, handler: HandlerCompiler) -> Value:
        return handler.body.value(f"sub i64 {handler.load_slot(Slot.RETIRED)}, %count", u64)

    def time_counter(self, handler: HandlerCompiler) -> Value:
        """clock_gettime(CLOCK_MONOTONIC) of the host; in counting runs an instruction takes a nanosecond."""
        if self.isa.system is not None:
            return self._machine_time(handler)
        body = handler.body
        if self.features.counted:
            return body.value(f"udiv i64 {self._executed(handler).text}, {TIME_UNIT}", u64)
        pointer = body.emit(f"ptrtoint ptr {handler.slot(Slot.SCRATCH)} to i64")
        body.effect(
            f'call i64 asm sideeffect "syscall", "={{ax}},{{ax}},{{di}},{{si}},~{{rcx}},~{{r11}},~{{memory}}"'
            f"(i64 {_CLOCK_GETTIME}, i64 {_CLOCK_MONOTONIC}, i64 {pointer})"
        )
        seconds = body.emit(f"mul i64 {handler.load_slot(Slot.SCRATCH)}, {10**9 // TIME_UNIT}")
        fraction = body.emit(f"udiv i64 {handler.load_slot(Slot.SCRATCH + 8)}, {TIME_UNIT}")
        return body.value(f"add i64 {seconds}, {fraction}", u64)

    def _machine_time(self, handler: HandlerCompiler) -> Value:
        """The time of a machine, which can be set; the host's clock is asked without a system call.

        Handlers that count are not only for time that does: hooks need them in real time, too.
        """
        body = handler.body
        counts, asks, done = (body.fresh(name) for name in ("counts", "asks", "done"))
        if self.features.counted:
            by_count = body.emit(f"icmp ne i64 {handler.load_slot(Slot.TIME_COUNTS)}, 0")
            body.branch_if(by_count, counts, asks)
            body.open(counts)
            handler.store_slot(Slot.SCRATCH, "0")
            handler.store_slot(Slot.SCRATCH + 8, self._executed(handler).text)
            body.branch(done)
            body.open(asks)
        clock = handler.load_slot(Slot.CLOCK)
        place = body.emit(f"ptrtoint ptr {handler.slot(Slot.SCRATCH)} to i64")
        passed = ", ".join(f"i64 {text}" for text in (clock, _CLOCK_MONOTONIC, place, 0, 0, 0))
        body.effect(f"call i64 @call.outside({passed})")
        if self.features.counted:
            body.branch(done)
            body.open(done)
        seconds = body.emit(f"mul i64 {handler.load_slot(Slot.SCRATCH)}, {10**9}")
        now = body.emit(f"add i64 {seconds}, {handler.load_slot(Slot.SCRATCH + 8)}")
        now = body.emit(f"add i64 {now}, {handler.load_slot(Slot.TIME_BASE)}")
        return body.value(f"udiv i64 {now}, {TIME_UNIT}", u64)

    # Machines -------------------------------------------------------------------------------------------

    def call_routine(
        self, function: Callable[..., Any], compiler: FunctionCompiler, arguments: list[Argument]
    ) -> Argument:
        """Call a function of the processor that is compiled by itself."""
        handler = _handler(compiler)
        handler.note_change()
        if self.features.counted:
            # For the counters.
            handler.store_slot(Slot.COUNT, "%count")
        symbol = add_routine(handler.module, self.isa, self.features, function)
        return call_routine(handler, symbol, function, "%state", without_processor(arguments))

    def attend(self, handler: HandlerCompiler) -> None:
        """Go on behind this instruction with the TLB of the mode that the CPU is in now."""
        handler.tail_call("@resume", handler.next_record(), handler.remaining)

    def enter(self, handler: HandlerCompiler, target: Argument) -> None:
        """Look an address up in the TLB of the mode that the CPU is in now."""
        handler.store_slot(Slot.TARGET, self.address(handler, target))
        handler.tail_call(f"@{LOOKUP}", "%record", handler.remaining)

    def wait(self, handler: HandlerCompiler) -> None:
        """End the run behind this instruction."""
        handler.leave(StopReason.IDLE, handler.next_record(), handler.remaining)

    def set_alarm(self, handler: HandlerCompiler) -> None:
        """Let the executor look at the deadline."""
        handler.leave(ALARM, handler.next_record(), handler.remaining)

    def want_attention(self, handler: HandlerCompiler) -> None:
        """Let compiled code look at interrupts where it looks at requests."""
        handler.body.effect(f"store i8 1, ptr {handler.slot(Slot.PENDING + Request.INTERRUPT)}")

    def load_physical(self, handler: HandlerCompiler, address: Argument) -> Argument:
        """A word of a page table."""
        return handler.call_function(machine_access.load_physical, [_state(handler), address])

    def update_physical(
        self, handler: HandlerCompiler, address: Argument, expected: Argument, value: Argument
    ) -> Argument:
        """Replace a word of a page table."""
        given = [_state(handler), address, expected, value]
        return handler.call_function(machine_access.update_physical, given)

    def use_area(self, handler: HandlerCompiler, area: Argument) -> None:
        """Another TLB, from the next time that it is looked for."""
        handler.call_function(machine_access.use_area, [_state(handler), area])

    def forget_area(self, handler: HandlerCompiler, area: Argument) -> None:
        """Empty a TLB."""
        handler.call_function(machine_access.forget_area, [_state(handler), area])

    def forget_page(self, handler: HandlerCompiler, area: Argument, address: Argument) -> None:
        """Drop a page from a TLB."""
        handler.call_function(machine_access.forget_in_area, [_state(handler), area, address])

    # Memory ---------------------------------------------------------------------------------------------

    def load(self, handler: HandlerCompiler, kind: ir.ValueType, address: Argument) -> Value:
        """A load of any alignment in the guest's byte order."""
        return self._ordered(handler, handler.model.load(handler, kind, self.address(handler, address)))

    def store(self, handler: HandlerCompiler, kind: ir.ValueType, address: Argument, value: Argument) -> None:
        """A store of any alignment in the guest's byte order."""
        stored = self._ordered(handler, handler.stored(value, kind))
        handler.model.store(handler, stored, self.address(handler, address))

    def require_aligned(self, handler: HandlerCompiler, address: Argument, size: Argument) -> None:
        """Stop unless an address is a multiple of a power of two."""
        guest = self.address(handler, address)
        rest = handler.body.emit(f"and i64 {guest}, {size - 1}")
        good = handler.require(handler.body.emit(f"icmp eq i64 {rest}, 0"))
        handler.store_slot(Slot.FAULT_ADDRESS, guest)
        handler.store_slot(Slot.FAULT_ACCESS, int(Access.WRITE))
        handler.stop(StopReason.MISALIGNED)
        handler.body.open(good)

    def exchange(
        self, handler: HandlerCompiler, operation: Argument, address: Argument, value: Argument
    ) -> Value:
        """An atomic read-modify-write."""
        _check_width(value)
        name = _EXCHANGES.get(operation) or operation
        if self.isa.byte_order == "big" and operation not in _BITWISE:
            raise TypedPythonError(f"big-endian memory has no atomic {operation}: use compare_exchange")
        ordered = self._ordered(handler, value)
        old = handler.model.exchange(handler, name, self.address(handler, address), ordered)
        return handler.cast(self._ordered(handler, old), u64)

    def compare_exchange(
        self, handler: HandlerCompiler, address: Argument, expected: Argument, value: Argument
    ) -> Value:
        """An atomic compare-and-swap."""
        _check_width(value)
        wanted = self._ordered(handler, handler.typed(expected, value.type))
        ordered = self._ordered(handler, value)
        return handler.model.compare_exchange(handler, self.address(handler, address), wanted, ordered)

    def _ordered(self, handler: HandlerCompiler, value: Value) -> Value:
        """From the host's byte order to the guest's, or back."""
        if self.isa.byte_order == "little" or ir.bit_width(value.type) == 8:
            return value
        kind = ir.llvm_type(value.type)
        return handler.body.value(f"call {kind} @llvm.bswap.{kind}({value.operand})", value.type)


def _check_width(value: Argument) -> None:
    if not isinstance(value, Value) or value.type not in (u8, u16, u32, u64):
        raise TypedPythonError("an atomic operation wants a value of type u8, u16, u32 or u64")


def _handler(compiler: FunctionCompiler) -> HandlerCompiler:
    if not isinstance(compiler, HandlerCompiler):
        raise TypedPythonError("only the semantics of an instruction have a processor")
    return compiler


def _state(handler: HandlerCompiler) -> Value:
    return handler.body.value("ptrtoint ptr %state to i64", u64)


def _load_method(kind: ir.ValueType) -> Callable[..., Value]:
    return lambda target, handler, address: target.load(handler, kind, address)


def _store_method(kind: type[FixedInteger]) -> Callable[..., None]:
    return lambda target, handler, address, value: target.store(handler, kind, address, value)


_METHODS: dict[str, Callable[..., Value | None]] = {
    "jump": InterpreterTarget.jump,
    "delayed_jump": InterpreterTarget.delayed_jump,
    "delayed_branch": InterpreterTarget.delayed_branch,
    "annul": InterpreterTarget.annul,
    "branch": InterpreterTarget.branch,
    "system_call": InterpreterTarget.system_call,
    "breakpoint": InterpreterTarget.breakpoint,
    "illegal": InterpreterTarget.illegal,
    "trap": InterpreterTarget.trap,
    "synchronize_code": InterpreterTarget.synchronize_code,
    "fence": InterpreterTarget.fence,
    "cycle_counter": InterpreterTarget.cycle_counter,
    "time_counter": InterpreterTarget.time_counter,
    "require_aligned": InterpreterTarget.require_aligned,
    "attend": InterpreterTarget.attend,
    "enter": InterpreterTarget.enter,
    "wait": InterpreterTarget.wait,
    "set_alarm": InterpreterTarget.set_alarm,
    "want_attention": InterpreterTarget.want_attention,
    "load_physical": InterpreterTarget.load_physical,
    "update_physical": InterpreterTarget.update_physical,
    "use_area": InterpreterTarget.use_area,
    "forget_area": InterpreterTarget.forget_area,
    "forget_page": InterpreterTarget.forget_page,
    "exchange": InterpreterTarget.exchange,
    "compare_exchange": InterpreterTarget.compare_exchange,
    **{f"load{bits}": _load_method(kind) for bits, kind in ((8, u8), (16, u16), (32, u32), (64, u64))},
    **{f"store{bits}": _store_method(kind) for bits, kind in ((8, u8), (16, u16), (32, u32), (64, u64))},
}
