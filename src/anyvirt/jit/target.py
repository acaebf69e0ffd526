"""What the words of typed Python mean in one setting: intrinsics, and the attributes of object parameters.

The front end knows numbers and control flow. Everything else - what `load64` reads, what `cpu.x[rd]`
is, whether there is a `syscall` - it asks its target. To serve another setting, subclass `Target`:

- new intrinsics: put `function -> emitter` into `self.intrinsics`. The key is the Python function that
  typed code calls (and that CPython runs); the emitter gets the compiler and the evaluated arguments,
  writes LLVM instructions through `compiler.body` and returns the result's `Value`, or None.
- parameters that are objects (`cpu`): override the five `*_attribute`, `*_element` and `call_method`.
"""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any, TypeAlias

from anyvirt import typed
from anyvirt.jit import ir
from anyvirt.jit.ir import Value
from anyvirt.typed import FixedFloat, FixedInteger, TypedPythonError, f32, f64, u8, u16, u32, u64

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.jit.frontend import FunctionCompiler

Argument: TypeAlias = Any
"""A `Value`, a plain number, or another compile-time object such as a tuple or a string."""
Intrinsic: TypeAlias = "Callable[[FunctionCompiler, list[Argument]], Argument]"


class Target:
    """Typed Python by itself: arithmetic, bit operations, and memory by plain address."""

    def __init__(self) -> None:
        self.intrinsics: dict[object, Intrinsic] = {
            typed.count_leading_zeros: _counting("ctlz", ", i1 false"),
            typed.count_trailing_zeros: _counting("cttz", ", i1 false"),
            typed.count_ones: _counting("ctpop", ""),
            typed.byte_swap: _counting("bswap", ""),
            typed.rotate_left: _rotation("fshl"),
            typed.rotate_right: _rotation("fshr"),
            typed.bits: _bits,
            typed.as_f32: _from_bits(u32, f32),
            typed.as_f64: _from_bits(u64, f64),
            typed.sqrt: _float_call("sqrt", 1),
            typed.fma: _float_call("fma", 3),
            builtins.abs: _float_call("fabs", 1),
            builtins.min: _extreme("<"),
            builtins.max: _extreme(">"),
        }
        loads: dict[object, ir.ValueType] = {
            typed.load8: u8, typed.load16: u16, typed.load32: u32, typed.load64: u64,
            typed.loadf32: f32, typed.loadf64: f64,
        }  # fmt: skip
        stores: dict[object, ir.ValueType] = {
            typed.store8: u8, typed.store16: u16, typed.store32: u32, typed.store64: u64,
            typed.storef32: f32, typed.storef64: f64,
        }  # fmt: skip
        self.intrinsics |= {function: self._load(kind) for function, kind in loads.items()}
        self.intrinsics |= {function: self._store(kind) for function, kind in stores.items()}

    # Memory ---------------------------------------------------------------------------------------------

    def pointer(self, compiler: FunctionCompiler, address: Value) -> str:
        """The LLVM pointer for an address given to a load or store."""
        return compiler.body.emit(f"inttoptr i64 {address.text} to ptr")

    def _load(self, kind: ir.ValueType) -> Intrinsic:
        def emit(compiler: FunctionCompiler, arguments: list[Argument]) -> Value:
            (address,) = compiler.typed_arguments(arguments, [u64])
            pointer = self.pointer(compiler, address)
            return compiler.body.value(f"load {ir.llvm_type(kind)}, ptr {pointer}, align 1", kind)

        return emit

    def _store(self, kind: ir.ValueType) -> Intrinsic:
        def emit(compiler: FunctionCompiler, arguments: list[Argument]) -> None:
            if len(arguments) != 2:
                raise TypedPythonError("a store takes an address and a value")
            (address,) = compiler.typed_arguments(arguments[:1], [u64])
            value = compiler.stored(arguments[1], kind)
            pointer = self.pointer(compiler, address)
            compiler.body.effect(f"store {value.operand}, ptr {pointer}, align 1")

        return emit

    # Object parameters ----------------------------------------------------------------------------------

    def read_attribute(self, compiler: FunctionCompiler, name: str) -> Value:
        """The value of `cpu.name`."""
        raise TypedPythonError(f"there is no attribute {name} here")

    def write_attribute(self, compiler: FunctionCompiler, name: str, value: Argument) -> None:
        """`cpu.name = value`."""
        raise TypedPythonError(f"there is no attribute {name} to assign to here")

    def read_element(self, compiler: FunctionCompiler, name: str, index: Argument) -> Value:
        """The value of `cpu.name[index]`."""
        raise TypedPythonError(f"there are no elements {name}[...] here")

    def write_element(self, compiler: FunctionCompiler, name: str, index: Argument, value: Argument) -> None:
        """`cpu.name[index] = value`."""
        raise TypedPythonError(f"there are no elements {name}[...] to assign to here")

    def call_method(self, compiler: FunctionCompiler, name: str, arguments: list[Argument]) -> Value | None:
        """`cpu.name(arguments)`."""
        raise TypedPythonError(f"there is no method {name} here")


def _one_type(compiler: FunctionCompiler, arguments: list[Argument], count: int) -> list[Value]:
    """Check the number of arguments and bring plain numbers among them to the type of the others."""
    kinds = [argument.type for argument in arguments if isinstance(argument, Value)]
    if len(arguments) != count or not kinds:
        raise TypedPythonError(f"wants {count} argument(s) of a fixed-width type")
    return compiler.typed_arguments(arguments, [kinds[0]] * count)


def _need(value: Value, family: type) -> None:
    if not issubclass(value.type, family):
        wanted = "an integer" if family is FixedInteger else "f32 or f64"
        raise TypedPythonError(f"wants {wanted}, not {value.type.__name__}")


def _counting(name: str, extra: str) -> Intrinsic:
    def emit(compiler: FunctionCompiler, arguments: list[Argument]) -> Value:
        (value,) = _one_type(compiler, arguments, 1)
        _need(value, FixedInteger)
        if name == "bswap" and ir.bit_width(value.type) < 16:
            raise TypedPythonError("byte_swap wants 16 bits or more")
        kind = ir.llvm_type(value.type)
        return compiler.body.value(f"call {kind} @llvm.{name}.{kind}({value.operand}{extra})", value.type)

    return emit


def _rotation(name: str) -> Intrinsic:
    def emit(compiler: FunctionCompiler, arguments: list[Argument]) -> Value:
        value, amount = _one_type(compiler, arguments, 2)
        _need(value, FixedInteger)
        kind = ir.llvm_type(value.type)
        call = f"call {kind} @llvm.{name}.{kind}({value.operand}, {value.operand}, {amount.operand})"
        return compiler.body.value(call, value.type)

    return emit


def _bits(compiler: FunctionCompiler, arguments: list[Argument]) -> Value:
    (value,) = _one_type(compiler, arguments, 1)
    _need(value, FixedFloat)
    kind = u32 if value.type is f32 else u64
    return compiler.body.value(f"bitcast {value.operand} to {ir.llvm_type(kind)}", kind)


def _from_bits(source: ir.ValueType, kind: ir.ValueType) -> Intrinsic:
    def emit(compiler: FunctionCompiler, arguments: list[Argument]) -> Value:
        (value,) = compiler.typed_arguments(arguments, [source])
        return compiler.body.value(f"bitcast {value.operand} to {ir.llvm_type(kind)}", kind)

    return emit


def _float_call(name: str, count: int) -> Intrinsic:
    def emit(compiler: FunctionCompiler, arguments: list[Argument]) -> Value:
        values = _one_type(compiler, arguments, count)
        _need(values[0], FixedFloat)
        kind = values[0].type
        suffix = "f32" if kind is f32 else "f64"
        operands = ", ".join(value.operand for value in values)
        return compiler.body.value(f"call {ir.llvm_type(kind)} @llvm.{name}.{suffix}({operands})", kind)

    return emit


def _extreme(comparison: str) -> Intrinsic:
    """min and max as CPython's builtins define them: the second if it is less (greater), else the first."""

    def emit(compiler: FunctionCompiler, arguments: list[Argument]) -> Value:
        first, second = _one_type(compiler, arguments, 2)
        chosen = compiler.compare(comparison, second, first)
        return compiler.body.value(f"select i1 {chosen.text}, {second.operand}, {first.operand}", first.type)

    return emit
