"""The machine memory model: one inline look at a TLB, and everything else out of line.

A handler whose access misses the TLB has changed nothing yet, so it leaves the whole instruction to its *slow
twin*: the same semantics, with a call for each access. That keeps calls, and with them stack frames and saved
registers, out of handlers. Where an instruction has changed something before an access, the call is made on
the spot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.jit import ir
from anyvirt.jit.ir import LIKELY, Value
from anyvirt.jit.layout import PAGE_SIZE, Access, Slot
from anyvirt.jit.machine_access import (
    after_atomic,
    atomic_pointer,
    compare_exchange64,
    device_access,
    full_fence,
    slow_load,
    slow_store,
    translate,
)
from anyvirt.jit.machine_layout import (
    CODE_ENTRIES,
    CODE_TABLE,
    DATA_ENTRIES,
    FAILED,
    LOOKUP,
    PAGE_BITS,
    CodeEntry,
    DataEntry,
)
from anyvirt.jit.memory_model import MemoryModel, atomic_compare_exchange, atomic_exchange
from anyvirt.jit.one_level_translation import translate_one_level
from anyvirt.typed import u64

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.jit.frontend import FunctionCompiler, Module
    from anyvirt.jit.handlers import HandlerCompiler
    from anyvirt.jit.target import Argument

_IN_PAGE = PAGE_SIZE - 1


class MachineModel(MemoryModel):
    """`%memory` is the address of the CPU's TLBs, and `%records` belongs to the page of the instruction."""

    def __init__(self, *, slow: bool = False) -> None:
        """`slow` makes it the model of slow twins."""
        self._slow = slow

    def program_counter(self, handler: HandlerCompiler) -> str:
        """Address of this instruction."""
        body = handler.body
        here, base = (body.emit(f"ptrtoint ptr {name} to i64") for name in ("%record", "%records"))
        return body.emit(f"ashr exact i64 {body.emit(f'sub i64 {here}, {base}')}, {handler.records.shift}")

    def note_count(self, handler: HandlerCompiler) -> None:
        """Nothing: no fault of the host ends an instruction."""

    # Control --------------------------------------------------------------------------------------------

    def jump(self, handler: HandlerCompiler, address: str) -> None:
        """Ask the TLB for the records of the page."""
        body = handler.body
        scale = CodeEntry.SIZE.bit_length() - 1
        index = body.emit(f"lshr i64 {address}, {PAGE_BITS - scale}")
        index = body.emit(f"and i64 {index}, {(CODE_ENTRIES - 1) << scale}")
        table = body.emit(f"getelementptr i8, ptr %memory, i64 {CODE_TABLE}")
        entry = body.emit(f"getelementptr i8, ptr {table}, i64 {index}")
        page = body.emit(f"and i64 {address}, {~_IN_PAGE}")
        good = handler.require(body.emit(f"icmp eq i64 {page}, {body.emit(f'load i64, ptr {entry}')}"))
        handler.store_slot(Slot.TARGET, address)
        handler.tail_call(f"@{LOOKUP}", "%record", handler.remaining)
        body.open(good)
        place = body.emit(f"getelementptr i8, ptr {entry}, i64 {int(CodeEntry.RECORDS)}")
        records = body.emit(f"load ptr, ptr {place}")
        offset = body.emit(f"shl i64 {address}, {handler.records.shift}")
        handler.arrive(body.emit(f"getelementptr i8, ptr {records}, i64 {offset}"), records)

    def branch(self, handler: HandlerCompiler, offset: str) -> None:
        """Within a page as in flat memory; records of a page fill the first half of an aligned stride."""
        body = handler.body
        scaled = body.emit(f"shl i64 {offset}, {handler.records.shift}")
        target = body.emit(f"getelementptr i8, ptr %record, i64 {scaled}")
        here, there = (body.emit(f"ptrtoint ptr {name} to i64") for name in ("%record", target))
        differs = body.emit(f"xor i64 {here}, {there}")
        good = handler.require(body.emit(f"icmp ult i64 {differs}, {PAGE_SIZE << handler.records.shift}"))
        self.jump(handler, handler.wrapped(body.emit(f"add i64 {self.program_counter(handler)}, {offset}")))
        body.open(good)
        handler.arrive(target)

    # Accesses -------------------------------------------------------------------------------------------

    def load(self, handler: HandlerCompiler, kind: ir.ValueType, address: str) -> Value:
        """A load in RAM through the TLB, or by a function."""
        size, llvm = ir.bit_width(kind) // 8, ir.llvm_type(kind)

        def slow() -> str:
            wide = self._call(handler, slow_load, address, str(size))
            return wide if llvm == "i64" else handler.body.emit(f"trunc i64 {wide} to {llvm}")

        def fast(pointer: str) -> str:
            return handler.body.emit(f"load volatile {llvm}, ptr {pointer}, align 1")

        return Value(self._access(handler, Access.READ, address, size, llvm, fast, slow), kind)

    def store(self, handler: HandlerCompiler, value: Value, address: str) -> None:
        """A store in RAM through the TLB, or by a function."""
        size = ir.bit_width(value.type) // 8

        def slow() -> str:
            wide = value.text if size == 8 else handler.body.emit(f"zext {value.operand} to i64")
            return self._call(handler, slow_store, address, str(size), wide)

        def fast(pointer: str) -> str:
            handler.body.effect(f"store volatile {value.operand}, ptr {pointer}, align 1")
            return ""

        self._access(handler, Access.WRITE, address, size, "", fast, slow)

    def exchange(self, handler: HandlerCompiler, operation: str, address: str, value: Value) -> Value:
        """Only in RAM."""

        def act(pointer: str) -> str:
            return atomic_exchange(handler, operation, pointer, value).text

        return Value(self._atomic(handler, address, value, ir.llvm_type(value.type), act), value.type)

    def compare_exchange(
        self, handler: HandlerCompiler, address: str, expected: Value, value: Value
    ) -> Value:
        """Only in RAM."""

        def act(pointer: str) -> str:
            return atomic_compare_exchange(handler, pointer, expected, value).text

        return Value(self._atomic(handler, address, value, "i1", act), bool)

    def _atomic(
        self, handler: HandlerCompiler, address: str, value: Value, result: str, act: Callable[[str], str]
    ) -> str:
        size = ir.bit_width(value.type) // 8

        def slow() -> str:
            place = self._call(handler, atomic_pointer, address, str(size))
            text = act(handler.body.emit(f"inttoptr i64 {place} to ptr"))
            self._call(handler, after_atomic, address, str(size))
            return text

        text = self._access(handler, Access.WRITE, address, size, result, act, slow)
        handler.note_change()
        return text

    def _access(
        self,
        handler: HandlerCompiler,
        access: Access,
        address: str,
        size: int,
        result: str,
        fast: Callable[[str], str],
        slow: Callable[[], str],
    ) -> str:
        """Do one of two things, depending on the TLB; `result` is the LLVM type of their result, or ""."""
        if self._slow:
            return slow()
        body = handler.body
        hit, miss = body.fresh("hit"), body.fresh("miss")
        entry, condition = self._look_up(handler, access, address, size)
        body.branch_if(condition, hit, miss, hint=LIKELY)
        ends: list[tuple[str, str]] = []
        done = body.fresh("done")
        body.open(miss)
        if handler.has_changed:
            ends.append((slow(), body.label))
            body.branch(done)
        else:
            handler.leave_to_twin()
        body.open(hit)
        place = body.emit(f"getelementptr i8, ptr {entry}, i64 {int(DataEntry.ADDEND)}")
        host = body.emit(f"add i64 {body.emit(f'load i64, ptr {place}')}, {address}")
        text = fast(body.emit(f"inttoptr i64 {host} to ptr"))
        if not ends:
            return text
        ends.append((text, body.label))
        body.branch(done)
        body.open(done)
        if not result:
            return ""
        return body.emit(f"phi {result} {', '.join(f'[{name}, %{label}]' for name, label in ends)}")

    def _look_up(self, handler: HandlerCompiler, access: Access, address: str, size: int) -> tuple[str, str]:
        """Pointer to the entry for an address, and whether it allows the access."""
        body = handler.body
        scale = DataEntry.SIZE.bit_length() - 1
        index = body.emit(f"lshr i64 {address}, {PAGE_BITS - scale}")
        index = body.emit(f"and i64 {index}, {(DATA_ENTRIES - 1) << scale}")
        entry = body.emit(f"getelementptr i8, ptr %memory, i64 {index}")
        last = address if size == 1 else body.emit(f"add i64 {address}, {size - 1}")
        page = body.emit(f"and i64 {last}, {~_IN_PAGE}")
        field = DataEntry.READ if access is Access.READ else DataEntry.WRITE
        place = body.emit(f"getelementptr i8, ptr {entry}, i64 {int(field)}")
        return entry, body.emit(f"icmp eq i64 {page}, {body.emit(f'load i64, ptr {place}')}")

    def _call(self, handler: HandlerCompiler, function: Callable[..., object], *arguments: str) -> str:
        """Call a function of `machine_access`, and end the instruction if it could not do its work."""
        body = handler.body
        symbol = handler.module.add(function, attributes="noinline nounwind")
        state = body.emit("ptrtoint ptr %state to i64")
        passed = ", ".join(f"i64 {text}" for text in (state, *arguments))
        result = ""
        if function in (slow_load, atomic_pointer):
            result = body.emit(f"call i64 {symbol}({passed})")
        else:
            body.effect(f"call void {symbol}({passed})")
        good = handler.require(body.emit(f"icmp eq i64 {handler.load_slot(Slot.OUTCOME)}, 0"))
        handler.tail_call(f"@{FAILED}", "%record", "%count")
        body.open(good)
        return result


def bind_machine_words(
    module: Module, translation: Callable[[FunctionCompiler, list[Argument]], Argument] | None = None
) -> None:
    """Give the functions that `machine_access` leaves open their meaning; `translation` emits `translate`."""
    intrinsics = module.target.intrinsics

    def emit_one_level(compiler: FunctionCompiler, arguments: list[Argument]) -> Argument:
        return compiler.call_function(translate_one_level, arguments)

    def emit_exchange(compiler: FunctionCompiler, arguments: list[Argument]) -> Value:
        address, expected, value = compiler.typed_arguments(arguments, [u64] * 3)
        pointer = compiler.body.emit(f"inttoptr i64 {address.text} to ptr")
        pair = compiler.body.emit(
            f"cmpxchg ptr {pointer}, {expected.operand}, {value.operand} seq_cst seq_cst, align 8"
        )
        return compiler.body.value(f"extractvalue {{ i64, i1 }} {pair}, 1", bool)

    def emit_device_access(compiler: FunctionCompiler, arguments: list[Argument]) -> Value:
        values = compiler.typed_arguments(arguments, [u64] * 6)
        passed = ", ".join(value.operand for value in values)
        return compiler.body.value(f"call i64 @call.outside({passed})", u64)

    def emit_fence(compiler: FunctionCompiler, arguments: list[Argument]) -> None:
        compiler.typed_arguments(arguments, [])
        compiler.body.effect("fence seq_cst")

    intrinsics[translate] = translation or emit_one_level
    intrinsics[compare_exchange64] = emit_exchange
    intrinsics[device_access] = emit_device_access
    intrinsics[full_fence] = emit_fence
