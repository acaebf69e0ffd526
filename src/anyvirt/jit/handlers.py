"""Handlers: the machine code of one instruction form, and how it hands over to the next.

A handler gets state block, record, memory base, instruction budget and record base in registers, does
its instruction on the state block, and tail-calls the handler of the next record (`musttail` with
`preserve_nonecc`, which leaves every register free). There is no dispatch loop.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyvirt.isa.description import DELAY_SLOT
from anyvirt.isa.patterns import Handler
from anyvirt.isa.system import Event
from anyvirt.jit import ir
from anyvirt.jit.frames import ObjectReference, Structure
from anyvirt.jit.frontend import FunctionCompiler, Module
from anyvirt.jit.instruments import InstrumentedModel
from anyvirt.jit.ir import LIKELY, Value
from anyvirt.jit.layout import NO_CODE, SYNCHRONIZE, RecordLayout, Slot, StateLayout, StopReason
from anyvirt.jit.memory_model import memory_model, slow_model
from anyvirt.jit.records import LENGTH_FIELD, operand_slots, sunk_operands

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyvirt.isa.description import InstructionSet
    from anyvirt.isa.system import Guard
    from anyvirt.jit.target import Argument

_EVENTS = frozenset(map(int, Event))
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


def slot_variant(name: str) -> str:
    """The name of a handler's variant for delay slots."""
    return f"{name}.slot"


def twin_name(name: str) -> str:
    """The name of the slow twin of a handler."""
    return f"{name}.slow"


def guard_name(guard: Guard) -> str:
    """The LLVM name of the handler of instructions whose guard does not hold."""
    return f"guard.{guard.name}"


class HandlerCompiler(FunctionCompiler):
    """Compiles the semantics of one instruction form into its handler."""

    predicts_numbers = False
    """A NaN as result of arithmetic is a case for a branch, not for a selection."""
    has_software = True
    """Functions of `anyvirt.isa.ieee754` can be called for what hardware does not do."""

    def chosen_single(self, text: str) -> str:
        """32 bits that are about to become a float, perhaps chosen between a number and a NaN."""
        return text

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
        *,
        in_slot: bool = False,
    ) -> None:
        """`form` says what else is known when compiling besides semantics and length."""
        super().__init__(module, semantics)
        self.isa = isa
        self.in_slot = in_slot
        """It is the variant of the instruction for the delay slot of a taken branch."""
        self.form = form or Handler(semantics, length)
        self.features = features
        self.model = memory_model(features.memory)
        self.length = length
        self.records = RecordLayout.of(isa)
        self.address_bits = isa.address_bits
        self.alignment = isa.parcel
        """Bytes that instructions are aligned to."""
        self.target_slot = StateLayout.of(isa).scalars["delay_target"][0] if isa.delay_slots else 0
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
        self.check_guard()
        self.model.begin(self)
        text = self.compile_with(self.parameters({name: self._operand(name) for name in self._slots}))
        attributes = "nounwind strictfp" if "constrained" in text else "nounwind"
        return f"define internal {CONVENTION} void @{name}({PARAMETERS}) {attributes} {{\n{text}\n}}\n"

    def check_guard(self) -> None:
        """Leave an instruction whose guard does not hold to the handler of the guard."""
        system = self.isa.system
        guard = None if system is None else system.guards.get(self.form.semantics)
        if guard is not None:
            condition = self.call_function(guard.holds, [ObjectReference("cpu")])
            good = self.require(condition.text)
            self.leave_to_guard(guard_name(guard))
            self.body.open(good)

    def leave_to_guard(self, name: str) -> None:
        """Begin the instruction again, or not, as the handler of a guard decides."""
        self.tail_call(f"@{name}", "%record", "%count")

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
        """Go on to the next instruction in memory, or where the branch before a delay slot leads to."""
        if self.in_slot:
            self.jump(self.delay_target())
        else:
            self.model.pass_by(self)
            self.go_on(self.next_record())

    def go_on(self, record: str) -> None:
        """Go on where no jump leads to."""
        if self.attentive:
            self.arrive(record)
        else:
            self.dispatch(record)

    def jump(self, address: str) -> None:
        """Continue at an address, if an instruction can be there."""
        self._require_aligned(address)
        self.model.jump(self, address)

    def _require_aligned(self, address: str) -> None:
        """End the run if no instruction can be at an address. With small parcels semantics see to that."""
        if self.alignment > 2:
            rest = self.body.emit(f"and i64 {address}, {self.alignment - 1}")
            good = self.require(self.body.emit(f"icmp eq i64 {rest}, 0"))
            self._lose(address)
            self.body.open(good)

    def _lose(self, address: str) -> None:
        """The instruction is done, and at the address it leads to there can be none."""
        self.store_slot(Slot.FAULT_ADDRESS, address)
        self.store_slot(Slot.FAULT_ACCESS, NO_CODE)
        self.leave(StopReason.ACCESS_FAULT, "%record", self.remaining)

    # Delay slots ----------------------------------------------------------------------------------------

    def delay_target(self) -> str:
        """Where execution goes on behind a delay slot."""
        return self.load_slot(self.target_slot)

    def enter_slot(self, target: str) -> None:
        """Go on to the next instruction as one in a delay slot, and then to an address."""
        self.model.toward_slot(True)
        self._enter_slot(target)
        self.model.toward_slot(False)

    def _enter_slot(self, target: str) -> None:
        if self.in_slot:
            following = self.delay_target()
            self.store_slot(self.target_slot, target)
            self._require_aligned(following)
            self.model.jump(self, self.body.emit(f"or i64 {following}, {DELAY_SLOT}"))
        else:
            self.store_slot(self.target_slot, target)
            self.skip(self.length + DELAY_SLOT)

    def annul(self) -> None:
        """Leave the next instruction out."""
        if self.in_slot:
            self.jump(self.wrapped(self.body.emit(f"add i64 {self.delay_target()}, {self.length}")))
        else:
            self.model.leave_block(self)
            self.skip(2 * self.length)

    def skip(self, distance: int) -> None:
        """Go on at a near place."""
        if self.features.memory == "flat":
            self.go_on(self.body.emit(f"getelementptr i8, ptr %record, i64 {distance * self.records.scale}"))
        else:
            self.model.branch(self, str(distance))

    def following(self) -> str:
        """The address at which execution goes on behind this instruction."""
        if self.in_slot:
            return self.delay_target()
        return self.body.emit(f"add i64 {self.program_counter()}, {self.length_text()}")

    def distance_on(self) -> str:
        """From the `pc` that a stop has to where execution goes on."""
        if not self.in_slot:
            return self.length_text()
        return self.body.emit(f"sub i64 {self.delay_target()}, {self.model.program_counter(self)}")

    def synchronize(self) -> None:
        """Let the executor forget what was decoded, then go on behind this instruction."""
        if not self.in_slot:
            self.leave(SYNCHRONIZE, self.next_record(), self.remaining)
            return
        target = self.delay_target()
        if self.features.memory == "flat":
            self._require_aligned(target)
            good = self.require(self.body.emit(f"icmp ult i64 {target}, {self.load_slot(Slot.MEMORY_SIZE)}"))
            self._lose(target)
            self.body.open(good)
            offset = self.body.emit(f"shl i64 {target}, {self.records.shift}")
            record = self.body.emit(f"getelementptr i8, ptr %records, i64 {offset}")
            self.leave(SYNCHRONIZE, record, self.remaining)
        else:
            # The memory of a machine notices by itself when code is written.
            self.jump(target)

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
        """End the run; it can go on at `record` with `count`. For machines most ends are exceptions."""
        self.store_slot(Slot.REASON, int(reason))
        if self.isa.system is not None and reason in _EVENTS:
            self.deliver()
            return
        way = Slot.ATTEND if reason == StopReason.INTERRUPTED else Slot.LEAVE
        exit_code = self.body.emit(f"load ptr, ptr {self.slot(way)}")
        self.tail_call(exit_code, record, count, records)

    def deliver(self) -> None:
        """Let the guest have what REASON says as an exception of this instruction."""
        self.tail_call("@deliver", "%record", "%count")

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
        here = self.model.program_counter(self)
        return self.body.emit(f"and i64 {here}, {~DELAY_SLOT}") if self.in_slot else here
