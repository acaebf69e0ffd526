"""The instrumented interpreter: what its handlers do besides their instruction.

Before an instruction it is noted as executed, and the CPU leaves if hooks want to see the beginning of a
block; before a memory access it leaves if hooks want to see that. Nothing of the instruction has happened
then, so it can be begun again, and passes what the hooks know already.
"""

from __future__ import annotations

import ast
import functools
import types
from typing import TYPE_CHECKING

from anyvirt.jit import ir
from anyvirt.jit.hook_layout import (
    ACCESS_EVENT,
    BLOCK_EVENT,
    AccessKind,
    BlockStart,
    Covered,
    Instrument,
)
from anyvirt.jit.layout import PAGE_SIZE, Slot
from anyvirt.jit.memory_model import MemoryModel
from anyvirt.jit.scope import function_tree, plain_function, static_object
from anyvirt.typed import load8, load64, store8, store64, u8, u64

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.jit.handlers import HandlerCompiler
    from anyvirt.jit.ir import Value


_TRANSFERS = frozenset(("jump", "branch", "delayed_jump", "delayed_branch", "annul"))


def begin_instruction(instruments: u64, pc: u64) -> u64:
    """Note that an instruction begins; not 0 if the CPU has to leave because a block does."""
    start = load64(instruments + Instrument.BLOCK)
    if start == BlockStart.YES and load64(instruments + Instrument.BLOCKS_WANTED) != 0:
        return u64(1)
    store64(instruments + Instrument.BLOCK, u64(BlockStart.NO))
    store64(instruments + Instrument.SEEN, u64(0))
    store64(instruments + Instrument.KNOWN, load64(instruments + Instrument.KNOWN_NEXT))
    store64(instruments + Instrument.KNOWN_NEXT, u64(0))
    covered = load64(instruments + Instrument.COVERED)
    if covered != 0:
        index = (pc - load64(instruments + Instrument.COVERED_LOW)) >> load64(
            instruments + Instrument.COVERED_SHIFT
        )
        if index < load64(instruments + Instrument.COVERED_COUNT):
            flags = u8(Covered.EXECUTED)
            if start != BlockStart.NO:
                flags = u8(Covered.BLOCK)
            store8(covered + index, load8(covered + index) | flags)
            store8(load64(instruments + Instrument.COVERED_PAGES) + index // PAGE_SIZE, u8(1))
    return u64(0)


def begin_access(instruments: u64, address: u64, size: u64, kind: u64, value: u64) -> u64:
    """Note that a memory access comes; not 0 if the CPU has to leave because hooks want to know of it."""
    seen = load64(instruments + Instrument.SEEN)
    store64(instruments + Instrument.SEEN, seen + 1)
    if seen < load64(instruments + Instrument.KNOWN):
        return u64(0)
    entry = instruments + Instrument.RANGES
    end = entry + load64(instruments + Instrument.RANGE_COUNT) * 24
    while entry < end:
        if (
            address <= load64(entry + 8)
            and address + (size - 1) >= load64(entry)
            and load64(entry + 16) & kind != 0
        ):
            store64(instruments + Instrument.ACCESS_ADDRESS, address)
            store64(instruments + Instrument.ACCESS_SIZE, size)
            store64(instruments + Instrument.ACCESS_KIND, kind)
            store64(instruments + Instrument.ACCESS_VALUE, value)
            return u64(1)
        entry += 24
    return u64(0)


@functools.cache
def may_transfer(semantics: Callable[..., None]) -> bool:
    """Whether an instruction may go on elsewhere than at the next one in memory; that one begins a block."""
    function = plain_function(semantics)
    tree = function_tree(function)
    processor = tree.args.args[0].arg
    return any(_transfers(function, processor, node) for node in ast.walk(tree) if isinstance(node, ast.Call))


def _transfers(function: types.FunctionType, processor: str, call: ast.Call) -> bool:
    """Whether a call is a transfer of control, or of a function that gets the processor and makes one."""
    match call:
        case ast.Call(func=ast.Attribute(value=ast.Name(id=owner), attr=method)) if owner == processor:
            return method in _TRANSFERS
        case ast.Call(func=ast.Name() as name, args=[ast.Name(id=first), *_]) if first == processor:
            called = static_object(function, name)
            return isinstance(called, types.FunctionType) and may_transfer(called)
    return False


class InstrumentedModel(MemoryModel):
    """A memory model whose accesses are watched and whose control transfers begin blocks."""

    def __init__(self, model: MemoryModel, *, ends_block: bool = False) -> None:
        """`ends_block`: the instruction behind this one begins a block, because this one may go elsewhere."""
        self._model = model
        self._ends_block = ends_block
        self._to_slot = False
        self.transfers = False
        """Whether the instruction may go on elsewhere."""

    def ending_blocks(self) -> InstrumentedModel:
        """The same for instructions that may go elsewhere."""
        return InstrumentedModel(self._model, ends_block=True)

    def program_counter(self, handler: HandlerCompiler) -> str:
        """See MemoryModel."""
        return self._model.program_counter(handler)

    def note_count(self, handler: HandlerCompiler) -> None:
        """See MemoryModel."""
        self._model.note_count(handler)

    def begin(self, handler: HandlerCompiler) -> None:
        """What comes before the instruction."""
        pc = self._model.program_counter(handler)
        self._leave_if(handler, begin_instruction, BLOCK_EVENT, f"i64 {pc}")

    def pass_by(self, handler: HandlerCompiler) -> None:
        """What comes before the next instruction in memory."""
        if self._ends_block:
            self.begin_block(handler)

    def toward_slot(self, now: bool) -> None:
        """See MemoryModel."""
        self.transfers = True
        self._to_slot = now

    def leave_block(self, handler: HandlerCompiler) -> None:
        """See MemoryModel."""
        self.transfers = True
        self.begin_block(handler)

    def begin_block(self, handler: HandlerCompiler) -> None:
        """The next instruction begins a block, unless it is in a delay slot."""
        if self._to_slot:
            return
        pointer = handler.body.emit(
            f"getelementptr i8, ptr {self._instruments(handler)}, i64 {int(Instrument.BLOCK)}"
        )
        handler.body.effect(f"store i64 {int(BlockStart.YES)}, ptr {pointer}")

    def jump(self, handler: HandlerCompiler, address: str) -> None:
        """See MemoryModel."""
        self.transfers = True
        self.begin_block(handler)
        self._model.jump(handler, address)

    def branch(self, handler: HandlerCompiler, offset: str) -> None:
        """See MemoryModel."""
        self.transfers = True
        self.begin_block(handler)
        self._model.branch(handler, offset)

    def load(self, handler: HandlerCompiler, kind: ir.ValueType, address: str) -> Value:
        """See MemoryModel."""
        self._watch(handler, address, ir.bit_width(kind) // 8, AccessKind.READ, "0")
        return self._model.load(handler, kind, address)

    def store(self, handler: HandlerCompiler, value: Value, address: str) -> None:
        """See MemoryModel."""
        self._watch_value(handler, address, AccessKind.WRITE, value)
        self._model.store(handler, value, address)

    def exchange(self, handler: HandlerCompiler, operation: str, address: str, value: Value) -> Value:
        """See MemoryModel."""
        self._watch_value(handler, address, AccessKind.READ | AccessKind.WRITE, value)
        return self._model.exchange(handler, operation, address, value)

    def compare_exchange(
        self, handler: HandlerCompiler, address: str, expected: Value, value: Value
    ) -> Value:
        """See MemoryModel."""
        self._watch_value(handler, address, AccessKind.READ | AccessKind.WRITE, value)
        return self._model.compare_exchange(handler, address, expected, value)

    def _watch_value(self, handler: HandlerCompiler, address: str, kind: AccessKind, value: Value) -> None:
        bits = ir.bit_width(value.type)
        wide = value.text if bits == 64 else handler.body.emit(f"zext i{bits} {value.text} to i64")
        self._watch(handler, address, bits // 8, kind, wide)

    def _watch(self, handler: HandlerCompiler, address: str, size: int, kind: AccessKind, value: str) -> None:
        arguments = f"i64 {address}, i64 {size}, i64 {int(kind)}, i64 {value}"
        self._leave_if(handler, begin_access, ACCESS_EVENT, arguments)

    def _leave_if(
        self, handler: HandlerCompiler, function: Callable[..., u64], reason: int, arguments: str
    ) -> None:
        """Leave before the instruction if a function of the instruments says so."""
        body = handler.body
        symbol = handler.module.add(function)
        instruments = body.emit(f"ptrtoint ptr {self._instruments(handler)} to i64")
        wanted = body.emit(f"call i64 {symbol}(i64 {instruments}, {arguments})")
        good = handler.require(body.emit(f"icmp eq i64 {wanted}, 0"))
        handler.leave(reason, "%record", "%count")
        body.open(good)

    @staticmethod
    def _instruments(handler: HandlerCompiler) -> str:
        return handler.body.emit(f"load ptr, ptr {handler.slot(Slot.INSTRUMENTS)}")
