"""What decides about the meaning of an instruction besides its own bytes: the processor's mode, and prefixes.

All of it is a number, the context: fields beside each other. Patterns ask for values of fields (`when`) and
take bits of operands from them (`extension`). Some fields follow from others: the size of operands from the
mode and two prefixes, for instance. They are computed when the prefixes have been read.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from anyvirt.isa.fields import CONTEXT, MODE, PREFIX_COUNT, DescriptionError, Part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

WINDOW = 16
"""Bytes from its first one on that are enough to decode an instruction."""
_BITS = 32
"""Bits a context may have: the decoder compares them together with the first four bytes."""
_MOST_PREFIXES = 5
"""As many as `prefixes_for` finds."""


@dataclass(frozen=True)
class ContextField:
    """A field of the context; `values[code]` is what the number `code` in its bits means."""

    name: str
    position: int
    values: tuple[int, ...]

    @property
    def width(self) -> int:
        """Bits."""
        return max(len(self.values) - 1, 1).bit_length()

    @property
    def padded(self) -> tuple[int, ...]:
        """A value for each code, also for those that never occur."""
        return self.values + self.values[:1] * ((1 << self.width) - len(self.values))

    @property
    def mask(self) -> int:
        """The bits of the field in a context."""
        return (1 << self.width) - 1 << self.position

    def code(self, value: int) -> int:
        """A value as bits of a context. Raises DescriptionError."""
        if value not in self.values:
            raise DescriptionError(f"{self.name} is never {value}")
        return self.values.index(value) << self.position


@dataclass(frozen=True)
class Prefix:
    """A byte in front of an instruction that changes the context."""

    mask: int
    match: int
    clears: int
    sets: int
    taken: tuple[tuple[int, ContextField], ...]
    """Bits of the byte that become fields of one bit."""
    condition: tuple[int, int]
    """Mask and match of the context in which the byte is this prefix."""
    last: bool
    """It means nothing unless it is the last one."""

    @property
    def fields(self) -> int:
        """Bits of the context that it sets."""
        return self.clears | sum(field.mask for _, field in self.taken)

    def bytes(self, open_fields: int, context: int) -> Iterator[int]:
        """The prefix with the fields that it takes as a context has them, the open ones in either way."""
        chosen = [bit for bit, field in self.taken if field.mask & open_fields]
        given = sum((context >> field.position & 1) << bit for bit, field in self.taken if bit not in chosen)
        for values in itertools.product((0, 1), repeat=len(chosen)):
            yield self.match | given | sum(value << bit for value, bit in zip(values, chosen, strict=True))

    def apply(self, context: int, byte: int) -> int:
        """The context behind the prefix."""
        context = context & ~self.clears | self.sets
        for bit, field in self.taken:
            context = context & ~field.mask | (byte >> bit & 1) << field.position
        return context


@dataclass(frozen=True)
class Derived:
    """A field that follows from others: its code for each combination of theirs."""

    field: ContextField
    sources: tuple[ContextField, ...]
    codes: tuple[int, ...]
    """By the codes of the sources beside each other, the first one lowest."""

    def index(self, context: int) -> int:
        """Which combination the sources have."""
        index, position = 0, 0
        for source in self.sources:
            index |= (context & source.mask) >> source.position << position
            position += source.width
        return index

    def apply(self, context: int) -> int:
        """The context with the field computed."""
        return context & ~self.field.mask | self.codes[self.index(context)] << self.field.position


class Context:
    """The fields, prefixes and modes of an instruction set whose instructions are streams of bytes."""

    def __init__(self, modes: Sequence[int], longest: int) -> None:
        """`modes` are the values of the state `mode`; `longest` is the greatest length in bytes."""
        self.modes = tuple(modes)
        self.longest = longest
        self.fields: dict[str, ContextField] = {}
        self.prefixes: list[Prefix] = []
        self.derived: list[Derived] = []
        self._used = PREFIX_COUNT.width
        self.field(MODE, self.modes)

    # Declarations ---------------------------------------------------------------------------------------

    def field(self, name: str, values: Sequence[int] = (0, 1)) -> ContextField:
        """Declare a field; the first of its values is the one without prefixes."""
        added = ContextField(name, self._used, tuple(values))
        self._used += added.width
        if self._used > _BITS:
            raise DescriptionError(f"a context has {_BITS} bits, which leaves none for {name}")
        self.fields[name] = added
        return added

    def prefix(
        self, bits: str, *, when: Mapping[str, int] | None = None, last: bool = False, **sets: int
    ) -> None:
        """Declare a prefix byte: names in `bits` are fields of one bit, `sets` gives others their values."""
        mask, match, taken, position = 0, 0, [], 8
        for token in re.findall(r"[01]|[a-z]\w*", bits):
            position -= 1
            if token in "01":
                mask |= 1 << position
                match |= int(token) << position
            else:
                taken.append((position, self.fields[token]))
        if position:
            raise DescriptionError(f"the prefix {bits} has {8 - position} bits")
        clears = sum(self.fields[name].mask for name in sets)
        codes = sum(self.fields[name].code(value) for name, value in sets.items())
        self.prefixes.append(
            Prefix(mask, match, clears, codes, tuple(taken), self.condition(when or {}), last)
        )

    def derive(
        self, name: str, values: Sequence[int], sources: Sequence[str]
    ) -> Callable[[Callable[..., int]], Callable[..., int]]:
        """Declare a field computed by the function that follows from the values of other fields."""

        def register(function: Callable[..., int]) -> Callable[..., int]:
            field = self.field(name, values)
            fields = tuple(self.fields[source] for source in sources)
            spaces = [each.padded for each in fields]
            codes = tuple(
                field.code(function(*reversed(combination))) >> field.position
                for combination in itertools.product(*reversed(spaces))
            )
            self.derived.append(Derived(field, fields, codes))
            return function

        return register

    # Use ------------------------------------------------------------------------------------------------

    @property
    def only_last(self) -> int:
        """Bits that only a last prefix may leave behind."""
        return sum(prefix.fields for prefix in self.prefixes if prefix.last)

    def condition(self, when: Mapping[str, int]) -> tuple[int, int]:
        """Mask and match of a context whose fields have the given values."""
        return (
            sum(self.fields[name].mask for name in when),
            sum(self.fields[name].code(value) for name, value in when.items()),
        )

    def start(self, mode: int) -> int:
        """The context before the first byte."""
        return self.fields[MODE].code(mode)

    def parts(self, names: Sequence[str], target: int) -> Iterator[Part]:
        """Where a word has these fields, whose bits are those from `target` up of an operand."""
        for name in names:
            field = self.fields[name]
            yield Part(CONTEXT + field.position, target, field.width)
            target += field.width

    def read(self, code: bytes, mode: int) -> tuple[int, int] | None:
        """The context behind the prefixes of an instruction, and their number; None if there is no end."""
        context = self.start(mode)
        for count, byte in enumerate(code[: self.longest]):
            prefix = self._prefix(byte, context)
            if prefix is None:
                return self._complete(context) | count, count
            context = self._after(prefix, context, byte)
        return None

    def _prefix(self, byte: int, context: int) -> Prefix | None:
        for prefix in self.prefixes:
            mask, match = prefix.condition
            if byte & prefix.mask == prefix.match and context & mask == match:
                return prefix
        return None

    @cache  # noqa: B019 - a context lives as long as its instruction set
    def prefixes_for(self, mask: int, match: int, mode: int) -> bytes | None:
        """The fewest prefixes after which `context & mask == match`; None if there are none."""
        counted = (1 << PREFIX_COUNT.width) - 1
        mask, match = mask & ~counted, match & ~counted
        choices = self._choices(mask, match)
        for count in range(min(len(choices), _MOST_PREFIXES) + 1):
            for chosen in itertools.combinations(choices, count):
                code = bytes(chosen)
                found = self._behind(code, mode)
                if found is not None and found & mask == match:
                    return code
        return None

    def _behind(self, prefixes: bytes, mode: int) -> int | None:
        """The context behind bytes that should be prefixes; None if they are not."""
        context = self.start(mode)
        for byte in prefixes:
            prefix = self._prefix(byte, context)
            if prefix is None:
                return None
            context = self._after(prefix, context, byte)
        return self._complete(context)

    def _after(self, prefix: Prefix, context: int, byte: int) -> int:
        return prefix.apply(context if prefix.last else context & ~self.only_last, byte)

    def _complete(self, context: int) -> int:
        for derived in self.derived:
            context = derived.apply(context)
        return context

    def _choices(self, mask: int, match: int) -> list[int]:
        """Bytes that may be needed: one for each prefix that helps, with its fields as a context has them."""
        useful = mask
        for derived in self.derived:
            if derived.field.mask & mask:
                useful |= sum(source.mask for source in derived.sources)
        return [
            byte
            for prefix in self.prefixes
            if prefix.fields & useful
            for byte in prefix.bytes(useful & ~mask, match)
            if not (prefix.apply(match, byte) ^ match) & mask
        ]
