"""The table that benchmarks of throughput print: medians, how far they spread, and ratios to QEMU's."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PEER = "QEMU (TCG)"


def print_throughput(
    title: str, parts: Sequence[str], samples: Mapping[str, Sequence[Mapping[str, float]]]
) -> None:
    """Print a row for each contender, from its samples: bytes in a second by part. `PEER` is one of them."""
    base = {part: statistics.median(sample[part] for sample in samples[PEER]) for part in parts}
    print(f"{title}; MiB/s (least to most), x: times QEMU's")
    print(f"{'':14}" + "".join(f"{part:>30}" for part in parts))
    for who, found in samples.items():
        cells = []
        for part in parts:
            values = [sample[part] / 2**20 for sample in found]
            middle = statistics.median(values)
            ratio = middle * 2**20 / base[part]
            cells.append(f"{middle:.1f} ({min(values):.1f}-{max(values):.1f}) {ratio:.2f}x")
        print(f"{who:14}" + "".join(f"{cell:>30}" for cell in cells), flush=True)
