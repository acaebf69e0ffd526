"""The numbers of typed Python as LLVM instructions: literals, operators, comparisons, casts."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from anyvirt import typed
from anyvirt.jit import ir
from anyvirt.jit.ir import Body, Value
from anyvirt.typed import FixedFloat, TypedPythonError

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.jit.target import Argument

_ARITHMETIC: dict[type[ast.operator], tuple[str, str, str]] = {  # unsigned, signed, float
    ast.Add: ("add", "add", "fadd"),
    ast.Sub: ("sub", "sub", "fsub"),
    ast.Mult: ("mul", "mul", "fmul"),
    ast.BitAnd: ("and", "and", ""),
    ast.BitOr: ("or", "or", ""),
    ast.BitXor: ("xor", "xor", ""),
    ast.FloorDiv: ("udiv", "sdiv", ""),
    ast.Mod: ("urem", "srem", ""),
    ast.Div: ("", "", "fdiv"),
}
_SHIFTS: dict[type[ast.operator], tuple[str, str]] = {
    ast.LShift: ("shl", "shl"),
    ast.RShift: ("lshr", "ashr"),
}
_COMPARISONS: dict[str, tuple[str, str, str]] = {  # unsigned, signed, float
    "==": ("eq", "eq", "oeq"),
    "!=": ("ne", "ne", "une"),
    "<": ("ult", "slt", "olt"),
    "<=": ("ule", "sle", "ole"),
    ">": ("ugt", "sgt", "ogt"),
    ">=": ("uge", "sge", "oge"),
}
_COMPARISON_NAMES: dict[type[ast.cmpop], str] = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
}  # fmt: skip
COMPARABLE = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_CONSTANT_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.BitAnd: lambda a, b: a & b,
    ast.BitOr: lambda a, b: a | b,
    ast.BitXor: lambda a, b: a ^ b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Mod: lambda a, b: a % b,
    ast.Div: lambda a, b: a / b,
    ast.LShift: lambda a, b: a << b,
    ast.RShift: lambda a, b: a >> b,
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
    ast.USub: lambda a: -a,
    ast.UAdd: lambda a: a,
    ast.Invert: lambda a: ~a,
}


class Arithmetic:
    """Operations on values and on numbers known when compiling; instructions go to `body`."""

    def __init__(self) -> None:
        self.body = Body()

    def typed_arguments(self, arguments: list[Argument], kinds: list[ir.ValueType]) -> list[Value]:
        """Check number and types of arguments; plain numbers take the type wanted."""
        if len(arguments) != len(kinds):
            raise TypedPythonError(f"wants {len(kinds)} argument(s), not {len(arguments)}")
        return [self.typed(argument, kind) for argument, kind in zip(arguments, kinds, strict=True)]

    def typed(self, argument: Argument, kind: ir.ValueType) -> Value:
        """A value of exactly this type, or a plain number turned into it."""
        if isinstance(argument, int | float):
            return ir.literal(argument, kind)
        if isinstance(argument, Value) and argument.type is kind:
            return argument
        raise TypedPythonError(f"{type_name(argument)} where {kind.__name__} is wanted: cast it")

    def stored(self, argument: Argument, kind: ir.ValueType) -> Value:
        """A value as a store of `kind` takes it: any integer is cut to the width."""
        if isinstance(argument, Value) and ir.is_integer(argument.type) and ir.is_integer(kind):
            return self.cast(argument, kind)
        return self.typed(argument, kind)

    def cast(self, argument: Argument, kind: ir.ValueType) -> Value:
        """`kind(argument)`, with the rules of `anyvirt.typed.integers`."""
        if isinstance(argument, int | float):
            return ir.constant(kind(argument))  # type: ignore[arg-type]
        if not isinstance(argument, Value):
            raise TypedPythonError(f"{type_name(argument)} cannot be cast to {kind.__name__}")
        return self.cast_value(argument, kind)

    def compare(self, comparison: str, left: Value, right: Value) -> Value:
        """A comparison (`"<"`, `"=="`, ...) of two values of one type."""
        unsigned, signed, floating = _COMPARISONS[comparison]
        if issubclass(left.type, FixedFloat):
            return self.body.value(f"fcmp {floating} {left.operand}, {right.text}", bool)
        predicate = signed if ir.is_signed(left.type) else unsigned
        return self.body.value(f"icmp {predicate} {left.operand}, {right.text}", bool)

    def negated(self, operator: ast.unaryop, value: Argument) -> Argument:
        """`operator value` for `-`, `+` and `~`."""
        if isinstance(value, int | float):
            return _fold(operator, value)
        if not isinstance(value, Value) or value.type is bool:
            raise TypedPythonError("wants a number")
        if isinstance(operator, ast.UAdd):
            return value
        if issubclass(value.type, FixedFloat):
            if isinstance(operator, ast.Invert):
                raise TypedPythonError("~ wants an integer")
            return self.body.value(f"fneg {value.operand}", value.type)
        llvm = ir.llvm_type(value.type)
        text = f"sub {llvm} 0, {value.text}" if isinstance(operator, ast.USub) else f"xor {value.operand}, -1"
        return self.body.value(text, value.type)

    def operate(self, operator: ast.operator, left: Argument, right: Argument) -> Argument:
        """`left operator right`."""
        if isinstance(left, int | float) and isinstance(right, int | float):
            return _fold(operator, left, right)
        if type(operator) in _SHIFTS:
            return self._shift(operator, left, right)
        a, b = self.same_type(left, right)
        names = _ARITHMETIC.get(type(operator))
        if names is None or a.type is bool:
            raise TypedPythonError(f"{construct(operator)} of {a.type.__name__} cannot be compiled")
        name = names[2] if issubclass(a.type, FixedFloat) else names[1 if ir.is_signed(a.type) else 0]
        if not name:
            raise TypedPythonError(f"{construct(operator)} is not defined for {a.type.__name__}")
        if isinstance(operator, ast.FloorDiv | ast.Mod):
            return self._divide(name, a, b)
        return self.body.value(f"{name} {a.operand}, {b.text}", a.type)

    def _shift(self, operator: ast.operator, left: Argument, right: Argument) -> Value:
        if not isinstance(left, Value) or not ir.is_integer(left.type):
            raise TypedPythonError(f"{type_name(left)} cannot be shifted: cast it")
        if isinstance(right, Value) and not ir.is_integer(right.type):
            raise TypedPythonError(f"a shift amount cannot be {right.type.__name__}")
        llvm, width = ir.llvm_type(left.type), ir.bit_width(left.type)
        if isinstance(right, int):
            amount = str(right % width)
        else:
            amount = self.body.emit(f"and {llvm} {self.cast_value(right, left.type).text}, {width - 1}")
        name = _SHIFTS[type(operator)][1 if ir.is_signed(left.type) else 0]
        return self.body.value(f"{name} {left.operand}, {amount}", left.type)

    def _divide(self, name: str, a: Value, b: Value) -> Value:
        """Division without undefined cases (see `anyvirt.typed.integers`)."""
        if ir.bit_width(a.type) > 64:
            raise TypedPythonError(f"{a.type.__name__} cannot be divided in compiled code")
        llvm = ir.llvm_type(a.type)
        if b.text.lstrip("-").isdigit() and b.text not in ("0", "-1"):
            return self.body.value(f"{name} {a.operand}, {b.text}", a.type)
        zero = self.body.emit(f"icmp eq {llvm} {b.text}, 0")
        special = zero
        if ir.is_signed(a.type):
            special = self.body.emit(f"or i1 {zero}, {self.body.emit(f'icmp eq {llvm} {b.text}, -1')}")
        divisor = self.body.emit(f"select i1 {special}, {llvm} 1, {llvm} {b.text}")
        ordinary = self.body.emit(f"{name} {llvm} {a.text}, {divisor}")
        if name in ("udiv", "sdiv"):
            if ir.is_signed(a.type):
                minus = self.body.emit(f"sub {llvm} 0, {a.text}")
                ordinary = self.body.emit(f"select i1 {special}, {llvm} {minus}, {llvm} {ordinary}")
            return self.body.value(f"select i1 {zero}, {llvm} -1, {llvm} {ordinary}", a.type)
        return self.body.value(f"select i1 {zero}, {llvm} {a.text}, {llvm} {ordinary}", a.type)

    def same_type(self, left: Argument, right: Argument) -> tuple[Value, Value]:
        """Two operands of one type; a plain number takes the type of the other."""
        if isinstance(left, int | float) and isinstance(right, Value):
            return ir.literal(left, right.type), right
        if isinstance(right, int | float) and isinstance(left, Value):
            return left, ir.literal(right, left.type)
        if not isinstance(left, Value) or not isinstance(right, Value) or left.type is not right.type:
            raise TypedPythonError(f"{type_name(left)} meets {type_name(right)}: cast one of them")
        return left, right

    def compare_operands(self, operator: ast.cmpop, left: Argument, right: Argument) -> Argument:
        """`left operator right` for the six comparisons."""
        if not isinstance(left, Value) and not isinstance(right, Value):
            return _fold(operator, left, right)
        return self.compare(_COMPARISON_NAMES[type(operator)], *self.same_type(left, right))

    def membership(self, left: Argument, right: Argument, inverted: bool) -> Argument:
        """`in` a tuple: equality with any of its elements."""
        if not isinstance(right, tuple):
            raise TypedPythonError("`in` wants a tuple of numbers on its right")
        found: Argument = False
        for element in right:
            equal = self.compare_operands(ast.Eq(), left, element)
            if equal is True or found is True:
                found = True
            elif equal is not False:
                found = (
                    equal if found is False else self.body.value(f"or i1 {found.text}, {equal.text}", bool)
                )
        if not inverted:
            return found
        return not found if isinstance(found, bool) else self.body.value(f"xor i1 {found.text}, true", bool)

    def cast_value(self, value: Value, kind: ir.ValueType) -> Value:
        """The cast of a run-time value."""
        source, target = ir.llvm_type(value.type), ir.llvm_type(kind)
        if kind is bool and value.type is not bool:
            raise TypedPythonError(f"{value.type.__name__} is no condition: compare it (with `!= 0`)")
        if source == target:
            return Value(value.text, kind)
        if issubclass(kind, FixedFloat):
            if issubclass(value.type, FixedFloat):
                name = "fpext" if ir.bit_width(kind) > ir.bit_width(value.type) else "fptrunc"
            else:
                name = "sitofp" if ir.is_signed(value.type) else "uitofp"
        elif issubclass(value.type, FixedFloat):
            suffix = "f32" if value.type is typed.f32 else "f64"
            sign = "s" if ir.is_signed(kind) else "u"
            return self.body.value(
                f"call {target} @llvm.fpto{sign}i.sat.{target}.{suffix}({value.operand})", kind
            )
        elif ir.bit_width(kind) < ir.bit_width(value.type):
            name = "trunc"
        else:
            name = "sext" if ir.is_signed(value.type) else "zext"
        return self.body.value(f"{name} {value.operand} to {target}", kind)


def _fold(operator: ast.AST, *operands: Argument) -> Argument:
    """The result of an operation on numbers known when compiling."""
    compute = _CONSTANT_OPERATORS.get(type(operator))
    if compute is None:
        raise TypedPythonError(f"{construct(operator)} cannot be compiled")
    try:
        return compute(*operands)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise TypedPythonError(f"{construct(operator)} of constants: {error}") from None


def type_name(value: Argument) -> str:
    """The type of an operand, for messages."""
    return value.type.__name__ if isinstance(value, Value) else type(value).__name__


def construct(node: ast.AST) -> str:
    """What Python calls a piece of syntax, for messages."""
    return type(node).__name__
