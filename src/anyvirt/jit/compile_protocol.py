"""What a guest's process and the compiler of its regions say to each other over a local socket.

A message is its length, a JSON header and bytes: of a request, pages of code; of a reply, an image. Both
sides belong to the same user and check every size all the same.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from anyvirt.jit.guest_code import region_kind

if TYPE_CHECKING:
    from collections.abc import Iterator

_LENGTHS = struct.Struct("<II")
LARGEST_MESSAGE = 64 << 20


class ProtocolError(Exception):
    """Bytes that are no message."""


@dataclass(frozen=True)
class Request:
    """Compile the region around `entry`."""

    number: int
    isa: str
    entry: int
    counted: bool
    memory_size: int
    memory: str = "flat"
    """The memory model."""
    rounding: int = 0
    paged: bool = False
    """Addresses are translated: those of the request are good for this request only, and the region can be
    executed at any others. Needs memory "machine"."""
    alone: bool = False
    """Nobody else has the memory, so that atomic operations need not be."""
    limit: int = 320
    """Most instructions of the region."""
    indirect: dict[int, list[int]] = field(default_factory=dict)
    """Seen targets by the address of the indirect jump, as far as they are new since the last request."""
    barriers: list[int] = field(default_factory=list)
    """Instructions that must not become part of a region."""
    pages: list[int] = field(default_factory=list)
    """Addresses of the pages of code that follow, in the order of their bytes."""
    visited: list[int] = field(default_factory=list)
    """Pages of which follows, after that, what has been decoded: a byte for each place of an instruction."""
    marks: int = 0
    """Bytes for each of them."""

    @property
    def kind(self) -> str:
        """What decides about a region besides the code: the name of the cache that it belongs to."""
        return region_kind(
            self.isa,
            self.memory,
            counted=self.counted,
            memory_size=self.memory_size,
            rounding=self.rounding,
            alone=self.alone,
        )


@dataclass(frozen=True)
class Reply:
    """A region, or the news that there is none."""

    number: int
    entry: int
    ranges: list[tuple[int, int]] = field(default_factory=list)
    """Addresses of the instructions in it, as (start, end)."""
    digest: str = ""
    """Of the code in the ranges; see `anyvirt.jit.guest_code`."""
    instructions: int = 0
    cut: bool = False
    """The limit on its size has kept instructions out of it."""


def pack(message: Request | Reply, payload: bytes = b"") -> bytes:
    """The bytes of a message."""
    header = json.dumps(vars(message)).encode()
    return _LENGTHS.pack(len(header), len(payload)) + header + payload


def unpack_request(header: dict[str, Any]) -> Request:
    """The request with this header. Raises ProtocolError."""
    try:
        indirect = {int(source): list(targets) for source, targets in header.pop("indirect").items()}
        request = Request(**header, indirect=indirect)
        sound = _is_sound(request)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ProtocolError(str(error)) from None
    if not sound:
        raise ProtocolError("a request with a value of the wrong kind")
    return request


def _is_sound(request: Request) -> bool:
    """Whether everything in a request is of its type; JSON would let anything pass."""
    numbers: list[object] = [*request.barriers, *request.pages, *request.visited, *request.indirect]
    for targets in request.indirect.values():
        numbers += targets
    for name, value in asdict(request).items():
        if Request.__dataclass_fields__[name].type == "int":
            numbers.append(value)
    return (
        isinstance(request.isa, str)
        and isinstance(request.memory, str)
        and isinstance(request.counted, bool)
        and isinstance(request.alone, bool)
        and isinstance(request.paged, bool)
        and (not request.paged or request.memory == "machine")
        and all(type(number) is int and 0 <= number < 1 << 64 for number in numbers)
    )


def unpack_reply(header: dict[str, Any]) -> Reply:
    """The reply with this header. Raises ProtocolError."""
    try:
        ranges = [(int(start), int(end)) for start, end in header.pop("ranges")]
        return Reply(**header, ranges=ranges)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ProtocolError(str(error)) from None


class Unpacker:
    """Cuts a stream into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[dict[str, Any], bytes]]:
        """The headers and payloads that are complete with `data`. Raises ProtocolError."""
        self._buffer += data
        while len(self._buffer) >= _LENGTHS.size:
            header_size, payload_size = _LENGTHS.unpack_from(self._buffer)
            end = _LENGTHS.size + header_size + payload_size
            if end > LARGEST_MESSAGE:
                raise ProtocolError(f"a message of {end} bytes")
            if len(self._buffer) < end:
                return
            middle = _LENGTHS.size + header_size
            try:
                header = json.loads(self._buffer[_LENGTHS.size : middle])
            except (ValueError, RecursionError) as error:
                raise ProtocolError(str(error)) from None
            payload = bytes(self._buffer[middle:end])
            del self._buffer[:end]
            yield header, payload
