"""Unpredictable branches: an interpreter of a small bytecode that counts primes by trial division.

Each instruction is a 32-bit word: an operation and three bytes of operands. The interpreter's dispatch is
what compilers make of a long chain of comparisons: an indirect jump for each instruction.
"""

from enum import IntEnum

from anyvirt.compare.workloads.runtime import allocate, begin, finish
from anyvirt.jit.system import text
from anyvirt.typed import load32, load64, range, store32, store64, u32, u64

LIMIT = 500
PRIMES = 95
"""How many primes are below LIMIT."""


class Operation(IntEnum):
    """The operations, on registers a, b and c."""

    HALT = 0
    SET = 1  # a = the number b + 256 c
    ADD = 2  # a = b + c
    MULTIPLY = 3  # a = b * c
    REMAINDER = 4  # a = b % c
    JUMP = 5  # go to instruction c
    JUMP_IF_ZERO = 6  # if a == 0 go to instruction c
    JUMP_IF_LESS = 7  # if a < b go to instruction c


def _word(operation: Operation, a: int = 0, b: int = 0, c: int = 0) -> u32:
    return u32(operation | a << 8 | b << 16 | c << 24)


_NUMBER, _LIMIT, _DIVISOR, _SQUARE, _REST, _COUNT, _ONE = 0, 1, 2, 3, 4, 5, 6
_NEXT_NUMBER, _FIRST_DIVISOR, _NEXT_DIVISOR, _PRIME, _COMPOSITE = 4, 6, 7, 13, 14

BYTECODE = (
    _word(Operation.SET, _NUMBER, 2),
    _word(Operation.SET, _LIMIT, LIMIT % 256, LIMIT // 256),
    _word(Operation.SET, _COUNT, 0),
    _word(Operation.SET, _ONE, 1),
    # _NEXT_NUMBER:
    _word(Operation.JUMP_IF_LESS, _NUMBER, _LIMIT, _FIRST_DIVISOR),
    _word(Operation.HALT),
    # _FIRST_DIVISOR:
    _word(Operation.SET, _DIVISOR, 2),
    # _NEXT_DIVISOR:
    _word(Operation.MULTIPLY, _SQUARE, _DIVISOR, _DIVISOR),
    _word(Operation.JUMP_IF_LESS, _NUMBER, _SQUARE, _PRIME),
    _word(Operation.REMAINDER, _REST, _NUMBER, _DIVISOR),
    _word(Operation.JUMP_IF_ZERO, _REST, 0, _COMPOSITE),
    _word(Operation.ADD, _DIVISOR, _DIVISOR, _ONE),
    _word(Operation.JUMP, 0, 0, _NEXT_DIVISOR),
    # _PRIME:
    _word(Operation.ADD, _COUNT, _COUNT, _ONE),
    # _COMPOSITE:
    _word(Operation.ADD, _NUMBER, _NUMBER, _ONE),
    _word(Operation.JUMP, 0, 0, _NEXT_NUMBER),
)


_INSTRUCTIONS = len(BYTECODE)


def main(count: u64, arguments: u64) -> u64:
    """Interpret the bytecode from its beginning once in each round."""
    rounds = begin(text(b"branches "), count, arguments)
    code = allocate(u64(4096))
    registers = code + 2048
    for index in range(u64(0), u64(_INSTRUCTIONS)):
        store32(code + index * 4, BYTECODE[index])
    wrong = u64(0)
    for _ in range(rounds):
        interpret(code, registers)
        if load64(registers + _COUNT * 8) != PRIMES:
            wrong += 1
    return finish(wrong, rounds)


def interpret(code: u64, registers: u64) -> None:
    """Execute instructions until HALT."""
    place = code
    while True:
        word = load32(place)
        place += 4
        operation = word & 255
        a = registers + u64(word >> 8 & 255) * 8
        b = registers + u64(word >> 16 & 255) * 8
        c = registers + u64(word >> 24) * 8
        if operation == Operation.SET:
            store64(a, u64(word >> 16))
        elif operation == Operation.ADD:
            store64(a, load64(b) + load64(c))
        elif operation == Operation.MULTIPLY:
            store64(a, load64(b) * load64(c))
        elif operation == Operation.REMAINDER:
            store64(a, load64(b) % load64(c))
        elif operation == Operation.JUMP:
            place = code + u64(word >> 24) * 4
        elif operation == Operation.JUMP_IF_ZERO:
            if load64(a) == 0:
                place = code + u64(word >> 24) * 4
        elif operation == Operation.JUMP_IF_LESS:
            if load64(a) < load64(b):
                place = code + u64(word >> 24) * 4
        else:
            return
