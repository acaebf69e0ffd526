"""The native decoder of byte streams: prefixes, then a tree over opcode and context, then the form.

Instructions are decoded from a window of 16 bytes. What the tree compares, the key, is the first four bytes
behind the prefixes and, above them, the context. Forms are decoded by functions of their own, which patterns
share; they write their operands into the record, at the same places for all handlers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from anyvirt.isa.description import DescriptionError
from anyvirt.isa.fields import CONTEXT, MODE
from anyvirt.isa.patterns import Form
from anyvirt.jit.decoder import ILLEGAL, DecoderGenerator
from anyvirt.jit.ir import Value
from anyvirt.jit.layout import StateLayout
from anyvirt.jit.records import LENGTH_FIELD, ends_straight_line, operand_slots
from anyvirt.jit.stream_fetch import DECODED_ENDS, decode_window, decoding_mode
from anyvirt.typed import u64

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyvirt.isa.contexts import Context, Derived, Prefix
    from anyvirt.isa.description import Exclusion, Handler, InstructionSet, Operand, Part, Pattern
    from anyvirt.jit.frontend import FunctionCompiler, Module
    from anyvirt.jit.target import Argument

_KEY_BYTES = 4
_KEY_BITS = 8 * _KEY_BYTES
_DECODE = "@decode.stream"
_WINDOW = "@decode.window"


@dataclass(frozen=True, eq=False)
class _Choice:
    """A pattern or the shape of a form with mask and match of the key."""

    mask: int
    match: int
    exclusions: tuple[Exclusion, ...]
    item: Any


def _key(word: int) -> int:
    """The bits of a word that are in the key."""
    stream = word % (1 << CONTEXT)
    if stream >> _KEY_BITS:
        raise DescriptionError(f"patterns can only fix bits of the first {_KEY_BYTES} bytes")
    return stream | word >> CONTEXT << _KEY_BITS


class StreamDecoderGenerator(DecoderGenerator):
    """Builds `@decode.stream(context, window, prefixes, available, record)`."""

    def __init__(self, isa: InstructionSet, module: Module, names: Mapping[Handler, str]) -> None:
        super().__init__(isa, module, names)
        self._stream = "%stream"
        """Where operands are taken from: the bytes behind the prefixes, or those behind a form."""

    def define_all(self) -> None:
        """The decoder with all it needs."""
        shapes: dict[str, dict[Form, None]] = {}
        for pattern in self._isa.patterns:
            if pattern.form is not None:
                shapes.setdefault(pattern.form.form, {}).update(dict.fromkeys(pattern.forms))
        for name, forms in shapes.items():
            self._define_form(name, list(forms))
        self._define_patterns()

    # Forms ----------------------------------------------------------------------------------------------

    def _define_form(self, name: str, forms: Sequence[Form]) -> None:
        """`@form.NAME(context, stream, record)`: length and, from bit 8 up, the class; 0 if it is none."""
        self._lines, self._stream = [], "%stream"
        choices = [
            _Choice(_key(form.bits.mask), _key(form.bits.match), form.exclusions, form) for form in forms
        ]
        self._lines.append("entry:")
        self._define_key()
        self._lines.append("  br label %choose")
        self._node(choices, 0, "choose")  # type: ignore[arg-type]
        self._lines.append("illegal:")
        self._lines.append("  ret i64 0")
        text = "\n".join(self._lines)
        self._module.define(
            f"define internal i64 @form.{name}(i64 %context, i128 %stream, ptr %record) nounwind "
            f"{{\n{text}\n}}\n"
        )

    def _define_key(self) -> None:
        low = self._emit("trunc i128 %stream to i64")
        stream = self._emit(f"and i64 {low}, {(1 << _KEY_BITS) - 1}")
        self._lines.append(f"  %high = shl i64 %context, {_KEY_BITS}")
        self._lines.append(f"  %word = or i64 %high, {stream}")

    def _write_form(self, form: Form) -> None:
        """The operands of a shape, and what is known of it."""
        handler = next(
            handler
            for pattern in self._isa.patterns
            if pattern.form is not None and form in pattern.forms
            for handler in pattern.handlers()
            if dict(handler.structures)[handler.form] is form.structure
        )
        slots = operand_slots(self._isa, self._module, handler)
        for operand in form.operands:
            self._store(slots[f"{handler.form}_{operand.name}"], self._extract(operand))
        number = self._classes.index(form.structure)
        self._lines.append(f"  ret i64 {form.length | number << 8}")

    @cached_property
    def _classes(self) -> list[type]:
        """The classes that forms have, by their numbers."""
        return list(
            dict.fromkeys(shape.structure for pattern in self._isa.patterns for shape in pattern.forms)
        )

    # Patterns -------------------------------------------------------------------------------------------

    def _define_patterns(self) -> None:
        self._lines, self._stream = [], "%stream"
        choices = [
            _Choice(_key(pattern.mask), _key(pattern.match), pattern.exclusions, pattern)
            for pattern in self._isa.patterns
        ]
        self._lines.append("entry:")
        self._define_key()
        self._lines.append("  br label %choose")
        self._node(choices, 0, "choose")  # type: ignore[arg-type]
        self._lines.append("illegal:")
        self._finish(f"{ILLEGAL}.0", ends=True)
        text = "\n".join(self._lines)
        self._module.define(
            f"define internal i64 {_DECODE}(i64 %context, i128 %stream, i64 %prefixes, i64 %available, "
            f"ptr %record) nounwind {{\n{text}\n}}\n"
        )

    def _write_record(self, choice: Any) -> None:  # noqa: ANN401 - a _Choice
        if isinstance(choice.item, Form):
            self._write_form(choice.item)
            return
        pattern: Pattern = choice.item
        handlers = list(pattern.handlers())
        slots = operand_slots(self._isa, self._module, handlers[0])
        self._stream = "%stream"
        form = self._decode_form(pattern) if pattern.form is not None else ""
        own = str(pattern.length + pattern.tail_length - (1 if form else 0))
        total = self._emit(f"add i64 %prefixes, {own}")
        if form:
            total = self._emit(f"add i64 {total}, {self._emit(f'and i64 {form}, 255')}")
        self._require_room(total)
        self._write_operands(pattern, slots, pattern.operands)
        if form:
            distance = self._emit(f"shl i64 {self._emit(f'and i64 {form}, 255')}, 3")
            wide = self._emit(f"zext i64 {distance} to i128")
            moved = self._emit(f"lshr i128 %stream, {8 * pattern.form.position}")  # type: ignore[union-attr]
            self._stream = self._emit(f"lshr i128 {moved}, {wide}")
            self._write_operands(pattern, slots, pattern.tail)
            self._stream = "%stream"
        place = self._emit(f"getelementptr i8, ptr %record, i64 {LENGTH_FIELD}")
        self._lines.append(f"  store i8 {self._emit(f'trunc i64 {total} to i8')}, ptr {place}")
        self._select_handler(handlers, form)
        ends = DECODED_ENDS if ends_straight_line(pattern.semantics) else 0
        self._lines.append(f"  ret i64 {self._emit(f'or i64 {total}, {ends}')}")

    def _decode_form(self, pattern: Pattern) -> str:
        """Length and class of the form, whose operands are then in the record."""
        assert pattern.form is not None
        stream = self._emit(f"lshr i128 %stream, {8 * pattern.form.position}")
        found = self._emit(f"call i64 @form.{pattern.form.form}(i64 %context, i128 {stream}, ptr %record)")
        known = self._fresh("shape")
        self._lines.append(f"  br i1 {self._emit(f'icmp ne i64 {found}, 0')}, label %{known}, label %illegal")
        self._lines.append(f"{known}:")
        return found

    def _require_room(self, total: str) -> None:
        """Go on only if all bytes of the instruction are there."""
        assert self._isa.context is not None
        fits, missing, here = self._fresh("fits"), self._fresh("missing"), self._fresh("here")
        limit = self._isa.context.longest
        self._lines.append(
            f"  br i1 {self._emit(f'icmp ule i64 {total}, {limit}')}, label %{fits}, label %illegal"
        )
        self._lines.append(f"{fits}:")
        self._lines.append(
            f"  br i1 {self._emit(f'icmp ule i64 {total}, %available')}, label %{here}, label %{missing}"
        )
        self._lines.append(f"{missing}:")
        self._lines.append(f"  ret i64 {total}")
        self._lines.append(f"{here}:")

    def _select_handler(self, handlers: Sequence[Handler], form: str) -> None:
        chosen = f"@{self._names[handlers[0]]}"
        for handler in handlers[1:]:
            number = self._classes.index(dict(handler.structures)[handler.form])
            kind = self._emit(f"lshr i64 {form}, 8")
            same = self._emit(f"icmp eq i64 {kind}, {number}")
            chosen = self._emit(f"select i1 {same}, ptr @{self._names[handler]}, ptr {chosen}")
        self._lines.append(f"  store atomic ptr {chosen}, ptr %record release, align 8")

    def _finish(self, handler: str, *, ends: bool) -> None:
        """What is illegal ends a run, and has no length."""
        self._lines.append("  %whole = icmp uge i64 %available, 15")
        self._lines.append("  br i1 %whole, label %refuse, label %unknown")
        self._lines.append("unknown:")
        self._lines.append("  ret i64 0")
        self._lines.append("refuse:")
        self._lines.append(f"  store atomic ptr @{handler}, ptr %record release, align 8")
        self._lines.append(f"  ret i64 {DECODED_ENDS * ends}")

    def _bits_from(self, part: Part) -> str:
        if part.source >= CONTEXT:
            return self._emit(f"lshr i64 %context, {part.source - CONTEXT}")
        moved = self._emit(f"lshr i128 {self._stream}, {part.source}")
        return self._emit(f"trunc i128 {moved} to i64")

    def _extract(self, operand: Operand) -> str:
        value = super()._extract(operand)
        return self._emit(f"add i64 {value}, %prefixes") if operand.field.from_end else value


# Prefixes ---------------------------------------------------------------------------------------------------


class PrefixGenerator:
    """Builds `@decode.window(low, high, available, mode, record)`: prefixes, then what is behind them."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lines: list[str] = []
        self._count = 0

    def text(self) -> str:
        """The definition of the function."""
        groups: dict[tuple[Prefix, ...], list[int]] = {}
        for byte in range(256):
            found = tuple(prefix for prefix in self._context.prefixes if byte & prefix.mask == prefix.match)
            if found:
                groups.setdefault(found, []).append(byte)
        labels = {prefixes: f"prefix.{number}" for number, prefixes in enumerate(groups)}
        cases = " ".join(
            f"i64 {byte}, label %{labels[prefixes]}" for prefixes, values in groups.items() for byte in values
        )
        self._lines += [_PREFIX_HEAD.format(cases=cases)]
        arrivals = []
        for prefixes, label in labels.items():
            self._lines.append(f"{label}:")
            for prefix in prefixes:
                arrivals.append(self._one_of(prefix))
            if not self._lines[-1].startswith("  br label %next"):
                self._lines.append("  br label %done")
        merged = ", ".join(f"[{value}, %{label}]" for value, label in arrivals)
        self._lines.append(_PREFIX_NEXT.format(merged=merged, last=self._context.longest))
        self._complete()
        body = "\n".join(self._lines)
        return (
            f"define internal i64 {_WINDOW}(i64 %low, i64 %high, i64 %available, i64 %mode, ptr %record) "
            f"nounwind {{\n{body}\n}}\n"
        )

    def _emit(self, instruction: str) -> str:
        self._count += 1
        name = f"%p.{self._count}"
        self._lines.append(f"  {name} = {instruction}")
        return name

    def _one_of(self, prefix: Prefix) -> tuple[str, str]:
        """Apply a prefix if the context is one in which it is one; the context behind it, and the block."""
        self._count += 1
        here, other = f"is.{self._count}", f"other.{self._count}"
        mask, match = prefix.condition
        if mask:
            same = self._emit(f"icmp eq i64 {self._emit(f'and i64 %context, {mask}')}, {match}")
            self._lines.append(f"  br i1 {same}, label %{here}, label %{other}")
        else:
            self._lines.append(f"  br label %{here}")
        self._lines.append(f"{here}:")
        dropped = prefix.clears | (0 if prefix.last else self._context.only_last)
        dropped |= sum(field.mask for _, field in prefix.taken)
        value = self._emit(f"or i64 {self._emit(f'and i64 %context, {~dropped}')}, {prefix.sets}")
        for bit, field in prefix.taken:
            taken = self._emit(f"and i64 {self._emit(f'lshr i64 %byte, {bit}')}, 1")
            value = self._emit(f"or i64 {value}, {self._emit(f'shl i64 {taken}, {field.position}')}")
        self._lines.append("  br label %next")
        if mask:
            self._lines.append(f"{other}:")
        return value, here

    def _complete(self) -> None:
        """Compute the derived fields, add the number of prefixes, and go on to the patterns."""
        context = "%context"
        for derived in self._context.derived:
            context = self._derive(derived, context)
        whole = self._emit(f"or i64 {context}, %i")
        called = f"call i64 {_DECODE}(i64 {whole}, i128 %window, i64 %i, i64 %available, ptr %record)"
        self._lines.append(f"  ret i64 {self._emit(called)}")

    def _derive(self, derived: Derived, context: str) -> str:
        """A field from those it follows from: its codes are packed into a number."""
        index, position = "0", 0
        for source in derived.sources:
            bits = self._emit(
                f"and i64 {self._emit(f'lshr i64 {context}, {source.position}')}, {(1 << source.width) - 1}"
            )
            index = self._emit(f"or i64 {index}, {self._emit(f'shl i64 {bits}, {position}')}")
            position += source.width
        width = derived.field.width
        if len(derived.codes) * width > 64:
            raise DescriptionError(f"{derived.field.name} follows from too many fields")
        packed = sum(code << number * width for number, code in enumerate(derived.codes))
        shifted = self._emit(f"lshr i64 {packed}, {self._emit(f'mul i64 {index}, {width}')}")
        code = self._emit(f"and i64 {shifted}, {(1 << width) - 1}")
        return self._emit(f"or i64 {context}, {self._emit(f'shl i64 {code}, {derived.field.position}')}")


_PREFIX_HEAD = """entry:
  %w.low = zext i64 %low to i128
  %w.high = zext i64 %high to i128
  %w.up = shl i128 %w.high, 64
  %whole = or i128 %w.up, %w.low
  br label %look
look:
  %i = phi i64 [0, %entry], [%i.next, %onward]
  %context = phi i64 [%mode, %entry], [%behind, %onward]
  %window = phi i128 [%whole, %entry], [%shifted, %onward]
  %first = trunc i128 %window to i64
  %byte = and i64 %first, 255
  switch i64 %byte, label %done [{cases}]"""
_PREFIX_NEXT = """next:
  %behind = phi i64 {merged}
  %i.next = add i64 %i, 1
  %shifted = lshr i128 %window, 8
  %more = icmp ult i64 %i.next, {last}
  br i1 %more, label %onward, label %endless
onward:
  br label %look
endless:
  %none = call i64 @decode.stream(i64 0, i128 0, i64 {last}, i64 %available, ptr %record)
  ret i64 %none
done:"""


def add_stream_decoder(module: Module, isa: InstructionSet, names: Mapping[Handler, str]) -> None:
    """Compile the decoder, and give `decode_window` and `decoding_mode` their meaning."""
    assert isa.context is not None
    StreamDecoderGenerator(isa, module, names).define_all()
    module.define(PrefixGenerator(isa.context).text())
    offset, _ = StateLayout.of(isa).scalars[MODE]
    field = isa.context.fields[MODE]

    def emit_mode(compiler: FunctionCompiler, arguments: list[Argument]) -> Value:
        """The bits of the context before the first byte."""
        (state,) = compiler.typed_arguments(arguments, [u64])
        body = compiler.body
        place = body.emit(f"inttoptr i64 {body.emit(f'add i64 {state.text}, {offset}')} to ptr")
        mode, code = body.emit(f"load i64, ptr {place}"), "0"
        for number, value in enumerate(field.values):
            same = body.emit(f"icmp eq i64 {mode}, {value}")
            code = body.emit(f"select i1 {same}, i64 {number << field.position}, i64 {code}")
        return Value(code, u64)

    def emit_decode(compiler: FunctionCompiler, arguments: list[Argument]) -> Value:
        low, high, available, mode, record = compiler.typed_arguments(arguments, [u64] * 5)
        pointer = compiler.body.emit(f"inttoptr i64 {record.text} to ptr")
        return compiler.body.value(
            f"call i64 {_WINDOW}({low.operand}, {high.operand}, {available.operand}, {mode.operand}, "
            f"ptr {pointer})",
            u64,
        )

    module.target.intrinsics[decoding_mode] = emit_mode
    module.target.intrinsics[decode_window] = emit_decode
