"""Expressions of the debugger's user: numbers, registers, symbols and memory, joined as in C.

    start_kernel + 4        $a0 == 3 && u32(counter) > 10        *($sp + 8)

Everything is an unsigned number of 64 bits; `*` and `u64()` read memory as the hart sees it, as do `u8`,
`u16` and `u32`, and `s8` to `s32` with their sign.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from anyvirt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Names(Protocol):
        """Where the values of an expression come from."""

        def register(self, name: str) -> int | None:
            """The value of a register; None if there is none of that name."""

        def symbol(self, name: str) -> int | None:
            """The address of a symbol; None if there is none of that name."""

        def load(self, address: int, size: int) -> int:
            """Memory, unsigned. Raises AnyvirtError."""


_MASK = (1 << 64) - 1
_TOKEN = re.compile(
    r"\s*(?:(0[xX][0-9a-fA-F]+|0[bB][01]+|\d+)|(\$?[A-Za-z_][\w.@$]*)"
    r"|(<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^~!<>()]))"
)
_DEEPEST = 50
_BINARY: dict[str, tuple[int, Callable[[int, int], int]]] = {
    "||": (1, lambda a, b: int(bool(a or b))),
    "&&": (2, lambda a, b: int(bool(a and b))),
    "|": (3, lambda a, b: a | b),
    "^": (4, lambda a, b: a ^ b),
    "&": (5, lambda a, b: a & b),
    "==": (6, lambda a, b: int(a == b)),
    "!=": (6, lambda a, b: int(a != b)),
    "<": (7, lambda a, b: int(a < b)),
    ">": (7, lambda a, b: int(a > b)),
    "<=": (7, lambda a, b: int(a <= b)),
    ">=": (7, lambda a, b: int(a >= b)),
    "<<": (8, lambda a, b: a << (b & 63)),
    ">>": (8, lambda a, b: a >> (b & 63)),
    "+": (9, lambda a, b: a + b),
    "-": (9, lambda a, b: a - b),
    "*": (10, lambda a, b: a * b),
    "/": (10, lambda a, b: a // b),
    "%": (10, lambda a, b: a % b),
}
"""How tightly each operator binds, and what it does."""
_UNARY: dict[str, Callable[[int], int]] = {
    "+": lambda a: a,
    "-": lambda a: -a,
    "~": lambda a: ~a,
    "!": lambda a: int(not a),
}
_READERS = {f"{sign}{8 * size}": (size, sign == "s") for size in (1, 2, 4, 8) for sign in "us"}


def evaluate(text: str, names: Names) -> int:
    """The value of an expression. Raises UsageError, and what memory raises."""
    return Expression(text).value(names)


class Expression:
    """An expression that may be evaluated many times, such as a condition."""

    def __init__(self, text: str) -> None:
        """Raises UsageError for what is no expression."""
        self.text = text.strip()
        self._tokens = _tokens(self.text)
        if not self._tokens:
            raise UsageError("an expression is missing")

    def value(self, names: Names) -> int:
        """Raises UsageError for names that are not there, AnyvirtError for memory."""
        parser = _Parser(self._tokens, self.text, names)
        result = parser.binary(0, 0)
        parser.finish()
        return result


def _tokens(text: str) -> list[str]:
    tokens, position = [], 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise UsageError(f"{text!r} is no expression: {text[position:].strip()!r} is not understood")
        tokens.append(match[0].strip())
        position = match.end()
    return tokens


class _Parser:
    def __init__(self, tokens: list[str], text: str, names: Names) -> None:
        self._tokens = tokens
        self._text = text
        self._names = names
        self._position = 0

    def finish(self) -> None:
        if self._position < len(self._tokens):
            raise self._error(f"{self._tokens[self._position]!r} is out of place")

    def binary(self, loosest: int, depth: int) -> int:
        left = self._unary(depth)
        while (operator := self._next()) in _BINARY and _BINARY[operator][0] > loosest:
            self._position += 1
            binding, function = _BINARY[operator]
            right = self.binary(binding, depth + 1)
            try:
                left = function(left, right) & _MASK
            except ZeroDivisionError:
                raise self._error("it divides by 0") from None
        return left

    def _unary(self, depth: int) -> int:
        if depth > _DEEPEST:
            raise self._error("it is nested too deeply")
        token = self._next()
        self._position += 1
        match token:
            case "":
                raise self._error("its end is missing")
            case "(":
                inner = self.binary(0, depth + 1)
                self._expect(")")
                return inner
            case "*":
                return self._names.load(self._unary(depth + 1), 8)
        if token in _UNARY:
            return _UNARY[token](self._unary(depth + 1)) & _MASK
        return self._operand(token, depth)

    def _operand(self, token: str, depth: int) -> int:
        if token[0].isdigit():
            return int(token, 0 if token[:2].lower() in ("0x", "0b") else 10) & _MASK
        if token in _READERS and self._next() == "(":
            size, signed = _READERS[token]
            value = self._names.load(self._unary(depth + 1), size)
            return (value - (value >> 8 * size - 1 << 8 * size)) & _MASK if signed else value
        value_of_register = self._names.register(token.removeprefix("$"))
        if value_of_register is not None:
            return value_of_register
        address = None if token.startswith("$") else self._names.symbol(token)
        if address is None:
            kind = "register" if token.startswith("$") else "register or symbol"
            raise UsageError(f"there is no {kind} {token}")
        return address

    def _next(self) -> str:
        return self._tokens[self._position] if self._position < len(self._tokens) else ""

    def _expect(self, token: str) -> None:
        if self._next() != token:
            raise self._error(f"{token!r} is missing")
        self._position += 1

    def _error(self, why: str) -> UsageError:
        return UsageError(f"{self._text!r} is no expression: {why}")
