"""The host's processes: who has started whom."""

from __future__ import annotations

from pathlib import Path


def descendants(root: int) -> set[int]:
    """Process `root` and everything it started, directly or not."""
    parents = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                fields = (path / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(path.name)] = int(fields[1])
    found = {root}
    while more := {process for process, parent in parents.items() if parent in found} - found:
        found |= more
    return found
