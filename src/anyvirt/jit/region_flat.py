"""Flat memory in regions: each access of the guest is one instruction of the host that may fault.

The access is inline assembly with two ways on: behind it, and, if the host's fault handler finds its
address in the region's fault table, to where the guest's state is put together as it was before the
instruction. LLVM knows both, so registers of the guest can stay wherever they are; nothing is stored on the
way that is normally taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyvirt.jit import ir
from anyvirt.jit.ir import LIKELY, Value
from anyvirt.jit.layout import Access, Slot
from anyvirt.jit.memory_model import MemoryModel

if TYPE_CHECKING:
    from anyvirt.jit.handlers import HandlerCompiler
    from anyvirt.jit.region_template import TemplateCompiler

FIXUPS = ".anyvirt.fixups"
"""Section with a pair of distances for each memory access: from it to the access, and to its way out."""
_SUFFIX = {8: "b", 16: "w", 32: "l", 64: "q"}
_MODIFIER = {8: "b", 16: "w", 32: "k", 64: "q"}
_MEMORY = "@"
"""Stands for the memory operand in the instructions below."""
_LOADS = {
    (8, False): "movzbl @, ${0:k}", (16, False): "movzwl @, ${0:k}", (32, False): "movl @, ${0:k}",
    (8, True): "movsbq @, $0", (16, True): "movswq @, $0", (32, True): "movslq @, $0",
    (64, False): "movq @, $0",
}  # fmt: skip
_HOST_EXCHANGES = {"xchg": "xchg", "add": "lock xadd"}
"""Atomic operations that are one instruction of the host and give the old content."""
_COMBINATIONS = {"and": "and", "or": "or", "xor": "xor"}
_SELECTIONS = {"min": "slt", "max": "sgt", "umin": "ult", "umax": "ugt"}


@dataclass(slots=True)
class _Loaded:
    """A narrow value that was loaded into a whole register."""

    wide: str
    bits: int
    place: int
    """Of the load in the function's body."""
    signed: bool | None = None
    """How the load extends it; None while nobody wants to know."""


class RegionFlatModel(MemoryModel):
    """`%memory` is the host address of guest address 0; guards of 2 GiB lie on both sides of guest memory."""

    def __init__(self, compiler: TemplateCompiler) -> None:
        self._compiler = compiler
        self._loaded: dict[str, _Loaded] = {}

    def program_counter(self, handler: HandlerCompiler) -> str:
        """Known in each occurrence."""
        return self._compiler.placeholder("pc")

    def note_count(self, handler: HandlerCompiler) -> None:
        """Regions count whole blocks."""

    def jump(self, handler: HandlerCompiler, address: str) -> None:
        """The region decides what it knows of the address."""
        self._compiler.jump_to(address)

    def branch(self, handler: HandlerCompiler, offset: str) -> None:
        """A label of the region."""
        self._compiler.branch_taken()

    def load(self, handler: HandlerCompiler, kind: ir.ValueType, address: str) -> Value:
        """A load that goes on elsewhere if it faults."""
        bits, pointer = ir.bit_width(kind), self._pointer(address)
        place = len(handler.body)
        loaded = self._access("i64", _LOADS[bits, False], "=r,*m", f"ptr elementtype(i{bits}) {pointer}", 1)
        if bits == 64:
            return Value(loaded, kind)
        value = handler.body.value(f"trunc i64 {loaded} to i{bits}", kind)
        self._loaded[value.text] = _Loaded(loaded, bits, place)
        return value

    def extended(self, value: Value, *, signed: bool) -> str | None:
        """The 64 bits that a narrower value was loaded as, if it was, extended by the load itself."""
        loaded = self._loaded.get(value.text)
        if loaded is None or loaded.signed not in (None, signed):
            return None
        if loaded.signed is None and signed:
            body = self._compiler.body
            old, new = (_LOADS[loaded.bits, way].replace(_MEMORY, "") for way in (False, True))
            body.amend(loaded.place, old.split()[0], new.split()[0])
            body.amend(loaded.place, "${0:k}", "$0")
        loaded.signed = signed
        return loaded.wide

    def store(self, handler: HandlerCompiler, value: Value, address: str) -> None:
        """A store that goes on elsewhere if it faults."""
        bits, pointer = ir.bit_width(value.type), self._pointer(address)
        text, wide = value.text, max(bits, 32)
        if bits < 32:
            text = handler.body.emit(f"zext {value.operand} to i32")
        self._access(
            "void",
            f"mov{_SUFFIX[bits]} ${{1:{_MODIFIER[bits]}}}, @",
            "=*m,r",
            f"ptr elementtype(i{bits}) {pointer}, i{wide} {text}",
            0,
        )

    def exchange(self, handler: HandlerCompiler, operation: str, address: str, value: Value) -> Value:
        """One instruction of the host, or a loop around compare-and-swap."""
        bits, kind = ir.bit_width(value.type), ir.llvm_type(value.type)
        alone = self._compiler.region.alone
        # Swapping is locked by itself, so who is alone does better without.
        if operation in _HOST_EXCHANGES and not (alone and operation == "xchg"):
            pointer = self._pointer(address)
            mnemonic = _HOST_EXCHANGES[operation].removeprefix("lock " if alone else "")
            code = f"{mnemonic}{_SUFFIX[bits]} ${{0:{_MODIFIER[bits]}}}, @"
            arguments = f"ptr elementtype({kind}) {pointer}, {value.operand}"
            return Value(self._access(kind, code, "=r,=*m,0,~{memory}", arguments, 1), value.type)
        body = handler.body
        again, done = body.fresh("again"), body.fresh("done")
        body.branch(again)
        body.open(again)
        # The load only looks, but its fault is that of a write.
        intent = handler.slot(Slot.INTENT)
        body.effect(f"store volatile i64 {1 + Access.WRITE}, ptr {intent}")
        old = self.load(handler, value.type, address)
        body.effect(f"store volatile i64 0, ptr {intent}")
        if operation == "xchg":
            new = value.text
        elif operation in _COMBINATIONS:
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
        lock = "" if self._compiler.region.alone else "lock "
        bits, kind, pointer = ir.bit_width(value.type), ir.llvm_type(value.type), self._pointer(address)
        found = self._access(
            kind,
            f"{lock}cmpxchg{_SUFFIX[bits]} ${{2:{_MODIFIER[bits]}}}, @",
            "={ax},=*m,r,0,~{memory},~{flags}",
            f"ptr elementtype({kind}) {pointer}, {value.operand}, {expected.operand}",
            1,
        )
        return handler.body.value(f"icmp eq {kind} {found}, {expected.text}", bool)

    def _pointer(self, address: str) -> str:
        """The host's pointer for a guest address.

        Of an address with an immediate only the base is compared with the end of memory: what an immediate
        can add leads into the guards around it, where the access faults by itself.
        """
        compiler = self._compiler
        base, offset = compiler.sums.get(address, (address, ""))
        inside = compiler.body.emit(f"icmp ult i64 {base}, {compiler.placeholder('memory_size')}")
        good = compiler.body.fresh("good")
        compiler.body.branch_if(inside, good, compiler.odd_way(), hint=LIKELY)
        compiler.body.open(good)
        if compiler.region.segment:
            pointer = compiler.body.emit(f"inttoptr i64 {base} to ptr")
        else:
            pointer = compiler.body.emit(f"getelementptr i8, ptr %memory, i64 {base}")
        return compiler.body.emit(f"getelementptr i8, ptr {pointer}, i64 {offset}") if offset else pointer

    def _access(self, result: str, instruction: str, constraints: str, arguments: str, memory: int) -> str:
        """An instruction that may fault, with the place of its memory operand; returns what results from it.

        Opens the block that is behind it.
        """
        compiler, body = self._compiler, self._compiler.body
        if compiler.region.segment:
            instruction = instruction.replace(_MEMORY, f"%gs:{_MEMORY}")
        instruction = instruction.replace(_MEMORY, f"${memory}")
        good = body.fresh("good")
        lines = (
            f"1: {instruction}",
            f".pushsection {FIXUPS},\\22\\22",
            ".long 1b-., ${COUNT:l}-.",
            ".popsection",
        )
        operands = constraints.split(",~", 1)[0].count(",") + 1
        code = "\\0A".join(lines).replace("COUNT", str(operands))
        call = f'callbr {result} asm sideeffect "{code}", "{_with_label(constraints)}"({arguments})'
        name = "" if result == "void" else f"%{body.fresh()}"
        body.close(f"{name}{' = ' if name else ''}{call} to label %{good} [label %{compiler.way_to_fault()}]")
        body.open(good)
        return name


def _with_label(constraints: str) -> str:
    """Labels come behind inputs and before clobbers."""
    operands, clobber, rest = constraints.partition(",~")
    return f"{operands},!i{clobber}{rest}"
