"""The flat memory model: the host's page tables are the guest's, and faults of the host stop it precisely."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.jit import ir
from anyvirt.jit.layout import NO_CODE, Access, Slot, StopReason
from anyvirt.jit.memory_model import MemoryModel, atomic_compare_exchange, atomic_exchange

if TYPE_CHECKING:
    from anyvirt.jit.handlers import HandlerCompiler
    from anyvirt.jit.ir import Value


class FlatModel(MemoryModel):
    """`%memory` is the host address of guest address 0, and `%records` that of its record: both constant."""

    def program_counter(self, handler: HandlerCompiler) -> str:
        """Address of this instruction."""
        body = handler.body
        here, base = (body.emit(f"ptrtoint ptr {name} to i64") for name in ("%record", "%records"))
        return body.emit(f"lshr exact i64 {body.emit(f'sub i64 {here}, {base}')}, {handler.records.shift}")

    def note_count(self, handler: HandlerCompiler) -> None:
        """For the host's fault handler."""
        slot = handler.slot(Slot.FAULT_COUNT)
        handler.body.effect(f"store volatile i64 {handler.remaining}, ptr {slot}")

    def jump(self, handler: HandlerCompiler, address: str) -> None:
        """One comparison, then the address says where the record is."""
        body = handler.body
        inside = body.emit(f"icmp ult i64 {address}, {handler.load_slot(Slot.MEMORY_SIZE)}")
        good = handler.require(inside)
        handler.store_slot(Slot.FAULT_ADDRESS, address)
        handler.store_slot(Slot.FAULT_ACCESS, NO_CODE)
        handler.leave(StopReason.ACCESS_FAULT, "%record", handler.remaining)
        body.open(good)
        offset = body.emit(f"shl i64 {address}, {handler.records.shift}")
        handler.arrive(body.emit(f"getelementptr i8, ptr %records, i64 {offset}"))

    def branch(self, handler: HandlerCompiler, offset: str) -> None:
        """Guards around the records catch what leaves the address space by a near branch without wrapping."""
        if handler.address_bits < 64 or handler.branches_far:
            target = handler.body.emit(f"add i64 {handler.program_counter()}, {offset}")
            self.jump(handler, handler.wrapped(target))
            return
        scaled = handler.body.emit(f"shl i64 {offset}, {handler.records.shift}")
        handler.arrive(handler.body.emit(f"getelementptr i8, ptr %record, i64 {scaled}"))

    def load(self, handler: HandlerCompiler, kind: ir.ValueType, address: str) -> Value:
        """The host's own load."""
        pointer = self._pointer(handler, address, Access.READ)
        return handler.body.value(f"load volatile {ir.llvm_type(kind)}, ptr {pointer}, align 1", kind)

    def store(self, handler: HandlerCompiler, value: Value, address: str) -> None:
        """The host's own store."""
        pointer = self._pointer(handler, address, Access.WRITE)
        handler.body.effect(f"store volatile {value.operand}, ptr {pointer}, align 1")

    def exchange(self, handler: HandlerCompiler, operation: str, address: str, value: Value) -> Value:
        """Some operations become a loop that begins with a load; a fault is a store's all the same."""
        pointer = self._pointer(handler, address, Access.WRITE)
        slot = handler.slot(Slot.INTENT)
        handler.body.effect(f"store volatile i64 {1 + Access.WRITE}, ptr {slot}")
        old = atomic_exchange(handler, operation, pointer, value)
        handler.store_slot(Slot.INTENT, 0)
        return old

    def compare_exchange(
        self, handler: HandlerCompiler, address: str, expected: Value, value: Value
    ) -> Value:
        """The host's own."""
        pointer = self._pointer(handler, address, Access.WRITE)
        return atomic_compare_exchange(handler, pointer, expected, value)

    def _pointer(self, handler: HandlerCompiler, address: str, access: Access) -> str:
        """The host's pointer for a guest address; the record is noted for a fault to be precise."""
        body = handler.body
        inside = body.emit(f"icmp ult i64 {address}, {handler.load_slot(Slot.MEMORY_SIZE)}")
        good = handler.require(inside)
        handler.store_slot(Slot.FAULT_ADDRESS, address)
        handler.store_slot(Slot.FAULT_ACCESS, int(access))
        handler.stop(StopReason.ACCESS_FAULT)
        body.open(good)
        body.effect(f"store volatile ptr %record, ptr {handler.slot(Slot.FAULT_RECORD)}")
        return body.emit(f"getelementptr i8, ptr %memory, i64 {address}")
