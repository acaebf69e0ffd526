"""System calls as data: each call's name, its arguments' kinds, and how it is served.

Handlers register themselves with `@system_call`; what needs no translation is declared once, by
signature, in `passthrough.PASS_THROUGH`. `table_for` joins both with an ABI's numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, MutableSequence
    from typing import Concatenate

    from anyvirt.linux.emulation.process import Process

    Handler = Callable[Concatenate[Process, ...], int]
    """Serves a system call: its result or a negative errno; may raise GuestFault (EFAULT) and OSError."""
    Service = Callable[[Process, MutableSequence[int]], int]
    """The same with the six raw argument registers, which it may change."""
    HandlerT = TypeVar("HandlerT", bound=Handler)


class Kind(StrEnum):
    """What an argument register holds: it decides conversion, checking and display."""

    INT = "int"
    """A signed 32-bit number."""
    FD = "fd"
    """A file descriptor, or AT_FDCWD."""
    LONG = "long"
    """A signed 64-bit number."""
    SIZE = "size"
    """An unsigned 64-bit number: a length, a count, an offset."""
    FLAGS = "flags"
    """Unsigned, 32 bits, shown in hexadecimal."""
    MODE = "mode"
    """File permissions, shown in octal."""
    SIGNAL = "signal"
    """A signal's number, shown by name."""
    POINTER = "pointer"
    """A guest address, or NULL."""
    BUFFER = "buffer"
    """A guest address of as many bytes as the next argument says."""
    PATH = "path"
    """A guest address of a zero-terminated string."""


POINTERS = frozenset({Kind.POINTER, Kind.BUFFER, Kind.PATH})
_SIGNED_32 = frozenset({Kind.INT, Kind.FD, Kind.SIGNAL})
_UNSIGNED_32 = frozenset({Kind.FLAGS, Kind.MODE})


def signed(value: int, bits: int = 64) -> int:
    """The lowest `bits` of `value` as a two's complement number."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


@dataclass(frozen=True, slots=True, eq=False)
class SystemCall:
    """One call, ready to be served."""

    name: str
    kinds: tuple[Kind, ...]
    serve: Service
    summary: str
    passed: bool
    """Whether the host's kernel serves it with checked pointers and nothing else."""
    restart: bool
    """Whether SA_RESTART restarts it after a handler (signal(7)); others end with EINTR."""


HANDLED: dict[str, SystemCall] = {}


def parse_signature(signature: str) -> tuple[Kind, ...]:
    """The kinds in a signature such as `fd buffer size`."""
    return tuple(Kind(word) for word in signature.split())


def system_call(name: str, signature: str = "", *, restart: bool = False) -> Callable[[HandlerT], HandlerT]:
    """Register the decorated function as the handler of `name`; it gets one converted int per kind."""

    def register(handler: HandlerT) -> HandlerT:
        kinds = parse_signature(signature)
        summary = (handler.__doc__ or "").partition("\n")[0].rstrip(".")
        HANDLED[name] = SystemCall(name, kinds, _converting(kinds, handler), summary, False, restart)
        return handler

    return register


def convert(kind: Kind, value: int) -> int:
    """A raw register as a number of its kind; upper halves that the kernel ignores are dropped."""
    if kind in _SIGNED_32:
        return signed(value, 32)
    if kind in _UNSIGNED_32:
        return value & 0xFFFF_FFFF
    return signed(value) if kind is Kind.LONG else value


def _converting(kinds: tuple[Kind, ...], handler: Handler) -> Service:
    as_they_are = all(kind in POINTERS or kind is Kind.SIZE for kind in kinds)
    count = len(kinds)
    if as_they_are:
        return lambda process, arguments: handler(process, *arguments[:count])
    return lambda process, arguments: handler(process, *map(convert, kinds, arguments))


class RegistersReplaced(Exception):
    """The virtual CPU's registers are already what they have to be: there is no result to store."""
