"""The code of a guest as what translations are made from: the digest by which they are known to be true."""

from __future__ import annotations

# hashlib would load OpenSSL, which costs more than a short program's whole run.
from _blake2 import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

DIGEST_SIZE = 16


def code_digest(ranges: Iterable[tuple[int, int]], read_code: Callable[[int, int], bytes | None]) -> str:
    """A digest of the guest's code in ranges (start, end), empty if some of it cannot be executed."""
    digest = blake2b(digest_size=DIGEST_SIZE)
    for start, end in ranges:
        code = read_code(start, end - start)
        if code is None:
            return ""
        digest.update(code)
    return digest.hexdigest()


def region_kind(isa: str, memory: str, *, counted: bool, memory_size: int, rounding: int, alone: bool) -> str:
    """The name of all regions that can serve each other's purpose, at one version of the compiler."""
    from anyvirt.jit.cache import version

    return f"{version()} {isa} {memory} {counted} {memory_size} {rounding} {alone}"
