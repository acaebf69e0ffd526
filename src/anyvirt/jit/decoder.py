"""The native decoder, generated from an instruction set's patterns: it writes the interpreter's records.

Patterns are told apart by switches over the bits they all fix, then by comparing the most specific one and
looking at the rest again; so the tree follows from the patterns alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.isa.description import DELAY_SLOT, DescriptionError
from anyvirt.jit.fetch import (
    decode_instruction,
    fetch_parcel,
    instruction_length,
    instruction_start,
    parcel_size,
)
from anyvirt.jit.handlers import slot_variant
from anyvirt.jit.ir import constant
from anyvirt.jit.layout import HANDLER_FIELD
from anyvirt.jit.records import ends_straight_line, operand_slots, sunk_operands
from anyvirt.typed import u8, u16, u64

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyvirt.isa.description import Exclusion, Handler, InstructionSet, Operand, Part, Pattern
    from anyvirt.jit.frontend import FunctionCompiler, Module
    from anyvirt.jit.ir import Value
    from anyvirt.jit.records import OperandSlot
    from anyvirt.jit.target import Argument

_FEW = 4
"""Values that are compared instead of looked up."""
ILLEGAL = "illegal"
"""Name of the handler for what no pattern matches, one for each length."""


class DecoderGenerator:
    """Builds `@decode.LENGTH(i64 word, ptr record, i1 slot) -> i64`: whether the run ends there.

    `slot` asks for the variant of an instruction that is in a delay slot.
    """

    def __init__(self, isa: InstructionSet, module: Module, names: Mapping[Handler, str]) -> None:
        """`names` are those of the handlers."""
        self._isa = isa
        self._module = module
        self._names = names
        self._lines: list[str] = []
        self._count = 0

    def define(self, length: int) -> str:
        """The decoder for instructions of `length` bytes; returns its LLVM name."""
        self._lines = []
        self._node([pattern for pattern in self._isa.patterns if pattern.length == length], 0, "entry")
        self._lines.append("illegal:")
        self._finish(f"@{ILLEGAL}.{length}", ends=True)
        name = f"@decode.{length}"
        text = "\n".join(self._lines)
        parameters = "i64 %word, ptr %record, i1 %slot"
        self._module.define(f"define internal i64 {name}({parameters}) nounwind {{\n{text}\n}}\n")
        return name

    def _fresh(self, hint: str) -> str:
        self._count += 1
        return f"{hint}.{self._count}"

    def _emit(self, instruction: str) -> str:
        name = f"%{self._fresh('t')}"
        self._lines.append(f"  {name} = {instruction}")
        return name

    def _node(self, patterns: list[Pattern], known: int, label: str) -> None:
        """Decide between patterns, of which the `known` bits have been compared."""
        self._lines.append(f"{label}:")
        if not patterns:
            self._lines.append("  br label %illegal")
            return
        common = ~known
        for pattern in patterns:
            common &= pattern.mask
        if common and len(patterns) > 1:
            self._switch(patterns, known, common)
        else:
            self._compare(patterns, known)

    def _switch(self, patterns: list[Pattern], known: int, common: int) -> None:
        groups: dict[int, list[Pattern]] = {}
        for pattern in patterns:
            groups.setdefault(pattern.match & common, []).append(pattern)
        labels = {bits: self._fresh("group") for bits in groups}
        selected = self._emit(f"and i64 %word, {common}")
        cases = " ".join(f"i64 {bits}, label %{label}" for bits, label in labels.items())
        self._lines.append(f"  switch i64 {selected}, label %illegal [{cases}]")
        for bits, label in labels.items():
            self._node(groups[bits], known | common, label)

    def _compare(self, patterns: list[Pattern], known: int) -> None:
        pattern = max(patterns, key=lambda candidate: candidate.mask.bit_count())
        found, other = self._fresh("found"), self._fresh("other")
        conditions = [
            self._emit(f"icmp eq i64 {self._emit(f'and i64 %word, {pattern.mask}')}, {pattern.match}")
        ]
        conditions += [self._allowed(rule) for rule in pattern.exclusions]
        condition = conditions[0]
        for further in conditions[1:]:
            condition = self._emit(f"and i1 {condition}, {further}")
        self._lines.append(f"  br i1 {condition}, label %{found}, label %{other}")
        self._lines.append(f"{found}:")
        self._write_record(pattern)
        self._node([candidate for candidate in patterns if candidate is not pattern], known, other)

    def _allowed(self, rule: Exclusion) -> str:
        value = self._extract(rule.operand)
        allowed = "true"
        for excluded in rule.values:
            allowed = self._emit(f"and i1 {allowed}, {self._emit(f'icmp ne i64 {value}, {excluded}')}")
        return allowed

    def _extract(self, operand: Operand) -> str:
        if operand.fixed is not None:
            return str(operand.fixed)
        field, value = operand.field, ""
        for part in operand.parts:
            bits = self._emit(f"and i64 {self._bits_from(part)}, {(1 << part.width) - 1}")
            if part.target:
                bits = self._emit(f"shl i64 {bits}, {part.target}")
            value = self._emit(f"or i64 {value}, {bits}") if value else bits
        if field.signed:
            distance = 64 - operand.width
            value = self._emit(f"ashr i64 {self._emit(f'shl i64 {value}, {distance}')}, {distance}")
        if field.formula is not None:
            return self._emit(f"call i64 {self._module.add(field.formula)}(i64 {value})")
        if field.bias:
            value = self._emit(f"add i64 {value}, {field.bias}")
        return self._renamed(operand, value)

    def _bits_from(self, part: Part) -> str:
        """The word shifted so that a part is at its lowest bit."""
        return self._emit(f"lshr i64 %word, {part.source}")

    def _renamed(self, operand: Operand, value: str) -> str:
        """Numbers that mean others: few are compared, many stand in a table."""
        renamed = dict(operand.field.renamed)
        if len(renamed) > _FEW:
            count = 1 << operand.width
            table = self._module.table(tuple(u8(renamed.get(number, number)) for number in range(count)))
            place = self._emit(f"getelementptr i8, ptr {table}, i64 {value}")
            return self._emit(f"zext i8 {self._emit(f'load i8, ptr {place}')} to i64")
        for encoded, meant in renamed.items():
            same = self._emit(f"icmp eq i64 {value}, {encoded}")
            value = self._emit(f"select i1 {same}, i64 {meant}, i64 {value}")
        return value

    def _write_record(self, pattern: Pattern) -> None:
        (form,) = pattern.handlers()
        self._write_operands(pattern, operand_slots(self._isa, self._module, form), pattern.operands)
        handler = f"@{self._names[form]}"
        if self._isa.delay_slots:
            handler = self._emit(f"select i1 %slot, ptr {slot_variant(handler)}, ptr {handler}")
        self._finish(handler, ends=ends_straight_line(pattern.semantics))

    def _write_operands(
        self, pattern: Pattern, slots: Mapping[str, OperandSlot], operands: Sequence[Operand]
    ) -> None:
        """Put operands into their slots of the record; those without one nobody wants."""
        sunk = sunk_operands(self._isa, pattern.semantics)
        for operand in operands:
            slot = slots.get(operand.name)
            if slot is None:
                continue
            if operand.fixed is None and slot.llvm == "i8" and operand.value_bits > 8:
                raise DescriptionError(
                    f"{pattern.assembly!r}: {operand.name} has {operand.value_bits} bits, but its type 8"
                )
            value = self._extract(operand)
            if operand.name in sunk:
                value = self._to_sink(operand, value)
            self._store(slot, value)

    def _store(self, slot: OperandSlot, value: str) -> None:
        field = self._emit(f"getelementptr i8, ptr %record, i64 {slot.offset}")
        if slot.llvm != "i64":
            value = self._emit(f"trunc i64 {value} to {slot.llvm}")
        self._lines.append(f"  store {slot.llvm} {value}, ptr {field}")

    def _to_sink(self, operand: Operand, value: str) -> str:
        file = self._isa.register_files[operand.field.registers or ""]
        zero = self._emit(f"icmp eq i64 {value}, {file.zero}")
        return self._emit(f"select i1 {zero}, i64 {file.count}, i64 {value}")

    def _finish(self, handler: str, *, ends: bool) -> None:
        """The handler comes last and in order: another thread may be waiting for exactly it."""
        pointer = self._emit(f"getelementptr i8, ptr %record, i64 {HANDLER_FIELD}")
        self._lines.append(f"  store atomic ptr {handler}, ptr {pointer} release, align 8")
        if ends:
            self._lines.append("  ret i64 1")
        else:
            # A delay slot is followed by what its branch says.
            self._lines.append(f"  ret i64 {self._emit('zext i1 %slot to i64')}")


def add_decoder(module: Module, isa: InstructionSet, handlers: Mapping[Handler, str]) -> None:
    """Compile the decoder, and give the words of `anyvirt.jit.fetch` their meaning."""
    if isa.length is None:
        raise DescriptionError(f"{isa.name} does not say how long instructions are")
    generator = DecoderGenerator(isa, module, handlers)
    names = {length: generator.define(length) for length in sorted({p.length for p in isa.patterns})}
    length_function = module.add(isa.length)

    def emit_length(compiler: FunctionCompiler, arguments: list[Argument]) -> Value:
        (parcel,) = compiler.typed_arguments(arguments, [u16])
        return compiler.body.value(f"call i8 {length_function}({parcel.operand})", u8)

    def emit_decode(compiler: FunctionCompiler, arguments: list[Argument]) -> Value:
        word, length, pc, record = compiler.typed_arguments(arguments, [u64, u64, u64, u64])
        body = compiler.body
        slot = "false"
        if isa.delay_slots:
            slot = body.emit(f"icmp ne i64 {body.emit(f'and i64 {pc.text}, {DELAY_SLOT}')}, 0")
        pointer = body.emit(f"inttoptr i64 {record.text} to ptr")
        done, results = body.fresh("decoded"), []
        cases = {size: body.fresh("decode") for size in names}
        default = next(iter(cases.values()))
        choices = " ".join(f"i64 {size}, label %{label}" for size, label in cases.items())
        body.close(f"switch i64 {length.text}, label %{default} [{choices}]")
        for size, label in cases.items():
            body.open(label)
            call = f"call i64 {names[size]}(i64 {word.text}, ptr {pointer}, i1 {slot})"
            results.append((body.emit(call), label))
            body.branch(done)
        body.open(done)
        return body.value(f"phi i64 {', '.join(f'[{text}, %{label}]' for text, label in results)}", u64)

    def emit_start(compiler: FunctionCompiler, arguments: list[Argument]) -> Value:
        (pc,) = compiler.typed_arguments(arguments, [u64])
        return compiler.body.value(f"and i64 {pc.text}, {~DELAY_SLOT}", u64) if isa.delay_slots else pc

    def emit_size(compiler: FunctionCompiler, arguments: list[Argument]) -> Value:
        compiler.typed_arguments(arguments, [])
        return constant(u64(isa.parcel))

    def emit_parcel(compiler: FunctionCompiler, arguments: list[Argument]) -> Value:
        (address,) = compiler.typed_arguments(arguments, [u64])
        body, kind = compiler.body, f"i{8 * isa.parcel}"
        pointer = body.emit(f"inttoptr i64 {address.text} to ptr")
        text = body.emit(f"load {kind}, ptr {pointer}, align 1")
        if isa.byte_order == "big" and isa.parcel > 1:
            text = body.emit(f"call {kind} @llvm.bswap.{kind}({kind} {text})")
        return body.value(f"zext {kind} {text} to i64", u64)

    module.target.intrinsics[instruction_start] = emit_start
    module.target.intrinsics[parcel_size] = emit_size
    module.target.intrinsics[fetch_parcel] = emit_parcel
    module.target.intrinsics[instruction_length] = emit_length
    module.target.intrinsics[decode_instruction] = emit_decode
