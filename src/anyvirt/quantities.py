"""Quantities as people write them: sizes (`512M`), CPU shares (`1.5`), durations (`30s`)."""

from __future__ import annotations

import math
import re

from anyvirt.errors import UsageError

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)


def parse_size(text: str, *, what: str = "size") -> int:
    """Bytes in `text`: a number with an optional binary unit K, M, G or T (`512M`, `1.5GiB`, `65536`).

    Raises UsageError, naming `what`, for anything else, for zero and for more than 2**63 - 1 bytes.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"{what} {text!r} is not a size: write a number with an optional K, M, G or T, as in 512M"
        )
    size = (
        int(float(match[1]) * _UNITS[match[2].upper()])
        if "." in match[1]
        else int(match[1]) * _UNITS[match[2].upper()]
    )
    if not 0 < size < 1 << 63:
        raise UsageError(f"{what} {text!r} is out of range: it must be at least one byte and below 8 EiB")
    return size


def parse_cpus(text: str) -> float:
    """A number of CPUs, possibly fractional (`0.5`, `2`). Raises UsageError outside 0.01 … 4096."""
    try:
        cpus = float(text)
    except ValueError:
        cpus = math.nan
    if not 0.01 <= cpus <= 4096:
        raise UsageError(f"CPU count {text!r} is not a number between 0.01 and 4096, as in 1.5")
    return cpus


def format_size(size: float) -> str:
    """`size` in bytes for a reader: `512 B`, `1.5 KiB`, `64.0 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def format_duration(seconds: float) -> str:
    """`seconds` for a reader, with three digits: `12.3 µs`, `4.56 ms`, `1.23 s`."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(seconds) >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
