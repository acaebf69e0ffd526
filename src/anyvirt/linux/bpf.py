"""Classic BPF, the language of seccomp filters: instructions, and decisions by value as search trees.

A program is a list of instructions (code, jump if true, jump if false, constant); jumps count the
instructions they skip (Documentation/networking/filter.rst).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

Instruction = tuple[int, int, int, int]
Program = list[Instruction]

_LOAD_WORD = 0x20
_AND = 0x54
_JUMP = 0x05
_JUMP_EQUAL = 0x15
_JUMP_GREATER_OR_EQUAL = 0x35
_RETURN = 0x06
_FARTHEST = 255


def load(offset: int) -> Program:
    """Load the 32-bit word at `offset` of the data."""
    return [(_LOAD_WORD, 0, 0, offset)]


def mask(bits: int) -> Program:
    """Keep only `bits` of the loaded word."""
    return [(_AND, 0, 0, bits)]


def give(result: int) -> Program:
    """End with `result`."""
    return [(_RETURN, 0, 0, result)]


def if_equal(value: int, then: Program, otherwise: Program) -> Program:
    """Run `then` if the loaded word is `value`, else `otherwise`; both must end with a result."""
    return _branch((_JUMP_EQUAL, value), then, otherwise)


def search(starts: Sequence[int], leaves: Sequence[Program]) -> Program:
    """Run the leaf whose range holds the loaded word, found by bisection.

    Leaf i serves the values from `starts[i]` up to `starts[i + 1]`; `starts` ascends from 0, and every leaf
    ends with a result.
    """
    if len(leaves) == 1:
        return leaves[0]
    middle = len(leaves) // 2
    return _branch(
        (_JUMP_GREATER_OR_EQUAL, starts[middle]),
        search(starts[middle:], leaves[middle:]),
        search(starts[:middle], leaves[:middle]),
    )


def assemble(program: Program) -> bytes:
    """The program as an array of struct sock_filter."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _branch(test: tuple[int, int], then: Program, otherwise: Program) -> Program:
    code, value = test
    skipped = len(otherwise)
    if skipped <= _FARTHEST:
        return [(code, skipped, 0, value), *otherwise, *then]
    return [(code, 0, 1, value), (_JUMP, 0, 0, skipped), *otherwise, *then]
