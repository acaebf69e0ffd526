"""Stencils: instruction semantics compiled with holes, to be copied together and filled in.

A stencil differs from the interpreter's handler of the same form in what it knows. Operands, the program
counter and the record are holes, external symbols to LLVM, and so become immediates and displacements of the
host's instructions; going on is a jump to another hole. What is not the ordinary case is left to the
interpreter, which begins the instruction anew, as long as nothing has been written.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from anyvirt.jit import ir
from anyvirt.jit.frames import signature_of
from anyvirt.jit.handlers import CONVENTION, Features, HandlerCompiler, RecordOperand
from anyvirt.jit.interpreter import MACHINE_METHODS, InterpreterTarget
from anyvirt.jit.ir import LIKELY, UNLIKELY, Body, Value
from anyvirt.jit.layout import Slot, StopReason
from anyvirt.jit.machine_layout import LOOKUP
from anyvirt.jit.records import LENGTH_FIELD
from anyvirt.jit.stencil_flat import StencilFlatModel
from anyvirt.jit.stencil_layout import Glue, Hole, Shape
from anyvirt.jit.stencil_machine import StencilMachineModel
from anyvirt.jit.stencil_model import StencilError, StencilModel
from anyvirt.typed import TypedPythonError, u64

if TYPE_CHECKING:
    import ast
    import types
    from collections.abc import Callable, Sequence
    from typing import Any

    from anyvirt.isa.description import Handler, InstructionSet, RegisterFile
    from anyvirt.jit.frames import Signature
    from anyvirt.jit.frontend import FunctionCompiler, Module
    from anyvirt.jit.target import Argument

PARAMETERS = "ptr %state, ptr %stale, ptr %memory, i64 %counter, ptr %records"
"""Of a stencil: `%stale` is the record that was last continued at, and of no interest."""
SECTION = ".anyvirt.stencil."
"""Each stencil has a section of its own; its number follows."""
_PREFIX = "hole"
_WORDS = re.compile(r"%(record|count)(?![\w.])")
_NUMBERS = {
    Hole.SMALL: (0, 1 << 8),
    Hole.REGISTER: (0, 1 << 11),
    Hole.WIDE: (-1 << 31, 1 << 31),
    Hole.BEFORE: (0, 1 << 20),
    Hole.AFTER: (0, 1 << 20),
}
"""Holes whose values fit 32 bits, with the range that LLVM is told."""


def hole_name(hole: Hole, operand: int = 0) -> str:
    """The symbol that stands for a hole, without its `@`."""
    return f"{_PREFIX}.{hole.name}.{operand}"


def parse_hole(name: str) -> tuple[Hole, int] | None:
    """The hole and the operand's offset of a symbol; None for other symbols."""
    prefix, _, rest = name.partition(".")
    if prefix != _PREFIX:
        return None
    kind, operand = rest.split(".")
    return Hole[kind], int(operand)


def _number(hole: Hole, operand: int = 0) -> str:
    return f'ptrtoint (ptr @"{hole_name(hole, operand)}" to i64)'


class _StencilBody(Body):
    """Turns the names of a handler's parameters that a stencil does not have into holes."""

    def effect(self, instruction: str) -> None:
        found = set(_WORDS.findall(instruction))
        if found and not self.closed:
            texts = {name: self.record() if name == "record" else self.before() for name in found}
            instruction = _WORDS.sub(lambda match: texts[match[1]], instruction)
        super().effect(instruction)

    def record(self, distance: int = 0) -> str:
        """The address of this record, or of one behind it, as a pointer."""
        return self.emit(f"inttoptr i64 {self.constant(Hole.RECORD, distance)} to ptr")

    def before(self) -> str:
        """What of the budget is left before this instruction."""
        return self.emit(f"add i64 %counter, {_number(Hole.BEFORE)}")

    def constant(self, hole: Hole, addend: int = 0, operand: int = 0) -> str:
        """A hole of 64 bits. LLVM would take its address to be near, hence the assembly."""
        return self.emit(f'call i64 asm "movabsq $${hole_name(hole, operand)}+{addend}, $0", "=r"()')


class StencilCompiler(HandlerCompiler):
    """Compiles the semantics of one form into a stencil instead of a handler."""

    has_software = False
    predicts_numbers = True

    def __init__(self, module: Module, target: StencilTarget, form: Handler) -> None:
        super().__init__(module, target.isa, target.features, form.semantics, form.length, form)
        self.body: _StencilBody = _StencilBody()
        self.shape = Shape(0)
        self.target_operand = 0
        self.link_operand = 0
        self.sink = 0
        """What the link operand is where nobody wants the address."""
        self.sums: dict[str, tuple[str, str]] = {}
        """Values that are the sum of another and an operand."""
        self._links: set[str] = set()
        self._exits: dict[str, Hole] = {}
        if target.features.counted:
            self.remaining = "%remaining"
        self.model: StencilModel = _MODELS[target.features.memory](self)

    def stencil(self, number: int) -> str:
        """The LLVM definition of the stencil. Raises StencilError."""
        if self.features.counted:
            self.body.effect(f"%remaining = add i64 %counter, {_number(Hole.AFTER)}")
        self.check_guard()
        self.compile_with(self.parameters({name: self._operand(name) for name in self._slots}))
        for label, hole in self._exits.items():
            self.body.open(label)
            self.go(hole)
        return definition(number, self.body.text())

    def _operand(self, name: str) -> RecordOperand:
        slot = self._slots[name]
        if slot.llvm == "i64":
            return RecordOperand(self.body.constant(Hole.WHOLE, operand=slot.offset), slot.type, name)
        text = _number(Hole.SMALL if slot.llvm == "i8" else Hole.WIDE, slot.offset)
        kind = ir.llvm_type(slot.type)
        if kind != "i64":
            text = self.body.emit(f"trunc i64 {text} to {kind}")
        return RecordOperand(text, slot.type, name)

    def _call_function(self, function: types.FunctionType, arguments: list[Argument]) -> Argument:
        """Everything is expanded in place: a stencil calls nothing."""
        return self._expand(function, signature_of(function), arguments)

    def _expand(
        self, function: types.FunctionType, signature: Signature, arguments: list[Argument]
    ) -> Argument:
        try:
            return super()._expand(function, signature, arguments)
        except TypedPythonError as error:
            raise StencilError(str(error)) from None

    def operate(self, operator: ast.operator, left: Argument, right: Argument) -> Argument:
        """Sums with an immediate operand are remembered as such: as addresses they are cheaper to check."""
        result = super().operate(operator, left, right)
        if (
            type(operator).__name__ == "Add"
            and isinstance(right, RecordOperand)
            and isinstance(left, Value)
            and right.type is u64
            and isinstance(result, Value)
        ):
            self.sums[result.text] = left.text, right.text
        return result

    # Ways out -------------------------------------------------------------------------------------------

    def go(self, hole: Hole) -> None:
        """Leave through a jump to a hole."""
        arguments = "ptr %state, ptr poison, ptr %memory, i64 %counter, ptr %records"
        self.body.effect(f'musttail call {CONVENTION} void @"{hole_name(hole)}"({arguments})')
        self.body.close("ret void")

    def finish(self) -> None:
        """Go on behind this instruction."""
        self.shape |= Shape.NEXT
        self.go(Hole.NEXT)

    def next_record(self) -> str:
        """The record behind this one."""
        if not self.length:
            return super().next_record()
        return self.body.record(self.length * self.records.scale)

    def length_text(self) -> str:
        """Bytes of the instruction, as an operand of LLVM instructions."""
        return str(self.length) if self.length else _number(Hole.SMALL, LENGTH_FIELD)

    def leave(self, reason: int, record: str, count: str, records: str = "%records") -> None:
        """What ends a run is left to the interpreter while the instruction can begin anew."""
        if self.has_changed:
            super().leave(reason, record, count, records)
        else:
            self.go(Hole.INTERPRET)

    def chosen_single(self, text: str) -> str:
        """Chosen as an integer: LLVM would choose between floats, by slow instructions with masks."""
        return self.body.emit(f'call i32 asm "", "=r,0"(i32 {text})')

    def give_up(self) -> None:
        """The interpreter does what the hardware cannot."""
        if self.has_changed:
            raise StencilError("it would need software after it has written")
        self.go(Hole.INTERPRET)

    def deliver(self) -> None:
        """Left to the interpreter while it can begin the instruction anew."""
        raise StencilError("it takes an exception after it has changed something")

    def leave_to_guard(self, name: str) -> None:
        """Left to the interpreter."""
        self.go(Hole.INTERPRET)

    def way_to_interpret(self) -> str:
        """The label for an occurrence that is a case for the interpreter. Raises StencilError."""
        if self.has_changed:
            raise StencilError("it checks an address after it has written")
        return self._exit(Hole.INTERPRET)

    def way_to_fault(self) -> str:
        """The label at which the fault handler lets the instruction go on. Raises StencilError."""
        if self.has_changed:
            raise StencilError("it accesses memory after it has written")
        return self._exit(Hole.FAULT)

    def _exit(self, hole: Hole) -> str:
        label = f"to.{hole.name.lower()}"
        self._exits[label] = hole
        return label

    def branch_taken(self) -> None:
        """Continue where the branch operand leads."""
        self.shape |= Shape.TAKEN
        self.go(Hole.TAKEN)

    def leave_to_twin(self) -> None:
        """What misses the TLB is left to the interpreter, whose handler will leave it to its twin."""
        self.go(Hole.INTERPRET)

    def tail_call(self, function: str, record: str, count: str, records: str = "%records") -> None:
        """Functions of the interpreter's blob are known by address."""
        if function == f"@{LOOKUP}":
            function = self.body.emit(f"inttoptr i64 {self.body.constant(Hole.LOOKUP)} to ptr")
        super().tail_call(function, record, count, records)

    def link(self) -> Value:
        """The address behind this instruction."""
        value = Value(self.model.address_behind(), u64)
        self._links.add(value.text)
        return value

    def note_write(self, file: RegisterFile, index: Argument, value: Argument) -> None:
        """A register is written: perhaps with the address behind."""
        if not isinstance(index, RecordOperand) or index.name not in self.sunk or file.zero is None:
            return
        if isinstance(value, Value) and value.text in self._links:
            self.link_operand, self.sink = self._slots[index.name].offset, file.count

    def finished_shape(self) -> Shape:
        """How the form can be left; calls are told from other jumps."""
        if self._links and not self.shape & Shape.NEXT and self.shape & (Shape.TAKEN | Shape.JUMP):
            return self.shape | Shape.LINKS
        return self.shape

    def branch_operand(self, name: str) -> int:
        """Where an operand is in the record that says how far a branch leads. Raises StencilError."""
        if self._slots[name].llvm != "i32":
            raise StencilError("it branches by an operand that has not 32 bits")
        return self.slot_offset(name)

    def slot_offset(self, name: str) -> int:
        """Where an operand is in the record."""
        return self._slots[name].offset


_MODELS: dict[str, type[StencilModel]] = {"flat": StencilFlatModel, "machine": StencilMachineModel}


class StencilTarget(InterpreterTarget):
    """What `cpu` means in a stencil."""

    def read_attribute(self, compiler: FunctionCompiler, name: str) -> Value:
        """As in the interpreter; the next address marks a possible call."""
        if name == "next_pc":
            return _stencil(compiler).link()
        if name == "float_flags":
            raise StencilError("it reads the accrued floating-point exceptions")
        return super().read_attribute(compiler, name)

    def write_attribute(self, compiler: FunctionCompiler, name: str, value: Argument) -> None:
        """As in the interpreter, but the floating-point environment is its business."""
        if name in ("float_flags", "float_rounding"):
            raise StencilError(f"it changes {name}")
        super().write_attribute(compiler, name, value)

    def _register(self, compiler: FunctionCompiler, name: str, index: Argument) -> str:
        if not isinstance(index, RecordOperand) or name not in self.layout.files:
            return super()._register(compiler, name, index)
        offset, _ = self.layout.files[name]
        distance = _number(Hole.REGISTER, _stencil(compiler).slot_offset(index.name))
        pointer = compiler.body.emit(f"getelementptr i8, ptr %state, i64 {distance}")
        return compiler.body.emit(f"getelementptr i8, ptr {pointer}, i64 {offset}")

    def write_element(self, compiler: FunctionCompiler, name: str, index: Argument, value: Argument) -> None:
        """Set a register."""
        super().write_element(compiler, name, index, value)
        _stencil(compiler).note_write(self.isa.register_files[name], index, value)

    def branch(self, handler: HandlerCompiler, offset: Argument) -> None:
        """To a place that the translator knows."""
        stencil = _stencil(handler)
        if not isinstance(offset, RecordOperand):
            raise StencilError("it branches by something that is no operand")
        place = stencil.branch_operand(offset.name)
        if stencil.target_operand not in (0, place):
            raise StencilError("it branches in more than one way")
        stencil.target_operand = place
        stencil.branch_taken()

    def delayed_jump(self, handler: HandlerCompiler, target: Argument) -> None:
        """Left to the interpreter."""
        raise StencilError("it has a delay slot")

    def annul(self, handler: HandlerCompiler) -> None:
        """Left to the interpreter."""
        raise StencilError("it annuls its delay slot")

    def system_call(self, handler: HandlerCompiler) -> None:
        """Left to the interpreter."""
        raise StencilError("it ends the run")

    def breakpoint(self, handler: HandlerCompiler) -> None:
        """Left to the interpreter."""
        raise StencilError("it ends the run")

    def synchronize_code(self, handler: HandlerCompiler) -> None:
        """Left to the interpreter."""
        raise StencilError("it may change what is executed")

    def call_routine(
        self, function: Callable[..., Any], compiler: FunctionCompiler, arguments: list[Argument]
    ) -> Argument:
        """Left to the interpreter."""
        raise StencilError("it calls a function of the processor")

    def call_method(self, compiler: FunctionCompiler, name: str, arguments: list[Argument]) -> Value | None:
        """What only machines do is left to the interpreter."""
        if name in MACHINE_METHODS:
            raise StencilError("it is about more than registers and memory")
        return super().call_method(compiler, name, arguments)

    def cycle_counter(self, handler: HandlerCompiler) -> Value:
        """Left to the interpreter."""
        raise StencilError("it reads a counter")

    def time_counter(self, handler: HandlerCompiler) -> Value:
        """Left to the interpreter."""
        raise StencilError("it reads a counter")


def _stencil(compiler: FunctionCompiler) -> StencilCompiler:
    if not isinstance(compiler, StencilCompiler):
        raise TypedPythonError("only the semantics of an instruction have a processor")
    return compiler


def definition(number: int, text: str) -> str:
    """A function of its own section."""
    attributes = "nounwind strictfp" if "constrained" in text else "nounwind"
    head = f'define dso_local {CONVENTION} void @"stencil.{number}"({PARAMETERS}) {attributes}'
    return f'{head} section "{SECTION}{number}" {{\n{text}\n}}\n'


def declarations(text: str) -> str:
    """Declarations of the holes that occur in a module's text, and the metadata behind them."""
    lines, numbers = [], list(_NUMBERS)
    for name in sorted(set(re.findall(rf'@"({_PREFIX}\.[^"]*)"', text))):
        found = parse_hole(name)
        assert found is not None
        hole = found[0]
        if hole in _NUMBERS:
            lines.append(
                f'@"{name}" = extern_weak global i8, !absolute_symbol !{_METADATA_BASE + numbers.index(hole)}'
            )
        else:
            lines.append(f'declare {CONVENTION} void @"{name}"({PARAMETERS})')
    lines += [
        f"!{_METADATA_BASE + position} = !{{i64 {low}, i64 {end}}}"
        for position, (low, end) in enumerate(_NUMBERS.values())
    ]
    return "\n".join(lines) + "\n"


_METADATA_BASE = 16


# Glue -------------------------------------------------------------------------------------------------------


def glue_definitions(*, counted: bool) -> str:
    """The stencils that belong to no instruction."""
    bodies = {
        Glue.EXIT: _exit(),
        Glue.ARRIVE: _arrive(),
        Glue.CHECK: _check(),
        Glue.INTERPRET: _interpret(counted=counted),
        Glue.COUNT: _count(),
    }
    return "\n".join(definition(int(glue), text) for glue, text in bodies.items())


def _jump(body: _StencilBody, callee: str, record: str, count: str = "%counter") -> None:
    arguments = f"ptr %state, ptr {record}, ptr %memory, i64 {count}, ptr %records"
    body.effect(f"musttail call {CONVENTION} void {callee}({arguments})")
    body.close("ret void")


def _exit() -> str:
    body = _StencilBody()
    record = body.record()
    _jump(body, body.emit(f"load ptr, ptr {record}"), record)
    return body.text()


def _pending(body: _StencilBody) -> None:
    """Go on only if nobody wants the run to end."""
    slot = body.emit(f"getelementptr i8, ptr %state, i64 {int(Slot.PENDING)}")
    pending = body.emit(f"load atomic i64, ptr {slot} monotonic, align 8")
    body.branch_if(body.emit(f"icmp eq i64 {pending}, 0"), "onward", "stopped", hint=LIKELY)
    body.open("stopped")
    reason = body.emit(f"getelementptr i8, ptr %state, i64 {int(Slot.REASON)}")
    body.effect(f"store i64 {int(StopReason.INTERRUPTED)}, ptr {reason}")
    way = body.emit(f"getelementptr i8, ptr %state, i64 {int(Slot.ATTEND)}")
    _jump(body, body.emit(f"load ptr, ptr {way}"), body.record())
    body.open("onward")


def _arrive() -> str:
    body = _StencilBody()
    _pending(body)
    record = body.record()
    _jump(body, body.emit(f"load ptr, ptr {record}"), record)
    return body.text()


def _check() -> str:
    body = _StencilBody()
    _pending(body)
    _jump(body, f'@"{hole_name(Hole.NEXT)}"', "poison")
    return body.text()


def _interpret(*, counted: bool) -> str:
    body = _StencilBody()
    handler = body.emit(f"inttoptr i64 {body.constant(Hole.HANDLER)} to ptr")
    _jump(body, handler, body.record(), body.before() if counted else "%counter")
    return body.text()


def _count() -> str:
    body = _StencilBody()
    left = body.emit(f"sub i64 %counter, {_number(Hole.BEFORE)}")
    short = body.emit(f"icmp ult i64 %counter, {_number(Hole.BEFORE)}")
    body.branch_if(short, "short", "enough", hint=UNLIKELY)
    body.open("short")
    _jump(body, f'@"{hole_name(Hole.INTERPRET)}"', "poison", left)
    body.open("enough")
    _jump(body, f'@"{hole_name(Hole.NEXT)}"', "poison", left)
    return body.text()


# A whole module ---------------------------------------------------------------------------------------------


def compile_forms(
    isa: InstructionSet, features: Features, forms: Sequence[Handler]
) -> tuple[str, list[StencilCompiler | None]]:
    """LLVM IR of the glue and of all forms that can have a stencil, and what was found out about them."""
    from anyvirt.jit.frontend import Module

    target = StencilTarget(isa, features)
    module = Module(target)
    parts, compiled = [glue_definitions(counted=features.counted)], list[StencilCompiler | None]()
    for position, form in enumerate(forms):
        compiler = StencilCompiler(module, target, form)
        try:
            parts.append(compiler.stencil(len(Glue) + position))
            compiled.append(compiler)
        except StencilError:
            compiled.append(None)
    text = "\n".join(parts)
    return f"{declarations(text)}\n{text}\n{module.text()}", compiled
