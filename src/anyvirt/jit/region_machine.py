"""Machine memory in regions: a look at the TLB for each access, and a call where that does not help.

The call lets the TLB know of the page and says what it now says. What cannot be had that way, a device, a
page with decoded code, the end of a page in the middle of an access, is the interpreter's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.jit import ir
from anyvirt.jit.ir import LIKELY, Value
from anyvirt.jit.layout import Access, Slot
from anyvirt.jit.machine_access import fill_for
from anyvirt.jit.machine_layout import DataEntry
from anyvirt.jit.machine_model import MachineModel
from anyvirt.jit.region_sharing import USUAL, SharedLook, has_pages

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.jit.frontend import Module
    from anyvirt.jit.handlers import HandlerCompiler
    from anyvirt.jit.region_template import TemplateCompiler

REFILL = "refill"
"""Name of the function in interpreters for machine memory that regions call; see `add_refill`."""


class RegionMachineModel(MachineModel):
    """`%memory` is the address of the CPU's TLBs."""

    def __init__(self, compiler: TemplateCompiler) -> None:
        super().__init__()
        self._compiler = compiler

    def program_counter(self, handler: HandlerCompiler) -> str:
        """Known in each occurrence."""
        return self._compiler.placeholder("pc")

    def jump(self, handler: HandlerCompiler, address: str) -> None:
        """The region decides what it knows of the address."""
        self._compiler.jump_to(address)

    def branch(self, handler: HandlerCompiler, offset: str) -> None:
        """A label of the region."""
        self._compiler.branch_taken()

    def load(self, handler: HandlerCompiler, kind: ir.ValueType, address: str) -> Value:
        """A load in RAM through the TLB."""
        llvm = ir.llvm_type(kind)

        def act(pointer: str) -> str:
            return handler.body.emit(f"load volatile {llvm}, ptr {pointer}, align 1")

        return Value(self._in_ram(handler, Access.READ, address, ir.bit_width(kind) // 8, act), kind)

    def store(self, handler: HandlerCompiler, value: Value, address: str) -> None:
        """A store in RAM through the TLB."""

        def act(pointer: str) -> str:
            handler.body.effect(f"store volatile {value.operand}, ptr {pointer}, align 1")
            return ""

        self._in_ram(handler, Access.WRITE, address, ir.bit_width(value.type) // 8, act)

    def _atomic(
        self, handler: HandlerCompiler, address: str, value: Value, result: str, act: Callable[[str], str]
    ) -> str:
        return self._in_ram(handler, Access.WRITE, address, ir.bit_width(value.type) // 8, act)

    def _in_ram(
        self, handler: HandlerCompiler, access: Access, address: str, size: int, act: Callable[[str], str]
    ) -> str:
        """Do something at the host's address of a guest's, or leave it to the interpreter."""
        body, compiler = handler.body, self._compiler
        start, before = len(body), body.label
        hit, miss, new, done = (body.fresh(hint) for hint in ("hit", "miss", "new", "done"))
        entry, condition = self._look_up(handler, access, address, size)
        body.branch_if(condition, hit, miss, hint=LIKELY)
        body.open(miss)
        asking = len(body)
        function = body.emit(f"load ptr, ptr {handler.slot(Slot.REFILL)}")
        filled = body.emit(
            f"call preserve_mostcc i64 {function}(ptr %state, i64 {address}, i64 {size}, i64 {int(access)})"
        )
        known = body.emit(f"icmp ne i64 {filled}, -1")
        body.branch_if(known, new, compiler.odd_way(), hint=LIKELY)
        body.open(new)
        asked = body.part(asking)
        predicted = access is Access.READ and not has_pages(handler.isa)
        if predicted:
            body.effect(f"store i64 {filled}, ptr {USUAL}")
        body.branch(done)
        body.open(hit)
        place = body.emit(f"getelementptr i8, ptr {entry}, i64 {int(DataEntry.ADDEND)}")
        found = body.emit(f"load i64, ptr {place}")
        if predicted:
            addend = self._as_usual(handler, found, done)
        else:
            body.branch(done)
            body.open(done)
            addend = body.emit(f"phi i64 [{found}, %{hit}], [{filled}, %{new}]")
        kept, there = f"%{body.fresh('kept')}", f"%{body.fresh('there')}"
        shared = [
            f"  {kept} = load i64, ptr {compiler.placeholder('span')}",
            f"  {there} = icmp ne i64 {kept}, -1",
            f"  br i1 {there}, label %{done}, label %{miss}{LIKELY}",
            f"{miss}:",
            *asked,
            f"  br label %{done}",
            f"{done}:",
            f"  {addend} = phi i64 [{kept}, %{before}], [{filled}, %{new}]",
        ]
        compiler.accesses.append(SharedLook(compiler.based(address, size, access), start, len(body), shared))
        host = body.emit(f"add i64 {addend}, {address}")
        return act(body.emit(f"inttoptr i64 {host} to ptr"))

    @staticmethod
    def _as_usual(handler: HandlerCompiler, found: str, done: str) -> str:
        """What the TLB says is to be added to an address, known to the host before the TLB has said it.

        The host goes on with the usual addend while it still waits for the TLB, as it does at any branch
        that it can predict: a list can be walked as fast as if there were no TLB.
        """
        body = handler.body
        other = body.fresh("other")
        usual = body.emit(f"load i64, ptr {USUAL}")
        body.branch_if(body.emit(f"icmp eq i64 {found}, {usual}"), done, other, hint=LIKELY)
        body.open(other)
        # LLVM must not see that the value is the same on both ways.
        hidden = body.emit(f'call i64 asm "", "=r,0"(i64 {found})')
        body.effect(f"store i64 {hidden}, ptr {USUAL}")
        body.branch(done)
        body.open(done)
        return body.emit(f"load i64, ptr {USUAL}")


def add_refill(module: Module) -> None:
    """The function that regions call when the TLB does not know a page."""
    function = module.add(fill_for, attributes="noinline nounwind")
    module.define(f"""
define dso_local preserve_mostcc i64 @{REFILL}(ptr %state, i64 %address, i64 %size, i64 %access) nounwind {{
  %s = ptrtoint ptr %state to i64
  %filled = call i64 {function}(i64 %s, i64 %address, i64 %size, i64 %access)
  ret i64 %filled
}}
""")
