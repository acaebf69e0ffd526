"""Which pattern an encoded instruction is, and whether patterns leave any doubt about that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.isa.fields import CONTEXT, DescriptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from anyvirt.isa.fields import Exclusion
    from anyvirt.isa.patterns import Bits, Form, Pattern

_FEW = 4
"""Patterns that are compared one after the other."""


class PatternIndex:
    """A tree over the bits that most patterns fix; its nodes are made when they are needed."""

    def __init__(self, patterns: list[Pattern], seen: int = 0) -> None:
        """`patterns` come in the order in which they are compared; `seen` bits have been looked at."""
        self._patterns = patterns
        self._bits = _telling_bits(patterns, seen) if len(patterns) > _FEW else 0
        self._seen = seen | self._bits
        self._children: dict[int, PatternIndex] = {}

    def find(self, word: int) -> Pattern | None:
        """The first pattern that matches."""
        if not self._bits:
            return next((pattern for pattern in self._patterns if pattern.matches(word)), None)
        key = word & self._bits
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = PatternIndex(list(self._possible(key)), self._seen)
        return child.find(word)

    def _possible(self, key: int) -> Iterator[Pattern]:
        """Patterns that words with these telling bits can have."""
        for pattern in self._patterns:
            if not (key ^ pattern.match) & pattern.mask & self._bits:
                yield pattern


def _telling_bits(patterns: list[Pattern], seen: int) -> int:
    """A mask of the eight bits that most patterns fix, of those not seen yet."""
    union = 0
    for pattern in patterns:
        union |= pattern.mask
    union &= ~seen
    often = sorted(
        (bit for bit in range(union.bit_length()) if union >> bit & 1),
        key=lambda bit: -sum(pattern.mask >> bit & 1 for pattern in patterns),
    )
    return sum(1 << bit for bit in often[:8])


def check(patterns: Sequence[Pattern], find: Callable[[int, int], Pattern | None]) -> None:
    """Raise DescriptionError unless it is clear for every encoding which pattern is meant."""
    for first, second in _neighbours(patterns):
        _check_pair(first, second)
    for pattern in patterns:
        found = (find(word, pattern.length) for word in _examples(pattern))
        if not any(_is(other, pattern) for other in found):
            raise DescriptionError(
                f"{pattern.assembly!r} ({pattern.source}) is never reached: "
                "more specific patterns and exclusions leave nothing of it"
            )


def check_forms(name: str, forms: Sequence[Form]) -> None:
    """Raise DescriptionError if it is not clear which shape a form has."""
    for position, first in enumerate(forms):
        for second in forms[position + 1 :]:
            a, b = first.bits, second.bits
            common = a.mask & b.mask
            if (a.match ^ b.match) & common or (common in (a.mask, b.mask) and a.mask != b.mask):
                continue
            if not _rejects(first.exclusions, b) and not _rejects(second.exclusions, a):
                raise DescriptionError(f"shapes {first.assembly!r} and {second.assembly!r} of {name} overlap")


def _is(found: Pattern | None, pattern: Pattern) -> bool:
    """Whether a pattern was found, perhaps with the shape of its form."""
    return found is pattern or (found is not None and pattern.form is not None and found.origin is pattern)


def _neighbours(patterns: Sequence[Pattern]) -> Iterator[tuple[Pattern, Pattern]]:
    """Pairs of patterns that agree about what both fix of the first byte."""
    groups: dict[tuple[int, int], list[Pattern]] = {}
    for pattern in patterns:
        groups.setdefault((pattern.mask & 0xFF, pattern.match & 0xFF), []).append(pattern)
    keys = list(groups)
    for position, (mask, match) in enumerate(keys):
        own = groups[mask, match]
        for index, first in enumerate(own):
            yield from ((first, second) for second in own[index + 1 :])
        for other in keys[position + 1 :]:
            if not (match ^ other[1]) & mask & other[0]:
                yield from ((first, second) for first in own for second in groups[other])


def _check_pair(first: Pattern, second: Pattern) -> None:
    if (first.match ^ second.match) & first.mask & second.mask:
        return
    if first.length != second.length and not first.stream:
        return
    common = first.mask & second.mask
    if common in (first.mask, second.mask) and first.mask != second.mask:
        return
    if not _rejects(first.exclusions, second) and not _rejects(second.exclusions, first):
        raise DescriptionError(
            f"{first.assembly!r} ({first.source}) and {second.assembly!r} ({second.source}) overlap"
        )


def _rejects(rules: Iterable[Exclusion], other: Bits | Pattern) -> bool:
    """Whether rules reject everything that `other` matches, by a value that it fixes."""
    return any(_fixes(rule, other.mask) and rule.rejects(other.match) for rule in rules)


def _fixes(rule: Exclusion, mask: int) -> bool:
    bits = sum((1 << part.width) - 1 << part.source for part in rule.operand.parts)
    return bits & mask == bits


def _examples(pattern: Pattern) -> Iterator[int]:
    """Encodings of a pattern: all of them if they are few, otherwise a fixed selection."""
    free = [bit for bit in range(8 * pattern.length) if not pattern.mask >> bit & 1]
    beyond = [pattern.match]
    if pattern.form is not None:
        distance = 8 * pattern.form.position
        beyond = [
            pattern.match
            | (shape.bits.match % (1 << CONTEXT) << distance)
            | shape.bits.match >> CONTEXT << CONTEXT
            for shape in pattern.forms
            if not (shape.bits.match ^ pattern.match) >> CONTEXT & (shape.bits.mask & pattern.mask) >> CONTEXT
        ]
        free = []
    if len(free) <= 8:
        choices: Iterable[int] = range(1 << len(free))
    else:
        # Multiples of an odd number spread over all bits.
        choices = [number * 0x9E3779B97F4A7C15 >> 16 for number in range(256)]
    for match in beyond:
        for choice in choices:
            yield match | sum((choice >> position & 1) << bit for position, bit in enumerate(free))
