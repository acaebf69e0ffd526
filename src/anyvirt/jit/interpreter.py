"""The interpreter tier: one machine-code handler for each instruction form, each jumping to the next.

A handler gets state block, record, memory base, instruction budget and record base in registers, does
its instruction on the state block, and tail-calls the handler of the next record (`musttail` with
`preserve_nonecc`, which leaves every register free). There is no dispatch loop.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyvirt.isa import ieee754
from anyvirt.jit import ir
from anyvirt.jit.frontend import FunctionCompiler, Module
from anyvirt.jit.ir import LIKELY, Value
from anyvirt.jit.layout import NO_CODE, RECORD_SCALE, SYNCHRONIZE, Access, Slot, StateLayout, StopReason
from anyvirt.jit.records import operand_slots, sunk_operands
from anyvirt.jit.target import Target
from anyvirt.typed import FixedInteger, TypedPythonError, f32, f64, u8, u16, u32, u64

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.isa.description import InstructionSet
    from anyvirt.jit.target import Argument

CONVENTION = "preserve_nonecc"
PARAMETERS = "ptr %state, ptr %record, ptr %memory, i64 %count, ptr %records"
_NEAREST_AWAY = int(ieee754.Rounding.NEAREST_AWAY)
_TOWARDS_ZERO = int(ieee754.Rounding.TOWARDS_ZERO)
_EXCHANGES = {"swap": "xchg", "minu": "umin", "maxu": "umax"}
_COMPARISONS = {"==": ("fcmp", "oeq"), "<": ("fcmps", "olt"), "<=": ("fcmps", "ole")}
_INTEGERS = {"s32": (32, True), "u32": (32, False), "s64": (64, True), "u64": (64, False)}
_CLOCK_MONOTONIC, _CLOCK_GETTIME = 1, 228


@dataclass(frozen=True)
class Features:
    """What of the host's processor and of the run decides about the code of handlers."""

    counted: bool
    """Count instructions and stop exactly when the budget is used up."""
    fma: bool
    """The host has fused multiply-add."""


@dataclass(frozen=True, slots=True)
class RecordOperand(Value):
    """An operand read from the record: a value, and for the target also a name."""

    name: str = ""


class HandlerCompiler(FunctionCompiler):
    """Compiles the semantics of one instruction form into its handler."""

    def __init__(
        self, module: Module, target: InterpreterTarget, semantics: Callable[..., None], length: int
    ) -> None:
        super().__init__(module, semantics)
        self.interpreter = target
        self.length = length
        self.sunk = sunk_operands(target.isa, semantics)
        self.remaining = "%count"
        self._slots = operand_slots(module, semantics)

    def handler(self, name: str) -> str:
        """The LLVM definition of the handler."""
        if self.interpreter.features.counted:
            self._count_down()
        text = self.compile_with({name: self._operand(name) for name in self._slots})
        attributes = "nounwind strictfp" if "constrained" in text else "nounwind"
        return f"define internal {CONVENTION} void @{name}({PARAMETERS}) {attributes} {{\n{text}\n}}\n"

    def _count_down(self) -> None:
        """Stop before the instruction if the budget is used up, otherwise use up one."""
        body = self.body
        enough, empty = body.fresh("enough"), body.fresh("empty")
        body.branch_if(body.emit("icmp ne i64 %count, 0"), enough, empty, hint=LIKELY)
        body.open(empty)
        self.leave(StopReason.BUDGET, "%record", "%count")
        body.open(enough)
        self.remaining = body.emit("sub i64 %count, 1")
        body.effect(f"store volatile i64 {self.remaining}, ptr {self.slot(Slot.FAULT_COUNT)}")

    def _operand(self, name: str) -> RecordOperand:
        slot = self._slots[name]
        pointer = self.body.emit(f"getelementptr i8, ptr %record, i64 {slot.offset}")
        value = self.body.emit(f"load {slot.llvm}, ptr {pointer}")
        if slot.llvm == ir.llvm_type(slot.type):
            return RecordOperand(value, slot.type, name)
        extension = "sext" if slot.llvm == "i32" else "zext"
        extended = self.body.emit(f"{extension} {slot.llvm} {value} to {ir.llvm_type(slot.type)}")
        return RecordOperand(extended, slot.type, name)

    # Control --------------------------------------------------------------------------------------------

    def slot(self, slot: int) -> str:
        """Pointer to a field of the state block."""
        return self.body.emit(f"getelementptr i8, ptr %state, i64 {int(slot)}")

    def load_slot(self, slot: int) -> str:
        """The 64 bits of a field of the state block."""
        return self.body.emit(f"load i64, ptr {self.slot(slot)}")

    def store_slot(self, slot: int, text: str | int) -> None:
        """Set a field of the state block."""
        self.body.effect(f"store i64 {text}, ptr {self.slot(slot)}")

    def finish(self) -> None:
        """Go on to the next instruction in memory."""
        self.dispatch(self.next_record())

    def next_record(self) -> str:
        """The record behind this one."""
        return self.body.emit(f"getelementptr i8, ptr %record, i64 {self.length * RECORD_SCALE}")

    def dispatch(self, record: str) -> None:
        """Continue with the handler of a record."""
        handler = self.body.emit(f"load ptr, ptr {record}")
        self._tail_call(handler, record, self.remaining)

    def _tail_call(self, function: str, record: str, count: str) -> None:
        arguments = f"ptr %state, ptr {record}, ptr %memory, i64 {count}, ptr %records"
        self.body.effect(f"musttail call {CONVENTION} void {function}({arguments})")
        self.body.close("ret void")

    def leave(self, reason: int, record: str, count: str) -> None:
        """End the run; it can go on at `record` with `count`."""
        self.store_slot(Slot.REASON, int(reason))
        exit_code = self.body.emit(f"load ptr, ptr {self.slot(Slot.LEAVE)}")
        self._tail_call(exit_code, record, count)

    def stop(self, reason: StopReason) -> None:
        """End the run at this instruction, which has not been executed."""
        self.leave(reason, "%record", "%count")

    def arrive(self, record: str) -> None:
        """Continue elsewhere, unless somebody wants the run to end: the point where loops can be stopped."""
        body = self.body
        pending = body.emit(f"load atomic i64, ptr {self.slot(Slot.PENDING)} monotonic, align 8")
        onward, stopped = body.fresh("onward"), body.fresh("stopped")
        body.branch_if(body.emit(f"icmp eq i64 {pending}, 0"), onward, stopped, hint=LIKELY)
        body.open(stopped)
        self.leave(StopReason.INTERRUPTED, record, self.remaining)
        body.open(onward)
        self.dispatch(record)

    def require(self, condition: str) -> str:
        """Go on only where `condition` holds; opens the block of the other case, returns the good label."""
        good, bad = self.body.fresh("good"), self.body.fresh("bad")
        self.body.branch_if(condition, good, bad, hint=LIKELY)
        self.body.open(bad)
        return good

    def program_counter(self) -> str:
        """Address of this instruction."""
        body = self.body
        here, base = (body.emit(f"ptrtoint ptr {name} to i64") for name in ("%record", "%records"))
        return body.emit(
            f"lshr exact i64 {body.emit(f'sub i64 {here}, {base}')}, {RECORD_SCALE.bit_length() - 1}"
        )


class InterpreterTarget(Target):
    """What `cpu` means in a handler."""

    def __init__(self, isa: InstructionSet, features: Features) -> None:
        super().__init__()
        self.isa = isa
        self.features = features
        self.layout = StateLayout.of(isa)

    # Attributes and registers ---------------------------------------------------------------------------

    def read_attribute(self, compiler: FunctionCompiler, name: str) -> Value:
        """Program counter, float environment or declared state."""
        handler = _handler(compiler)
        match name:
            case "pc":
                return Value(handler.program_counter(), u64)
            case "next_pc":
                text = handler.program_counter()
                return compiler.body.value(f"add i64 {text}, {handler.length}", u64)
            case "float_flags":
                return self._float_flags(handler)
            case "float_rounding":
                return compiler.body.value(f"trunc i64 {handler.load_slot(Slot.FLOAT_ROUNDING)} to i8", u8)
        if name not in self.layout.scalars:
            raise TypedPythonError(f"{self.isa.name} has no state {name}")
        return Value(handler.load_slot(self.layout.scalars[name][0]), u64)

    def write_attribute(self, compiler: FunctionCompiler, name: str, value: Argument) -> None:
        """Float environment or declared state."""
        handler = _handler(compiler)
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
        return compiler.body.value(f"load i64, ptr {self._register(compiler, name, index)}", u64)

    def write_element(self, compiler: FunctionCompiler, name: str, index: Argument, value: Argument) -> None:
        """Set a register; the zero register swallows it."""
        handler = _handler(compiler)
        file = self.isa.register_files.get(name)
        decoded = isinstance(index, RecordOperand) and index.name in handler.sunk
        if file is not None and file.zero is not None and not decoded:
            number = compiler.typed(index, u8)
            swallowed = compiler.body.emit(f"icmp eq i8 {number.text}, {file.zero}")
            text = f"select i1 {swallowed}, i8 {file.count}, i8 {number.text}"
            index = compiler.body.value(text, u8)
        pointer = self._register(compiler, name, index)
        compiler.body.effect(f"store i64 {compiler.typed(value, u64).text}, ptr {pointer}")

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
        emitter = _METHODS.get(name)
        if emitter is None:
            raise TypedPythonError(f"a processor cannot {name}")
        try:
            inspect.signature(emitter).bind(self, compiler, *arguments)
        except TypeError:
            raise TypedPythonError(f"{name} does not take {len(arguments)} argument(s)") from None
        return emitter(self, _handler(compiler), *arguments)

    def jump(self, handler: HandlerCompiler, target: Argument) -> None:
        """Continue at an address, which may be anything."""
        body, address = handler.body, handler.typed(target, u64).text
        inside = body.emit(f"icmp ult i64 {address}, {handler.load_slot(Slot.MEMORY_SIZE)}")
        good = handler.require(inside)
        handler.store_slot(Slot.FAULT_ADDRESS, address)
        handler.store_slot(Slot.FAULT_ACCESS, NO_CODE)
        handler.leave(StopReason.ACCESS_FAULT, "%record", handler.remaining)
        body.open(good)
        offset = body.emit(f"shl i64 {address}, {RECORD_SCALE.bit_length() - 1}")
        handler.arrive(body.emit(f"getelementptr i8, ptr %records, i64 {offset}"))

    def branch(self, handler: HandlerCompiler, offset: Argument) -> None:
        """Continue at a distance that is within BRANCH_REACH: guards around the records catch the rest."""
        if not isinstance(offset, RecordOperand):
            raise TypedPythonError("branch wants an operand of the instruction as its offset")
        scaled = handler.body.emit(f"shl i64 {offset.text}, {RECORD_SCALE.bit_length() - 1}")
        handler.arrive(handler.body.emit(f"getelementptr i8, ptr %record, i64 {scaled}"))

    def system_call(self, handler: HandlerCompiler) -> None:
        """Stop; the call counts as executed. Its length goes along."""
        handler.store_slot(Slot.FAULT_ADDRESS, handler.length)
        handler.leave(StopReason.SYSTEM_CALL, "%record", handler.remaining)

    def breakpoint(self, handler: HandlerCompiler) -> None:
        """Stop. The length of the instruction goes along."""
        handler.store_slot(Slot.FAULT_ADDRESS, handler.length)
        handler.stop(StopReason.BREAKPOINT)

    def illegal(self, handler: HandlerCompiler) -> None:
        """Stop."""
        handler.stop(StopReason.ILLEGAL_INSTRUCTION)

    def synchronize_code(self, handler: HandlerCompiler) -> None:
        """Let the executor forget what was decoded, then go on behind this instruction."""
        handler.leave(SYNCHRONIZE, handler.next_record(), handler.remaining)

    def fence(self, handler: HandlerCompiler) -> None:
        """A full barrier."""
        handler.body.effect("fence seq_cst")

    def cycle_counter(self, handler: HandlerCompiler) -> Value:
        """The host's, or in counting runs the instructions executed before this one."""
        if not self.features.counted:
            return handler.body.value("call i64 @llvm.readcyclecounter()", u64)
        return handler.body.value(f"sub i64 {handler.load_slot(Slot.RETIRED)}, %count", u64)

    def time_counter(self, handler: HandlerCompiler) -> Value:
        """clock_gettime(CLOCK_MONOTONIC) of the host."""
        body = handler.body
        pointer = body.emit(f"ptrtoint ptr {handler.slot(Slot.SCRATCH)} to i64")
        body.effect(
            f'call i64 asm sideeffect "syscall", "={{ax}},{{ax}},{{di}},{{si}},~{{rcx}},~{{r11}},~{{memory}}"'
            f"(i64 {_CLOCK_GETTIME}, i64 {_CLOCK_MONOTONIC}, i64 {pointer})"
        )
        seconds = body.emit(f"mul i64 {handler.load_slot(Slot.SCRATCH)}, 10000000")
        fraction = body.emit(f"udiv i64 {handler.load_slot(Slot.SCRATCH + 8)}, 100")
        return body.value(f"add i64 {seconds}, {fraction}", u64)

    # Memory ---------------------------------------------------------------------------------------------

    def guest_pointer(self, handler: HandlerCompiler, address: Argument, access: Access) -> str:
        """The host's pointer for a guest address; the record is noted for a fault to be precise."""
        body, guest = handler.body, handler.typed(address, u64).text
        inside = body.emit(f"icmp ult i64 {guest}, {handler.load_slot(Slot.MEMORY_SIZE)}")
        good = handler.require(inside)
        handler.store_slot(Slot.FAULT_ADDRESS, guest)
        handler.store_slot(Slot.FAULT_ACCESS, int(access))
        handler.stop(StopReason.ACCESS_FAULT)
        body.open(good)
        body.effect(f"store volatile ptr %record, ptr {handler.slot(Slot.FAULT_RECORD)}")
        return body.emit(f"getelementptr i8, ptr %memory, i64 {guest}")

    def load(self, handler: HandlerCompiler, kind: ir.ValueType, address: Argument) -> Value:
        """A little-endian load of any alignment."""
        pointer = self.guest_pointer(handler, address, Access.READ)
        return handler.body.value(f"load volatile {ir.llvm_type(kind)}, ptr {pointer}, align 1", kind)

    def store(self, handler: HandlerCompiler, kind: ir.ValueType, address: Argument, value: Argument) -> None:
        """A little-endian store of any alignment."""
        stored = handler.stored(value, kind)
        pointer = self.guest_pointer(handler, address, Access.WRITE)
        handler.body.effect(f"store volatile {stored.operand}, ptr {pointer}, align 1")

    def require_aligned(self, handler: HandlerCompiler, address: Argument, size: Argument) -> None:
        """Stop unless an address is a multiple of a power of two."""
        guest = handler.typed(address, u64).text
        rest = handler.body.emit(f"and i64 {guest}, {size - 1}")
        good = handler.require(handler.body.emit(f"icmp eq i64 {rest}, 0"))
        handler.store_slot(Slot.FAULT_ADDRESS, guest)
        handler.store_slot(Slot.FAULT_ACCESS, int(Access.WRITE))
        handler.stop(StopReason.MISALIGNED)
        handler.body.open(good)

    def exchange(
        self, handler: HandlerCompiler, operation: Argument, address: Argument, value: Argument
    ) -> Value:
        """An atomic read-modify-write of 32 or 64 bits."""
        width = _width(value)
        pointer = self.guest_pointer(handler, address, Access.WRITE)
        name = _EXCHANGES.get(operation, operation)
        self._intend_to_write(handler)
        old = handler.body.value(
            f"atomicrmw volatile {name} ptr {pointer}, {value.operand} seq_cst, align {width // 8}",
            value.type,
        )
        handler.store_slot(Slot.INTENT, 0)
        return handler.cast(old, u64)

    def _intend_to_write(self, handler: HandlerCompiler) -> None:
        """Some atomic operations become a loop that begins with a load; a fault is a store's all the same."""
        slot = handler.slot(Slot.INTENT)
        handler.body.effect(f"store volatile i64 {1 + Access.WRITE}, ptr {slot}")

    def compare_exchange(
        self, handler: HandlerCompiler, address: Argument, expected: Argument, value: Argument
    ) -> Value:
        """An atomic compare-and-swap of 32 or 64 bits."""
        width = _width(value)
        pointer = self.guest_pointer(handler, address, Access.WRITE)
        wanted = handler.typed(expected, value.type)
        pair = handler.body.emit(
            f"cmpxchg volatile ptr {pointer}, {wanted.operand}, {value.operand} "
            f"seq_cst seq_cst, align {width // 8}"
        )
        return handler.body.value(f"extractvalue {{ i{width}, i1 }} {pair}, 1", bool)

    # Floating point -------------------------------------------------------------------------------------

    def _float_flags(self, handler: HandlerCompiler) -> Value:
        return handler.body.value("call i8 @float.accrued(ptr %state)", u8)

    def raise_float_flags(self, handler: HandlerCompiler, flags: Argument) -> None:
        """Add exceptions to those found by software."""
        wide = handler.body.emit(f"zext i8 {handler.typed(flags, u8).text} to i64")
        self._add_flags(handler, wide)

    def _add_flags(self, handler: HandlerCompiler, wide: str) -> None:
        old = handler.load_slot(Slot.FLOAT_FLAGS)
        handler.store_slot(Slot.FLOAT_FLAGS, handler.body.emit(f"or i64 {old}, {wide}"))

    def arithmetic(
        self,
        handler: HandlerCompiler,
        name: str,
        software: Callable[..., object],
        width: int,
        operands: tuple[Argument, ...],
        rounding: Argument,
    ) -> Value:
        """An operation in the host's hardware if the rounding mode is the one set there, else in software."""
        body = handler.body
        mode = handler.typed(rounding, u8)
        dynamic = body.emit(f"trunc i64 {handler.load_slot(Slot.FLOAT_ROUNDING)} to i8")
        same = body.emit(f"icmp eq i8 {mode.text}, {dynamic}")
        possible = body.emit(f"icmp ult i8 {mode.text}, {_NEAREST_AWAY}")
        fast = body.emit(f"and i1 {same}, {possible}")
        values = [handler.typed(operand, u64) for operand in operands]
        return self._either(
            handler,
            fast,
            lambda: self._hardware(handler, name, width, values),
            lambda: self._software(handler, software, [Value(str(width), u8), *values, mode]),
        )

    def _either(
        self,
        handler: HandlerCompiler,
        fast: str,
        hardware: Callable[[], Value],
        software: Callable[[], Value],
    ) -> Value:
        """Compute in one of two ways, the first of which is expected."""
        body = handler.body
        labels = [body.fresh(hint) for hint in ("hardware", "software", "computed")]
        body.branch_if(fast, labels[0], labels[1], hint=LIKELY)
        results = []
        for label, compute in zip(labels, (hardware, software), strict=False):
            body.open(label)
            value = compute()
            results.append((value.text, body.label))
            body.branch(labels[2])
        body.open(labels[2])
        return body.value(f"phi i64 {', '.join(f'[{text}, %{label}]' for text, label in results)}", u64)

    def _hardware(self, handler: HandlerCompiler, name: str, width: int, values: list[Value]) -> Value:
        kind, suffix = _float_type(width)
        operands = ", ".join(f"{kind} {self._from_bits(handler, width, value)}" for value in values)
        result = handler.body.emit(
            f"call {kind} @llvm.experimental.constrained.{name}.{suffix}({operands}, {_ENVIRONMENT}) strictfp"
        )
        return self._canonical(handler, width, result)

    def _from_bits(self, handler: HandlerCompiler, width: int, value: Value) -> str:
        text = handler.body.emit(f"trunc i64 {value.text} to i32") if width == 32 else value.text
        return handler.body.emit(f"bitcast i{width} {text} to {_float_type(width)[0]}")

    def _to_bits(self, handler: HandlerCompiler, width: int, text: str) -> Value:
        encoded = handler.body.emit(f"bitcast {_float_type(width)[0]} {text} to i{width}")
        return handler.body.value(f"zext i32 {encoded} to i64", u64) if width == 32 else Value(encoded, u64)

    def _canonical(self, handler: HandlerCompiler, width: int, text: str) -> Value:
        """The encoding of a result, of which every NaN is the canonical one."""
        nan = self._compare(handler, "fcmp", "uno", width, text, text)
        encoded = self._to_bits(handler, width, text)
        canonical = int(ieee754.canonical_nan(u8(width)))
        return handler.body.value(f"select i1 {nan}, i64 {canonical}, i64 {encoded.text}", u64)

    def _compare(
        self, handler: HandlerCompiler, name: str, predicate: str, width: int, a: str, b: str
    ) -> str:
        kind, suffix = _float_type(width)
        return handler.body.emit(
            f"call i1 @llvm.experimental.constrained.{name}.{suffix}"
            f'({kind} {a}, {kind} {b}, metadata !"{predicate}", metadata !"fpexcept.strict") strictfp'
        )

    def _software(
        self, handler: HandlerCompiler, function: Callable[..., object], values: list[Value]
    ) -> Value:
        symbol = handler.module.add(function, attributes="noinline nounwind")
        arguments = ", ".join(value.operand for value in values)
        pair = handler.body.emit(f"call {{ i64, i8 }} {symbol}({arguments})")
        flags = handler.body.emit(f"extractvalue {{ i64, i8 }} {pair}, 1")
        self._add_flags(handler, handler.body.emit(f"zext i8 {flags} to i64"))
        return handler.body.value(f"extractvalue {{ i64, i8 }} {pair}, 0", u64)

    def fused(
        self, handler: HandlerCompiler, width: int, a: Argument, b: Argument, c: Argument, rounding: Argument
    ) -> Value:
        """Fused multiply-add; a NaN is left to software, which knows all about its flags."""
        values = [handler.typed(operand, u64) for operand in (a, b, c)]
        mode = handler.typed(rounding, u8)
        software = [Value(str(width), u8), *values, mode]
        if not self.features.fma:
            return self._software(handler, ieee754.fma, software)
        result = self.arithmetic(handler, "fma", ieee754.fma, width, (a, b, c), mode)
        canonical = int(ieee754.canonical_nan(u8(width)))
        number = handler.body.emit(f"icmp ne i64 {result.text}, {canonical}")
        return self._either(
            handler, number, lambda: result, lambda: self._software(handler, ieee754.fma, software)
        )

    def float_compare(
        self, handler: HandlerCompiler, comparison: Argument, width: int, a: Argument, b: Argument
    ) -> Value:
        """The host's comparisons have the flags that are wanted."""
        values = [self._from_bits(handler, width, handler.typed(operand, u64)) for operand in (a, b)]
        name, predicate = _COMPARISONS[comparison]
        return Value(self._compare(handler, name, predicate, width, *values), bool)

    def float_convert(
        self, handler: HandlerCompiler, width: int, target: int, a: Argument, rounding: Argument
    ) -> Value:
        """Between the two widths."""
        value = handler.typed(a, u64)
        if width < target:
            text = self._from_bits(handler, width, value)
            wide = handler.body.emit(
                "call double @llvm.experimental.constrained.fpext.f64.f32"
                f'(float {text}, metadata !"fpexcept.strict") strictfp'
            )
            return self._canonical(handler, target, wide)
        mode = handler.typed(rounding, u8)

        def narrow() -> Value:
            text = self._from_bits(handler, width, value)
            result = handler.body.emit(
                "call float @llvm.experimental.constrained.fptrunc.f32.f64"
                f"(double {text}, {_ENVIRONMENT}) strictfp"
            )
            return self._canonical(handler, target, result)

        arguments = [Value(str(width), u8), Value(str(target), u8), value, mode]
        return self._either(
            handler,
            self._is_dynamic(handler, mode),
            narrow,
            lambda: self._software(handler, ieee754.convert, arguments),
        )

    def _is_dynamic(self, handler: HandlerCompiler, mode: Value) -> str:
        """Whether the host's hardware is set to a rounding mode."""
        dynamic = handler.body.emit(f"trunc i64 {handler.load_slot(Slot.FLOAT_ROUNDING)} to i8")
        same = handler.body.emit(f"icmp eq i8 {mode.text}, {dynamic}")
        possible = handler.body.emit(f"icmp ult i8 {mode.text}, {_NEAREST_AWAY}")
        return handler.body.emit(f"and i1 {same}, {possible}")

    def float_to_integer(
        self, handler: HandlerCompiler, width: int, target: Argument, a: Argument, rounding: Argument
    ) -> Value:
        """Truncation of what is in range in hardware; rounding otherwise and saturation in software."""
        body, (bits, signed) = handler.body, _INTEGERS[target]
        value, mode = handler.typed(a, u64), handler.typed(rounding, u8)
        text = self._from_bits(handler, width, value)
        truncates = body.emit(f"icmp eq i8 {mode.text}, {_TOWARDS_ZERO}")
        # A comparison that is false for NaNs and raises nothing for quiet ones; others raise invalid anyway.
        limit = bits - 1 if signed else min(bits, 63)
        low = self._compare(
            handler, "fcmp", "oge", width, text, _float_constant(-(2.0**limit) if signed else 0.0, width)
        )
        high = self._compare(handler, "fcmp", "olt", width, text, _float_constant(2.0**limit, width))
        fast = body.emit(f"and i1 {truncates}, {body.emit(f'and i1 {low}, {high}')}")

        def truncate() -> Value:
            kind, suffix = _float_type(width)
            result = body.emit(
                f"call i64 @llvm.experimental.constrained.fptosi.i64.{suffix}"
                f'({kind} {text}, metadata !"fpexcept.strict") strictfp'
            )
            if bits == 64:
                return Value(result, u64)
            return body.value(f"sext i32 {body.emit(f'trunc i64 {result} to i32')} to i64", u64)

        arguments = [
            Value(str(width), u8), Value(str(bits), u8), Value(str(signed).lower(), bool), value, mode,
        ]  # fmt: skip
        return self._either(
            handler, fast, truncate, lambda: self._software(handler, ieee754.to_integer, arguments)
        )

    def float_from_integer(
        self, handler: HandlerCompiler, width: int, source: Argument, a: Argument, rounding: Argument
    ) -> Value:
        """Signed conversion in hardware, also of unsigned numbers where the sign bit is free."""
        body, (bits, signed) = handler.body, _INTEGERS[source]
        value, mode = handler.typed(a, u64), handler.typed(rounding, u8)
        wide = value.text
        if bits == 32:
            extension = "sext" if signed else "zext"
            wide = body.emit(f"{extension} i32 {body.emit(f'trunc i64 {wide} to i32')} to i64")
        fast = self._is_dynamic(handler, mode)
        if bits == 64 and not signed:
            fast = body.emit(f"and i1 {fast}, {body.emit(f'icmp sge i64 {wide}, 0')}")

        def convert() -> Value:
            kind, suffix = _float_type(width)
            result = body.emit(
                f"call {kind} @llvm.experimental.constrained.sitofp.{suffix}.i64"
                f"(i64 {wide}, {_ENVIRONMENT}) strictfp"
            )
            return self._to_bits(handler, width, result)

        arguments = [
            Value(str(width), u8), Value(str(bits), u8), Value(str(signed).lower(), bool), value, mode,
        ]  # fmt: skip
        return self._either(
            handler, fast, convert, lambda: self._software(handler, ieee754.from_integer, arguments)
        )


_ENVIRONMENT = 'metadata !"round.dynamic", metadata !"fpexcept.strict"'


def _float_type(width: int) -> tuple[str, str]:
    return ("float", "f32") if width == 32 else ("double", "f64")


def _float_constant(number: float, width: int) -> str:
    return ir.constant(f32(number) if width == 32 else f64(number)).text


def _width(value: Argument) -> int:
    if not isinstance(value, Value) or value.type not in (u32, u64):
        raise TypedPythonError("an atomic operation wants a value of type u32 or u64")
    return ir.bit_width(value.type)


def _handler(compiler: FunctionCompiler) -> HandlerCompiler:
    if not isinstance(compiler, HandlerCompiler):
        raise TypedPythonError("only the semantics of an instruction have a processor")
    return compiler


def _load_method(kind: ir.ValueType) -> Callable[..., Value]:
    return lambda target, handler, address: target.load(handler, kind, address)


def _store_method(kind: type[FixedInteger]) -> Callable[..., None]:
    return lambda target, handler, address, value: target.store(handler, kind, address, value)


def _arithmetic_method(name: str, software: Callable[..., object]) -> Callable[..., Value]:
    return lambda target, handler, width, *operands: target.arithmetic(
        handler, name, software, width, operands[:-1], operands[-1]
    )


_METHODS: dict[str, Callable[..., Value | None]] = {
    "jump": InterpreterTarget.jump,
    "branch": InterpreterTarget.branch,
    "system_call": InterpreterTarget.system_call,
    "breakpoint": InterpreterTarget.breakpoint,
    "illegal": InterpreterTarget.illegal,
    "synchronize_code": InterpreterTarget.synchronize_code,
    "fence": InterpreterTarget.fence,
    "cycle_counter": InterpreterTarget.cycle_counter,
    "time_counter": InterpreterTarget.time_counter,
    "require_aligned": InterpreterTarget.require_aligned,
    "exchange": InterpreterTarget.exchange,
    "compare_exchange": InterpreterTarget.compare_exchange,
    "raise_float_flags": InterpreterTarget.raise_float_flags,
    "float_compare": InterpreterTarget.float_compare,
    "float_convert": InterpreterTarget.float_convert,
    "float_to_integer": InterpreterTarget.float_to_integer,
    "float_from_integer": InterpreterTarget.float_from_integer,
    "float_fma": InterpreterTarget.fused,
    "float_add": _arithmetic_method("fadd", ieee754.add),
    "float_subtract": _arithmetic_method("fsub", ieee754.subtract),
    "float_multiply": _arithmetic_method("fmul", ieee754.multiply),
    "float_divide": _arithmetic_method("fdiv", ieee754.divide),
    "float_sqrt": _arithmetic_method("sqrt", ieee754.sqrt),
    **{f"load{bits}": _load_method(kind) for bits, kind in ((8, u8), (16, u16), (32, u32), (64, u64))},
    **{f"store{bits}": _store_method(kind) for bits, kind in ((8, u8), (16, u16), (32, u32), (64, u64))},
}
