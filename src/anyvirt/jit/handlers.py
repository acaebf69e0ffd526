"""Handlers: the machine code of one instruction form, and how it hands over to the next.

A handler gets state block, record, memory base, instruction budget and record base in registers, does
its instruction on the state block, and tail-calls the handler of the next record (`musttail` with
`preserve_nonecc`, which leaves every register free). There is no dispatch loop.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyvirt.isa.patterns import Handler
from anyvirt.jit import ir
from anyvirt.jit.frames import Structure
from anyvirt.jit.frontend import FunctionCompiler, Module
from anyvirt.jit.instruments import InstrumentedModel
from anyvirt.jit.ir import LIKELY, Value
from anyvirt.jit.layout import RecordLayout, Slot, StopReason
from anyvirt.jit.memory_model import memory_model, slow_model
from anyvirt.jit.records import LENGTH_FIELD, operand_slots, sunk_operands

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyvirt.isa.description import InstructionSet
    from anyvirt.jit.target import Argument

CONVENTION = "preserve_nonecc"
PARAMETERS = "ptr %state, ptr %record, ptr %memory, i64 %count, ptr %records"


@dataclass(frozen=True)
class Features:
    """What of the host's processor and of the run decides about the code of handlers."""

    counted: bool
    """Count instructions and stop exactly when the budget is used up."""
    fma: bool
    """The host has fused multiply-add."""
    memory: str = "flat"
    """The memory model, by its name in `anyvirt.jit.memory_model`."""
    instrumented: bool = False
    """Let hooks see the beginnings of blocks and memory accesses (`anyvirt.jit.instruments`)."""


@dataclass(frozen=True, slots=True)
class RecordOperand(Value):
    """An operand read from the record: a value, and for the target also a name."""

    name: str = ""


def twin_name(name: str) -> str:
    """The name of the slow twin of a handler."""
    return f"{name}.slow"


class HandlerCompiler(FunctionCompiler):
    """Compiles the semantics of one instruction form into its handler."""

    predicts_numbers = False
    """A NaN as result of arithmetic is a case for a branch, not for a selection."""
    has_software = True
    """Functions of `anyvirt.isa.ieee754` can be called for what hardware does not do."""

    def give_up(self) -> None:
        """Leave an operation to somebody who has the software."""
        raise NotImplementedError

    def __init__(
        self,
        module: Module,
        isa: InstructionSet,
        features: Features,
        semantics: Callable[..., None],
        length: int,
        form: Handler | None = None,
    ) -> None:
        """`form` says what else is known when compiling besides semantics and length."""
        super().__init__(module, semantics)
        self.form = form or Handler(semantics, length)
        self.features = features
        self.model = memory_model(features.memory)
        self.length = length
        self.records = RecordLayout.of(isa)
        self.address_bits = isa.address_bits
        self.branches_far = isa.context is not None
        """Direct branches can lead further than BRANCH_REACH."""
        self.sunk = sunk_operands(isa, semantics)
        self.remaining = "%count"
        self.attentive = False
        """Look for requests to leave compiled code behind this instruction too, not only where it jumps."""
        self.has_changed = False
        """The instruction has changed something, so it cannot be begun again."""
        self.has_twin = False
        """Some way through the handler ends in its slow twin."""
        self.name = ""
        """The LLVM name of the handler, without `@`."""
        if features.instrumented:
            self.become_instrumented()
        self._slots = operand_slots(isa, module, self.form)

    def handler(self, name: str) -> str:
        """The LLVM definition of the handler."""
        self.name = name
        if self.features.counted:
            self._count_down()
        self.model.begin(self)
        text = self.compile_with(self.parameters({name: self._operand(name) for name in self._slots}))
        attributes = "nounwind strictfp" if "constrained" in text else "nounwind"
        return f"define internal {CONVENTION} void @{name}({PARAMETERS}) {attributes} {{\n{text}\n}}\n"

    def parameters(self, operands: Mapping[str, Argument]) -> dict[str, Argument]:
        """What the parameters of the semantics are: operands, objects made of them, constants."""
        given = {**operands, **dict(self.form.constants)}
        wanted = {name for name, _ in self.signature.parameters}
        for role, structure in self.form.structures:
            if role not in wanted:
                continue
            members = [member.name for member in dataclasses.fields(structure)]
            given[role] = Structure(structure, {name: operands[f"{role}_{name}"] for name in members})
        return given

    def length_text(self) -> str:
        """Bytes of the instruction, as an operand of LLVM instructions."""
        if self.length:
            return str(self.length)
        pointer = self.body.emit(f"getelementptr i8, ptr %record, i64 {LENGTH_FIELD}")
        return self.body.emit(f"zext i8 {self.body.emit(f'load i8, ptr {pointer}')} to i64")

    def _count_down(self) -> None:
        """Stop before the instruction if the budget is used up, otherwise use up one."""
        body = self.body
        enough, empty = body.fresh("enough"), body.fresh("empty")
        body.branch_if(body.emit("icmp ne i64 %count, 0"), enough, empty, hint=LIKELY)
        body.open(empty)
        self.leave(StopReason.BUDGET, "%record", "%count")
        body.open(enough)
        self.remaining = body.emit("sub i64 %count, 1")
        self.model.note_count(self)

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
        self.model.pass_by(self)
        self.go_on(self.next_record())

    def go_on(self, record: str) -> None:
        """Go on where no jump leads to."""
        if self.attentive:
            self.arrive(record)
        else:
            self.dispatch(record)

    def next_record(self) -> str:
        """The record behind this one."""
        if self.length:
            distance = str(self.length * self.records.scale)
        else:
            distance = self.body.emit(f"shl i64 {self.length_text()}, {self.records.shift}")
        return self.body.emit(f"getelementptr i8, ptr %record, i64 {distance}")

    def dispatch(self, record: str, records: str = "%records") -> None:
        """Continue with the handler of a record, to which a base of records belongs."""
        handler = self.body.emit(f"load ptr, ptr {record}")
        self.tail_call(handler, record, self.remaining, records)

    def tail_call(self, function: str, record: str, count: str, records: str = "%records") -> None:
        """Go on in another function of the handlers' kind."""
        arguments = f"ptr %state, ptr {record}, ptr %memory, i64 {count}, ptr {records}"
        self.body.effect(f"musttail call {CONVENTION} void {function}({arguments})")
        self.body.close("ret void")

    def leave(self, reason: int, record: str, count: str, records: str = "%records") -> None:
        """End the run; it can go on at `record` with `count`."""
        self.store_slot(Slot.REASON, int(reason))
        exit_code = self.body.emit(f"load ptr, ptr {self.slot(Slot.LEAVE)}")
        self.tail_call(exit_code, record, count, records)

    def stop(self, reason: StopReason) -> None:
        """End the run at this instruction, which has not been executed."""
        self.leave(reason, "%record", "%count")

    def arrive(self, record: str, records: str = "%records") -> None:
        """Continue elsewhere, unless somebody wants the run to end: the point where loops can be stopped."""
        body = self.body
        pending = body.emit(f"load atomic i64, ptr {self.slot(Slot.PENDING)} monotonic, align 8")
        onward, stopped = body.fresh("onward"), body.fresh("stopped")
        body.branch_if(body.emit(f"icmp eq i64 {pending}, 0"), onward, stopped, hint=LIKELY)
        body.open(stopped)
        self.store_slot(Slot.SOURCE, self.program_counter())
        self.leave(StopReason.INTERRUPTED, record, self.remaining, records)
        body.open(onward)
        self.dispatch(record, records)

    def wrapped(self, address: str) -> str:
        """An address modulo the size of the instruction set's address space."""
        if self.address_bits == 64:
            return address
        return self.body.emit(f"and i64 {address}, {(1 << self.address_bits) - 1}")

    def note_change(self) -> None:
        """The instruction changes something here."""
        self.has_changed = True

    def become_instrumented(self) -> None:
        """Let hooks see the instruction. A slow twin begins in its midst, so it is one from the start."""
        if self.features.memory != "flat":
            self.become_twin()
        self.model = InstrumentedModel(self.model)

    def become_twin(self) -> None:
        """Be the slow twin: what a device asks for is heard behind the instruction that reached it."""
        self.model = slow_model(self.features.memory)
        self.attentive = True

    def leave_to_twin(self) -> None:
        """Begin the instruction again in its slow twin (see `anyvirt.jit.machine_model`)."""
        self.has_twin = True
        self.tail_call(f"@{twin_name(self.name)}", "%record", "%count")

    def require(self, condition: str) -> str:
        """Go on only where `condition` holds; opens the block of the other case, returns the good label."""
        good, bad = self.body.fresh("good"), self.body.fresh("bad")
        self.body.branch_if(condition, good, bad, hint=LIKELY)
        self.body.open(bad)
        return good

    def program_counter(self) -> str:
        """Address of this instruction."""
        return self.model.program_counter(self)
