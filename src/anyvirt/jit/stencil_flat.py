"""Flat memory in stencils: each access of the guest is one instruction of the host that may fault.

The access is inline assembly with two ways on: behind it, and, if the host's fault handler finds its address
in the fault table of an image, to where the interpreter executes the instruction anew. Nothing is stored on
the way that is normally taken. Jumps go through records as in the interpreter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.jit import ir
from anyvirt.jit.flat_model import FlatModel
from anyvirt.jit.ir import LIKELY, Value
from anyvirt.jit.layout import Access, Slot
from anyvirt.jit.stencil_layout import Hole
from anyvirt.jit.stencil_model import StencilModel

if TYPE_CHECKING:
    from anyvirt.jit.handlers import HandlerCompiler

ACCESSES = ".anyvirt.accesses"
"""Section with a pair of distances for each memory access: from it to the access, and to its way out."""
_SUFFIX = {8: "b", 16: "w", 32: "l", 64: "q"}
_MODIFIER = {8: "b", 16: "w", 32: "k", 64: "q"}
_LOADS = {8: "movzbl $1, ${0:k}", 16: "movzwl $1, ${0:k}", 32: "movl $1, ${0:k}", 64: "movq $1, $0"}
_EXCHANGES = {"xchg": "xchg", "add": "lock xadd"}
"""Atomic operations that are one instruction of the host and give the old content."""
_COMBINATIONS = {"and": "and", "or": "or", "xor": "xor"}
_SELECTIONS = {"min": "slt", "max": "sgt", "umin": "ult", "umax": "ugt"}


class StencilFlatModel(StencilModel):
    """`%memory` is the host address of guest address 0; guards of 2 GiB lie on both sides of guest memory."""

    def program_counter(self, handler: HandlerCompiler) -> str:
        """Known in each occurrence."""
        return self._stencil.body.constant(Hole.PC)

    def address_behind(self) -> str:
        """Known in each occurrence."""
        stencil, body = self._stencil, self._stencil.body
        if stencil.length:
            return body.constant(Hole.PC, stencil.length)
        return body.emit(f"add i64 {body.constant(Hole.PC)}, {stencil.length_text()}")

    def jump(self, handler: HandlerCompiler, address: str) -> None:
        """As in the interpreter."""
        self.end_block()
        FlatModel().jump(handler, address)

    def load(self, handler: HandlerCompiler, kind: ir.ValueType, address: str) -> Value:
        """A load that goes on elsewhere if it faults."""
        bits, pointer = ir.bit_width(kind), self._pointer(address)
        wide = "i32" if bits == 32 else "i64"
        loaded = self._access(wide, _LOADS[bits], "=r,*m", f"ptr elementtype(i{bits}) {pointer}")
        if bits >= 32:
            return Value(loaded, kind)
        return handler.body.value(f"trunc i64 {loaded} to i{bits}", kind)

    def store(self, handler: HandlerCompiler, value: Value, address: str) -> None:
        """A store that goes on elsewhere if it faults; from then on the instruction cannot begin anew."""
        bits, pointer = ir.bit_width(value.type), self._pointer(address)
        text, wide = value.text, max(bits, 32)
        if bits < 32:
            text = handler.body.emit(f"zext {value.operand} to i32")
        code = f"mov{_SUFFIX[bits]} ${{1:{_MODIFIER[bits]}}}, $0"
        self._access("void", code, "=*m,r", f"ptr elementtype(i{bits}) {pointer}, i{wide} {text}")
        self._stencil.note_change()

    def exchange(self, handler: HandlerCompiler, operation: str, address: str, value: Value) -> Value:
        """One instruction of the host, or a loop around compare-and-swap."""
        bits, kind = ir.bit_width(value.type), ir.llvm_type(value.type)
        if operation not in _EXCHANGES:
            return self._exchange_by_comparing(handler, operation, address, value)
        code = f"{_EXCHANGES[operation]}{_SUFFIX[bits]} ${{0:{_MODIFIER[bits]}}}, $1"
        arguments = f"ptr elementtype({kind}) {self._pointer(address)}, {value.operand}"
        old = self._access(kind, code, "=r,=*m,0,~{memory}", arguments)
        self._stencil.note_change()
        return Value(old, value.type)

    def _exchange_by_comparing(
        self, handler: HandlerCompiler, operation: str, address: str, value: Value
    ) -> Value:
        body = handler.body
        again, done = body.fresh("again"), body.fresh("done")
        body.branch(again)
        body.open(again)
        # The load only looks, but its fault is that of a write.
        intent = handler.slot(Slot.INTENT)
        body.effect(f"store volatile i64 {1 + Access.WRITE}, ptr {intent}")
        old = self.load(handler, value.type, address)
        body.effect(f"store volatile i64 0, ptr {intent}")
        if operation in _COMBINATIONS:
            new = body.emit(f"{_COMBINATIONS[operation]} {old.operand}, {value.text}")
        else:
            chosen = body.emit(f"icmp {_SELECTIONS[operation]} {old.operand}, {value.text}")
            new = body.emit(f"select i1 {chosen}, {old.operand}, {value.operand}")
        stored = self.compare_exchange(handler, address, old, Value(new, value.type))
        body.branch_if(stored, done, again, hint=LIKELY)
        body.open(done)
        return old

    def compare_exchange(
        self, handler: HandlerCompiler, address: str, expected: Value, value: Value
    ) -> Value:
        """The host's own."""
        bits, kind = ir.bit_width(value.type), ir.llvm_type(value.type)
        found = self._access(
            kind,
            f"lock cmpxchg{_SUFFIX[bits]} ${{2:{_MODIFIER[bits]}}}, $1",
            "={ax},=*m,r,0,~{memory},~{flags}",
            f"ptr elementtype({kind}) {self._pointer(address)}, {value.operand}, {expected.operand}",
        )
        self._stencil.note_change()
        return handler.body.value(f"icmp eq {kind} {found}, {expected.text}", bool)

    def _pointer(self, address: str) -> str:
        """The host's pointer for a guest address.

        Of an address with an immediate only the base is compared with the end of memory: what an immediate
        can add leads into the guards around it, where the access faults by itself.
        """
        stencil, body = self._stencil, self._stencil.body
        base, offset = stencil.sums.get(address, (address, ""))
        inside = body.emit(f"icmp ult i64 {base}, {stencil.load_slot(Slot.MEMORY_SIZE)}")
        good = body.fresh("good")
        body.branch_if(inside, good, stencil.way_to_interpret(), hint=LIKELY)
        body.open(good)
        pointer = body.emit(f"getelementptr i8, ptr %memory, i64 {base}")
        return body.emit(f"getelementptr i8, ptr {pointer}, i64 {offset}") if offset else pointer

    def _access(self, result: str, instruction: str, constraints: str, arguments: str) -> str:
        """An instruction that may fault; opens the block behind it and returns its result, if it has one."""
        stencil, body = self._stencil, self._stencil.body
        operands, clobber, rest = constraints.partition(",~")
        # Labels are operands as well: they come behind inputs and before clobbers.
        landing = f"${{{operands.count(',') + 1}:l}}"
        lines = (
            f"1: {instruction}",
            f".pushsection {ACCESSES},\\22\\22",
            f".long 1b-., {landing}-.",
            ".popsection",
        )
        good = body.fresh("good")
        code = "\\0A".join(lines)
        call = f'callbr {result} asm sideeffect "{code}", "{operands},!i{clobber}{rest}"({arguments})'
        name = "" if result == "void" else f"%{body.fresh()}"
        body.close(f"{name}{' = ' if name else ''}{call} to label %{good} [label %{stencil.way_to_fault()}]")
        body.open(good)
        return name
