"""Templates of the region tier: the LLVM IR of one instruction form, to be filled in for each occurrence.

Compiling semantics takes milliseconds, filling in a template microseconds. In a template registers and
declared state are variables that the whole region shares (LLVM makes SSA values of them), operands and
addresses are placeholders that become constants, and each way out of the instruction is a label that the
region defines.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

from anyvirt.jit import ir
from anyvirt.jit.handlers import Features, HandlerCompiler, RecordOperand
from anyvirt.jit.interpreter import MACHINE_METHODS, InterpreterTarget
from anyvirt.jit.ir import Body, Value
from anyvirt.jit.layout import Access, Slot
from anyvirt.jit.region_flat import RegionFlatModel
from anyvirt.jit.region_floats import move_doubles
from anyvirt.jit.region_machine import RegionMachineModel
from anyvirt.jit.region_sharing import BasedAccess
from anyvirt.jit.scope import function_tree, plain_function
from anyvirt.typed import TypedPythonError, u64

if TYPE_CHECKING:
    import types
    from collections.abc import Callable, Mapping
    from typing import Any

    from anyvirt.isa.description import Handler, InstructionSet, Pattern
    from anyvirt.jit.frames import Signature
    from anyvirt.jit.frontend import FunctionCompiler, Module
    from anyvirt.jit.region_sharing import SharedLook
    from anyvirt.jit.target import Argument

_CONSTANT_BITS = 4
"""Operands that select no register and have at most this many bits are known when a template is compiled."""
_PLACEHOLDER = re.compile("\x01([^\x02]*)\x02")


class Way(StrEnum):
    """Labels by which an instruction is left."""

    NEXT = "next"
    TAKEN = "taken"
    JUMP = "jump"
    """To the address in `%jump.target`."""
    INTERPRET = "interpret"
    """Nothing has been done, and this occurrence is a case for the interpreter."""
    ODD = "odd"
    """As INTERPRET, but hardly ever taken."""
    FAULT = "fault"
    """A memory access failed; the fault handler has noted why."""


class TemplateError(Exception):
    """Semantics that have no place in a region: the interpreter executes them."""


def placeholder(name: str) -> str:
    """Text to be replaced when a template is filled in."""
    return f"\x01{name}\x02"


def register_name(file: str, number: str | int) -> str:
    """The variable of a register."""
    return f"%r.{file}.{number}"


def scalar_name(name: str) -> str:
    """The variable of a piece of declared state."""
    return f"%s.{name}"


@dataclass(frozen=True)
class Template:
    """The IR of one instruction form, with what a region has to know of it."""

    format: str
    """A %-format: `u` (a unique suffix), `pc`, the operands and the ways out."""
    allocas: str
    """The same for its local variables, which go to the beginning of the function."""
    ways: frozenset[Way]
    target_operand: str | None
    """The operand that says where TAKEN leads, relative to the instruction."""
    links: bool
    """It computes the address after it: a call, if it also jumps."""
    writes: tuple[tuple[str, str | int], ...]
    """Register files and the operands (or numbers) that select the registers written; ("", name) is state."""
    dynamic_files: frozenset[str]
    """Register files that are accessed by numbers computed at run time: their registers stay in memory."""
    sunk: frozenset[str]
    """Operands in which the number of a zero register stands for the file's sink."""
    strict: bool
    """It has floating-point operations."""
    early_writes: bool
    """It may write registers before it fails."""
    rounding: int | None = None
    """The rounding mode that it is for, if it depends on that."""
    access: BasedAccess | None = None
    """Its only memory access, if that can share a look at the TLB (`anyvirt.jit.region_sharing`)."""
    shared: str = ""
    """The same as `format` for an access that does share one: `span` is the variable of `Span`."""
    guard: str = ""
    """The IR that looks whether the instruction's guard (`anyvirt.isa.system.Guard`) holds, to be put in
    front of the others; its last line is a label."""
    guard_name: str = ""

    @cached_property
    def uses(self) -> frozenset[str]:
        """Placeholders that occur."""
        return frozenset(re.findall(r"%\((\w+)\)s", self.format + self.shared))


class _TemplateBody(Body):
    """Names get a suffix that is unique to each occurrence of the instruction."""

    def __init__(self) -> None:
        super().__init__()
        self.label = f"i{placeholder('u')}"

    def fresh(self, hint: str = "t") -> str:
        return f"{super().fresh(hint)}.{placeholder('u')}"

    def parts(self) -> tuple[str, str]:
        """Instructions and local variables."""
        return "\n".join(move_doubles(self._lines)), "\n".join(self._allocas)


class TemplateCompiler(HandlerCompiler):
    """Compiles semantics into a template instead of a handler."""

    predicts_numbers = True
    has_software = False

    def __init__(
        self,
        module: Module,
        target: RegionTarget,
        form: Handler,
        constants: Mapping[str, int],
    ) -> None:
        super().__init__(module, target.isa, target.features, form.semantics, form.length, form)
        self.region = target
        self.constants = constants
        self.body = _TemplateBody()
        self.ways: set[Way] = set()
        self.target_operand: str | None = None
        self.links = False
        self.writes: list[tuple[str, str | int]] = []
        self.dynamic_files: set[str] = set()
        self.sums: dict[str, tuple[str, str]] = {}
        """Values that are the sum of another and an operand."""
        self.bases: dict[str, tuple[str, str | int]] = {}
        """Values that are what a register held before the instruction: register file, and what selects it."""
        self.accesses: list[SharedLook] = []
        """The looks at the TLB."""
        self._early_writes = False
        self._rounding: int | None = None
        self._guard_name = ""
        self.model = RegionFlatModel(self) if target.features.memory == "flat" else RegionMachineModel(self)

    def template(self) -> Template:
        """The finished template. Raises TemplateError."""
        operands: dict[str, Argument] = {
            name: self.constants[name] if name in self.constants else self._placeholder_operand(name)
            for name in self._slots
        }
        initial = self.body.label
        self.check_guard()
        guarded, begin = len(self.body), self.body.label
        self.compile_with(self.parameters(operands))
        guard = "\n".join(self.body.part(0, guarded))
        text, allocas = self.body.parts()  # type: ignore[attr-defined]
        if guard:
            text = "\n".join(self.body.part(guarded))
        if re.search(r"%(record|count)\b", text):
            raise TemplateError("it needs to know the interpreter's record or budget")
        if "@table." in text:
            raise TemplateError("it looks something up in a table, and a region has no data")
        access, shared = None, ""
        if len(self.accesses) == 1 and self.accesses[0].access is not None:
            access, start, end, lines = self.accesses[0]
            shared = "\n".join([*self.body.part(guarded, start), *lines, *self.body.part(end)])
        if guard:
            # What the instruction begins in is another block where its guard need not be looked at.
            text, shared = (part.replace(f"%{begin}]", f"%{initial}]") for part in (text, shared))
        return Template(
            _as_format(text),
            _as_format(allocas),
            frozenset(self.ways),
            self.target_operand,
            self.links,
            tuple(self.writes),
            frozenset(self.dynamic_files),
            frozenset(self.sunk),
            "constrained" in text,
            self._early_writes,
            self._rounding,
            access,
            _as_format(shared),
            _as_format(guard),
            self._guard_name,
        )

    def _placeholder_operand(self, name: str) -> RecordOperand:
        return RecordOperand(placeholder(name), self._slots[name].type, name)

    def _call_function(self, function: types.FunctionType, arguments: list[Argument]) -> Argument:
        """Everything is expanded in place: a region calls nothing."""
        from anyvirt.jit.frames import signature_of

        return self._expand(function, signature_of(function), arguments)

    def _expand(
        self, function: types.FunctionType, signature: Signature, arguments: list[Argument]
    ) -> Argument:
        try:
            return super()._expand(function, signature, arguments)
        except TypedPythonError as error:
            raise TemplateError(str(error)) from None

    def cast_value(self, value: Value, kind: ir.ValueType) -> Value:
        """A load can extend what it loads."""
        if isinstance(self.model, RegionFlatModel) and kind is u64 and ir.is_integer(value.type):
            wide = self.model.extended(value, signed=ir.is_signed(value.type))
            if wide is not None:
                return Value(wide, kind)
        return super().cast_value(value, kind)

    def operate(self, operator: ast.operator, left: Argument, right: Argument) -> Argument:
        """Sums with an immediate operand are remembered as such: as addresses they are cheaper to check."""
        result = super().operate(operator, left, right)
        if (
            isinstance(operator, ast.Add)
            and isinstance(right, RecordOperand)
            and isinstance(left, Value)
            and right.type is u64
            and isinstance(result, Value)
        ):
            self.sums[result.text] = left.text, right.text
        return result

    # Ways out -------------------------------------------------------------------------------------------

    def based(self, address: str, size: int, access: Access) -> BasedAccess | None:
        """An access at a value of LLVM's, if that is known to be from a register."""
        base, offset = self.sums.get(address, (address, ""))
        if base not in self.bases:
            return None
        return BasedAccess(*self.bases[base], offset.strip("\x01\x02"), size, access)

    def go(self, way: Way) -> None:
        """Leave the instruction."""
        self.note(way)
        self.body.branch(f"{way}{placeholder('u')}")

    def note(self, way: Way) -> None:
        """The instruction may be left in this way from here."""
        self.ways.add(way)
        self._early_writes |= way in (Way.INTERPRET, Way.ODD, Way.FAULT) and bool(self.writes)

    def finish(self) -> None:
        """Go on behind this instruction."""
        self.go(Way.NEXT)

    def leave(self, reason: int, record: str, count: str, records: str = "%records") -> None:
        """What ends a run is left to the interpreter, which begins the instruction anew."""
        self.go(Way.INTERPRET)

    def leave_to_guard(self, name: str) -> None:
        """The interpreter does what the guard demands, as long as it does not hold."""
        self._guard_name = name
        self.go(Way.ODD)

    def dispatch(self, record: str, records: str = "%records") -> None:
        """There are no records here."""
        raise TemplateError("it continues at a record")

    def odd_way(self) -> str:
        """The label for what hardly ever happens and is a case for the interpreter."""
        self.note(Way.ODD)
        return f"{Way.ODD}{placeholder('u')}"

    def way_to_fault(self) -> str:
        """The label at which the fault handler lets an instruction go on."""
        self.note(Way.FAULT)
        return f"{Way.FAULT}{placeholder('u')}"

    def jump_to(self, address: str) -> None:
        """Continue at an address."""
        self.body.effect(f"store i64 {address}, ptr %jump.target")
        self.go(Way.JUMP)

    def branch_taken(self) -> None:
        """Continue where the branch operand leads."""
        self.go(Way.TAKEN)

    @staticmethod
    def placeholder(name: str) -> str:
        """Text to be replaced when the template is filled in."""
        return placeholder(name)

    def slot(self, slot: int) -> str:
        """Declared state is a variable; the rest is in the state block."""
        name = self.region.scalars_by_offset.get(int(slot))
        return scalar_name(name) if name is not None else super().slot(slot)

    def load_slot(self, slot: int) -> str:
        """The rounding mode is a condition for entering the region, and so a constant."""
        if slot == Slot.FLOAT_ROUNDING:
            self._rounding = self.region.rounding
            return str(self._rounding)
        return super().load_slot(slot)

    def store_slot(self, slot: int, text: str | int) -> None:
        """Note which declared state is written."""
        if int(slot) in self.region.scalars_by_offset:
            self.writes.append(("", self.region.scalars_by_offset[int(slot)]))
        elif slot == Slot.FLOAT_ROUNDING:
            raise TemplateError("it changes the rounding mode")
        super().store_slot(slot, text)

    def give_up(self) -> None:
        """The interpreter does what the hardware cannot."""
        self.go(Way.INTERPRET)


class RegionTarget(InterpreterTarget):
    """What `cpu` means in a region."""

    def __init__(
        self, isa: InstructionSet, features: Features, rounding: int, *, segment: bool, alone: bool
    ) -> None:
        super().__init__(isa, features)
        self.rounding = rounding
        self.segment = segment
        """The host's segment register GS leads to guest memory."""
        self.alone = alone
        """Nobody else has the memory, so that atomic operations need not be."""
        self.scalars_by_offset = {offset: name for name, (offset, _) in self.layout.scalars.items()}
        self._float_files = {field.registers for field in isa.fields.values() if field.registers == "f"}

    def read_attribute(self, compiler: FunctionCompiler, name: str) -> Value:
        """As in the interpreter; the next address marks a possible call."""
        if name == "next_pc":
            _template(compiler).links = True
            return Value(placeholder("next_pc"), u64)
        if name == "float_flags":
            raise TemplateError("it reads the accrued floating-point exceptions")
        return super().read_attribute(compiler, name)

    def write_attribute(self, compiler: FunctionCompiler, name: str, value: Argument) -> None:
        """As in the interpreter, but the floating-point environment is fixed in a region."""
        if name in ("float_flags", "float_rounding"):
            raise TemplateError(f"it changes {name}")
        super().write_attribute(compiler, name, value)

    def _register(self, compiler: FunctionCompiler, name: str, index: Argument) -> str:
        if isinstance(index, RecordOperand) and index.name:
            return register_name(name, placeholder(index.name))
        if isinstance(index, int):
            return register_name(name, index)
        if isinstance(index, Value) and index.text.isdigit():
            return register_name(name, index.text)
        _template(compiler).dynamic_files.add(name)
        return super()._register(compiler, name, index)

    def read_element(self, compiler: FunctionCompiler, name: str, index: Argument) -> Value:
        """A register; floating-point ones are kept as such."""
        if name in self._float_files:
            number = compiler.body.emit(f"load double, ptr {self._register(compiler, name, index)}")
            return compiler.body.value(f"bitcast double {number} to i64", u64)
        value = super().read_element(compiler, name, index)
        template = _template(compiler)
        selector = index.name if isinstance(index, RecordOperand) else index
        whole = self.isa.register_files[name].width == 64
        if whole and isinstance(selector, (str, int)) and all(name != file for file, _ in template.writes):
            template.bases[value.text] = name, selector
        return value

    def write_element(self, compiler: FunctionCompiler, name: str, index: Argument, value: Argument) -> None:
        """Set a register."""
        template = _template(compiler)
        if isinstance(index, RecordOperand):
            template.writes.append((name, index.name))
        elif isinstance(index, int):
            template.writes.append((name, index))
        elif isinstance(index, Value) and index.text.isdigit():
            template.writes.append((name, int(index.text)))
        if name in self._float_files:
            number = compiler.body.emit(f"bitcast i64 {compiler.typed(value, u64).text} to double")
            compiler.body.effect(f"store double {number}, ptr {self._register(compiler, name, index)}")
            return
        super().write_element(compiler, name, index, value)

    def branch(self, handler: HandlerCompiler, offset: Argument) -> None:
        """To a place that the decoder knows."""
        template = _template(handler)
        if not isinstance(offset, RecordOperand) or template.target_operand not in (None, offset.name):
            raise TemplateError("it branches in more than one way")
        template.target_operand = offset.name
        handler.model.branch(handler, offset.text)

    def system_call(self, handler: HandlerCompiler) -> None:
        """Left to the interpreter."""
        _template(handler).go(Way.INTERPRET)

    def breakpoint(self, handler: HandlerCompiler) -> None:
        """Left to the interpreter."""
        _template(handler).go(Way.INTERPRET)

    def fence(self, handler: HandlerCompiler) -> None:
        """Nothing to order where there is nobody else."""
        if not self.alone:
            super().fence(handler)

    def synchronize_code(self, handler: HandlerCompiler) -> None:
        """Left to the interpreter."""
        raise TemplateError("it may change what is executed")

    def call_routine(
        self, function: Callable[..., Any], compiler: FunctionCompiler, arguments: list[Argument]
    ) -> Argument:
        """Left to the interpreter."""
        raise TemplateError("it calls a function of the processor")

    def call_method(self, compiler: FunctionCompiler, name: str, arguments: list[Argument]) -> Value | None:
        """What only machines do is left to the interpreter."""
        if name in MACHINE_METHODS:
            raise TemplateError("it is about more than registers and memory")
        return super().call_method(compiler, name, arguments)

    def cycle_counter(self, handler: HandlerCompiler) -> Value:
        """Left to the interpreter, which knows how many instructions have been executed."""
        raise TemplateError("it reads a counter")

    def time_counter(self, handler: HandlerCompiler) -> Value:
        """Left to the interpreter."""
        raise TemplateError("it reads a counter")


class Templates:
    """The templates of an instruction set, made when first wanted."""

    def __init__(
        self,
        isa: InstructionSet,
        features: Features,
        rounding: int = 0,
        *,
        segment: bool = False,
        alone: bool = False,
    ) -> None:
        from anyvirt.jit.frontend import Module

        self.isa = isa
        self.target = RegionTarget(isa, features, rounding, segment=segment, alone=alone)
        self._module = Module(self.target)
        self._known: dict[tuple[Handler, tuple[tuple[str, int], ...]], Template | None] = {}
        self._constant_operands: dict[object, frozenset[str]] = {}

    def get(self, pattern: Pattern, operands: Mapping[str, int]) -> Template | None:
        """The template of an occurrence; None if the interpreter has to execute it."""
        wanted = self._constants(pattern)
        constants = {name: operands[name] for name in wanted}
        (form,) = pattern.handlers()
        key = (form, tuple(sorted(constants.items())))
        if key not in self._known:
            self._known[key] = self._compile(pattern, form, constants)
        return self._known[key]

    def _constants(self, pattern: Pattern) -> frozenset[str]:
        known = self._constant_operands.get(pattern)
        if known is None:
            known = self._constant_operands[pattern] = frozenset(
                operand.name
                for operand in pattern.operands
                if operand.field.registers is None
                and not operand.field.signed
                and (operand.fixed is not None or operand.width <= _CONSTANT_BITS)
                and operand.name in _operands(pattern)
            )
        return known

    def _compile(self, pattern: Pattern, form: Handler, constants: Mapping[str, int]) -> Template | None:
        compiler = TemplateCompiler(self._module, self.target, form, constants)
        try:
            return compiler.template()
        except TemplateError:
            return None
        except TypedPythonError as error:
            raise TypedPythonError(f"{pattern.assembly}: {error}") from None


def _operands(pattern: Pattern) -> set[str]:
    """The operands that the semantics have as parameters, or as attributes of those."""
    parameters = {argument.arg for argument in function_tree(plain_function(pattern.semantics)).args.args[1:]}
    roles = tuple(f"{role}_" for role, _ in pattern.structures if role in parameters)
    return parameters | {operand.name for operand in pattern.operands if operand.name.startswith(roles)}


def _template(compiler: FunctionCompiler) -> TemplateCompiler:
    if not isinstance(compiler, TemplateCompiler):
        raise TypedPythonError("only the semantics of an instruction have a processor")
    return compiler


def _as_format(text: str) -> str:
    return _PLACEHOLDER.sub(r"%(\1)s", text.replace("%", "%%"))
