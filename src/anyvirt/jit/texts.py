"""Texts, bytes that end with a zero byte, in the memory of programs in typed Python."""

from anyvirt.typed import load8, range, store8, u8, u64


def length(string: u64) -> u64:
    """Bytes before the zero byte that ends a text."""
    end = string
    while load8(end) != 0:
        end += 1
    return end - string


def append(end: u64, string: u64) -> u64:
    """Copy a text to `end`; return the new end, where its zero byte is."""
    size = length(string)
    for index in range(size + 1):
        store8(end + index, load8(string + index))
    return end + size


def append_number(end: u64, value: u64) -> u64:
    """Write a number in decimal and a zero byte to `end`; return the new end, where the zero byte is."""
    digits = u64(1)
    rest = value // 10
    while rest != 0:
        digits += 1
        rest = rest // 10
    rest = value
    for index in range(digits):
        store8(end + digits - 1 - index, u8(rest % 10) + 48)
        rest = rest // 10
    store8(end + digits, u8(0))
    return end + digits


def same(one: u64, other: u64) -> bool:
    """Whether two texts are the same."""
    position = u64(0)
    while load8(one + position) == load8(other + position):
        if load8(one + position) == 0:
            return True
        position += 1
    return False
