"""Floating point in handlers: the host's instructions where they do the same, software for the rest.

The host's own rounding mode is the guest's dynamic one as long as a guest runs, and its sticky flags are
part of the guest's; what it does not have (other modes, the flags of some NaNs, saturation) is computed by
`anyvirt.isa.ieee754`, compiled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.isa import ieee754
from anyvirt.jit import ir
from anyvirt.jit.ir import LIKELY, UNLIKELY, Value
from anyvirt.jit.layout import Slot
from anyvirt.typed import f32, f64, u8, u64

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.jit.handlers import HandlerCompiler
    from anyvirt.jit.target import Argument

_NEAREST_AWAY = int(ieee754.Rounding.NEAREST_AWAY)
_TOWARDS_ZERO = int(ieee754.Rounding.TOWARDS_ZERO)
_COMPARISONS = {"==": ("fcmp", "oeq"), "<": ("fcmps", "olt"), "<=": ("fcmps", "ole")}
_INTEGERS = {"s32": (32, True), "u32": (32, False), "s64": (64, True), "u64": (64, False)}
_ENVIRONMENT = 'metadata !"round.dynamic", metadata !"fpexcept.strict"'


def accrued_flags(handler: HandlerCompiler) -> Value:
    """Exceptions found by hardware and by software."""
    return handler.body.value("call i8 @float.accrued(ptr %state)", u8)


def raise_float_flags(handler: HandlerCompiler, flags: Argument) -> None:
    """Add exceptions to those found by software."""
    wide = handler.body.emit(f"zext i8 {handler.typed(flags, u8).text} to i64")
    _add_flags(handler, wide)


def _add_flags(handler: HandlerCompiler, wide: str) -> None:
    old = handler.load_slot(Slot.FLOAT_FLAGS)
    handler.store_slot(Slot.FLOAT_FLAGS, handler.body.emit(f"or i64 {old}, {wide}"))


def arithmetic(
    handler: HandlerCompiler,
    name: str,
    software: Callable[..., object],
    width: int,
    operands: tuple[Argument, ...],
    rounding: Argument,
) -> Value:
    """An operation in the host's hardware if the rounding mode is the one set there, else in software."""
    mode = handler.typed(rounding, u8)
    values = [handler.typed(operand, u64) for operand in operands]
    return _either(
        handler,
        _is_dynamic(handler, mode),
        lambda: _hardware(handler, name, width, values),
        lambda: _software(handler, software, [Value(str(width), u8), *values, mode]),
    )


def _either(
    handler: HandlerCompiler,
    fast: str,
    hardware: Callable[[], Value],
    software: Callable[[], Value],
) -> Value:
    """Compute in one of two ways, the first of which is expected."""
    body = handler.body
    labels = [body.fresh(hint) for hint in ("hardware", "software", "computed")]
    body.branch_if(fast, labels[0], labels[1], hint=LIKELY)
    results = []
    for label, compute in zip(labels, (hardware, software), strict=False):
        body.open(label)
        value = compute()
        if not body.closed:
            results.append((value.text, body.label))
            body.branch(labels[2])
    body.open(labels[2])
    return body.value(f"phi i64 {', '.join(f'[{text}, %{label}]' for text, label in results)}", u64)


def _hardware(handler: HandlerCompiler, name: str, width: int, values: list[Value]) -> Value:
    kind, suffix = _float_type(width)
    operands = ", ".join(f"{kind} {_from_bits(handler, width, value)}" for value in values)
    result = handler.body.emit(
        f"call {kind} @llvm.experimental.constrained.{name}.{suffix}({operands}, {_ENVIRONMENT}) strictfp"
    )
    return _canonical(handler, width, result)


def _from_bits(handler: HandlerCompiler, width: int, value: Value) -> str:
    text = value.text
    if width == 32:
        text = handler.chosen_single(handler.body.emit(f"trunc i64 {text} to i32"))
    return handler.body.emit(f"bitcast i{width} {text} to {_float_type(width)[0]}")


def _to_bits(handler: HandlerCompiler, width: int, text: str) -> Value:
    encoded = handler.body.emit(f"bitcast {_float_type(width)[0]} {text} to i{width}")
    return handler.body.value(f"zext i32 {encoded} to i64", u64) if width == 32 else Value(encoded, u64)


def _canonical(handler: HandlerCompiler, width: int, text: str) -> Value:
    """The encoding of a result, of which every NaN is the canonical one."""
    nan = _compare(handler, "fcmp", "uno", width, text, text)
    canonical = int(ieee754.canonical_nan(u8(width)))
    if handler.predicts_numbers:
        kind, body = _float_type(width)[0], handler.body
        before, special, known = body.label, body.fresh("nan"), body.fresh("number")
        body.close(f"br i1 {nan}, label %{special}, label %{known}{UNLIKELY}")
        body.open(special)
        constant = body.emit(f"bitcast i{width} {canonical} to {kind}")
        body.branch(known)
        body.open(known)
        result = body.emit(f"phi {kind} [{text}, %{before}], [{constant}, %{special}]")
        return _to_bits(handler, width, result)
    encoded = _to_bits(handler, width, text)
    return handler.body.value(f"select i1 {nan}, i64 {canonical}, i64 {encoded.text}", u64)


def _compare(handler: HandlerCompiler, name: str, predicate: str, width: int, a: str, b: str) -> str:
    kind, suffix = _float_type(width)
    return handler.body.emit(
        f"call i1 @llvm.experimental.constrained.{name}.{suffix}"
        f'({kind} {a}, {kind} {b}, metadata !"{predicate}", metadata !"fpexcept.strict") strictfp'
    )


def _software(handler: HandlerCompiler, function: Callable[..., object], values: list[Value]) -> Value:
    if not handler.has_software:
        handler.give_up()
        return Value("0", u64)
    symbol = handler.module.add(function, attributes="noinline nounwind")
    arguments = ", ".join(value.operand for value in values)
    pair = handler.body.emit(f"call {{ i64, i8 }} {symbol}({arguments})")
    flags = handler.body.emit(f"extractvalue {{ i64, i8 }} {pair}, 1")
    _add_flags(handler, handler.body.emit(f"zext i8 {flags} to i64"))
    return handler.body.value(f"extractvalue {{ i64, i8 }} {pair}, 0", u64)


def fused(
    handler: HandlerCompiler, width: int, a: Argument, b: Argument, c: Argument, rounding: Argument
) -> Value:
    """Fused multiply-add; a NaN is left to software, which knows all about its flags."""
    values = [handler.typed(operand, u64) for operand in (a, b, c)]
    mode = handler.typed(rounding, u8)
    software = [Value(str(width), u8), *values, mode]
    if not handler.features.fma:
        return _software(handler, ieee754.fma, software)
    result = arithmetic(handler, "fma", ieee754.fma, width, (a, b, c), mode)
    canonical = int(ieee754.canonical_nan(u8(width)))
    number = handler.body.emit(f"icmp ne i64 {result.text}, {canonical}")
    return _either(handler, number, lambda: result, lambda: _software(handler, ieee754.fma, software))


def float_compare(
    handler: HandlerCompiler, comparison: Argument, width: int, a: Argument, b: Argument
) -> Value:
    """The host's comparisons have the flags that are wanted."""
    values = [_from_bits(handler, width, handler.typed(operand, u64)) for operand in (a, b)]
    name, predicate = _COMPARISONS[comparison]
    return Value(_compare(handler, name, predicate, width, *values), bool)


def float_convert(
    handler: HandlerCompiler, width: int, target: int, a: Argument, rounding: Argument
) -> Value:
    """Between the two widths."""
    value = handler.typed(a, u64)
    if width < target:
        text = _from_bits(handler, width, value)
        wide = handler.body.emit(
            "call double @llvm.experimental.constrained.fpext.f64.f32"
            f'(float {text}, metadata !"fpexcept.strict") strictfp'
        )
        return _canonical(handler, target, wide)
    mode = handler.typed(rounding, u8)

    def narrow() -> Value:
        text = _from_bits(handler, width, value)
        result = handler.body.emit(
            "call float @llvm.experimental.constrained.fptrunc.f32.f64"
            f"(double {text}, {_ENVIRONMENT}) strictfp"
        )
        return _canonical(handler, target, result)

    arguments = [Value(str(width), u8), Value(str(target), u8), value, mode]
    return _either(
        handler,
        _is_dynamic(handler, mode),
        narrow,
        lambda: _software(handler, ieee754.convert, arguments),
    )


def _is_dynamic(handler: HandlerCompiler, mode: Value) -> str:
    """Whether the host's hardware is set to a rounding mode."""
    dynamic = handler.body.emit(f"trunc i64 {handler.load_slot(Slot.FLOAT_ROUNDING)} to i8")
    same = handler.body.emit(f"icmp eq i8 {mode.text}, {dynamic}")
    possible = handler.body.emit(f"icmp ult i8 {mode.text}, {_NEAREST_AWAY}")
    return handler.body.emit(f"and i1 {same}, {possible}")


def float_to_integer(
    handler: HandlerCompiler, width: int, target: Argument, a: Argument, rounding: Argument
) -> Value:
    """Truncation of what is in range in hardware; rounding otherwise and saturation in software."""
    body, (bits, signed) = handler.body, _INTEGERS[target]
    value, mode = handler.typed(a, u64), handler.typed(rounding, u8)
    text = _from_bits(handler, width, value)
    truncates = body.emit(f"icmp eq i8 {mode.text}, {_TOWARDS_ZERO}")
    # A comparison that is false for NaNs and raises nothing for quiet ones; others raise invalid anyway.
    limit = bits - 1 if signed else min(bits, 63)
    low = _compare(
        handler, "fcmp", "oge", width, text, _float_constant(-(2.0**limit) if signed else 0.0, width)
    )
    high = _compare(handler, "fcmp", "olt", width, text, _float_constant(2.0**limit, width))
    fast = body.emit(f"and i1 {truncates}, {body.emit(f'and i1 {low}, {high}')}")

    def truncate() -> Value:
        kind, suffix = _float_type(width)
        result = body.emit(
            f"call i64 @llvm.experimental.constrained.fptosi.i64.{suffix}"
            f'({kind} {text}, metadata !"fpexcept.strict") strictfp'
        )
        if bits == 64:
            return Value(result, u64)
        return body.value(f"sext i32 {body.emit(f'trunc i64 {result} to i32')} to i64", u64)

    arguments = [
        Value(str(width), u8), Value(str(bits), u8), Value(str(signed).lower(), bool), value, mode,
    ]  # fmt: skip
    return _either(handler, fast, truncate, lambda: _software(handler, ieee754.to_integer, arguments))


def float_from_integer(
    handler: HandlerCompiler, width: int, source: Argument, a: Argument, rounding: Argument
) -> Value:
    """Signed conversion in hardware, also of unsigned numbers where the sign bit is free."""
    body, (bits, signed) = handler.body, _INTEGERS[source]
    value, mode = handler.typed(a, u64), handler.typed(rounding, u8)
    wide = value.text
    if bits == 32:
        extension = "sext" if signed else "zext"
        wide = body.emit(f"{extension} i32 {body.emit(f'trunc i64 {wide} to i32')} to i64")
    fast = _is_dynamic(handler, mode)
    if bits == 64 and not signed:
        fast = body.emit(f"and i1 {fast}, {body.emit(f'icmp sge i64 {wide}, 0')}")

    def convert() -> Value:
        kind, suffix = _float_type(width)
        result = body.emit(
            f"call {kind} @llvm.experimental.constrained.sitofp.{suffix}.i64"
            f"(i64 {wide}, {_ENVIRONMENT}) strictfp"
        )
        return _to_bits(handler, width, result)

    arguments = [
        Value(str(width), u8), Value(str(bits), u8), Value(str(signed).lower(), bool), value, mode,
    ]  # fmt: skip
    return _either(handler, fast, convert, lambda: _software(handler, ieee754.from_integer, arguments))


def _float_type(width: int) -> tuple[str, str]:
    return ("float", "f32") if width == 32 else ("double", "f64")


def _float_constant(number: float, width: int) -> str:
    return ir.constant(f32(number) if width == 32 else f64(number)).text


def _arithmetic_method(name: str, software: Callable[..., object]) -> Callable[..., Value]:
    return lambda handler, width, *operands: arithmetic(
        handler, name, software, width, operands[:-1], operands[-1]
    )


FLOAT_METHODS: dict[str, Callable[..., Value | None]] = {
    "raise_float_flags": raise_float_flags,
    "float_compare": float_compare,
    "float_convert": float_convert,
    "float_to_integer": float_to_integer,
    "float_from_integer": float_from_integer,
    "float_fma": fused,
    "float_add": _arithmetic_method("fadd", ieee754.add),
    "float_subtract": _arithmetic_method("fsub", ieee754.subtract),
    "float_multiply": _arithmetic_method("fmul", ieee754.multiply),
    "float_divide": _arithmetic_method("fdiv", ieee754.divide),
    "float_sqrt": _arithmetic_method("sqrt", ieee754.sqrt),
}
"""The floating-point operations of `anyvirt.isa.processor.Processor`, of a handler and their arguments."""
