"""Expressions of the assembler: numbers, symbols, `+ - * << >> & | ^ ~` and parentheses, as in C."""

from __future__ import annotations

import ast
import operator
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_TOKEN = re.compile(
    r"\s*(?:(?P<number>0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+|\d+)(?!\w)"
    r"|(?P<symbol>[A-Za-z_.$][\w.$]*)|(?P<operator><<|>>|[-+*&|^~()]))\s*"
)
_BINARY: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.RShift: operator.rshift,
}
_UNARY: dict[type[ast.unaryop], Callable[[int], int]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
}
_MOST_SHIFTED = 1024


class ExpressionError(Exception):
    """A text that is no number: why, in a few words."""


def evaluate(text: str, symbols: Mapping[str, int], unknown: int | None = None) -> int:
    """The value of an expression; symbols that nobody knows have the value `unknown` if that is given.

    Raises ExpressionError.
    """
    words, position = [], 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            raise ExpressionError(f"{text!r} is no number")
        words.append(_word(token, symbols, unknown))
        position = token.end()
    try:
        tree = ast.parse("".join(words).strip() or "?", mode="eval")
    except (SyntaxError, RecursionError):
        raise ExpressionError(f"{text!r} is no number") from None
    return _value(tree.body, text)


def _word(token: re.Match[str], symbols: Mapping[str, int], unknown: int | None) -> str:
    if token["number"]:
        number = token["number"]
        # Leading zeros are allowed, and do not mean octal.
        return f" {int(number) if number.isdecimal() else int(number, 0)} "
    if token["operator"]:
        return f" {token['operator']} "
    value = symbols.get(token["symbol"], unknown)
    if value is None:
        raise ExpressionError(f"there is no {token['symbol']}")
    return f" ({value}) "


def _value(node: Any, text: str) -> int:  # noqa: ANN401 - any node of an expression
    match node:
        case ast.Constant(value=int() as number):
            return number
        case ast.UnaryOp(op=op, operand=operand):
            if type(op) in _UNARY:
                return _UNARY[type(op)](_value(operand, text))
        case ast.BinOp(left=left, op=ast.LShift(), right=right):
            distance = _value(right, text)
            if 0 <= distance < _MOST_SHIFTED:
                return _value(left, text) << distance
        case ast.BinOp(left=left, op=op, right=right):
            if type(op) in _BINARY:
                try:
                    return _BINARY[type(op)](_value(left, text), _value(right, text))
                except ValueError:
                    pass
    raise ExpressionError(f"{text!r} is no number")
