"""Where anyvirt keeps what outlives a run: one directory per user, and nothing anywhere else."""

from __future__ import annotations

import os
from pathlib import Path


def state_directory() -> Path:
    """`$ANYVIRT_STATE`, else `$XDG_STATE_HOME/anyvirt`, else `~/.local/state/anyvirt`.

    It is created, private to the user, on first use.
    """
    given = os.environ.get("ANYVIRT_STATE")
    if given:
        directory = Path(given)
    else:
        base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
        directory = Path(base, "anyvirt")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def cache_directory() -> Path:
    """What may be deleted at any time without loss: compiled code and compiled workloads."""
    directory = state_directory() / "cache"
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory


def instances_directory() -> Path:
    """One directory for each instance that is alive or was not yet cleaned up after."""
    directory = state_directory() / "instances"
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory
